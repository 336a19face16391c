"""kill -9 of a shim that signs checkpoints: no size ever has two roots, and what was published is there and whole."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar_api.log.keyring import seed_keys
from tcd.config import load
from tcd.ledger import SqliteLedger
from tcd.ledger.audit_log import audit_log
from tcd.receipts import SigningKey, VerifyPolicy
from tcd.receipts.cosign import Cosigner
from tcd.receipts.logcheck import log_verifier
from tcd.receipts.merkle import CompactRange
from tcd.receipts.tlog_policy import parse_policy
from tcd.receipts.witnessing import Seen, Witness
from tcd.witness import WitnessServer, WitnessStore
from tests.faults import log_decider
from tests.faults.forked import Forked
from tests.faults.recording import lines
from tests.unit.shim.conftest import SEED_HEX

ORIGIN = "tcd.localhost"
KEYS = seed_keys(load({}).settings, bytes.fromhex(SEED_HEX))


def run_until_killed(arguments: list[str], *, checkpoints: int, wait: float) -> list[dict[str, Any]]:
    """What a process said that is killed `wait` seconds after its `checkpoints`-th checkpoint."""
    process = Forked(log_decider.start, *arguments)
    said = process.lines(checkpoints, b'"size"')
    time.sleep(wait)
    process.kill()
    return lines(said + process.rest())


async def check(data: Path, log: Path, said: list[dict[str, Any]], policy: VerifyPolicy, seen: Seen | None) -> Seen:
    """Every invariant; the newest exported checkpoint."""
    ledger = SqliteLedger(data)
    heads = list(await ledger.heads(limit=10_000_000))
    known = {head.hex() for head in heads}
    roots, tree = [CompactRange().root()], CompactRange()
    for head in heads:
        tree.extend([head])
        roots.append(tree.root())
    for line in said:
        if "receipt" in line:
            assert line["receipt"] in known
        else:
            # what was published before the kill is still the log's beginning, and a quorum saw it
            assert line["enough"]
            assert line["root"] == roots[line["size"]].hex()
    size = 0
    while (stored := await ledger.checkpoint(covering=size)) is not None:
        assert stored.root == roots[stored.size]
        size = stored.size
    assert size >= max((line["size"] for line in said if "size" in line), default=0)
    await ledger.close()
    audit = audit_log(log, policy=policy, origin=ORIGIN, seen=seen, heads=iter(heads))
    assert audit.ok, audit
    assert audit.newest is not None
    return audit.newest[1]


async def kill_often(where: Path, times: int) -> int:
    """Kill so often; how many receipts the log has in the end."""
    random = np.random.default_rng(20261126)
    key, name = SigningKey(b"w" * 32), "witness.example/w"
    store = WitnessStore(where / "witness.sqlite")
    assert KEYS.log is not None
    witness = Witness(name, [key], [log_verifier(pinned) for pinned in KEYS.log.pinned()])
    server = WitnessServer(("127.0.0.1", 0), witness, store)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    text = f"witness w {Cosigner(name, key.public).vkey()} http://127.0.0.1:{server.server_address[1]}\nquorum w\n"
    (where / "policy").write_text(text)
    policy = VerifyPolicy(
        KEYS.pinned, log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}), witnesses=parse_policy(text.encode())
    )
    arguments = [str(where / part) for part in ("data", "log", "policy")]
    seen: Seen | None = None
    try:
        for _ in range(times):
            said = run_until_killed(
                arguments, checkpoints=int(random.integers(1, 6)), wait=float(random.uniform(0, 0.05))
            )
            seen = await check(where / "data", where / "log", said, policy, seen)
        # the witness, which survived every kill, never saw two histories
        assert store.evidence() == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()
    assert seen is not None
    return seen.size


async def test_kills(tmp_path: Path) -> None:
    assert await kill_often(tmp_path, 4) > 20


@pytest.mark.long
async def test_many_kills(tmp_path: Path) -> None:
    assert await kill_often(tmp_path, 100) > 500
