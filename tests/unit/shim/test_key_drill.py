"""Keys of a running shim: rotated under it and between runs, compromised at a size; what verifies then and what not."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.log.keyring import KeyRing
from sidecar_api.reload import Reloader
from tcd.config import load
from tcd.errors import ConfigError
from tcd.keystore import KeyStore
from tcd.ledger import MemoryLedger, SqliteLedger, StoredReceipt
from tcd.receipts import VerifyPolicy, verify_chain, verify_single
from tcd.receipts.rotation import check_rotation

ORIGIN = "tcd.localhost"
START = 1_800_000_000_000_000
MINUTE = 60_000_000
STRICT = frozenset({"signature", "inclusion", "checkpoint"})


class Clock:
    """Microseconds that only a test moves, and one per look."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        self.now += 1
        return self.now


def made(directory: Path, clock: Clock, *, quantum: bool = True) -> KeyStore:
    store = KeyStore(directory, os.urandom, clock)
    store.generate(purpose="receipt", origin=ORIGIN)
    store.generate(purpose="checkpoint", origin=ORIGIN)
    if quantum:
        store.generate(purpose="checkpoint", origin=ORIGIN, alg="ML-DSA-44")
    return store


@asynccontextmanager
async def serving(client: Any) -> AsyncIterator[Any]:
    async with client.app.router.lifespan_context(client.app):
        yield client


@pytest.fixture
def shim(make_client: Callable[..., Any]) -> Callable[..., Any]:
    def make(keys: Path, clock: Clock, ledger: Any, **changes: Any) -> Any:
        changes = {"keys_dir": keys, "log_interval_s": 0.02, "subject_key_hex": "77" * 32, **changes}
        return make_client(edges=Edges(now_us=clock, ledger=ledger), attest_sk_hex=None, **changes)

    return make


def kid(answer: Any) -> str:
    found: str = json.loads(answer["receipt_body"])["kid"]
    return found


async def fetched(client: Any, answer: Any) -> dict[str, Any]:
    """What a holder has: the receipt and its newest proof."""
    reply = await client.get(f"/v1/log/proof/{answer['receipt']}", query="wait=30")
    assert reply.status == 200, reply.body
    return {
        "body": answer["receipt_body"],
        "head": answer["receipt"],
        "sig": answer["receipt_sig"],
        "proof": reply.body,
    }


async def whole_log(ledger: Any) -> list[StoredReceipt]:
    found = [await ledger.get(head.hex()) for head in await ledger.heads()]
    assert all(item is not None and item.receipt is not None for item in found)
    return found


def code(policy: VerifyPolicy, receipt: dict[str, Any]) -> str:
    return verify_single(receipt["body"], **{k: v for k, v in receipt.items() if k != "body"}, policy=policy).code


async def test_drill(shim: Callable[..., Any], tmp_path: Path) -> None:
    """Rotate under a running shim, then compromise: before the size all verifies, after it nothing of the old key."""
    clock, ledger = Clock(), MemoryLedger()
    store = made(tmp_path, clock)
    async with serving(shim(tmp_path, clock, ledger)) as client:
        runtime = client.app.runtime
        before = [await client.step(session=f"a{i}") for i in range(5)]
        early = [await fetched(client, answer) for answer in before]
        checkpoint = await ledger.checkpoint()
        assert checkpoint is not None
        safe = checkpoint.size
        later = [await client.step(session=f"b{i}") for i in range(5)]
        late = [await fetched(client, answer) for answer in later]
        store.rotate(kid(before[0]), overlap_us=5 * MINUTE)
        assert Reloader(runtime).keys()
        assert not Reloader(runtime).keys()
        after = [await client.step(session=name) for name in ("c0", "b0")]
        new = [await fetched(client, answer) for answer in after]
        assert len({kid(answer) for answer in [*before, *later]}) == len({kid(answer) for answer in after}) == 1
        assert kid(before[0]) != kid(after[0])

        # the log tells of it: both keys signed, and no record of the new key comes before
        records = await whole_log(ledger)
        bodies = [json.loads(item.receipt.body) for item in records if item.receipt is not None]
        at = next(i for i, body in enumerate(bodies) if body["typ"] == "rotate")
        assert [body["typ"] for body in bodies[at - 1 : at + 2]] == ["open", "rotate", "close"]
        assert {body["kid"] for body in bodies[: at + 2]} == {kid(before[0])}
        assert {body["kid"] for body in bodies[at + 2 :]} == {kid(after[0])}
        assert check_rotation(bodies[at]).kid == kid(after[0])
        acted = [body["admin"] for body in bodies if body["typ"] == "admin"]
        assert acted == [
            {"action": "keys.reload", "actor": "state token", "object": runtime.keyring.keys.pinned.digest}
        ]
        policy = VerifyPolicy(store.keyset(), require=STRICT)
        trio = [item.receipt for item in records[at - 1 : at + 2] if item.receipt is not None]
        report = verify_chain(
            [item.body for item in trio],
            heads=[item.head_hex for item in trio],
            sigs=[item.sig_hex for item in trio],
            policy=policy,
        )
        assert (report.ok, report.code) == (True, "ok")
        assert {code(policy, receipt) for receipt in [*early, *late, *new]} == {"ok"}

        # it was stolen: nobody can tell what it signed honestly after the last safe size
        store.change(kid(before[0]), compromised_after_size=safe)
        assert Reloader(runtime).keys()
        policy = VerifyPolicy(store.keyset(), require=STRICT)
        assert {code(policy, receipt) for receipt in early} == {"ok"}
        assert {code(policy, receipt) for receipt in late} == {"key_not_valid"}
        assert {code(policy, receipt) for receipt in new} == {"ok"}
        for receipts, wanted in ((early, "ok"), (late, "key_not_valid"), (new, "ok")):
            for receipt in receipts:
                request = {
                    "receipt_head_hex": receipt["head"],
                    "receipt_body_json": receipt["body"],
                    "receipt_sig_hex": receipt["sig"],
                }
                proved = await client.post({**request, "proof": receipt["proof"].decode()}, "/verify")
                assert proved.json()["code"] == wanted
                # without the proof nothing of a stolen key is good
                bare = await client.post(request, "/verify")
                assert bare.json()["code"] == ("ok" if wanted == "ok" and receipts is new else "key_not_valid")
        # a fresh proof under a newer checkpoint does as well
        again = await fetched(client, before[0])
        assert again["proof"] != early[0]["proof"]
        assert code(policy, again) == "ok"


@pytest.mark.parametrize("overlap", [0, 5 * MINUTE])
async def test_a_rotation_between_two_runs(shim: Callable[..., Any], tmp_path: Path, overlap: int) -> None:
    """The old key hands over at the start, also where its time is over: then with the last moment that it had."""
    clock, keys = Clock(), tmp_path / "keys"
    store = made(keys, clock)
    ledger = SqliteLedger(tmp_path / "data")
    async with serving(shim(keys, clock, ledger)) as client:
        old = await client.step()
    await ledger.close()
    retired, new = store.rotate(kid(old), overlap_us=overlap)
    clock.now += MINUTE
    ledger = SqliteLedger(tmp_path / "data")
    async with serving(shim(keys, clock, ledger)) as client:
        answer = await client.step()
        assert kid(answer) == new.kid
        policy = VerifyPolicy(store.keyset(), require=STRICT)
        assert code(policy, await fetched(client, answer)) == "ok"
        assert code(policy, await fetched(client, old)) == "ok"
        records = [item.receipt for item in await whole_log(ledger) if item.receipt is not None]
    await ledger.close()
    rotated = [record for record in records if record.typ == "rotate"]
    assert len(rotated) == 1
    assert retired.valid_at(rotated[0].ts_us)
    for record in records:
        report = verify_single(
            record.body, head=record.head_hex, sig=record.sig_hex, policy=VerifyPolicy(store.keyset())
        )
        assert report.ok, (record.typ, report.code)
    assert [record.kid for record in records] == sorted((r.kid for r in records), key=lambda k: k == new.kid)
    # the next start has nothing to hand over
    ledger = SqliteLedger(tmp_path / "data")
    async with serving(shim(keys, clock, ledger)):
        pass
    records = [item.receipt for item in await whole_log(ledger) if item.receipt is not None]
    assert [record.typ for record in records].count("rotate") == 1
    await ledger.close()


async def test_new_keys_of_the_log(shim: Callable[..., Any], tmp_path: Path) -> None:
    """Old receipts get proofs under checkpoints of the new keys; those of the old key stay good as of their time."""
    clock, ledger = Clock(), MemoryLedger()
    store = made(tmp_path, clock)
    async with serving(shim(tmp_path, clock, ledger)) as client:
        answer = await client.step()
        old = await fetched(client, answer)
        clock.now += MINUTE
        for key in list(store.keyset()):
            if key.purpose == "checkpoint":
                store.rotate(key.kid)
        clock.now += MINUTE
        assert Reloader(client.app.runtime).keys()
        await fetched(client, await client.step(session="later"))
        new = await fetched(client, answer)
        policy = VerifyPolicy(store.keyset(), require=STRICT, log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))
        assert old["proof"] != new["proof"]
        assert (code(policy, old), code(policy, new)) == ("ok", "ok")
        # a stolen log key: only what witnesses saw could count, and there are none here
        for key in store.keyset():
            if key.purpose == "checkpoint" and key.not_after_us is not None:
                store.change(key.kid, compromised_after_size=10_000)
        policy = VerifyPolicy(store.keyset(), require=STRICT)
        assert (code(policy, old), code(policy, new)) == ("key_not_valid", "ok")


def ring(directory: Path, clock: Clock, **changes: Any) -> KeyRing:
    return KeyRing(load({"TCD_KEYS_DIR": str(directory)}, cli=changes).settings, seed=b"", now_us=clock)


def test_which_keys_are_used(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(ConfigError, match=r"no valid receipt key of tcd\.localhost; remedy: tcd keys generate"):
        ring(tmp_path, clock)
    store = made(tmp_path, clock, quantum=False)
    keys = ring(tmp_path, clock).keys
    assert keys.log is not None
    assert keys.log.algorithms == {"Ed25519"}
    with pytest.raises(ConfigError, match="no valid receipt key of another"):
        ring(tmp_path, clock, origin="another")
    # one that begins later is taken when its time has come
    hybrid = store.generate(purpose="receipt", origin=ORIGIN, alg="Ed25519+ML-DSA-44", not_before_us=clock.now + MINUTE)
    running = ring(tmp_path, clock)
    assert (running.keys.receipt.kid, running.changed) == (keys.receipt.kid, False)
    clock.now += MINUTE
    assert running.changed
    assert running.refresh().receipt.kid == keys.receipt.kid
    assert (running.keys.receipt.kid, running.changed, running.problem()) == (hybrid.kid, False, "")
    # keys of one tenant do not sign for all
    store.generate(purpose="receipt", origin=ORIGIN, tenants=("acme",), not_before_us=clock.now)
    assert ring(tmp_path, clock).keys.receipt.kid == hybrid.kid
    store.generate(purpose="receipt", origin=ORIGIN, not_before_us=hybrid.not_before_us)
    with pytest.raises(ConfigError, match="several receipt keys"):
        ring(tmp_path, clock)
    # a set that cannot be used leaves the old keys, which are not ready any more
    store.change(hybrid.kid, not_after_us=clock.now)
    store.change(keys.receipt.kid, not_after_us=clock.now)
    for key in store.keyset():
        if key.purpose == "receipt":
            store.change(key.kid, not_after_us=clock.now)
    clock.now += 1
    assert running.changed
    with pytest.raises(ConfigError):
        running.refresh()
    assert running.keys.receipt.kid == hybrid.kid
    assert running.problem()


async def test_a_hybrid_key_signs_every_receipt_twice(shim: Callable[..., Any], tmp_path: Path) -> None:
    clock = Clock()
    store = KeyStore(tmp_path, os.urandom, clock)
    store.generate(purpose="receipt", origin=ORIGIN, alg="Ed25519+ML-DSA-44")
    store.generate(purpose="checkpoint", origin=ORIGIN)
    async with serving(shim(tmp_path, clock, MemoryLedger())) as client:
        receipt = await fetched(client, await client.step())
    both = frozenset({"Ed25519", "ML-DSA-44"})
    assert code(VerifyPolicy(store.keyset(), algorithms=both, require=STRICT), receipt) == "ok"
    cut = {**receipt, "sig": receipt["sig"][:128]}
    assert code(VerifyPolicy(store.keyset(), require=STRICT), cut) == "missing_signature"
