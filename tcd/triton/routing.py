"""`tcd_routing` in Triton: gathers rows for `tcd.routing.route`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tcd.calibration.assets import AssetSet
from tcd.contract import ROUTING, Model, Status
from tcd.routing import route
from tcd.triton.base import Array, BatchModel, Tensors

_ROUTING_SHIFT = 16


class Routing(BatchModel):
    """p-values, level and policy to trigger, verdict, tier and route."""

    model: ClassVar[Model] = ROUTING

    def compute(self, inputs: Tensors, assets: AssetSet) -> Mapping[str, Array]:
        """See `tcd.routing.route`."""
        return route(inputs, assets)

    def failed(self, inputs: Tensors) -> Mapping[str, Array]:
        """Answer p = 1, no trigger, the caller's own decoding settings, FAILED; what the steps before said stays."""
        n = inputs["LENGTHS"].shape[0]
        status = np.asarray(inputs["DETECTOR_STATUS"], np.int32) | (
            np.asarray(inputs["MULTIVARIATE_STATUS"], np.int32) << 8
        )
        base = np.nan_to_num(np.asarray(inputs["BASE"], np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        return {
            "SCORE": np.zeros((n, 1)),
            "P_STEP": np.ones((n, 2)),
            "SUP_OUT": np.hstack([inputs["DETECTOR_SUP"], inputs["MULTIVARIATE_SUP"]]),
            "P_VALUE": np.ones((n, 1)),
            "TRIGGER": np.zeros((n, 1)),
            "VERDICT": np.zeros((n, 1)),
            "TIER": np.zeros((n, 1)),
            "STATUS": status | (int(Status.FAILED) << _ROUTING_SHIFT),
            "ROUTE": np.hstack([base[:, :3], np.zeros((n, 1), np.float32)]),
            "ASSETS": np.hstack(
                [inputs["DETECTOR_ASSET"], inputs["MULTIVARIATE_ASSET"], np.zeros((n, 1), np.uint64)],
            ),
        }

    def status_of(self, outputs: Mapping[str, Array]) -> Array:
        """The routing step's byte of STATUS."""
        return np.asarray(outputs["STATUS"], np.int32) >> _ROUTING_SHIFT
