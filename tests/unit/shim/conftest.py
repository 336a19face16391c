"""A driver that speaks ASGI to the shim in process, scorers that say what a test wants, assets of any size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.http.surface import ShimApp
from sidecar_api.pins import FixedAssets
from tcd.calibration.assets import (
    AssetSet,
    Binding,
    DetectorAsset,
    Head,
    MaskCalibration,
    MultivariateAsset,
    Provenance,
)
from tcd.config import Settings
from tcd.contract import COMPONENTS, detector_key
from tcd.rows import ScoreResult, ScoreRow

SEED_HEX = "11" * 32
#: Milliseconds that a step may take, and wait for its session, on a machine that is busy with something else. So long
#: because after a pause, many at once seem to be decided so slowly that more are refused: by half of the deadline.
PATIENT = {"deadline_ms": 600_000.0, "deadline_max_ms": 600_000.0, "session_wait_ms": 60_000.0}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Requests to an app, without HTTP in between."""

    app: ShimApp
    peer: tuple[str, int] | None = ("127.0.0.1", 50000)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | list[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Reply:
        chunks = list(body) if isinstance(body, list) else [body]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not chunks:
                await asyncio.Event().wait()
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
            "client": self.peer,
            "server": ("test", 80),
        }
        await self.app(scope, receive, send)
        start = sent[0]
        names = [name.decode() for name, _ in start["headers"]]
        assert len(names) == len(set(names)), f"a header twice: {names}"
        found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))

    async def raw(self, body: bytes | list[bytes], path: str = "/diagnose", **headers: str) -> Reply:
        named = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return await self.call("POST", path, body, named)

    async def post(self, value: Any, path: str = "/diagnose", **headers: str) -> Reply:
        return await self.raw(json.dumps(value).encode(), path, **headers)

    async def step(self, **members: Any) -> Any:
        """A /diagnose that must be answered; its JSON."""
        reply = await self.post({"trace_vector": [-1.0], **members})
        assert reply.status == 200, reply.body
        return reply.json()

    async def get(self, path: str, query: str = "", **headers: str) -> Reply:
        return await self.call("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}, query=query)


def result_for(row: ScoreRow, p: float, **changes: Any) -> ScoreResult:
    """What an honest ensemble would answer to a row whose hypothesis has this p-value."""
    trigger = row.controller and p <= row.alpha
    components = np.zeros((len(COMPONENTS), 3), np.float32)
    components[:, 1] = 1.0
    values: dict[str, Any] = {
        "score": 0.0,
        "p_step": (1.0, 1.0),
        "sup": row.sup,
        "components": components,
        "mv": (0.0, 0.0, 0.0, 1.0),
        "p_value": p,
        "trigger": trigger,
        "verdict": trigger,
        "tier": 2 if trigger else 0,
        "status": 0,
        "route": (row.base[0], row.base[1], row.base[2], 0.0),
        "assets": (0, 0, 0),
    }
    return ScoreResult(**{**values, **changes})


@dataclass
class ScriptedScorer:
    """Answers with injected p-values: `p` is a number or a function of the row."""

    p: float | Callable[[ScoreRow], float] = 1.0
    hops: int = 0
    before: Callable[[ScoreRow], Awaitable[None]] | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    rows: list[ScoreRow] = field(default_factory=list)
    seed: int = 7

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        self.rows.append(row)
        if self.before is not None:
            await self.before(row)
        for _ in range(int(self._random.integers(self.hops + 1))):
            await asyncio.sleep(0)
        p = self.p(row) if callable(self.p) else self.p
        return result_for(row, p, **self.changes)


def provenance(n: int, *, demo: bool = False, horizon: int = 4096) -> Provenance:
    return Provenance("synthetic", n, n, horizon, "test", demo)


def synthetic_assets(
    # at the default weight .9 of the detector these carry epochs of ten at alpha = .05
    sessions: int = 1111,
    *,
    demo: bool = False,
    horizon: int = 4096,
    masks: tuple[int, ...] = (1, 3, 7, 15),
    features: int = 2,
    digest: str = "a",
    names: tuple[str, str, str, str] = ("model0", "gpu0", "chat", "en"),
) -> AssetSet:
    """A labelled synthetic calibration for one key (all temperature buckets) and the given masks."""
    table = np.linspace(0.0, 1.0, sessions)
    none = np.zeros(0)
    calibrations = {
        mask: MaskCalibration(mask, (Head(0.0, none, none),), table, table, (none,) * len(COMPONENTS), 1e-3)
        for mask in masks
    }
    detector = DetectorAsset(
        "sha256:" + digest * 64,
        provenance(sessions, demo=demo, horizon=horizon),
        (),
        none,
        none,
        features,
        calibrations,
    )
    monitor = MultivariateAsset(
        "sha256:" + "c" * 64,
        provenance(sessions, demo=demo, horizon=horizon),
        np.zeros(features),
        np.eye(features),
        0.0,
        1.0,
        0.0,
        table,
        table,
        1.0,
        0.01,
    )
    level = detector_key(*names, "default")[1]
    return AssetSet(
        manifest_digest="sha256:" + digest * 64,
        detectors={detector.digest: detector},
        multivariates={monitor.digest: monitor},
        bindings={level: Binding(level, 1, detector.digest, monitor.digest)},
    )


def settings_of(**changes: Any) -> Settings:
    """Settings without a rate limit or a deadline in the way."""
    values: dict[str, Any] = {"http_rate_cap": 1e9, "http_rate_refill": 1e9, "attest_sk_hex": SEED_HEX}
    # a stalled machine must not make a step a degraded one; tests of deadlines bring their own
    return Settings(**{**values, **PATIENT, **changes})


MakeClient = Callable[..., Client]


async def soon(condition: Callable[[], bool]) -> None:
    """Until it holds, or a minute has passed."""
    until = asyncio.get_running_loop().time() + 60.0
    while not condition():
        assert asyncio.get_running_loop().time() < until, "it never came"
        await asyncio.sleep(0)


def held(kit: Any) -> tuple[Any, asyncio.Event]:
    """A scorer that answers once the event is set."""
    going = asyncio.Event()

    async def before(_: Any) -> None:
        await going.wait()

    return kit.ScriptedScorer(0.9, before=before), going


@pytest.fixture
def make_client() -> MakeClient:
    def make(
        scorer: Any = None, *, assets: AssetSet | None = None, edges: Edges | None = None, **changes: Any
    ) -> Client:
        known = FixedAssets(assets if assets is not None else synthetic_assets())
        app = create_app(settings_of(**changes), scorer=scorer or ScriptedScorer(), assets=known, edges=edges)
        return Client(app)

    return make


@pytest.fixture
def kit() -> Any:
    """The helpers of this file for tests (tests are no package)."""

    class Kit:
        Client = Client
        ScriptedScorer = ScriptedScorer
        result_for = staticmethod(result_for)
        synthetic_assets = staticmethod(synthetic_assets)
        settings_of = staticmethod(settings_of)
        seed_hex = SEED_HEX

    return Kit
