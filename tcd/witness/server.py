"""The witness as a small HTTP server: `POST /add-checkpoint`, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tcd.receipts.witnessing import MAX_REQUEST, Verdict, Witness
from tcd.witness.store import WitnessStore

PATH: Final = "/add-checkpoint"
#: Seconds after which a slow client is let go.
_TIMEOUT: Final = 10.0


class WitnessServer(ThreadingHTTPServer):
    """Serves one witness. `serve_forever` and `shutdown` as of any server of the standard library."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        witness: Witness,
        store: WitnessStore,
        *,
        clock: Callable[[], float] = time.time,
        log: Callable[[Verdict], None] = lambda _: None,
    ) -> None:
        """Bind.

        Args:
            address: host and port; port 0 picks a free one.
            witness: decides.
            store: remembers.
            clock: seconds since 1970.
            log: is told every verdict.

        Raises:
            OSError: the address cannot be bound.
        """
        self.witness, self.store, self.clock, self.log = witness, store, clock, log
        super().__init__(address, _Handler)

    def decide(self, raw: bytes) -> Verdict:
        """The verdict on a request; stored when this returns."""
        now = int(self.clock())
        verdict = self.store.decide(lambda seen: self.witness.judge(raw, seen=seen, time=now))
        self.log(verdict)
        return verdict

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: WitnessServer
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT
    server_version = "tcd-witness"
    sys_version = ""

    def do_POST(self) -> None:
        if self.path != PATH:
            self._answer(404, b"", "text/plain")
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdecimal()):
            self._answer(411, b"", "text/plain")
            return
        if len(length) > len(str(MAX_REQUEST)) or int(length) > MAX_REQUEST:
            self._answer(413, b"", "text/plain")
            return
        raw = self.rfile.read(int(length))
        if len(raw) != int(length):
            self.close_connection = True
            return
        verdict = self.server.decide(raw)
        self._answer(verdict.status, verdict.body, verdict.content_type)

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        # what was not read would be taken for the next request
        if status in {404, 411, 413} and not body:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's
        """Verdicts are logged, requests are not."""
