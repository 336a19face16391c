"""The rule is configured by name, decides the levels, and the answer claims what it may."""

from __future__ import annotations

from typing import Any

import pytest

from tcd.errors import ConfigError
from tcd.risk_av import RULES

HEADS = {
    "rai": "supfdr<=0.05|",
    "e_lond": "fdr<=0.05|",
    "alpha_spending": "fwer<=0.05|",
    "lord": "target=0.05|",
    "foster_stine": "target=0.05|",
    "saffron": "target=0.05|",
    "addis": "target=0.05|",
}


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_by_name(rule: str, make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.5), rule=rule)
    first = await client.step(session="a")
    again = await client.step(session="a")
    assert first["guarantee"].startswith(HEADS[rule])
    assert (f"|rule={rule}|" in first["guarantee"]) is (rule != "rai")
    assert 0.0 < first["alpha_alloc"] == again["alpha_alloc"] < 0.05
    assert first["alpha_spent"] == again["alpha_spent"] > 0.0
    assert not first["trigger"]


async def test_a_rejection_needs_the_level_of_the_rule(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(lambda row: row.alpha), rule="e_lond")
    first = await client.step(session="a")
    assert first["trigger"]
    # 1/e of the p-value at the level is the e-level alpha gamma_1
    assert 1.0 / first["e_value"] == pytest.approx(0.05 * 0.07720838 * 0.6931471805599453)


def test_the_omega_schedule_is_rais(kit: Any) -> None:
    with pytest.raises((ConfigError, ValueError), match="schedule omega belongs to rai"):
        kit.settings_of(rule="lord", schedule="omega", epoch_roll="manual")
