"""A whole replay and what came of it, for people, for machines and for the exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar_api.traffic.diff import Diff
from sidecar_api.traffic.drive import Side, Tally, run
from sidecar_api.traffic.lines import Bad, Item
from tcd.errors import Unavailable

SAME, DIFFERENT, ERROR = 0, 1, 2
_SHOWN: Final = 20
#: Requests in a row without any answer, after which nobody is there.
_SILENT: Final = 64


@dataclass(slots=True)
class Replay:
    """The outcome of a replay, in bounded space.

    Attributes:
        sides: what each side answered.
        diff: of two sides; None where there is one.
        requests, bad: read. A bad line is counted once, whatever it had before what is bad.
        reasons: of the first bad lines.
    """

    sides: list[Tally]
    diff: Diff | None
    requests: int = 0
    bad: int = 0
    reasons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """0: nothing to say against it; 1: decisions differ; 2: a line was bad, a request or a receipt failed."""
        if self.bad or not self.requests or any(side.failed for side in self.sides):
            return ERROR
        return DIFFERENT if self.diff is not None and self.diff.changed else SAME

    def refuse(self, item: Bad) -> None:
        """Count a bad line."""
        self.bad += 1
        if len(self.reasons) < _SHOWN:
            self.reasons.append({"line": item.number, "reason": item.reason})

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "status": ("same" if self.diff is not None else "ok", "different", "error")[self.status],
            "requests": self.requests,
            "bad_lines": self.bad,
            "bad": self.reasons,
            "sides": [side.to_json() for side in self.sides],
            "diff": None if self.diff is None else self.diff.to_json(),
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        out = [f"{self.requests} requests, {self.bad} bad lines"]
        out += [f"  line {entry['line']}: {entry['reason']}" for entry in self.reasons]
        for side in self.sides:
            out += _of_side(side)
        if self.diff is not None:
            out += _of_diff(self.diff)
        return out


def _of_side(side: Tally) -> list[str]:
    p50, p99 = side.quantile(0.5), side.quantile(0.99)
    took = "" if p50 is None or p99 is None else f", median {1e3 * p50:.2g} ms, p99 {1e3 * p99:.2g} ms"
    out = [f"{side.name}: {side.actions.total()} answered{took}, {side.triggers} triggers"]
    out += [f"  {name:18} {number}" for name, number in sorted(side.actions.items())]
    out += [f"  problem {name}: {number}" for name, number in sorted(side.problems.items())]
    if side.first_problem:
        out.append(f"  first: {side.first_problem}")
    out += [f"  receipts {code}: {number}" for code, number in sorted(side.receipts.items())]
    out += [f"  guarantee {name}: {number}" for name, number in sorted(side.guarantees.items())]
    return out


def _of_diff(diff: Diff) -> list[str]:
    how = f"{diff.same} are the same ({diff.moved} of them with other scores)"
    out = [f"{diff.changed} decisions differ, {how}; {diff.differing} of {diff.sessions} generations differ"]
    for name, table in (("action", diff.actions), ("verdict", diff.verdicts)):
        out += [f"  {name} {a} -> {b}: {n}" for (a, b), n in sorted(table.items()) if a != b]
    out += [f"  {name} differs: {number}" for name, number in diff.members.most_common()]
    out += [
        f"  first in {entry['session']}: line {entry['line']}, step {entry['step']}: {', '.join(entry['differs'])}"
        for entry in diff.first[:_SHOWN]
    ]
    return out


async def replayed(
    items: Iterable[Item],
    sides: Sequence[Side],
    *,
    concurrency: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Send every request to each side and compare.

    Args:
        items: see `lines.items_of`.
        sides: one, or a baseline and a candidate.
        concurrency: requests in flight at each side that can.
        progress: told the number of requests now and then.

    Raises:
        Unavailable: nobody answers.
    """
    tallies = [Tally(side.name) for side in sides]
    made = Replay(tallies, Diff() if len(sides) > 1 else None)
    silent = 0
    async for item, outcomes in run(items, sides, concurrency=concurrency):
        if isinstance(item, Bad):
            made.refuse(item)
            continue
        made.requests += 1
        for tally, outcome in zip(tallies, outcomes, strict=True):
            tally.add(item, outcome)
        if made.diff is not None:
            made.diff.add(item, *outcomes)
        silent = silent + 1 if any(outcome.problem == "transport" for outcome in outcomes) else 0
        if silent >= _SILENT:
            msg = f"no answer to {_SILENT} requests in a row: {outcomes[0].detail or outcomes[-1].detail}"
            raise Unavailable(msg)
        if progress is not None and made.requests % 1000 == 0:
            progress(made.requests)
    return made
