"""From a fresh clone and an empty cache to the first verified receipt.

`python -m tests.benchmarks.bench_first_minutes` clones the last commit, runs `make serve` with a home, a cache
and a data directory that are empty, then the README's first request and its verification, at the shim and offline.
What is timed includes the downloads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_LIMIT: Final = 1800.0


class Steps:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        """The clock starts."""
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def done(self, name: str) -> None:
        """A step ended now."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def _post(url: str, body: object) -> bytes:
    request = urllib.request.Request(  # noqa: S310 - loopback
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


def _served(process: subprocess.Popen[bytes], log: Path) -> str:
    """The shim's URL, once it says that it is ready."""
    until = time.monotonic() + _LIMIT
    while "\nready " not in (text := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"make serve did not get ready:\n{text}")
        time.sleep(0.02)
    found = re.search(r"(?m)^shim +(\S+)", text)
    if found is None:
        sys.exit(f"no URL:\n{text}")
    return found[1]


def measure(place: Path) -> dict[str, float]:
    """The steps of somebody who comes new, in `place`."""
    steps = Steps()
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(place / "tcd")], check=True)
    steps.done("clone")
    home = place / "home"
    home.mkdir()
    # pip's own settings stay; its cache, and every setting of tcd, do not
    env = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
    env |= {"HOME": str(home), "PIP_NO_CACHE_DIR": "1", "XDG_STATE_HOME": str(home / "state")}
    log = place / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["make", "serve", "ARGS=--port 0 --triton-port 0"],
            cwd=place / "tcd", env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        shim = _served(process, log)
        steps.done("make serve, until it says ready")
        answer = _post(f"{shim}/diagnose", {"session": "first", "step_id": 0, "trace_vector": [-0.11, -2.3, -0.7]})
        steps.done("first decision")
        decision = json.loads(answer)
        names = {
            "receipt_head_hex": "receipt", "receipt_body_json": "receipt_body",
            "receipt_sig_hex": "receipt_sig", "verify_key_hex": "verify_key",
        }  # fmt: skip
        verdict = json.loads(_post(f"{shim}/verify", {name: decision[member] for name, member in names.items()}))
        if verdict["ok"] is not True:
            sys.exit(f"refused: {verdict}")
        steps.done("verified by the shim")
        (place / "answer.json").write_bytes(answer)
        with urllib.request.urlopen(f"{shim}/v1/log/keys", timeout=30) as keys:  # noqa: S310
            (place / "keyset.json").write_bytes(keys.read())
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
    steps.done("stop")
    verify = ["verify", "receipt", str(place / "answer.json"), "--keyset", str(place / "keyset.json")]
    subprocess.run([str(place / "tcd" / ".venv" / "bin" / "tcd"), *verify], check=True, env=env, capture_output=True)
    steps.done("verified offline, after the servers have gone")
    return steps.seconds


def main() -> None:
    """Measure, print, and with --out write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for first-minutes.json and .md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcd-first-") as folder:
        seconds = measure(Path(folder))
    total = round(sum(v for k, v in seconds.items() if k != "stop"), 1)
    machine = f"{os.cpu_count()} cores of {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end"
    lines = ["# From a fresh clone to the first verified receipt", "", f"{machine}; {total} s in all.", ""]
    lines += ["| step | seconds |", "|---|---|", *(f"| {name} | {value} |" for name, value in seconds.items())]
    lines += [
        "",
        "`python -m tests.benchmarks.bench_first_minutes`; caches are empty, downloads are part of it,",
        "by a fast connection.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        report = {"machine": machine, "python": sys.version.split()[0], "seconds": seconds, "total_s": total}
        (arguments.out / "first-minutes.json").write_text(json.dumps(report, indent=1) + "\n")
        (arguments.out / "first-minutes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
