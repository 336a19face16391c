"""`tcd serve` as people start it: a process of its own with a real Triton, on free ports."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT = 240.0
_STOP_TIMEOUT = 120.0
#: Settings of every shim here: a machine that is busy with something else must not make a step a degraded one.
PATIENT = {"TCD_DEADLINE_MS": "600000", "TCD_DEADLINE_MAX_MS": "600000"}


@dataclass(frozen=True, slots=True)
class Stack:
    """A running pair of servers; URLs without a path."""

    process: subprocess.Popen[bytes]
    shim: str
    triton: str
    triton_metrics: str
    log: Path

    @property
    def host(self) -> str:
        return self.shim.removeprefix("http://").partition(":")[0]

    @property
    def port(self) -> int:
        return int(self.shim.rpartition(":")[2])


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


@contextlib.contextmanager
def serving(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, python: Path = Path(sys.executable)
) -> Iterator[Stack]:
    """Start `tcd serve` of an environment and wait until it is ready; SIGTERM in the end, and it must obey."""
    log = folder / "serve.log"
    command = [str(python), "-m", "tcd.cli.main", "serve", "--port", "0"]
    if "--triton-url" not in arguments:
        command += ["--triton-port", "0"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
            | {"TCD_DATA_DIR": str(folder / "data"), **PATIENT}
            | (env or {}),
        )
    try:
        until = time.monotonic() + _START_TIMEOUT
        while "\nready " not in (text := log.read_text(errors="replace")):
            assert process.poll() is None, text
            assert time.monotonic() < until, text
            time.sleep(0.05)
        yield Stack(
            process,
            _find(r"(?m)^shim +(\S+)", text),
            _find(r"(?m)^triton +(http\S+)", text),
            _find(r"metrics (http://\S+?/metrics)\)\nready", text) if "gRPC" in text else "",
            log,
        )
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(_STOP_TIMEOUT) == 0, log.read_text(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
