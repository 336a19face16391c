"""Budgets: what every epoch spent, by the controller's events and by the signed receipts, against what it may spend.

The events are no leaves of the log, so nothing signs them; but each follows from those before it, and what they come
to has to be what the receipts say.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from tcd.ledger.auditing.sources import Row, Store
from tcd.ledger.auditing.spill import Spill
from tcd.ledger.findings import HOSTILE, Audit
from tcd.receipts.eproc import snapshot_digest
from tcd.risk_av import Controller, Terms, stream_digest
from tcd.risk_av.errors import ReplayError
from tcd.risk_av.events import Configured, EpochOpened, Event, Leased, PoolShared, Reserved, event_from_json
from tcd.risk_av.exact import hex64, unhex64
from tcd.risk_av.rules import rai_level

#: Relative error of a sum of costs.
_ROUNDING: Final = 1e-9
#: Epochs that a report lists: those that spent the largest share of their claim.
LISTED: Final = 200
_BINS: Final = 20
_REMEMBERED: Final = 1024
#: Levels of one epoch that are remembered.
_LEVELS: Final = 64
#: Rules whose costs add up to at most alpha; the others earn budget by rejections.
_ADDING: Final = frozenset({"rai", "e_lond", "alpha_spending"})


class Epoch(msgspec.Struct, array_like=True):
    """One epoch of a stream.

    Attributes:
        events: whether the events opened it; those up to `reloaded` are theirs.
        alpha, cost, reservations: budget, sum of costs, how many.
        digest, rule, shares: of its terms; the name of the rule; the part of a pool that pays it.
        limit: what its costs may come to: alpha, after a reload the larger of the new alpha and what was spent.
        reloads, reloaded: reloads that were looked at; whether one changed its alpha.
        opened: position of its `open` record; -1 = not seen. The members below are of the receipts.
        tenant, claim, terms: of that record.
        spent, index: the largest that a decision named.
        decisions, rejections: decisions of it; hypotheses that were rejected.
    """

    events: bool = False
    alpha: float = 0.0
    cost: float = 0.0
    reservations: int = 0
    digest: str = ""
    rule: str = ""
    shares: int = 1
    limit: float = 0.0
    reloads: int = 0
    reloaded: bool = False
    opened: int = -1
    tenant: str = ""
    claim: float = 0.0
    terms: dict[str, Any] = {}
    spent: float = 0.0
    index: int = 0
    decisions: int = 0
    rejections: int = 0


class Step(msgspec.Struct, array_like=True):
    """The newest step of a stream's e-process by the events, and the digest of its snapshot."""

    claim: int
    step: int
    digest: str


class Level(NamedTuple):
    """What the terms of an epoch give a reservation: its level, the budget with it; as a receipt has it."""

    alpha: float
    spent: float
    texts: tuple[str, str, str]


def _level(terms: Terms, index: int, known: int) -> Level:
    level = rai_level(terms, index, 0.0, known)
    wealth = max(0.0, terms.alpha - level.spent) * (level.known + 1)
    return Level(level.alpha, level.spent, (hex64(level.alpha), hex64(level.spent), hex64(wealth)))


def _key(stream: str, epoch: int) -> bytes:
    return bytes.fromhex(stream.removeprefix("sha256:")) + epoch.to_bytes(8, "big")


def _claim(epoch: Epoch) -> float:
    return max(epoch.limit, epoch.claim)


@dataclass(slots=True)
class Summary:
    """All epochs.

    Attributes:
        epochs, streams: how many.
        within: epochs whose costs are within their claim.
        reservations, rejections: in all.
        shares: epochs by spent share of the claim, in `_BINS` bins; the last one has the whole.
        largest: (share, stream, epoch, record) of those that spent most.
    """

    epochs: int = 0
    streams: int = 0
    within: int = 0
    reservations: int = 0
    rejections: int = 0
    shares: list[int] = field(default_factory=lambda: [0] * _BINS)
    tenants: Counter[str] = field(default_factory=Counter)
    largest: list[tuple[float, str, int, Epoch]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        names = ("tenant", "alpha", "claim", "spent", "reservations", "decisions", "rejections")
        listed = [
            {"stream": stream, "epoch": epoch, "share": share, **{name: getattr(one, name) for name in names}}
            for share, stream, epoch, one in sorted(self.largest, key=lambda item: (-item[0], item[1], item[2]))
        ]
        return {
            "epochs": self.epochs,
            "streams": self.streams,
            "within_their_claim": self.within,
            "reservations": self.reservations,
            "rejections": self.rejections,
            "spent_share_bins": self.shares,
            "epochs_by_tenant": dict(self.tenants.most_common(LISTED)),
            "largest": listed,
        }


class Budgets:
    """Budgets of one ledger: `fold` the events first, then show it the receipts, then `finish`."""

    def __init__(self, audit: Audit) -> None:
        """No epochs yet."""
        self._audit = audit
        self._epochs: Spill[Epoch] = Spill(Epoch)
        self._steps: Spill[Step] = Spill(Step)
        self._reloads: list[tuple[str, float]] = []
        self._folded = False
        self._parsed: dict[bytes, tuple[dict[str, Any], Terms, dict[tuple[int, int], Level]]] = {}
        self.counts: Counter[str] = Counter()

    # -- events --------------------------------------------------------------------------------------------------

    def fold(self, store: Store, bound: int, progress: Callable[[int], None]) -> None:
        """Fold all events before `bound`: each follows from those before."""
        self._folded = True
        controller = Controller()
        at = [-1]
        events = self._events(store, bound, at, progress)
        try:
            controller.fold(events)
        except HOSTILE as error:
            detail = error.detail if isinstance(error, ReplayError) else f"{type(error).__name__}: {error}"[:200]
            self._audit.note("event_mismatch", f"event {at[0]}", detail)
            # the sums go on; what follows from a changed event cannot be told from a changed one
            for _ in events:
                pass
        else:
            for stream in controller.streams:
                snapshot = controller.state(stream).snapshot
                key = bytes.fromhex(snapshot.stream.removeprefix("sha256:"))
                self._steps.put(key, Step(snapshot.claim, snapshot.step, snapshot.digest()))
        self.counts["events"] = bound

    def _events(self, store: Store, bound: int, at: list[int], progress: Callable[[int], None]) -> Iterator[Event]:
        expected = 0
        while expected < bound and (page := store.events(expected)):
            for position, text in page:
                if position >= bound:
                    break
                if position != expected:
                    detail = f"events {expected}..{position - 1} are missing"
                    self._audit.note("event_gap", f"event {expected}", detail)
                at[0], expected = position, position + 1
                try:
                    event = event_from_json(json.loads(text))
                    self._sum(event, position)
                except HOSTILE as error:
                    self._audit.note("event_malformed", f"event {position}", f"{type(error).__name__}")
                    continue
                yield event
            progress(expected)
            if page[-1][0] >= bound:
                break
        if expected < bound:
            self._audit.note("event_gap", f"event {expected}", f"events {expected}..{bound - 1} are missing")

    def _sum(self, event: Event, position: int) -> None:
        if isinstance(event, EpochOpened):
            digest = Terms.of(event.params).digest()
            params = event.params
            made = Epoch(
                events=True,
                alpha=params.alpha,
                digest=digest,
                rule=params.rule,
                shares=params.shares,
                limit=params.alpha,
                reloads=len(self._reloads),
            )
            self._epochs.put(_key(stream_digest(event.stream), event.epoch), made)
        elif isinstance(event, Reserved | Leased):
            key = _key(stream_digest(event.stream), event.epoch)
            epoch = self._epochs.get(key)
            if epoch is None:
                return
            self._catch_up(epoch, event.stream)
            count = event.count if isinstance(event, Leased) else 1
            epoch.cost += event.cost * count
            epoch.reservations += count
            if epoch.rule in _ADDING and epoch.cost > epoch.limit * (1 + _ROUNDING):
                detail = f"costs come to {epoch.cost:.9g} of {epoch.limit:.9g}"
                self._audit.note("budget_overspent", f"event {position}", detail)
        elif isinstance(event, Configured):
            self._reloads.append((event.stream, event.params.alpha))
            self.counts["configurations"] += 1
        elif isinstance(event, PoolShared):
            self.counts["shares of pools"] += 1

    def _catch_up(self, epoch: Epoch, stream: str) -> None:
        """Apply the reloads since this epoch's last reservation."""
        for name, alpha in self._reloads[epoch.reloads :]:
            if name in {"", stream} and alpha / epoch.shares != epoch.alpha:
                epoch.reloaded = True
                epoch.limit = max(alpha / epoch.shares, epoch.cost)
        epoch.reloads = len(self._reloads)

    def folded(self, where: str, snapshot: Mapping[str, Any]) -> None:
        """A signed snapshot of a stream is what the events come to, where it is of the newest step."""
        newest = self._steps.get(bytes.fromhex(snapshot["stream"].removeprefix("sha256:")))
        if newest is None or (newest.claim, newest.step) != (snapshot["claim"], snapshot["step"]):
            return
        if snapshot_digest(snapshot) != newest.digest:
            detail = f"step {newest.step} of the e-process is another one by the events"
            self._audit.note("budget_mismatch", where, detail)

    # -- receipts ------------------------------------------------------------------------------------------------

    def opened(self, row: Row, value: Mapping[str, Any]) -> None:
        """An `open` record of an epoch."""
        said = value["open"]
        key = _key(said["stream"], said["epoch"])
        epoch = self._epochs.get(key) or Epoch()
        terms = Terms.from_json(said["terms"])
        if self._folded and (not epoch.events or epoch.digest != terms.digest()):
            detail = "the events opened this epoch under other terms" if epoch.events else "no event opened this epoch"
            self._audit.note("budget_mismatch", f"receipt {row.idx}", detail)
        epoch.opened, epoch.tenant, epoch.terms, epoch.rule = row.idx, row.tenant, said["terms"], terms.rule
        epoch.claim = max(epoch.claim, unhex64(said["claim_level"]))
        self._epochs.put(key, epoch)

    def decided(self, row: Row, av: Mapping[str, Any], *, rejected: bool) -> None:
        """A decision's member `av`; `rejected` = its hypothesis was rejected now."""
        if av["unit"] == "none":
            self.counts["without a level"] += 1
            return
        key = _key(av["stream"], av["epoch"])
        epoch = self._epochs.get(key)
        if epoch is None:
            self.counts["level absent"] += 1
            return
        where, spent = f"receipt {row.idx}", unhex64(av["spent"])
        epoch.spent, epoch.index = max(epoch.spent, spent), max(epoch.index, av["index"])
        epoch.decisions += 1
        epoch.rejections += rejected
        claim = _claim(epoch)
        if epoch.rule in _ADDING and spent > claim * (1 + _ROUNDING):
            self._audit.note("budget_overspent", where, f"{spent:.9g} of {claim:.9g} is spent")
        if not epoch.terms or epoch.reloaded:
            self.counts["level absent"] += 1
            return
        terms, levels = self._terms(key, epoch)
        if terms.rule != "rai" or terms.schedule[0] != "uniform":
            self.counts["level absent"] += 1
            return
        # all decisions of a hypothesis have one
        level = levels.get((av["index"], av["known"]))
        if level is None:
            if len(levels) >= _LEVELS:
                levels.clear()
            level = levels[av["index"], av["known"]] = _level(terms, av["index"], av["known"])
        if level.texts != (av["alloc"], av["spent"], av["wealth"]):
            detail = f"level {unhex64(av['alloc']):.9g}, spent {spent:.9g}; "
            detail += f"the terms give {level.alpha:.9g}, {level.spent:.9g}"
            self._audit.note("level_mismatch", where, detail)
        self.counts["level recomputed"] += 1

    def _terms(self, key: bytes, epoch: Epoch) -> tuple[Terms, dict[tuple[int, int], Level]]:
        """The terms of an epoch, and levels that they gave."""
        known = self._parsed.get(key)
        if known is None or known[0] is not epoch.terms:
            if len(self._parsed) >= _REMEMBERED:
                self._parsed.clear()
            known = self._parsed[key] = (epoch.terms, Terms.from_json(epoch.terms), {})
        return known[1:]

    # -- end -----------------------------------------------------------------------------------------------------

    def finish(self) -> Summary:
        """Hold events and receipts against each other, and sum up."""
        made, last = Summary(), b""
        for key, epoch in self._epochs.items():
            stream, number = "sha256:" + key[:32].hex(), int.from_bytes(key[32:], "big")
            made.epochs += 1
            made.streams += key[:32] != last
            last = key[:32]
            self._hold(stream, number, epoch)
            spent = max(epoch.spent, epoch.cost)
            claim = _claim(epoch)
            share = spent / claim if claim else 0.0
            made.within += share <= 1 + _ROUNDING or epoch.rule not in _ADDING
            made.reservations += max(epoch.reservations, epoch.index)
            made.rejections += epoch.rejections
            made.shares[min(_BINS - 1, int(share * _BINS))] += 1
            made.tenants[epoch.tenant or "-"] += 1
            epoch.spent = spent
            item = (share, stream, number, epoch)
            if len(made.largest) < LISTED:
                heapq.heappush(made.largest, item)
            elif item[:3] > made.largest[0][:3]:
                heapq.heapreplace(made.largest, item)
        return made

    def _hold(self, stream: str, number: int, epoch: Epoch) -> None:
        if not self._folded or not epoch.events or epoch.opened < 0:
            return
        where = f"epoch {number} of {stream[:23]}, opened in receipt {epoch.opened}"
        if epoch.index > epoch.reservations:
            detail = f"a receipt has reservation {epoch.index}, the events end at {epoch.reservations}"
            self._audit.note("budget_mismatch", where, detail)
        elif epoch.spent > epoch.cost * (1 + _ROUNDING) + 1e-15 and not epoch.reloaded:
            detail = f"a receipt has {epoch.spent:.9g} spent, the events come to {epoch.cost:.9g}"
            self._audit.note("budget_mismatch", where, detail)
