"""`tcd_fused` in Triton: the steps of `tcd_diagnose` in one process, for callers without a micro-batcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tcd.calibration.assets import AssetSet
from tcd.contract import FUSED, Model
from tcd.scoring import diagnose
from tcd.triton.base import Array, BatchModel, Tensors
from tcd.triton.detector import WINDOW_COUNTS, Detector
from tcd.triton.multivariate import Multivariate
from tcd.triton.routing import Routing

_BYTES = (0, 8, 16)


class Fused(BatchModel):
    """Windows to trigger, verdict, tier and route."""

    model: ClassVar[Model] = FUSED
    counts: ClassVar[Mapping[str, tuple[str, list[int]]]] = WINDOW_COUNTS

    def compute(self, inputs: Tensors, assets: AssetSet) -> Mapping[str, Array]:
        """See `tcd.scoring.diagnose`."""
        return diagnose(inputs, assets)

    def failed(self, inputs: Tensors) -> Mapping[str, Array]:
        """Answer what the three steps answer when each of them fails."""
        parts = {**inputs, **Detector().failed(inputs), **Multivariate().failed(inputs)}
        parts |= Routing().failed(parts)
        return {tensor.name: parts[tensor.name] for tensor in self.model.outputs}

    def status_of(self, outputs: Mapping[str, Array]) -> Array:
        """The bits that any of the three steps has set."""
        status = np.asarray(outputs["STATUS"], np.int32)
        return np.concatenate([(status >> shift) & 0xFF for shift in _BYTES])
