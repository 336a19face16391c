"""The demo as people run it: SmolLM2 in a real Triton, a real shim, receipts; and its replay without the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tcd.demo.scenarios import PROMPTS
from tcd.demo.weights import find_weights

pytestmark = pytest.mark.triton

CHECKS = 7


@dataclass(frozen=True)
class Played:
    code: int
    summary: dict[str, Any]
    report: str

    def run(self, kind: str, via: str, *, obey: bool = True) -> dict[str, Any]:
        found: list[dict[str, Any]] = [
            r for r in self.summary["runs"] if (r["kind"], r["via"], r["obey"]) == (kind, via, obey)
        ]
        assert len(found) == 1
        return found[0]


def play(directory: Path, *options: str, timeout: float) -> Played:
    report = directory / "demo.html"
    command = [sys.executable, "-m", "tcd.cli.main", "demo", "--json", "--plain", "--out", str(report)]
    done = subprocess.run(
        [*command, "--logs", str(directory / "logs"), *options],
        capture_output=True,
        text=True,
        timeout=timeout,
        # settings of another shim must not reach this one
        env={**os.environ, "TCD_ALPHA": "0.5", "COLUMNS": "120"},
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr
    return Played(done.returncode, json.loads(done.stdout), report.read_text())


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Played:
    if find_weights() is None:
        pytest.skip("llm: the weights of SmolLM2 are not installed")
    return play(tmp_path_factory.mktemp("live"), "--quick", timeout=1200)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("replay"), "--replay", "--quick", timeout=1200)


@pytest.mark.llm
def test_the_live_demo_meets_its_expectations(live: Played) -> None:
    assert live.code == 0, [(r["kind"], r["via"], r["detail"]) for r in live.summary["runs"] if not r["ok"]]
    assert live.summary["ok"]
    assert live.summary["source"] == "live"
    assert len(live.summary["runs"]) == 8
    assert "8 of 8 expectations met" in live.report


@pytest.mark.llm
@pytest.mark.parametrize("via", ["triton", "shim"])
def test_healthy_text_is_left_alone(live: Played, via: str) -> None:
    run = live.run("healthy", via)
    assert run["tokens"] == 112
    assert (run["caught"], run["false_alarms"], run["errors"]) == (None, 0, 0)


@pytest.mark.llm
def test_both_ways_draw_the_same_healthy_text(live: Played) -> None:
    assert live.run("healthy", "triton")["text"] == live.run("healthy", "shim")["text"]


@pytest.mark.llm
@pytest.mark.parametrize(("kind", "within"), [("loop", 32), ("blowup", 8)])
def test_a_fault_is_caught_at_the_same_token_by_both_ways(live: Played, kind: str, within: int) -> None:
    runs = [live.run(kind, "triton", obey=False), live.run(kind, "triton"), live.run(kind, "shim")]
    assert {r["errors"] for r in runs} == {0}
    assert {r["false_alarms"] for r in runs} == {0}
    assert len({r["caught"] for r in runs}) == 1
    assert 0 <= runs[0]["delay"] <= within


@pytest.mark.llm
@pytest.mark.parametrize("kind", ["loop", "blowup"])
def test_obeying_changes_the_text_after_the_catch_and_only_then(live: Played, kind: str) -> None:
    ignored = live.run(kind, "triton", obey=False)["text"]
    for via in ("triton", "shim"):
        obeyed = live.run(kind, via)["text"]
        assert obeyed != ignored
        common = next(i for i, (a, b) in enumerate(zip(obeyed, ignored, strict=False)) if a != b)
        assert common > 100  # characters up to the catch


@pytest.mark.llm
def test_obeying_breaks_the_loop(live: Played) -> None:
    sentence = "He was very smart."
    ignored = live.run("loop", "triton", obey=False)["text"].count(sentence)
    assert ignored > 8
    for via in ("triton", "shim"):
        assert live.run("loop", via)["text"].count(sentence) < ignored / 2


@pytest.mark.llm
def test_every_receipt_verifies_and_forgeries_do_not(live: Played) -> None:
    for kind in ("healthy", "loop", "blowup"):
        run = live.run(kind, "shim")
        assert run["receipts"] == run["tokens"] > 0
        assert len(run["checks"]) == CHECKS
        assert all(check["ok"] for check in run["checks"]), run["checks"]
        assert run["guarantee"].startswith("none (demo calibration")


def test_the_replay_meets_its_expectations(replayed: Played) -> None:
    assert replayed.code == 0, [(r["kind"], r["via"], r["detail"]) for r in replayed.summary["runs"] if not r["ok"]]
    assert replayed.summary["source"] == "replay"
    assert len(replayed.summary["runs"]) == 6
    for kind in ("healthy", "loop", "blowup"):
        direct, shim = (replayed.run(kind, via, obey=False) for via in ("triton", "shim"))
        assert direct["caught"] == shim["caught"]
        assert (direct["caught"] is None) is (kind == "healthy")
        assert shim["receipts"] == shim["tokens"]
        assert [check["ok"] for check in shim["checks"]] == [True] * CHECKS
    assert "cannot obey" in replayed.report


@pytest.mark.llm
def test_the_recording_is_what_the_model_still_does(live: Played, replayed: Played) -> None:
    """Greedy text to the letter. After a blow-up, draws from a nearly flat distribution turn on the last bits of a
    logit, and those on the processor: the text is the same until then, and the catch as quick."""
    now, then = (played.run("loop", "triton", obey=False) for played in (live, replayed))
    assert now["text"] == then["text"][: len(now["text"])]
    assert now["caught"] == then["caught"]
    now, then = (played.run("blowup", "triton", obey=False) for played in (live, replayed))
    assert now["onset"] == then["onset"] > 0
    # a token is three characters at least, on average
    assert then["text"].startswith(now["text"][: 3 * now["onset"]])
    assert abs(now["caught"] - then["caught"]) <= 4


@pytest.mark.long  # in small: tests/unit/demo/test_report.py
@pytest.mark.llm
def test_a_fault_that_does_not_show_makes_the_demo_fail(tmp_path: Path) -> None:
    """A prompt on which greedy decoding does not loop: the exit code, the summary and the report say so."""
    if find_weights() is None:
        pytest.skip("llm: the weights of SmolLM2 are not installed")
    played = play(tmp_path, "--quick", "--scenario", "loop", "--prompt", PROMPTS[3], timeout=1200)
    assert played.code == 1
    assert not played.summary["ok"]
    assert [r["onset"] for r in played.summary["runs"]] == [-1, -1, -1]
    assert "did not show" in played.summary["runs"][0]["detail"]
    assert "0 of 3 expectations met" in played.report
