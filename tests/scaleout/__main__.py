"""`python -m tests.scaleout [--out docs/reports]`: needs PostgreSQL and HAProxy; as root also with slices of cores."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from tcd.cli.bench import _report
from tests.scaleout import report
from tests.scaleout.run import measure, slices


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for scaleout.md, scaleout.json and the plots")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement of a rate")
    parser.add_argument("--calm", type=float, default=8.0, help="seconds before a kill and after everything is back")
    parser.add_argument("--callers", type=int, default=24, help="at once, while parts are killed")
    parser.add_argument("--slices", action="store_true", help="only parts with slices of a core; the rest is kept")
    given = parser.parse_args()
    sliced = os.access("/sys/fs/cgroup/cpu/cgroup.procs", os.W_OK)
    if given.slices:
        found = json.loads((given.out / "scaleout.json").read_text()) | slices(given.seconds)
    else:
        found = measure(seconds=given.seconds, calm=given.calm, callers=given.callers, sliced=sliced)
    found["machine"] = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    _report(given.out, "scaleout", found, report.markdown, report.plots)


if __name__ == "__main__":
    main()
