"""The report: Markdown for people, one interval plot per experiment as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

_WIDTH: Final = 860
_LABEL: Final = 400
_ROW: Final = 22
_TOP: Final = 46
_LEGEND: Final = (
    "dot: rate; line: 99.9 % interval; tick: bound; green: held; amber: broken on purpose and seen; grey: no claim"
)
TITLES: Final = {
    "null": "Experiment 1: an epoch of benign sessions triggers with the promised probability",
    "supfdr": "Experiment 2: SupFDR, the mean over streams of max FDP(t)",
    "alarm": "Experiment 3: alarms of the e-process on null streams when small p-values settle first",
}
_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_CHECKS: Final = {
    "contains": "interval contains",
    "at_most": "lower end at most",
    "above": "must be above",
    "shown": "shown, no claim",
}


def _colour(row: dict[str, Any]) -> str:
    if not row["ok"]:
        return "#b00020"
    return {"above": "#b8860b", "shown": "#707070"}.get(row["check"], "#1f6f43")


def plot(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Rates with their intervals, one row each, and the bounds as ticks; an SVG document."""
    height = _TOP + _ROW * len(rows) + 34
    span = _WIDTH - _LABEL - 90
    top = max([0.1, *(float(row["high"]) for row in rows)])

    def x(value: float) -> float:
        return round(_LABEL + span * float(value / top), 1)

    box = f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="system-ui, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="20" font-size="14" font-weight="600">{escape(title)}</text>',
        f'<text x="12" y="37" fill="#555">{_LEGEND}</text>',
    ]
    step = next(size for size in _STEPS if top / size <= 6)  # noqa: PLR2004 - labels must not touch
    for number in range(int(top / step) + 1):
        value = number * step
        parts.append(f'<line x1="{x(value)}" x2="{x(value)}" y1="{_TOP}" y2="{height - 30}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x(value)}" y="{height - 14}" text-anchor="middle" fill="#555">{value:.3g}</text>')
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + 12
        colour = _colour(row)
        label = row["label"] if len(row["label"]) <= 62 else row["label"][:61] + "…"  # noqa: PLR2004 - fits the column
        parts += [
            f'<text x="{_LABEL - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>',
            f'<line x1="{x(row["bound"])}" x2="{x(row["bound"])}" y1="{y - 9}" y2="{y + 9}" stroke="#222"/>',
            f'<line x1="{x(row["low"])}" x2="{x(row["high"])}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(row["rate"])}" cy="{y}" r="4" fill="{colour}"/>',
            f'<text x="{_WIDTH - 12}" y="{y + 4}" text-anchor="end" fill="#333">{row["rate"]:.4f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def plots(report: dict[str, Any]) -> dict[str, str]:
    """One SVG document per experiment, by name."""
    return {
        name: plot([row for row in report["rates"] if row["experiment"] == name], title)
        for name, title in TITLES.items()
    }


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    out = ["| run | N | rate | 99.9 % interval | bound | held to | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        verdict = "ok" if row["ok"] else "**FAILED**"
        label = f"{row['label']} ({row['note']})" if row["note"] else row["label"]
        out.append(
            f"| {label} | {row['n']:,} | {row['rate']:.4f} | [{row['low']:.4f}, {row['high']:.4f}] | "
            f"{row['bound']:.4f} | {_CHECKS[row['check']]} | {verdict} |"
        )
    return out


def _relations(violations: dict[str, Any]) -> list[str]:
    rules = list(next(iter(violations["of"].values())))
    out = [f"| relation | {' | '.join(rules)} |", "|---|" + "---|" * len(rules)]
    for name, by_rule in violations["of"].items():
        out.append(f"| {name.replace('_', ' ')} | {' | '.join(str(by_rule[rule]) for rule in rules)} |")
    return out


def _costs(cost: dict[str, Any]) -> list[str]:
    out = ["| what | CPU us | per second and core |", "|---|---|---|"]
    out += [f"| {name} | {us} | {cost['per_second'][name]:,} |" for name, us in cost["cpu_us"].items()]
    rest = cost.get("at_rest")
    if rest is not None:
        by_size = ", ".join(f"{int(size):,}: {us} us" for size, us in rest["us_per_request"].items())
        text = (
            f"{rest['subjects']:,} subjects at rest: {rest['rss_bytes_per_subject']} bytes each (growth of the "
            "resident set). CPU of one request of a subject at rest (wake, reserve, settle, close, rest) by number "
            f"of subjects: {by_size}."
        )
        out += ["", text]
    return out


def _beside(report: dict[str, Any]) -> str:
    cusum, delay = report["cusum"], report["delay"]
    return (
        f"The e-CUSUM at level {cusum['level']:g} on {cusum['streams']:,} null streams: mean of at least "
        f"{cusum['mean_at_least']:.0f} hypotheses to a false alarm ({cusum['cut_at_5000']:,} streams had none in "
        f"5000). A change at hypothesis {delay['change']} (p becomes p cubed) is seen after {delay['median']:g} "
        f"hypotheses (median of {delay['streams']:,})."
    )


def markdown(report: dict[str, Any], *, images: str = "") -> str:
    """The report; `images` is the prefix of the plots' paths, empty = none."""
    about = (
        f"Written by `tcd bench controller` ({report['version']}, {report['machine']}, {report['seconds']} s). All "
        "seeds are fixed. Intervals are exact (Clopper-Pearson) at 99.9 % for indicators and normal for means. Lines "
        "that begin with BROKEN are controllers that are wrong on purpose: an experiment that does not see them is "
        "worth nothing."
    )
    lines = [
        "# The controller's acceptance experiments",
        "",
        about,
        "",
        f"Everything is what it is held to: **{'yes' if report['ok'] else 'NO'}**.",
    ]
    for name, title in TITLES.items():
        lines += ["", f"## {title}", ""]
        if images:
            lines += [f"![{title}]({images}{name}.svg)", ""]
        lines += _table([row for row in report["rates"] if row["experiment"] == name])
    lines += [
        "",
        _beside(report),
        "",
        "## Experiment 4: real judge trajectories",
        "",
        "`tcd bench sessions` measures the session unit on them: [its report](sessions.md).",
        "",
        "## Experiment 5: relations that hold at every event",
        "",
        f"Histories that break a relation, of {report['violations']['histories']} per rule and relation:",
        "",
        *_relations(report["violations"]),
        "",
        "## The fast code is the real code",
        "",
        *(
            f"* {name}: {'equal bit for bit' if same else '**DIFFERENT**'}"
            for name, same in report["numpy_equals_the_controller"].items()
        ),
        *(
            f"* online-fdr {name}: {found['different']} of {found['decisions']:,} decisions differ from ours"
            for name, found in report["online_fdr"].items()
        ),
        "",
        "## Cost",
        "",
        *_costs(report["cost"]),
    ]
    return "\n".join(lines) + "\n"
