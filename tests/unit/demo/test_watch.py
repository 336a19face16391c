"""Both ways to tcd: what is sent, and how answers and failures are read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.contract import TIERS
from tcd.demo.sampler import Setting
from tcd.demo.watch import Seen, ShimSession, ShimWatcher, WatchError, shim_answer

BASE = Setting(0.8, 0.95)
ROUTE = {"temperature": 0.6, "top_p": 0.9, "decoder": "no_repeat", "max_tokens": 7, "tier": "cautious", "tags": []}
MEMBERS: dict[str, Any] = {
    "score": 0.999,
    "p_value": 0.02,
    "verdict": True,
    "trigger": False,
    "threshold": 0.99,
    "action": "degrade",
    "enforced": "degrade",
    "cause": "detector",
    "budget_remaining": 0.04,
    "alpha_alloc": 0.01,
    "e_value": 2.0,
    "guarantee": "none (demo)",
    "route": ROUTE,
    "components": {"recurrence": {"severity": 0.7}, "av": {"severity": 0.1}, "input": {"severity": 0.0}},
    "receipt": "ab" * 32,
    "receipt_body": "{}",
    "receipt_sig": "cd" * 64,
    "verify_key": "ef" * 32,
}


class Shim(ThreadingHTTPServer):
    """A shim that answers what it is told to, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = 200, json.dumps(MEMBERS).encode()
        self.asked: list[dict[str, Any]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shim

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def shim() -> Iterator[Shim]:
    server = Shim()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def seen(step: int, logits: NDArray[np.float32] | None = None) -> Seen:
    rng = np.random.default_rng(step)
    drawn = rng.normal(size=50).astype(np.float32) if logits is None else logits
    return Seen(step, drawn, 3, rng.normal(size=(20, 576)).astype(np.float32), BASE, 9)


def test_a_step_is_posted_with_the_newest_signals_over_one_connection(shim: Shim, assets: AssetSet) -> None:
    watcher = ShimWatcher(ShimSession(shim.url, session="s1", temperature=0.8), assets)
    answers = [watcher.observe(seen(step)) for step in range(3)]
    watcher.close()
    assert shim.connections == 1
    for step, body in enumerate(shim.asked):
        logits = seen(step).logits.astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum()
        assert body["trace_vector"] == [pytest.approx(np.log(p[3]), abs=1e-5)]
        assert body["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
        assert body["spectrum"] == pytest.approx(np.linalg.svd(seen(step).hidden, compute_uv=False)[:16], rel=1e-4)
        matrix = assets.projection(576)
        assert matrix is not None
        projected = (seen(step).hidden[-1] @ matrix.matrix)[:-1].tolist()
        nucleus = int((np.cumsum(-np.sort(-p)) < 0.95).sum()) + 1
        assert body["features"] == pytest.approx([*projected, np.log(nucleus)], rel=1e-4, abs=1e-4)
        assert (body["window"], body["step_id"], body["session"], body["model_id"]) == (
            "step",
            step,
            "s1",
            "smollm2-135m",
        )
    answer = answers[0]
    assert (answer.tier, answer.action, answer.budget) == (TIERS.index("cautious"), "degrade", 0.04)
    assert (answer.route.temperature, answer.route.decoder, answer.route.max_tokens) == (0.6, 3, 7)
    assert answer.components == {"recurrence": 0.7}
    assert answer.receipt is not None
    assert answer.receipt.signature == "cd" * 64


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (503, b'{"code": "scoring_unavailable", "detail": "the ensemble is away"}', "503 scoring_unavailable: the ens"),
        (429, b"[]", "429"),
        (200, b"not json", "not an answer"),
        (200, b"{}", "not an answer"),
        (200, b"[1]", "not an answer"),
    ],
)
def test_whatever_is_no_answer_is_said_and_the_session_goes_on(
    shim: Shim, assets: AssetSet, status: int, body: bytes, says: str
) -> None:
    watcher = ShimWatcher(ShimSession(shim.url, session="s1", temperature=0.8), assets)
    good = shim.body
    shim.status, shim.body = status, body
    with pytest.raises(WatchError, match=says):
        watcher.observe(seen(0))
    shim.status, shim.body = 200, good
    assert watcher.observe(seen(1)).verdict
    watcher.close()


def test_no_shim_is_said(assets: AssetSet) -> None:
    watcher = ShimWatcher(ShimSession("http://127.0.0.1:1", session="s", temperature=0.8, timeout=1.0), assets)
    with pytest.raises(WatchError, match="does not answer"):
        watcher.observe(seen(0))


def test_a_nan_in_the_logits_is_not_sent(shim: Shim, assets: AssetSet) -> None:
    watcher = ShimWatcher(ShimSession(shim.url, session="s1", temperature=0.8), assets)
    with pytest.raises(WatchError, match="no finite signals"):
        watcher.observe(seen(0, np.full(50, np.nan, np.float32)))
    assert shim.asked == []
    watcher.observe(seen(1))
    watcher.close()


def test_what_a_route_leaves_open_is_what_was_asked() -> None:
    route = {**ROUTE, "temperature": None, "top_p": None, "max_tokens": None, "decoder": None}
    answer = shim_answer({**MEMBERS, "route": route, "receipt": None}, base=BASE, left=5)
    assert answer.route.setting == BASE
    assert answer.route.max_tokens == 5
    assert answer.receipt is None
