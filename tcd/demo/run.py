"""Plays the demo: each scenario ignored and obeyed, through Triton and through the shim, judged and verified."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tcd
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.demo.client import stream
from tcd.demo.records import Token, Via
from tcd.demo.replay import RowSession, load_recording, replay, triton_infer
from tcd.demo.result import Demo, Run
from tcd.demo.scenarios import TITLES, Kind, Scenario, scenario
from tcd.demo.stage import ORIGIN, Places, Stage
from tcd.demo.survey import label
from tcd.demo.verify import verify_session
from tcd.demo.view import View
from tcd.demo.watch import MODEL_ID, ShimSession
from tcd.demo.weights import FILE, REMEDY, SHA256

#: Seconds per token of a replay: under the shim's default rate limit of 30 requests per second.
PACE: Final = 0.04


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play.

    Attributes:
        kinds: scenarios in order.
        length: tokens of a generation, None = the scenario's own.
        seed: of the sampler.
        prompt: instead of the default prompts.
        pause: seconds between two tokens of a replay; through the shim it is `PACE` at least.
    """

    kinds: tuple[Kind, ...] = ("healthy", "loop", "blowup")
    length: int | None = None
    seed: int = 0
    prompt: str | None = None
    pause: float = PACE

    def scenario(self, kind: Kind) -> Scenario:
        """One of its scenarios."""
        length = {} if self.length is None else {"length": self.length}
        return scenario(kind, self.prompt, seed=self.seed, **length)


def play(plan: Plan, view: View, directory: Path, *, llm: bool) -> Demo:
    """Start what is needed, play the plan, verify the receipts.

    Args:
        plan: what to play.
        view: where to show it.
        directory: for the servers' logs; it exists.
        llm: whether the weights are there; without them a recording is replayed.

    Raises:
        tcd.errors.LauncherError: Triton or the shim does not come up.
        tcd.errors.Unavailable: Triton stops answering in a generation.
    """
    began = time.monotonic()
    assets = load_assets(default_asset_dir())
    view.say("starting Triton (the ensemble" + (" and SmolLM2-135M-Instruct" if llm else "") + ") and the shim …")
    with Stage(directory, llm=llm) as stage:
        view.say(f"Triton {stage.places.grpc_url} (gRPC), shim {stage.places.shim_url}")
        runs = list(_live(plan, view, stage.places) if llm else _replayed(plan, view, stage.places))
    notes = () if llm else (f"The weights are not installed ({REMEDY}): a recording was replayed.",)
    about = {**facts(assets, plan), "duration": f"{time.monotonic() - began:.0f} s, start included"}
    return Demo(source="live" if llm else "replay", about=about, runs=runs, notes=notes)


def _live(plan: Plan, view: View, places: Places) -> Iterator[Run]:
    for kind in plan.kinds:
        chosen = plan.scenario(kind)
        ways: Sequence[tuple[Via, bool]] = (("triton", True), ("shim", True))
        if kind != "healthy":
            # first what happens when nobody acts; the obeyed runs are judged against it
            ways = (("triton", False), *ways)
        reference: Sequence[Token] | None = None
        for via, obey in ways:
            session = f"{kind}-{secrets.token_hex(4)}"
            params = chosen.run(via=via, obey=obey, session=session, shim_url=places.shim_url)
            run = _watched(
                Run(kind=kind, prompt=chosen.prompt, via=via, obey=obey, tokens=()),
                lambda p=params, c=chosen: stream(places.grpc_url, c.prompt, p),  # type: ignore[misc]
                reference,
                view,
                places,
            )
            reference = run.tokens if not obey else reference
            yield run


def _replayed(plan: Plan, view: View, places: Places) -> Iterator[Run]:
    recordings = load_recording()
    infer = triton_infer(places.grpc_url)
    for kind in plan.kinds:
        recorded = recordings[kind]
        for via in ("triton", "shim"):
            start = float(recorded.columns["asked"][0])
            session = (
                RowSession(infer, temperature=start)
                if via == "triton"
                else ShimSession(places.shim_url, session=f"{kind}-{secrets.token_hex(4)}", temperature=start)
            )
            run = Run(kind=kind, prompt=recorded.prompt, via=via, obey=False, tokens=())
            pace = max(plan.pause, PACE) if via == "shim" else plan.pause
            yield _watched(run, lambda r=recorded, s=session, p=pace: replay(r, s, pace=p), None, view, places)  # type: ignore[misc]


def _watched(
    run: Run,
    tokens: Callable[[], Iterator[Token]],
    reference: Sequence[Token] | None,
    view: View,
    places: Places,
) -> Run:
    """Show a generation while it comes, then judge it."""
    view.begin(run)
    seen: list[Token] = []
    for token in tokens():
        seen.append(token)
        view.token(token)
    labels = label(run.kind, seen if reference is None else reference)
    checks = (
        verify_session(seen, public=places.public, origin=ORIGIN, shim_url=places.shim_url) if run.via == "shim" else ()
    )
    run = replace(run, tokens=seen, onset=labels.onset, healthy=labels.healthy, checks=checks)
    view.end(run)
    return run


def facts(assets: AssetSet, plan: Plan) -> dict[str, str]:
    """What was used, for people."""
    detector, _ = assets.detector((0, 0, 0))
    provenance = detector.provenance if detector is not None else None
    fitted = (
        f"{detector.digest[:19]}…, {provenance.n_steps} healthy steps of {provenance.n_sessions} sessions"
        f"{', a demonstration' if provenance.demo else ''}"
        if detector is not None and provenance is not None
        else "none"
    )
    return {
        "model": f"SmolLM2-135M-Instruct, {FILE}, dequantised to FP32 (SHA-256 {SHA256[:16]}…)",
        "detector key": f"model {MODEL_ID}, any temperature",
        "regime": "; ".join(_regime(plan.scenario(kind)) for kind in plan.kinds),
        "prompts": "hand-written for the demo, none of them among those that the assets were fitted on"
        if plan.prompt is None
        else "given on the command line",
        "detector asset": fitted,
        "asset manifest": assets.manifest_digest,
        "tcd": tcd.__version__,
        "machine": f"Python {platform.python_version()}, {platform.machine()}",
    }


def _regime(chosen: Scenario) -> str:
    p = chosen.params
    heat = "greedy" if p.temperature < 0.05 else f"temperature {p.temperature:g}, top-p {p.top_p:g}"  # noqa: PLR2004 - the bucket
    change = f", temperature {p.then_temperature:g} from token {p.change_at}" if p.change_at >= 0 else ""
    return f"{TITLES[chosen.kind].lower()}: {heat}{change}, seed {p.seed}"


def with_survey(demo: Demo, outcomes: dict[str, Any]) -> Demo:
    """The demo with a survey's summary."""
    return replace(demo, survey=outcomes)
