"""One stream: its epochs, its open hypotheses and its e-process. Changed by `apply_*` only."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import replace
from typing import Any

from tcd.risk_av.catalogue import open_rule
from tcd.risk_av.eprocess import NO_EVIDENCE, START, EState, advance, e_value, mixture
from tcd.risk_av.errors import ReplayError
from tcd.risk_av.events import Acknowledged, Closed, Drawn, EpochOpened, Failed, Leased, LeaseEnded, Reserved, Settled
from tcd.risk_av.exact import ONE, Scaled, at_least, log10, scaled, to_float
from tcd.risk_av.hypothesis import EMPTY, LOST, UNUSED, Epoch, Granted, Hypothesis
from tcd.risk_av.params import ControllerParams, Terms
from tcd.risk_av.rules import Level, Rai, rai_level
from tcd.risk_av.views import NO_DIGEST, EprocSnapshot, Reservation, Settlement, StreamView, stream_digest


class Stream:
    """State of one stream."""

    __slots__ = (
        *(
            "alarm",
            "claim",
            "closed",
            "cusum_alarm",
            "epoch",
            "epochs",
            "estate",
            "folded",
            "leases",
            "leased",
            "live",
            "name",
        ),
        *("open", "params", "peak", "public", "queue", "seq", "snapshot"),
    )

    def __init__(self, name: str, params: ControllerParams) -> None:
        """A stream without any epoch."""
        self.name = name
        self.public = stream_digest(name)
        self.params = params
        self.epoch: Epoch | None = None
        self.epochs: dict[int, Epoch] = {}
        self.seq = 0
        self.live: dict[str, Hypothesis] = {}
        self.closed: OrderedDict[str, Hypothesis] = OrderedDict()
        self.queue: deque[Hypothesis] = deque()
        self.leases: dict[int, Granted] = {}
        self.leased = 0
        self.open = 0
        self.folded = 0
        self.claim = 0
        self.estate: EState = START
        self.peak: Scaled = ONE
        self.alarm = False
        self.cusum_alarm = False
        self.snapshot = self._start()

    def _start(self) -> EprocSnapshot:
        return EprocSnapshot(
            stream=self.public,
            params=Terms.of(self.params).digest(),
            claim=self.claim,
            step=0,
            prev=NO_DIGEST,
            x=NO_EVIDENCE,
            s=START.s,
            e=ONE,
            c=START.c,
            threshold=1.0 / self.params.alpha_e,
            trigger=False,
        )

    def find(self, hypothesis: str) -> Hypothesis | None:
        """An open, waiting or remembered hypothesis."""
        return self.live.get(hypothesis) or self.closed.get(hypothesis)

    def exhausted(self, level: Level) -> bool:
        """Whether no evidence can trigger at `level` because the budget is gone."""
        falling = self.params.schedule[0] == "omega" or self.params.rule != "rai"
        return level.cost <= 0.0 or (falling and level.alpha < self.params.p_floor)

    def apply_epoch(self, event: EpochOpened) -> None:
        """Open an epoch; older ones stay while they have open hypotheses."""
        last = self.epoch
        number = 1 if last is None else last.number + 1
        if event.epoch != number:
            msg = f"stream {self.name}: epoch {event.epoch} after {number - 1}"
            raise ReplayError(msg)
        self.params = event.params
        terms = Terms.of(event.params)
        if last is not None and not last.live:
            del self.epochs[last.number]
        self.epoch = self.epochs[number] = Epoch(number, open_rule(terms), terms.digest(), terms.alpha)
        if not self.seq and not self.claim:
            self.snapshot = self._start()

    def apply_reserve(self, event: Reserved) -> Hypothesis:
        """Debit a reservation and check that the event says what follows from the state."""
        epoch = self.epoch
        if epoch is None or event.hypothesis in self.live or event.hypothesis in self.closed:
            msg = f"stream {self.name}: {event.hypothesis} cannot be reserved"
            raise ReplayError(msg)
        level = epoch.rule.level()
        expected = (epoch.number, epoch.rule.index + 1, self.seq + 1, level.cost, level.alpha)
        if expected != (event.epoch, event.index, event.seq, event.cost, event.alpha):
            msg = f"stream {self.name}: reservation {event.seq} does not follow from the log"
            raise ReplayError(msg)
        epoch.rule.reserve()
        epoch.live += 1
        self.open += 1
        self.seq += 1
        hypothesis = Hypothesis(
            name=event.hypothesis,
            user=event.user,
            epoch=epoch.number,
            index=event.index,
            seq=event.seq,
            level=level,
            wealth=epoch.rule.wealth,
            exhausted=self.exhausted(level),
            claim=self.claim,
            params=epoch.params,
        )
        self.live[hypothesis.name] = hypothesis
        self.queue.append(hypothesis)
        return hypothesis

    def open_hypothesis(self, name: str) -> Hypothesis:
        """The open hypothesis `name`."""
        hypothesis = self.live.get(name)
        if hypothesis is None or hypothesis.reason:
            msg = f"stream {self.name}: {name} is not open"
            raise ReplayError(msg)
        return hypothesis

    def apply_failure(self, event: Failed) -> None:
        """Count a step without evidence."""
        self.open_hypothesis(event.hypothesis).failures += 1

    def apply_settle(self, event: Settled) -> bool:
        """Lower the p-value; credit the first rejection to the hypothesis's own epoch. Returns: credited."""
        hypothesis = self.open_hypothesis(event.hypothesis)
        first = event.p <= hypothesis.level.alpha and not hypothesis.rejected
        if first != event.rejected or (hypothesis.p is not None and event.p >= hypothesis.p):
            msg = f"stream {self.name}: settlement of {event.hypothesis} does not follow from the log"
            raise ReplayError(msg)
        hypothesis.p = event.p
        if not first:
            return False
        hypothesis.rejected = True
        epoch = self.epochs[hypothesis.epoch]
        epoch.rejections += 1
        cap = self.params.credit_cap
        if cap is not None and hypothesis.user:
            used = epoch.credits.get(hypothesis.user, 0)
            if used >= cap:
                return False
            epoch.credits[hypothesis.user] = used + 1
        epoch.rule.rejected(hypothesis.index)
        hypothesis.credited = True
        return True

    def apply_close(self, event: Closed) -> tuple[EprocSnapshot, ...]:
        """Close a hypothesis and fold whatever no longer waits for an earlier one."""
        hypothesis = self.open_hypothesis(event.hypothesis)
        hypothesis.reason = event.reason
        epoch = self.epochs[hypothesis.epoch]
        epoch.rule.closed(hypothesis.index, hypothesis.p)
        epoch.live -= 1
        self.open -= 1
        if not epoch.live and epoch is not self.epoch:
            del self.epochs[epoch.number]
        return self._fold_ready()

    def _fold_ready(self) -> tuple[EprocSnapshot, ...]:
        made: list[EprocSnapshot] = []
        while self.queue and self.queue[0].reason:
            head = self.queue.popleft()
            if head.reason == UNUSED:
                continue
            if head.name:
                del self.live[head.name]
                self.closed[head.name] = head
            self.folded += 1
            if head.claim == self.claim:
                made.append(self._fold(head))
        while len(self.closed) > self.params.keep_closed:
            self.closed.popitem(last=False)
        return tuple(made)

    def apply_lease(self, event: Leased) -> Granted:
        """Debit a lease and keep its places in the fold order."""
        epoch = self.epoch
        rule = epoch.rule if epoch is not None else None
        if epoch is None or not isinstance(rule, Rai) or rule.terms.schedule[0] != "uniform":
            msg = f"stream {self.name}: only a uniform schedule of rai can be leased"
            raise ReplayError(msg)
        cost = rule.level().cost
        expected = (epoch.number, rule.index + 1, self.seq + 1, self.leased + 1, cost)
        found = (event.epoch, event.index, event.seq, event.lease, event.cost)
        if expected != found or not 1 <= event.count <= int(rule.terms.schedule[1]) - rule.index:
            msg = f"stream {self.name}: lease {event.lease} does not follow from the log"
            raise ReplayError(msg)
        slots = [
            Hypothesis(
                "", "", epoch.number, event.index + i, event.seq + i, EMPTY, 0.0, False, self.claim, epoch.params
            )
            for i in range(event.count)
        ]
        rule.take(event.count)
        epoch.live += event.count
        self.seq += event.count
        self.leased = event.lease
        self.queue.extend(slots)
        granted = Granted(event.lease, event.holder, epoch.number, event.index, event.seq, rule.terms, slots)
        self.leases[event.lease] = granted
        return granted

    def apply_draw(self, event: Drawn) -> None:
        """A holder drew a reservation: give its place a name and a level, and check the level."""
        granted = self.leases.get(event.lease)
        if granted is None or not 0 <= event.offset < len(granted.slots) or granted.slots[event.offset].name:
            msg = f"stream {self.name}: reservation {event.offset} of lease {event.lease} cannot be drawn"
            raise ReplayError(msg)
        if not event.hypothesis or self.find(event.hypothesis) is not None:
            msg = f"stream {self.name}: {event.hypothesis} cannot be reserved"
            raise ReplayError(msg)
        slot = granted.slots[event.offset]
        level = rai_level(granted.terms, slot.index, 0.0, event.known)
        if level.alpha != event.alpha or event.known > self.epochs[granted.epoch].rejections:
            msg = f"stream {self.name}: the level of {event.hypothesis} does not follow from the log"
            raise ReplayError(msg)
        slot.name, slot.user, slot.level, slot.claim = event.hypothesis, event.user, level, self.claim
        slot.wealth = max(0.0, granted.terms.alpha - level.spent) * (level.known + 1)
        self.live[slot.name] = slot
        self.open += 1

    def apply_lease_end(self, event: LeaseEnded) -> tuple[EprocSnapshot, ...]:
        """End a lease; nothing of it is refunded."""
        granted = self.leases.get(event.lease)
        if granted is None or event.drawn > len(granted.slots):
            msg = f"stream {self.name}: lease {event.lease} is not out"
            raise ReplayError(msg)
        del self.leases[event.lease]
        epoch = self.epochs.get(granted.epoch)
        for offset, slot in enumerate(granted.slots):
            # an epoch with a place that was never drawn is still there
            if not slot.name and epoch is not None:
                slot.reason = LOST if offset < event.drawn else UNUSED
                epoch.live -= 1
        if epoch is not None and not epoch.live and epoch is not self.epoch:
            del self.epochs[epoch.number]
        return self._fold_ready()

    def _fold(self, head: Hypothesis) -> EprocSnapshot:
        x = NO_EVIDENCE if head.p is None else head.p
        self.estate = advance(self.estate, x)
        m = mixture(self.estate)
        threshold = self.snapshot.threshold
        self.peak = m if at_least(m, self.peak) else self.peak
        self.alarm = self.alarm or at_least(m, scaled(threshold))
        self.cusum_alarm = self.cusum_alarm or at_least(self.estate.c, scaled(self.params.cusum_arl))
        self.snapshot = EprocSnapshot(
            stream=self.public,
            params=head.params,
            claim=self.claim,
            step=self.estate.step,
            prev=self.snapshot.digest(),
            x=x,
            s=self.estate.s,
            e=m,
            c=self.estate.c,
            threshold=threshold,
            trigger=self.alarm,
            epoch=head.epoch,
            index=head.index,
            known=head.level.known,
            alloc=head.level.alpha,
            spent=head.level.spent,
            wealth=head.wealth,
        )
        return self.snapshot

    def apply_params(self, params: ControllerParams) -> None:
        """Hot reload: alpha counts at once for what is not yet reserved, the rest from the next epoch on."""
        shares = self.params.shares
        if shares > 1:
            # paid by a share of a pool: the same part of the new alpha, for as many reservations
            params = replace(params, alpha=params.alpha / shares, schedule=self.params.schedule, shares=shares)
        epoch = self.epoch
        if epoch is not None and params.alpha != epoch.rule.terms.alpha:
            rule = epoch.rule
            old = rule.terms
            terms = Terms(
                old.rule,
                old.schedule,
                params.alpha,
                old.kappa,
                old.alpha_e,
                old.cusum_arl,
                rule.index,
                rule.spent,
            )
            epoch.claim_level = rule.change(terms)
            epoch.params = terms.digest()
        self.params = params

    def apply_acknowledge(self, event: Acknowledged) -> None:
        """Clear the alarms. Hypotheses reserved before belong to the old claim and are not folded into the new."""
        if event.claim != self.claim + 1:
            msg = f"stream {self.name}: acknowledgement {event.claim} after {self.claim}"
            raise ReplayError(msg)
        self.claim = event.claim
        self.estate = START
        self.peak = ONE
        self.alarm = False
        self.cusum_alarm = False
        self.snapshot = self._start()

    def reservation(self, h: Hypothesis, *, new: bool) -> Reservation:
        """The answer to a reserve call."""
        return Reservation(
            stream=self.name,
            hypothesis=h.name,
            epoch=h.epoch,
            index=h.index,
            seq=h.seq,
            alpha=h.level.alpha,
            cost=h.level.cost if new else 0.0,
            known=h.level.known,
            spent=h.level.spent,
            wealth=h.wealth,
            exhausted=h.exhausted,
            new=new,
            closed=bool(h.reason),
        )

    def settlement(
        self, h: Hypothesis, *, first: bool = False, credited: bool = False, folded: tuple[EprocSnapshot, ...] = ()
    ) -> Settlement:
        """The answer to a settle or close call."""
        p = NO_EVIDENCE if h.p is None else h.p
        return Settlement(
            stream=self.name,
            hypothesis=h.name,
            epoch=h.epoch,
            index=h.index,
            seq=h.seq,
            alpha=h.level.alpha,
            p=p,
            trigger=h.rejected,
            first=first,
            credited=credited,
            e_value=e_value(p),
            closed=bool(h.reason),
            reason=h.reason,
            folded=folded,
            alarm=self.alarm,
        )

    def view(self) -> StreamView:
        """The stream as of now."""
        epoch = self.epoch
        rule = epoch.rule if epoch is not None else open_rule(Terms.of(self.params))
        rolls = rule.full and self.params.epoch_roll == "auto"
        level = (open_rule(Terms.of(self.params)) if rolls else rule).level()
        kind, size = rule.terms.schedule
        m = mixture(self.estate)
        return StreamView(
            stream=self.name,
            epoch=epoch.number if epoch is not None else 0,
            alpha=rule.terms.alpha,
            claim_level=epoch.claim_level if epoch is not None else rule.terms.alpha,
            spent=rule.spent,
            budget_remaining=rule.remaining,
            wealth=rule.wealth,
            reservations=rule.index,
            length=int(size) if kind == "uniform" else None,
            next_alpha=level.alpha,
            rejections=epoch.rejections if epoch is not None else 0,
            rejections_known=rule.known,
            exhausted=self.exhausted(level),
            reserved_total=self.seq,
            open=self.open,
            folded=self.folded,
            waiting=sum(1 for h in self.queue if h.reason) if self.leases else len(self.queue) - self.open,
            e_process=to_float(m),
            e_process_log10=log10(m),
            e_process_max=to_float(self.peak),
            e_cusum=to_float(self.estate.c),
            alarm=self.alarm,
            alarm_threshold=self.snapshot.threshold,
            cusum_alarm=self.cusum_alarm,
            cusum_threshold=self.params.cusum_arl,
            claim=self.claim,
            params=epoch.params if epoch is not None else Terms.of(self.params).digest(),
            snapshot=self.snapshot,
        )

    def dump(self) -> dict[str, Any]:
        """All of the state as plain values (the shortest text of a float names it exactly)."""
        return {
            "params": self.params.to_json(),
            "seq": self.seq,
            "folded": self.folded,
            "open": self.open,
            "claim": self.claim,
            "step": self.estate.step,
            "s": self.estate.s,
            "c": self.estate.c,
            "peak": self.peak,
            "leased": self.leased,
            "leases": [[g.number, g.holder, g.epoch, g.index, g.seq, len(g.slots)] for g in self.leases.values()],
            "alarm": self.alarm,
            "cusum_alarm": self.cusum_alarm,
            # names are not at hand for streams at rest
            "snapshot": {**self.snapshot.to_json(), "stream": ""},
            "epochs": [
                {
                    "number": n,
                    "terms": e.rule.terms.to_json(),
                    "rule": [e.rule.index, e.rule.known, e.rule.spent],
                    "params": e.params,
                    "claim_level": e.claim_level,
                    "rejections": e.rejections,
                    "live": e.live,
                    "credits": sorted(e.credits.items()),
                }
                for n, e in self.epochs.items()
            ],
            "hypotheses": [
                [getattr(h, name) for name in Hypothesis.__slots__] for h in (*self.closed.values(), *self.queue)
            ],
        }
