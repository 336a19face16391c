"""Every rule against published levels and decisions, also with decisions that arrive late."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tcd.risk_av import Controller, ControllerParams, EpochRule, Terms, guarantee
from tcd.risk_av.gamma import gamma_lord, gamma_saffron
from tcd.risk_av.investing import ADDIS, LORD, SAFFRON, Investing, InvestingRule
from tcd.risk_av.params import RULES, RuleName

REL = 1e-9
CAL = "sha256:" + "ab" * 32
W0_HALF = InvestingRule(gamma_lord, 0.5)
L01 = InvestingRule(gamma_saffron, 0.5, lam=0.1)
#: Vector name -> rule of the catalogue, or constants that the catalogue does not have.
NAMES: dict[str, RuleName | InvestingRule] = {
    "lordpp": "lord",
    "lordpp_w0half": W0_HALF,
    "lord_async": "lord",
    "saffron": "saffron",
    "saffron_l01": L01,
    "saffron_async": "saffron",
    "addis": "addis",
    "alpha_spending": "alpha_spending",
    "fs_alpha_investing": "foster_stine",
    "e_lond_kappa.5": "e_lond",
}


def run(make: Callable[[], EpochRule], stream: dict[str, Any], *, late: bool) -> tuple[list[float], list[bool]]:
    """Levels and decisions of a rule; decision j is known to test t iff E_j <= t - 1 (late) or j < t."""
    rule = make()
    levels: list[float] = []
    waiting: list[int] = []
    for t in range(1, len(stream["p"]) + 1):
        for j in [j for j in waiting if not late or stream["E"][j - 1] <= t - 1]:
            waiting.remove(j)
            p = stream["p"][j - 1]
            if p <= levels[j - 1]:
                rule.rejected(j)
            rule.closed(j, p)
        levels.append(rule.reserve().alpha)
        waiting.append(t)
    return levels, [p <= level for p, level in zip(stream["p"], levels, strict=True)]


def terms(alpha: float, rule: RuleName) -> Terms:
    return Terms.of(ControllerParams(alpha=alpha, rule=rule, schedule=("uniform", 1_000_000)))


def maker(alpha: float, rule: RuleName | InvestingRule) -> Callable[[], EpochRule]:
    from tcd.risk_av.catalogue import open_rule  # noqa: PLC0415

    if isinstance(rule, InvestingRule):
        return lambda: Investing(terms(alpha, "lord"), rule)
    return lambda: open_rule(terms(alpha, rule))


def check(stream: dict[str, Any], name: str) -> None:
    expected = stream["results"][name]
    levels, rejects = run(maker(stream["alpha"], NAMES[name]), stream, late=name.endswith("_async"))
    if name.startswith("e_lond"):
        levels = [2.0 * math.sqrt(level) for level in levels]
    assert rejects == [bool(r) for r in expected["reject"]], name
    for got, want in zip(levels, expected["alpha_t"], strict=True):
        assert math.isclose(got, want, rel_tol=REL, abs_tol=1e-300), name


def test_all_rules_on_all_shared_streams(shared: Path) -> None:
    streams = json.loads((shared / "vectors" / "statistics" / "online_fdr.json").read_text())["streams"]
    ran = 0
    for stream in streams.values():
        for name in NAMES:
            check(stream, name)
            ran += 1
    assert ran == len(NAMES) * len(streams) == 80


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_on_the_committed_streams(name: str) -> None:
    path = Path(__file__).resolve().parents[2] / "vectors" / "statistics" / "rules.json"
    for stream in json.loads(path.read_text())["streams"].values():
        check(stream, name)


@pytest.mark.parametrize(("rule", "gamma"), [(LORD, gamma_lord), (SAFFRON, gamma_saffron), (ADDIS, gamma_saffron)])
def test_the_discounts_are_the_published_formulas_and_no_budget_is_made(rule: InvestingRule, gamma: Any) -> None:
    assert rule.gamma is gamma
    for j in (1, 2, 3, 10, 1000, 10**6):
        published = (
            0.07720838 * math.log(max(j, 2)) / (j * math.exp(math.sqrt(math.log(j))))
            if gamma is gamma_lord
            else 0.4374901658 / j**1.6
        )
        assert math.isclose(gamma(j), published, rel_tol=1e-12)
    assert sum(gamma(j) for j in range(1, 5_000)) < 1.0


@pytest.mark.parametrize("rule", RULES)
def test_a_controller_runs_every_rule_and_replays_bit_for_bit(rule: RuleName) -> None:
    params = ControllerParams(rule=rule, schedule=("uniform", 40), credit_cap=3)
    controller = Controller(params)
    for i in range(100):
        alpha = controller.reserve(stream="s", hypothesis=str(i), user="u").alpha
        p = 0.0 if i % 7 == 3 else (i * 37 % 100) / 100.0
        controller.settle(stream="s", hypothesis=str(i), p=p, trigger=p <= alpha)
        if i % 3:
            controller.close(stream="s", hypothesis=str(i), reason="end")
    view = controller.state("s")
    assert view.epoch == 3
    assert view.budget_remaining >= 0.0
    assert Controller.replay(controller.take_events(), params).digest() == controller.digest()


@pytest.mark.parametrize("rule", RULES)
def test_a_smaller_alpha_counts_at_once_and_the_claim_is_never_under_what_was_spent_for(rule: RuleName) -> None:
    old = ControllerParams(rule=rule, schedule=("uniform", 40))
    controller = Controller(old)
    for i in range(10):
        controller.reserve(stream="s", hypothesis=str(i))
    before = controller.state("s").next_alpha
    controller.configure(ControllerParams(alpha=0.01, rule=rule, schedule=("uniform", 40)))
    view = controller.state("s")
    if rule in {"e_lond", "alpha_spending"}:
        assert view.spent + view.budget_remaining == pytest.approx(0.01)
    else:
        assert view.next_alpha < before
    assert view.claim_level >= 0.01
    if rule in {"lord", "saffron", "addis", "foster_stine"}:
        assert view.claim_level == old.alpha


def test_each_rule_claims_what_its_theorem_gives_and_no_more() -> None:
    make: Any = {"alpha": 0.05, "unit": "session", "epoch": 3, "calibration": CAL}
    tail = f"|unit=session|epoch=3|calibration={CAL}"
    prds = {rule: guarantee(**make, mode="prds", rule=rule) for rule in RULES}
    assert prds == {
        "rai": f"supfdr<=0.05{tail}|prds|marginal",
        "lord": f"target=0.05{tail}|rule=lord|empirical|dependent p-values",
        "e_lond": f"fdr<=0.05{tail}|rule=e_lond|any dependence|marginal",
        "alpha_spending": f"fwer<=0.05{tail}|rule=alpha_spending|marginal",
        "foster_stine": f"target=0.05{tail}|rule=foster_stine|empirical|dependent p-values",
        "saffron": f"target=0.05{tail}|rule=saffron|empirical|independent p-values only",
        "addis": f"target=0.05{tail}|rule=addis|empirical|independent p-values only",
    }
    csu = {rule: guarantee(**make, mode="csu", confidence=0.99, rule=rule) for rule in RULES}
    assert csu["lord"] == f"mfdr<=0.05{tail}|rule=lord|csu|confidence=0.99"
    assert csu["saffron"] == prds["saffron"]
    assert all(not text.startswith(("fdr", "supfdr")) for rule, text in csu.items() if rule not in {"rai", "e_lond"})
