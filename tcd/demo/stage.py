"""What the demo stands on: a Triton server with the ensemble (and the demo LLM), and a shim in front of it.

Both listen on free loopback ports, both end with the demo. The receipt key is made here, so that the demo knows
the public half without asking the shim.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tcd.demo.client import MODEL
from tcd.demo.scenarios import HOLD
from tcd.errors import LauncherError
from tcd.receipts import SigningKey
from tcd.triton.launcher import DEFAULT_MODELS, LaunchOptions, TritonServer
from tcd.triton.process import GuardedProcess, group_members, usage

if TYPE_CHECKING:  # in `typing` from Python 3.11 on
    from typing_extensions import Self

#: The issuer that the demo's receipts name.
ORIGIN: Final = "tcd.demo"
_START: Final = 60.0
_STOP: Final = 10.0
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are: gRPC `host:port` of Triton, its HTTP URL, the shim's URL, the receipts' public key."""

    grpc_url: str
    http_url: str
    shim_url: str
    public: bytes


class Stage:
    """Triton and the shim as a context manager."""

    def __init__(self, directory: Path, *, llm: bool) -> None:
        """Prepare.

        Args:
            directory: for the logs `triton.log` and `shim.log`; it exists.
            llm: whether Triton loads the demo LLM.
        """
        self._directory = directory
        models = (*DEFAULT_MODELS, MODEL) if llm else DEFAULT_MODELS
        self._triton = TritonServer(
            LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, models=models, log_path=directory / "triton.log")
        )
        self._shim: GuardedProcess | None = None

    def cpu_seconds(self) -> float:
        """CPU that Triton, its models and the shim have used since they started."""
        groups = [process.pid for process in (self._triton, self._shim) if process is not None and process.pid]
        return usage(pid for group in groups for pid in group_members(group)).cpu_seconds

    def __enter__(self) -> Self:
        """Start both and wait until they answer.

        Raises:
            LauncherError: one of them does not come up; the text says why.
        """
        self._triton.start()
        try:
            self.places = self._start_shim()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both."""
        self._stop()

    def _stop(self) -> None:
        if self._shim is not None:
            self._shim.stop(grace=_STOP)
            self._shim = None
        self._triton.stop()

    def _start_shim(self) -> Places:
        seed = secrets.token_hex(32)
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        url = f"http://127.0.0.1:{port}"
        settings = {
            "TCD_HTTP_PORT": str(port),
            "TCD_TRITON_URL": urlsplit(self._triton.http_url).netloc,
            "TCD_ATTEST_SK_HEX": seed,
            "TCD_LEDGER": "memory",
            "TCD_GRPC_PORT": "0",
            "TCD_ORIGIN": ORIGIN,
            "TCD_COOLDOWN_STEPS": str(HOLD),
            # a busy laptop is slower than a server; a late answer would end the generation (on_failure=closed)
            "TCD_DEADLINE_MS": "60000",
            "TCD_DEADLINE_MAX_MS": "60000",
            "TCD_LOG_LEVEL": "warning",
        }
        # The caller's own TCD_ settings are for another shim.
        env = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")} | settings
        log = self._directory / "shim.log"
        self._shim = GuardedProcess([sys.executable, "-m", "tcd.cli.main", "serve"], env=env, log=log)
        self._wait(url, log)
        public = SigningKey.from_hex(seed).public
        return Places(self._triton.grpc_url, self._triton.http_url, url, public)

    def _wait(self, url: str, log: Path) -> None:
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            if self._shim is None or self._shim.poll() is not None:
                break
            if _ready(url):
                return
            time.sleep(0.1)
        tail = log.read_text(errors="replace")[-1000:] if log.exists() else ""
        msg = f"the shim does not come up; the end of {log}:\n{tail}\nremedy: run `tcd serve` to see why"
        raise LauncherError(msg)


def _ready(url: str) -> bool:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == _OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
