"""Unit block: evidence accumulates over blocks of eight tokens and meets e-LOND's level when the session closes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar_api.blocks import Blocks
from tcd.calibration.traces import load_traces
from tcd.detector.blocks import p_value, statistic, tables
from tcd.errors import ConfigError
from tcd.risk_av import START, Controller, advance, e_value, mixture, p_equivalent
from tcd.risk_av.exact import scaled, to_float


def windows(tokens: int, *, bad_from: int = 10_000) -> tuple[Any, Any]:
    """Windows of a generation whose blocks get worse and worse from a token on."""
    rng = np.random.default_rng(7)
    entropy = rng.exponential(2.0, tokens)
    entropy[bad_from:] += 3.0 + 0.4 * np.arange(max(tokens - bad_from, 0))
    return -entropy.astype(np.float32), entropy.astype(np.float32)


def test_blocks_are_counted_by_tokens_and_mixed_in_order() -> None:
    trace, entropy = windows(80, bad_from=40)
    blocks = Blocks()
    for tokens in (3, 8, 9, 33, 40, 41, 80):
        blocks = blocks.step(tokens, trace[:tokens], entropy[:tokens])
    state = START
    # the first block that has 24 tokens before it is the fourth; the last step brought five
    for end in range(32, 81, 8):
        found = statistic(trace[:end], entropy[:end], 0)
        assert found is not None
        state = advance(state, p_value(found, both=True))
    assert (blocks.state, blocks.seen) == (state, 10)
    assert e_value(blocks.p) == pytest.approx(to_float(mixture(state)))


def test_a_block_without_a_past_is_no_evidence() -> None:
    trace, entropy = windows(31)
    assert Blocks().step(31, trace, entropy) == Blocks(START, 3)
    assert statistic(trace, entropy, 0) is None
    assert statistic(np.full(64, -1.0, np.float32), np.zeros(0, np.float32), 0) == 0.0


def test_the_shipped_tables_are_fine_enough() -> None:
    for name in ("both", "trace"):
        table = tables()[name]
        assert table.shape[0] > 1000
        assert (np.diff(table) >= 0).all()
    assert p_value(1e9, both=True) < 0.001
    assert p_value(0.0, both=False) == 1.0


def test_neighbouring_blocks_of_recorded_text_are_nearly_independent() -> None:
    """Three held-out recordings; the whole measurement is `tests/benchmarks/bench_blocks.py`."""
    first, second = [], []
    for sequence in load_traces(Path(__file__).parents[2] / "data" / "traces_small").sequences:
        if sequence.kind != "healthy":
            continue
        end = sequence.healthy
        found = [statistic(sequence.trace[:end], sequence.entropy[:end], back) for back in range(end % 8, end - 31, 8)]
        p = [p_value(one, both=True) for one in found if one is not None]
        first += p[:-1]
        second += p[1:]
    assert len(first) > 100
    # N blocks: two standard errors of a correlation on either side
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15 + 2.0 / len(first) ** 0.5


def test_p_equivalent_inverts_the_calibrator() -> None:
    for p in (1e-300, 1e-6, 0.03, 1.0):
        assert p_equivalent(scaled(e_value(p))) == pytest.approx(p, rel=1e-12)
    assert p_equivalent(scaled(0.2)) == 1.0


async def generation(client: Any, session: str, blocks: int, *, bad_from: int = 10_000) -> Any:
    answer = None
    trace, _ = windows(8 * blocks, bad_from=bad_from)
    for step in range(blocks):
        part = trace[8 * step : 8 * step + 8].tolist()
        answer = await client.step(trace_vector=part, session=session, step_id=step)
        assert not answer["trigger"]
    return answer


async def test_a_session_of_bad_blocks_triggers_at_its_close_and_not_before(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(1.0)
    client = make_client(scorer, unit="block", rule="e_lond", receipts_enable=False)
    answer = await generation(client, "bad", 20, bad_from=64)
    assert answer["guarantee"].startswith("fdr<=0.05|unit=block|")
    assert "|rule=e_lond|model_based" in answer["guarantee"]
    assert answer["unit"] == "block"
    assert answer["p_value"] < answer["alpha_alloc"]
    assert all(not row.controller for row in scorer.rows)
    service = client.app.runtime.service
    view = service.budget.view(service.subjects.tenant("tenant0"))
    assert (view.rejections, view.folded) == (0, 0)
    service.lifecycle.end(next(iter(service.sessions)), "end")
    view = service.budget.view(service.subjects.tenant("tenant0"))
    assert (view.rejections, view.folded) == (1, 1)
    assert view.snapshot.x == answer["p_value"]


async def test_one_bad_block_or_a_benign_session_does_not(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(1.0), unit="block", rule="e_lond", receipts_enable=False)
    await generation(client, "fine", 12)
    service = client.app.runtime.service
    service.lifecycle.end(next(iter(service.sessions)), "idle")
    view = service.budget.view(service.subjects.tenant("tenant0"))
    assert (view.rejections, view.folded) == (0, 1)
    # a generation under the same name begins without the evidence of the last one
    await generation(client, "fine", 1)
    assert next(iter(service.sessions)).blocks == Blocks(START, 1)


async def test_blocks_have_receipts_and_replay(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(1.0), unit="block", rule="e_lond")
    answer = await generation(client, "s", 6)
    assert answer["receipt"]
    service = client.app.runtime.service
    service.lifecycle.end(next(iter(service.sessions)), "end")
    await service.judge.flush()
    ledger = service.judge._committer._ledger
    events = (await ledger.events(limit=1000)).events
    controller = service.budget.controller
    assert Controller.replay(events, controller.params).digest() == controller.digest()


def test_blocks_need_e_lond(kit: Any) -> None:
    with pytest.raises((ConfigError, ValueError), match="e-LOND"):
        kit.settings_of(unit="block")
    with pytest.raises((ConfigError, ValueError), match="rai"):
        kit.settings_of(unit="request", rule="e_lond")
