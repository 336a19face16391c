"""Experiment 1 behind the real shim: ASGI app, idempotency, sessions, reserve, settle, commit; injected p-values."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tcd.bench.controller.null import target
from tcd.bench.controller.rate import Rate
from tcd.calibration.assets import AssetSet, Binding, DetectorAsset, Head, MaskCalibration, Provenance
from tcd.config import Settings
from tcd.contract import COMPONENTS, detector_key
from tcd.rows import ScoreResult, ScoreRow

if TYPE_CHECKING:
    from sidecar_api.http.surface import ShimApp
    from tcd.ledger import Ledger

LENGTH = 10
_SESSIONS = 1111


class NullScorer:
    """An ensemble of the global null: per session one uniform p-value, a hash of the only value of its trace.

    Answers after a random number of turns of the loop, so that settlements come in any order.
    """

    def __init__(self, seed: int, hops: int = 4) -> None:
        """Draw from `seed`; wait up to `hops` turns."""
        self._seed = seed
        self._hops = hops
        self._rng = np.random.default_rng(seed)
        self.scored = 0

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:  # noqa: ARG002 - the port's
        """See `tcd.rows.Scorer`."""
        self.scored += 1
        for _ in range(int(self._rng.integers(self._hops + 1))):
            await asyncio.sleep(0)
        digest = hashlib.sha256(f"{self._seed}:{float(row.trace[0])!r}".encode()).digest()
        p = (int.from_bytes(digest[:8], "big") + 1) / 2.0**64
        trigger = row.controller and p <= row.alpha
        components = np.zeros((len(COMPONENTS), 3), np.float32)
        components[:, 1] = 1.0
        return ScoreResult(
            score=0.0,
            p_step=(1.0, 1.0),
            sup=row.sup,
            components=components,
            mv=(0.0, 0.0, 0.0, 1.0),
            p_value=p,
            trigger=trigger,
            verdict=trigger,
            tier=2 if trigger else 0,
            status=0,
            route=(row.base[0], row.base[1], row.base[2], 0.0),
            assets=(0, 0, 0),
        )


def synthetic_assets() -> AssetSet:
    """A labelled synthetic calibration that carries epochs of ten."""
    table = np.linspace(0.0, 1.0, _SESSIONS)
    none = np.zeros(0)
    mask = MaskCalibration(1, (Head(0.0, none, none),), table, table, (none,) * len(COMPONENTS), 1e-3)
    digest = "sha256:" + "5" * 64
    provenance = Provenance("synthetic", _SESSIONS, _SESSIONS, 4096, "bench", demo=False)
    detector = DetectorAsset(digest, provenance, (), none, none, 2, {1: mask})
    level = detector_key("model0", "gpu0", "chat", "en", "default")[1]
    return AssetSet(
        manifest_digest=digest,
        detectors={digest: detector},
        multivariates={},
        bindings={level: Binding(level, 1, digest, None)},
    )


def make_app(scorer: NullScorer, ledger: Ledger | None = None, **changes: Any) -> ShimApp:
    """The shim over `scorer`, without rate limits in the way; `ledger` None = in memory, `changes` are settings."""
    from sidecar_api.app import Edges, create_app
    from sidecar_api.pins import FixedAssets

    values: dict[str, Any] = {
        "http_rate_cap": 1e9,
        "http_rate_refill": 1e9,
        "edge_rate_cap": 1e9,
        "edge_rate_refill": 1e9,
        "attest_sk_hex": "11" * 32,
        "receipts_enable": False,
        "log_decisions": False,
        # a machine that is busy with something else degrades nothing
        **dict.fromkeys(("deadline_ms", "deadline_max_ms"), 600_000.0),
        "session_wait_ms": 60_000.0,
        "sessions_max": 2_000_000,
        "idempotency_entries": 2_000,
        "epoch_length": LENGTH,
        **changes,
    }
    edges = Edges(ledger=ledger)
    return create_app(Settings(**values), scorer=scorer, assets=FixedAssets(synthetic_assets()), edges=edges)


async def post(app: ShimApp, path: str, value: Any) -> Any:
    """One request without HTTP in between; its JSON."""
    body, sent = json.dumps(value).encode(), []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 50000),
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)
    return json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


async def run(epochs: int, concurrency: int, seed: int, retries: float = 0.1) -> tuple[int, int, int]:
    """Epochs with a trigger, epochs, and retries that got another answer (there must be none)."""
    app = make_app(NullScorer(seed))
    triggered: dict[int, bool] = defaultdict(bool)
    numbers = iter(range(epochs * LENGTH))
    rng = np.random.default_rng(seed)
    other = 0

    async def worker() -> None:
        nonlocal other
        for number in numbers:
            value = {
                "trace_vector": [-float(number)],
                "session": f"s{number}",
                "step_id": 0,
                "request_id": f"r{number}",
            }
            answer = await post(app, "/diagnose", value)
            triggered[answer["epoch"]] |= answer["trigger"]
            if rng.random() < retries:
                other += await post(app, "/diagnose", value) != answer

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return sum(triggered.values()), len(triggered), other


def experiment(epochs: int, concurrencies: tuple[int, ...]) -> list[Rate]:
    """The shim's part of experiment 1."""
    out = []
    for concurrency in concurrencies:
        hits, n, other = asyncio.run(run(epochs, concurrency, seed=100 + concurrency))
        label = f"shim, {concurrency} at once, 10 % of the requests twice"
        note = f"{other} retries got another answer"
        out.append(Rate.of_hits("null", label, hits, n, bound=target(LENGTH), check="contains", note=note))
    return out
