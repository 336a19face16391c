"""`tcd_detector` in Triton: gathers rows for `tcd.detector.score`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np

from tcd.calibration.assets import AssetSet
from tcd.contract import COMPONENTS, DETECTOR, SUP_START, Length, Model, Status
from tcd.detector import score
from tcd.triton.base import Array, BatchModel, Tensors

#: Tensors that LENGTHS counts, by its columns.
WINDOW_COUNTS: Final[dict[str, tuple[str, list[int]]]] = {
    "TRACE": ("LENGTHS", [int(Length.TRACE)]),
    "ENTROPY": ("LENGTHS", [int(Length.ENTROPY)]),
    "SPECTRUM": ("LENGTHS", [int(Length.SPECTRUM)]),
    "FEATURES": ("LENGTHS", [int(Length.FEATURE_ROWS), int(Length.FEATURE_COLS)]),
}


def finite_sup(sup: Array, column: int) -> Array:
    """One column of SUP as it came, or the start where it is not finite; shape (N, 1)."""
    values = np.asarray(sup, np.float64)[:, column : column + 1]
    return np.where(np.isfinite(values), values, SUP_START)


class Detector(BatchModel):
    """Windows to components, statistic, step p and hypothesis p."""

    model: ClassVar[Model] = DETECTOR
    counts: ClassVar[Mapping[str, tuple[str, list[int]]]] = WINDOW_COUNTS

    def compute(self, inputs: Tensors, assets: AssetSet) -> Mapping[str, Array]:
        """See `tcd.detector.score`."""
        windows = (inputs["TRACE"], inputs["ENTROPY"], inputs["SPECTRUM"], inputs["FEATURES"])
        return score(*windows, inputs["LENGTHS"], inputs["KEY"], inputs["SUP"], assets)

    def failed(self, inputs: Tensors) -> Mapping[str, Array]:
        """Answer p = 1, the running maximum as it came, FAILED."""
        n = inputs["LENGTHS"].shape[0]
        components = np.zeros((n, len(COMPONENTS), 3))
        components[:, :, 1] = 1.0
        return {
            "DETECTOR_P": np.ones((n, 2)),
            "DETECTOR_SUP": finite_sup(inputs["SUP"], 0),
            "COMPONENTS": components,
            "DETECTOR_LEVEL": np.zeros((n, 1)),
            "DETECTOR_ASSET": np.zeros((n, 1)),
            "DETECTOR_STATUS": np.full((n, 1), int(Status.FAILED)),
        }

    def status_of(self, outputs: Mapping[str, Array]) -> Array:
        """See `BatchModel.status_of`."""
        return outputs["DETECTOR_STATUS"]
