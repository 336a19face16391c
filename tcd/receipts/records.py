"""Typed builders of the members of each record type; reals become hex64 here, so callers keep floats."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcd.risk_av.exact import hex64
from tcd.risk_av.params import Terms
from tcd.risk_av.views import EprocSnapshot, Reservation, Settlement, stream_digest


@dataclass(frozen=True, slots=True)
class Model:
    """What was judged: the parts of its detector key."""

    id: str
    gpu: str = ""
    task: str = ""
    lang: str = ""

    def to_json(self) -> dict[str, Any]:
        """Member `model`."""
        return {"id": self.id, "gpu": self.gpu, "task": self.task, "lang": self.lang}


@dataclass(frozen=True, slots=True)
class Decision:
    """Member `decision`; see `tcd.receipts.members` for the values of the enumerations."""

    verdict: bool
    trigger: bool
    score: float
    threshold: float
    action: str
    enforced: str
    cause: str
    step: int
    status: int = 0
    tags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Member `decision`."""
        return {
            "verdict": self.verdict,
            "trigger": self.trigger,
            "score": hex64(self.score),
            "threshold": hex64(self.threshold),
            "action": self.action,
            "enforced": self.enforced,
            "cause": self.cause,
            "step": self.step,
            "status": self.status,
            "tags": list(self.tags),
        }


@dataclass(frozen=True, slots=True)
class Route:
    """Member `route`: temperature and top_p as floats, written in millionths."""

    temperature: float
    top_p: float
    max_tokens: int
    decoder: str
    tier: str

    def to_json(self) -> dict[str, Any]:
        """Member `route`."""
        return {
            "temperature_e6": round(self.temperature * 1e6),
            "top_p_e6": round(self.top_p * 1e6),
            "max_tokens": self.max_tokens,
            "decoder": self.decoder,
            "tier": self.tier,
        }


@dataclass(frozen=True, slots=True)
class Component:
    """One of `components`."""

    triggered: bool
    severity: float
    p: float
    z: float

    def to_json(self) -> dict[str, Any]:
        """A value of `components`."""
        return {
            "triggered": self.triggered,
            "severity": hex64(self.severity),
            "p": hex64(self.p),
            "z": hex64(self.z),
        }


@dataclass(frozen=True, slots=True)
class Risk:
    """Member `risk`: what a policy's decision table saw beside `decision` and `av`."""

    tier: int
    alarm: bool
    floor: bool
    failed: bool
    spent: float
    distrust: float
    pressure: float

    def to_json(self) -> dict[str, Any]:
        """Member `risk`."""
        return {
            "tier": self.tier,
            "alarm": self.alarm,
            "floor": self.floor,
            "failed": self.failed,
            "spent": hex64(self.spent),
            "distrust": hex64(self.distrust),
            "pressure": hex64(self.pressure),
        }


def hypothesis_digest(stream: str, hypothesis: str) -> str:
    """Public name of a hypothesis."""
    text = f"{len(stream.encode())}:{stream}{hypothesis}"
    return "sha256:" + hashlib.sha256(b"tcd/hypothesis/v1\0" + text.encode()).hexdigest()


def av_members(
    reservation: Reservation,
    settlement: Settlement | None,
    *,
    unit: str,
    p_floor: float,
    sup: tuple[float, float],
) -> dict[str, Any]:
    """Member `av` of a decision.

    Args:
        reservation: of the hypothesis.
        settlement: after this step, None when the step gave no evidence.
        unit: session, request, block, or none with the controller off.
        p_floor: smallest p-value that the calibration can give.
        sup: running maxima as they were sent to the scorer.
    """
    return {
        "unit": unit,
        "stream": stream_digest(reservation.stream),
        "hypothesis": hypothesis_digest(reservation.stream, reservation.hypothesis),
        "epoch": reservation.epoch,
        "index": reservation.index,
        "seq": reservation.seq,
        "known": reservation.known,
        "alloc": hex64(reservation.alpha),
        "spent": hex64(reservation.spent),
        "wealth": hex64(reservation.wealth),
        "p": hex64(1.0 if settlement is None else settlement.p),
        "p_floor": hex64(p_floor),
        "sup": [hex64(sup[0]), hex64(sup[1])],
        "exhausted": reservation.exhausted,
    }


def av_off(stream: str) -> dict[str, Any]:
    """Member `av` of a decision with the controller off."""
    off = Reservation(stream, "", 0, 0, 0, 0.0, 0.0, 0, 0.0, 0.0, exhausted=False, new=False)
    return av_members(off, None, unit="none", p_floor=1.0, sup=(-1e300, -1e300))


def decision_members(
    *,
    subject: str,
    model: Model,
    req: str,
    comp: str,
    e: str,
    decision: Decision,
    route: Route,
    components: Mapping[str, Component],
    av: Mapping[str, Any],
    eproc: EprocSnapshot,
    witness: Sequence[Mapping[str, Any]],
    guarantee: str,
    assets: Sequence[int],
    evidence: str = "shim",
    risk: Risk | None = None,
) -> dict[str, Any]:
    """Members of a `decision` record.

    Args:
        subject: `chain.subject_digest`.
        model: what was judged.
        req: `jcs.digest` of the validated request object.
        comp: `jcs.digest` of the answer's `components`.
        e: `jcs.digest` of the answer's e-object.
        decision: what was decided.
        route: the route taken.
        components: name to component.
        av: `av_members` or `av_off`.
        eproc: newest snapshot of the stream, `StreamView.snapshot`.
        witness: `witness.segment` of each signal.
        guarantee: the claim in force.
        assets: ids of the detector, multivariate and policy assets used.
        evidence: `shim`, or `caller` when the caller queried the ensemble itself.
        risk: what the table saw, where a policy decided.
    """
    seen = {} if risk is None else {"risk": risk.to_json()}
    return {
        **seen,
        "subject": subject,
        "model": model.to_json(),
        "req": req,
        "comp": comp,
        "e": e,
        "decision": decision.to_json(),
        "route": route.to_json(),
        "components": {name: component.to_json() for name, component in components.items()},
        "av": dict(av),
        "eproc": eproc.to_json(),
        "witness": [dict(segment) for segment in witness],
        "guarantee": guarantee,
        "evidence": evidence,
        "assets": [str(asset) for asset in assets],
    }


def open_session_members(
    *,
    subject: str,
    model: Model,
    unit: str,
    keys: Sequence[int],
    mask: int,
    assets: Sequence[int],
    weight: float,
) -> dict[str, Any]:
    """Members of the `open` record of a session: what is pinned for all of it.

    Args:
        subject: `chain.subject_digest`.
        model: what is judged.
        unit: of the hypothesis.
        keys: the three levels of the detector key.
        mask: signal mask.
        assets: ids of the detector, multivariate and policy assets.
        weight: merge weight of the detector.
    """
    pins = {
        "keys": [str(key) for key in keys],
        "mask": mask,
        "assets": [str(asset) for asset in assets],
        "weight": hex64(weight),
    }
    return {"open": {"scope": "session", "subject": subject, "model": model.to_json(), "pins": pins, "unit": unit}}


def open_plain_members(subject: str) -> dict[str, Any]:
    """Members of the `open` record of a chain that is nobody's session: of keys, heads, administration."""
    return open_session_members(
        subject=subject, model=Model("-"), unit="none", keys=(0, 0, 0), mask=0, assets=(0, 0, 0), weight=0.0
    )


def open_epoch_members(*, stream: str, epoch: int, claim_level: float, terms: Terms) -> dict[str, Any]:
    """Members of the `open` record of a stream's epoch: its terms, committed before any data."""
    return {
        "open": {
            "scope": "epoch",
            "stream": stream_digest(stream),
            "epoch": epoch,
            "claim_level": hex64(claim_level),
            "terms": terms.to_json(),
        }
    }


def close_members(*, reason: str, count: int, eproc: EprocSnapshot | None = None) -> dict[str, Any]:
    """Members of a `close` record; `count` includes it (`chain.seq + 1`)."""
    out: dict[str, Any] = {"close": {"reason": reason, "count": count}}
    if eproc is not None:
        out["eproc"] = eproc.to_json()
    return out


def gap_members(*, first: int, last: int, reason: str) -> dict[str, Any]:
    """Members of a `gap` record: records first..last are lost, and why."""
    return {"gap": {"from": first, "to": last, "reason": reason}}


def admin_members(*, action: str, actor: str, object_digest: str, reason: str = "") -> dict[str, Any]:
    """Members of an `admin` record; without a `reason` the member is absent."""
    why = {"reason": reason} if reason else {}
    return {"admin": {"action": action, "actor": actor, "object": object_digest, **why}}


def ack_members(*, actor: str, stream: str, claim: int, terms: Terms) -> dict[str, Any]:
    """Members of an `ack` record: an operator cleared the alarms of a stream."""
    return {"ack": {"actor": actor, "stream": stream_digest(stream), "claim": claim, "terms": terms.to_json()}}


def rewrite_members(
    *,
    subject: str,
    model: Model,
    outcome: str,
    before: str,
    after: str,
    rewritten: bool,
    shadow: bool,
    marking: str,
    zones: int,
    delta: int,
    failures: Sequence[str],
) -> dict[str, Any]:
    """Members of a `rewrite` record: what was done to a request before a model saw it.

    Args:
        subject: `chain.subject_digest`.
        model: for which the request is.
        outcome: digest of the rewriter's outcome.
        before: digest of the body's bytes as it came.
        after: digest of the bytes to be forwarded.
        rewritten: whether they differ by marking.
        shadow: whether the work was done and the original forwarded.
        marking: how.
        zones: segments that were (or would be) marked.
        delta: bytes by which the body grew (or would have).
        failures: reasons.
    """
    done = {
        "outcome": outcome,
        "before": before,
        "after": after,
        "rewritten": rewritten,
        "shadow": shadow,
        "marking": marking,
        "zones": zones,
        "delta": delta,
        "failures": list(failures)[:16],
    }
    return {"subject": subject, "model": model.to_json(), "rewrite": done}
