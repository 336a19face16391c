"""Nothing that the ensemble says is taken on trust."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

NAN, INF = float("nan"), float("inf")


def table(**cells: float) -> Any:
    out = np.zeros((4, 3), np.float32)
    out[:, 1] = 1.0
    for name, value in cells.items():
        out[int(name[1]), int(name[2])] = value
    return out


LIES: list[dict[str, Any]] = [
    {"p_value": NAN},
    {"p_value": -0.1},
    {"p_value": 1.1},
    {"score": NAN},
    {"score": 1.5},
    {"p_step": (0.5, INF)},
    {"sup": (NAN, 0.0)},
    {"sup": (-1e301, -1e300)},
    {"components": table(c02=NAN)},
    {"components": table(c00=1.5)},
    {"components": np.zeros((3, 3), np.float32)},
    {"mv": (INF, 0.0, 0.0, 1.0)},
    {"mv": (0.0, 0.0, 0.0, 2.0)},
    {"tier": 3},
    {"tier": -1},
    {"status": -1},
    {"status": 1 << 24},
    {"route": (NAN, 1.0, 0.0, 0.0)},
    {"route": (-1.0, 1.0, 0.0, 0.0)},
    {"route": (1.0, 1.0, 0.0, 0.5)},
    {"route": (1.0, 1.0, 0.0, 4.0)},
    {"trigger": True},
    {"verdict": True},
]


@pytest.mark.parametrize("lie", LIES, ids=[str(sorted(lie)) + str(i) for i, lie in enumerate(LIES)])
async def test_an_impossible_answer_degrades_and_settles_nothing(
    make_client: Any, kit: Any, lie: dict[str, Any]
) -> None:
    scorer = kit.ScriptedScorer(0.5)
    client = make_client(scorer)
    scorer.changes = lie
    bad = await client.step(step_id=0)
    assert (bad["cause"], bad["action"], bad["p_value"]) == ("degraded", "block", 1.0)
    assert bad["guarantee"].startswith("none (")
    scorer.changes = {}
    good = await client.step(step_id=0)
    assert (good["cause"], good["p_value"]) == ("", 0.5)
    assert (good["epoch"], good["components"]["av"]["index"]) == (1, 1)
    assert scorer.rows[-1].trace.tolist() == [-1.0]


async def test_a_trigger_that_is_not_announced_is_a_lie_too(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(1e-9, changes={"trigger": False, "verdict": False, "tier": 0})
    answer = await make_client(scorer).step()
    assert (answer["cause"], answer["trigger"]) == ("degraded", False)


async def test_the_comparison_is_bit_exact(make_client: Any, kit: Any) -> None:
    at = kit.ScriptedScorer(lambda row: row.alpha)
    assert (await make_client(at).step())["trigger"] is True
    above = kit.ScriptedScorer(lambda row: float(np.nextafter(row.alpha, 1.0)))
    assert (await make_client(above).step())["trigger"] is False


async def test_a_failed_step_inside_the_ensemble_is_degraded(make_client: Any, kit: Any) -> None:
    for status in (128, 128 << 8, 128 << 16):
        answer = await make_client(kit.ScriptedScorer(1.0, changes={"status": status})).step()
        assert answer["cause"] == "degraded"
        assert "step_failed" in answer["guarantee"]


async def test_other_assets_than_the_pinned_ones_are_no_evidence(make_client: Any, kit: Any) -> None:
    answer = await make_client(kit.ScriptedScorer(1e-9, changes={"assets": (12345, 0, 0)})).step()
    assert (answer["cause"], answer["trigger"]) == ("degraded", False)


async def test_a_scorer_that_raises_anything_is_degraded_not_a_500(make_client: Any, kit: Any) -> None:
    async def boom(row: Any) -> None:
        raise ZeroDivisionError

    answer = await make_client(kit.ScriptedScorer(before=boom)).step()
    assert (answer["cause"], answer["action"]) == ("degraded", "block")
