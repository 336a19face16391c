"""`tcd demo`: SmolLM2 in Triton degenerates, is caught, re-routed and receipted while you watch."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tcd.demo.result import Demo
    from tcd.demo.run import Plan
    from tcd.demo.view import View


def command(
    out: Annotated[Path, typer.Option(help="The report, one HTML file.", dir_okay=False)] = Path("out/demo.html"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; the view goes to stderr.")
    ] = False,
    plain: Annotated[bool, typer.Option(help="A line per event even on a terminal.")] = False,
    quick: Annotated[bool, typer.Option(help="Shorter generations, a replay with fewer pauses.")] = False,
    survey: Annotated[bool, typer.Option(help="Also run all the demo's prompts in one process (minutes).")] = False,
    replay: Annotated[bool, typer.Option(help="Replay the recording even when the weights are there.")] = False,
    prompt: Annotated[str | None, typer.Option(help="Continue this text instead of the demo's prompts.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler.")] = 0,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Only this scenario: healthy, loop or blowup (repeat).")
    ] = None,
    logs: Annotated[
        Path | None, typer.Option(help="Directory for the servers' logs; default: a temporary one.")
    ] = None,
) -> None:
    """Play healthy text, a greedy loop and a temperature blow-up; exit 1 when one is not judged as it should be."""
    from rich.console import Console

    from tcd.demo.report import render
    from tcd.demo.run import PACE, Plan
    from tcd.demo.scenarios import TITLES
    from tcd.demo.view import View, choose_view
    from tcd.demo.weights import REMEDY, find_weights
    from tcd.errors import TcdError

    kinds = tuple(kind for kind in TITLES if not scenario or kind in scenario)
    if unknown := sorted(set(scenario or ()) - set(TITLES)):
        msg = f"unknown scenario {', '.join(unknown)}; there are {', '.join(TITLES)}"
        raise typer.BadParameter(msg, param_hint="--scenario")
    console = Console(stderr=as_json)
    live = find_weights() is not None and not replay
    pause = 0.0 if quick else PACE
    plan = Plan(kinds=kinds, length=112 if quick else None, seed=seed, prompt=prompt, pause=pause)
    with View(console) if plain else choose_view(console) as view:
        if not live and not replay:
            view.say(f"the weights of SmolLM2 are not installed ({REMEDY}): replaying a recording")
        try:
            demo = _play(plan, view, logs, live=live, survey=survey)
        except TcdError as error:
            console.print(error.detail, style="bold red", markup=False, highlight=False)
            raise typer.Exit(1) from error
        view.finish(demo)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(demo), encoding="utf-8")
    if as_json:
        print(json.dumps(demo.summary(), indent=1))
    else:
        console.print(f"report: {out}", markup=False, highlight=False)
    raise typer.Exit(0 if demo.ok else 1)


def _play(plan: Plan, view: View, logs: Path | None, *, live: bool, survey: bool) -> Demo:
    from tcd.demo.run import play, with_survey

    with tempfile.TemporaryDirectory(prefix="tcd-demo-") as temporary:
        directory = logs or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        demo = play(plan, view, directory, llm=live)
    if survey and live:
        view.say("the survey over all prompts, in one process …")
        demo = with_survey(demo, _survey())
    return demo


def _survey() -> dict[str, object]:
    from tcd.calibration.store import default_asset_dir, load_assets
    from tcd.demo.llm import LanguageModel
    from tcd.demo.survey import summary, survey

    model = LanguageModel.load()
    return summary([outcome for outcome, _ in survey(model, load_assets(default_asset_dir()))])
