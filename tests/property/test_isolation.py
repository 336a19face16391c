"""256 sessions of 256 tenants at once: nobody's data, budget, alarm or receipt shows in anybody else's answer.

Rows of all of them meet in the micro-batcher. What each session must be told is worked out from its own data alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcd.contract import DIAGNOSE, Length, Model
from tcd.receipts import Anchor, KeySet, VerifyPolicy, verify_chain
from tcd.triton.batcher import MicroBatcher
from tcd.triton.wire import Tensors
from tests.unit.shim.conftest import Client
from tests.unit.surfaces.ways import app_of
from tests.unit.triton.conftest import answer as blank

SESSIONS = 256
#: A case takes seconds: nothing is shrunk.
QUIET: Any = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "report_multiple_bugs": False,
}
#: Members that must be what the session alone would be told, bit for bit.
ALONE = (
    *("p_value", "score", "trigger", "verdict", "alpha_alloc", "alpha_spent", "alpha_wealth", "budget_remaining"),
    *("e_value", "e_process", "alarm", "step", "epoch", "action", "cause", "guarantee", "components"),
)


def p_of(trace: NDArray[Any], entropy: NDArray[Any]) -> float:
    """A p-value that belongs to exactly these windows; a session whose first value is small has tiny ones."""
    digest = hashlib.sha256(trace.tobytes() + b"|" + entropy.tobytes()).digest()
    p = int.from_bytes(digest[:7], "big") / 2**56
    return p * 1e-6 if trace.size and trace[0] < -900 else 0.1 + 0.9 * p


class Ensemble:
    """An `InferenceClient` whose answer to a row is made of that row; batches come back in any order."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.sizes: list[int] = []

    async def infer(self, tensors: Tensors, *, model: Model | str = DIAGNOSE, timeout: float) -> Tensors:
        for _ in range(int(self._random.integers(4))):
            await asyncio.sleep(0)
        out, lengths = blank(tensors, model), tensors["LENGTHS"]
        self.sizes.append(len(lengths))
        for i, length in enumerate(lengths):
            trace = tensors["TRACE"][i, : length[Length.TRACE]]
            p = p_of(trace, tensors["ENTROPY"][i, : length[Length.ENTROPY]])
            trigger = bool(p <= tensors["ALPHA"][i, 0])
            out["P_VALUE"][i], out["SCORE"][i], out["P_STEP"][i] = p, 1.0 - p, (p, 1.0)
            out["SUP_OUT"][i] = tensors["SUP"][i]
            out["TRIGGER"][i] = out["VERDICT"][i] = trigger
            out["TIER"][i] = 2 * trigger
            out["ROUTE"][i] = (*tensors["BASE"][i, :3], 0.0)
            out["COMPONENTS"][i].reshape(-1, 3)[:, 1] = 1.0
            out["MV"][i, 3] = 1.0
        return out

    async def ready(self, *, timeout: float = 1.0) -> bool:
        return True

    async def close(self) -> None:
        return


@dataclass
class Session:
    """One tenant's one session, and what it was told."""

    number: int
    traces: list[list[float]]
    entropies: list[float]
    answers: list[dict[str, Any]] = field(default_factory=list)

    def body(self, step: int) -> dict[str, Any]:
        # names of which none is part of another: sameness anywhere is a leak
        mark = hashlib.sha256(f"{self.number}".encode()).hexdigest()[:12]
        return {
            "tenant": f"t{mark}",
            "user": f"u{mark}",
            "session": f"s{mark}",
            "step_id": step,
            "trace_vector": self.traces[step],
            "entropy": self.entropies[step],
            "tokens_delta": 1,
            "deadline_ms": 600_000.0,
        }


def sessions(seed: int) -> list[Session]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(SESSIONS):
        steps = int(rng.integers(1, 4))
        first = -1000.0 - number if rng.random() < 0.2 else -1.0 - number / 1000.0
        traces = [[first, *rng.normal(-1, 0.1, rng.integers(0, 3)).tolist()] for _ in range(steps)]
        made.append(Session(number, traces, rng.gamma(2.0, 1.0, steps).tolist()))
    return made


def client_of(ensemble: Ensemble) -> Client:
    return Client(app_of(MicroBatcher(ensemble), deadline_ms=600_000.0, deadline_max_ms=600_000.0))


async def play(client: Client, session: Session) -> None:
    for step in range(len(session.traces)):
        reply = await client.post(session.body(step))
        assert reply.status == 200, reply.body
        session.answers.append(reply.json())


def check_own_data(session: Session) -> None:
    smallest = 1.0
    for step, told in enumerate(session.answers):
        trace = np.array([v for values in session.traces[: step + 1] for v in values], np.float32)
        # the p-value of a generation never rises
        smallest = min(smallest, p_of(trace, np.array(session.entropies[: step + 1], np.float32)))
        assert told["p_value"] == smallest


def check_names(made: list[Session]) -> None:
    names = {session.number: session.body(0)["tenant"][1:] for session in made}
    for session in made:
        text = json.dumps(session.answers)
        found = {number for number, mark in names.items() if mark in text}
        assert found <= {session.number}


def check_receipts(made: list[Session], client: Client) -> None:
    receipts = client.app.runtime.service.judge.receipts
    assert receipts is not None
    policy = VerifyPolicy(KeySet([receipts.issuer.pinned()]))
    chains = set()
    for session in made:
        bodies = [told["receipt_body"].encode() for told in session.answers]
        first = json.loads(bodies[0])
        chains.add(first["chain"]["id"])
        report = verify_chain(
            bodies,
            heads=[told["receipt"] for told in session.answers],
            sigs=[told["receipt_sig"] for told in session.answers],
            policy=policy,
            start=Anchor(first["chain"]["seq"] - 1, first["chain"]["prev"]),
        )
        assert report.ok, report.to_json()
    assert len(chains) == len(made)


async def once(seed: int) -> None:
    ensemble = Ensemble(seed)
    client, made = client_of(ensemble), sessions(seed)
    await asyncio.gather(*(play(client, session) for session in made))
    assert max(ensemble.sizes) > 1, "rows of several tenants travelled together"
    for session in made:
        check_own_data(session)
    assert any(told["trigger"] for session in made for told in session.answers)
    check_names(made)
    check_receipts(made, client)
    # one after the other, in another order: whatever the others do, each is told the same
    alone, again = client_of(Ensemble(seed + 1)), sessions(seed)
    for index in np.random.default_rng(seed).permutation(SESSIONS):
        await play(alone, again[index])
    for session, other in zip(made, again, strict=True):
        for told, expected in zip(session.answers, other.answers, strict=True):
            for member in ALONE:
                assert told[member] == expected[member], (session.number, member)


@settings(max_examples=2, phases=[Phase.generate], **QUIET)
@given(st.integers(0, 2**32 - 1))
def test_256_sessions_at_once_are_256_sessions_alone(seed: int) -> None:
    asyncio.run(once(seed))


@pytest.mark.long
@settings(max_examples=100, phases=[Phase.generate], **QUIET)
@given(st.integers(0, 2**32 - 1))
def test_256_sessions_at_once_are_256_sessions_alone_long(seed: int) -> None:
    asyncio.run(once(seed))
