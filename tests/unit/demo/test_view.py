"""The terminal view: live on a terminal, lines elsewhere, and text from a model never is markup."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tcd.demo.records import Answer, Route, Token
from tcd.demo.result import Demo, Run
from tcd.demo.view import LiveView, View, choose_view, frame, sparkline


def token(step: int, text: str = " word") -> Token:
    alarmed = step == 20
    answer = Answer(
        score=0.9995 if alarmed else 0.25,
        p_value=0.05,
        tier=int(alarmed),
        verdict=alarmed,
        route=Route(0.6, 0.95, 10.0, 3),
        action="degrade",
        budget=0.045,
        guarantee="none (demo calibration)",
    )
    return Token(
        step=step,
        token=step,
        text=text,
        lp=-1.0,
        entropy=1.0,
        temperature=0.8,
        top_p=0.95,
        decoder=0,
        asked=0.8,
        answer=answer,
    )


RUN = Run(kind="loop", prompt="[bold red]not markup[/]", via="shim", obey=True, tokens=(), onset=15, healthy=15)


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=30, legacy_windows=False)


def output(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def play(view: View) -> None:
    tokens = [token(i, " [red]x[/red]" if i == 30 else " word") for i in range(40)]
    with view:
        view.say("starting")
        view.begin(RUN)
        for t in tokens:
            view.token(t)
        done = replace(RUN, tokens=tokens)
        view.end(done)
        view.finish(Demo(source="live", about={}, runs=[done]))


def test_the_sparkline_spans_its_range_and_clips() -> None:
    assert sparkline([0.0, 0.5, 1.0], low=0.0, high=1.0, width=10) == "▁▅█"
    assert sparkline([-9.0, 9.0], low=0.0, high=1.0, width=10) == "▁█"
    assert sparkline([1.0, 0.0, 0.0], low=0.0, high=1.0, width=2) == "▁▁"
    assert sparkline([3.0], low=3.0, high=3.0, width=4) == "▁"


def test_elsewhere_it_prints_a_line_per_event() -> None:
    shown = console(terminal=False)
    view = choose_view(shown)
    assert not isinstance(view, LiveView)
    play(view)
    text = output(shown)
    assert "\x1b" not in text
    assert "token 20: unsafe, score 0.9995, tier cautious" in text
    assert "caught at token 20, 5 after the onset" in text
    assert "[bold red]not markup[/]" in text
    assert text.count("unsafe") == 1


def test_on_a_terminal_it_is_live_and_leaves_the_last_frame() -> None:
    shown = console(terminal=True)
    view = choose_view(shown)
    assert isinstance(view, LiveView)
    play(view)
    text = output(shown)
    assert "token 40" in text
    assert "caught at token 20" in text
    assert "\x1b[?25h" in text  # the cursor is back


def test_an_interrupted_live_view_gives_the_terminal_back() -> None:
    shown = console(terminal=True)

    def interrupted() -> None:
        with choose_view(shown) as view:
            view.begin(RUN)
            view.token(token(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert output(shown).rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_frame_fits_its_width(width: int) -> None:
    shown = console(terminal=False, width=width)
    shown.print(frame(RUN, [token(i, " a rather long piece of text") for i in range(60)], width=width))
    lines = output(shown).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 20
    assert any("budget" in line and "action" in line for line in lines)
    assert any("cautious" in line or "normal" in line for line in lines)


def test_a_failure_is_shown() -> None:
    shown = console(terminal=False)
    failed = replace(token(0), answer=None, error="HTTP 503 [scoring]")
    shown.print(frame(RUN, [failed], width=100))
    view = View(shown)
    view.begin(RUN)
    view.token(failed)
    assert output(shown).count("HTTP 503 [scoring]") == 2
