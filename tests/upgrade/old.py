"""An earlier version of tcd at work: `tcd serve` of a commit, asked over HTTP as its callers would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.e2e.stack import PATIENT

SEED = "5a" * 32
SESSIONS, STEPS = 4, 3
#: A stored answer is to be there whenever a test asks for it.
FOREVER = str(100 * 365 * 86_400)
_START = 300.0


def git(*args: str) -> str:
    """What git says in this checkout."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=True).stdout.decode().strip()


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The sources of a commit in a directory of their own."""
    with tempfile.TemporaryDirectory(prefix="tcd-old-") as place:
        tree = Path(place) / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


class Serving:
    """A `tcd serve` of some sources, with a Triton of its own."""

    def __init__(self, tree: Path, folder: Path, **settings: str) -> None:
        """Start it and wait until it is ready.

        Raises:
            AssertionError: it does not come up; has what it said.
        """
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
        fixed = {"TCD_ATTEST_SK_HEX": SEED, "TCD_IDEMPOTENCY_TTL_S": FOREVER, **PATIENT}
        # epochs of several sessions with so few calibration sessions
        fixed["TCD_ALPHA"] = "0.9"
        self._log = folder / f"serve-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "tcd.cli.main", "serve", "--port", "0", "--triton-port", "0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(folder)],
                cwd=tree,
                env={**clean, "PYTHONPATH": str(tree), **fixed, **settings},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _START
        while not re.search(r"(?m)^ready ", self.said()):
            alive = self._process.poll() is None and time.monotonic() < until
            assert alive, self.said()[-3000:]
            time.sleep(0.1)
        found = re.search(r"(?m)^shim +(\S+)", self.said())
        assert found is not None
        self.url = found[1]

    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace")

    def ask(self, path: str, body: Any = None) -> tuple[int, str]:
        """Status and text of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - our own server
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; SIGKILL takes the shim alone by surprise, its Triton goes with it."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(120)


def requests(first: int = 0, steps: int = STEPS, *, name: str = "s") -> list[dict[str, Any]]:
    """Steps of some sessions of two tenants, each with an idempotency key."""
    out = []
    for step in range(first, first + steps):
        for number in range(SESSIONS):
            session = f"{name}{number}"
            out.append(
                {
                    "tenant": f"t{number % 2}",
                    "user": "u",
                    "session": session,
                    "step_id": step,
                    "trace_vector": [-1.25],
                    "entropy": 1.5,
                    "idempotency_key": f"{session}-{step}",
                }
            )
    return out


def ask_all(server: Serving, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests with their answers; every one has to be a decision of the ensemble.

    Raises:
        AssertionError: one is not.
    """
    out = []
    for request in asked:
        status, text = server.ask("/diagnose", request)
        assert status == 200, text
        assert json.loads(text)["cause"] != "degraded", text
        out.append({"request": request, "answer": text})
    return out
