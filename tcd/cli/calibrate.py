"""`tcd calibrate`: fit assets from recorded generations, evaluate them on held-out prompts, show a directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcd.cli.endings import refusals

if TYPE_CHECKING:
    from tcd.calibration.traces import Key, Traces

app = typer.Typer(help="Calibration assets: fit, evaluate, show.", no_args_is_help=True)

_Data = Annotated[
    Path,
    typer.Option(
        "--data", help="log of sessions (.jsonl, .parquet), a directory of such, or of recordings", exists=True
    ),
]
_Out = Annotated[Path, typer.Option("--out", help="asset directory", file_okay=False)]
_Page = Annotated[
    Path | None,
    typer.Option("--html", help="write the report here, and its numbers beside it as .json", dir_okay=False),
]
_Part = Annotated[str | None, typer.Option(help="part of the one key to fit; without any, each key of the log")]


_One = Annotated[str | None, typer.Option(help="the one model to fit; without it, each key of the log")]
_Bucket = Annotated[str | None, typer.Option(help="temperature bucket of the one key")]
_Level = Annotated[
    int | None,
    typer.Option(
        min=0, max=2, help="calibrate per key at level 0 (with temperature), 1 (without), 2 (model) [0; one key: 2]"
    ),
]
_Default = Annotated[bool, typer.Option(help="answer unknown keys too, as a fall-back")]
_Demo = Annotated[bool, typer.Option(help="mark as a demonstration (no guarantee)")]
_Projection = Annotated[str | None, typer.Option(help="digest of the projection asset of the features")]
_Least = Annotated[
    int | None, typer.Option(min=1, help="fewest healthy sessions of a key's tables [16; recordings: 4]")
]
_HeldOut = Annotated[str, typer.Option(help="prompt ids left out for evaluation, comma-separated")]
_Share = Annotated[
    float | None,
    typer.Option(min=0.05, max=0.95, help="of the prompts, those that fit scales [2/3; without faults 1/3]"),
]
_Delta = Annotated[
    float,
    typer.Option(min=0, max=0.5, help="delta: p-values that hold given the calibration, with confidence 1 - delta"),
]
_HoldBack = Annotated[
    float, typer.Option(min=0, max=0.5, help="of the prompts, those left out of the fit and evaluated on")
]
_Smoothing = Annotated[
    float, typer.Option(min=0.02, max=1, help="r of the multivariate monitor's MEWMA; 1: the newest vector alone")
]
_Robust = Annotated[bool, typer.Option(help="centre its reference on the median")]
_Train = Annotated[
    list[Path] | None,
    typer.Option(help="recordings of other prompts that fit weights too; repeat for several", file_okay=False),
]


@app.command()
@refusals("calibrate", code=1)
def fit(
    data: _Data,
    out: _Out,
    model_id: _One = None,
    gpu_id: _Part = None,
    task: _Part = None,
    lang: _Part = None,
    temperature: _Bucket = None,
    level: _Level = None,
    default: _Default = True,
    demo: _Demo = False,
    projection: _Projection = None,
    least: _Least = None,
    held_out: _HeldOut = "",
    share: _Share = None,
    conditional: _Delta = 0.0,
    hold_back: _HoldBack = 0.0,
    page: _Page = None,
    smoothing: _Smoothing = 1.0,
    robust_centre: _Robust = False,
    train: _Train = None,
) -> None:
    """Fit assets and point OUT's manifest at them: one set per key of a log, or one for a key that is named."""
    from tcd.calibration.fit import fit_directory, shipped_weights
    from tcd.calibration.keyed import LEAST, Asked, fit_keys, named, of_key
    from tcd.calibration.log import load
    from tcd.calibration.options import FitOptions
    from tcd.calibration.steps import training_steps

    traces, asked = load(data), Asked(model_id, gpu_id, task, lang, temperature)
    training = training_steps(train or [])
    chosen: dict[str, Any] = {"smoothing": smoothing, "robust": robust_centre, "training": training}
    options = FitOptions(weights=shipped_weights(), delta=conditional, **chosen)
    same: dict[str, Any] = {"default": default, "demo": demo, "projection": projection}
    same["held_out"] = named(traces.prompts, held_out, hold_back)
    if traces.sequences[0].key is None:
        key, at = asked.key(model_id="smollm2-135m"), 2 if level is None else level
        same |= {"options": replace(options, least=least or 4), "share": share or 2 / 3}
        print(f"manifest {fit_directory(data, out, key=key.value(at), level=at, traces=traces, **same)}")
        _judge(traces, out, page, same["held_out"], asked=key)
        return
    at = level if level is not None else (2 if asked.model_id is not None else 0)
    found = fit_keys(of_key(traces, asked), out, level=at, least=least or LEAST, share=share, options=options, **same)
    print("\n".join(found.lines()))
    _judge(traces, out, page, same["held_out"], conformal=found.split.conformal)


def _judge(
    traces: Traces,
    assets: Path,
    page: Path | None,
    held_out: frozenset[str],
    *,
    conformal: frozenset[str] = frozenset(),
    asked: Key | None = None,
) -> None:
    """Evaluate new assets on the prompts that were held out, where there are any."""
    from tcd.calibration.heldout import evaluate as run
    from tcd.calibration.steps import steps_of
    from tcd.calibration.store import load_assets

    if not held_out:
        return
    if all(s.weight == 1.0 for s in traces.sequences):
        # the form that needs them is the weighted one
        conformal = frozenset()
    new, known = ([steps_of(s) for s in traces.sequences if s.prompt_id in names] for names in (held_out, conformal))
    numbers, text = run(new, load_assets(assets), source=traces.source, asked=asked, conformal=known)
    _report(numbers, text, page=page)
    for at_most, entry in numbers["session"].get("p_at_most", {}).items():
        print(f"held out, p at most {at_most}: {entry['hits']} of {entry['n']} sessions")


@app.command()
def project(
    out: _Out,
    width: Annotated[int, typer.Option(help="width of the hidden states")] = 576,
    seed: Annotated[int, typer.Option(help="torch seed the recordings used")] = 7,
) -> None:
    """Store the projection N(0,1)/4 of a torch seed as an asset, so that serving never needs torch's generator."""
    import numpy as np
    import torch

    from tcd import __version__
    from tcd.calibration.assets import ProjectionAsset, Provenance
    from tcd.calibration.store import write_asset
    from tcd.signals.projection import FEATURE_WIDTH

    matrix = torch.randn(width, FEATURE_WIDTH, generator=torch.Generator().manual_seed(seed)) / 4
    source = f"torch.randn({width}, {FEATURE_WIDTH}) / 4, seed {seed}"
    provenance = Provenance(source, 0, 0, 0, f"tcd {__version__}", demo=False)
    print(write_asset(out, ProjectionAsset("", provenance, matrix.numpy().astype(np.float64))))


@app.command()
@refusals("calibrate", code=1)
def evaluate(
    data: _Data,
    assets: Annotated[
        Path | None,
        typer.Option(help="evaluate these assets, which have not seen the data", exists=True, file_okay=False),
    ] = None,
    model_id: Annotated[str, typer.Option(help="with --assets: whose recordings these are")] = "smollm2-135m",
    folds: Annotated[int, typer.Option(min=2, help="without --assets: cross-validation folds over prompts")] = 4,
    mask: Annotated[
        int, typer.Option(min=1, max=15, help="without --assets: signals, 1 trace, 2 entropy, 4 spectrum, 8 features")
    ] = 15,
    page: _Page = None,
) -> None:
    """What assets do on sessions they have not seen, or, by cross-validation, what a fit would do. JSON."""
    from tcd.calibration.evaluate import cross_validate
    from tcd.calibration.heldout import evaluate as run
    from tcd.calibration.keyed import Asked
    from tcd.calibration.log import load
    from tcd.calibration.steps import steps_of
    from tcd.calibration.store import load_assets

    traces = load(data)
    if assets is None:
        found, text = cross_validate(traces, folds=folds, mask=mask)
    else:
        steps = [steps_of(s) for s in traces.sequences]
        found, text = run(steps, load_assets(assets), source=traces.source, asked=Asked().key(model_id=model_id))
    _report(found, text, page=page)
    print(json.dumps(found, indent=1))


def _report(found: Mapping[str, Any], text: str, *, page: Path | None) -> None:
    """Write the page and, beside it, the numbers."""
    from tcd.files import write_whole

    if page is not None:
        write_whole(page, text.encode())
        write_whole(page.with_suffix(".json"), json.dumps(found, indent=1).encode() + b"\n")


@app.command()
@refusals("calibrate", code=1)
def promote(
    candidate: Annotated[Path, typer.Argument(help="directory that `fit` wrote", exists=True, file_okay=False)],
    live: Annotated[Path, typer.Argument(help="directory that is served", file_okay=False)],
    share: Annotated[
        float | None, typer.Option(help="of the sessions, that try it first; running shims watch and end the trial")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="with --share: judged until it is promoted")] = 200,
) -> None:
    """Make LIVE answer with the candidate's assets; whole or not at all. The old manifest is kept."""
    if share is not None:
        from tcd.calibration.canary import begin

        print(f"canary {begin(candidate, live, share=share, sessions=sessions)}")
        return
    from tcd.calibration.promote import promote as run

    print(f"manifest {run(candidate, live)}")


@app.command()
@refusals("calibrate", code=1)
def rollback(
    live: Annotated[Path, typer.Argument(help="directory that is served", exists=True, file_okay=False)],
    to: Annotated[
        str | None, typer.Option(help="digest that is to be in force; refused when nothing of it was")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing; print where one can go back to")] = False,
) -> None:
    """End a trial; without one put the manifest before the last promotion back in force, or the one that `--to` names.

    Each rollback is one more step back: `--dry-run` prints the digests, the next one first.
    """
    from tcd.calibration.promote import earlier
    from tcd.calibration.promote import rollback as run

    if dry_run:
        for digest in earlier(live):
            print(digest)
        return
    print(f"manifest {run(live, to=to)}")


@app.command()
@refusals("calibrate", code=1)
def show(
    directory: Annotated[Path | None, typer.Argument(help="asset directory; the shipped one if left out")] = None,
) -> None:
    """Load a directory, check every digest, print what it holds as JSON."""
    from tcd.calibration.assets import Asset
    from tcd.calibration.store import default_asset_dir, load_assets

    assets = load_assets(directory or default_asset_dir())
    pools: dict[str, Mapping[str, Asset]] = {
        "detector": assets.detectors,
        "multivariate": assets.multivariates,
        "policy": assets.routing,
        "projection": assets.projections,
    }
    body = {
        "manifest": assets.manifest_digest,
        "canary": None if assets.canary is None else {"id": assets.canary.id, "share": assets.canary.share},
        "keys": {f"{key:016x}": asdict(binding) for key, binding in sorted(assets.bindings.items())},
        "default": asdict(assets.default) if assets.default else None,
        "assets": {
            kind: [{"digest": a.digest, "provenance": asdict(a.provenance)} for a in pool.values()]
            for kind, pool in pools.items()
        },
    }
    print(json.dumps(body, indent=1))
