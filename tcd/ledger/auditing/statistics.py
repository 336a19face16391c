"""What the receipts say of the service: counts, latencies, coverage, series over time, in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from tcd.ledger.auditing.sources import Row
from tcd.risk_av.exact import unhex64

#: Names that a counter keeps apart; the others are one.
MOST_NAMES: Final = 1000
OTHERS: Final = "(others)"
#: Bins of a histogram of shares, and of a series over time.
SHARES: Final = 50
TIMES: Final = 120
_SECOND: Final = 1_000_000
#: Bins per factor of two: a quantile is at most 19 % too large.
_PER_OCTAVE: Final = 4
SERIES: Final = ("decisions", "alarms", "triggers", "not allowed", "degraded", "gaps")
#: Kinds of decisions that are counted together before their parts are counted.
_KINDS: Final = 1024
#: Model, guarantee, action, enforced, cause, without a level, evidence, with a witness, by a table.
_Kind = tuple[str, str, str, str, str, bool, str, bool, bool]


class Histogram:
    """Numbers from 0 up, in bins of equal ratio."""

    def __init__(self) -> None:
        """Empty."""
        self.bins: Counter[int] = Counter()
        self.count = 0
        self.total = 0
        self.most = 0

    def add(self, value: int) -> None:
        """One more."""
        self.bins[_PER_OCTAVE * value.bit_length() if value < 2 else int(_PER_OCTAVE * math.log2(value)) + 4] += 1  # noqa: PLR2004 - logarithm of 1
        self.count += 1
        self.total += value
        self.most = max(self.most, value)

    def quantile(self, share: float) -> float:
        """Upper end of the bin that has the quantile, at most the maximum; 0 of nothing."""
        left = share * self.count
        for name in sorted(self.bins):
            left -= self.bins[name]
            if left <= 0:
                return min(float(self.most), _upper(name))
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON form: in seconds."""
        found = {f"p{round(100 * q)}": self.quantile(q) / _SECOND for q in (0.5, 0.9, 0.99)}
        mean = self.total / self.count / _SECOND if self.count else 0.0
        bins = [[_upper(name) / _SECOND, self.bins[name]] for name in sorted(self.bins)]
        return {"count": self.count, "mean_s": mean, "max_s": self.most / _SECOND, **found, "bins": bins}


def _upper(name: int) -> float:
    return 0.0 if name == 0 else float(2.0 ** ((name - _PER_OCTAVE + 1) / _PER_OCTAVE))


class Times:
    """Counts over time in at most `TIMES` bins; their width doubles when time goes on."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.begin: int | None = None
        self.width = _SECOND
        self.bins = [dict.fromkeys(SERIES, 0) for _ in range(TIMES)]

    def add(self, ts_us: int, names: tuple[str, ...]) -> None:
        """Something happened."""
        if self.begin is None:
            self.begin = ts_us - ts_us % _SECOND
        at = max(0, ts_us - self.begin) // self.width
        while at >= TIMES:
            self._halve()
            at = (ts_us - self.begin) // self.width
        here = self.bins[at]
        for name in names:
            here[name] += 1

    def _halve(self) -> None:
        pairs = [(self.bins[2 * i], self.bins[2 * i + 1]) for i in range(TIMES // 2)]
        self.bins = [{name: a[name] + b[name] for name in SERIES} for a, b in pairs]
        self.bins += [dict.fromkeys(SERIES, 0) for _ in range(TIMES - len(self.bins))]
        self.width *= 2

    def to_json(self) -> dict[str, Any]:
        """JSON form: without the empty end."""
        used = max((i for i, here in enumerate(self.bins) if any(here.values())), default=-1) + 1
        series = {name: [here[name] for here in self.bins[:used]] for name in SERIES}
        return {"begin_us": self.begin or 0, "width_s": self.width / _SECOND, "series": series}


def counted(counter: Counter[str], name: str, more: int = 1) -> None:
    """One or more of a name; of those after the first `MOST_NAMES`, of the others."""
    counter[name if name in counter or len(counter) < MOST_NAMES else OTHERS] += more


@lru_cache(maxsize=256)
def _names(alarm: bool, trigger: bool, enforced: str, cause: str) -> tuple[str, ...]:  # noqa: FBT001 - as they are read
    """The series that a decision belongs to."""
    there = (True, alarm, trigger, enforced != "allow", cause == "degraded")
    return tuple(name for name, is_there in zip(SERIES, there, strict=False) if is_there)


class Statistics:
    """Of all records, or of one tenant's."""

    def __init__(self) -> None:
        """Nothing seen."""
        self.types: Counter[str] = Counter()
        self.tenants: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.enforced: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.guarantees: Counter[str] = Counter()
        self.suites: Counter[str] = Counter()
        self.coverage: Counter[str] = Counter()
        self.admitted = 0
        self.times = Times()
        self.steps = Histogram()
        self.scores = [0] * SHARES
        self.p_values = [0] * SHARES
        self.first_us = self.last_us = 0
        self._kinds: Counter[_Kind] = Counter()

    def record(self, row: Row, value: Mapping[str, Any] | None) -> None:
        """Count a record."""
        counted(self.types, row.typ)
        counted(self.tenants, row.tenant)
        self.first_us = min(self.first_us or row.ts_us, row.ts_us)
        self.last_us = max(self.last_us, row.ts_us)
        if value is None:
            return
        counted(self.suites, value["suite"])
        if row.typ == "gap":
            self.admitted += value["gap"]["to"] - value["gap"]["from"] + 1
            self.times.add(row.ts_us, ("gaps",))
        elif row.typ == "decision":
            self._decision(row, value)

    def _decision(self, row: Row, value: Mapping[str, Any]) -> None:
        said, av = value["decision"], value["av"]
        kind = (
            *(value["model"]["id"], value["guarantee"], said["action"], said["enforced"], said["cause"]),
            *(av["unit"] == "none", value["evidence"], bool(value["witness"]), "risk" in value),
        )
        self._kinds[kind] += 1
        if len(self._kinds) > _KINDS:
            self._settle()
        self.times.add(row.ts_us, _names(said["verdict"], said["trigger"], said["enforced"], said["cause"]))
        if said["cause"] != "degraded":
            self.scores[_share(unhex64(said["score"]))] += 1
        if av["unit"] != "none":
            self.p_values[_share(unhex64(av["p"]))] += 1

    def _settle(self) -> None:
        """Put what was counted together where it belongs, in the order in which it was seen."""
        for kind, count in self._kinds.items():
            model, guarantee, action, enforced, cause, free, evidence, witnessed, by_table = kind
            counted(self.models, model, count)
            for counter, name in ((self.actions, action), (self.enforced, enforced), (self.causes, cause)):
                counted(counter, name or "none", count)
            counted(self.guarantees, _claim(guarantee), count)
            for name, there in (
                ("decisions", True),
                ("scored", cause != "degraded"),
                ("under a level", not free),
                ("with a guarantee", not guarantee.startswith("none")),
                ("evidence of the shim's own", evidence == "shim"),
                ("with witness segments", witnessed),
                ("decided by a policy's table", by_table),
            ):
                self.coverage[name] += count if there else 0
        self._kinds.clear()

    def finish(self) -> None:
        """Nothing more comes; only now all counts are there."""
        self._settle()

    def spacing(self, micro: int) -> None:
        """Time between two decisions of a chain."""
        self.steps.add(max(0, micro))

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        names = ("types", "tenants", "models", "actions", "enforced", "causes", "guarantees", "suites")
        return {
            "first_us": self.first_us,
            "last_us": self.last_us,
            **{name: dict(getattr(self, name).most_common()) for name in names},
            "records_admitted_lost": self.admitted,
            "over_time": self.times.to_json(),
            "between_steps": self.steps.to_json(),
            "scores": self.scores,
            "p_values": self.p_values,
        }


def _share(value: float) -> int:
    return min(SHARES - 1, max(0, int(value * SHARES))) if math.isfinite(value) else SHARES - 1


def _claim(guarantee: str) -> str:
    """The kind of a claim: without its epoch, its calibration, its numbers."""
    head, _, rest = guarantee.partition("|")
    kind = head.partition("<=")[0]
    unit = next((part for part in rest.split("|") if part.startswith("unit=")), "")
    return " ".join(part for part in (kind, unit) if part)[:80]
