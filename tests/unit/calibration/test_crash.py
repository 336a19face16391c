"""SIGKILL while assets are fitted or promoted: the directory answers with the old set or the new one, never half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def crash(tmp_path: Path, how: str, what: str, *, seed: int, count: int) -> Any:
    script = Path(__file__).with_name("crash.py")
    # one thread, so that a fork has all of the process
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), how, what, str(tmp_path), str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=500,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["fit", "promote"])
def test_a_kill_before_any_call_that_touches_a_file_leaves_a_whole_set(tmp_path: Path, what: str) -> None:
    """Each run dies one call later than the last, until one comes through."""
    found = crash(tmp_path, "points", what, seed=1, count=200)
    assert found["ended"]
    assert found["killed"] == found["runs"] - 1 >= 12
    assert found["old"] >= 8


@pytest.mark.parametrize(("what", "count"), [("fit", 10), ("promote", 40)])
def test_a_kill_at_a_random_moment_leaves_a_whole_set(tmp_path: Path, what: str, count: int) -> None:
    found = crash(tmp_path, "random", what, seed=2, count=count)
    assert found["runs"] == count
    assert found["killed"] >= count // 3


@pytest.mark.long
@pytest.mark.parametrize(("what", "count"), [("fit", 200), ("promote", 1000)])
def test_many_kills_at_random_moments(tmp_path: Path, what: str, count: int) -> None:
    found = crash(tmp_path, "random", what, seed=3, count=count)
    assert found["killed"] >= count // 3
    assert found["old"] > 0
    assert found["new"] > 0
