"""The peer of `tcd bench shim`: the same work as one would first write it.

FastAPI with pydantic models in and out, one `tritonclient.grpc.aio` call, one Ed25519 signature and one SQLite commit
(`synchronous=FULL`) per request. It keeps windows and running maxima per session and spends a budget, but knows neither
reservations nor chains, strict limits, deadlines, idempotency or metrics: the work alone, no rival product.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from tcd.contract import DIAGNOSE, SUP_START, detector_key, temperature_bucket
from tcd.rows import ScoreRow, pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_WINDOW = 4096
_ROWS = 112
_LEVEL = 0.005
_DTYPES = {t.name: t.dtype for t in DIAGNOSE.inputs}
Number = int | float


class Request(BaseModel):
    """The request of `/diagnose`, as a pydantic model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    trace_vector: list[Number] = Field(default_factory=list, max_length=4096)
    entropy: Number | None = Field(None, ge=0)
    spectrum: list[Number] = Field(default_factory=list, max_length=4096)
    features: list[Number] = Field(default_factory=list, max_length=2048)
    window: Literal["step"] = "step"
    step_id: int | None = Field(None, ge=0)
    model_id: str = Field("model0", max_length=128)
    gpu_id: str = Field("gpu0", max_length=128)
    task: str = Field("chat", max_length=128)
    lang: str = Field("en", max_length=128)
    tenant: str = Field("tenant0", max_length=128)
    user: str = Field("user0", max_length=128)
    session: str = Field("sess0", max_length=128)
    context: dict[str, str | Number | bool | None] = Field(default_factory=dict, max_length=64)
    tokens_delta: int = 50
    drift_score: Number = 0.0


class Answer(BaseModel):
    """The members of the answer that its work decides."""

    verdict: bool
    score: float
    p_value: float
    trigger: bool
    budget_remaining: float
    alpha_alloc: float
    alpha_spent: float
    components: dict[str, list[float]]
    action: str
    route: list[float]
    request_id: str
    receipt: str
    receipt_body: str
    receipt_sig: str
    verify_key: str


@dataclass(slots=True)
class _Session:
    trace: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    features: list[list[float]] = field(default_factory=list)
    sup: tuple[float, float] = (SUP_START, SUP_START)
    prev: str = "0" * 64
    seq: int = 0


class Naive:
    """State and work of the naive shim."""

    def __init__(self, triton: str, database: str) -> None:
        """Score at `triton` (host:port of gRPC), store in the SQLite file `database`."""
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw().hex()
        self.sessions: dict[tuple[str, str, str], _Session] = {}
        self.spent: dict[str, float] = {}
        self.client = InferenceServerClient(triton)
        self.database = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("PRAGMA synchronous=FULL")
        self.database.execute("CREATE TABLE receipt (head TEXT PRIMARY KEY, body TEXT, sig TEXT) STRICT")
        self.database.execute("CREATE TABLE budget (tenant TEXT PRIMARY KEY, spent REAL) STRICT")
        self.lock = asyncio.Lock()

    def row(self, request: Request) -> tuple[_Session, ScoreRow]:
        """Append the step to its session's windows."""
        session = self.sessions.setdefault((request.tenant, request.user, request.session), _Session())
        session.trace = [*session.trace, *map(float, request.trace_vector)][-_WINDOW:]
        if request.entropy is not None:
            session.entropy = [*session.entropy, float(request.entropy)][-_WINDOW:]
        if request.features:
            session.features = [*session.features, [float(x) for x in request.features]][-_ROWS:]
        context = request.context
        base = tuple(float(context.get(n) or d) for n, d in (("temperature", 1.0), ("top_p", 1.0), ("max_tokens", 0.0)))
        features = np.array(session.features, np.float32) if session.features else np.zeros((0, 0), np.float32)
        key = detector_key(request.model_id, request.gpu_id, request.task, request.lang, temperature_bucket(base[0]))
        return session, ScoreRow(
            trace=np.array(session.trace, np.float32),
            entropy=np.array(session.entropy, np.float32),
            spectrum=np.array(request.spectrum, np.float32),
            features=features,
            key=key,
            alpha=_LEVEL,
            sup=session.sup,
            base=(base[0], base[1], base[2], float(request.drift_score)),
            controller=True,
        )

    async def infer(self, row: ScoreRow) -> dict[str, Any]:
        """One call of the ensemble for one row."""
        inputs = []
        for name, array in pack([row]).items():
            tensor = InferInput(name, list(array.shape), _DTYPES[name])
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        result = await self.client.infer(DIAGNOSE.name, inputs)
        return {t.name: result.as_numpy(t.name)[0].tolist() for t in DIAGNOSE.outputs}

    def store(self, tenant: str, head: str, body: str, sig: str) -> None:
        """One transaction: the receipt and the budget."""
        self.database.execute("BEGIN IMMEDIATE")
        self.database.execute("INSERT INTO receipt VALUES (?, ?, ?)", (head, body, sig))
        self.database.execute("INSERT OR REPLACE INTO budget VALUES (?, ?)", (tenant, self.spent[tenant]))
        self.database.execute("COMMIT")

    async def diagnose(self, request: Request) -> Answer:
        """The whole step."""
        session, row = self.row(request)
        self.spent[request.tenant] = self.spent.get(request.tenant, 0.0) + (0.0 if session.seq else _LEVEL)
        out = await self.infer(row)
        session.sup = tuple(out["SUP_OUT"])
        members = {
            "seq": session.seq,
            "prev": session.prev,
            "request": hashlib.sha256(request.model_dump_json().encode()).hexdigest(),
            "outputs": {name: out[name] for name in sorted(out)},
            "spent": self.spent[request.tenant],
        }
        body = json.dumps(members, sort_keys=True, separators=(",", ":"))
        head = hashlib.sha256(body.encode()).hexdigest()
        sig = self.key.sign(bytes.fromhex(head)).hex()
        session.prev, session.seq = head, session.seq + 1
        async with self.lock:
            await asyncio.to_thread(self.store, request.tenant, head, body, sig)
        return Answer(
            verdict=bool(out["VERDICT"][0]),
            score=out["SCORE"][0],
            p_value=out["P_VALUE"][0],
            trigger=bool(out["TRIGGER"][0]),
            budget_remaining=0.05 - self.spent[request.tenant],
            alpha_alloc=_LEVEL,
            alpha_spent=self.spent[request.tenant],
            components={str(i): row for i, row in enumerate(out["COMPONENTS"])},
            action=("allow", "degrade", "block")[min(2, out["TIER"][0])],
            route=out["ROUTE"],
            request_id=str(uuid.uuid4()),
            receipt=head,
            receipt_body=body,
            receipt_sig=sig,
            verify_key=self.public,
        )


def create_app(triton: str, database: str) -> FastAPI:
    """An app with the one route."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.naive = Naive(triton, database)
        yield
        await app.state.naive.client.close()
        app.state.naive.database.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/diagnose", response_model=Answer)
    async def diagnose(request: Request) -> Answer:
        naive: Naive = app.state.naive
        return await naive.diagnose(request)

    return app


def main() -> None:
    """`python -m tcd.bench.naive PORT TRITON_GRPC DATABASE`: serve on loopback."""
    port, triton, database = sys.argv[1:]
    uvicorn.run(create_app(triton, database), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
