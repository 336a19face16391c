"""`tcd_multivariate` in Triton: gathers rows for `tcd.multivariate.score`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tcd.calibration.assets import AssetSet
from tcd.contract import MULTIVARIATE, Model, Status
from tcd.multivariate import score
from tcd.triton.base import Array, BatchModel, Tensors
from tcd.triton.detector import WINDOW_COUNTS, finite_sup


class Multivariate(BatchModel):
    """Newest feature vector to its distance from the key's reference."""

    model: ClassVar[Model] = MULTIVARIATE
    counts: ClassVar[Mapping[str, tuple[str, list[int]]]] = {"FEATURES": WINDOW_COUNTS["FEATURES"]}

    def compute(self, inputs: Tensors, assets: AssetSet) -> Mapping[str, Array]:
        """See `tcd.multivariate.score`."""
        return score(inputs["FEATURES"], inputs["LENGTHS"], inputs["KEY"], inputs["SUP"], assets)

    def failed(self, inputs: Tensors) -> Mapping[str, Array]:
        """Answer p = 1, the running maximum as it came, FAILED."""
        n = inputs["LENGTHS"].shape[0]
        return {
            "MULTIVARIATE_P": np.ones((n, 2)),
            "MULTIVARIATE_SUP": finite_sup(inputs["SUP"], 1),
            "MV": np.tile((0.0, 0.0, 0.0, 1.0), (n, 1)),
            "MULTIVARIATE_ASSET": np.zeros((n, 1)),
            "MULTIVARIATE_STATUS": np.full((n, 1), int(Status.FAILED)),
        }

    def status_of(self, outputs: Mapping[str, Array]) -> Array:
        """See `BatchModel.status_of`."""
        return outputs["MULTIVARIATE_STATUS"]
