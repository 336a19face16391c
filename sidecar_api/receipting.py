"""Receipts of decisions: one chain per hypothesis of a session, one per epoch of a stream.

A chain's state moves when a record is issued; a commit that fails makes the session look its chain up again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct

from sidecar_api.decision import Decision, RouteTuple
from sidecar_api.digests import objects
from sidecar_api.pins import Pins
from sidecar_api.schemas import Components, DiagnoseRequest
from sidecar_api.sessions import Session
from sidecar_api.windows import Staged
from tcd.contract import COMPONENT_DETAIL, COMPONENTS, DECODERS, TIERS
from tcd.receipts import ChainState, Issuer, Receipt, chain_id, records
from tcd.receipts.decisions import Av, DecisionWriter, Numbers, Subject, route_text
from tcd.receipts.erasure import erase_members
from tcd.receipts.filling import NO_WINDOWS, RANDOM_BYTES, Strange, fills_raw
from tcd.risk_av import CloseReason, EpochOpened, EprocSnapshot, Event, Reservation, Terms, stream_digest

SALT_BYTES = 16
#: Pairs of settings and policy that are in force at once, at most.
_MOST_WRITERS = 256


class Facts(Struct, frozen=True):
    """What a decision record says beside the session and the decision.

    Attributes:
        request, staged: what came in and the windows it made.
        components: of the answer.
        decision: what was decided.
        score, threshold: of the answer.
        step, status: number of the step; status bits of the ensemble.
        reservation: of the hypothesis, None with the controller off.
        unit, p_floor: of the hypothesis, smallest p-value that its calibration can give.
        p, sup: p-value of the hypothesis after this step; running maxima as they were sent.
        eproc: newest snapshot of the stream.
        guarantee: the claim in force.
        assets: ids that scored the row.
        policy, config: digests in force for the step.
        witness: whether the record carries witness segments.
        caller: digest of the inputs that a direct caller sent to the ensemble; empty for the shim's own rows.
        risk: what the table of a policy saw; None where the settings decided.
    """

    request: DiagnoseRequest
    staged: Staged
    components: Components
    decision: Decision
    score: float
    threshold: float
    step: int
    status: int
    reservation: Reservation | None
    unit: str
    p_floor: float
    p: float
    sup: tuple[float, float]
    eproc: EprocSnapshot
    guarantee: str
    assets: tuple[int, int, int]
    policy: str
    config: str
    witness: bool
    caller: str = ""
    risk: records.Risk | None = None


class Record(NamedTuple):
    """The record of a decision before it is signed: head, body, the chain before it, tenant, time."""

    head: bytes
    body: bytes
    chain: ChainState
    tenant: str
    ts_us: int


@dataclass(slots=True)
class _EpochChain:
    epoch: int
    state: ChainState


@dataclass(slots=True)
class Receipts:
    """Issues records.

    Attributes:
        issuer: signs.
        config, policy: digests that every record names.
        unit: of the hypotheses.
        now_us: wall clock in microseconds.
        random: random bytes.
    """

    issuer: Issuer
    config: str
    policy: str
    unit: str
    now_us: Callable[[], int]
    random: Callable[[int], bytes]
    _epochs: dict[str, _EpochChain] = field(default_factory=dict)
    _acts: ChainState | None = None
    _heads: ChainState | None = None
    _writers: dict[tuple[str, str, str], DecisionWriter] = field(default_factory=dict)

    def _writer(self, config: str, policy: str) -> DecisionWriter:
        """The writer of decisions under these digests, by the key that signs now."""
        key = (self.issuer.kid, config, policy)
        found = self._writers.get(key)
        if found is None:
            if len(self._writers) >= _MOST_WRITERS:
                self._writers.clear()
            found = self._writers[key] = self.issuer.writer(config=config, policy=policy)
        return found

    def _issue(
        self, chain: ChainState, typ: str, tenant: str, members: dict[str, Any], *, config: str = "", policy: str = ""
    ) -> Receipt:
        return self.issuer.issue(
            chain=chain,
            typ=typ,
            tenant=tenant,
            config=config or self.config,
            policy=policy or self.policy,
            members=members,
            ts_us=self.now_us(),
            nonce=self.random(SALT_BYTES),
        )

    @staticmethod
    def epoch_chain(stream: str, epoch: int, ledger: bytes) -> str:
        """Id of the chain of a stream's epoch on a shared ledger, the same for all of its shims."""
        return chain_id("epoch", stream_digest(stream), str(epoch), ledger.hex())

    def open_epoch(self, event: EpochOpened, owner: str, chain: str) -> Receipt:
        """The first record of an epoch's chain: its terms."""
        members = records.open_epoch_members(
            stream=event.stream, epoch=event.epoch, claim_level=event.params.alpha, terms=Terms.of(event.params)
        )
        return self._issue(ChainState(chain), "open", owner, members)

    def roll_epoch(self, state: ChainState, owner: str) -> Receipt:
        """The last record of an epoch's chain: another epoch begins."""
        return self._issue(state, "close", owner, records.close_members(reason="epoch_roll", count=state.seq + 1))

    def epochs(self, events: Sequence[Event], tenant: Callable[[str], str]) -> list[Receipt]:
        """Records of the epochs that `events` open: the terms are committed before any data of theirs."""
        out: list[Receipt] = []
        for event in events:
            if not isinstance(event, EpochOpened):
                continue
            owner = tenant(event.stream)
            digested = stream_digest(event.stream)
            last = self._epochs.get(digested)
            if last is not None:
                out.append(self.roll_epoch(last.state, owner))
            # the nonce keeps the chains of two runs of a server apart
            opened = self.open_epoch(event, owner, self.epoch_chain(event.stream, event.epoch, self.random(8)))
            out.append(opened)
            self._epochs[digested] = _EpochChain(event.epoch, opened.next())
        return out

    def adopt(self, stream: str, epoch: int, state: ChainState) -> ChainState | None:
        """Go on with the chain of a stream's epoch, as the ledger has it.

        Args:
            stream: digest of the stream's name.
            epoch: number.
            state: of the chain.

        Returns:
            The chain that cannot go on, because the other one is of a later epoch; None when there is none.
        """
        known = self._epochs.get(stream)
        if known is not None and known.epoch > epoch:
            return state
        self._epochs[stream] = _EpochChain(epoch, state)
        return None if known is None else known.state

    def abandon(self, state: ChainState, tenant: str) -> Receipt:
        """The last record of a chain whose session did not outlive the process."""
        return self._issue(state, "close", tenant, records.close_members(reason="abandoned", count=state.seq + 1))

    def cut(self, state: ChainState, tenant: str, *, last: int) -> tuple[Receipt, ...]:
        """The end of a chain whose records from `state` up to number `last` were issued and are not stored.

        The admission has the number of the first of them; where nothing is missing, the chain is only closed.
        """
        if last < state.seq:
            return (self.abandon(state, tenant),)
        members = records.gap_members(first=state.seq, last=last, reason="not durable")
        gap = self._issue(state, "gap", tenant, members)
        return (gap, self.abandon(gap.next(), tenant))

    def forget_epochs(self) -> None:
        """A commit failed: the epochs' chains may not be where they seem; new ones begin."""
        self._epochs.clear()

    def admin(self, action: str, acted_on: str, *, actor: str = "state token", reason: str = "") -> tuple[Receipt, ...]:
        """The records of an operator's act on an object's digest, in a chain of its own; `reason` may be none."""
        members = records.admin_members(action=action, actor=actor, object_digest=acted_on, reason=reason)
        out = self._aside("admin", self._acts, "admin", members)
        self._acts = out[-1].next()
        return out

    def ack(self, *, actor: str, stream: str, claim: int, terms: Terms) -> tuple[Receipt, ...]:
        """The records of a cleared alarm, in a chain by itself: open, ack, close."""
        members = records.ack_members(actor=actor, stream=stream, claim=claim, terms=terms)
        return self._alone("ack", members)

    def erased(self, *, actor: str, reason: str, places: Sequence[int], heads: Sequence[bytes]) -> tuple[Receipt, ...]:
        """The records of bodies that go, in a chain by itself: open, erase, close."""
        members = erase_members(actor=actor, reason=reason, places=places, heads=heads)
        return self._alone("erase", members)

    def _alone(self, typ: str, members: dict[str, Any]) -> tuple[Receipt, ...]:
        opened, told = self._aside(typ, None, typ, members)
        end = records.close_members(reason="end", count=3)
        return opened, told, self._issue(told.next(), "close", "-", end)

    def admit(
        self, state: ChainState, tenant: str, lost: Sequence[Sequence[int]], *, reason: str
    ) -> tuple[Receipt, ...]:
        """The end of a chain of which records are lost: a signed gap for each run (first, last), and its close."""
        out: list[Receipt] = []
        for first, last in lost:
            members = records.gap_members(first=first, last=last, reason=reason)
            out.append(self._issue(state, "gap", tenant, members))
            state = out[-1].next()
        return (*out, self.abandon(state, tenant))

    def writes_to(self, chain: str) -> bool:
        """Whether a chain is one that goes on here: of an epoch, of acts, of heads."""
        own = (self._acts, self._heads, *(epoch.state for epoch in self._epochs.values()))
        return any(state is not None and state.id == chain for state in own)

    def heads(self, members: dict[str, Any]) -> tuple[Receipt, ...]:
        """The records that commit to the newest records of other chains, in a chain of their own."""
        out = self._aside("heads", self._heads, "heads", members)
        self._heads = out[-1].next()
        return out

    def finish(self, state: ChainState, tenant: str) -> Receipt:
        """The last record of a chain that makes room for another one."""
        return self._issue(state, "close", tenant, records.close_members(reason="idle", count=state.seq + 1))

    def rewriting(
        self, chain: ChainState | None, tenant: str, members: dict[str, Any], *, config: str, policy: str
    ) -> tuple[Receipt, ...]:
        """The records of a request's rewriting, in the tenant's chain of them; None = it begins."""
        return self._aside("rewrite", chain, "rewrite", members, tenant=tenant, config=config, policy=policy)

    def _aside(
        self,
        name: str,
        chain: ChainState | None,
        typ: str,
        members: dict[str, Any],
        *,
        tenant: str = "-",
        config: str = "",
        policy: str = "",
    ) -> tuple[Receipt, ...]:
        """A record of nobody's session, after the `open` of its chain where that begins."""
        out: list[Receipt] = []
        if chain is None:
            opened = records.open_plain_members(chain_id(name, self.issuer.kid, *(() if tenant == "-" else (tenant,))))
            new = ChainState(chain_id(name, self.issuer.kid, self.random(8).hex()))
            out.append(self._issue(new, "open", tenant, opened))
            chain = out[-1].next()
        out.append(self._issue(chain, typ, tenant, members, config=config, policy=policy))
        return tuple(out)

    def forget_heads(self) -> None:
        """A commit failed: the next `heads` record begins a new chain."""
        self._heads = None

    def forget_acts(self) -> None:
        """A commit failed: the next act begins a new chain."""
        self._acts = None

    def open(self, session: Session, pins: Pins | None) -> Receipt:
        """The first record of a session's chain: what is pinned for all of it."""
        model = records.Model(*session.names)
        members = records.open_session_members(
            subject=session.digest,
            model=model,
            unit=self.unit if pins is not None else "none",
            keys=pins.key if pins is not None else (0, 0, 0),
            mask=pins.mask if pins is not None else 0,
            assets=pins.ids if pins is not None else (0, 0, 0),
            weight=pins.weight if pins is not None else 0.0,
        )
        chain = ChainState(chain_id("session", session.digest, session.names[0], self.random(8).hex()))
        receipt = self._issue(chain, "open", session.subject[0], members)
        session.chain = receipt.next()
        return receipt

    def decision(self, session: Session, facts: Facts) -> Record:
        """The record of a decision, which `seal` signs; the session's chain is open, and goes on behind it."""
        assert session.chain is not None  # noqa: S101 - for the type checker: `open` came before
        decision, found, staged = facts.decision, facts.components, facts.staged
        chain, tenant = session.chain, session.subject[0]
        ts_us = max(self.now_us(), chain.ts_us)
        random = self.random(RANDOM_BYTES)
        windows = (staged.trace, staged.entropy, staged.spectrum, staged.features) if facts.witness else NO_WINDOWS

        def written(*, exact: bool) -> tuple[bytes, bytes]:
            return self._writer(facts.config, facts.policy).write(
                chain,
                ts_us=ts_us,
                random=random,
                subject=_subject(session),
                objects=objects(None if facts.caller else facts.request, found, exact=exact),
                verdict=(
                    *(decision.action, decision.enforced, decision.cause, decision.tags),
                    *(decision.trigger, decision.verdict),
                ),
                numbers=_numbers(facts),
                route=_route(decision.route, decision.tier),
                av=_av(session, facts),
                eproc=facts.eproc,
                windows=windows,
                guarantee=facts.guarantee,
                assets=facts.assets,
                caller=facts.caller,
                risk=facts.risk,
            )

        try:
            head, body = written(exact=not fills_raw())
        except Strange:
            head, body = written(exact=True)
        session.chain = ChainState(chain.id, chain.seq + 1, head.hex(), ts_us=ts_us)
        return Record(head, body, chain, tenant, ts_us)

    def seal(self, record: Record) -> Receipt:
        """The receipt of a decision's record."""
        head, body, chain, tenant, ts_us = record
        return self.issuer.seal(body, head=head, chain=chain, typ="decision", tenant=tenant, ts_us=ts_us)

    def close(self, session: Session, reason: CloseReason, eproc: EprocSnapshot | None) -> Receipt | None:
        """The last record of a session's chain, None when it has none."""
        chain = session.chain
        if chain is None or not chain.seq or chain.closed:
            return None
        members = records.close_members(reason=reason, count=chain.seq + 1, eproc=eproc)
        receipt = self._issue(chain, "close", session.subject[0], members)
        session.chain = None
        return receipt


def _subject(session: Session) -> Subject:
    """The session's part of its records, written once."""
    known = session.written.subject
    if known is None or known[0] != session.names:
        made = Subject.of(records.Model(*session.names), session.digest, session.subject[0])
        known = session.written.subject = (session.names, made)
    return known[1]


def _av(session: Session, facts: Facts) -> Av:
    """The hypothesis's part of its records, written once."""
    known = session.written.av
    of = (facts.reservation, facts.p_floor, session.stream)
    if known is None or known[0] is not of[0] or known[1:3] != of[1:]:
        made = Av.of(facts.reservation, stream=session.stream, unit=facts.unit, p_floor=facts.p_floor)
        known = session.written.av = (*of, made)
    return known[3]


@lru_cache(maxsize=4096)
def _route(route: RouteTuple, tier: int) -> str:
    temperature, top_p, max_tokens, decoder = route
    return route_text(records.Route(temperature, top_p, int(max_tokens), DECODERS[int(decoder)], TIERS[tier]))


def _numbers(facts: Facts) -> Numbers:
    found = facts.components
    parts = [getattr(found, name) for name in COMPONENTS]
    reals: list[float] = []
    for part, detail in zip(parts, COMPONENT_DETAIL, strict=True):
        reals += (part.severity, part.p_value, part.details[detail])
    monitor = found.multivariate
    reals += (monitor.severity, monitor.p_value, monitor.distance, facts.score, facts.threshold, facts.p, *facts.sup)
    return Numbers(reals, facts.step, facts.status, (*[part.triggered for part in parts], monitor.triggered))
