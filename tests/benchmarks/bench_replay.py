"""Memory and time of `tcd replay` over 10^4 to 10^7 lines, baseline and candidate in process; prints a table.

    python tests/benchmarks/bench_replay.py [--most 10000000]

The lines come through a pipe: recorded-like generations, written again and again under other names. Peak resident
memory is the child's own, from `wait4`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from sidecar_api.traffic.synthetic import synthetic

BLOCK = 10_000
POLICY = '[[policy]]\nname = "strict"\nversion = 1\n[[policy.decision]]\nname = "sure"\nwhen = {score = 0.99}\n'
POLICY += 'action = "block"\n'


def block() -> list[bytes]:
    return [msgspec.json.encode(line.request) for line in synthetic(BLOCK, seed=0)]


def feed(pipe: IO[bytes], lines: list[bytes], count: int) -> None:
    with pipe:
        for start in range(0, count, BLOCK):
            mark = b'"session":"%d-synthetic-' % (start // BLOCK)
            part = lines[: min(BLOCK, count - start)]
            pipe.write(b"\n".join(line.replace(b'"session":"synthetic-', mark) for line in part) + b"\n")


def measure(lines: list[bytes], count: int, policy: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tcd.cli.main", "replay", "--in-process", "--jsonl", "-", "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--candidate-policies", str(policy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        feeder = threading.Thread(target=feed, args=(child.stdin, lines, count))
        feeder.start()
        out = child.stdout.read()
        feeder.join()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    found = json.loads(out)
    assert found["requests"] == count, found["requests"]
    return {
        "lines": count,
        "exit": child.returncode,
        "changed": found["diff"]["changed"],
        "sessions": found["diff"]["sessions"],
        "peak_mib": round(used.ru_maxrss / 1024, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=1_000_000)
    most = parser.parse_args().most
    lines = block()
    say("| lines | generations | changed | peak MiB | CPU s | s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "candidate.toml"
        policy.write_text(POLICY)
        count = 10_000
        while count <= most:
            row = measure(lines, count, policy)
            names = ("lines", "sessions", "changed", "peak_mib", "cpu_s", "seconds")
            say("| " + " | ".join(f"{row[name]:,}" for name in names) + " |")
            count *= 10


if __name__ == "__main__":
    main()
