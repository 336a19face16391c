"""Honest receipts made under concurrency: none is refused, by either verifier, with its proof and in its chain."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.ledger import SqliteLedger
from tcd.receipts import KeySet, MlDsaKey, Receipt, SigningKey, VerifyPolicy, verify_chain, verify_single
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import MerkleTree
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets
from tests.unit.shim.test_concurrency import uniform

VERIFIER = Path(__file__).resolve().parents[3] / "docs" / "verifier" / "verify.mjs"
NODE = shutil.which("node")
SESSIONS, AT_ONCE = 64, 48
BOTH = frozenset({"Ed25519", "ML-DSA-44"})


async def generated(client: Client, steps: int) -> None:
    """Sessions of several tenants, many in work at once; a step is asked twice now and then, as a retry is."""
    random = Random(20261126)  # noqa: S311 - reproducible
    turns = asyncio.Semaphore(AT_ONCE)

    async def session(number: int) -> None:
        for step in range(steps):
            value = {
                "session": f"s{number}",
                "tenant": f"t{number % 5}",
                "user": f"u{number % 7}",
                "trace_vector": [-1.0 - number / 7] * (1 + step % 3),
                "step_id": step if step < steps // 2 else step - steps // 2,
                "request_id": f"r{number}.{step}",
                "context": {"temperature": 0.7},
            }
            async with turns:
                first = await client.post(value)
                assert first.status == 200, first.body
                if random.random() < 0.1:
                    again = await client.post(value)
                    assert (again.status, again.body) == (200, first.body)

    await asyncio.gather(*map(session, range(SESSIONS)))


async def recorded(folder: Path, steps: int) -> tuple[list[Receipt], Any]:
    """Every receipt of the ledger in its order, and the issuer."""
    ledger = SqliteLedger(folder / "data")
    scorer = ScriptedScorer(p=uniform(3), hops=4)
    settings = settings_of(log_decisions=False)
    app = create_app(settings, scorer=scorer, assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger))
    await generated(Client(app), steps)
    await app.runtime.service.drain(timeout=60.0)
    await app.runtime.service.stop(timeout=60.0)
    receipts: list[Receipt] = []
    while heads := await ledger.heads(first=len(receipts), limit=5_000):
        for head in heads:
            stored = await ledger.get(head.hex())
            assert stored is not None
            assert stored.receipt is not None
            receipts.append(stored.receipt)
    await ledger.close()
    judge = app.runtime.service.judge
    assert judge.receipts is not None
    return receipts, judge.receipts.issuer


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.long)])
def test_no_honest_receipt_is_refused_by_either_verifier(tmp_path: Path, count: int) -> None:
    receipts, issuer = asyncio.run(recorded(tmp_path, -(-count // SESSIONS)))
    assert len(receipts) >= count
    kinds = Counter(receipt.typ for receipt in receipts)
    assert kinds["decision"] >= count
    assert {"open", "close"} <= kinds.keys()
    signer = LogSigner(issuer.origin, [SigningKey(bytes([1]) * 32), MlDsaKey(bytes([2]) * 32)])
    tree = MerkleTree(receipt.head for receipt in receipts)
    note = signer.checkpoint(len(tree), tree.root(), time=1)
    keys = KeySet([issuer.pinned(), *signer.pinned()])
    policy = VerifyPolicy(keys, require=frozenset({"signature", "inclusion", "checkpoint"}), log_algorithms=BOTH)
    proofs: dict[bytes, str] = {}
    chains: dict[str, list[Receipt]] = {}
    for index, receipt in enumerate(receipts):
        proof = TlogProof(index, tree.inclusion(index), note).write().decode()
        report = verify_single(receipt.body, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy, proof=proof)
        assert report.ok, (index, report)
        proofs[receipt.head] = proof
        chains.setdefault(receipt.chain, []).append(receipt)
    # sessions, and epochs of five tenants
    assert len(chains) > SESSIONS
    for own in chains.values():
        heads, sigs = [r.head_hex for r in own], [r.sig_hex for r in own]
        shown = [proofs[r.head] for r in own]
        chain = verify_chain([r.body for r in own], heads=heads, sigs=sigs, proofs=shown, policy=policy)
        assert chain.ok, chain
    (tmp_path / "keys.json").write_text(json.dumps(keys.to_json()))
    rows = [
        [
            {
                "receipt": r.head_hex,
                "receipt_body": r.body_text,
                "receipt_sig": r.sig_hex,
                "proof": proofs[r.head],
            }
            for r in own
        ]
        for own in chains.values()
    ]
    (tmp_path / "chains.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [str(NODE), str(VERIFIER), "keys.json", "chains.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(row["records"] for row in found) == len(receipts)
