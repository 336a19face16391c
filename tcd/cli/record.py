"""`tcd record`: record labelled generations of the demo's model as a fresh test set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tcd.cli.endings import fail

_ORIGIN = (
    "The prompts that come with tcd are CC0, the model is Apache-2.0. Labels come from the text alone. Every prediction"
    " is made before its token is chosen."
)


def _prompts(path: Path | None) -> list[tuple[str, str]]:
    from tcd.demo.recording.plan import own_prompts

    if path is None:
        return own_prompts()
    lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    pairs = [line.partition("\t") for line in lines]
    return [(task if tab else "own", (text if tab else task).replace("\\n", "\n")) for task, tab, text in pairs]


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def counts(regimes: str, usual: int) -> dict[str, int]:
    """Sequences of each regime: its own number after a colon, or the usual one.

    Raises:
        ValueError: if what follows a colon is no number.
    """
    pairs = [name.partition(":") for name in _split(regimes)]
    return {name: int(count) if colon else usual for name, colon, count in pairs}


def command(
    out: Annotated[Path, typer.Option("--out", help="directory to record into; resumed when it is unfinished")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="one a line, \\n for a line break; a TASK and a tab may come first; default: tcd's own", exists=True
        ),
    ] = None,
    regimes: Annotated[
        str, typer.Option(help="of healthy,lowtemp,tempblow,cooldown,shift,corrupt; corrupt:96 records 96 of it")
    ] = "healthy,lowtemp,tempblow,cooldown,shift,corrupt",
    corruptions: Annotated[
        str, typer.Option(help="kind:strength of noise, quant, quantg, kv, separated by commas")
    ] = "noise:0.15,noise:0.25,quant:4,quantg:3,kv:0.5",
    per_regime: Annotated[int, typer.Option(min=1, help="sequences of each regime")] = 40,
    length: Annotated[int, typer.Option(min=64, max=400, help="tokens of a sequence at most")] = 256,
    batch: Annotated[int, typer.Option(min=1, max=64, help="sequences that advance together")] = 16,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    drop_layers: Annotated[
        str, typer.Option(help="layers to leave out (a model of another depth), separated by commas")
    ] = "",
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
    most: Annotated[int | None, typer.Option(min=1, help="batches to record now; the next call goes on")] = None,
) -> None:
    """Record OUT: signals and text-only labels of generations under each regime, seeded and resumable."""
    from tcd.calibration.store import default_asset_dir, load_assets
    from tcd.demo.llm import LanguageModel
    from tcd.demo.recording.generations import record_part
    from tcd.demo.recording.memory import release_large_blocks
    from tcd.demo.recording.plan import make_plan
    from tcd.demo.recording.run import record as record_plan
    from tcd.demo.weights import SHA256
    from tcd.errors import TcdError
    from tcd.signals.projection import derived

    try:
        dropped = frozenset(int(name) for name in _split(drop_layers))
        texts = _prompts(prompts)
        options: dict[str, Any] = {
            "regimes": counts(regimes, per_regime),
            "corruptions": _split(corruptions),
            "length": length,
            "batch": batch,
            "seed": seed,
        }
        plan = make_plan(texts, **options)
        release_large_blocks()
        model = LanguageModel.load(threads=threads)
        model.drop(dropped)
        projection = load_assets(default_asset_dir()).projection(model.shape.width)
        matrix = derived(model.shape.width) if projection is None else projection.matrix
        name = "smollm2-135m" + (f"-without-{'-'.join(map(str, sorted(dropped)))}" if dropped else "")
        settings = {
            **options,
            "model": name,
            "weights_sha256": SHA256,
            "projection": "derived" if projection is None else projection.digest,
            "prompts": texts,
        }
        done = record_plan(
            lambda part: record_part(model, part, matrix),
            plan,
            out,
            name=name,
            settings=settings,
            origin=_ORIGIN,
            tell=lambda line: print(line, flush=True),
            most=most,
        )
    except (TcdError, ValueError, OSError) as error:
        fail("record", error)
    print(f"recorded {out}" if done else f"{out} is unfinished; run the same command again")
