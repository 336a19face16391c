"""The plan is seeded and bounded, the batched decoder is the demo's, a recording resumes and is read as traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tcd.calibration.traces import load_traces
from tcd.cli import record as record_command
from tcd.demo.labels import verbatim_loop
from tcd.demo.llm import LanguageModel
from tcd.demo.recording.batch import Batch
from tcd.demo.recording.columns import draw
from tcd.demo.recording.corruption import parse
from tcd.demo.recording.generations import record_part
from tcd.demo.recording.plan import REGIMES, make_plan, own_prompts
from tcd.demo.recording.run import RecordError, record
from tcd.demo.scenarios import PROMPTS
from tcd.signals.projection import derived

OWN = own_prompts()


def test_a_plan_is_seeded_and_has_every_regime_on_new_prompts() -> None:
    ten = dict.fromkeys(REGIMES, 10)
    plan = make_plan(OWN, regimes=ten, batch=4)
    assert plan == make_plan(OWN, regimes=ten, batch=4)
    assert plan != make_plan(OWN, regimes=ten, batch=4, seed=1)
    # what a regime records does not depend on the others
    assert [p for p in plan if p.name.startswith("shift")] == make_plan(OWN, regimes={"shift": 10}, batch=4)
    jobs = [job for part in plan for job in part.jobs]
    assert {r: sum(j.regime == r for j in jobs) for r in REGIMES} == ten
    assert len({part.name for part in plan}) == len(plan)
    for part in plan:
        if part.jobs[0].corruption:
            assert len({(j.corruption, j.change) for j in part.jobs}) == 1
    assert not {text for _, text in OWN} & set(PROMPTS)


@pytest.mark.parametrize(
    "options",
    [
        {"regimes": {"x": 1}},
        {"regimes": {"healthy": 0}},
        {"length": 10},
        {"batch": 0},
        {"corruptions": ["noise"]},
        {"corruptions": []},
        {"corruptions": ["noise:0.2", "quant:4", "noise:0.2"]},
    ],
)
def test_bad_plans_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_plan(OWN, **{"regimes": {"corrupt": 2}, **options})
    with pytest.raises(ValueError, match="no prompts"):
        make_plan([], regimes={"healthy": 1})


@pytest.mark.parametrize("name", ["noise:-1", "noise:nan", "melt:1", "quant", ""])
def test_unknown_corruptions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="corruption"):
        parse(name)


def test_draws_follow_the_nucleus_exactly() -> None:
    probability = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).repeat(4000, 1)
    rngs = [np.random.default_rng(i) for i in range(4000)]
    drawn = draw(probability.log(), torch.ones(4000), 0.9, rngs).bincount(minlength=4) / 4000
    assert drawn[3] == 0
    assert torch.allclose(drawn[:3], torch.tensor([0.5, 0.3, 0.15]) / 0.95, atol=0.03)
    assert draw(probability.log(), torch.zeros(4000), 0.9, rngs).eq(0).all()


def test_prompts_and_counts_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("story\tOnce upon\\na time\n\nNo task here\n")
    assert record_command._prompts(tmp_path / "p") == [("story", "Once upon\na time"), ("own", "No task here")]
    assert record_command._prompts(None) == OWN
    assert record_command.counts("healthy, corrupt:96", 40) == {"healthy": 40, "corrupt": 96}


def test_a_loop_has_its_period() -> None:
    loop = verbatim_loop([*range(100, 110), *([1, 2, 3] * 12)])
    assert loop is not None
    assert loop.period == 3


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.load()


@pytest.mark.llm
def test_a_batch_predicts_what_single_generations_do(model: LanguageModel) -> None:
    texts = ["The capital of France is", PROMPTS[0]]
    batch = Batch(model, [model.tokenizer.encode(text).ids for text in texts])
    alone = [model.start(text) for text in texts]
    for _ in range(3):
        for i, one in enumerate(alone):
            assert np.abs(one.logits - batch.predicted.logits[i].numpy()).max() < 1e-3
            assert np.abs(one.hidden - batch.predicted.window[i, -one.hidden.shape[0] :].numpy()).max() < 1e-3
            assert int(batch.predicted.counts[i]) == one.hidden.shape[0]
        tokens = [int(one.logits.argmax()) for one in alone]
        batch.push(tokens)
        for one, token in zip(alone, tokens, strict=True):
            one.push(token)


@pytest.mark.llm
def test_a_recording_resumes_and_is_read_as_traces(model: LanguageModel, tmp_path: Path) -> None:
    def run(name: str, most: int | None, seed: int = 1) -> bool:
        plan = make_plan(OWN, regimes={"healthy": 1, "corrupt": 1}, corruptions=["quantg:3"], length=64, seed=seed)
        made: dict[str, Any] = {"name": "m", "settings": {"seed": seed}, "origin": ""}
        return record(lambda part: record_part(model, part, derived(576)), plan, tmp_path / name, **made, most=most)

    assert not run("a", 1)
    assert run("a", None)
    assert run("b", None)
    with pytest.raises(RecordError, match="other settings"):
        run("a", None, seed=2)
    with np.load(tmp_path / "a" / "traces.npz") as one, np.load(tmp_path / "b" / "traces.npz") as two:
        assert one["offsets"].tolist() == two["offsets"].tolist()
        assert (one["tok"] == two["tok"]).all()
        assert np.isfinite(one["sv"]).all()
    traces = load_traces(tmp_path / "a")
    assert [s.kind for s in traces.sequences][1] == "severe"
    assert traces.sequences[1].onset > 0
