"""What the four models have in common: requests in, one vectorised call of the library, responses out.

`execute` never raises: a batch that fails is retried row by row, and a row that still fails answers
p = 1 with FAILED in its status. Requests arrive at their own widths (ragged) and leave as views.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.contract import MAX_FEATURE_VALUES, MAX_WINDOW, Model
from tcd.native import library as kernels
from tcd.native.layout import Trusted
from tcd.triton.entry import Entry
from tcd.triton.metrics import ModelMetrics
from tcd.triton.wire import DTYPES

Array = NDArray[np.generic]
Tensors = dict[str, Array]

#: What a count is replaced by when the row's own tensor is too short for it: no width makes it valid.
_INVALID: Final = np.iinfo(np.int32).max


def _read(tensor: Any, *, stays: bool) -> Array:
    """A Triton tensor as an array; one on the GPU through torch, which is imported only then.

    With `stays` it is a torch tensor where it was: the step works on it there.
    """
    if tensor.is_cpu():
        return cast("Array", tensor.as_numpy())
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    found = torch.from_dlpack(tensor.to_dlpack())
    return cast("Array", found if stays else found.cpu().numpy())


def _place(values: Any) -> str:
    """The device of a tensor, empty for an array."""
    return "" if isinstance(values, np.ndarray) else str(values.device)


def magnitudes(lengths: Array) -> NDArray[np.int64]:
    """Counts of a LENGTHS tensor; `tcd.signals` marks windows of a bad step by their complement."""
    counts = lengths.astype(np.int64)
    return counts ^ (counts >> 63)


def join(parts: Sequence[Array], *, limit: int | None = None) -> Array:
    """Concatenate along the batch, zero-padding all other axes to the widest.

    Args:
        parts: arrays of equal rank; or torch tensors of equal inner shape on one device.
        limit: values of the last axis beyond it are dropped (no count may reach them).
    """
    if limit is not None and any(p.shape[-1] > limit for p in parts):
        parts = [p[..., :limit] for p in parts]
    if len(parts) == 1:
        return parts[0]
    if _place(parts[0]):
        return cast("Array", importlib.import_module("torch").cat(list(parts)))
    inner = {p.shape[1:] for p in parts}
    if len(inner) == 1:
        return np.concatenate(parts)
    shape = tuple(max(axis) for axis in zip(*inner, strict=True))
    out = np.zeros((sum(p.shape[0] for p in parts), *shape), parts[0].dtype)
    row = 0
    for part in parts:
        inside = (slice(row, row + part.shape[0]), *(slice(0, d) for d in part.shape[1:]))
        out[inside] = part
        row += part.shape[0]
    return out


class BatchModel:
    """Base of the Triton models; a subclass says what it computes.

    Attributes:
        model: its contract.
        counts: tensors whose valid values LENGTHS-like columns count: tensor to (lengths tensor, columns to multiply).
        exact: tensors that may not be padded; requests that differ in them are computed apart.
        resident: tensors of `exact` that are worked on where they are, on a GPU too.
        compiled: whether `tcd.native.entry` has the step.
    """

    model: ClassVar[Model]
    counts: ClassVar[Mapping[str, tuple[str, list[int]]]] = {}
    exact: ClassVar[tuple[str, ...]] = ()
    resident: ClassVar[tuple[str, ...]] = ()
    compiled: ClassVar[bool] = True

    def compute(self, inputs: Tensors, assets: AssetSet) -> Mapping[str, Array]:
        """The library's vectorised function: outputs by contract name."""
        raise NotImplementedError

    def failed(self, inputs: Tensors) -> Mapping[str, Array]:
        """Outputs of rows that could not be computed: p = 1, FAILED."""
        raise NotImplementedError

    def status_of(self, outputs: Mapping[str, Array]) -> Array | None:
        """Status bits of this step per row, None when the model has none."""
        raise NotImplementedError

    def initialize(self, args: dict[str, str]) -> None:
        """Triton's hook: open the assets and make the metrics.

        Raises:
            AssetError: the asset directory cannot be read; the model does not load.
            NativeMissing: TCD_NATIVE=1 and there are no compiled kernels; the model does not load.
        """
        library = kernels.loaded().library
        self._pb: Any = importlib.import_module("triton_python_backend_utils")
        place = os.environ.get("TCD_ASSETS")
        self._directory = AssetDirectory(Path(place) if place else default_asset_dir())
        self._refused: str | None = None
        self._metrics = ModelMetrics(self._pb, self.model.name)
        declared = {t["name"] for t in json.loads(args["model_config"])["output"]} if "model_config" in args else None
        if declared is not None and declared != {t.name for t in self.model.outputs}:
            msg = f"config.pbtxt of {self.model.name} is not the contract's; run python -m tcd.triton.pbtxt --write"
            raise RuntimeError(msg)
        #: The short way, taken by requests whose tensors are all on the CPU and laid out by the contract.
        self.entry: Entry | None = None
        if library is not None and self.compiled:
            self.entry = Entry(library, self.model, self._directory, self._current_assets)
            self._metrics.count_in(self.entry.bits)

    def is_ready(self) -> bool:
        """Triton's hook (servers from 26.03 on)."""
        return True

    def finalize(self) -> None:
        """Triton's hook: the last counts go out."""
        self._metrics.flush()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's hook: one response per request."""
        responses = None if self.entry is None else self._enter(self.entry, requests)
        if responses is None:
            responses = self._execute_many([self._gather(request) for request in requests])
        self._metrics.flush_if_due()
        return responses

    def _enter(self, entry: Entry, requests: Sequence[Any]) -> list[Any] | None:
        """All responses by the kernels, None when a request does not suit them."""
        tensor, response = self._pb.Tensor, self._pb.InferenceResponse
        responses = []
        before = 0
        try:
            for request in requests:
                # as_numpy raises for a tensor on a GPU
                tensors = {t.name(): t.as_numpy() for t in request.inputs()}
                rows = tensors["LENGTHS"].shape[0]
                outputs = entry(tensors, rows, before)
                if outputs is None:
                    return None
                responses.append(response([tensor(name, array) for name, array in outputs.items()]))
                before += rows
        except Exception:  # noqa: BLE001 - the general way answers, and says what was wrong
            return None
        self._metrics.batch(before, None)
        return responses

    def _execute_many(self, gathered: Sequence[Tensors]) -> list[Any]:
        groups: dict[tuple[tuple[tuple[int, ...], str], ...], list[int]] = {}
        for index, tensors in enumerate(gathered):
            alike = tuple((tuple(tensors[name].shape[1:]), _place(tensors[name])) for name in self.exact)
            groups.setdefault(alike, []).append(index)
        responses: list[Any] = [None] * len(gathered)
        assets = self._current_assets()
        for members in groups.values():
            sizes = [next(iter(gathered[i].values())).shape[0] for i in members]
            outputs = self.run(self._join([gathered[i] for i in members], sizes), sum(sizes), assets)
            row = 0
            for index, size in zip(members, sizes, strict=True):
                responses[index] = self._respond(outputs, row, row + size)
                row += size
        return responses

    def run(self, inputs: Tensors, rows: int, assets: AssetSet) -> Tensors:
        """Outputs of a batch, held to the contract's dtypes and finite; retried row by row when it raises."""
        try:
            outputs = self._checked(self.compute(inputs, assets), rows)
        except Exception as error:  # noqa: BLE001 - the step's boundary: the status bit FAILED reports it
            if rows == 1:
                self._metrics.failure(f"{type(error).__name__}: {error}")
                outputs = self._checked(self.failed(inputs), rows)
            else:
                single = [self.run({n: a[i : i + 1] for n, a in inputs.items()}, 1, assets) for i in range(rows)]
                return {name: join([s[name] for s in single]) for name in single[0]}
        self._metrics.batch(rows, self.status_of(outputs))
        return outputs

    def _checked(self, outputs: Mapping[str, Array], rows: int) -> Tensors:
        if type(outputs) is Trusted:
            return outputs
        checked: Tensors = {}
        numbers = []
        for tensor in self.model.outputs:
            array = np.asarray(outputs[tensor.name], DTYPES[tensor.dtype], order="C")
            if array.shape[0] != rows or array.ndim != len(tensor.dims) + 1:
                msg = f"{tensor.name} has shape {array.shape} for {rows} rows"
                raise ValueError(msg)
            if array.dtype.kind == "f":
                numbers.append(array.reshape(-1))
            checked[tensor.name] = array
        # all at once: what a small array costs is the call
        if numbers and not np.isfinite(np.concatenate(numbers)).all():
            names = [name for name, a in checked.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
            msg = f"not finite: {', '.join(names)}"
            raise ValueError(msg)
        return checked

    @classmethod
    def _gather(cls, request: Any) -> Tensors:
        return {tensor.name(): _read(tensor, stays=tensor.name() in cls.resident) for tensor in request.inputs()}

    def _join(self, parts: Sequence[Tensors], sizes: Sequence[int]) -> Tensors:
        if len(parts) == 1:
            return parts[0]
        joined = {
            tensor.name: join([p[tensor.name] for p in parts], limit=self._limit(tensor.name))
            for tensor in self.model.inputs
        }
        counts: dict[str, NDArray[np.int64]] = {}
        for name, (lengths, columns) in self.counts.items():
            if lengths not in counts:
                counts[lengths] = magnitudes(joined[lengths])
            wanted = counts[lengths][:, columns[0]]
            for column in columns[1:]:
                wanted = wanted * counts[lengths][:, column]
            widths = [p[name].shape[1] for p in parts]
            over = wanted > (widths[0] if len(parts) == 1 else np.repeat(widths, sizes))
            if over.any():
                # Padding by a neighbour in the batch must not make a wrong count look right.
                joined[lengths] = joined[lengths].copy()
                joined[lengths][over, columns[0]] = _INVALID
        return joined

    def _limit(self, name: str) -> int | None:
        """Widths above what the contract allows are cut: their counts are invalid anyway."""
        counted = self.counts.get(name)
        if counted is None:
            return None
        return MAX_WINDOW if len(counted[1]) == 1 else MAX_FEATURE_VALUES

    def _respond(self, outputs: Tensors, start: int, stop: int) -> Any:
        make: Callable[[str, Array], Any] = self._pb.Tensor
        return self._pb.InferenceResponse(
            output_tensors=[make(name, array[start:stop]) for name, array in outputs.items()]
        )

    def _current_assets(self) -> AssetSet:
        """The newest assets; a manifest that cannot be loaded is refused once, and the set in use stays.

        The manifest is looked at in every execution (one `stat`, microseconds): the shim looks at every request, and
        while a step scored with older assets than the shim's, its decisions would be degraded ones.
        """
        assets = self._directory.current()
        if self._directory.refused != self._refused:
            self._refused = self._directory.refused
            if self._refused is not None:
                self._metrics.failure(f"the assets in use stay: {self._refused}")
        return assets
