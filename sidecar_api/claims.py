"""What an answer claims: the `guarantee` string, and which configured checks ran."""

from __future__ import annotations

from msgspec import Struct

from sidecar_api.pins import Pins
from sidecar_api.schemas import Check
from tcd.contract import Signal, Status
from tcd.risk_av import RuleName, Unit, guarantee
from tcd.risk_av.guarantee import Mode

_RATE = Check(name="rate_limit", status="ran")
_CONTROLLER = Check(name="controller", status="ran")
_DETECTOR = Check(name="detector", status="ran")
_MULTIVARIATE = Check(name="multivariate", status="ran")
_RECEIPT = Check(name="receipt", status="ran")
# plain integers: arithmetic on enum members costs a microsecond each, and this runs a dozen times per step
_FAILED, _WARMUP, _FEATURES = int(Status.FAILED), int(Status.WARMUP), int(Signal.FEATURES)
_REASONS = (
    (_FAILED, "failed"),
    (int(Status.NONFINITE), "not finite"),
    (int(Status.BAD_INPUT), "bad input"),
    (int(Status.NO_CALIBRATION), "no calibration"),
    (int(Status.UNKNOWN_MASK), "unknown mask"),
    (int(Status.ABSENT), "absent"),
    (_WARMUP, "warm-up"),
)
#: Status bits of a monitor that void the claim of a step. An absent or warming-up multivariate monitor does not:
#: it contributes p = 1 at unchanged weight.
_VOID = (int(Status.FALLBACK), "fallback"), *_REASONS


_UNITS: dict[str, Unit] = {"session": "session", "request": "request", "block": "block"}


class Situation(Struct, frozen=True):
    """What a claim depends on.

    Attributes:
        pins: of the row.
        status: of the ensemble, None when there is no answer.
        reserved: whether the step belongs to a hypothesis.
        beyond: past the calibration's horizon.
        notes: of the session.
        degraded: why there is no evidence, or empty.
    """

    pins: Pins
    status: int | None
    reserved: bool
    beyond: bool
    notes: tuple[str, ...]
    degraded: str


def _parts(status: int) -> tuple[int, int, int]:
    """`tcd.contract.unpack_status` as integers."""
    return status & 0xFF, (status >> 8) & 0xFF, (status >> 16) & 0xFF


def _reasons(situation: Situation) -> list[str]:
    pins = situation.pins
    if not pins.mask:
        return ["no signals"]
    reasons = [*pins.reasons, *situation.notes]
    if situation.beyond:
        reasons.append("past the calibration's horizon")
    if situation.degraded:
        reasons.append(f"degraded: {situation.degraded}")
    if situation.status is not None:
        detector, monitor, routing = _parts(situation.status)
        if detector and pins.weight > 0:
            reasons.extend(text for bit, text in _VOID if detector & bit)
        if monitor and pins.weight < 1 and pins.mask & _FEATURES:
            reasons.extend(text for bit, text in _VOID if monitor & bit and bit != _WARMUP)
        if routing:
            reasons.append("routing")
    if not reasons and not situation.reserved:
        reasons.append("not reserved")
    return list(dict.fromkeys(reasons))


def _mode(unit: str, pins: Pins) -> Mode:
    """On which ground the claim stands."""
    if unit == "block":
        return "model_based"
    return "prds" if pins.confidence is None else "csu"


def claim(
    situation: Situation, *, alpha: float, unit: str, rule: RuleName, epoch: int, durable: bool, caller: bool = False
) -> str:
    """The `guarantee` of a step.

    Args:
        situation: what it depends on.
        alpha: claim level of the epoch.
        unit: session, request or block.
        rule: online testing rule.
        epoch: of the reservation.
        durable: whether budgets outlive the process; the claim says so when they do not.
        caller: whether the caller computed the evidence itself; the claim says so.
    """
    reasons = _reasons(situation)
    pins = situation.pins
    digests, confidence, mode = pins.digests, pins.confidence, _mode(unit, pins)
    text = guarantee(
        alpha=alpha,
        unit=_UNITS[unit],
        epoch=epoch,
        calibration=digests[0] or digests[1] or digests[3],
        mode=mode,
        confidence=confidence if mode == "csu" else None,
        rule=rule,
        reasons=reasons,
    )
    if reasons:
        return text
    return f"{text}{'|evidence=caller' if caller else ''}{'' if durable else '|ledger=memory'}"


def _monitor(name: str, status: int, ran: Check) -> Check:
    for bit, reason in _REASONS if status else ():
        if status & bit:
            return Check(name=name, status="failed" if bit == _FAILED else "skipped", reason=reason)
    return ran


class Ran(Struct, frozen=True):
    """What else ran in a step.

    Attributes:
        controller: why the controller did not judge, or empty.
        receipt: issued, failed or disabled.
        receipt_reason: why it failed.
        idempotent: whether the request had a key.
        tokens: whether token ids came along.
        extra: further checks.
    """

    controller: str
    receipt: str
    receipt_reason: str
    idempotent: bool
    tokens: bool
    extra: tuple[Check, ...]


def checks(situation: Situation, ran: Ran) -> list[Check]:
    """Each configured check and whether it ran."""
    out = [_RATE]
    if situation.status is None:
        reason = situation.degraded
        out.append(Check(name="detector", status="failed", reason=reason))
        out.append(Check(name="multivariate", status="failed", reason=reason))
    else:
        detector, monitor, routing = _parts(situation.status)
        out.append(_monitor("detector", detector, _DETECTOR))
        out.append(_monitor("multivariate", monitor, _MULTIVARIATE))
        if routing & _FAILED:
            out.append(Check(name="routing", status="failed", reason="failed"))
        if situation.degraded:
            out.append(Check(name="scoring", status="failed", reason=situation.degraded))
    out.append(Check(name="controller", status="skipped", reason=ran.controller) if ran.controller else _CONTROLLER)
    if ran.receipt == "issued":
        out.append(_RECEIPT)
    else:
        status = "failed" if ran.receipt == "failed" else "skipped"
        reason = ran.receipt_reason or ran.receipt
        out.append(Check(name="receipt", status="failed" if status == "failed" else "skipped", reason=reason))
    if ran.idempotent:
        out.append(Check(name="idempotency", status="ran"))
    if ran.tokens:
        out.append(Check(name="text_rule", status="skipped", reason="not in this version"))
    out.extend(ran.extra)
    return out
