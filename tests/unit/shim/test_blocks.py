"""Unit block: evidence accumulates over blocks of eight tokens and meets e-LOND's level when the session closes."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar_api.blocks import Blocks
from tcd.errors import ConfigError
from tcd.risk_av import START, Controller, advance, e_value, mixture, p_equivalent
from tcd.risk_av.exact import scaled, to_float


def test_blocks_are_counted_by_tokens_and_mixed_in_order() -> None:
    blocks = Blocks()
    for tokens, p in ((3, 0.9), (8, 0.1), (9, 0.0), (15, 0.0), (16, 0.2), (40, 0.3)):
        blocks = blocks.step(tokens, p)
    state = START
    for p in (0.1, 0.2, 0.3):
        state = advance(state, p)
    assert blocks.state == state
    assert e_value(blocks.p) == pytest.approx(to_float(mixture(state)))


def test_p_equivalent_inverts_the_calibrator() -> None:
    for p in (1e-300, 1e-6, 0.03, 1.0):
        assert p_equivalent(scaled(e_value(p))) == pytest.approx(p, rel=1e-12)
    assert p_equivalent(scaled(0.2)) == 1.0


async def generation(client: Any, session: str, blocks: int, **members: Any) -> Any:
    answer = None
    for step in range(blocks):
        values = {"trace_vector": [-1.0] * 8, "session": session, "step_id": step, **members}
        answer = await client.step(**values)
        assert not answer["trigger"]
    return answer


async def test_a_session_of_bad_blocks_triggers_at_its_close_and_not_before(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(1.0, changes={"p_step": (0.004, 1.0)})
    client = make_client(scorer, unit="block", rule="e_lond", receipts_enable=False)
    answer = await generation(client, "bad", 12)
    assert answer["guarantee"].startswith("fdr<=0.05|unit=block|")
    assert "|rule=e_lond|model_based" in answer["guarantee"]
    assert answer["unit"] == "block"
    assert answer["p_value"] < answer["alpha_alloc"]
    assert all(not row.controller for row in scorer.rows)
    service = client.app.runtime.service
    view = service.budget.view(service.subjects.tenant("tenant0"))
    assert (view.rejections, view.folded) == (0, 0)
    service.end(next(iter(service.sessions)), "end")
    view = service.budget.view(service.subjects.tenant("tenant0"))
    assert (view.rejections, view.folded) == (1, 1)
    assert view.snapshot.x == answer["p_value"]


async def test_one_bad_block_or_a_benign_session_does_not(make_client: Any, kit: Any) -> None:
    client = make_client(
        kit.ScriptedScorer(1.0, changes={"p_step": (0.4, 1.0)}), unit="block", rule="e_lond", receipts_enable=False
    )
    await generation(client, "fine", 12)
    service = client.app.runtime.service
    service.end(next(iter(service.sessions)), "idle")
    view = service.budget.view(service.subjects.tenant("tenant0"))
    assert (view.rejections, view.folded) == (0, 1)
    # a generation under the same name begins without the evidence of the last one
    await generation(client, "fine", 1)
    assert next(iter(service.sessions)).blocks.seen == 1


async def test_blocks_have_receipts_and_replay(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(1.0, changes={"p_step": (0.01, 1.0)}), unit="block", rule="e_lond")
    answer = await generation(client, "s", 3)
    assert answer["receipt"]
    service = client.app.runtime.service
    service.end(next(iter(service.sessions)), "end")
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
