"""`tcd_signals` in Triton: gathers rows for `tcd.signals.step`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tcd.calibration.assets import AssetSet
from tcd.contract import BUCKETS, FEATURE_BUCKETS, SIGNALS, SPECTRUM_RANK, Length, Model, bucket
from tcd.signals import device, step
from tcd.triton.base import Array, BatchModel, Tensors, magnitudes


class Signals(BatchModel):
    """Logits and hidden states to the session's windows."""

    model: ClassVar[Model] = SIGNALS
    counts: ClassVar[Mapping[str, tuple[str, list[int]]]] = {
        "PREV_TRACE": ("PREV_LENGTHS", [int(Length.TRACE)]),
        "PREV_ENTROPY": ("PREV_LENGTHS", [int(Length.ENTROPY)]),
        "PREV_FEATURES": ("PREV_LENGTHS", [int(Length.FEATURE_ROWS), int(Length.FEATURE_COLS)]),
    }
    #: A zero among the logits is no padding: requests of other vocabularies or windows are computed apart.
    exact: ClassVar[tuple[str, ...]] = ("LOGITS", "HIDDEN")
    #: A vocabulary per row: on a GPU they stay there.
    resident: ClassVar[tuple[str, ...]] = exact
    compiled: ClassVar[bool] = False

    #: Device that host tensors are taken to from `break_even` logits of a batch on; empty for none.
    gpu: str = ""
    break_even: int = 0

    def initialize(self, args: dict[str, str]) -> None:
        """See `BatchModel.initialize`; an instance on a GPU takes large batches from the host there."""
        super().initialize(args)
        self.break_even = int(os.environ.get("TCD_GPU_BREAK_EVEN") or 0)
        if args.get("model_instance_kind") == "GPU" and self.break_even > 0:
            self.gpu = f"cuda:{args.get('model_instance_device_id', '0')}"

    def compute(self, inputs: Tensors, assets: AssetSet) -> Mapping[str, Array]:
        """See `tcd.signals.step`."""
        return step(self.placed(inputs), assets)

    def placed(self, inputs: Tensors) -> Tensors:
        """The inputs with LOGITS and HIDDEN where the step is to work on them: the batch's size decides, no content.

        What is on a GPU stays there, what came from the host goes there from `break_even` logits on.
        """
        logits = inputs["LOGITS"]
        if not self.gpu or device.is_tensor(logits) or logits.size < self.break_even:
            return inputs
        moved = {name: device.to_device(inputs[name], self.gpu) for name in ("LOGITS", "HIDDEN")}
        return {**inputs, **moved}

    def failed(self, inputs: Tensors) -> Mapping[str, Array]:
        """Answer empty windows with counts that the monitors refuse (BAD_INPUT); the session starts anew."""
        n = inputs["TOKEN"].shape[0]
        lengths = np.full((n, len(Length)), ~0)
        lengths[:, Length.FEATURE_COLS] = 0
        lengths[:, Length.FLAGS] = inputs["PREV_LENGTHS"][:, Length.FLAGS]
        return {
            "NEXT_TRACE": np.zeros((n, BUCKETS[0])),
            "NEXT_ENTROPY": np.zeros((n, BUCKETS[0])),
            "SPECTRUM": np.zeros((n, SPECTRUM_RANK)),
            "NEXT_FEATURES": np.zeros((n, FEATURE_BUCKETS[0])),
            "NEXT_LENGTHS": lengths,
        }

    def status_of(self, outputs: Mapping[str, Array]) -> Array | None:  # noqa: ARG002 - the base's signature
        """The step has no status of its own: bad rows show as BAD_INPUT in the monitors."""
        return None

    def _respond(self, outputs: Tensors, start: int, stop: int) -> Any:
        """Cut the windows to the buckets of this request's own rows: its bits may not depend on its neighbours."""
        part = {name: array[start:stop] for name, array in outputs.items()}
        counts = magnitudes(part["NEXT_LENGTHS"])
        scalars = bucket(int(counts[:, : Length.SPECTRUM].max(initial=0)))
        features = counts[:, Length.FEATURE_ROWS] * counts[:, Length.FEATURE_COLS]
        widths = {
            "NEXT_TRACE": scalars,
            "NEXT_ENTROPY": scalars,
            "NEXT_FEATURES": bucket(int(features.max(initial=0)), FEATURE_BUCKETS),
        }
        cut = {
            name: np.ascontiguousarray(array[:, : widths[name]]) if name in widths else array
            for name, array in part.items()
        }
        return super()._respond(cut, 0, stop - start)
