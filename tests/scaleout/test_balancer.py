"""`docker/haproxy/haproxy.cfg` before shims that only say their name: who gets a session, what a death changes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.scaleout.parts import CONFIG, REPLICAS, balancer, free_ports
from tests.scaleout.report import markdown

SESSIONS = [f"session {i}" for i in range(60)]


class Named(ThreadingHTTPServer):
    """Answers its name to everything."""

    daemon_threads = True

    def __init__(self, name: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer()

            def _answer(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "1")
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                """Silent."""

        super().__init__(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def handle_error(self, *_: object) -> None:
        """A health check that hangs up is no news."""

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[tuple[int, int, dict[str, Named]]]:
    """Ports for callers and for scoring, and who is behind: shims by letter, Tritons by letter and `t`."""
    shim_port, triton_port, *ports = free_ports(2 + 2 * len(REPLICAS))
    behind = {
        name: Named(name[-1].upper() if name[0] == "t" else name, port)
        for name, port in zip((*REPLICAS, *(f"t{r}" for r in REPLICAS)), ports, strict=True)
    }
    addresses = {
        f"{'TRITON' if n[0] == 't' else 'SHIM'}_{n[-1].upper()}": f"127.0.0.1:{s.server_port}"
        for n, s in behind.items()
    }
    env = {**os.environ, **addresses, "SHIM_PORT": str(shim_port), "TRITON_PORT": str(triton_port)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([balancer(), "-db", "-f", str(CONFIG)], env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while ask(shim_port, "x") == "":
            alive = process.poll() is None and time.monotonic() < until
            assert alive, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield shim_port, triton_port, behind
    finally:
        process.kill()
        process.wait()
        for server in behind.values():
            with contextlib.suppress(OSError):
                server.end()


def ask(port: int, session: str | None, *, header: str | None = None, path: str = "/diagnose", pad: int = 0) -> str:
    """Who answers; empty when nobody does."""
    body = {"trace_vector": [-0.5], "pad": "x" * pad, **({} if session is None else {"session": session})}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        headers = {"Content-Type": "application/json", **({} if header is None else {"Tcd-Session": header})}
        connection.request("POST", path, json.dumps(body), headers)
        reply = connection.getresponse()
        return reply.read().decode() if reply.status == 200 else ""
    return ""


def test_a_session_has_one_shim_and_a_death_moves_only_its_own(front: tuple[int, int, dict[str, Named]]) -> None:
    port, scoring, behind = front
    before = {session: ask(port, session) for session in SESSIONS}
    assert set(before.values()) == set(REPLICAS)
    assert {session: ask(port, session) for session in SESSIONS} == before
    # a long body whose session comes last, and a header that says it
    assert [ask(port, session, pad=60_000) for session in SESSIONS[:5]] == [before[s] for s in SESSIONS[:5]]
    assert [ask(port, None, header=session) for session in SESSIONS] == list(before.values())
    assert [ask(port, "other", header=session) for session in SESSIONS[:9]] == [before[s] for s in SESSIONS[:9]]
    # scoring goes to whoever is there
    assert {ask(scoring, session, path="/v2/models/tcd_diagnose/infer") for session in SESSIONS} == {"A", "B", "C"}

    behind["b"].end()
    behind["ta"].end()
    # also before a health check has seen it: nobody is refused
    after = {session: ask(port, session) for session in SESSIONS}
    assert "" not in after.values()
    assert {s: at for s, at in after.items() if before[s] != "b"} == {s: at for s, at in before.items() if at != "b"}
    assert "" not in {ask(scoring, session, path="/v2/models/tcd_diagnose/infer") for session in SESSIONS}


def test_the_published_report_is_of_its_data() -> None:
    published = json.loads((ROOT / "docs/reports/scaleout.json").read_text())
    assert (ROOT / "docs/reports/scaleout.md").read_text() == markdown(published, images="scaleout-")
    assert published["failover"]["gave_up"] == 0
    assert published["failover"]["afterwards"]["most_spent_of_alpha"] <= 1.0 + 1e-12
