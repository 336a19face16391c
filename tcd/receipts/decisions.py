"""Bodies of decision records, written from parts that seldom change.

The bytes are those that `Issuer.issue` makes of `records.decision_members`.

What is the same for many records (the issuer, a hypothesis, a snapshot, a route) is checked and written once and
remembered; per record there are the numbers that are new. A property test holds both ways to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tcd.contract import COMPONENTS as DETECTOR_COMPONENTS
from tcd.receipts import canonical, records
from tcd.receipts.body import NO_PREV, check_part
from tcd.receipts.chain import ChainState
from tcd.receipts.filling import COMPONENTS, E_OBJECT, MARKS, NONCE, REQUEST, WITNESS, Objects, Windows, fill
from tcd.receipts.members import VERSION
from tcd.receipts.schema import refuse
from tcd.risk_av.views import EprocSnapshot, Reservation

_REMEMBERED: Final = 4096
#: Names of the components in the order of their values, and in the order of the canonical text.
_NAMES: Final = (*DETECTOR_COMPONENTS, "multivariate")
_SORTED: Final = tuple(sorted(range(len(_NAMES)), key=_NAMES.__getitem__))
_BOOL: Final = ("false", "true")
_PARTS: Final = MARKS[: 3 * len(_NAMES)]
_SCORE, _THRESHOLD, _P, _SUP, _SUP_MV = MARKS[3 * len(_NAMES) :]


def _text(value: Any) -> str:
    return canonical.encode(value).decode()


def _inner(value: Any) -> str:
    """An object's text without its braces."""
    return _text(value)[1:-1]


@dataclass(frozen=True, slots=True)
class Av:
    """Member `av` of all decisions of a hypothesis, with marks for `p` and `sup`."""

    text: str

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
        return cls(f'{{{before},"p":"{_P}",{between},"sup":["{_SUP}","{_SUP_MV}"],{after}}}')


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


class Numbers(NamedTuple):
    """The numbers of a decision.

    Attributes:
        reals: severity, p and z of each component, in the order of the contract and the multivariate monitor last;
            score and threshold of the answer; the p-value of the hypothesis after this step; the running maxima as they
            were sent. 20 in all.
        step, status: number of the step; status bits of the ensemble.
        triggered: of each component.
    """

    reals: Sequence[float]
    step: int
    status: int
    triggered: tuple[bool, ...]


@lru_cache(maxsize=_REMEMBERED)
def _guarantee(text: str) -> str:
    check_part("guarantee", text)
    return _text(text)


@lru_cache(maxsize=_REMEMBERED)
def route_text(route: records.Route) -> str:
    """Member `route`.

    Raises:
        VerificationError: it is outside the schema.
    """
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
def _verdict(action: str, enforced: str, cause: str, tags: tuple[str, ...], *judged: bool) -> tuple[str, str]:
    """Member `decision` but for status and step: before and after them."""
    trigger, verdict = judged
    plain = records.Decision(verdict, trigger, 0.0, 0.0, action, enforced, cause, 0, 0, tags).to_json()
    check_part("decision", plain)
    head = _inner({name: plain[name] for name in ("action", "cause", "enforced")})
    tail = _inner({name: plain[name] for name in ("trigger", "verdict")})
    marks = _text(plain["tags"])
    return f'{{{head},"score":"{_SCORE}","status":', f'"tags":{marks},"threshold":"{_THRESHOLD}",{tail}}}'


@lru_cache(maxsize=_REMEMBERED)
def _components(triggered: tuple[bool, ...]) -> str:
    """Member `components`."""
    parts = []
    for i in _SORTED:
        severity, p, z = _PARTS[3 * i : 3 * i + 3]
        flag = _BOOL[triggered[i]]
        parts.append(f'"{_NAMES[i]}":{{"p":"{p}","severity":"{severity}","triggered":{flag},"z":"{z}"}}')
    return f"{{{','.join(parts)}}}"


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
        self._config = f',"config":"{config}","decision":'
        self._kid = f',"kid":"{kid}","model":'
        self._origin = f',"nonce":"{NONCE}","origin":{_text(origin)},"policy":"{policy}","req":"'
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
        random: bytes,
        subject: Subject,
        objects: Objects,
        verdict: tuple[str, str, str, tuple[str, ...], bool, bool],
        numbers: Numbers,
        route: str,
        av: Av,
        eproc: EprocSnapshot,
        windows: Windows,
        guarantee: str,
        assets: tuple[int, int, int],
        caller: str = "",
        risk: records.Risk | None = None,
    ) -> tuple[bytes, bytes]:
        """Head and body of the next decision of a chain.

        Args:
            chain: before this record.
            ts_us: time, not before the chain's last record.
            random: 80 random bytes: the nonce and the salts of the witness.
            subject: part of the session.
            objects: what `req`, `comp` and `e` are digests of.
            verdict: action, enforced, cause, tags, trigger, verdict.
            numbers: of the decision.
            route: `route_text` of the one taken.
            av: part of the hypothesis.
            eproc: newest snapshot of the stream.
            windows: for the witness.
            guarantee: the claim in force.
            assets: ids used.
            caller: digest of what a direct caller sent to the ensemble; empty for the shim's own evidence.
            risk: what the table saw, where a policy decided.

        Raises:
            Strange: the objects are not of the form that they claim.
            VerificationError: a part is outside the schema, or the record cannot come next in its chain.
            ValueError: a number is not finite.
        """
        chain.check_next("decision")
        if chain.prev == NO_PREV:
            raise refuse(pointer="/chain", why="seq 0, prev zeros and typ open go together")
        n = numbers
        if not (0 <= n.step <= canonical.MAX_INT and 0 <= n.status <= canonical.MAX_INT):
            check_part("decision", {})
        if caller:
            check_part("req", caller)
        begin, end = _verdict(*verdict)
        template = (
            f'{{"assets":{_assets(assets)},"av":{av.text},'
            f'"chain":{{"id":"{chain.id}","prev":"{chain.prev}","seq":{chain.seq}}},'
            f'"comp":"{COMPONENTS}","components":{_components(n.triggered)}{self._config}'
            f'{begin}{n.status},"step":{n.step},{end},"e":"{E_OBJECT}","eproc":{self._snapshot(eproc)},'
            f'"evidence":"{"caller" if caller else "shim"}","guarantee":{_guarantee(guarantee)}'
            f"{self._kid}{subject.model}{self._origin}{caller or REQUEST}"
            f'",{_risk(risk)}"route":{route},"subject":"{subject.subject}{self._suite}{subject.tenant},'
            f'"ts_us":{ts_us},"typ":"decision","v":"{VERSION}","witness":{WITNESS}}}'
        )
        return fill(template.encode(), objects, windows, n.reals, random)
