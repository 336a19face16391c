"""The recording: unseen prompts, small, and judged as it should be by the packaged assets."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration.assets import AssetSet
from tcd.demo.records import Answer, Token
from tcd.demo.replay import RECORDING, Recorded, RowSession, load_recording, replay
from tcd.demo.result import Run
from tcd.demo.sampler import Setting
from tcd.demo.scenarios import DEFAULTS, PROMPTS, TITLES, Kind
from tcd.demo.survey import label, outcome, summary
from tcd.demo.watch import WatchError
from tcd.errors import AssetError
from tcd.scoring import diagnose

#: First ten hex digits of the SHA-1 of every prompt that the packaged assets were fitted on.
FITTED = frozenset(
    [
        "019c01ae4f",
        "02448e5c41",
        "14f2c7cedc",
        "1fcb7357cc",
        "21cc740d08",
        "2208bdd3f3",
        "2c0f20d9cc",
        "3c5e5c5872",
        "3efdbea0df",
        "4e3f6a1cc5",
        "5892026d7c",
        "71fb4d525b",
        "7276ce6f59",
        "738fcfb018",
        "747c79c2dd",
        "76a0772009",
        "7ea16c3d97",
        "8525ffb3a4",
        "9b140ab9ca",
        "a32e8eb462",
        "a376252bd2",
        "a78c780fb9",
        "b43fd1b2f4",
        "bb5b134359",
        "c5c88f3e62",
        "f2b3027f91",
        "f2f74b442d",
        "feea79c39d",
    ]
)


def played(recorded: Recorded, assets: AssetSet) -> list[Token]:
    session = RowSession(lambda t: diagnose(t, assets), temperature=float(recorded.columns["asked"][0]))
    return list(replay(recorded, session))


def test_no_prompt_of_the_demo_was_fitted_on() -> None:
    assert len(PROMPTS) >= 12
    names = {hashlib.sha1(p.encode(), usedforsecurity=False).hexdigest()[:10] for p in PROMPTS}
    assert len(names) == len(PROMPTS)
    assert not names & FITTED


def test_the_recording_is_small_and_of_the_default_scenarios() -> None:
    assert RECORDING.stat().st_size < 200_000
    recordings = load_recording()
    assert set(recordings) == set(TITLES)
    for kind, recorded in recordings.items():
        assert recorded.prompt == DEFAULTS[kind]
        assert recorded.columns["features"].shape == (len(recorded), 16)
        assert np.all(recorded.columns["lp"] <= 0)
        assert all(np.isfinite(column).all() for column in recorded.columns.values())


@pytest.mark.parametrize("kind", ["healthy", "loop", "blowup"])
def test_the_recording_is_judged_as_expected(kind: Kind, assets: AssetSet) -> None:
    recorded = load_recording()[kind]
    tokens = played(recorded, assets)
    labels = label(kind, tokens)
    run = Run(
        kind=kind,
        prompt=recorded.prompt,
        via="triton",
        obey=False,
        tokens=tokens,
        onset=labels.onset,
        healthy=labels.healthy,
    )
    assert run.expectation().ok, run.expectation()
    assert (run.caught is None) is (kind == "healthy")
    assert run.false_alarms == 0
    if kind == "healthy":
        assert len(tokens) > 100
    else:
        # nothing is caught before there is something to catch
        assert run.caught is not None
        assert run.caught >= run.onset > 16
    found = outcome(kind, recorded.prompt, tokens)
    assert found.caught is (kind != "healthy")
    assert summary([found])["false_alarms"] == 0


def test_a_fault_without_its_cause_is_not_expected(assets: AssetSet) -> None:
    """The judgement can fail: healthy text passed off as a loop, a loop passed off as healthy."""
    recordings = load_recording()
    healthy, loop = played(recordings["healthy"], assets), played(recordings["loop"], assets)
    not_shown = Run(kind="loop", prompt="", via="triton", obey=False, tokens=healthy, onset=-1, healthy=len(healthy))
    assert "did not show" in not_shown.expectation().detail
    not_caught = Run(kind="loop", prompt="", via="triton", obey=False, tokens=healthy, onset=20, healthy=20)
    assert "not caught" in not_caught.expectation().detail
    alarmed = Run(kind="healthy", prompt="", via="triton", obey=False, tokens=loop, healthy=len(loop))
    assert "false alarms" in alarmed.expectation().detail
    assert not Run(kind="healthy", prompt="", via="triton", obey=True, tokens=[]).expectation().ok


def test_a_failing_session_is_shown_and_closed() -> None:
    class Broken:
        closed = False

        def post(self, step: int, values: object, *, base: Setting, left: int) -> Answer:
            message = "the shim does not answer"
            raise WatchError(message)

        def close(self) -> None:
            self.closed = True

    session = Broken()
    tokens = list(replay(load_recording()["healthy"], session))
    assert session.closed
    assert {t.error for t in tokens} == {"the shim does not answer"}
    run = Run(kind="healthy", prompt="", via="shim", obey=False, tokens=tokens, healthy=len(tokens))
    assert "not answered" in run.expectation().detail


def test_the_pace_is_kept() -> None:
    now = [0.0]

    class Instant:
        def post(self, step: int, values: object, *, base: Setting, left: int) -> Answer:
            now[0] += 0.01
            message = "x"
            raise WatchError(message)

        def close(self) -> None:
            """Nothing is held."""

    slept: list[float] = []
    list(replay(load_recording()["loop"], Instant(), pace=0.04, clock=lambda: now[0], sleep=slept.append))
    assert slept == pytest.approx([0.03] * len(slept))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_broken_recording_is_an_asset_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(AssetError):
        load_recording(path)
