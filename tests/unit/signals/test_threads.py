"""Signals are worked out in the process of the model: no thread of a BLAS may spin there after each token."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_CHILD = """
import json, os, time
import numpy as np
from pathlib import Path
from tcd.signals.hidden import features, spectrum

width, columns, depth = WIDTH, COLUMNS, 32
rng = np.random.default_rng(0)
hidden = rng.standard_normal((1, depth, width)).astype(np.float32)
matrix = rng.standard_normal((width, columns))

def ticks():
    rows = [(p / "stat").read_text().rsplit(")", 1)[1].split() for p in Path("/proc/self/task").iterdir()]
    return sum(int(row[11]) + int(row[12]) for row in rows)

def own():
    row = Path(f"/proc/self/task/{os.getpid()}/stat").read_text().rsplit(")", 1)[1].split()
    return int(row[11]) + int(row[12])

def step():
    SPIN
    spectrum(hidden)
    features(hidden, matrix)

step()
time.sleep(0.3)
before = ticks() - own()
for _ in range(20):
    step()
    time.sleep(0.03)
print(json.dumps(ticks() - own() - before))
"""


def others(width: int, columns: int, spin: str = "pass") -> int:
    """Clock ticks (10 ms) that threads beside the calling one took for twenty tokens."""
    code = _CHILD.replace("WIDTH", str(width)).replace("COLUMNS", str(columns)).replace("SPIN", spin)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "OPENBLAS_NUM_THREADS": "2"}, capture_output=True, check=True
    )
    return int(json.loads(done.stdout))


@pytest.mark.parametrize(("width", "columns"), [(576, 16), (4096, 16), (4096, 256)])
def test_only_the_calling_thread_works(width: int, columns: int) -> None:
    assert others(width, columns) <= 2


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core: a BLAS has no threads there")
def test_a_product_that_wakes_the_threads_would_be_seen() -> None:
    assert others(576, 16, spin="hidden[:, -1:].astype(float) @ matrix") > 10
