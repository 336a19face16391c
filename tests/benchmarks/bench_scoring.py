"""CPU time per row of the in-process ensemble: batch size by window length, and rows that share less than usual.

Medians of interleaved repetitions in process time. With `--against DIR` a second copy of `tcd` is measured in
turn with the first, case by case, so that only their ratio matters on a busy machine. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import detector_key
from tcd.rows import ScoreRow, pack
from tcd.scoring import diagnose
from tcd.signals import start, step

ROOT = Path(__file__).parents[2]
BATCHES = (1, 32, 128)
WINDOWS = (64, 256, 1024, 4096)
#: Name of a row mix and the tokens it is measured at.
MIXES = (("ages", 200), ("mask1", 200), ("mask3", 200), ("warmup", 10), ("keys", 200))
HIDDEN, VOCABULARY = (32, 576), 49_152


def score_row(rng: np.random.Generator, tokens: int, mix: str, index: int) -> ScoreRow:
    """One row of `tcd_diagnose`: all four signals, 112 x 16 features, unless the mix says otherwise."""
    n = int(rng.integers(tokens // 2, tokens + 1)) if mix == "ages" else tokens
    empty = np.zeros(0, np.float32)
    rows = 0 if mix in {"mask1", "mask3"} else min(n, 112)
    bucket = ("greedy", "0.75", "1.00")[index % 3] if mix == "keys" else "1.00"
    return ScoreRow(
        trace=-rng.exponential(2.0, n).astype(np.float32),
        entropy=empty if mix == "mask1" else rng.exponential(2.0, n).astype(np.float32),
        spectrum=np.sort(rng.exponential(20, 16).astype(np.float32))[::-1] if rows else empty,
        features=rng.normal(0, 10, (rows, 16)).astype(np.float32),
        key=detector_key("smollm2-135m", "gpu0", "chat", "en", bucket),
        alpha=0.01,
        controller=True,
        base=(1.0, 0.95, 256.0, 0.0),
    )


def prepared(case: list[Any]) -> Callable[[], Any]:
    """The call to measure."""
    mix, size, tokens = case
    rng = np.random.default_rng(tokens)
    assets = load_assets(default_asset_dir())
    if mix == "signals":
        raw = {
            "LOGITS": rng.normal(0, 3, (size, VOCABULARY)).astype(np.float32),
            "TOKEN": rng.integers(0, VOCABULARY, (size, 1)).astype(np.int32),
            "HIDDEN": rng.normal(0, 2, (size, *HIDDEN)).astype(np.float32),
            **start(size),
        }
        return lambda: step(raw, assets)
    tensors = pack([score_row(rng, tokens, mix, i) for i in range(size)])
    return lambda: diagnose(tensors, assets)


def worker() -> None:
    """Answer cases on stdin (JSON lines) with microseconds of process time per row."""
    calls: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        case = json.loads(line)
        if line not in calls:
            calls[line] = prepared(case)
            calls[line]()
        repeat = max(1, 64 // case[1]) if case[0] != "signals" else 1
        begin = time.process_time()
        for _ in range(repeat):
            calls[line]()
        spent = time.process_time() - begin
        sys.stdout.write(f"{spent / repeat / case[1] * 1e6}\n")
        sys.stdout.flush()


def start_worker(root: Path) -> subprocess.Popen[str]:
    """A worker that imports `tcd` from `root`, with one BLAS thread."""
    environment = os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, __file__, "--worker"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], case: list[Any]) -> float:
    """Microseconds per row of a case."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(case) + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--against", type=Path, help="directory that holds another `tcd` package")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    cases: list[list[Any]] = [["all", size, tokens] for tokens in WINDOWS for size in BATCHES]
    cases += [[mix, size, tokens] for mix, tokens in MIXES for size in BATCHES]
    cases += [["signals", size, 0] for size in (1, 32)]
    roots = [ROOT] if options.against is None else [options.against, ROOT]
    workers = [start_worker(root) for root in roots]
    taken: dict[int, list[list[float]]] = {i: [] for i in range(len(cases))}
    for _ in range(options.repetitions):
        for i, case in enumerate(cases):
            taken[i].append([ask(process, case) for process in workers])
    for process in workers:
        process.communicate()
    report = [
        {
            "mix": case[0],
            "batch": case[1],
            "tokens": case[2],
            "us_per_row": [statistics.median(v) for v in zip(*taken[i], strict=True)],
        }
        for i, case in enumerate(cases)
    ]
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    for entry in report:
        values = entry["us_per_row"]
        ratio = f"  {values[0] / values[-1]:6.1f}x" if len(values) > 1 else ""
        times = "".join(f" {v:9.1f}" for v in values)
        sys.stdout.write(f"{entry['mix']:8} batch {entry['batch']:4} tokens {entry['tokens']:5}{times}{ratio}\n")


if __name__ == "__main__":
    main()
