"""An audit: one pass over a ledger, events first, then receipts in order; memory does not grow with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tcd import __version__
from tcd.ledger.auditing.bits import Bits
from tcd.ledger.auditing.budgets import Budgets, Summary
from tcd.ledger.auditing.decisions import Assets, Decisions
from tcd.ledger.auditing.erasures import Erasures
from tcd.ledger.auditing.log import Log, seen_in
from tcd.ledger.auditing.rows import Rows
from tcd.ledger.auditing.sources import Row, Sizes, Store, formed
from tcd.ledger.auditing.statistics import Histogram, Statistics
from tcd.ledger.auditing.tips import Tip, Tips
from tcd.ledger.auditing.workers import Told, believed, workers
from tcd.ledger.findings import HOSTILE, Audit
from tcd.receipts.report import VerifyPolicy
from tcd.receipts.witnessing import Seen

#: Of the report's form.
VERSION: Final = "tcd.audit/1"
#: Rows between two rows that cannot be missing: positions of the second one are made up.
_FAR: Final = 1 << 32
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an audit is to look at.

    An audit of one tenant reads the whole log, to know that its records are in it; how large that is, it does not tell.

    Attributes:
        policy: pinned keys of receipts and of the log, and the witnesses where they are known.
        origin: of the log; empty = the one of the first receipt.
        seen: checkpoints that the auditor remembers.
        notes: signed checkpoints that somebody else kept (a witness, a mirror).
        tenant: only this tenant's records; None = all, the controller's events too.
        assets: what decisions can be recomputed with.
    """

    policy: VerifyPolicy
    origin: str = ""
    seen: Sequence[Seen] = ()
    notes: Sequence[bytes] = ()
    tenant: str | None = None
    assets: Assets = field(default_factory=Assets)


@dataclass(slots=True)
class Result:
    """An audit that was made.

    Attributes:
        audit: findings and counts.
        statistics, budgets: as they are called.
        replay: how much was recomputed.
        log: size, root and coverage; of one tenant's records, where it is one tenant's audit.
        facts: what was asked, when, how long it took.
        service: latencies that the shim measured, where it started the audit.
    """

    audit: Audit
    statistics: Statistics
    budgets: Summary
    replay: dict[str, int]
    log: dict[str, Any]
    facts: dict[str, Any]
    service: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as JSON; docs/audits.md says what each member is."""
        return {
            "v": VERSION,
            **self.audit.to_json(),
            "audit": self.facts,
            "log": self.log,
            "budgets": self.budgets.to_json(),
            "replay": self.replay,
            "statistics": {**self.statistics.to_json(), "coverage": self._coverage()},
            "service": self.service,
        }

    def _coverage(self) -> dict[str, Any]:
        return {
            **self.statistics.coverage,
            "receipts": self.log["size"],
            "bodies erased": self.audit.counts["bodies erased"],
            "under a checkpoint": self.log["checkpointed"],
            "under a quorum of witnesses": self.log["witnessed"],
        }


def run(store: Store, asked: Asked, *, workers: int = 0, progress: Progress = lambda *_: None) -> Result:
    """Audit a ledger, reading only.

    Args:
        store: the ledger.
        asked: what to look at.
        workers: processes beside this one that check rows; 0 = this one does everything. The report is the same.
        progress: called often with receipts done, receipts in all, and what is going on; what it raises ends the audit.

    Raises:
        ConfigError: it cannot be read.
    """
    return _Run(store, asked, progress, workers).run()


class _Run:
    def __init__(self, store: Store, asked: Asked, progress: Progress, workers: int) -> None:
        self.store, self.asked, self.progress, self.workers = store, asked, progress, workers
        self.audit = Audit()
        self.tips = Tips(self.audit)
        self.rows = Rows(self.audit, asked.policy, asked.origin)
        self.budgets = Budgets(self.audit)
        self.decisions = Decisions(self.audit, asked.assets, self.budgets)
        self.erasures = Erasures(self.audit, store, asked.tenant)
        self.statistics = Statistics()
        self.own = Bits()
        self.began = time.time()
        self.expected = 0

    def run(self) -> Result:
        sizes, asked = self.store.sizes(), self.asked
        for problem in self.store.problems():
            self.audit.note(*problem)
        if asked.tenant is None:
            self.budgets.fold(
                self.store, sizes.events, lambda at: self.progress(0, sizes.receipts, f"{at} of {sizes.events} events")
            )
        seen = [*asked.seen, *seen_in(asked.notes, origin=asked.origin, policy=asked.policy, audit=self.audit)]
        log = Log(self.audit, asked.policy, self.store, seen)
        self._receipts(log, sizes.receipts)
        self.erasures.finish(sizes.receipts)
        self.erasures.count(sizes.receipts)
        log.finish(self.rows.origin, bound=sizes.checkpoint)
        if asked.tenant is None:
            self.tips.compare(self.store)
        return self._result(log, sizes)

    def _receipts(self, log: Log, bound: int) -> None:
        """One pass over the receipts."""
        at = self._here(log, bound)
        if at is None:
            return
        # others check rows once the origin is known
        with workers(self.workers, self.asked.policy, self.rows.origin) as others:
            for row, told in others.checked(self._pages(at, bound), self._wanted):
                if not self._row(row, log, told):
                    return

    def _here(self, log: Log, bound: int) -> int | None:
        """Rows in this process: all of them, or those up to where others take over."""
        for page in self._pages(0, bound):
            for row in page:
                if not self._row(row, log):
                    return None
            if self.workers and self.rows.origin:
                return self.expected
        return None

    def _pages(self, first: int, bound: int) -> Iterator[Sequence[Row]]:
        """Rows from `first` up to `bound`, a page at a time."""
        while first < bound and (page := self.store.rows(first)):
            first = page[-1].idx + 1
            yield page if first <= bound else [row for row in page if row.idx < bound]
            self._tell(min(first, bound), bound)

    def _tell(self, done: int, bound: int) -> None:
        """How far it is; of one tenant's audit in per cent."""
        if self.asked.tenant is None:
            self.progress(done, bound, "receipts")
        else:
            self.progress(100 * done // bound, 100, "per cent")

    def _of(self, leaves: int) -> int:
        """How many of the first leaves are of what is audited."""
        return leaves if self.asked.tenant is None else self.own.below(leaves)

    def _wanted(self, row: Row) -> bool:
        return formed(row) and self.asked.tenant in {None, row.tenant}

    def _row(self, row: Row, log: Log, told: Told | None = None) -> bool:
        """The next row, and what others found of it; whether more are to be read."""
        expected, self.expected = self.expected, row.idx + 1
        if row.idx - expected > _FAR:
            self.audit.note("index_gap", f"receipt {expected}", f"the next row is {row.idx}: no more is read")
            return False
        if row.idx != expected:
            self.audit.note("index_gap", f"receipt {expected}", f"rows {expected}..{row.idx - 1} are missing")
        if not formed(row):
            self.audit.note("row_malformed", f"receipt {row.idx}", "values of other types")
            return True
        if self.asked.tenant in {None, row.tenant}:
            if self.asked.tenant is not None:
                self.own.add(row.idx)
            self._record(row, told)
        log.append(row, self.rows.origin)
        return True

    def _record(self, row: Row, told: Told | None) -> None:
        tip = self.tips.link(row)
        value = self.rows.read(row) if told is None else believed(self.audit, row, told)
        if value is not None and value["typ"] != row.typ:
            value = None
        self.statistics.record(row, value)
        if row.body is None:
            self.erasures.gone(row)
        if value is None:
            tip.at = -1
            return
        try:
            self._members(row, value, tip)
        except HOSTILE as error:
            # signed, of the schema, and impossible all the same
            self.audit.note("row_malformed", f"receipt {row.idx}", f"{type(error).__name__}: {error}"[:200])
            tip.at = -1

    def _members(self, row: Row, value: Mapping[str, Any], tip: Tip) -> None:
        """What a body says, by its type."""
        if row.typ == "decision":
            if tip.seq > 1:
                self.statistics.spacing(row.ts_us - tip.before_us)
            rejected = self.decisions.decided(row, value, tip)
            self.budgets.decided(row, value["av"], rejected=rejected)
        elif row.typ == "open":
            self.decisions.opened(value, tip)
            if value["open"]["scope"] == "epoch":
                self.budgets.opened(row, value)
        elif row.typ == "close":
            self.decisions.step(f"receipt {row.idx}", value.get("eproc"))
        elif row.typ == "ack":
            self.decisions.acknowledged(value)
        elif row.typ == "erase":
            self.erasures.named(row, value)

    def _result(self, log: Log, sizes: Sizes) -> Result:
        counts, asked = self.audit.counts, self.asked
        whole = asked.tenant is None
        counts["receipts"], counts["chains"] = self._of(log.size), self.tips.count
        if not whole:
            del counts["checkpoints"]
        summary = self.budgets.finish()
        self.statistics.finish()
        replay = {**self.decisions.counts, **self.budgets.counts}
        return Result(
            self.audit,
            self.statistics,
            summary,
            dict(sorted(replay.items())),
            {
                "origin": self.rows.origin,
                "size": self._of(log.size),
                "root": log.root().hex() if whole else "",
                "checkpointed": self._of(log.fitting),
                "witnessed": self._of(log.witnessed),
                "to_last_witness": (log.delays if whole else Histogram()).to_json(),
            },
            {
                "store": self.store.name if whole else "",
                "live": self.store.live,
                "tenant": asked.tenant,
                "receipts": self._of(sizes.receipts),
                "events": sizes.events if whole else None,
                "policy": asked.policy.digest,
                "given_checkpoints": len(asked.seen) + len(asked.notes),
                "policies": sorted(asked.assets.policies),
                "calibrations": len(asked.assets.detectors) + len(asked.assets.monitors),
                "began_us": int(self.began * 1e6),
                "seconds": round(time.time() - self.began, 3),
                "software": f"tcd {__version__}",
            },
        )
