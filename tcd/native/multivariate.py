"""The multivariate monitor's step by the compiled kernels."""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np

from tcd.calibration.assets import AssetSet, MultivariateAsset
from tcd.calibration.lookup import Kept
from tcd.contract import MAX_FEATURE_COLS, Length
from tcd.detector.windows import TAIL
from tcd.multivariate.distance import F64, weights, whitener
from tcd.native import layout
from tcd.native.chosen import Lookup
from tcd.native.detector import adjusted, table
from tcd.native.layout import exactly, rows_of, tensor
from tcd.native.memory import address
from tcd.rowwise import Inputs, Outputs


class _Reference(layout.Reference):
    """`struct reference` that keeps what it points to.

    Raises:
        ValueError: the asset does not fit the kernels.
    """

    def __init__(self, asset: MultivariateAsset) -> None:
        d = asset.features
        mean, white = np.ascontiguousarray(asset.mean, np.float64), whitener(asset.cholesky)
        if not 0 < d <= MAX_FEATURE_COLS or white.shape != (d, d):
            msg = f"a reference of {d} features"
            raise ValueError(msg)
        moving = None if asset.smoothing == 1.0 else weights(TAIL, asset.smoothing)
        self.keep: list[F64] = [mean, white] + ([] if moving is None else [moving])
        self.asset = asset
        super().__init__(
            *(asset.asset_id, d, address(mean), address(white), None if moving is None else address(moving)),
            *(asset.threshold, table(asset.steps, self.keep), table(asset.sessions, self.keep)),
            adjusted(asset.adjusted, asset.sessions, self.keep),
        )


OUT: Final = layout.Block(
    (
        ("MULTIVARIATE_P", np.float64, (2,)),
        ("MULTIVARIATE_SUP", np.float64, (1,)),
        ("MV", np.float32, (4,)),
        ("MULTIVARIATE_ASSET", np.uint64, (1,)),
        ("MULTIVARIATE_STATUS", np.int32, (1,)),
    )
)
_LOOK: Final = Lookup(AssetSet.multivariate_match, Kept(_Reference, most=32))


def find(key: tuple[int, ...], assets: AssetSet) -> tuple[layout.Reference | None, bool]:
    """The structure of the asset that answers a key of three levels, and whether it is a fall-back."""
    return _LOOK.find(key, assets)


def score(library: ctypes.CDLL, inputs: Inputs, assets: AssetSet) -> Outputs:
    """Answer a batch of N >= 1 rows, as `tcd.multivariate.score`.

    Raises:
        ValueError: an asset or a tensor does not fit the kernels.
    """
    n = inputs["LENGTHS"].shape[0]
    features = rows_of(inputs["FEATURES"], np.float32, n)
    lengths, sup = exactly(inputs["LENGTHS"], np.int32, (n, len(Length))), exactly(inputs["SUP"], np.float64, (n, 2))
    chosen = _LOOK(exactly(inputs["KEY"], np.uint64, (n, 3)), assets)
    out, places = OUT.make(n)
    call = layout.MULTIVARIATE_CALL.pack(
        *(n, *tensor(features), address(lengths), lengths.shape[1], address(sup) + sup.itemsize, sup.shape[1]),
        *chosen.fields,
        *places,
    )
    library.tcd_multivariate(call)
    return out
