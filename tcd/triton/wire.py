"""KServe v2 infer requests and responses with binary tensors, checked against the contract.

Pure: bytes and arrays in, bytes and arrays out. A server's answer is untrusted: names, dtypes, shapes,
sizes, finiteness and ranges are checked before anything else sees it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from tcd.contract import MAX_FEATURE_VALUES, MODELS, Model, Tensor
from tcd.errors import ScoringError
from tcd.native.answers import Bounded
from tcd.native.library import loaded
from tcd.rows import Checked
from tcd.triton import bounds

Array = NDArray[np.generic]
Tensors = dict[str, Array]

#: KServe dtype to the numpy dtype of its bytes on the wire.
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT32": np.dtype("<i4"),
    "UINT64": np.dtype("<u8"),
}
#: Bytes that headers and JSON of a response may take beside the tensors.
HEADER_LIMIT: Final = 64 * 1024
_CACHE_LIMIT: Final = 1024


def find_model(model: Model | str) -> Model:
    """The contract of a model given by name, or the one given.

    Raises:
        KeyError: if the contract knows no such name.
    """
    return MODELS[model] if isinstance(model, str) else model


def batch_rows(tensors: Mapping[str, Array]) -> int:
    """Rows of a batch-first request."""
    return next(iter(tensors.values())).shape[0]


def response_limit(model: Model, rows: int) -> int:
    """Most bytes that an honest answer to `rows` rows can have."""
    values = 0
    for tensor in model.outputs:
        width = math.prod(MAX_FEATURE_VALUES if d < 0 else d for d in tensor.dims)
        values += width * DTYPES[tensor.dtype].itemsize
    return HEADER_LIMIT + rows * values


def _fits(tensor: Tensor, rows: int, shape: tuple[int, ...]) -> bool:
    if len(shape) != len(tensor.dims) + 1 or shape[0] != rows:
        return False
    return all(
        0 <= got <= MAX_FEATURE_VALUES if want < 0 else got == want
        for want, got in zip(tensor.dims, shape[1:], strict=True)
    )


def check_layout(model: Model, rows: int, layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> None:
    """Hold names, dtypes and shapes of an answer to the contract.

    Raises:
        ScoringError: a tensor is missing, unknown, of another dtype or of another shape.
    """
    for tensor in model.outputs:
        if tensor.name not in layout:
            msg = f"{model.name} answered without {tensor.name}"
            raise ScoringError(msg)
        dtype, shape = layout[tensor.name]
        if dtype != DTYPES[tensor.dtype] or not _fits(tensor, rows, shape):
            msg = f"{model.name} answered {tensor.name} as {dtype}{list(shape)} for {rows} rows"
            raise ScoringError(msg)
    if len(layout) != len(model.outputs):
        msg = f"{model.name} answered tensors that its contract does not have"
        raise ScoringError(msg)


def check_values(model: Model, outputs: Mapping[str, Array]) -> None:
    """Hold the values of an answer to the contract.

    Raises:
        ScoringError: a value is not finite or out of its range.
    """
    _refuse_values(model, bounds.outside(outputs))


def _refuse_values(model: Model, name: str | None) -> None:
    if name is not None:
        msg = f"{model.name} answered {name} with a value that is not finite or out of its range"
        raise ScoringError(msg)


def check_outputs(model: Model, rows: int, outputs: Mapping[str, Array]) -> None:
    """Hold a server's answer to the contract.

    Raises:
        ScoringError: see `check_layout` and `check_values`.
    """
    check_layout(model, rows, {name: (a.dtype, a.shape) for name, a in outputs.items()})
    check_values(model, outputs)


def as_wire(model: Model, tensors: Mapping[str, Array]) -> list[Array]:
    """Arrays of a request in the order of the contract, C-contiguous and little-endian.

    Raises:
        ValueError: a tensor is missing, unknown or of another dtype (the caller's mistake, not the server's).
    """
    if len(tensors) != len(model.inputs):
        msg = f"{model.name} takes {[t.name for t in model.inputs]}, not {sorted(tensors)}"
        raise ValueError(msg)
    arrays = []
    for tensor in model.inputs:
        array = tensors.get(tensor.name)
        if array is None or array.dtype != DTYPES[tensor.dtype]:
            msg = f"{model.name} takes {tensor.name} as {tensor.dtype}"
            raise ValueError(msg)
        arrays.append(np.ascontiguousarray(array, DTYPES[tensor.dtype]))
    return arrays


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a tensor lies in the binary part of a response."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    count: int


def _refuse(what: str, cause: Exception | None = None) -> NoReturn:
    msg = f"the server's answer cannot be read: {what}"
    raise ScoringError(msg) from cause


def _slot(item: object, start: int) -> _Slot:
    if not isinstance(item, dict):
        _refuse("an output is no object")
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    parameters = item.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    dtype = DTYPES.get(datatype) if isinstance(datatype, str) else None
    if not isinstance(name, str) or dtype is None:
        _refuse("an output has no name or an unknown datatype")
    if not isinstance(shape, list) or not all(type(d) is int and 0 <= d <= MAX_FEATURE_VALUES for d in shape):
        _refuse("an output has no shape")
    count = math.prod(shape)
    if type(size) is not int or size != count * dtype.itemsize:
        _refuse("an output's size is not its shape's")
    return _Slot(name, dtype, tuple(shape), start, count)


class _Layout:
    """A response's tensors, of which the same header says the same every time."""

    def __init__(self, slots: tuple[_Slot, ...], header_length: int) -> None:
        """Tensors behind a header of `header_length` bytes."""
        last = slots[-1] if slots else None
        self.length = header_length + (last.start + last.count * last.dtype.itemsize if last else 0)
        self.places = [(s.name, s.dtype, s.shape, header_length + s.start) for s in slots]
        judged = [(s, columns) for s in slots if (columns := bounds.columns_of(s.name, s.dtype)) and s.count]
        self.judged = [slot.name for slot, _ in judged]
        library = loaded().library
        self.bounded = (
            Bounded(library, [(s.dtype, header_length + s.start, s.count, columns) for s, columns in judged])
            if library is not None
            else None
        )


class Codec:
    """Encodes requests and decodes responses of the HTTP binding, remembering headers of equal shapes."""

    def __init__(self, host: str) -> None:
        """Make a codec whose requests carry `host` as their Host header."""
        self._host = host
        self._heads: dict[tuple[str, tuple[tuple[int, ...], ...]], bytes] = {}
        self._layouts: dict[tuple[str, int, bytes], _Layout] = {}

    def encode(self, model: Model, tensors: Mapping[str, Array], *, trace: str = "") -> bytes:
        """A whole HTTP/1.1 request: head, JSON header, tensors; `trace` is its `traceparent`.

        Raises:
            ValueError: the tensors are not the model's.
        """
        arrays = as_wire(model, tensors)
        key = (model.name, tuple(a.shape for a in arrays))
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _CACHE_LIMIT:
                self._heads.clear()
            head = self._heads[key] = self._head(model, arrays)
        if trace:
            line, _, rest = head.partition(b"\r\n")
            head = b"%b\r\ntraceparent: %b\r\n%b" % (line, trace.encode(), rest)
        return b"".join((head, *(a.data for a in arrays)))

    def _head(self, model: Model, arrays: list[Array]) -> bytes:
        inputs = [
            {
                "name": tensor.name,
                "shape": list(array.shape),
                "datatype": tensor.dtype,
                "parameters": {"binary_data_size": array.nbytes},
            }
            for tensor, array in zip(model.inputs, arrays, strict=True)
        ]
        header = json.dumps(
            {"inputs": inputs, "parameters": {"binary_data_output": True}}, separators=(",", ":")
        ).encode()
        length = len(header) + sum(a.nbytes for a in arrays)
        head = (
            f"POST /v2/models/{model.name}/infer HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(header)}\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        return head.encode() + header

    def decode(self, model: Model, rows: int, body: bytes, header_length: int | None) -> Tensors:
        """Tensors of a response body, as read-only views of it.

        Raises:
            ScoringError: the body is not what the contract says.
        """
        if header_length is None or not 0 < header_length <= min(len(body), HEADER_LIMIT):
            _refuse("no binary tensors in it")
        key = (model.name, rows, body[:header_length])
        layout = self._layouts.get(key)
        if layout is None:
            slots = self._parse(key[2])
            check_layout(model, rows, {s.name: (s.dtype, s.shape) for s in slots})
            if len(self._layouts) >= _CACHE_LIMIT:
                self._layouts.clear()
            layout = self._layouts[key] = _Layout(slots, header_length)
        if layout.length != len(body):
            _refuse("its length is not that of its tensors")
        outputs = Checked({name: np.ndarray(shape, dtype, body, start) for name, dtype, shape, start in layout.places})
        if layout.bounded is None:
            check_values(model, outputs)
        else:
            outside = layout.bounded.outside(body)
            _refuse_values(model, None if outside is None else layout.judged[outside])
        return outputs

    @staticmethod
    def _parse(header: bytes) -> tuple[_Slot, ...]:
        try:
            parsed = json.loads(header)
        except (ValueError, RecursionError) as error:
            _refuse("its header is no JSON", error)
        items = parsed.get("outputs") if isinstance(parsed, dict) else None
        if not isinstance(items, list):
            _refuse("its header has no outputs")
        layout: list[_Slot] = []
        start = 0
        for item in items:
            slot = _slot(item, start)
            start += slot.count * slot.dtype.itemsize
            layout.append(slot)
        if len({s.name for s in layout}) != len(layout):
            _refuse("an output comes twice")
        return tuple(layout)
