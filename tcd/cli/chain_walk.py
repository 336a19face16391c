"""A chain of any length, window after window, and who erased the bodies that are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tcd.cli.verify_inputs import Window
from tcd.receipts import Report, VerifyPolicy, verify_chain
from tcd.receipts.erased_by import ErasedBy, Placed, verify_erasure
from tcd.receipts.erasure import ErasedBody, runs
from tcd.receipts.errors import Erased, MalformedBundle
from tcd.receipts.report import CheckResult


@dataclass
class Walked:
    """What is known of a chain.

    Attributes:
        report: of the window that decides: the first one refused, else the first with an erased body, else the last.
        records: that were looked at before a window was refused.
        first_bad: number of the first bad record.
        erased: records whose bodies are gone, by number, and which verified record erased each; None = none beside it
            in the file says so. Empty where anything worse is wrong.
        wrong: report of an `erase` record that does not verify, or says nothing of the record that it is beside.
    """

    report: Report
    records: int = 0
    first_bad: int = 0
    erased: dict[int, ErasedBy | None] = field(default_factory=dict)
    wrong: Report | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        out = {**self.report.to_json(), "records": self.records}
        if self.report.ok:
            return out
        told = [{"receipt": number, **by.to_json()} for number, by in self.erased.items() if by is not None]
        out |= {"first_bad": self.first_bad, "erased": sorted(self.erased), "erased_by": told}
        return out if self.wrong is None else {**out, "code": self.wrong.code, "erase_record": self.wrong.to_json()}

    def told(self) -> list[tuple[str, ErasedBy | None]]:
        """Records that are neighbours and were erased by one record, as text, and by which."""
        by: dict[ErasedBy | None, list[int]] = {}
        for number, one in self.erased.items():
            by.setdefault(one, []).append(number)
        found = [(run, one) for one, numbers in by.items() for run in runs(numbers)]
        return [
            (f"record {first}" if count == 1 else f"records {first} to {first + count - 1}", one)
            for (first, count), one in sorted(found, key=lambda item: item[0])
        ]


def walk(windows: Iterable[Window], policy: VerifyPolicy) -> Walked | None:
    """Verify consecutive records of a chain; None without any.

    An erased body is the least of what can be wrong: what comes after it is verified before that is said.

    Raises:
        tcd.errors.TcdError: see `verify_chain`; also over a thousand erased records without a whole one between them.
    """
    found: Walked | None = None
    gone: Walked | None = None
    erased: dict[int, ErasedBy | None] = {}
    done, carried = 0, Window()
    for window in windows:
        # the last whole record of the window before comes again, so that the order in the log is seen across windows
        joined, first = carried.joined(window), done - len(carried.bodies)
        report = verify_chain(
            joined.bodies,
            heads=joined.heads,
            sigs=[sig or "" for sig in joined.sigs],
            proofs=joined.proofs if any(joined.proofs) else None,
            policy=policy,
            start=joined.start,
            end=joined.end,
        )
        if not report.ok and report.code != Erased.code:
            return Walked(report, first, first + (report.first_bad or 0))
        done += len(window.bodies)
        found = Walked(report, done, first + (report.first_bad or 0))
        if not report.ok:
            named, wrong = _erased_by(joined, policy)
            if wrong is not None:
                number, refused = wrong
                return Walked(report, done, first + number, wrong=refused)
            erased |= {first + at: by for at, by in named.items() if erased.get(first + at) is None}
            gone = gone or found
        carried = joined.tail()
    if found is None or gone is None:
        return found
    return Walked(gone.report, done, gone.first_bad, erased)


def _erased_by(window: Window, policy: VerifyPolicy) -> tuple[dict[int, ErasedBy | None], tuple[int, Report] | None]:
    """Who erased what, in a verified window; or the first record beside which is an `erase` record that is wrong."""
    gone = [at for at, body in enumerate(window.bodies) if isinstance(body, ErasedBody)]
    if not any(window.erased_by):
        return dict.fromkeys(gone), None
    items = [
        {"head": head, "proof": proof, **({"erased": True} if isinstance(body, ErasedBody) else {})}
        for head, proof, body in zip(window.heads, window.proofs, window.bodies, strict=True)
    ]
    placed = [Placed.of(at, item) for at, item in enumerate(items) if item["proof"] is not None]
    known: dict[str, tuple[Report, dict[int, ErasedBy]]] = {}
    found: dict[int, ErasedBy | None] = dict.fromkeys(gone)
    for at in gone:
        beside = window.erased_by[at]
        if beside is None:
            continue
        key = json.dumps(beside, sort_keys=True)
        if key not in known:
            known[key] = verify_erasure(beside, placed, policy)
        report, named = known[key]
        if not report.ok:
            return {}, (at, report)
        if at not in named:
            return {}, (at, _elsewhere(report))
        for number, by in named.items():
            other = found[number]
            # what two records name was erased by the first of them
            found[number] = by if other is None or by.index < other.index else other
    return found, None


def _elsewhere(report: Report) -> Report:
    check = CheckResult("erases", "fail", MalformedBundle.code, "it does not name the record that it is beside")
    return replace(report, ok=False, code=check.code, checks=(*report.checks, check))
