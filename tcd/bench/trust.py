"""Propagation of trust on random graphs: time, rounds, distance to the fixed point, bounds; and over sizes.

Times are CPU of one thread. The baseline is the plain loop over the edges that the vectorised rounds replace.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.trust.graph import iterations, propagate

DAMPING: Final = 0.8
_F64 = NDArray[np.float64]
Edges = dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Row:
    """Graphs of one kind and size.

    Attributes:
        kind: random, hubs (preferential attachment) or chain.
        nodes, edges: of each (edges: of the last).
        graphs: how many.
        median_ms, worst_ms: of a propagation.
        residual: largest distance to the fixed point over all graphs and nodes.
        outside: nodes with a trust outside [0, own].
        loop_ms: of the plain loop on one of the graphs; None = not run.
    """

    kind: str
    nodes: int
    edges: int
    graphs: int
    median_ms: float
    worst_ms: float
    residual: float
    outside: int
    loop_ms: float | None


def graph(kind: str, nodes: int, rng: np.random.Generator) -> tuple[_F64, Edges]:
    """Own trust and weighted dependencies; five edges per node, one in a chain."""
    own = rng.random(nodes)
    if kind == "chain":
        return own, {(i, i + 1): 1.0 for i in range(nodes - 1)}
    count = 5 * nodes
    source = rng.integers(0, nodes, count)
    target = rng.integers(0, nodes, count) if kind == "random" else (nodes * rng.random(count) ** 3).astype(np.int64)
    weights = 1.0 - rng.random(count)
    pairs = zip(source.tolist(), target.tolist(), weights.tolist(), strict=True)
    return own, {(s, t): w for s, t, w in pairs if s != t}


def _loop(own: _F64, edges: Edges) -> list[float]:
    trust: list[float] = own.tolist()
    for _ in range(iterations(DAMPING)):
        before = list(trust)
        lower = own.tolist()
        for (source, target), weight in edges.items():
            lower[source] = min(lower[source], 1.0 - DAMPING * weight * (1.0 - before[target]))
        trust = lower
        if max(abs(a - b) for a, b in zip(trust, before, strict=True)) <= 1e-12:  # noqa: PLR2004
            break
    return trust


def _residual(own: _F64, edges: Edges, trust: _F64) -> float:
    bound = own.copy()
    for (source, target), weight in edges.items():
        bound[source] = min(bound[source], 1.0 - DAMPING * weight * (1.0 - trust[target]))
    return float(np.abs(bound - trust).max())


def row(kind: str, nodes: int, *, graphs: int, seed: int, loop: bool) -> Row:
    """Measure graphs of one kind and size."""
    rng = np.random.default_rng(seed)
    times, residual, outside = [], 0.0, 0
    own, edges = graph(kind, nodes, rng)
    for _ in range(graphs):
        own, edges = graph(kind, nodes, rng)
        began = time.thread_time()
        trust = propagate(own, edges, damping=DAMPING)
        times.append(1e3 * (time.thread_time() - began))
        residual = max(residual, _residual(own, edges, trust))
        outside += int(((trust < 0) | (trust > own)).sum())
    began = time.thread_time()
    if loop:
        _loop(own, edges)
    spent = 1e3 * (time.thread_time() - began) if loop else None
    return Row(kind, nodes, len(edges), graphs, float(np.median(times)), max(times), residual, outside, spent)


def run(*, small: bool = False, seed: int = 20261126) -> dict[str, Any]:
    """All of it."""
    graphs = 3 if small else 50
    kinds = ("random", "hubs", "chain")
    rows = [row(kind, 10_000, graphs=graphs, seed=seed + i, loop=not small) for i, kind in enumerate(kinds)]
    sizes = (1_000,) if small else (1_000, 100_000)
    rows += [row("random", nodes, graphs=max(3, graphs // 10), seed=seed, loop=False) for nodes in sizes]
    return {"damping": DAMPING, "bound_rounds": iterations(DAMPING), "seed": seed, "rows": [asdict(r) for r in rows]}


def markdown(found: dict[str, Any]) -> str:
    """The report."""
    terms = f"damping {found['damping']}, at most {found['bound_rounds']} rounds, seed {found['seed']}"
    head = (
        "graph",
        "nodes",
        "edges",
        "graphs",
        "median ms",
        "worst ms",
        "plain loop ms",
        "to the fixed point",
        "out of bounds",
    )
    lines = [
        "# Propagation of trust",
        "",
        f"`tcd bench trust`: {terms}. CPU time of one thread, from edges in a dictionary to trust;",
        "the plain loop does the same rounds edge by edge. A trust is out of bounds when it is not in [0, own].",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for r in found["rows"]:
        loop = "" if r["loop_ms"] is None else f"{r['loop_ms']:.0f}"
        times = (f"{r['median_ms']:.1f}", f"{r['worst_ms']:.1f}", loop)
        cells = (r["kind"], r["nodes"], r["edges"], r["graphs"], *times, f"{r['residual']:.1e}", r["outside"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
