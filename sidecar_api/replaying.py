"""Decisions replayed to the same bits, from the requests that their receipts commit to and the published assets.

What follows from the evidence is computed again and compared bit for bit: the windows, the score, its threshold, every
component, the p-value, the trigger, the assets. What follows from settings that a receipt has only the digest of (the
action, the route of an alarm that is held) is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from sidecar_api import staging
from sidecar_api.pins import Shape, resolve
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.windows import SessionWindow, Staged
from tcd.calibration.assets import AssetSet
from tcd.contract import COMPONENTS
from tcd.errors import ConfigError
from tcd.receipts.errors import WitnessMismatch
from tcd.receipts.records import Component
from tcd.receipts.witness import check_disclosure
from tcd.risk_av.exact import hex64, unhex64
from tcd.rows import ScoreResult, ScoreRow
from tcd.scoring import LibraryScorer

#: Any budget: thresholds do not depend on it.
_ALPHA: Final = 0.05
_ROUTED: Final = ("session", "request")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one decision.

    Attributes:
        seq: of its record.
        scored: whether there was a score to replay; a degraded decision has none.
        differences: members of the record that come out otherwise; empty = the same bits.
    """

    seq: int
    scored: bool
    differences: tuple[str, ...]


def replay(decisions: Iterable[tuple[Mapping[str, Any], Any]], assets: AssetSet) -> Iterator[Replayed]:
    """Replay the decisions of one session.

    Args:
        decisions: verified bodies of type `decision`, in order, each with its request object. With `window=step` they
            begin with the session's first step; with `window=full` any of them may stand alone.
        assets: the published calibrations.

    Raises:
        tcd.errors.ConfigError: no decision of the shim's own, or no request.
    """
    scorer, window, triggered = LibraryScorer(assets), SessionWindow(), ("", False)
    for body, value in decisions:
        if body["typ"] != "decision" or body["evidence"] != "shim":
            msg = f"record {body['chain']['seq']} is no decision that the shim scored"
            raise ConfigError(msg)
        try:
            request = msgspec.convert(value, DiagnoseRequest, strict=True)
        except msgspec.ValidationError as error:
            msg = f"record {body['chain']['seq']} has no request: {error}"
            raise ConfigError(msg) from None
        if request.step_id == 0:
            window = SessionWindow()
        staged = staging.stage(window, request)
        seq = body["chain"]["seq"]
        if body["decision"]["cause"] == "degraded":
            yield Replayed(seq, scored=False, differences=())
            continue
        row = _row(body, request, staged, assets)
        result = scorer.score_rows([row])[0]
        window.commit(staged)
        hypothesis = body["av"]["hypothesis"]
        before = triggered[1] and triggered[0] == hypothesis
        triggered = (hypothesis, body["decision"]["trigger"])
        found = dict(_members(body))
        made = {**_windows(body, staged), **_computed(body, row, staged, result, assets, before=before)}
        yield Replayed(seq, scored=True, differences=tuple(name for name in made if made[name] != found.get(name)))


def _row(body: Mapping[str, Any], request: DiagnoseRequest, staged: Staged, assets: AssetSet) -> ScoreRow:
    av, key = body["av"], staging.key(request)
    if assets.canary is not None:
        # a session of the trial was judged by the candidate's assets, and its record names them
        trial = assets.canary.key(key)
        detector, _ = assets.detector_match(trial)
        if detector is not None and str(detector.asset_id) == body["assets"][0]:
            key = trial
    return ScoreRow(
        trace=staged.trace,
        entropy=staged.entropy,
        spectrum=staged.spectrum,
        features=staged.features,
        key=key,
        alpha=unhex64(av["alloc"]),
        sup=(unhex64(av["sup"][0]), unhex64(av["sup"][1])),
        base=staging.base(request),
        controller=av["unit"] in _ROUTED,
    )


def _windows(body: Mapping[str, Any], staged: Staged) -> dict[str, Any]:
    """The segments that the windows have; one that does not fit comes out as None."""
    return {f"witness.{item['name']}": item if _is_of(item, staged) else None for item in body["witness"]}


def _is_of(segment: dict[str, Any], staged: Staged) -> bool:
    try:
        check_disclosure(segment, getattr(staged, segment["name"]).astype(np.float64))
    except WitnessMismatch:
        return False
    return True


def _computed(
    body: Mapping[str, Any],
    row: ScoreRow,
    staged: Staged,
    result: ScoreResult,
    assets: AssetSet,
    *,
    before: bool,
) -> dict[str, Any]:
    """Members of a decision as they come out; `before` says whether its hypothesis was rejected already."""
    shape = Shape.of(staged.mask, staged.features.shape[1], staged.spectrum.shape[0])
    pins = resolve(assets, row.key, shape, alpha=_ALPHA)
    made: dict[str, Any] = {
        "assets": [str(number) for number in result.assets],
        "decision.score": hex64(result.score),
        "decision.threshold": hex64(pins.threshold),
        "decision.status": result.status,
        "components.multivariate": _component(bool(result.mv[2]), 1.0 - result.mv[3], result.mv[3], result.mv[0]),
    }
    for name, (severity, p, z) in zip(COMPONENTS, result.components.tolist(), strict=True):
        made[f"components.{name}"] = _component(0.0 < pins.level >= p, severity, p, z)
    if body["av"]["unit"] in _ROUTED:
        made["av.p"] = hex64(result.p_value)
        made["decision.trigger"] = before or result.trigger
    return made


def _component(triggered: bool, severity: float, p: float, z: float) -> dict[str, Any]:  # noqa: FBT001 - as it is sent
    return Component(triggered, severity, p, z).to_json()


def _members(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The same members of the record."""
    yield "assets", body["assets"]
    for name in ("score", "threshold", "status", "trigger"):
        yield f"decision.{name}", body["decision"][name]
    yield "av.p", body["av"]["p"]
    for name, component in body["components"].items():
        yield f"components.{name}", component
    for segment in body["witness"]:
        yield f"witness.{segment['name']}", segment
