"""The demo as one HTML file that needs nothing else: plots, texts with flagged tokens, receipts, what was checked.

Everything that comes from a model, a prompt or a server is escaped; there is no script in the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from tcd.contract import DECODERS, TIERS
from tcd.demo.records import Answer, Token
from tcd.demo.result import VIAS, Check, Demo, Run
from tcd.demo.scenarios import TITLES, Kind
from tcd.demo.svg import Line, Mark, Panel, plot

#: What each scenario is, for people who see it for the first time.
EXPLAINED: Final[dict[Kind, str]] = {
    "healthy": "Ordinary sampling. tcd looks at every token and has to leave the generation alone.",
    "loop": "Greedy decoding of a prompt on which this model starts to copy itself. Obeying the route raises the "
    "temperature a little and forbids repeated n-grams while the alarm lasts.",
    "blowup": "Ordinary sampling until something turns the temperature up in the middle of the text. Obeying the route "
    "takes it back to where text is healthy.",
}
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_SWATCH: Final = '<svg viewBox="0 0 34 10" aria-hidden="true"><polyline class="line {}" points="0,5 34,5"/></svg>'


def render(demo: Demo) -> str:
    """The report as HTML text."""
    kinds = list(dict.fromkeys(run.kind for run in demo.runs))
    sections = [_outcome(demo), *(_scenario(kind, [r for r in demo.runs if r.kind == kind]) for kind in kinds)]
    sections += [_receipts(demo.runs), _guarantee(demo.runs), _survey(demo), _about(demo)]
    style = files("tcd.demo").joinpath("report.css").read_text("utf-8")
    good = sum(check.ok for check in demo.expectations)
    verdict = f"{good} of {len(demo.runs)} expectations met"
    source = {
        "live": "SmolLM2-135M-Instruct generates inside Triton. tcd scores each token and routes the next.",
        "replay": "Recorded generations of SmolLM2-135M-Instruct, scored token by token as if they were live. "
        "A recording cannot obey a route.",
    }[demo.source]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>tcd demo: {escape(verdict)}</title>
<style>
{style}</style>
</head>
<body>
<header><div>
<h1>tcd watches a language model</h1>
<p>{source}</p>
<p class="verdict {_mood(demo.ok)}">{escape(verdict)}</p>
</div></header>
<main>
{"".join(sections)}</main>
</body>
</html>
"""


def _mood(ok: bool) -> str:  # noqa: FBT001 - it is the one argument
    return "good" if ok else "bad"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: frozenset[int] = frozenset()) -> str:
    """A table of cells that are HTML already; the first cell of a row names it."""

    def cell(index: int, content: str) -> str:
        kind = ' class="n"' if index in numbers else ""
        return f'<th scope="row">{content}</th>' if index == 0 else f"<td{kind}>{content}</td>"

    top = "".join(
        f'<th scope="col"{" class=n" if i in numbers else ""}>{escape(name)}</th>' for i, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(cell(i, c) for i, c in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _outcome(demo: Demo) -> str:
    rows = [_outcome_row(run, check) for run, check in zip(demo.runs, demo.expectations, strict=True)]
    head = ("scenario", "asked through", "route", "tokens", "onset", "caught", "false alarms", "receipts", "result")
    note = (
        "Onset is the first faulty token if nothing is done: the change of temperature, or the first copied token of a "
        "loop by a rule that sees the text alone. Caught is the first alarm at or after it. The first 16 tokens of a "
        "generation are warm-up: too few to judge."
    )
    return (
        f"<section><h2>What happened</h2><p>{note}</p>{_table(head, rows, numbers=frozenset({3, 4, 5, 6}))}</section>\n"
    )


def _outcome_row(run: Run, check: Check) -> list[str]:
    judged = "as expected" if check.ok else "not as expected"
    return [
        escape(TITLES[run.kind]),
        escape(VIAS[run.via]),
        "obeyed" if run.obey else "ignored",
        str(len(run.tokens)),
        "none" if run.onset < 0 else str(run.onset),
        "none" if run.caught is None else f"{run.caught} (+{run.delay})",
        str(run.false_alarms),
        _checked(run),
        f'<span class="tag {_mood(check.ok)}">{judged}</span><br><span class="soft">{escape(check.detail)}</span>',
    ]


def _checked(run: Run) -> str:
    if not run.receipts:
        return "none"
    good = all(check.ok for check in run.checks)
    return f'{run.receipts}, <span class="tag {_mood(good)}">{"verified" if good else "not verified"}</span>'


def _scenario(kind: Kind, runs: Sequence[Run]) -> str:
    asked = runs[0].tokens[0].asked if runs[0].tokens else 0.0
    intro = f"<p>{EXPLAINED[kind]} Temperature asked for at the start: {asked:g}.</p>"
    vias = list(dict.fromkeys(run.via for run in runs if run.obey)) or list(dict.fromkeys(run.via for run in runs))
    ignored = [run for run in runs if not run.obey]
    columns = []
    for via in vias:
        mine = [run for run in runs if run.via == via]
        # the run that ignored the route is the other side of either way
        shown = [*(r for r in mine if r.obey), *(ignored if any(r.obey for r in mine) else mine)]
        columns.append(f"<div><h3>Through the {escape(VIAS[via])}</h3>{_legend(shown)}{''.join(_plots(shown))}</div>")
    texts = "".join(f"<div><h3>{escape(_heading(run))}</h3>{_text(run)}</div>" for run in runs)
    if kind != "healthy" and any(run.obey for run in runs):
        intro += (
            "<p>The fault is never repaired: when a tightened route ends, what was asked for applies again, and tcd "
            "has to catch it again. On the way through Triton the demo's server holds a tightened route for 16 calm "
            "tokens; the shim does that itself, and calls the held tokens unsafe too.</p>"
        )
    key = (
        '<p class="soft">Texts: <mark class="key">token flagged as unsafe</mark> '
        '<span class="key eased">token drawn under a tightened route</span></p>'
    )
    return (
        f'<section><h2>{escape(TITLES[kind])}</h2>{intro}<div class="columns">{"".join(columns)}</div>'
        f'{key}<div class="columns narrow">{texts}</div></section>\n'
    )


def _legend(runs: Sequence[Run]) -> str:
    if len({run.obey for run in runs}) < 2:  # noqa: PLR2004 - one line needs no legend
        return ""
    parts = [
        f"<span>{_SWATCH.format(style)}route {style}</span>" for style in dict.fromkeys(_style(run) for run in runs)
    ]
    return f'<p class="legend">{"".join(parts)}</p>'


def _style(run: Run) -> str:
    return "obeyed" if run.obey else "ignored"


def _heading(run: Run) -> str:
    return f"{VIAS[run.via]}, route {_style(run)}"


def _answers(run: Run) -> list[Answer | None]:
    return [token.answer for token in run.tokens]


def _plots(runs: Sequence[Run]) -> Iterator[str]:
    """Score, p, temperature and, through the shim, the budget of one or two runs over the same tokens."""
    steps = max([len(run.tokens) for run in runs], default=1)
    main = runs[0]
    marks = [Mark(main.onset, "onset", "onset")] if main.onset >= 0 else []
    if main.caught is not None:
        marks.append(Mark(main.caught, "caught", "caught"))
    limit = next((a.threshold for a in _answers(main) if a is not None and a.threshold is not None), None)

    def lines(values: dict[str, list[float | None]]) -> list[Line]:
        return [Line(f"route {style}", style, series) for style, series in values.items()]

    def series(name: str) -> list[Line]:
        return lines({_style(r): [None if a is None else getattr(a, name) for a in _answers(r)] for r in runs})

    yield plot(
        Panel(
            title="score of the step: 1 minus its p-value",
            lines=series("score"),
            marks=marks,
            limit=limit,
            limit_label="" if limit is None else "fast alarm",
            height=160,
        ),
        steps=steps,
    )
    yield plot(
        Panel(
            title="p-value of the hypothesis “this generation is healthy” (logarithmic)",
            lines=series("p_value"),
            marks=marks,
            low=0.01,
            log=True,
            height=132,
        ),
        steps=steps,
    )
    heat = lines({_style(r): [t.temperature for t in r.tokens] for r in runs})
    # a calibration that is too small for a claim has no budget to spend
    budget = any(a is not None and a.budget for a in _answers(main))
    warm = Panel(title="temperature the token was drawn at", lines=heat, marks=marks, height=120)
    yield plot(warm, steps=steps, last=not budget)
    if budget:
        values = [a.budget for a in _answers(main) if a is not None and a.budget is not None]
        high = max([*values, 1e-9])
        yield plot(
            Panel(
                title="budget remaining in the tenant's stream",
                lines=[line for line, run in zip(series("budget"), runs, strict=True) if run.via == main.via],
                marks=marks,
                high=high,
                height=112,
            ),
            steps=steps,
            last=True,
        )


def _text(run: Run) -> str:
    parts = [f'<span class="prompt">{escape(run.prompt)}</span>']
    for token in run.tokens:
        text = escape(token.text)
        if not text:
            continue
        if token.alarmed:
            parts.append(f'<mark title="{escape(_hint(token))}">{text}</mark>')
        elif _eased(token):
            parts.append(f'<span class="eased" title="{escape(_hint(token))}">{text}</span>')
        else:
            parts.append(text)
    stop = run.tokens[-1].stop if run.tokens else "no tokens"
    return f'<div class="text">{"".join(parts)}<span class="stop"> [{escape(stop or "interrupted")}]</span></div>'


def _eased(token: Token) -> bool:
    return token.decoder != 0 or token.temperature != token.asked


def _hint(token: Token) -> str:
    hint = f"token {token.step}, temperature {token.temperature:.2f}, decoder {DECODERS[token.decoder]}"
    if token.answer is not None:
        hint += f", score {token.answer.score:.4f}, p {token.answer.p_value:.3g}, tier {TIERS[token.answer.tier]}"
        if token.answer.action:
            hint += f", action {token.answer.action}"
    return hint + (f", tcd: {token.error}" if token.error else "")


def _receipts(runs: Sequence[Run]) -> str:
    mine = [run for run in runs if run.checks and run.tokens]
    if not mine:
        return ""
    names = list(dict.fromkeys(check.name for run in mine for check in run.checks))
    rows = [[escape(name), *(_found(run, name) for run in mine)] for name in names]
    table = _table(("check", *(TITLES[run.kind] for run in mine)), rows)
    lists = "".join(f"<h3>{escape(run.title)}</h3>{_receipt_list(run)}" for run in mine)
    note = (
        "Every answer of the shim carries a receipt: a canonical body, its hash (the head), and a signature. The "
        "bodies of a session form a chain. The demo made the signing key itself, so the public key is known "
        "apart from the receipts. A body with one digit changed is tried as well, and has to be refused."
    )
    return f"<section><h2>Receipts</h2><p>{note}</p>{table}{lists}</section>\n"


def _found(run: Run, name: str) -> str:
    check = next((check for check in run.checks if check.name == name), None)
    if check is None:
        return '<span class="soft">not reached</span>'
    result = f'<span class="tag {_mood(check.ok)}">{"passed" if check.ok else "failed"}</span>'
    return f'{result}<br><span class="soft">{escape(check.detail)}</span>'


def _receipt_list(run: Run) -> str:
    rows = []
    for token in run.tokens:
        answer = token.answer
        if answer is None or answer.receipt is None:
            continue
        rows.append(
            [
                str(token.step),
                f"<code>{escape(answer.receipt.head)}</code>",
                f'<span class="{_mood(not answer.verdict)}">{"unsafe" if answer.verdict else "safe"}</span>',
                escape(answer.action),
                f"{answer.score:.4f}",
            ]
        )
    moment = next((t for t in run.tokens if t.step == run.caught), run.tokens[-1])
    body = ""
    if moment.answer is not None and moment.answer.receipt is not None:
        what = "the catch" if moment.step == run.caught else "the last token"
        shown = escape(_pretty(moment.answer.receipt.body))
        signature = escape(moment.answer.receipt.signature)
        body = (
            f"<details><summary>The receipt of {what}, token {moment.step}</summary>"
            f"<pre>{shown}</pre><p>signature <code>{signature}</code></p></details>"
        )
    table = _table(("token", "head", "verdict", "action", "score"), rows, numbers=frozenset({4}))
    return f"{body}<details><summary>All {len(rows)} heads</summary>{table}</details>"


def _pretty(body: str) -> str:
    """A receipt's body indented for people; the signed bytes are the compact ones."""
    try:
        return json.dumps(json.loads(body), indent=1, ensure_ascii=False)
    except ValueError:
        return body


def _guarantee(runs: Sequence[Run]) -> str:
    found: dict[str, list[str]] = {}
    for run in runs:
        for answer in _answers(run):
            if answer is not None and run.title not in found.setdefault(answer.guarantee, []):
                found[answer.guarantee].append(run.title)
    rows = [[f"<code>{escape(text)}</code>", escape("; ".join(titles))] for text, titles in found.items()]
    note = (
        "Each answer names the claim that is in force. The calibration that ships with the demo is far too small for a "
        "statistical guarantee, and the answers say so: what you see is the fast alarm, tuned to about one false alarm "
        "in 1,000 healthy tokens on the recordings, and it may at most degrade a generation. A calibration of at "
        "least 1,000 of your own sessions is what turns the trigger's false-alarm guarantee on."
    )
    return f"<section><h2>What is guaranteed</h2><p>{note}</p>{_table(('guarantee', 'said in'), rows)}</section>\n"


def _survey(demo: Demo) -> str:
    if demo.survey is None:
        return ""
    s: dict[str, Any] = dict(demo.survey)
    rows = [
        [
            escape(TITLES[kind]),
            str(s[kind]["faults"]),
            str(s[kind]["caught"]),
            "none" if s[kind]["median_delay"] is None else f"{s[kind]['median_delay']:g}",
        ]
        for kind in ("loop", "blowup")
    ]
    note = (
        "The same scenarios over all prompts of the demo, none of which the assets were fitted on, scored in one "
        f"process (the same bits as Triton): {s['false_alarms']} alarmed of {s['healthy_tokens']} healthy tokens; "
        f"{s['healthy_generations_alarmed']} of {s['healthy_generations']} healthy generations had an alarm."
    )
    table = _table(("fault", "shown", "caught within 32 tokens", "median delay"), rows, numbers=frozenset({1, 2, 3}))
    return f"<section><h2>Over more prompts</h2><p>{escape(note)}</p>{table}</section>\n"


def _about(demo: Demo) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in demo.about.items())
    notes = "".join(f"<p>{escape(note)}</p>" for note in demo.notes)
    return f"<section><h2>About this run</h2><dl>{facts}</dl>{notes}</section>\n"
