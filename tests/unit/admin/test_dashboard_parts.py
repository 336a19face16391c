"""Parts of the dashboard that are pure: plots, words of decisions, times; and that each word is there."""

from __future__ import annotations

import math
import random
import xml.etree.ElementTree as ET
from typing import Any, get_args

import pytest

from sidecar_api.admin.dashboard import explain, figures, meanings
from sidecar_api.admin.dashboard.forms import moment_us
from sidecar_api.admin.dashboard.plots import Bar, Level, Line, Plot, draw
from sidecar_api.admin.dashboard.rendering import moment
from sidecar_api.schemas import Action, Cause
from tcd.errors import ValidationFailed
from tcd.ledger.search_views import Count
from tcd.receipts.report import CHAIN, SINGLE
from tcd.svg import ticks
from tests.integration.admin.stage import HOSTILE

NAME = "{http://www.w3.org/2000/svg}"


def parsed(plot: Plot) -> ET.Element:
    """Well-formed, titled, and nothing that runs or fetches."""
    text = draw(plot, "p")
    assert "style=" not in text
    root = ET.fromstring(text)  # noqa: S314 - ours
    assert root.get("role") == "img"
    ids = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert [ids[name] for name in (root.get("aria-labelledby") or "").split()] == [plot.title, plot.about]
    assert {element.tag for element in root.iter()} <= {
        "svg", "title", "desc", "line", "text", "tspan", "rect", "polyline", "polygon", "circle"
    }  # fmt: skip
    return root


def test_hostile_words_are_text_in_a_plot() -> None:
    plot = Plot(
        title=HOSTILE, about=HOSTILE, x=HOSTILE, y=HOSTILE, x_range=(0, 1), y_range=(0, 1), x_ticks=[(0.5, HOSTILE)],
        bars=[Bar(0, 1, 0, 1, "bar", HOSTILE)], levels=[Level(0.5, HOSTILE), Level(0.5, HOSTILE, upright=True)],
        lines=[Line([(0, 0), (1, 1)], "ink", dots=True)], band=[(0, 0, 1), (1, 0, 1)],
    )  # fmt: skip
    assert [element.text for element in parsed(plot).iter("text")].count(HOSTILE) == 5


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_drawn_stays_in_the_frame(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - seeded

    def value() -> float:
        return rng.choice([0.0, -1.0, 1e-300, 1e300, rng.gauss(0, 1), 10 ** rng.uniform(-20, 20)])

    low, high = sorted((value(), value()))
    points = [(value(), value()) for _ in range(rng.randrange(5))]
    plot = Plot(
        title="t", about="a", x="x", y="y", x_range=(low, high), y_range=(low, high), log=seed % 2 == 0,
        lines=[Line(points, "ink", steps=True, dots=True)], bars=[Bar(low, high, low, value(), "bar plain")],
        levels=[Level(value(), "l")],
    )  # fmt: skip
    if not (high - low < 1e6 or seed % 2):
        # decades beyond any evidence are not asked for
        plot = Plot(title="t", about="a", x="x", y="y", x_range=(low, high), y_range=(low, high))
    for element in parsed(plot).iter("circle"):
        assert 0 <= float(element.get("cx") or "nan") <= plot.width
        assert 0 <= float(element.get("cy") or "nan") <= plot.height


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 7, whole=True) == [0, 2, 4, 6]
    assert ticks(0, 2.16, whole=True) == [0, 1, 2]
    assert ticks(3, 3) == [3]
    assert ticks(0, math.inf) == [0]


def test_every_check_of_a_verification_has_its_meaning() -> None:
    assert set(meanings.SINGLE) == set(SINGLE)
    assert set(meanings.CHAIN) == set(CHAIN)


def test_numbers_as_people_read_them() -> None:
    said = {0.005: "0.005", 7.0710678: "7.071", 15811.388: "15,811", 1e12: "1e+12", 0.0: "0", -2.5: "-2.5"}
    assert {value: explain.number(value) for value in said} == said
    assert [explain.number(v) for v in (math.nan, math.inf, -math.inf)] == ["unknown", "infinite", "minus infinite"]
    assert [explain.power(v) for v in (0.0, 2.0, 30.5)] == ["1", "100", "10^30.5"]
    assert explain.real("3f747ae147ae147b") == 0.005
    for none in ("", "zz" * 8, None, 3, "3f"):
        assert math.isnan(explain.real(none))


def test_an_e_value_is_above_what_it_takes_where_p_is_below_the_level() -> None:
    rng = random.Random(1)  # noqa: S311 - seeded
    for _ in range(1000):
        p, level = (10 ** rng.uniform(-12, 0) for _ in range(2))
        assert (explain.e_value(p) >= explain.e_value(level)) is (p <= level)
    assert explain.e_value(0.0) == math.inf


def test_the_band_holds_healthy_sessions_and_not_drifted_ones() -> None:
    """400 draws of 50 sessions each: at most 5 % of healthy ones leave the band; half as large p-values do."""
    rng = random.Random(4)  # noqa: S311 - seeded
    out = [0, 0]
    for drifted in (0, 1):
        for _ in range(400):
            p = [rng.random() ** (1 + 1.5 * drifted) for _ in range(50)]
            out[drifted] += "above the band" in figures.distribution(p, 0.001).about
    assert out[0] <= 20
    assert out[1] >= 300


def test_counts_become_bars_whose_sum_is_theirs() -> None:
    counts = [Count(0, "allow", "allow", "", False, 5), Count(0, "block", "block", "av", True, 2)]
    counts += [Count(59, "block", "allow", "av", True, 1)]
    span = {"since_us": 0, "until_us": 3_600_000_000, "bins": 60}
    every = figures.triggers(counts, only=frozenset(figures.ORDER), title="t", **span)
    assert sum(bar.high - bar.low for bar in every.bars) == 8
    assert [bar.style for bar in every.bars] == ["bar allow", "bar block", "bar allow"]
    some = figures.triggers(counts, only=frozenset({"block"}), title="t", **span)
    assert sum(bar.high - bar.low for bar in some.bars) == 2
    parsed(every)


@pytest.mark.parametrize("hours", [0.01, 1, 24, 24 * 7, 24 * 30, 24 * 400])
def test_moments_are_few_and_in_range(hours: float) -> None:
    since, until = 1_795_600_000_000_000, 1_795_600_000_000_000 + int(hours * 3.6e9)
    ticks = figures.moments(since, until)
    assert 1 <= len(ticks) <= 62
    assert all(since <= at <= until for at, _ in ticks)


def test_times_in_and_out() -> None:
    assert moment_us("2026-11-26T06:00", "since") == 1_795_672_800_000_000
    assert ">2026-11-26 06:00:00<" in moment(1_795_672_800_000_000)
    for text in ("", "now", "2026-13-01T00:00", "2026-11-26T06:00+01:00", "99999-01-01T00:00"):
        with pytest.raises(ValidationFailed):
            moment_us(text, "since")
    assert "unknown" in moment(-1)
    assert "unknown" in moment(2**63)


def step(**changes: Any) -> explain.Step:
    values: dict[str, Any] = {
        "head": "0" * 64, "chain": "sha256:" + "0" * 64, "seq": 3, "ts_us": 1, "step": 2, "action": "block",
        "enforced": "block", "cause": "av", "verdict": True, "trigger": True, "tags": (), "score": 0.5,
        "threshold": 0.999, "p": 1e-4, "level": 0.005, "p_floor": 1e-4, "e_process": 0.0, "e_threshold": 1.3,
        "alarm": False, "spent": 0.01, "wealth": 0.04, "epoch": 1, "exhausted": False, "unit": "session",
        "policy": "sha256:" + "0" * 64, "guarantee": "g", "tenant": "t", "subject": "s", "model": {}, "tier": "strict",
        "components": {"recurrence": (True, 0.9, 0.01, 3.0)}, "status": (), "risk": None,
    }  # fmt: skip
    return explain.Step(**{**values, **changes})


def test_every_cause_and_action_has_its_words() -> None:
    assert set(explain._CAUSES) == set(get_args(Cause))
    assert set(explain._ACTIONS) == set(get_args(Action)) == set(figures.ORDER)
    said = {explain.headline(step(cause=cause)) for cause in get_args(Cause)}
    assert len(said) == len(get_args(Cause))
    watched = explain.headline(step(enforced="allow"))
    assert "was allowed (it would have been blocked: the policy only watches)" in watched


def test_what_fired_comes_first_and_says_both_sides() -> None:
    found = explain.evidence(step())
    assert [one.met for one in found] == sorted((one.met for one in found), reverse=True)
    first = next(one for one in found if one.name == "anytime-valid test")
    assert (first.observed, first.needed) == ("p 0.0001 (e-value 50)", "p at most 0.005 (e-value at least 7.071)")
    assert {one.name for one in found if one.met} == {"anytime-valid test", "component recurrence"}


def test_a_level_that_no_calibration_reaches_is_said() -> None:
    (one,) = [e for e in explain.evidence(step(trigger=False, p=0.01, p_floor=0.01)) if e.name == "anytime-valid test"]
    assert "below the smallest p-value" in one.meaning
    (one,) = [e for e in explain.evidence(step(trigger=False, level=0.0)) if e.name == "anytime-valid test"]
    assert one.needed == "no level"


def test_rows_of_a_policy_are_named_and_what_it_saw_is_shown() -> None:
    risk = {"floor": True, "failed": False, "distrust": "3fe0000000000000", "pressure": "0000000000000000"}
    made = step(
        cause="policy", trigger=False, tags=("block", "policy", "eu", "rule:no-entropy", "rule:floor"), risk=risk
    )
    assert "a rule of the policy holds (no-entropy, floor)." in explain.headline(made)
    found = {one.name: one for one in explain.evidence(made)}
    assert (found["entropy floor"].met, found["trust"].observed, found["trust"].met) == (True, "distrust 0.5", False)
    assert {e.name: e.met for e in explain.evidence(step(cause="slo", risk=risk))}["latency"]
    # without a policy the settings have this one rule
    assert {e.name: e.met for e in explain.evidence(step(cause="policy"))}["entropy floor"]
    assert "entropy floor" not in {e.name for e in explain.evidence(step())}


def test_plots_of_a_session_are_drawn_whatever_it_was() -> None:
    odd = [step(step=n, p=p, level=level) for n, (p, level) in enumerate([(1.0, 0.0), (0.0, 1e-300), (1e-300, 1.0)])]
    for steps in ([], odd[:1], odd, [step(step=n) for n in range(400)]):
        parsed(figures.evidence(steps))
        parsed(figures.alarms(steps))
        parsed(figures.spending(steps, 0.05))
        parsed(figures.wealth(steps))
