"""The report is well-formed, needs nothing else, and escapes whatever a model, a prompt or a server says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from tcd.cli import demo as demo_cli
from tcd.cli.main import app
from tcd.demo.records import Answer, Receipt, Route, Token
from tcd.demo.report import render
from tcd.demo.result import Check, Demo, Run
from tcd.demo.svg import Line, Mark, Panel, plot

EVIL = "<script>alert(1)</script>\"'&</div><img src=x onerror=alert(2)>"
VOID = {"meta", "br", "img", "link", "hr", "input"}


def token(step: int, **changes: object) -> Token:
    alarmed = 20 <= step < 30
    answer = Answer(
        score=0.9999 if alarmed else 0.2,
        p_value=0.05 if step >= 20 else 1.0,
        tier=int(alarmed),
        verdict=alarmed,
        route=Route(0.6, 0.95, 10.0, 3),
        threshold=0.999,
        action="degrade" if alarmed else "allow",
        budget=0.05,
        guarantee=f"none (demo {EVIL})",
        receipt=Receipt("ab" * 32, '{"note":"' + "<script>" + '"}', "cd" * 64, "ef" * 32),
    )
    base = Token(
        step=step,
        token=step,
        text=f" w{step}",
        lp=-1.0,
        entropy=1.0,
        temperature=0.6 if alarmed else 0.0,
        top_p=0.95,
        decoder=3 if alarmed else 0,
        asked=0.0,
        answer=answer,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def demo(text: str = "harmless", prompt: str = "Once") -> Demo:
    tokens = [token(i, text=text if i == 25 else f" w{i}") for i in range(40)]
    tokens[-1] = replace(tokens[-1], stop="length", error=EVIL, answer=None)
    checks = [Check("each one offline", ok=True, detail="40 of 40"), Check(EVIL, ok=False, detail=EVIL)]
    ignored = Run(kind="loop", prompt=prompt, via="triton", obey=False, tokens=tokens, onset=15, healthy=15)
    obeyed = replace(ignored, obey=True)
    shim = replace(obeyed, via="shim", checks=checks)
    facts = {"model": EVIL}
    return Demo(source="live", about=facts, runs=[ignored, obeyed, shim], notes=[EVIL])


class Balance(HTMLParser):
    """Fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def parsed(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_tags_nest_and_drawings_are_xml() -> None:
    html = render(demo())
    parsed(html)
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) > 6
    for drawing in drawings:
        ET.fromstring(drawing)  # noqa: S314 - our own


def test_hostile_text_stays_text_wherever_it_comes_from() -> None:
    html = render(demo(text=EVIL, prompt=EVIL))
    page = parsed(html)
    assert not {tag for tag, _ in page.seen} & {"script", "img", "iframe", "object"}
    assert not any(name.startswith("on") for _, attrs in page.seen for name in attrs)
    everything = "".join(page.text)
    # prompt (3 runs), flagged token (3), guarantee, fact, note, check name and detail, expectation
    assert everything.count("<script>alert(1)</script>") >= 10
    assert "<script" not in html


def test_nothing_is_fetched() -> None:
    html = render(demo())
    page = parsed(html)
    assert not any(name in {"src", "href", "action"} for _, attrs in page.seen for name in attrs)
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_the_flagged_tokens_are_marked_and_the_moment_of_the_catch_is_shown() -> None:
    html = render(demo())
    page = parsed(html)
    assert sum(tag == "mark" for tag, _ in page.seen) == 3 * 10 + 1  # ten tokens in three runs, and the key
    assert "20 (+5)" in html
    descriptions = re.findall(r"<desc>(.*?)</desc>", html)
    assert any("onset at token 15; caught at token 20" in d for d in descriptions)


def test_it_says_what_was_not_as_expected() -> None:
    bad = demo()
    assert not bad.ok
    html = render(bad)
    assert "0 of 3 expectations met" in html
    assert "not verified" in html
    good = replace(bad, runs=[replace(r, tokens=r.tokens[:-1], checks=()) for r in bad.runs])
    assert good.ok
    assert "3 of 3 expectations met" in render(good)


def test_a_demo_without_runs_is_not_ok_and_renders() -> None:
    empty = Demo(source="replay", about={}, runs=[])
    assert not empty.ok
    assert "0 of 0 expectations met" in parsed(render(empty)).text


def test_an_unobeyed_replay_has_plots_for_both_ways() -> None:
    runs = [replace(r, obey=False) for r in demo().runs[1:]]
    html = render(Demo(source="replay", about={}, runs=runs))
    parsed(html)
    assert "Through the Triton ensemble" in html
    assert "Through the HTTP shim" in html
    assert "cannot obey" in html


def test_the_survey_is_told() -> None:
    survey = {
        "healthy_tokens": 2789,
        "false_alarms": 3,
        "healthy_generations": 10,
        "healthy_generations_alarmed": 1,
        "loop": {"faults": 7, "caught": 6, "median_delay": 19},
        "blowup": {"faults": 0, "caught": 0, "median_delay": None},
    }
    text = " ".join(parsed(render(replace(demo(), survey=survey))).text)
    assert "3 alarmed of 2789 healthy tokens" in text
    assert "1 of 10 healthy generations" in text


@pytest.mark.parametrize("log", [True, False], ids=["log", "linear"])
def test_a_plot_survives_gaps_constants_and_values_out_of_range(*, log: bool) -> None:
    panel = Panel(
        title="a < b & c",
        lines=[Line("x", "obeyed", [None, 0.5, float("nan"), 0.001, 5.0]), Line("y", "ignored", [])],
        marks=[Mark(0, "first <", "onset"), Mark(4, "last", "caught")],
        low=0.01 if log else 0.0,
        log=log,
        limit=0.3,
        limit_label="limit",
    )
    root = ET.fromstring(plot(panel, steps=5, last=True))  # noqa: S314 - our own
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    assert len(lines) == 2  # the gaps split the series, the empty one is not drawn
    box = [float(v) for v in root.attrib["viewBox"].split()]
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= box[2]
            assert 0 <= y <= box[3]


def test_the_summary_is_complete() -> None:
    summary = demo().summary()
    assert summary["ok"] is False
    assert [r["via"] for r in summary["runs"]] == ["triton", "triton", "shim"]
    run = summary["runs"][0]
    assert (run["onset"], run["caught"], run["delay"], run["errors"]) == (15, 20, 5, 1)
    assert summary["runs"][2]["checks"][1]["ok"] is False


@pytest.mark.parametrize("onset", [-1, 15])
def test_the_command_fails_where_a_fault_does_not_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onset: int
) -> None:
    """As `test_a_fault_that_does_not_show_makes_the_demo_fail` without a model: exit code, summary and report."""
    tokens = [token(i) for i in range(40)]
    run = Run(kind="loop", prompt="Once", via="triton", obey=False, tokens=tokens, onset=onset, healthy=15)
    played = Demo(source="live", about={}, runs=[run, replace(run, obey=True)])
    monkeypatch.setattr(demo_cli, "_play", lambda *_, **__: played)
    out = tmp_path / "demo.html"
    done = CliRunner().invoke(app, ["demo", "--quick", "--json", "--plain", "--replay", "--out", str(out)])
    shown = onset >= 0
    assert done.exit_code == (0 if shown else 1), done.output
    found = json.loads(done.stdout)
    assert found["ok"] is shown
    assert all(("did not show" in r["detail"]) is not shown for r in found["runs"])
    assert f"{2 * shown} of 2 expectations met" in out.read_text()
