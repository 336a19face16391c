"""The evaluation report: numbers that see a wrong calibration, a page that stands alone, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tcd.calibration import default_asset_dir, load_assets
from tcd.calibration.fit import shipped_weights
from tcd.calibration.heldout import SCHEMA, chance, evaluate, judge, ks_limit
from tcd.calibration.keyed import fit_keys, held_back, named
from tcd.calibration.options import FitOptions
from tcd.calibration.report import plain
from tcd.calibration.steps import steps_of
from tcd.calibration.traces import Key, Sequence, Traces
from tcd.cli.calibrate import app
from tcd.errors import AssetError
from tests.unit.calibration.made import sequence

HOT = Key("m", "gpu0", "chat", "en", "1.00")
COLD = Key("m", "gpu0", "chat", "en", "0.25")
SMALL = Path(__file__).parents[2] / "data" / "traces_small"


def blown_up(one: Sequence) -> Sequence:
    trace = one.trace.copy()
    trace[20:] *= 6
    return replace(one, trace=trace, kind="temperature", healthy=20, onset=20, complete=False)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("assets")
    rng = np.random.default_rng(0)
    log = [sequence(rng, f"hot-{i}", HOT, 3.0, weight=1.0 + i % 2) for i in range(90)]
    log += [sequence(rng, f"cold-{i}", COLD, 1.5) for i in range(90)]
    fit_keys(Traces(tuple(log), "made up"), out, options=FitOptions(weights=shipped_weights(), masks=(3,)))
    return out


class Reader(HTMLParser):
    """Checks that tags close in order; counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_a_right_calibration_is_told_from_one_of_another_key(fitted: Path) -> None:
    """120 new hot sessions under their own table, and the same ones under the name of the cold key."""
    rng = np.random.default_rng(7)
    new = [sequence(rng, f"new-{i}", HOT, 3.0) for i in range(120)]
    assets = load_assets(fitted)
    right, page = evaluate([steps_of(s) for s in new], assets, source="s")
    wrong, bad = evaluate([steps_of(replace(s, key=COLD)) for s in new], assets, source="s")
    assert right["schema"] == SCHEMA
    assert right["session"]["sessions"] == 120
    assert min(e["chance"] for e in right["session"]["p_at_most"].values()) > 0.01
    assert min(e["chance"] for e in wrong["session"]["p_at_most"].values()) < 0.001
    assert wrong["session"]["ks_one_sided"] > wrong["session"]["ks_limit"]
    assert wrong["p_values"]["healthy"]["0.1"][1] > 1.5
    assert 'class="good"' in page
    assert 'class="bad"' in bad
    assert "can be shown" in page


def test_the_weight_is_that_of_the_assets_own_policy(fitted: Path) -> None:
    assets = load_assets(fitted)
    steps = [steps_of(sequence(np.random.default_rng(1), f"{i}", HOT, 3.0)) for i in range(10)]
    policy = assets.routing[assets.policies[0]]
    halved = replace(assets, routing={policy.digest: replace(policy, weight=policy.weight / 2)})
    one, other = (judge(steps, each) for each in (assets, halved))
    for a, b in zip(one, other, strict=True):
        assert b.scored.hypothesis_p == pytest.approx(min(1.0, 2 * a.scored.session_p / policy.weight))
        assert a.scored.hypothesis_p <= b.scored.hypothesis_p


def test_every_key_says_what_answered_it_and_fall_backs_are_no_evidence(fitted: Path) -> None:
    rng = np.random.default_rng(8)
    other = Key("m", "gpu0", "chat", "en", "0.75")
    new = [sequence(rng, f"a{i}", HOT, 3.0) for i in range(20)] + [
        sequence(rng, f"b{i}", other, 9.0) for i in range(10)
    ]
    found, page = evaluate([steps_of(s) for s in new], load_assets(fitted), source="s")
    keys = {entry["key"]: entry for entry in found["keys"]}
    assert (keys["m/gpu0/chat/en/1.00"]["level"], keys["m/gpu0/chat/en/1.00"]["fallback"]) == (0, False)
    assert (keys["m/gpu0/chat/en/0.75"]["level"], keys["m/gpu0/chat/en/0.75"]["fallback"]) == (1, True)
    assert (found["sequences"], found["session"]["sessions"]) == (30, 20)
    assert all(entry["n"] == 20 for levels in found["forms"].values() for entry in levels.values())
    assert "key (fall-back)" in page


def test_forms_of_the_p_value_and_delays(fitted: Path) -> None:
    rng = np.random.default_rng(9)
    new = [sequence(rng, f"a{i}", HOT, 3.0, weight=1.0 + i % 2) for i in range(40)]
    conformal = [steps_of(sequence(rng, f"c{i}", HOT, 3.0, weight=1.0 + i % 2)) for i in range(40)]
    steps = [steps_of(s) for s in (*new, *(blown_up(s) for s in new[:15]))]
    found, page = evaluate(steps, load_assets(fitted), source="s", conformal=conformal)
    assert list(found["forms"]) == ["marginal", "conditional, delta 0.01", "smoothed", "weighted"]
    marginal, conditional = (found["forms"][name]["0.2"]["hits"] for name in ("marginal", "conditional, delta 0.01"))
    assert conditional <= marginal <= found["forms"]["smoothed"]["0.2"]["hits"]
    assert found["detection"]["temperature"]["n"] == 15
    assert "within 32 steps" in page
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_page_stands_alone_and_can_be_read_without_seeing_it(fitted: Path) -> None:
    rng = np.random.default_rng(10)
    new = [sequence(rng, f"a<b>{i}", HOT, 3.0) for i in range(20)]
    steps = [steps_of(s) for s in (*new, *(blown_up(s) for s in new[:5]))]
    _, page = evaluate(steps, load_assets(fitted), source="<i>s</i>")
    reader = read(page)
    assert "<i>s" not in page
    assert not reader.of("script")
    assert not reader.of("link")
    assert "http" not in page
    assert "url(" not in page
    assert reader.of("html")[0]["lang"] == "en"
    plots = [attrs for attrs in reader.of("svg") if attrs.get("role") == "img"]
    named = {attrs["id"] for tag in ("title", "desc") for attrs in reader.of(tag) if "id" in attrs}
    assert len(plots) == 3
    for attrs in plots:
        assert set(str(attrs["aria-labelledby"]).split()) <= named
    assert len(reader.of("caption")) == len(reader.of("table")) >= 4
    assert all(attrs.get("scope") in {"col", "row"} for attrs in reader.of("th"))
    assert len(reader.of("h1")) == 1


def test_the_chance_is_that_of_the_draw_of_set_and_sessions() -> None:
    """N = 20,000 sets of 99 with 50 new sessions each: P(at least h with p <= .1), within three standard errors."""
    rng = np.random.default_rng(3)
    draws, n, m = 20_000, 50, 99
    cut = np.sort(rng.uniform(size=(draws, m)), axis=1)[:, -10]
    hits = (rng.uniform(size=(draws, n)) > cut[:, None]).sum(axis=1)
    for at in (1, 5, 8, 12):
        expected = chance(at, n, 0.1, m)
        assert abs((hits >= at).mean() - expected) < 3 * np.sqrt(expected * (1 - expected) / draws)
    assert chance(0, 10, 0.01, 5) == 1.0
    assert chance(1, 10, 0.01, 5) == 0.0


def test_the_ks_limit_is_exceeded_once_in_twenty() -> None:
    """N = 4,000: conformal p-values of 60 sessions against a set of 80; the limit is asymptotic, so 1 % of slack."""
    rng = np.random.default_rng(4)
    limit, over = ks_limit(60, 80), 0
    for _ in range(4000):
        table, new = np.sort(rng.uniform(size=80)), rng.uniform(size=60)
        p = np.sort((81 - np.searchsorted(table, new)) / 81)
        over += bool((np.arange(1, 61) / 60 - p).max() > limit)
    assert 0.02 < over / 4000 < 0.06


def test_nothing_to_evaluate_and_keys_without_assets_are_refused(fitted: Path) -> None:
    assets = load_assets(fitted)
    with pytest.raises(AssetError, match="no sessions to evaluate on"):
        evaluate([], assets, source="s")
    one = sequence(np.random.default_rng(0), "a", HOT, 3.0)
    with pytest.raises(AssetError, match=r"no calibration for m/gpu0/chat/en/1\.00 with signal mask 1"):
        evaluate([steps_of(replace(one, entropy=np.zeros(0, np.float32)))], assets, source="s")
    with pytest.raises(AssetError, match="name their key"):
        evaluate([steps_of(replace(one, key=None))], assets, source="s")


def test_numbers_that_json_has_not_are_none() -> None:
    assert plain({"a": [float("nan"), 1.5, (float("inf"),)], "b": 2}) == {"a": [None, 1.5, [None]], "b": 2}


def test_held_back_prompts_are_the_same_at_every_fit() -> None:
    prompts = [f"p{i}" for i in range(40)]
    assert held_back(prompts, 0.25) == held_back(reversed(prompts), 0.25)
    assert len(held_back(prompts, 0.25)) == 10
    assert held_back(prompts, 0.0) == []
    assert named(prompts, "p3,p5", 0.0) == {"p3", "p5"}
    assert named(prompts, "p3", 0.25) == {"p3", *held_back(prompts, 0.25)}
    with pytest.raises(AssetError, match="no session has the prompt 'x'"):
        named(prompts, "p3,x", 0.0)


def rows_of(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    out = []
    for i in range(count):
        one = sequence(rng, f"s{i}", HOT, 3.0)
        numbers = {"log_prob": one.trace.tolist(), "entropy": one.entropy.tolist()}
        out.append({"session": f"s{i}", "model_id": "m", "temperature": 1.0, **numbers})
    return out


def test_recordings_are_evaluated_with_both_monitors(tmp_path: Path) -> None:
    """The shipped assets on recordings of their model: both monitors, labelled faults, marked as a demonstration."""
    page = tmp_path / "a.html"
    result = CliRunner().invoke(
        app, ["evaluate", "--data", str(SMALL), "--assets", str(default_asset_dir()), "--html", str(page)]
    )
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert numbers == json.loads(page.with_suffix(".json").read_text())
    assert numbers["demo"] is True
    assert [(entry["key"], entry["level"], entry["fallback"]) for entry in numbers["keys"]] == [
        ("smollm2-135m/gpu0/chat/en/default", 2, False)
    ]
    assert {"loop", "soft", "temperature", "shift", "severe", "mild"} <= set(numbers["detection"])
    assert "no guarantee follows" in page.read_text()
    assert read(page.read_text()).of("svg")


def test_the_command_evaluates_what_it_holds_back_and_another_log(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(80)))
    arguments = ["fit", "--data", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "assets"), "--hold-back", "0.25"]
    result = CliRunner().invoke(app, [*arguments, "--html", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.output
    assert "held out, p at most 0.1: " in result.stdout
    read((tmp_path / "report.html").read_text())
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert (numbers["sequences"], numbers["prompts"]) == (20, 20)
    assets = load_assets(tmp_path / "assets")
    assert numbers["assets"] == assets.manifest_digest
    assert next(iter(assets.detectors.values())).provenance.notes == "20 prompts held out"
    result = CliRunner().invoke(
        app, ["evaluate", "--data", str(tmp_path / "a.jsonl"), "--assets", str(tmp_path / "assets")]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sequences"] == 80
