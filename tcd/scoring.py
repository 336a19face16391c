"""The whole ensemble in one process: the same functions, hence the same bits, as `tcd_diagnose` in Triton.

For tests, replay, the library user without a server, and as the reference that a settled step is re-checked with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tcd import detector, multivariate, routing, signals
from tcd.calibration.assets import AssetSet
from tcd.contract import DIAGNOSE, DIAGNOSE_RAW, ROUTING
from tcd.rows import ScoreResult, ScoreRow, pack, unpack
from tcd.rowwise import Array, Outputs

_ROUTING_INPUTS: Final = tuple(tensor.name for tensor in ROUTING.inputs)
_OUTPUTS: Final = tuple(tensor.name for tensor in DIAGNOSE.outputs)


def diagnose(tensors: Mapping[str, Array], assets: AssetSet) -> Outputs:
    """Outputs of `tcd_diagnose` for its inputs, batch first.

    Args:
        tensors: the tensors of `tcd.contract.DIAGNOSE.inputs`, all with the same N.
        assets: calibrations and policies.
    """
    t = tensors
    parts = {
        **t,
        **detector.score(
            t["TRACE"], t["ENTROPY"], t["SPECTRUM"], t["FEATURES"], t["LENGTHS"], t["KEY"], t["SUP"], assets
        ),
        **multivariate.score(t["FEATURES"], t["LENGTHS"], t["KEY"], t["SUP"], assets),
    }
    parts |= routing.route({name: parts[name] for name in _ROUTING_INPUTS}, assets)
    return {name: parts[name] for name in _OUTPUTS}


def diagnose_raw(tensors: Mapping[str, Array], assets: AssetSet) -> Outputs:
    """Outputs of `tcd_diagnose_raw` for its inputs, batch first; `tcd.contract.DIAGNOSE_RAW`."""
    names = {tensor.name for tensor in DIAGNOSE_RAW.inputs}
    made = signals.step({name: array for name, array in tensors.items() if name in names}, assets)
    windows = {
        "TRACE": made["NEXT_TRACE"],
        "ENTROPY": made["NEXT_ENTROPY"],
        "SPECTRUM": made["SPECTRUM"],
        "FEATURES": made["NEXT_FEATURES"],
        "LENGTHS": made["NEXT_LENGTHS"],
    }
    out = diagnose({**tensors, **windows}, assets)
    return {tensor.name: {**made, **out}[tensor.name] for tensor in DIAGNOSE_RAW.outputs}


class LibraryScorer:
    """`tcd.rows.Scorer` without a server: scores in the calling thread."""

    def __init__(self, assets: AssetSet) -> None:
        """Score with a fixed set of assets."""
        self._assets = assets

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:  # noqa: ARG002 - the port's signature
        """Score one row; the deadline is not needed, nothing waits."""
        return self.score_rows([row])[0]

    def score_rows(self, rows: list[ScoreRow]) -> list[ScoreResult]:
        """Score rows as one batch."""
        return unpack(diagnose(pack(rows), self._assets)) if rows else []
