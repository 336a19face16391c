"""Memory and time of a calibration job over a signal log of 10^4 to 10^7 steps; prints a table.

    python tests/benchmarks/bench_fit.py [--most 10000000] [--least 10000] [--values 16000000]

Sessions of 100 steps of AR(1) signals, as wide as those of a model (16 singular values, 16 features). Each fit is a
process of its own, as in the admin plane, with the default limit of memory. Peak memory is the child's, from `wait4`;
VmPeak of its data is what `RLIMIT_DATA` bounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

STEPS = 100
ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
CHILD = """
import json, resource, sys
from pathlib import Path
from sidecar_api.admin import calibration_jobs
from sidecar_api.admin.job_process import Run
order = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (4096 << 20,) * 2)
calibration_jobs._VALUES = order["values"]
found = calibration_jobs.fit(Run(Path(order["folder"]), open("/dev/null", "w")), order)
print(json.dumps({"sessions": found["sessions"], "sampled": found["sampled"], "p_floor": found["keys"][0]["p_floor"]}))
"""


def ar1(rng: np.random.Generator, width: int) -> Any:
    noise = rng.standard_normal((STEPS, width))
    for t in range(1, STEPS):
        noise[t] += 0.5 * noise[t - 1]
    return np.round(noise, 5)


def write(path: Path, sessions: int, *, seed: int) -> None:
    """A signal log of so many sessions."""
    rng = np.random.default_rng(seed)
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for number in range(sessions):
            row = {
                "session": f"s{number}",
                "model_id": "m",
                "complete": True,
                "log_prob": (-np.abs(ar1(rng, 1)[:, 0])).tolist(),
                "entropy": np.abs(ar1(rng, 1)[:, 0]).tolist(),
                "spectrum": (-np.sort(-np.abs(ar1(rng, 16)), axis=1)).tolist(),
                "features": ar1(rng, 16).tolist(),
            }
            file.write(encode(row) + b"\n")


def fit(folder: Path, values: int) -> tuple[dict[str, Any], float, float]:
    """What a fit said, its seconds and its peak in MiB."""
    options = {"level": 0, "least": 16, "hold_back": 0.2, "exclude": [], "conditional": 0.0}
    places = {"log": str(folder / "log"), "candidates": str(folder / "candidates"), "live": str(folder / "live")}
    (folder / "job").mkdir(exist_ok=True)
    order = {**places, "options": options, "folder": str(folder / "job"), "values": values}
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(order)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    if status:
        msg = f"the fit ended with {status}"
        raise RuntimeError(msg)
    return json.loads(out), time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=ROWS[-1])
    parser.add_argument("--least", type=int, default=ROWS[0])
    parser.add_argument("--values", type=int, default=16_000_000)
    asked = parser.parse_args()
    sys.stdout.write(
        "| steps | log, MiB | sessions used | share | smallest p | peak, MiB | s |\n|---|---|---|---|---|---|---|\n"
    )
    for rows in (rows for rows in ROWS if asked.least <= rows <= asked.most):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "log").mkdir()
            path = folder / "log" / "sessions-0-0.jsonl"
            write(path, rows // STEPS, seed=rows)
            size = path.stat().st_size / 2**20
            found, seconds, peak = fit(folder, asked.values)
            share = min(found["sampled"].values(), default=1.0)
            figures = f"{rows:,} | {size:.0f} | {found['sessions']:,} | {share:g} | {found['p_floor']:.2g}"
            sys.stdout.write(f"| {figures} | {peak:.0f} | {seconds:.0f} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
