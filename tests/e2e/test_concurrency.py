"""64 clients, mixed subjects, 20,000 requests through a real shim and a real Triton.

No update of a budget is lost, no session sees another one's data, and every receipt verifies.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import SUP_START, detector_key, temperature_bucket
from tcd.receipts import Anchor, KeySet, PinnedKey, SigningKey, VerifyPolicy, verify_chain
from tcd.rows import F32, ScoreResult, ScoreRow
from tcd.scoring import LibraryScorer
from tests.e2e.client import Connection
from tests.e2e.stack import serving
from tests.e2e.synthetic import write_synthetic

pytestmark = pytest.mark.triton

TENANTS, SESSIONS, STEPS, CLIENTS = 10, 50, 40, 64
SEED_HEX = "42" * 32
ALPHA = 0.05


@dataclass
class Generation:
    """One session: its data, what was answered."""

    tenant: int
    number: int
    trace: F32
    entropy: F32
    features: F32
    spectrum: F32
    answers: list[dict[str, Any]] = field(default_factory=list)

    def body(self, step: int) -> dict[str, Any]:
        return {
            "tenant": f"tenant{self.tenant}",
            "user": f"user{self.number % 7}",
            "session": f"s{self.number}",
            "model_id": "smollm2-135m",
            "step_id": step,
            "trace_vector": [float(self.trace[step])],
            "entropy": float(self.entropy[step]),
            "spectrum": self.spectrum[step].tolist(),
            "features": self.features[step].tolist(),
            "tokens_delta": 1,
            "context": {"temperature": 0.8, "top_p": 0.9, "max_tokens": 99},
        }

    def row(self, step: int, alpha: float, sup: tuple[float, float]) -> ScoreRow:
        key = detector_key("smollm2-135m", "gpu0", "chat", "en", temperature_bucket(0.8))
        return ScoreRow(
            trace=self.trace[: step + 1],
            entropy=self.entropy[: step + 1],
            spectrum=self.spectrum[step],
            features=self.features[: step + 1],
            key=key,
            alpha=alpha,
            sup=sup,
            base=(0.8, 0.9, 99.0, 0.0),
            controller=True,
        )


def generations(*, seed: int, tenants: int, bad: float) -> list[Generation]:
    """Independent sessions, a share `bad` of them far more surprising than the others."""
    rng = np.random.default_rng(seed)

    def make(tenant: int, number: int) -> Generation:
        surprise = rng.gamma(1.5, rng.uniform(0.5, 2.5), STEPS) * (8.0 if rng.random() < bad else 1.0)
        return Generation(
            tenant,
            number,
            (-surprise).astype(np.float32),
            rng.gamma(2.0, 1.2, STEPS).astype(np.float32),
            rng.normal(0, 40, (STEPS, 16)).astype(np.float32),
            np.abs(rng.normal(60, 20, (STEPS, 16))).astype(np.float32),
        )

    return [make(tenant, number) for tenant in range(tenants) for number in range(SESSIONS)]


async def drive(host: str, port: int, todo: deque[tuple[Generation, int]]) -> list[int]:
    """Each client takes the session that waited longest and does its next step; returns the unexpected statuses."""
    wrong: list[int] = []

    async def client() -> None:
        async with Connection(host, port) as connection:
            while todo:
                generation, step = todo.popleft()
                status, _, answer = await connection.request("POST", "/diagnose", generation.body(step))
                if status != 200:
                    wrong.append(status)
                    continue
                generation.answers.append(answer)
                if step + 1 < STEPS:
                    todo.append((generation, step + 1))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return wrong


def check_budgets(made: list[Generation], length: int) -> None:
    cost = ALPHA / length
    for tenant in range(TENANTS):
        mine = [g for g in made if g.tenant == tenant]
        places = {(a["components"]["av"]["epoch"], a["components"]["av"]["index"]) for g in mine for a in g.answers}
        epochs = SESSIONS // length
        expected = {(epoch + 1, index + 1) for epoch in range(epochs) for index in range(length)}
        assert places == expected, f"tenant{tenant}"
        for generation in mine:
            own = {(a["alpha_alloc"], a["components"]["av"]["index"], a["epoch"]) for a in generation.answers}
            assert len(own) == 1, "a session has one reservation"
            level = generation.answers[0]["alpha_alloc"]
            known = round(level / cost) - 1
            assert level == cost * (known + 1)
            assert 0 <= known <= sum(a["trigger"] for a in (g.answers[-1] for g in mine))


def score(made: list[Generation], assets: AssetSet, levels: list[float]) -> Iterator[list[ScoreResult]]:
    """Results of the library for all sessions, step by step."""
    scorer = LibraryScorer(assets)
    sup = [(SUP_START, SUP_START)] * len(made)
    for step in range(STEPS):
        rows = [g.row(step, level, s) for g, level, s in zip(made, levels, sup, strict=True)]
        results = [r for i in range(0, len(rows), 128) for r in scorer.score_rows(rows[i : i + 128])]
        yield results
        sup = [r.sup for r in results]


def calibrate(directory: Path) -> None:
    """A calibration of 600 healthy sessions of the same kind: epochs of five at the default weight."""
    healthy = generations(seed=8, tenants=600 // SESSIONS, bad=0.0)
    *_, last = score(healthy, load_assets(default_asset_dir()), [0.0] * len(healthy))
    sup = np.array([r.sup for r in last])
    write_synthetic(directory, detector_maxima=sup[:, 0], multivariate_maxima=sup[:, 1])


def check_scores(made: list[Generation], assets: AssetSet) -> int:
    """Every answer is the library's for the session's own data, bit for bit; returns the triggers."""
    levels = [g.answers[0]["alpha_alloc"] for g in made]
    for step, results in enumerate(score(made, assets, levels)):
        for generation, result in zip(made, results, strict=True):
            answer = generation.answers[step]
            assert answer["step"] == step
            assert answer["score"] == result.score
            assert answer["p_value"] == result.p_value
            assert answer["components"]["multivariate"]["distance"] == result.mv[0]
            severities = [answer["components"][c]["severity"] for c in ("invertibility", "recurrence")]
            assert severities == [float(result.components[0, 0]), float(result.components[3, 0])]
    return sum(g.answers[-1]["trigger"] for g in made)


def check_receipts(made: list[Generation]) -> None:
    key = SigningKey.from_hex(SEED_HEX)
    policy = VerifyPolicy(keys=KeySet([PinnedKey(key.public, "receipt", "tcd.localhost")]))
    for generation in made:
        bodies = [a["receipt_body"].encode() for a in generation.answers]
        heads = [a["receipt"] for a in generation.answers]
        sigs = [a["receipt_sig"] for a in generation.answers]
        parsed = [json.loads(body) for body in bodies]
        opened = Anchor(0, parsed[0]["chain"]["prev"])
        report = verify_chain(bodies, heads=heads, policy=policy, sigs=sigs, start=opened)
        assert report.ok, report.to_json()
        for answer, body in zip(generation.answers, parsed, strict=True):
            assert body["tenant"] == f"tenant{generation.tenant}"
            assert body["decision"]["step"] == answer["step"]


async def test_64_clients_20000_requests(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    calibrate(assets)
    made = generations(seed=7, tenants=TENANTS, bad=0.1)
    todo = deque((made[i], 0) for i in np.random.default_rng(1).permutation(len(made)))
    with serving(tmp_path, "--assets", str(assets), env={"TCD_ATTEST_SK_HEX": SEED_HEX}) as stack:
        wrong = await drive(stack.host, stack.port, todo)
    assert wrong == []
    assert sum(len(g.answers) for g in made) == TENANTS * SESSIONS * STEPS
    guarantees = {g.answers[-1]["guarantee"] for g in made}
    assert all(text.startswith("supfdr<=0.05|unit=session|epoch=") for text in guarantees), guarantees
    check_budgets(made, length=5)
    triggers = check_scores(made, load_assets(assets))
    check_receipts(made)
    assert 0 < triggers < len(made)
