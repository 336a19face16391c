"""Bodies of decision records, written from parts that seldom change.

The bytes are those that `Issuer.issue` makes of `records.decision_members`.

What is the same for many records (the issuer, a hypothesis, a snapshot, a route) is checked and written once and
remembered; per record there are the numbers that are new. A property test holds both ways to each other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tcd.contract import COMPONENTS
from tcd.receipts import canonical, records
from tcd.receipts.body import NO_PREV, VERSION, check_part
from tcd.receipts.chain import ChainState
from tcd.receipts.schema import refuse
from tcd.risk_av.views import EprocSnapshot, Reservation

_REMEMBERED: Final = 4096
_REALS: Final = struct.Struct(">20d")
#: Names of the components in the order of their values, and in the order of the canonical text.
_NAMES: Final = (*COMPONENTS, "multivariate")
_SORTED: Final = tuple(sorted(range(len(_NAMES)), key=_NAMES.__getitem__))
_BOOL: Final = ("false", "true")


def _text(value: Any) -> str:
    return canonical.encode(value).decode()


def _inner(value: Any) -> str:
    """An object's text without its braces."""
    return _text(value)[1:-1]


@dataclass(frozen=True, slots=True)
class Av:
    """Member `av` of all decisions of a hypothesis, without `p` and `sup`."""

    before: str
    between: str
    after: str

    @classmethod
    def of(cls, reservation: Reservation | None, *, stream: str, unit: str, p_floor: float) -> Av:
        """The part of a reservation; None = the controller is off.

        Raises:
            VerificationError: a member is outside the schema.
        """
        if reservation is None:
            members = records.av_off(stream)
        else:
            members = records.av_members(reservation, None, unit=unit, p_floor=p_floor, sup=(0.0, 0.0))
        check_part("av", members)
        before = _inner({name: members[name] for name in members if name < "p"})
        between = _inner({name: members[name] for name in members if "p" < name < "sup"})
        after = _inner({name: members[name] for name in members if name > "sup"})
        return cls(f"{{{before},", between, f"{after}}}")


@dataclass(frozen=True, slots=True)
class Subject:
    """Members `model` and `subject` of all decisions of a session, and the tenant."""

    model: str
    subject: str
    tenant: str

    @classmethod
    def of(cls, model: records.Model, subject: str, tenant: str) -> Subject:
        """The part of a session.

        Raises:
            VerificationError: a member is outside the schema.
        """
        members = model.to_json()
        for name, value in (("model", members), ("subject", subject), ("tenant", tenant)):
            check_part(name, value)
        return cls(_text(members), subject, _text(tenant))


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a decision.

    Attributes:
        score, threshold: of the answer.
        p, sup: p-value of the hypothesis after this step, running maxima as they were sent.
        step, status: number of the step; status bits of the ensemble.
        triggered: of each component, in the order of the contract and the multivariate monitor last.
        components: severity, p and z of each, one after the other.
    """

    score: float
    threshold: float
    p: float
    sup: tuple[float, float]
    step: int
    status: int
    triggered: Sequence[bool]
    components: Sequence[float]


@lru_cache(maxsize=_REMEMBERED)
def _guarantee(text: str) -> str:
    check_part("guarantee", text)
    return _text(text)


@lru_cache(maxsize=_REMEMBERED)
def _route(route: records.Route) -> str:
    members = route.to_json()
    check_part("route", members)
    return _text(members)


def _risk(risk: records.Risk | None) -> str:
    if risk is None:
        return ""
    members = risk.to_json()
    check_part("risk", members)
    return f'"risk":{_text(members)},'


@lru_cache(maxsize=_REMEMBERED)
def _verdict(action: str, enforced: str, cause: str, tags: tuple[str, ...], *judged: bool) -> tuple[str, str, str]:
    """Member `decision` but for score, status, step and threshold: before, between and after them."""
    trigger, verdict = judged
    plain = records.Decision(verdict, trigger, 0.0, 0.0, action, enforced, cause, 0, 0, tags).to_json()
    check_part("decision", plain)
    head = _inner({name: plain[name] for name in ("action", "cause", "enforced")})
    tail = _inner({name: plain[name] for name in ("trigger", "verdict")})
    return f'{{{head},"score":"', f'"tags":{_text(plain["tags"])},"threshold":"', f'",{tail}}}'


@lru_cache(maxsize=_REMEMBERED)
def _assets(ids: tuple[int, int, int]) -> str:
    value = [str(i) for i in ids]
    check_part("assets", value)
    return _text(value)


class DecisionWriter:
    """Writes bodies of one issuer under one configuration and policy."""

    def __init__(self, *, suite: str, kid: str, origin: str, config: str, policy: str) -> None:
        """The constant parts.

        Raises:
            VerificationError: one is outside the schema.
        """
        for name, value in (("suite", suite), ("kid", kid), ("origin", origin), ("config", config), ("policy", policy)):
            check_part(name, value)
        self._config = f'"config":"{config}","decision":'
        self._kid = f',"kid":"{kid}","model":'
        self._origin = f'","origin":{_text(origin)},"policy":"{policy}","req":"'
        self._suite = f'","suite":"{suite}","tenant":'
        self._snapshots: dict[str, tuple[EprocSnapshot, str]] = {}

    def _snapshot(self, snapshot: EprocSnapshot) -> str:
        """The newest snapshot of a stream, written once while it is the newest."""
        known = self._snapshots.get(snapshot.stream)
        if known is not None and known[0] is snapshot:
            return known[1]
        members = snapshot.to_json()
        check_part("eproc", members)
        if len(self._snapshots) >= _REMEMBERED:
            self._snapshots.clear()
        text = _text(members)
        self._snapshots[snapshot.stream] = (snapshot, text)
        return text

    def write(
        self,
        chain: ChainState,
        *,
        ts_us: int,
        nonce: str,
        subject: Subject,
        digests: tuple[str, str, str],
        verdict: tuple[str, str, str, tuple[str, ...], bool, bool],
        numbers: Numbers,
        route: records.Route,
        av: Av,
        eproc: EprocSnapshot,
        witness: str,
        guarantee: str,
        assets: tuple[int, int, int],
        evidence: str,
        risk: records.Risk | None = None,
    ) -> bytes:
        """The body of the next decision of a chain.

        Args:
            chain: before this record.
            ts_us: time, not before the chain's last record.
            nonce: 32 hex digits.
            subject: part of the session.
            digests: members `req`, `comp` and `e`, each `sha256:` and 64 hex digits.
            verdict: action, enforced, cause, tags, trigger, verdict.
            numbers: of the decision.
            route: taken.
            av: part of the hypothesis.
            eproc: newest snapshot of the stream.
            witness: `segments.written`.
            guarantee: the claim in force.
            assets: ids used.
            evidence: `shim` or `caller`.
            risk: what the table saw, where a policy decided.

        Raises:
            VerificationError: a part is outside the schema, or the record cannot come next in its chain.
            ValueError: a number is not finite.
        """
        chain.check_next("decision")
        if chain.prev == NO_PREV:
            raise refuse(pointer="/chain", why="seq 0, prev zeros and typ open go together")
        n = numbers
        if not (0 <= n.step <= canonical.MAX_INT and 0 <= n.status <= canonical.MAX_INT):
            check_part("decision", {})
        reals = _hex((*n.components, n.score, n.threshold, n.p, *n.sup))
        if evidence != "shim":
            check_part("req", digests[0])
            check_part("evidence", evidence)
        begin, between, end = _verdict(*verdict)
        parts = ",".join([_component(i, n.triggered, reals) for i in _SORTED])
        return (
            f'{{"assets":{_assets(assets)},"av":{av.before}"p":"{reals[272:288]}",{av.between},'
            f'"sup":["{reals[288:304]}","{reals[304:320]}"],{av.after},'
            f'"chain":{{"id":"{chain.id}","prev":"{chain.prev}","seq":{chain.seq}}},'
            f'"comp":"{digests[1]}","components":{{{parts}}},{self._config}'
            f'{begin}{reals[240:256]}","status":{n.status},"step":{n.step},{between}{reals[256:272]}{end},'
            f'"e":"{digests[2]}","eproc":{self._snapshot(eproc)},"evidence":"{evidence}",'
            f'"guarantee":{_guarantee(guarantee)}{self._kid}{subject.model},"nonce":"{nonce}{self._origin}'
            f'{digests[0]}",{_risk(risk)}"route":{_route(route)},"subject":"{subject.subject}{self._suite}{subject.tenant},'
            f'"ts_us":{ts_us},"typ":"decision","v":"{VERSION}","witness":{witness}}}'
        ).encode()


def _hex(values: tuple[float, ...]) -> str:
    """hex64 of each value, one after the other.

    Raises:
        ValueError: one is not finite.
    """
    # a sum is finite only if all of its terms are
    if not (math.isfinite(sum(values)) or all(map(math.isfinite, values))):
        msg = "hex64 holds finite numbers only"
        raise ValueError(msg)
    # adding zero makes a negative zero a zero
    return _REALS.pack(*[value + 0.0 for value in values]).hex()


def _component(i: int, triggered: Sequence[bool], reals: str) -> str:
    at = 48 * i
    return (
        f'"{_NAMES[i]}":{{"p":"{reals[at + 16 : at + 32]}","severity":"{reals[at : at + 16]}",'
        f'"triggered":{_BOOL[triggered[i]]},"z":"{reals[at + 32 : at + 48]}"}}'
    )
