"""The vectors that we publish: both verifiers come to every verdict and code, and they reach what they are for."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from tcd.conformance import check, load
from tests.unit.conformance.make_receipt_vectors import World, cases, primitives

VERIFIER = Path(__file__).resolve().parents[3] / "docs" / "verifier"
FOLDER = VERIFIER / "vectors"
NODE = shutil.which("node")
#: What a verifier of a single receipt or a chain can find without witnesses, objects and state.
CODES = {
    *("ok", "not_canonical", "bad_number", "bad_string", "limit", "schema", "version", "head_mismatch", "unknown_key"),
    *("key_not_authorised", "key_not_valid", "missing_signature", "bad_signature", "chain_id", "fork", "seq_gap"),
    *("prev_mismatch", "time_order", "leaf_mismatch", "bad_inclusion", "malformed_note", "malformed_checkpoint"),
    *("wrong_origin", "log_chain_mismatch"),
}


@pytest.mark.parametrize("name", ["receipts.json", "primitives.json"])
def test_ours_come_to_them(name: str) -> None:
    report = check(load(FOLDER / name))
    assert not report.failed, report
    assert sum(finding.compared for finding in report.findings) >= 20


def test_a_wrong_verdict_is_a_finding() -> None:
    data: Any = load(FOLDER / "receipts.json")
    for change in ({"ok": not data["cases"][0]["ok"]}, {"code": "ok"}):
        wrong = copy.deepcopy(data)
        wrong["cases"][0].update(change)
        assert check(wrong).failed
    steps: Any = load(FOLDER / "primitives.json")
    for name in ("heads", "kids", "messages", "chains", "subtrees"):
        wrong = copy.deepcopy(steps)
        last = {"heads": "head", "kids": "kid", "chains": "id"}.get(name, "message")
        wrong[name][0][last] = wrong[name][1][last]
        assert check(wrong).failed, name


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_second_verifier_comes_to_them() -> None:
    command = [str(NODE), str(VERIFIER / "verify.mjs"), "--vectors", str(FOLDER / "receipts.json")]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    wrong = [line for line in done.stdout.splitlines() if not json.loads(line)["ok"]]
    assert (done.returncode, wrong) == (0, []), done.stderr
    assert len(done.stdout.splitlines()) == len(json.loads((FOLDER / "receipts.json").read_text())["cases"])


def test_they_reach_every_code_and_are_what_the_script_writes() -> None:
    found = json.loads((FOLDER / "receipts.json").read_text())["cases"]
    assert {case["code"] for case in found} == CODES
    assert all(case["ok"] is (case["code"] == "ok") for case in found)
    world = World()
    made = json.loads(json.dumps(cases(world)))
    # ML-DSA-44 signatures are randomised, and the heads of the log after them follow from nothing random
    assert [case for case in made if "needs" not in case] == [case for case in found if "needs" not in case]
    assert json.loads(json.dumps(primitives(world))) == json.loads((FOLDER / "primitives.json").read_text())


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("count", [60, pytest.param(2_000, marks=pytest.mark.long)])
def test_ml_dsa_44_of_the_second_verifier(tmp_path: Path, count: int) -> None:
    """Its own arithmetic against OpenSSL's: keys, messages, contexts, one bit of the signature anywhere."""
    random, rows = Random(20261126), []  # noqa: S311 - reproducible
    for number in range(count):
        key = MLDSA44PrivateKey.from_seed_bytes(random.randbytes(32))
        message, context = random.randbytes(random.randrange(200)), random.randbytes(random.choice((0, 14, 255)))
        sig = bytearray(key.sign(message, context))
        if number % 3:
            # every part of it: challenge, response, hints
            at = random.randrange((32, 2336, 2420)[number % 3 - 1]) if number % 9 else random.randrange(2336, 2420)
            sig[at] ^= 1 << random.randrange(8)
        public = key.public_key().public_bytes_raw()
        rows.append([*(raw.hex() for raw in (public, message, context, sig)), not number % 3])
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = (VERIFIER / "verify.mjs").read_text()
    part = source[source.index("// ML-DSA-44 verification") : source.index("const SIZES =")]
    (tmp_path / "check.mjs").write_text(
        "import { createHash } from 'node:crypto';\nimport { readFileSync } from 'node:fs';\n"
        f"{part}\nconst raw = (text) => Buffer.from(text, 'hex');\n"
        "const wrong = JSON.parse(readFileSync('rows.json')).filter(([pub, message, context, sig, fine]) =>\n"
        "  verifyMlDsa(expandKey(raw(pub)), raw(message), raw(context), raw(sig)) !== fine);\n"
        "console.log(wrong.length);\n"
    )
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run([str(NODE), "check.mjs"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
