"""What `make containers` measured: sizes and times of the images, and of everything.

Written to `build/containers/report`; also to the directory of `TCD_CONTAINERS_REPORT` when everything was built from
nothing and every test passed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.containers.engine import Engine

NAMES = {
    "localhost/tcd-test/python:bookworm": "base (Debian, by mmdebstrap)",
    "localhost/tcd-test/shim:latest": "shim",
    "localhost/tcd-test/triton:latest": "Triton with the wheel's server",
    "localhost/tcd-test/demo:latest": "demo",
    "localhost/tcd-test/postgres:bookworm": "PostgreSQL, for the tests",
    "localhost/tcd-test/prometheus:bookworm": "Prometheus, for the tests",
}


def figures(engine: Engine, *, tests: int, failed: int) -> dict[str, Any]:
    """Everything that is reported, of the images that were built in this run."""
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.strip()
    tools = {
        tool: subprocess.run([tool, "--version"], capture_output=True, check=True, text=True).stdout.splitlines()[0]
        for tool in ("buildah", "podman", "runc")
    }
    images = [
        {"image": NAMES[name], "mb": round(engine.size(name) / 1e6), "seconds": round(engine.times[name])}
        for name in NAMES
        if name in engine.times
    ]
    return {
        "commit": commit,
        "machine": f"{os.cpu_count()} cores of {platform.machine()}",
        "load_15_min": round(os.getloadavg()[2], 1),
        "tools": tools,
        "images": images,
        "seconds": round(time.monotonic() - engine.began),
        "tests": tests,
        "failed": failed,
    }


def complete(report: dict[str, Any]) -> bool:
    """Whether everything was built, and nothing failed."""
    return report["failed"] == 0 and {row["image"] for row in report["images"]} == set(NAMES.values())


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    counts = f"{report['tests']} tests, {report['failed']} failed, {report['seconds']} s"
    machine = f"{report['machine']}, load of the last 15 minutes {report['load_15_min']}"
    lines = [
        "# Images: sizes and times",
        "",
        f"`make containers` from nothing: {counts} with the building, without the installing of the tools.",
        f"{machine}; commit `{report['commit'][:12]}`.",
        "",
        "| image | MB, uncompressed | built in, s |",
        "|---|---|---|",
        *(f"| {row['image']} | {row['mb']:,} | {row['seconds']} |" for row in report["images"]),
        "",
        f"{'; '.join(report['tools'].values())}.",
        "`TCD_CONTAINERS_REPORT=docs/reports make containers` writes this page.",
    ]
    return "\n".join(lines) + "\n"


def write(report: dict[str, Any], place: Path) -> None:
    """`containers.json` and `containers.md`."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "containers.json").write_text(json.dumps(report, indent=1) + "\n")
    (place / "containers.md").write_text(page(report))
