"""The demo in a terminal: text as it streams, sparklines of score and temperature, tier, budget, action.

On a terminal it redraws; elsewhere (a pipe, a log) it prints a line per event.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tcd.contract import DECODERS, TIERS
from tcd.demo.records import Answer, Route, Token
from tcd.demo.result import VIAS, Check, Demo, Run
from tcd.demo.scenarios import TITLES, Kind

if TYPE_CHECKING:  # in `typing` from Python 3.11 on
    from typing_extensions import Self

_BARS: Final = "▁▂▃▄▅▆▇█"
_TIER_STYLE: Final = ("green", "bold yellow", "bold red")
#: Lines of text and columns of a sparkline that fit a small terminal.
_TEXT_LINES: Final = 9
_LABEL: Final = 12
_FRAMES: Final = 12
_SHORT: Final[dict[Kind, str]] = {"healthy": "healthy", "loop": "loop", "blowup": "blow-up"}


def sparkline(values: Sequence[float], *, low: float, high: float, width: int) -> str:
    """The newest `width` values as bars between `low` and `high`; values outside are clipped."""
    span = (high - low) or 1.0
    top = len(_BARS) - 1
    return "".join(_BARS[round(min(max((v - low) / span, 0.0), 1.0) * top)] for v in values[-width:])


class View(AbstractContextManager["View"]):
    """What is shown while the demo runs. This base prints a line per event."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self.console = console
        self._alarmed = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def say(self, message: str) -> None:
        """A line about what is being done."""
        self.console.print(Text(message, style="dim"))

    def begin(self, run: Run) -> None:
        """A generation begins; `run` has no tokens yet."""
        self._alarmed = False
        self.console.print(Text(f"\n{run.title}", style="bold"))
        self.console.print(Text(f"  prompt: {_short(run.prompt, self.console.width - 10)}"))

    def token(self, token: Token) -> None:
        """A token came."""
        if token.error:
            self.console.print(Text(f"  token {token.step}: tcd did not answer: {token.error}", style="red"))
        if token.alarmed and not self._alarmed and token.answer is not None:
            self.console.print(
                Text(f"  token {token.step}: unsafe, score {token.answer.score:.4f}, tier {TIERS[token.answer.tier]}")
            )
        self._alarmed = token.alarmed

    def end(self, run: Run) -> None:
        """A generation ended and was judged."""
        check = run.expectation()
        self.console.print(Text(_short("  " + _one_line(run), self.console.width), no_wrap=True))
        self.console.print(_judgement(check, indent=2))

    def finish(self, demo: Demo) -> None:
        """All is done: the table of outcomes."""
        self.console.print()
        self.console.print(outcome_table(demo))


class LiveView(View):
    """Redraws one screenful per generation."""

    def __init__(self, console: Console) -> None:
        """Show on `console`, which is a terminal."""
        super().__init__(console)
        self._live: Live | None = None
        self._run: Run | None = None
        self._tokens: list[Token] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        self._stop()

    def begin(self, run: Run) -> None:
        """A generation begins."""
        self._stop()
        self._run, self._tokens = run, []
        self._live = Live(console=self.console, refresh_per_second=_FRAMES, get_renderable=self._frame)
        self._live.start()

    def token(self, token: Token) -> None:
        """A token came; the screen follows at its own pace."""
        self._tokens.append(token)

    def end(self, run: Run) -> None:
        """A generation ended: its last frame stays on the screen."""
        self._run = run
        self._stop()
        self.console.print(_judgement(run.expectation(), indent=1))
        self._run = None

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _frame(self) -> RenderableType:
        return frame(self._run, self._tokens, width=self.console.width) if self._run is not None else Text()


def choose_view(console: Console) -> View:
    """A live view on a terminal, lines elsewhere."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else View(console)


def frame(run: Run, tokens: Sequence[Token], *, width: int) -> RenderableType:
    """One screenful: the text, the sparklines, the newest answer."""
    # borders, two columns and their gaps
    room = max(width - _LABEL - 16, 8)
    text = Text(_short(run.prompt, 160), style="dim")
    for token in tokens:
        style = "bold white on red" if token.alarmed else ("black on cyan" if token.decoder else "")
        text.append(token.text, style=style)
    lines = text.wrap(Console(width=max(width - 4, 20)), max(width - 4, 20))[-_TEXT_LINES:]
    answers = [t.answer for t in tokens if t.answer is not None]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=_LABEL, style="dim")
    grid.add_column(width=9, justify="right")
    grid.add_column(no_wrap=True)
    if answers:
        new = answers[-1]
        scores = [a.score for a in answers]
        grid.add_row("score", f"{new.score:.4f}", _scored(scores, [a.verdict for a in answers], room))
        grid.add_row("temperature", f"{tokens[-1].temperature:.2f}", _heat(tokens, room))
        grid.add_row("p", f"{new.p_value:.3g}", Text(f"guarantee: {_short(new.guarantee, room - 11)}", style="dim"))
        grid.add_row("tier", Text(TIERS[new.tier], style=_TIER_STYLE[new.tier]), Text(_short(_route(new.route), room)))
        if new.budget is not None:
            # a calibration that is too small for a claim has no budget to spend
            left = "none" if new.budget == 0 and new.guarantee.startswith("none") else f"{new.budget:.4f}"
            grid.add_row("budget", left, Text(_short(_action(new), room)))
    if tokens and tokens[-1].error:
        grid.add_row("tcd", Text("no answer", style="bold red"), Text(_short(tokens[-1].error, room)))
    title = f"{TITLES[run.kind]} · {VIAS[run.via]} · route {'obeyed' if run.obey else 'ignored'}"
    return Panel(
        Group(Group(*lines), Text(), grid),
        title=Text(title, style="bold"),
        subtitle=Text(f"token {len(tokens)}"),
        width=width,
        padding=(0, 1),
    )


def _action(answer: Answer) -> str:
    return f"action {answer.action}" + (f" ({answer.cause})" if answer.cause else "")


def _route(route: Route) -> str:
    return f"route: temperature {route.temperature:.2f}, decoder {DECODERS[route.decoder]}"


def _scored(scores: Sequence[float], alarms: Sequence[bool], width: int) -> Text:
    bars = Text(sparkline(scores, low=0.0, high=1.0, width=width), style="cyan")
    for index, alarm in enumerate(alarms[-width:]):
        if alarm:
            bars.stylize("bold red", index, index + 1)
    return bars


def _heat(tokens: Sequence[Token], width: int) -> Text:
    values = [t.temperature for t in tokens]
    return Text(sparkline(values, low=0.0, high=max(1.0, *values), width=width), style="magenta")


def _one_line(run: Run) -> str:
    stop = run.tokens[-1].stop if run.tokens else "no tokens"
    receipts = f", {run.receipts} receipts" if run.receipts else ""
    return f"{len(run.tokens)} tokens ({stop or 'interrupted'}){receipts}: {_short(run.text)}"


def _short(text: str, limit: int = 88) -> str:
    flat = text[: len(text) - len(text.lstrip())] + " ".join(text.split())
    return flat if len(flat) <= limit else flat[: max(limit - 1, 0)] + "…"


def _judgement(check: Check, *, indent: int) -> Text:
    mark, style = ("✔ as expected", "green") if check.ok else ("✘ not as expected", "bold red")
    return Text(" " * indent).append(mark, style=style).append(f": {check.detail}")


def outcome_table(demo: Demo) -> Table:
    """The outcomes of all runs."""
    table = Table(title="tcd demo", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    right = {"tokens", "false\nalarms"}
    for name in ("scenario", "via", "route", "tokens", "caught", "false\nalarms", "receipts", ""):
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for run, check in zip(demo.runs, demo.expectations, strict=True):
        good = all(c.ok for c in run.checks)
        table.add_row(
            _SHORT[run.kind],
            run.via,
            "obeyed" if run.obey else "ignored",
            str(len(run.tokens)),
            "" if run.caught is None else f"{run.caught} (+{run.delay})",
            str(run.false_alarms),
            f"{run.receipts} {'verified' if good else 'WRONG'}" if run.receipts else "",
            Text("✔", style="green") if check.ok else Text("✘", style="bold red"),
        )
    return table
