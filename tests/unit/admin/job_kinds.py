"""Functions that the tests of jobs run in jobs' processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from sidecar_api.admin.job_process import Run
from tcd.errors import ConfigError


def write(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a file; says what it was given."""
    print("not a message")  # noqa: T201 - what a library may do
    run.progress(1, 2, "half")
    (run.folder / "out.json").write_text("{}")
    (run.folder / "UPPER.json").write_text("not a name")
    return {"given": dict(arguments), "pid": os.getpid(), "nice": os.nice(0)}


def wait(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Waits for a file."""
    (run.folder / "pid.json").write_text(str(os.getpid()))
    run.say(done=1, total=3, note="waiting")
    until = time.monotonic() + 60
    while time.monotonic() < until and not os.path.exists(arguments["file"]):  # noqa: PTH110 - a plain text
        time.sleep(0.01)
    return {}


def grow(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Writes many files, each of them within the limit."""
    for number in range(1000):
        (run.folder / f"part-{number}.json").write_bytes(b"0" * arguments["size"])
        time.sleep(0.01)
    return {}


def refuse(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fails as it should."""
    msg = "the ledger is not there"
    raise ConfigError(msg)


def break_(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fails as it should not, with a secret in its message."""
    msg = "secret"
    raise RuntimeError(msg)


def die(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Is killed."""
    os.kill(os.getpid(), 9)
    return {}


def chatter(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Says too much at once."""
    return {"long": "x" * (2 << 20)}


def fill(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Takes more and more memory, in pieces or at once."""
    return {"kept": len([bytearray(arguments["piece"]) for _ in range(arguments["pieces"])])}


def numb(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Stays in one call of C, so that no other thread of its process gets a turn."""
    (run.folder / "pid.json").write_text(str(os.getpid()))
    return {"sum": sum(range(10**14))}
