"""The whole road of a receipt with real processes: `tcd serve` before Triton, `tcd witness`, offline verification."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tcd.keystore import PRIVATE, KeyStore
from tcd.triton.launcher import TritonServer
from tests.conftest import ROOT
from tests.integration.shim.test_serve import start, stopped, until_ready

pytestmark = pytest.mark.triton
ORIGIN = "log.example"
TOKEN = "a-token-of-the-tests"
NODE = shutil.which("node")


def tcd(*arguments: str, code: int = 0) -> str:
    """The command line, as a user has it."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
    main = "from tcd.cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", main, *arguments], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@contextmanager
def witness(where: Path, keys: Path) -> Iterator[str]:
    """A `tcd witness` process that knows the log of these keys; the text of a policy that asks it."""
    logs = where / "logs"
    logs.write_text(tcd("keys", "list", "--dir", str(keys), "--vkeys"))
    seed = where / "witness.seed"
    seed.write_text("5a" * 32)
    seed.chmod(0o600)
    arguments = ["--logs", str(logs)]
    arguments += ["--name", "witness.example/w", "--key", str(seed), "--state", str(where / "w.sqlite"), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from tcd.cli.main import app; app()", "witness", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        vkey = process.stdout.readline().split()[1]
        url = process.stdout.readline().split()[1]
        yield f"witness w {vkey} {url}\nquorum w\n"
    finally:
        process.terminate()
        process.wait(180)
        if process.stdout is not None:
            process.stdout.close()


def polled(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_from_the_answer_to_an_offline_verifier(triton_server: TritonServer, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys", os.urandom, lambda: time.time_ns() // 1000)
    first = keys.generate(purpose="receipt", origin=ORIGIN)
    for alg in ("Ed25519", "ML-DSA-44"):
        keys.generate(purpose="checkpoint", origin=ORIGIN, alg=alg)
    assert (keys.root / PRIVATE / f"{first.kid}.seed").exists()
    keyset, policy, log = tmp_path / "keys/keyset.json", tmp_path / "policy", tmp_path / "log"
    with witness(tmp_path, keys.root) as text:
        policy.write_text(text)
        process = start(
            *("--port", "0", "--triton-url", triton_server.http_url, "--data-dir", str(tmp_path / "data")),
            TCD_LEDGER="sqlite",
            TCD_ORIGIN=ORIGIN,
            TCD_KEYS_DIR=str(tmp_path / "keys"),
            TCD_LOG_DIR=str(log),
            TCD_LOG_INTERVAL_S="0.1",
            TCD_LOG_WITNESSES=str(policy),
            TCD_LOG_NO_QUORUM="hold",
            TCD_API_TOKENS=json.dumps([{"token": TOKEN, "scopes": ["receipts:read"]}]),
        )
        with stopped(process):
            base = until_ready(process)["shim"].split()[0]
            bearer = {"Authorization": f"Bearer {TOKEN}"}

            def ask(session: str, step: int) -> Any:
                value = {"trace_vector": [-1.2], "entropy": 1.5, "session": session, "step_id": step}
                reply = httpx2.post(base + "/diagnose", json=value, timeout=90.0)
                assert reply.status_code == 200, reply.text
                return reply.json()

            def get(path: str) -> httpx2.Response:
                reply = httpx2.get(base + path, headers=bearer, timeout=90.0)
                assert reply.status_code == 200, reply.text
                return reply

            answers = [ask("one", step) for step in range(3)]
            get(f"/v1/log/proof/{answers[-1]['receipt']}?wait=30")
            # rotated while it runs: the next records are the new key's, with no word to the server
            tcd("keys", "rotate", "--dir", str(keys.root), first.kid)
            polled(lambda: json.loads(ask(str(time.monotonic_ns()), 0)["receipt_body"])["kid"] != first.kid)
            answers.append(ask("one", 3))
            assert json.loads(answers[-1]["receipt_body"])["kid"] != first.kid
            get(f"/v1/log/proof/{answers[-1]['receipt']}?wait=30")
            bundle, receipts = tmp_path / "bundle.json", tmp_path / "receipts.json"
            bundle.write_bytes(get(f"/v1/receipts/{answers[0]['receipt']}/bundle").content)
            records = json.loads(bundle.read_bytes())["receipts"]
            assert len(records) == 5
            receipts.write_text(
                json.dumps(
                    [
                        {"receipt": r["head"], "receipt_body": r["body"], "receipt_sig": r["sig"], "proof": r["proof"]}
                        for r in records
                    ]
                )
            )
            single = tmp_path / "receipt.json"
            single.write_bytes(get(f"/v1/receipts/{answers[1]['receipt']}").content)

    # nothing runs any more: only the key set, the policy and the files
    strict = tmp_path / "strict.json"
    strict.write_text(
        json.dumps(
            {
                "v": "tcd.verify-policy/1",
                "require": ["signature", "inclusion", "checkpoint", "witness_quorum"],
                "log_algorithms": ["Ed25519", "ML-DSA-44"],
            }
        )
    )
    demanded = ("--keyset", str(keyset), "--policy", str(strict), "--witnesses", str(policy))
    assert "ok" in tcd("verify", "bundle", str(bundle), *demanded)
    assert "ok" in tcd("verify", "receipt", str(single), *demanded)
    # what closed at shutdown is in the exported log too, and the ledger is that log
    audited = ("--keyset", str(keyset), "--state", str(tmp_path / "seen.json"))
    tcd("audit", "log", str(log), "--origin", ORIGIN, "--witnesses", str(policy), *audited)
    tcd("audit", "store", str(tmp_path / "data"), "--origin", ORIGIN, *audited)
    before = keyset.read_bytes()
    # stolen after the third answer: the fourth was signed by its successor, the others are no longer good
    tcd("keys", "compromise", "--dir", str(keys.root), first.kid, "--size", "1")
    assert "key_not_valid" in tcd("verify", "receipt", str(single), *demanded, code=1)
    if NODE is None:
        pytest.skip("needs node")
    keyset.write_bytes(before)
    script = str(ROOT / "docs/verifier/verify.mjs")
    done = subprocess.run([NODE, script, str(keyset), str(receipts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
