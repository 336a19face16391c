"""The answer of a step, member by member. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from sidecar_api.decision import Decision
from sidecar_api.pins import Pins
from sidecar_api.schemas import (
    Av,
    Calibration,
    Check,
    Component,
    Components,
    Decoder,
    Input,
    Multivariate,
    RiskResponse,
    Route,
    Tier,
)
from tcd.contract import COMPONENT_DETAIL, COMPONENTS
from tcd.receipts import Receipt
from tcd.risk_av import Reservation, StreamView, e_value
from tcd.rows import ScoreResult

_DECODERS: tuple[Decoder, ...] = ("default", "sample", "greedy", "no_repeat")
_TIERS: tuple[Tier, ...] = ("normal", "cautious", "strict")


class KeptAv:
    """The controller's part of a session's last answer, and what it was made of: most steps change nothing in it."""

    __slots__ = ("av", "made_of")

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self.made_of: tuple[Reservation | None, StreamView, Pins, float, bool] | None = None
        self.av: Av | None = None


class StepFacts(Struct, frozen=True):
    """A step as it stands after settlement.

    Attributes:
        result: of the ensemble, None when there is none.
        pins: what the row was judged by.
        reservation: of its hypothesis, None with the controller off.
        view: its stream.
        p: of the hypothesis.
        trigger: whether the hypothesis was ever rejected.
        unit: of the hypothesis.
        sanitized, mask, tokens: of the input.
        top: the features that a distance above its threshold comes from, and their shares of its square.
        kept: the session's, where there is one.
    """

    result: ScoreResult | None
    pins: Pins
    reservation: Reservation | None
    view: StreamView
    p: float
    trigger: bool
    unit: str
    sanitized: int
    mask: int
    tokens: int
    top: Sequence[tuple[int, float]] = ()
    kept: KeptAv | None = None


class Labels(Struct, frozen=True):
    """Texts of an answer that do not follow from its numbers."""

    request_id: str
    policy_ref: str
    config_hash: str
    guarantee: str
    step: int
    checks: Sequence[Check]


def _detector(step: StepFacts) -> list[Component]:
    table = step.result.components.tolist() if step.result is not None else [[0.0, 1.0, 0.0]] * len(COMPONENTS)
    return [
        Component(
            triggered=step.pins.level > 0.0 and p <= step.pins.level,
            severity=severity,
            p_value=p,
            details={detail: z},
        )
        for (severity, p, z), detail in zip(table, COMPONENT_DETAIL, strict=True)
    ]


def _av(step: StepFacts) -> Av:
    kept = step.kept
    if kept is None:
        return _made_av(step)
    if kept.av is not None and kept.made_of is not None:
        reservation, view, pins, p, trigger = kept.made_of
        if (
            view is step.view
            and reservation is step.reservation
            and pins is step.pins
            and p == step.p
            and trigger is step.trigger
        ):
            return kept.av
    kept.made_of = (step.reservation, step.view, step.pins, step.p, step.trigger)
    kept.av = _made_av(step)
    return kept.av


def _made_av(step: StepFacts) -> Av:
    reservation, view = step.reservation, step.view
    e = e_value(step.p)
    return Av(
        triggered=step.trigger,
        severity=1.0 - step.p,
        p_value=step.p,
        e_value=e,
        e_value_log10=math.log10(e),
        e_process=view.e_process,
        e_process_log10=view.e_process_log10,
        e_cusum=view.e_cusum,
        alarm=view.alarm,
        alarm_threshold=view.alarm_threshold,
        cusum_alarm=view.cusum_alarm,
        cusum_threshold=view.cusum_threshold,
        alpha=view.alpha,
        alpha_alloc=reservation.alpha if reservation is not None else 0.0,
        alpha_spent=view.spent,
        alpha_wealth=view.wealth,
        budget_remaining=view.budget_remaining,
        exhausted=reservation.exhausted if reservation is not None else view.exhausted,
        p_floor=step.pins.p_floor,
        unit=step.unit,
        epoch=reservation.epoch if reservation is not None else view.epoch,
        index=reservation.index if reservation is not None else 0,
        rejections=view.rejections,
        details={},
    )


def components(step: StepFacts) -> Components:
    """The member `components`."""
    result = step.result
    distance, threshold, triggered, p = result.mv if result is not None else (0.0, 0.0, 0.0, 1.0)
    detector = _detector(step)
    return Components(
        invertibility=detector[0],
        entropy_drop=detector[1],
        sigma_cut=detector[2],
        recurrence=detector[3],
        multivariate=Multivariate(
            triggered=bool(triggered),
            severity=1.0 - p,
            p_value=p,
            distance=distance,
            threshold=threshold,
            trigger=bool(triggered),
            details={"distance": distance, "threshold": threshold} | {f"feature_{i}": share for i, share in step.top},
        ),
        av=_av(step),
        input=Input(
            triggered=step.sanitized > 0,
            severity=0.0,
            p_value=1.0,
            sanitized=step.sanitized,
            mask=step.mask,
            tokens=step.tokens,
            details={"sanitized": float(step.sanitized)},
        ),
    )


@lru_cache(maxsize=256)
def _route_id(policy: int, tier: int) -> str:
    return f"{policy:016x}/{_TIERS[tier]}"


def _route(decision: Decision, pins: Pins) -> Route:
    temperature, top_p, max_tokens, decoder = decision.route
    return Route(
        # FP32 on the wire: six decimals are all it has, and what the receipt signs
        temperature=round(temperature, 6),
        top_p=round(top_p, 6),
        decoder=_DECODERS[int(decoder)],
        max_tokens=int(max_tokens),
        tags=list(decision.tags),
        tier=_TIERS[decision.tier],
        route_id=_route_id(pins.ids[2], decision.tier),
    )


def build(
    step: StepFacts,
    parts: Components,
    decision: Decision,
    labels: Labels,
    receipt: Receipt | None,
    verify_key: str | None,
) -> RiskResponse:
    """The whole answer."""
    av, pins = parts.av, step.pins
    return RiskResponse(
        verdict=decision.verdict,
        score=step.result.score if step.result is not None else 0.0,
        threshold=pins.threshold,
        budget_remaining=av.budget_remaining,
        alpha_alloc=av.alpha_alloc,
        alpha_spent=av.alpha_spent,
        alpha_wealth=av.alpha_wealth,
        e_value=av.e_value,
        e_value_log10=av.e_value_log10,
        e_process=av.e_process,
        alarm=av.alarm,
        alarm_threshold=av.alarm_threshold,
        trigger=decision.trigger,
        p_value=step.p,
        p_floor=pins.p_floor,
        components=parts,
        step=labels.step,
        cause=decision.cause,
        action=decision.action,
        enforced=decision.enforced,
        route=_route(decision, pins),
        guarantee=labels.guarantee,
        unit=step.unit,
        epoch=av.epoch,
        checks=list(labels.checks),
        request_id=labels.request_id,
        policy_ref=labels.policy_ref,
        config_hash=labels.config_hash,
        calibration=Calibration(
            manifest=pins.digests[3],
            detector=pins.digests[0],
            multivariate=pins.digests[1],
            routing=pins.digests[2],
        ),
        receipt=receipt.head_hex if receipt is not None else None,
        receipt_body=receipt.body_text if receipt is not None else None,
        receipt_sig=receipt.sig_hex if receipt is not None else None,
        verify_key=verify_key if receipt is not None else None,
    )
