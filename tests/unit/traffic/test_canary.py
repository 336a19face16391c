"""A calibration on trial: isolated; rolled back when it alarms too often, too rarely or too late; else promoted."""

from __future__ import annotations

import asyncio
import fcntl
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar_api.canary import DELTA, LEVEL, MUTE, NOISY, Bets, Trial
from tcd.bench.controller.rate import clopper_pearson
from tcd.calibration import canary as trials
from tcd.calibration import promote as promotions
from tcd.calibration.assets import Binding, Canary, canary_key
from tcd.calibration.promote import LOCK, history, promote, rollback
from tcd.calibration.store import MANIFEST, AssetDirectory, default_asset_dir, load_assets
from tcd.errors import AssetError, Conflict
from tcd.files import write_whole
from tests.unit.traffic.kit import Shim, fitted, record, shim, spoiled

ANY = Canary("sha256:" + "a" * 64, 0.5, 10**9, {})


def run_trial(rng: np.random.Generator, draw: Any, sessions: int, *, width: int = 16) -> tuple[Trial, int]:
    """Sessions that overlap; a hit ends its session at once, as a trigger does; (trial, sessions until a verdict)."""
    trial = Trial(ANY)
    live: list[tuple[Any, float, int]] = []
    for number in range(sessions):
        p = float(draw(rng))
        seen = trial.begin()
        seen.tokens = 100
        live.append((seen, p, 0 if p <= LEVEL else int(rng.integers(1, width))))
        rest = []
        for item, value, left in live:
            item.p = min(item.p, value) if left <= 0 else item.p
            if left <= 0:
                item.over = True
            else:
                rest.append((item, value, left - 1))
        live = rest
        trial.fold()
        if trial.verdict:
            return trial, number + 1
    return trial, sessions


def test_a_good_candidate_is_rarely_rolled_back() -> None:
    """400 trials of 500 sessions with uniform p-values and 4 % faults: at most delta, at any time."""
    rng = np.random.default_rng(5)

    def draw(r: np.random.Generator) -> float:
        return 0.0 if r.random() < 0.04 else r.random()

    ended = sum(run_trial(rng, draw, 500)[0].verdict != "" for _ in range(400))
    low, high = clopper_pearson(ended, 400, 0.999)
    assert low <= DELTA, (ended, low, high)


@pytest.mark.parametrize(
    ("name", "draw", "within"),
    [
        # p-values 10 times too small, as a wrong calibration's are: half of the sessions at 0.05
        ("noisy", lambda r: r.random() / 10, 40),
        ("noisy", lambda _: 0.001, 10),
        ("noisy", lambda r: r.random() ** 3, 120),
        ("mute", lambda r: 0.5 + r.random() / 2 + 1e-9, 60),
        ("mute", lambda _: 1.0, 60),
    ],
)
def test_a_bad_candidate_is_found_out_soon(name: str, draw: Any, within: int) -> None:
    rng = np.random.default_rng(6)
    needed = []
    for _ in range(20):
        trial, sessions = run_trial(rng, draw, 2000)
        assert trial.verdict == name, trial.to_json()
        needed.append(sessions)
    assert np.median(needed) <= within, needed


@pytest.mark.parametrize("allowed", [NOISY, 1.0 - MUTE])
def test_the_expected_wealth_at_the_allowed_rate_is_one(allowed: float) -> None:
    """Exactly, over all outcomes of ten bets; below the allowed rate it is less."""

    def expected(rate: float) -> float:
        total = 0.0
        for hits in range(11):
            bets = Bets(allowed)
            for i in range(10):
                bets.add(float(i < hits))
            total += math.comb(10, hits) * rate**hits * (1 - rate) ** (10 - hits) * math.exp(bets.log_wealth)
        return total

    assert expected(allowed) == pytest.approx(1.0, abs=1e-9)
    assert expected(0.9 * allowed) < 1.0 < expected(1.1 * allowed)


def test_late_answers_count_against_those_of_all_others() -> None:
    trial = Trial(ANY)
    trial.mine.steps, trial.mine.bad, trial.others.steps = 49, 49, 1000
    assert trial.verdict == ""
    trial.mine.steps, trial.mine.bad, trial.others.steps = 1000, 1000, 49
    assert trial.verdict == ""
    # 0.6 beside 0.5 is not 0.05 and three errors more
    trial.mine.bad, trial.others.steps, trial.others.bad = 600, 1000, 500
    assert trial.verdict == ""
    trial.mine.bad = 630
    assert str(trial.verdict) == "slow"


def test_an_open_session_holds_up_the_count_until_there_are_too_many() -> None:
    trial = Trial(ANY)
    first = trial.begin()
    first.tokens = 100
    for _ in range(100):
        seen = trial.begin()
        seen.tokens, seen.over = 100, True
    trial.fold()
    assert trial.judged == 0
    first.over = True
    trial.fold()
    assert (trial.judged, trial.hits, len(trial.waiting)) == (101, 0, 0)
    for tokens, over in ((3, True), (100, True), (100, False)):
        seen = trial.begin()
        seen.tokens, seen.over = tokens, over
    trial.fold()
    # too short to be judged: not counted
    assert (trial.judged, len(trial.waiting)) == (102, 1)


# -- in a directory ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A live set, and a candidate from other sessions of the same kind."""
    folder = tmp_path_factory.mktemp("assets")

    async def made() -> dict[str, Path]:
        found = {}
        for seed, name in ((1, "live"), (2, "good")):
            await record(folder / f"{name}-log", default_asset_dir(), 60, seed=seed, steps=24)
            found[name] = fitted(folder / f"{name}-log", folder / name)
        return found

    return asyncio.run(made())


@pytest.fixture
def live(tmp_path: Path, logged: dict[str, Path]) -> Path:
    promote(logged["live"], tmp_path / "served")
    return tmp_path / "served"


def test_a_trial_begins_and_ends_byte_for_byte(live: Path, logged: dict[str, Path]) -> None:
    before = (live / MANIFEST).read_bytes()
    directory = AssetDirectory(live)
    identity = trials.begin(logged["good"], live, share=0.5, sessions=10)
    assert identity == load_assets(logged["good"]).manifest_digest
    found = directory.current().canary
    assert found is not None
    assert (found.id, found.share, found.sessions) == (identity, 0.5, 10)
    with pytest.raises(Conflict, match="on trial"):
        trials.begin(logged["good"], live, share=0.5, sessions=10)
    assert not trials.end(live, "sha256:other")
    assert trials.end(live, identity)
    assert not trials.end(live, identity)
    assert (live / MANIFEST).read_bytes() == before
    assert not list(live.glob("canary-*"))


def test_a_rollback_ends_a_trial_and_promotes_nothing_older(live: Path, logged: dict[str, Path]) -> None:
    before = (live / MANIFEST).read_bytes()
    trials.begin(logged["good"], live, share=0.5, sessions=10)
    rollback(live)
    assert (live / MANIFEST).read_bytes() == before
    trials.begin(logged["good"], live, share=0.5, sessions=10)
    identity = load_assets(logged["good"]).manifest_digest
    assert trials.complete(live, identity)
    assert load_assets(live).manifest_digest == identity
    assert load_assets(live).canary is None
    # what is kept is the set before, not the trial
    assert [path.read_bytes() for path in history(live)][-1] == before
    rollback(live)
    assert (live / MANIFEST).read_bytes() == before


def test_a_rollback_while_a_trial_is_completed_is_not_undone(
    live: Path, logged: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_assets(live).manifest_digest
    identity = trials.begin(logged["good"], live, share=0.5, sessions=10)
    operator = threading.Thread(target=rollback, args=(live,))

    def load(*args: Any, **options: Any) -> Any:
        operator.start()
        operator.join(1.0)  # without the lock it is through by then
        return load_assets(*args, **options)

    monkeypatch.setattr(trials, "load_assets", load)
    trials.complete(live, identity)
    operator.join()
    assert load_assets(live).manifest_digest == before


def test_a_trial_that_is_ended_past_the_lock_is_not_completed(
    live: Path, logged: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (live / MANIFEST).read_bytes()
    identity = trials.begin(logged["good"], live, share=0.5, sessions=10)

    def load(*args: Any, **options: Any) -> Any:
        write_whole(live / MANIFEST, before)
        return load_assets(*args, **options)

    monkeypatch.setattr(trials, "load_assets", load)
    assert not trials.complete(live, identity)
    assert (live / MANIFEST).read_bytes() == before


def test_a_trial_does_not_begin_beside_another_set_than_it_was_checked_with(
    live: Path, logged: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(candidate: Path, place: Path) -> bytes:
        promote(default_asset_dir(), live)
        return promotions.copy_assets(candidate, place)

    monkeypatch.setattr(trials, "copy_assets", copy)
    with pytest.raises(Conflict, match="meanwhile"):
        trials.begin(logged["good"], live, share=0.5, sessions=10)
    assert load_assets(live).canary is None


def test_every_manifest_is_written_under_the_lock(
    live: Path, logged: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        if path.name == MANIFEST or path.parent.name == promotions.HISTORY:
            with (live / LOCK).open("rb") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            written.append(path)
        write_whole(path, data)

    monkeypatch.setattr(trials, "write_whole", write)
    monkeypatch.setattr(promotions, "write_whole", write)
    identity = trials.begin(logged["good"], live, share=0.5, sessions=10)
    assert trials.end(live, identity)
    trials.begin(logged["good"], live, share=0.5, sessions=10)
    assert trials.complete(live, identity)
    promote(logged["live"], live)
    rollback(live)
    # two of them also put the manifest before into the history
    assert len(written) == 6 + 2
    with (live / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(("share", "sessions"), [(0.0, 10), (1.0, 10), (0.5, 0)])
def test_no_trial_of_nobody(live: Path, logged: dict[str, Path], share: float, sessions: int) -> None:
    with pytest.raises(AssetError, match="a share in"):
        trials.begin(logged["good"], live, share=share, sessions=sessions)


def test_an_altered_candidate_is_not_promoted(live: Path, logged: dict[str, Path]) -> None:
    identity = trials.begin(logged["good"], live, share=0.5, sessions=10)
    (kept,) = live.glob("canary-*")
    kept.write_bytes(kept.read_bytes() + b" ")
    with pytest.raises(AssetError, match="altered"):
        trials.complete(live, identity)
    assert load_assets(live).canary is not None


def test_keys_of_a_canary_are_its_own_and_its_share_is_of_subjects() -> None:
    canary = Canary("sha256:x", 0.25, 10, {7: Binding(7, 0, "sha256:d", None)})
    assert canary.key((7, 8, 9)) == tuple(canary_key("sha256:x", key) for key in (7, 8, 9))
    assert not set(canary.key((7, 8, 9))) & {7, 8, 9}
    covered = [canary.covers(f"s{i}", (7, 8, 9)) for i in range(2000)]
    low, high = clopper_pearson(sum(covered), 2000, 0.999)
    assert low <= 0.25 <= high
    assert not any(canary.covers(f"s{i}", (1, 2, 3)) for i in range(100))


# -- in a shim --------------------------------------------------------------------------------------------


async def served_sessions(served: Shim, count: int, *, seed: int, **how: Any) -> list[Any]:
    """Sessions one after the other, each ended by the next one of its subject."""
    out = []
    for number in range(count):
        name = f"s{number % 40}"
        out.append((name, await served.generate(seed, number, session=name, steps=24, **how)))
    return out


async def until(served: Shim) -> None:
    for _ in range(6000):
        if served.service.watch._acting is None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the verdict was not carried out within a minute")


async def test_a_good_candidate_is_promoted_and_touches_no_other_stream(live: Path, logged: dict[str, Path]) -> None:
    identity = load_assets(logged["good"]).manifest_digest
    async with shim(live) as served:
        trials.begin(logged["good"], live, share=0.5, sessions=20)
        found = await served_sessions(served, 40, seed=51)
        marked = {name for name, answers in found if "canary" in answers[-1].guarantee}
        assert 8 <= len(marked) <= 32
        own = served.service.subjects.tenant("tenant0")
        streams = {session.subject[2]: session.stream for session in served.service.sessions}
        assert {name for name, stream in streams.items() if stream != own} == marked
        assert len({streams[name] for name in marked}) == 1
        await served_sessions(served, 60, seed=52)
        await until(served)
        assert load_assets(live).manifest_digest == identity, served.service.watch.trial
        assert ("calibration.canary.promote", "canary") in served.acts()
        after = await served_sessions(served, 3, seed=53)
        assert all("canary" not in answers[-1].guarantee for _, answers in after)


@pytest.mark.parametrize(("by", "why"), [(-5.0, "noisy"), pytest.param(50.0, "mute", marks=pytest.mark.long)])
async def test_a_bad_candidate_is_rolled_back_by_itself(
    live: Path, logged: dict[str, Path], tmp_path: Path, by: float, why: str
) -> None:
    before = (live / MANIFEST).read_bytes()
    candidate = spoiled(logged["good"], tmp_path / "bad", by=by)
    async with shim(live) as served:
        trials.begin(candidate, live, share=0.5, sessions=500)
        for batch in range(12):
            await served_sessions(served, 40, seed=61 + batch)
            await until(served)
            if (live / MANIFEST).read_bytes() == before:
                break
        assert (live / MANIFEST).read_bytes() == before, served.service.watch.trial
        assert served.acts().count((f"calibration.canary.rollback.{why}", "canary")) == 1
        after = await served_sessions(served, 3, seed=90)
        assert all("canary" not in answers[-1].guarantee for _, answers in after)
