"""`tcd bench`: loads that print their peers beside us."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from tcd.cli.endings import fail, refusals

app = typer.Typer(help="Benchmarks beside their floors.", no_args_is_help=True)


def _numbers(path: Path | None, found: Any) -> None:
    """Write the numbers where a file is named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


def _report(
    out: Path | None,
    name: str,
    found: dict[str, Any],
    markdown: Callable[..., str],
    plots: Callable[[dict[str, Any]], dict[str, str]] | None = None,
) -> None:
    """Print the page; where a folder is named, write it there with its numbers and plots."""
    print(markdown(found))
    if out is None:
        return
    _numbers(out / f"{name}.json", found)
    (out / f"{name}.md").write_text(markdown(found, images=f"{name}-") if plots else markdown(found))
    for plot, drawing in (plots(found) if plots else {}).items():
        (out / f"{name}-{plot}.svg").write_text(drawing)


@app.callback()
def root() -> None:
    """Benchmarks beside their floors."""


@app.command()
def shim(
    seconds: float = typer.Option(3.0, help="Length of one run."),
    rounds: int = typer.Option(3, min=1, help="Rounds; medians are printed."),
    concurrency: list[int] = typer.Option([1, 8, 32, 64], help="Connections; repeat the option for several."),
    json_path: Path | None = typer.Option(None, "--json", help="Write the runs and the summary to this file."),
    out: Path | None = typer.Option(
        None, help="Also run above capacity, and write shim.md, shim.json and shim-load.svg to this folder."
    ),
) -> None:
    """Load POST /diagnose with wrk, beside no-op routes, a naive shim and the ensemble called directly."""
    from tcd.bench import overload as above
    from tcd.bench import shim as bench
    from tcd.bench import shim_report as report

    with refusals("bench", code=1):
        runs = bench.measure(concurrencies=tuple(concurrency), seconds=seconds, rounds=rounds)
        rows = bench.summary(runs)
        print(bench.markdown(rows))
        excess = above.measure(seconds=max(seconds, 5.0), rounds=rounds) if out is not None else None
    found = {"summary": rows, "runs": bench.raw(runs)}
    _numbers(json_path, found)
    if out is not None and excess is not None:
        out.mkdir(parents=True, exist_ok=True)
        found |= report.whole(rows, excess)
        text = report.markdown(found, excess, images="shim-")
        print(text)
        (out / "shim.md").write_text(text)
        (out / "shim.json").write_text(json.dumps(found, indent=1) + "\n")
        for name, drawing in report.plots(rows).items():
            (out / f"shim-{name}.svg").write_text(drawing)


@app.command()
def soak(
    minutes: float = typer.Option(30.0, help="Length of the load."),
    rate: float = typer.Option(0.0, help="Requests per second; 0 = 70 % of the capacity that is found."),
    out: Path | None = typer.Option(None, help="Write soak.md and soak.json to this folder."),
) -> None:
    """Load at 70 % of capacity; exit 1 when memory, threads, files or shared memory grow, or answers are not as asked.

    No request may be lost or answered with an error, 1 % may be refused, 1 in 100,000 may be a degraded decision.
    """
    from tcd.bench import soak as bench
    from tcd.bench import soak_report as report

    with refusals("bench", code=1):
        found = bench.measure(seconds=60.0 * minutes, rate=rate)
    print(report.markdown(found))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "soak.md").write_text(report.document(found))
        (out / "soak.json").write_text(json.dumps(report.raw(found), indent=1) + "\n")
    if report.problems(found):
        raise typer.Exit(1)


@app.command()
def growth(
    most: int = typer.Option(1_000_000, help="Subjects and receipts at most; 10^7 receipts take 5 GB of disk."),
    out: Path | None = typer.Option(None, help="Write growth.md, growth.json and growth.svg to this folder."),
) -> None:
    """Cost of a decision by the number of live subjects and by the length of the log, in process."""
    from tcd.bench import growth as bench

    found = bench.measure(most)
    print(bench.markdown(found))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "growth.md").write_text(bench.markdown(found, image="growth.svg"))
        (out / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / "growth.svg").write_text(bench.plot(found))


@app.command()
def audit(
    most: int = typer.Option(1_000_000, help="Receipts at most; 10^6 take 4.3 GB of disk, 10^7 take 43 GB."),
    folder: Path | None = typer.Option(None, help="Where the ledgers are written; else the temporary directory."),
    ledger: list[Path] = typer.Option([], help="Folder of a synthetic ledger that is there; may be given again."),
    parts: int = typer.Option(1, help="Processes that sign while a ledger is written: 1, 2, 4 or 8."),
    workers: int = typer.Option(0, help="Processes that check rows beside the one that audits."),
    out: Path | None = typer.Option(None, help="Write audit.md, audit.json and audit-growth.svg to this folder."),
) -> None:
    """Time and memory of audits and Parquet exports from 10^4 receipts on, over synthetic ledgers."""
    from tcd.bench.audit import growth as bench

    found = bench.measure(
        bench.sizes(most), folder=folder, ledgers=ledger, parts=parts, workers=workers,
        say=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    print(bench.markdown(found))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "audit.md").write_text(bench.markdown(found, image="audit-growth.svg"))
        (out / "audit.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / "audit-growth.svg").write_text(bench.plot(found))


@app.command()
def overload(
    seconds: float = typer.Option(5.0, help="Length of each phase."),
    rounds: int = typer.Option(3, min=1, help="Rounds of all phases."),
    json_path: Path | None = typer.Option(None, "--json", help="Write the result to this file."),
) -> None:
    """Latency at 60 % of capacity, goodput and refusals at three times it, recovery afterwards (needs wrk)."""
    from tcd.bench import overload as bench

    with refusals("bench", code=1):
        results = bench.measure(seconds=seconds, rounds=rounds)
    print(bench.markdown(results))
    _numbers(json_path, {"rounds": bench.raw(results)})


@app.command()
def controller(
    small: bool = typer.Option(False, "--small", help="Seconds instead of minutes, as CI runs it."),
    out: Path | None = typer.Option(None, help="Write controller.md, controller.json and the plots to this folder."),
) -> None:
    """Run the controller's acceptance experiments, beside peers and beside controllers broken on purpose."""
    from tcd.bench.controller import report, suite

    found = suite.run(suite.Scale.small() if small else suite.Scale())
    _report(out, "controller", found, report.markdown, report.plots)
    if not found["ok"]:
        raise typer.Exit(1)


@app.command()
def ledger(
    small: bool = typer.Option(False, "--small", help="Seconds instead of minutes, as CI runs it."),
    out: Path | None = typer.Option(None, help="Write ledger.md and ledger.json to this folder."),
) -> None:
    """Time commits beside bare syncs and beside a commit per decision, starts by the length of the log, and leases."""
    from tcd.bench import ledger as bench
    from tcd.bench import ledger_report as report

    found = bench.run(bench.Scale.small() if small else bench.Scale())
    _report(out, "ledger", found, report.markdown)


@app.command()
def receipts(
    small: bool = typer.Option(False, "--small", help="Seconds instead of minutes, as CI runs it."),
    out: Path | None = typer.Option(None, help="Write receipts.md, receipts.json and the plot to this folder."),
) -> None:
    """Time issuing and verifying beside raw signing, batches, logs to 10^7 leaves, and verification's memory."""
    from tcd.bench import receipts as bench
    from tcd.bench.receipts import report

    found = bench.run(bench.Scale.small() if small else bench.Scale())
    _report(out, "receipts", found, report.markdown, report.plots)


@app.command()
def ensemble(
    small: bool = typer.Option(False, "--small", help="A minute instead of ten, as CI runs it."),
    rounds: int = typer.Option(5, min=1, help="Rounds of all models; medians of the ratios within rounds are printed."),
    out: Path | None = typer.Option(None, help="Write ensemble.md, ensemble.json and the plots to this folder."),
) -> None:
    """Load the ensemble and tcd_fused beside no-ops of their shapes; lengths, growth, latencies, starts."""
    from dataclasses import replace

    from tcd.bench import ensemble as bench
    from tcd.bench.ensemble import report

    scale = bench.Scale.small() if small else replace(bench.Scale(), rounds=rounds)
    with refusals("bench", code=1):
        found = bench.run(scale, say=lambda what: typer.echo(f"{what} ...", err=True))
    _report(out, "ensemble", found, report.markdown, report.plots)


@app.command()
def e2e(
    small: bool = typer.Option(False, "--small", help="Seconds instead of minutes, as CI runs it."),
    rounds: int = typer.Option(16, min=1, help="Rounds of all ways; medians within rounds are printed."),
    out: Path | None = typer.Option(None, help="Write e2e.md, e2e.json and the plot to this folder."),
) -> None:
    """Tokens per second of SmolLM2 with tcd at every step: library, Triton BLS, HTTP, logits processor, and without."""
    from dataclasses import replace

    try:
        from tcd.bench import e2e as bench
        from tcd.bench.e2e import report
    except ImportError as error:
        fail("bench", f"{error.name} is not installed; remedy: pip install tcd[demo,client]", code=1)
    scale = bench.Scale.small() if small else replace(bench.Scale(), rounds=rounds)
    with refusals("bench", code=1):
        found = bench.run(scale, say=lambda what: typer.echo(f"{what} ...", err=True))
    _report(out, "e2e", found, report.markdown, lambda found: {"tokens": report.plot(found)})


@app.command()
def gpu(
    device: str = typer.Option("cuda", help="Device of torch; cpu tries the same code where there is no GPU."),
    small: bool = typer.Option(False, "--small", help="Seconds on a CPU."),
    server: bool = typer.Option(True, help="Also start a Triton server and ask it."),
    out: Path | None = typer.Option(None, help="Write gpu.md and gpu.json to this folder."),
) -> None:
    """Check that a GPU decides as the CPU does, and time from which batch on it pays; exit 1 when a check fails."""
    from tcd.bench import gpu as bench
    from tcd.bench.gpu import report

    scale = bench.Scale.small() if small else bench.Scale()
    with refusals("bench", code=1):
        found = bench.run(scale, device=device, server=server, say=lambda what: typer.echo(f"{what} ...", err=True))
    _report(out, "gpu", found, report.markdown)
    if not all(ok for _, ok, _ in found["checks"]):
        raise typer.Exit(1)


@app.command()
def trust(
    small: bool = typer.Option(False, "--small", help="A few graphs, as CI runs it."),
    out: Path | None = typer.Option(None, help="Write trust.md and trust.json to this folder."),
) -> None:
    """Time the propagation of trust on random graphs of 10,000 nodes, and check that it is the fixed point."""
    from tcd.bench import trust as bench

    _report(out, "trust", bench.run(small=small), bench.markdown)


@app.command()
def spotlight(
    n: int = typer.Option(1000, min=10, help="Rewritings of each body of 16 KiB."),
    triton: bool = typer.Option(True, help="Also in Triton, beside a model that echoes."),
    json_path: Path | None = typer.Option(None, "--json", help="Write the result to this file."),
) -> None:
    """Time rewriting at 16 KiB and over sizes to 1 MiB, and in Triton beside a no-op."""
    from tcd.bench import spotlight as bench

    rows, slopes = bench.measure(n=n)
    with refusals("bench", code=1):
        served = bench.in_triton(n=n) if triton else []
    print(bench.markdown(rows, slopes, served))
    _numbers(json_path, bench.raw(rows, slopes, served))


@app.command()
def detector(
    data: Path = typer.Option(..., "--data", exists=True, file_okay=False, help="Directory of recorded generations."),
    assets: Path | None = typer.Option(None, help="Score with these assets, fit nothing for tcd.", file_okay=False),
    via: str = typer.Option(
        "library", help="Through what rows are scored: library; with --assets also triton or http (a shim of its own)."
    ),
    model: str = typer.Option("model0", help="model_id by which the assets are found."),
    folds: int = typer.Option(4, min=2, help="Folds of the cross-validation over prompts."),
    train: list[Path] = typer.Option([], help="Recordings of other prompts that fit weights too; repeat for several."),
    shipped_weights: bool = typer.Option(False, "--shipped-weights", help="Fit scales and tables, no weights."),
    most: int = typer.Option(0, min=0, help="Measure so many generations, spread evenly; 0 measures all."),
    small: bool = typer.Option(False, "--small", help="Only all signals, and the peers that take no time."),
    out: Path | None = typer.Option(None, help="Write detector.md, detector.json and the plots to this folder."),
) -> None:
    """Measure the detector on recorded generations, cross-validated over prompts, beside its peers."""
    from tcd.bench import detector as bench

    with refusals("bench", code=1):
        found = bench.measure(
            data,
            assets=assets,
            way=via,
            model=model,
            folds=folds,
            training=train,
            shipped_weights=shipped_weights,
            most=most,
            small=small,
        )
    _report(out, "detector", found, bench.markdown, bench.plots)
    if any(found["via"]["different"].values()):
        raise typer.Exit(1)


@app.command()
def sessions(
    data: Path = typer.Option(..., "--data", exists=True, file_okay=False, help="directory of judge trajectories"),
    small: bool = typer.Option(False, "--small", help="Six splits instead of twenty, as CI runs it."),
    out: Path | None = typer.Option(None, help="Write sessions.md, sessions.json and the plots to this folder."),
) -> None:
    """Measure the session unit on judged trajectories, beside a plain threshold and E-valuator's rules."""
    from tcd.bench.sessions import measure, report

    with refusals("bench", code=1):
        found = measure.measure(data, small=small)
    _report(out, "sessions", found, report.markdown, report.plots)
    if not found["ok"]:
        raise typer.Exit(1)
