"""What a decision record says, in words: which rule made it, on what evidence, against which threshold. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tcd.contract import Status, unpack_status

#: Members of records that are digests or counts in hex, not reals.
_REAL: Final = 16
_RULE: Final = "rule:"
_CAUSES: Final[Mapping[str, str]] = {
    "av": "the anytime-valid test rejected the hypothesis that this generation is healthy: its p-value is not above "
    "the level that was reserved for it before the evidence came",
    "detector": "the fast alarm: the score of a step is above its threshold",
    "policy": "a rule of the policy holds",
    "budget": "the budget of this epoch is used up; the policy says what happens then",
    "degraded": "a part that the decision needs did not work; the policy says what happens then",
    "trust": "whoever takes part is not trusted enough by the trust graph",
    "slo": "the latency is over its objective and the policy trades for it",
    "": "nothing asked for more than to allow it",
}
_ACTIONS: Final[Mapping[str, str]] = {
    "allow": "allowed",
    "degrade": "degraded",
    "block": "blocked",
    "throttle": "throttled",
    "ask_for_review": "held for review",
    "escalate_to_human": "escalated to a person",
}


def real(text: Any) -> float:
    """A real of a record, 16 hex digits; NaN for what is none."""
    try:
        return float(struct.unpack(">d", bytes.fromhex(text))[0]) if len(text) == _REAL else math.nan
    except (ValueError, TypeError):
        return math.nan


@dataclass(frozen=True, slots=True)
class Evidence:
    """A comparison that a decision rests on.

    Attributes:
        name: of the rule.
        observed, needed: both sides, in words with numbers.
        met: whether the rule fired.
        meaning: what that says.
    """

    name: str
    observed: str
    needed: str
    met: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Step:
    """A decision record, decoded.

    Attributes:
        head, chain, seq, ts_us: of the record.
        step: of the generation.
        action, enforced, cause, verdict, trigger, tags: decided.
        score, threshold: of the fast alarm.
        p, level, p_floor: p-value of the hypothesis so far; the level that was reserved; the smallest possible p.
        e, e_needed: the same as an e-value, 1 / (2 sqrt p), and what it takes: 1 / (2 sqrt level).
        e_process, e_threshold: of the tenant's stream, decimal logarithms.
        spent, wealth, epoch, exhausted: of the budget.
        policy, guarantee, tenant, subject, model, tier: as the record has them.
        components: name to (triggered, severity, p, z).
        status: parts of the ensemble that said something.
        risk: what the decision table of a policy saw besides; None where the settings decided.
    """

    head: str
    chain: str
    seq: int
    ts_us: int
    step: int
    action: str
    enforced: str
    cause: str
    verdict: bool
    trigger: bool
    tags: tuple[str, ...]
    score: float
    threshold: float
    p: float
    level: float
    p_floor: float
    e_process: float
    e_threshold: float
    alarm: bool
    spent: float
    wealth: float
    epoch: int
    exhausted: bool
    unit: str
    policy: str
    guarantee: str
    tenant: str
    subject: str
    model: Mapping[str, str]
    tier: str
    components: Mapping[str, tuple[bool, float, float, float]]
    status: tuple[str, ...]
    risk: Mapping[str, Any] | None

    @property
    def rules(self) -> tuple[str, ...]:
        """Rows of the policy's table that held, severest first."""
        return tuple(tag[len(_RULE) :] for tag in self.tags if tag.startswith(_RULE))

    @property
    def e(self) -> float:
        """The p-value as an e-value."""
        return e_value(self.p)

    @property
    def e_needed(self) -> float:
        """What it takes to reject."""
        return e_value(self.level)


def e_value(p: float) -> float:
    """1 / (2 sqrt p), an e-value of a p-value; infinite at 0."""
    return math.inf if p <= 0 else 0.5 / math.sqrt(p)


def step_of(head: str, body: Mapping[str, Any]) -> Step:
    """A decision record's body, decoded."""
    decided, av, eproc = body["decision"], body["av"], body["eproc"]
    return Step(
        head=head,
        chain=body["chain"]["id"],
        seq=body["chain"]["seq"],
        ts_us=body["ts_us"],
        step=decided["step"],
        action=decided["action"],
        enforced=decided["enforced"],
        cause=decided["cause"],
        verdict=decided["verdict"],
        trigger=decided["trigger"],
        tags=tuple(decided["tags"]),
        score=real(decided["score"]),
        threshold=real(decided["threshold"]),
        p=real(av["p"]),
        level=real(av["alloc"]),
        p_floor=real(av["p_floor"]),
        e_process=_log10(eproc, "e"),
        e_threshold=math.log10(real(eproc["threshold"])) if real(eproc["threshold"]) > 0 else math.nan,
        alarm=eproc["trigger"],
        spent=real(av["spent"]),
        wealth=real(av["wealth"]),
        epoch=av["epoch"],
        exhausted=av["exhausted"],
        unit=av["unit"],
        policy=body["policy"],
        guarantee=body["guarantee"],
        tenant=body["tenant"],
        subject=body["subject"],
        model=body["model"],
        tier=body["route"]["tier"],
        components={
            name: (c["triggered"], real(c["severity"]), real(c["p"]), real(c["z"]))
            for name, c in body["components"].items()
        },
        status=_status(decided["status"]),
        risk=body.get("risk"),
    )


def _log10(eproc: Mapping[str, Any], name: str) -> float:
    """Decimal logarithm of a number that is a mantissa and a power of two."""
    mantissa = real(eproc[name])
    return -math.inf if mantissa <= 0 else math.log10(mantissa) + eproc[f"{name}_exp2"] * math.log10(2)


def _status(packed: int) -> tuple[str, ...]:
    parts = zip(("detector", "multivariate", "routing"), unpack_status(packed), strict=True)
    return tuple(f"{name}: {flag.name}".lower() for name, bits in parts for flag in Status if flag and flag in bits)


def headline(step: Step) -> str:
    """One sentence: what was done and why."""
    done, asked = _ACTIONS.get(step.enforced, step.enforced), _ACTIONS.get(step.action, step.action)
    only = "" if step.action == step.enforced else f" (it would have been {asked}: the policy only watches)"
    rules = f" ({', '.join(step.rules)})" if step.rules and step.cause == "policy" else ""
    return f"Step {step.step} was {done}{only}: {_CAUSES.get(step.cause, step.cause)}{rules}."


def evidence(step: Step) -> tuple[Evidence, ...]:
    """Every comparison, those that fired first."""
    out = [_hypothesis(step), _fast(step), _stream(step), _budget(step), *_policy(step)]
    for name, (triggered, severity, p, z) in sorted(step.components.items()):
        seen = f"p {number(p)}, z {number(z)}, severity {number(severity)}"
        out.append(Evidence(f"component {name}", seen, "its own threshold", triggered, _COMPONENT.get(name, "")))
    return tuple(sorted(out, key=lambda found: not found.met))


_COMPONENT: Final[Mapping[str, str]] = {
    "invertibility": "the log-probabilities of the sampled tokens are not those of a healthy generation",
    "entropy_drop": "the entropy of the next token fell",
    "sigma_cut": "the spectrum of the hidden states changed its spread",
    "recurrence": "the generation repeats itself",
    "multivariate": "the features are far from those of healthy generations",
}


def _hypothesis(step: Step) -> Evidence:
    if step.unit == "none" or not step.level > 0:
        why = "no level was reserved for this session: nothing could be rejected"
        return Evidence("anytime-valid test", f"p {number(step.p)}", "no level", step.trigger, why)
    observed = f"p {number(step.p)} (e-value {number(step.e)})"
    needed = f"p at most {number(step.level)} (e-value at least {number(step.e_needed)})"
    if step.trigger:
        why = "rejected: if the generation were healthy, this would happen at most as often as the level says"
    elif step.level < step.p_floor:
        why = f"the level is below the smallest p-value that the calibration can give ({number(step.p_floor)})"
    else:
        why = "not rejected: healthy generations look like this too"
    return Evidence("anytime-valid test", observed, needed, step.trigger, why)


def _fast(step: Step) -> Evidence:
    met = step.score >= step.threshold
    why = "1 - score is the merged p-value of this step alone; the threshold holds the rate of false alarms"
    return Evidence("fast alarm", f"score {number(step.score)}", f"at least {number(step.threshold)}", met, why)


def _stream(step: Step) -> Evidence:
    why = "evidence over all sessions of the tenant: an alarm says that too many of them are unhealthy"
    observed = f"e-process {power(step.e_process)}"
    return Evidence("alarm of the tenant", observed, f"at least {power(step.e_threshold)}", step.alarm, why)


def _budget(step: Step) -> Evidence:
    observed = f"spent {number(step.spent)} in epoch {step.epoch}, wealth {number(step.wealth)}"
    why = "what was reserved before this step; an exhausted budget can reject nothing more"
    return Evidence("budget", observed, "nothing left", step.exhausted, why)


def _policy(step: Step) -> list[Evidence]:
    """What a policy may ask about beside the statistics."""
    if step.risk is None:
        # the settings have one rule of this kind
        if step.cause != "policy":
            return []
        why = "generations of almost no entropy repeat or are degenerate; the settings name the floor"
        return [Evidence("entropy floor", "the newest entropy is under it", "TCD_ENTROPY_FLOOR", True, why)]
    risk, asked = step.risk, "as the rows of the policy say"
    floor, failed = bool(risk["floor"]), bool(risk["failed"])
    distrust, pressure = real(risk["distrust"]), real(risk["pressure"])
    said = {
        "entropy floor": ("under it" if floor else "not under it", floor, "the entropy of the newest token"),
        "parts that failed": ("some" if failed else "none", failed, "scoring, or another part that decisions need"),
        "trust": (
            f"distrust {number(distrust)}",
            step.cause == "trust",
            "1 - trust of the least trusted that takes part",
        ),
        "latency": (f"pressure {number(pressure)}", step.cause == "slo", "latency of late over its objective"),
    }
    return [Evidence(name, seen, asked, met, why) for name, (seen, met, why) in said.items()]


def number(value: float) -> str:
    """Four figures; thousands with commas."""
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if 1000 <= abs(value) < 1e9:  # noqa: PLR2004 - beyond that powers are read more easily
        return f"{value:,.0f}"
    return f"{value:.4g}"


def power(exponent: float) -> str:
    """A number by its decimal logarithm."""
    return number(10**exponent) if abs(exponent) < 9 else f"10^{exponent:.1f}"  # noqa: PLR2004 - as `number` has it


def policy_name(digest: str, known: Mapping[str, str]) -> str:
    """The reference of a policy by its digest, with the word when it is no longer in force."""
    return known.get(digest) or f"{digest[:19]}… (not in force now)"
