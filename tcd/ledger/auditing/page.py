"""An audit's report as one HTML page: no script, nothing loaded from elsewhere, fit to be printed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from tcd.ledger.auditing import charts
from tcd.ledger.auditing.charts import Axis

_OWN: Final = """
.bar { fill: #0b57b0; } .trough { fill: #e6ebf1; } .fits { fill: #9cc7ae; } .wrong { fill: #b3261e; }
tbody th, td { vertical-align: top; }
td.text { white-space: normal; text-align: left; overflow-wrap: anywhere; } td code { font-size: 13px; }
th[scope=col].text { text-align: left; }
figure { grid-template-columns: 1fr; } .plot { max-width: 640px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 4px 28px; }
@media print { @page { margin: 14mm; } header { background: #fff; color: #000; border-bottom: 2px solid #000; }
  header p { color: #000; } .scroll { overflow: visible; } section { border: 0; padding: 6px 0; }
  td, th { white-space: normal; } body { font-size: 11pt; } }
"""
#: Rows of a table.
_MOST: Final = 200
_PLACE: Final = re.compile(r"receipts? (\d+)(?:\.\.(\d+))?")
#: What was recomputed: name in the report's `replay`, what it is, from what.
REPLAYED: Final = (
    ("trigger", "trigger", "p-value and level, in the receipt"),
    ("level recomputed", "level, spent, wealth", "the terms in the epoch's open record"),
    ("verdict", "verdict", "alarm, floor and trigger, where a policy's table decided"),
    ("verdict, where there is a trigger", "action of a trigger", "the receipt, where the settings decided"),
    ("e-process step", "step of the e-process", "the step before it, in an earlier receipt"),
    ("p-value", "p-value", "running maxima in the next receipt of the session, and the calibration by its id"),
    ("action", "action, enforced, cause", "the recorded risk, and the policy by its digest"),
)
_ABSENT: Final = {
    "level recomputed": "level absent",
    "e-process step": "e-process step absent",
    "p-value": "p-value absent",
    "action": "action absent",
}


@cache
def _style() -> str:
    return files("tcd.calibration").joinpath("report.css").read_text() + _OWN


def time_of(micro: int) -> str:
    """UTC, to the second."""
    if not micro:
        return "none"
    return datetime.fromtimestamp(micro / 1e6, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def span_of(seconds: float) -> str:
    """A length of time for people."""
    for unit, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e3:.3g} ms"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = ()) -> str:
    """A table whose first column names its rows; the columns `text` are prose."""

    def classed(at: int) -> str:
        return ' class="text"' if at in text else ""

    top = "".join(f'<th scope="col"{classed(at)}>{escape(cell)}</th>' for at, cell in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{classed(at)}>{escape(cell)}</td>" for at, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def render(report: Mapping[str, Any]) -> str:
    """The page of a report, `Result.to_json()`."""
    facts, fine = report["audit"], report["ok"]
    found = sum(n for name, n in report["counts"].items() if name.startswith("finding "))
    verdict = "nothing is wrong" if fine else f"{found} finding{'s' if found != 1 else ''}"
    title = f"Audit of {report['log']['origin'] or facts['store']}: {verdict}"
    scope = f"tenant {facts['tenant']}" if facts["tenant"] is not None else "all tenants"
    when = f"{facts['receipts']} receipts, {scope}; {time_of(facts['began_us'])}, {span_of(facts['seconds'])}, "
    when += facts["software"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body><header><div><h1>{escape(title)}</h1>",
        f"<p>{escape(when)}</p>",
        f"<p>{escape(facts['store'])}</p></div></header><main>",
        *_sections(report),
        "</main></body></html>",
    ]
    return "".join(parts)


def _sections(report: Mapping[str, Any]) -> Iterator[str]:
    yield _section("Findings", _findings(report))
    yield _section("The log", _log(report))
    yield _section("Budgets", _budgets(report))
    yield _section("Decisions, recomputed", _replay(report))
    yield _section("Traffic", _traffic(report))
    yield _section("Coverage", _coverage(report))
    yield _section("What this does not show", _limits(report))


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inner}</section>"


def _findings(report: Mapping[str, Any]) -> str:
    rows = [[f["code"], f["where"], f["detail"], f["means"]] for f in report["findings"][:_MOST]]
    if not rows:
        return '<p class="good">No check failed.</p>'
    total = sum(n for name, n in report["counts"].items() if name.startswith("finding "))
    more = f"<p>The first {len(rows)} of {total}.</p>" if total > len(rows) else ""
    by_code = [[name.removeprefix("finding "), str(n)] for name, n in report["counts"].items() if "finding " in name]
    head = ("code", "where", "found", "what it means")
    return table("Findings", head, rows, text=(1, 2, 3)) + more + table("By code", ("code", "findings"), by_code)


def _places(report: Mapping[str, Any], size: int) -> list[tuple[float, float]]:
    spans = []
    for finding in report["findings"]:
        place = _PLACE.search(finding["where"]) or _PLACE.search(finding["detail"])
        if place is not None and size:
            low = int(place[1])
            high = int(place[2] or low) + 1
            spans.append((min(1.0, low / size), min(1.0, high / size)))
    return spans


def _log(report: Mapping[str, Any]) -> str:
    log, size = report["log"], report["log"]["size"]
    # places are of the whole log
    spans = _places(report, size if report["audit"]["tenant"] is None else 0)
    says = f"{log['checkpointed']} of {size} receipts fit a signed checkpoint (green)"
    says += f"; {len(spans)} places are wrong (red)." if spans else "; no place is wrong."
    drawn = charts.strip(1, "The log", says, spans, log["checkpointed"] / size if size else 0.0, size)
    rows = [
        ["origin", log["origin"] or "none"],
        ["receipts", str(size)],
        ["root", log["root"] or "not told: it is of all tenants' receipts"],
        ["chains", str(report["counts"].get("chains", 0))],
        ["checkpoints looked at", str(report["counts"].get("checkpoints", "not told"))],
        ["checkpoints given from elsewhere", str(report["audit"]["given_checkpoints"])],
        ["receipts that a fitting checkpoint covers", str(log["checkpointed"])],
        ["receipts that a quorum of witnesses covers", str(log["witnessed"])],
    ]
    delay = log["to_last_witness"]
    if delay["count"]:
        rows.append(
            ["from a receipt to its last witness, p50 / p99", f"{span_of(delay['p50'])} / {span_of(delay['p99'])}"]
        )
    return drawn + table("The log", ("", ""), rows, text=(1,))


def _budgets(report: Mapping[str, Any]) -> str:
    budgets = report["budgets"]
    epochs, within = budgets["epochs"], budgets["within_their_claim"]
    tone = "good" if epochs == within else "bad"
    says = f"{within} of {epochs} epochs of {budgets['streams']} streams spent no more than their claim."
    out = f'<p class="{tone}">{escape(says)}</p>'
    if not epochs:
        return "<p>No epoch was opened.</p>"
    axis = Axis("share of the claim that is spent", [(i / 4, f"{25 * i} %") for i in range(5)])
    out += charts.bars(2, "Spent share of each epoch", says, budgets["spent_share_bins"], axis, name="epochs")
    rows = [
        [
            f"{e['tenant'] or '-'} {e['stream'][7:19]}", str(e["epoch"]), f"{e['alpha']:.6g}", f"{e['claim']:.6g}",
            f"{e['spent']:.6g}", f"{e['share']:.1%}", str(e["reservations"]), str(e["rejections"]),
        ]
        for e in budgets["largest"][:20]
    ]  # fmt: skip
    head = ("tenant, stream", "epoch", "alpha", "claim", "spent", "share", "reservations", "rejections")
    return out + table("Epochs that spent the largest share", head, rows)


def _replay(report: Mapping[str, Any]) -> str:
    counts = report["replay"]
    rows = [
        [what, source, str(counts.get(name, 0)), str(counts.get(_ABSENT.get(name, ""), 0))]
        for name, what, source in REPLAYED
    ]
    rows.append(["score, components, route", "the request: tcd verify replay, session by session", "0", "all"])
    events = counts.get("events")
    folded = "The controller's events were not looked at." if events is None else (
        f"{events} events of the controller were folded: each follows from those before it, or is a finding."
    )  # fmt: skip
    head = ("of a decision", "from", "recomputed", "not: something is missing")
    return f"<p>{folded}</p>" + table("What was recomputed, bit for bit", head, rows, text=(1,))


def _traffic(report: Mapping[str, Any]) -> str:
    found = report["statistics"]
    over, series = found["over_time"], found["over_time"]["series"]
    bins = len(series["decisions"])
    begin, width = over["begin_us"], over["width_s"]
    ticks = [(0.0, time_of(begin)), (1.0, time_of(int(begin + 1e6 * width * bins)))]
    names = ("decisions", "alarms", "triggers", "not allowed")
    totals = ", ".join(f"{sum(series[name])} {name}" for name in names)
    out = [
        charts.lines(
            3, "Decisions over time", f"{totals}; {span_of(width)} a step.", [(n, series[n]) for n in names],
            Axis("time", ticks), name="records",
        )
    ]  # fmt: skip
    unit = [(i / 5, f"{i / 5:g}") for i in range(6)]
    scored, judged = sum(found["scores"]), sum(found["p_values"])
    out.append(
        charts.bars(4, "Scores", f"{scored} scored decisions.", found["scores"], Axis("score", unit), name="decisions")
    )
    says = f"{judged} decisions under a level, each with the p-value of its session so far. "
    says += "The dashed line is uniform; a session's earlier p-values are larger than its last."
    out.append(
        charts.bars(
            5, "p-values", says, found["p_values"], Axis("p-value", unit), level=judged / len(found["p_values"]),
            name="decisions",
        )
    )  # fmt: skip
    steps = found["between_steps"]
    if steps["count"]:
        ends = steps["bins"]
        says = f"p50 {span_of(steps['p50'])}, p90 {span_of(steps['p90'])}, p99 {span_of(steps['p99'])}."
        ticks = [(i / 4, span_of(ends[min(len(ends) - 1, len(ends) * i // 4)][0])) for i in range(5)]
        axis = Axis("from one decision of a session to the next (bins of equal ratio)", ticks)
        out.append(charts.bars(6, "Time between steps", says, [n for _, n in ends], axis, name="pairs"))
    tables = [
        table(f"By {caption.lower()}", (caption, "records"), [[n, str(c)] for n, c in list(found[key].items())[:20]])
        for key, caption in (
            ("types", "Record"), ("enforced", "Enforced action"), ("causes", "Cause"), ("guarantees", "Claim"),
            ("models", "Model"), ("tenants", "Tenant"),
        )
        if found[key]
    ]  # fmt: skip
    return f'<div class="two">{"".join(out)}</div>{_service(report)}<div class="two">{"".join(tables)}</div>'


def _service(report: Mapping[str, Any]) -> str:
    """Latencies of the running shim, as its own histograms have them."""
    rows = []
    for name, series in (report["service"] or {}).items():
        for one in series:
            count = one["buckets"][-1][1] if one["buckets"] else 0
            if not count:
                continue
            ends = [next(le for le, n in one["buckets"] if n >= share * count) for share in (0.5, 0.99)]
            shown = [f"at most {span_of(float(le))}" if le != "+Inf" else "more than the last bound" for le in ends]
            label = " ".join(one["labels"].values())
            rows.append([f"{name} {label}".strip(), str(int(count)), span_of(one["sum"] / count), *shown])
    head = ("measured by the shim", "count", "mean", "p50", "p99")
    return table("Latency since the shim began", head, rows) if rows else ""


def _coverage(report: Mapping[str, Any]) -> str:
    found = report["statistics"]["coverage"]
    whole, receipts = found.get("decisions", 0), found["receipts"]
    names = (
        "scored", "under a level", "with a guarantee", "evidence of the shim's own", "with witness segments",
        "decided by a policy's table",
    )  # fmt: skip
    rows = [(name, found.get(name, 0), whole) for name in names]
    rows += [(name, found[name], receipts) for name in ("under a checkpoint", "under a quorum of witnesses")]
    rows.append(("with a body", receipts - found["bodies erased"], receipts))
    lost = report["statistics"]["records_admitted_lost"]
    says = f"Of {whole} decisions and {receipts} receipts; {found['bodies erased']} bodies are erased, "
    says += f"{lost} records are admitted as lost in gap records."
    return charts.shares(7, "Coverage", says, rows)


def _limits(report: Mapping[str, Any]) -> str:
    facts = report["audit"]
    rows = [
        "That what was sent to the shim was true, or that the model was right.",
        "Decisions that were never recorded. Within a chain a gap is seen; a chain that was never begun is not.",
    ]
    if not facts["given_checkpoints"]:
        rows.append(
            "A tail that was cut off together with its checkpoints, or a whole older ledger put back: no checkpoint "
            "from elsewhere (a witness, an earlier audit) was given to compare with."
        )
    if facts["tenant"] is not None:
        rows.append("Other tenants' records, and the controller's events, which are everybody's.")
    if not facts["policies"]:
        rows.append("Whether actions follow from the policies: none were given.")
    if not facts["calibrations"]:
        rows.append("Whether p-values follow from the calibrations: none were given.")
    if facts["live"]:
        rows.append("The database file itself (its integrity check): a shim was using it.")
    return "<ul>" + "".join(f"<li>{escape(row)}</li>" for row in rows) + "</ul>"
