"""A sample of a log: bounded, a share per key, the same whatever sessions are like and in whatever order they come."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.bench.controller.rate import clopper_pearson
from tcd.calibration.log import load_log
from tcd.calibration.rows import RequestRow, SessionRow, StepRow
from tcd.calibration.sampling import Sample, draw
from tcd.calibration.sessions import Limits
from tcd.errors import AssetError

STEPS = 4


def row(name: str, model: str = "m", *, group: str | None = None, steps: int = STEPS, at: float = -0.5) -> SessionRow:
    rng = np.random.default_rng(int.from_bytes(name.encode()[-6:], "big"))
    signal = (at - rng.random(steps)).tolist()
    return SessionRow(session=name, model_id=model, group=group, log_prob=signal, complete=True)


def kept(sample: Sample) -> set[str]:
    return {one.session for one in sample.sequences()}


def sampled(rows: list[Any], values: int, **options: Any) -> Sample:
    made = Sample(Limits(values=values), **options)
    for one in rows:
        made.add(one)
    return made


def test_what_fits_is_kept_whole() -> None:
    rows = [row(f"s{n}") for n in range(50)]
    made = sampled(rows, 50 * STEPS)
    assert kept(made) == {one.session for one in rows}
    assert not +made.levels


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_log_is_halved_until_it_fits_and_rare_keys_stay_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [row(f"a{seed}-{n}", "often") for n in range(4000)] + [row(f"b{seed}-{n}", "seldom") for n in range(40)]
    made = sampled([rows[n] for n in rng.permutation(len(rows))], 1000 * STEPS)
    found = kept(made)
    models = Counter("often" if name[0] == "a" else "seldom" for name in found)
    assert models["seldom"] == 40
    assert 300 < models["often"] <= 960
    level = next(level for key, level in made.levels.items() if key.model_id == "often")
    assert level in {2, 3}
    # the order does not matter: it is the hash that decides
    assert kept(sampled(rows, 1000 * STEPS)) == found
    # and how many are kept is what chance says: 99.99 % interval of the share
    low, high = clopper_pearson(models["often"], 4000, 0.9999)
    assert low <= 0.5**level <= high


def test_what_a_session_is_like_plays_no_part() -> None:
    """The same names with other signals, other lengths even where these decide how much is too much."""
    names = [f"s{n}" for n in range(500)]
    one = sampled([row(name) for name in names], 100 * STEPS)
    other = sampled([row(name, at=-30.0) for name in names], 100 * STEPS)
    assert kept(one) == kept(other)
    long = sampled([row(name, steps=STEPS * (1 + n % 7)) for n, name in enumerate(names)], 100 * STEPS)
    level = max(long.levels.values())
    assert kept(long) == {name for name in names if draw(name) >> (64 - level) == 0}


def test_groups_and_steps_stay_together() -> None:
    rows = [row(f"s{n}", group=f"g{n // 5}") for n in range(500)]
    found = Counter(int(name[1:]) // 5 for name in kept(sampled(rows, 100 * STEPS)))
    assert set(found.values()) == {5}
    steps = [
        StepRow(session=f"s{n}", model_id="m", step=t, log_prob=-0.1 * t - n) for t in range(STEPS) for n in range(200)
    ]
    sequences = sampled(steps, 50 * STEPS).sequences()
    assert 0 < len(sequences) < 200
    assert {one.steps for one in sequences} == {STEPS}


def test_what_is_left_out_is_left_out_before_anything_is_drawn() -> None:
    rows = [row(f"s{n}") for n in range(400)]
    low = {one.session for one in rows if draw(one.session) >> 62 == 0}
    made = sampled(rows, 400 * STEPS, skip=low.__contains__)
    assert kept(made) == {one.session for one in rows} - low
    assert not +made.levels
    with pytest.raises(AssetError, match="excluded"):
        sampled(rows, 400 * STEPS, skip=lambda _: True).sequences()


def test_one_session_that_does_not_fit_is_refused() -> None:
    with pytest.raises(AssetError, match="more than 10 values"):
        sampled([row("s", steps=11)], 10)
    with pytest.raises(AssetError, match="no row of a session log"):
        sampled([RequestRow(trace_vector=[-1.0], step_id=0)], 10)


def test_a_log_takes_a_sample_for_its_collector(tmp_path: Path) -> None:
    place = tmp_path / "log.jsonl"
    rows = [{"session": f"s{n}", "model_id": "m", "log_prob": [-1.0 - n, -2.0], "complete": True} for n in range(100)]
    place.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(AssetError, match="more than 20 values"):
        load_log([place], name="x", limits=Limits(values=20))
    traces = load_log([place], name="x", collector=Sample(Limits(values=20)))
    assert 0 < len(traces.sequences) <= 10
