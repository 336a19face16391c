"""Run by `test_crash.py` in a process of its own: children that are killed while they fit or promote.

`python crash.py random|points promote|fit DIRECTORY SEED COUNT` prints one JSON line: kills, and how the directory was
found after each. The directory's assets must load after every one, and no file may be under a digest that is not its.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tcd.calibration.codec import digest_of
from tcd.calibration.fit import shipped_weights
from tcd.calibration.keyed import fit_keys
from tcd.calibration.options import FitOptions
from tcd.calibration.promote import history, promote
from tcd.calibration.steps import steps_of
from tcd.calibration.store import MANIFEST, load_assets
from tcd.calibration.traces import Key, Sequence, Traces

STEPS = 20


def log_of(seed: int, count: int = 40) -> Traces:
    """Sessions that last as long as the shortest that can be judged, and a few steps."""
    rng = np.random.default_rng(seed)

    def one(i: int) -> Sequence:
        trace = (-rng.exponential(size=STEPS)).astype(np.float32)
        none = np.zeros((STEPS, 0), np.float32)
        key = Key("m", "g", "t", "en", "1.00")
        return Sequence(f"p{i}", "healthy", trace, none[:, 0:0].ravel(), none, none, STEPS, -1, True, f"s{i}", key)

    return Traces(tuple(one(i) for i in range(count)), f"log {seed}")


def fitting(seed: int) -> Callable[[Path], object]:
    """A fit that is ready but for the last second of it."""
    traces = log_of(seed)
    steps = [steps_of(s) for s in traces.sequences]
    options = FitOptions(weights=shipped_weights(), masks=(1,))
    return lambda out: fit_keys(traces, out, options=options, steps=steps)


def die_at(point: int) -> None:
    """Kill this process before its `point`-th call that changes or syncs a file."""
    left = [point]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    for name in ("fsync", "open", "rename", "replace", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def check(directory: Path, known: set[str]) -> str:
    """The manifest in force, after a look at every file."""
    for path in directory.glob("*.npz"):
        assert digest_of(path.read_bytes()) == f"sha256:{path.stem}", path.name
    for past in history(directory):
        load_assets(directory, manifest=past)
    manifest = load_assets(directory).manifest_digest
    assert manifest in known, manifest
    return manifest


def child(run: Callable[[], object], *, point: int | None = None) -> int:
    """Start a run that dies at a point of its own, or lives on; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if point is not None:
            die_at(point)
        run()
    finally:
        os._exit(0)


def main(how: str, what: str, root: Path, seed: int, count: int) -> None:
    """Kill, look, go on from what is there."""
    runs = [fitting(seed), fitting(seed + 1)]
    sets = []
    for i, run in enumerate(runs):
        run(root / f"set{i}")
        sets.append(load_assets(root / f"set{i}").manifest_digest)
    if what == "promote":
        runs = [lambda out, i=i: promote(root / f"set{i}", out) for i in range(2)]  # type: ignore[misc]
    live = root / "live"
    shutil.copytree(root / "set0", live)
    began = time.monotonic()
    runs[1](root / "timed")
    length = time.monotonic() - began
    draw = random.Random(seed)  # noqa: S311
    found: Counter[str] = Counter()
    killed, number = 0, 0
    while number < count:
        if how == "points":
            # every point of one and the same run
            shutil.rmtree(live)
            shutil.copytree(root / "set0", live)
        aim = 1 - sets.index(check(live, set(sets)))
        pid = child(lambda aim=aim: runs[aim](live), point=number if how == "points" else None)  # type: ignore[misc]
        if how == "random":
            time.sleep(draw.uniform(0, 1.2 * length))
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        number += 1
        manifest = check(live, set(sets))
        found["new" if sets.index(manifest) == aim else "old"] += 1
        killed += os.WIFSIGNALED(status)
        if how == "points" and not os.WIFSIGNALED(status):
            break
    runs[0](live)
    assert check(live, set(sets)) == sets[0]
    assert (live / MANIFEST).exists()
    sys.stdout.write(json.dumps({"killed": killed, "runs": number, "ended": not os.WIFSIGNALED(status), **found}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
