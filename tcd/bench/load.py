"""Load by wrk: many thin clients, each request the next step of one of many sessions."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tcd.bench.cpu import of_children
from tcd.errors import ConfigError

#: Sessions that one thread of wrk walks through: above the concurrency, so that two steps of one never meet, and few
#: enough that most requests are a later step of a session, as in a generation.
SESSIONS = 256

_SCRIPT = """
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end
local n = 0
local run = "%(run)s"
function request()
  n = n + 1
  local session = run .. "-" .. id .. "-" .. (n %% %(sessions)d)
  local tenant = "tenant" .. (n %% 8)
  return wrk.format("POST", "/diagnose", {["Content-Type"] = "application/json"},
    '{"tenant":"' .. tenant .. '","session":"' .. session .. '",' .. %(rest)s)
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON {"requests":%%d,"seconds":%%.6f,"p50":%%.3f,"p99":%%.3f,"p999":%%.3f,"max":%%.3f,"errors":%%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, latency.max / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One run of wrk; latencies in milliseconds, `errors` counts every answer that is not 2xx or 3xx.

    `cpu` are the CPU seconds of what made the load.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float
    max: float
    errors: int
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def body() -> dict[str, object]:
    """One step of a thin client: a token's log-probability and entropy, 16 singular values, 16 features."""
    return {
        "trace_vector": [-1.2345678],
        "entropy": 2.3456789,
        "spectrum": [round(90.0 / (i + 1), 6) for i in range(16)],
        "features": [round(0.37 * (-1) ** i * (i % 5), 6) for i in range(16)],
        "model_id": "smollm2-135m",
        "user": "user0",
        "tokens_delta": 1,
        "context": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 256},
    }


def wrk(url: str, *, concurrency: int, seconds: float, run: str) -> Load:
    """Drive `url` (scheme, host and port) with `concurrency` connections for `seconds`.

    Raises:
        ConfigError: when wrk is not installed.
    """
    program = shutil.which("wrk")
    if program is None:
        msg = "the load generator wrk is not installed (Debian/Ubuntu: apt-get install wrk)"
        raise ConfigError(msg)
    rest = json.dumps(json.dumps(body(), separators=(",", ":"))[1:])
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        script.write_text(_SCRIPT % {"run": run, "sessions": SESSIONS, "rest": rest})
        before = of_children()
        done = subprocess.run(
            [program, "-t1", f"-c{concurrency}", f"-d{seconds:g}s", "-s", str(script), url],
            check=True,
            capture_output=True,
            text=True,
        )
        cpu = of_children() - before
    line = next(text for text in done.stdout.splitlines() if text.startswith("JSON "))
    return Load(**json.loads(line[5:]), cpu=cpu)
