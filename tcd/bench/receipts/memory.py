"""Memory of `tcd verify chain` by the length of the chain, each in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tcd.bench.receipts.sample import DECISION, OPENED, Session, seed
from tcd.receipts import KeySet, Receipt, SigningKey

#: Runs the command line in a process and prints what that process took at most (Linux).
_RUN: Final = """
import sys
from tcd.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print(open("/proc/self/status").read(), file=sys.stderr)
"""


def _line(receipt: Receipt) -> str:
    answer = {"receipt": receipt.head_hex, "receipt_body": receipt.body_text, "receipt_sig": receipt.sig_hex}
    return json.dumps(answer) + "\n"


def _write(folder: Path, records: int) -> None:
    session = Session.of(SigningKey(seed("issuer")))
    (folder / "keys.json").write_text(json.dumps(KeySet([session.issuer.pinned()]).to_json()))
    with (folder / "chain.jsonl").open("w") as file:
        file.write(_line(session.issue("open", OPENED)))
        for _ in range(records - 2):
            file.write(_line(session.issue("decision", DECISION)))
        file.write(_line(session.close()))


def measure(lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Peak resident memory and CPU time of a verification.

    Args:
        lengths: records of each chain.
    """
    rows = []
    for records in lengths:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            _write(folder, records)
            command = [sys.executable, "-c", _RUN, "verify", "chain", "chain.jsonl", "--keyset", "keys.json", "--json"]
            start = time.perf_counter()
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - start
            peak = re.search(r"^VmHWM:\s+(\d+) kB$", done.stderr, re.MULTILINE)
            if peak is None or json.loads(done.stdout)["records"] != records:
                raise AssertionError(done.stderr)
            size = (folder / "chain.jsonl").stat().st_size
        rows.append(
            {
                "records": records,
                "file_mb": round(size / 1e6, 1),
                "peak_mb": round(int(peak[1]) / 1024, 1),
                "seconds": round(seconds, 2),
            }
        )
    return rows
