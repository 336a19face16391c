"""`tcd bench ensemble`: the ensemble and `tcd_fused` beside models of the same shape that compute nothing.

All of a round is measured in one server one after the other, and ratios are made within a round: what a busy machine
does to one it does to its neighbour.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tcd import __version__
from tcd.bench.ensemble import growth, lengths, peers, starts
from tcd.contract import FUSED
from tcd.triton.launcher import DEFAULT_REPOSITORY, LaunchOptions, TritonServer
from tcd.triton.noop import NOOP_FUSED, NOOP_MODELS, write_repository
from tcd.triton.perf import MEASURED, Target
from tcd.triton.perf_tool import PerfAnalyzer, find


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run.

    Attributes:
        rounds: of all peers, one after the other.
        batches: client batches of the peers.
        interval_ms: of perf_analyzer, which takes three for a point.
        latencies: requests whose latency is taken, for each peer and batch.
        starts: of the server, with and without auto-complete.
        windows, sizes, features: of the growth plots.
    """

    rounds: int = 5
    batches: tuple[int, ...] = (1, 32, 128)
    interval_ms: int = 700
    latencies: int = 4000
    starts: int = 3
    windows: tuple[int, ...] = growth.WINDOWS
    sizes: tuple[int, ...] = growth.SIZES
    features: tuple[int, ...] = growth.FEATURES

    @classmethod
    def small(cls) -> Scale:
        """Under a minute, as CI runs it."""
        return cls(
            rounds=1,
            batches=(1, 32, 128),
            interval_ms=150,
            latencies=100,
            starts=1,
            windows=(16, 256),
            sizes=(1, 32),
            features=(4, 64),
        )


@contextmanager
def server() -> Iterator[Target]:
    """A server of its own with the ensemble, the fused model, their no-ops and assets for every width of features.

    Raises:
        LauncherError: it does not start.
    """
    with ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcd-bench-"))) for _ in range(2)]
        write_repository(places[0])
        growth.write_assets(places[1])
        noops = (*(model.name for model in NOOP_MODELS), NOOP_FUSED.name)
        options = LaunchOptions(
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            models=(*MEASURED, FUSED.name, *noops),
            repositories=(DEFAULT_REPOSITORY, places[0]),
            assets=places[1],
            restrict_admin=False,
        )
        made = stack.enter_context(TritonServer(options))
        yield Target(made.http_url.removeprefix("http://"), made.grpc_url, made.pid)


def run(
    scale: Scale, *, tool: PerfAnalyzer | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure everything.

    Args:
        scale: how much.
        tool: the load generator, by default the one that is found or fetched.
        say: told what is measured next.

    Raises:
        LauncherError: the server or perf_analyzer failed.
    """
    tool = tool or find()
    before = os.getloadavg()[0]
    found: dict[str, Any] = {"version": __version__, "machine": _machine(), "scale": asdict(scale)}
    with server() as target:
        load = peers.Load(tool, target, scale.interval_ms)
        say("peers")
        found["peers"] = peers.measure(load, batches=scale.batches, rounds=scale.rounds)
        say("latencies")
        found["latency"] = peers.latencies(target, batches=scale.batches[:2], requests=scale.latencies)
        say("lengths")
        found["lengths"] = lengths.measure(load, rounds=scale.rounds)
        say("growth")
        found["growth"] = growth.measure(load, windows=scale.windows, sizes=scale.sizes, features=scale.features)
    say("starts")
    found["starts"] = starts.measure(scale.starts)
    found["load"] = [round(before, 2), round(os.getloadavg()[0], 2)]
    return found


def _machine() -> str:
    return f"{os.cpu_count()} cores of {platform.machine()}, {platform.system()} {platform.release().split('-')[0]}"
