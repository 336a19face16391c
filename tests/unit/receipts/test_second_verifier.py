"""The verifier in Node: verifies what was issued with nothing but the key set, refuses what was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tcd.receipts import KeySet

SOURCE = Path(__file__).resolve().parents[3] / "docs" / "verifier" / "verify.mjs"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def _run(folder: Path, keys: Any, receipts: Any) -> tuple[int, dict[str, Any]]:
    (folder / "keys.json").write_text(json.dumps(keys))
    (folder / "receipts.json").write_text(json.dumps(receipts))
    command = [str(NODE), str(SOURCE), "keys.json", "receipts.json"]
    done = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}")


def test_honest_and_changed_receipts(session: Any, tmp_path: Path) -> None:
    session.decision()
    session.close()
    keys = KeySet([session.issuer.pinned()]).to_json()
    good = [{"receipt": r.head_hex, "receipt_body": r.body_text, "receipt_sig": r.sig_hex} for r in session.receipts]
    assert _run(tmp_path, keys, good) == (0, {"ok": True, "code": "ok", "records": 4})
    first = good[0]
    body = first["receipt_body"]
    cases = {
        "head_mismatch": [{**first, "receipt_body": body.replace('"acme"', '"acmf"')}],
        "not_canonical": [{**first, "receipt_body": body + "\n"}],
        "bad_number": [{**first, "receipt_body": body.replace('"seq":0', '"seq":0.0')}],
        "version": [{**first, "receipt_body": body.replace("tcd.receipt/2", "tcd.receipt/1")}],
        "bad_signature": [{**first, "receipt_sig": good[1]["receipt_sig"]}],
        "missing_signature": [{**first, "receipt_sig": None}],
        "seq_gap": [good[0], good[2]],
        "bad_string": [{**first, "receipt_body": body.replace("acme", "\\ud800")}],
        "limit": [{**first, "receipt_body": "[" * 9 + "]" * 9}],
    }
    for code, receipts in cases.items():
        status, report = _run(tmp_path, keys, receipts)
        assert (status, report["ok"], report["code"]) == (1, False, code)
    empty = {"v": "tcd.keyset/1", "keys": []}
    assert _run(tmp_path, empty, good)[1]["code"] == "unknown_key"
    assert _run(tmp_path, keys, [])[0] == 2
    assert _run(tmp_path, {"v": "?", "keys": []}, good)[0] == 2
