"""Self-referenced block p-values on recorded generations: inflation, dependence of neighbours, power; the table.

`python tests/benchmarks/bench_blocks.py DATA`: 200 seeded splits of the prompts into halves, one makes the table, the
other is judged. `--shipped` judges by the shipped table instead (other recordings), `--write` makes it from DATA.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.traces import Sequence, load_traces
from tcd.detector.blocks import TOKENS, statistic, tables

F64 = NDArray[np.float64]
TABLE = Path(__file__).parents[2] / "tcd/data/blocks.json"
LEVELS = (0.1, 0.05, 0.01)


def of(sequence: Sequence, first: int, last: int, *, both: bool = True) -> F64:
    """Statistics of the blocks that lie in steps first..last - 1."""
    trace, entropy = sequence.trace[:last], sequence.entropy[:last] if both else sequence.entropy[:0]
    ends = range(-(-first // TOKENS) * TOKENS + TOKENS, last + 1, TOKENS)
    found = (statistic(trace, entropy, last - end) for end in ends)
    return np.array([one for one in found if one is not None])


def p_of(table: F64, values: F64) -> F64:
    """Conformal p-values by an ascending table."""
    return np.asarray((1.0 + table.shape[0] - np.searchsorted(table, values)) / (table.shape[0] + 1.0))


def lag_1(parts: list[F64]) -> float:
    """Correlation of neighbouring blocks."""
    return float(np.corrcoef(np.concatenate([p[:-1] for p in parts]), np.concatenate([p[1:] for p in parts]))[0, 1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    sequences = load_traces(options.data).sequences
    healthy = [s for s in sequences if s.kind == "healthy" and s.healthy >= 48]
    if options.write:
        both, trace = (np.sort(np.concatenate([of(s, 0, s.healthy, both=b) for s in healthy])) for b in (True, False))
        body = {"both": both.round(4).tolist(), "trace": trace.round(4).tolist()}
        TABLE.write_text(json.dumps(body, separators=(",", ":")) + "\n")
        return
    prompts = sorted({s.prompt_id for s in healthy})
    values = {id(s): of(s, 0, s.healthy) for s in healthy}
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        half = set(rng.permutation(prompts)[: len(prompts) // 2].tolist())
        table = np.sort(np.concatenate([values[id(s)] for s in healthy if s.prompt_id in half]))
        table = tables()["both"] if options.shipped else table
        judged = [p_of(table, values[id(s)]) for s in healthy if s.prompt_id not in half]
        every = np.concatenate(judged)
        found.append([*((every <= a).mean() / a for a in LEVELS), lag_1(judged)])
    mean = np.mean(found, axis=0)
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    sys.stdout.write(f"{len(healthy)} healthy generations, {sum(v.shape[0] for v in values.values())} blocks\n")
    for i, name in enumerate((*(f"P(p<={a})/{a}" for a in LEVELS), "lag 1")):
        sys.stdout.write(f"{name}: {mean[i]:.2f} (95 % of 200 splits: {low[i]:.2f} to {high[i]:.2f})\n")
    table = tables()["both"] if options.shipped else np.sort(np.concatenate(list(values.values())))
    for kind in ("temperature", "severe", "mild", "loop", "shift"):
        hit = [p_of(table, of(s, s.onset, min(s.steps, s.onset + 64))) for s in sequences if s.kind == kind]
        if hit:
            sys.stdout.write(
                f"{kind}: {np.mean(np.concatenate(hit) <= 0.05):.2f} of the blocks within 64 tokens have p <= .05\n"
            )


if __name__ == "__main__":
    main()
