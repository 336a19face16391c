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

def asleep():
    # how often each other thread went to sleep, once all do: one that was woken has done so once more
    others = [p / "status" for p in Path("/proc/self/task").iterdir() if p.name != str(os.getpid())]
    for _ in range(6000):
        said = [dict(line.split(":", 1) for line in p.read_text().splitlines()) for p in others]
        if all(of["State"].strip().startswith("S") for of in said):
            return sum(int(of["voluntary_ctxt_switches"]) for of in said)
        time.sleep(0.01)
    raise TimeoutError

def step():
    SPIN
    spectrum(hidden)
    features(hidden, matrix)

step()
seen = [asleep()]
for _ in range(20):
    step()
    seen.append(asleep())
print(json.dumps(sum(after > before for before, after in zip(seen, seen[1:]))))
"""


def woken(width: int, columns: int, spin: str = "pass") -> int:
    """Of twenty tokens, how many woke a thread beside the calling one."""
    code = _CHILD.replace("WIDTH", str(width)).replace("COLUMNS", str(columns)).replace("SPIN", spin)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "OPENBLAS_NUM_THREADS": "2"}, capture_output=True, check=True
    )
    return int(json.loads(done.stdout))


@pytest.mark.parametrize(("width", "columns"), [(576, 16), (4096, 16), (4096, 256)])
def test_only_the_calling_thread_works(width: int, columns: int) -> None:
    assert woken(width, columns) == 0


def test_a_product_that_wakes_the_threads_would_be_seen() -> None:
    cores = len(os.sched_getaffinity(0))
    assert woken(576, 16, spin="hidden[:, -1:].astype(float) @ matrix") == (20 if cores > 1 else 0)
