"""The checkpointer alone: exports, restarts, torn work, altered and restored ledgers, witnesses that do not answer."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.log.assemble import ExportDirectory
from sidecar_api.log.checkpointer import Checkpointer
from sidecar_api.log.keyring import seed_keys
from sidecar_api.log.witnesses import Witnesses, read_policy
from tcd.config import load
from tcd.errors import ConfigError, Unavailable
from tcd.ledger import Batch, Checkpoint, Ledger, Limits, MemoryLedger, SqliteLedger
from tcd.ledger.audit_log import audit_log
from tcd.ledger.log_tree import LogTree
from tcd.ledger.tile_files import TileDirectory
from tcd.ledger.tile_memory import MemoryTiles, TileStore
from tcd.receipts import SigningKey, VerifyPolicy
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.cosign import Cosigner
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.logcheck import log_verifier
from tcd.receipts.merkle import MerkleTree
from tcd.receipts.note import parse_note
from tcd.receipts.tiles import Tile
from tcd.receipts.tlog_policy import parse_policy
from tcd.receipts.witnessing import Witness
from tcd.witness import WitnessServer, WitnessStore
from tests.unit.ledger.records import records

KEYS = seed_keys(load({"TCD_ORIGIN": "log.example"}).settings, b"k" * 32)
POLICY = VerifyPolicy(KEYS.pinned, log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))


def signer() -> LogSigner:
    assert KEYS.log is not None
    return KEYS.log


class Counts:
    """Metrics of a test."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.witnesses: list[tuple[str, bool]] = []

    def appended(self, size: int) -> None:
        pass

    def published(self, size: int, *, time: float) -> None:
        pass

    def made(self, result: str) -> None:
        self.results.append(result)

    def cosigned(self, witness: str, *, fine: bool) -> None:
        self.witnesses.append((witness, fine))


def checkpointer(ledger: Ledger, store: TileStore | None = None, **options: Any) -> Checkpointer:
    values: dict[str, Any] = {"interval": 0.01, "witnesses": None, "hold": False, "metrics": Counts(), **options}
    return Checkpointer(
        ledger, store if store is not None else MemoryTiles(), signer, now_us=lambda: 1_800_000_000_000_000, **values
    )


@asynccontextmanager
async def running(made: Checkpointer) -> AsyncIterator[Checkpointer]:
    made.start()
    try:
        yield made
    finally:
        await made.stop(timeout=30.0)


async def reaches(made: Checkpointer, size: int) -> None:
    found = await made.after(size - 1, timeout=60.0)
    assert found is not None, made.problem
    assert found.size >= size


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


async def append(ledger: Ledger, name: str, count: int) -> int:
    return (await ledger.append(Batch(tuple(records(name, count))), now_us=0)).size


async def root(ledger: Ledger, size: int) -> bytes:
    return MerkleTree(await ledger.heads(limit=size)).root()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_checkpoints_are_of_what_the_ledger_has(kind: str, tmp_path: Path) -> None:
    ledger: Ledger = SqliteLedger(tmp_path) if kind == "sqlite" else MemoryLedger()
    sizes = []
    async with running(checkpointer(ledger)) as made:
        for number in range(8):
            size = await append(ledger, f"c{number}", 37 + number * 200)
            made.grew(size)
            await reaches(made, size)
            assert made.newest is not None
            assert made.newest.root == await root(ledger, made.newest.size)
            sizes.append(made.newest.size)
    assert sizes == sorted(sizes)
    stored = [await ledger.checkpoint(covering=size - 1) for size in sizes]
    assert [item.size for item in stored if item is not None] == sizes
    await ledger.close()


async def test_an_export_is_followed_by_a_static_auditor(tmp_path: Path) -> None:
    """Whatever moment an auditor looks at, the directory is whole; a second shim may not write to it."""
    ledger, root_dir = SqliteLedger(tmp_path / "data"), tmp_path / "log"
    store = ExportDirectory(root_dir)
    with pytest.raises(ConfigError, match="another process exports"):
        ExportDirectory(root_dir)
    seen = None
    async with running(checkpointer(ledger, store)) as made:
        for number in range(12):
            made.grew(await append(ledger, f"c{number}", 90))
            await asyncio.sleep(0.005)
            if TileDirectory(root_dir).checkpoint() is None:
                continue
            audit = await asyncio.to_thread(
                partial(audit_log, root_dir, policy=POLICY, origin="log.example", seen=seen)
            )
            # a checkpoint may move on while the auditor reads; tiles stay, so what is found stays true
            assert audit.ok, audit
            assert audit.newest is not None
            seen = audit.newest[1]
        await reaches(made, 12 * 90)
    heads = iter(await ledger.heads())
    audit = audit_log(root_dir, policy=POLICY, origin="log.example", seen=seen, heads=heads)
    assert (audit.ok, audit.counts["leaves"]) == (True, 12 * 90), audit
    # goes on from its files alone
    again = ExportDirectory(root_dir)
    made = checkpointer(ledger, again)
    async with running(made):
        made.grew(await append(ledger, "more", 300))
        await reaches(made, 12 * 90 + 300)
    assert audit_log(root_dir, policy=POLICY, origin="log.example", heads=iter(await ledger.heads())).ok
    await ledger.close()


class Torn(TileDirectory):
    """Fails at the n-th file, as a full disk does, or as if the process died there."""

    left = -1

    def _spend(self) -> None:
        if self.left == 0:
            raise OSError(28, "No space left on device")
        self.left -= 1

    def put(self, tile: Any, content: bytes) -> None:
        self._spend()
        super().put(tile, content)

    def publish(self, note: bytes) -> None:
        self._spend()
        super().publish(note)


@pytest.mark.parametrize("at", range(8))
async def test_a_torn_checkpoint_is_made_again(tmp_path: Path, at: int) -> None:
    """Whatever file fails, what is published is whole, the ledger has one root per size, and a restart goes on."""
    ledger, where = SqliteLedger(tmp_path / "data"), tmp_path / "log"
    await append(ledger, "a", 250)
    first = checkpointer(ledger, TileDirectory(where))
    async with running(first):
        await reaches(first, 250)
    await append(ledger, "b", 400)
    torn = Torn(where)
    torn.left = at
    counts = Counts()
    made = checkpointer(ledger, torn, metrics=counts)
    made.start()
    await until(lambda: "failed" in counts.results or (made.newest is not None and made.newest.size == 650))
    # the process dies here
    torn.left = 0
    await made.stop(timeout=30.0)
    assert audit_log(where, policy=POLICY, origin="log.example").ok
    again = checkpointer(ledger, TileDirectory(where))
    async with running(again):
        again.grew(await append(ledger, "c", 7))
        await reaches(again, 657)
    assert audit_log(where, policy=POLICY, origin="log.example", heads=iter(await ledger.heads())).ok
    for size in (250, 650, 657):
        found = await ledger.checkpoint(covering=size - 1)
        assert found is not None
        assert found.root == await root(ledger, found.size)
    await ledger.close()


async def test_a_lost_export_is_built_again(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    await append(ledger, "a", 600)
    async with running(checkpointer(ledger)) as made:
        await reaches(made, 600)
    async with running(checkpointer(ledger, TileDirectory(tmp_path))) as made:
        # nothing new to sign: the newest checkpoint is what is exported
        await reaches(made, 600)
    newest = await ledger.checkpoint()
    assert newest is not None
    assert TileDirectory(tmp_path).checkpoint() == newest.note
    assert audit_log(tmp_path, policy=POLICY, origin="log.example", heads=iter(await ledger.heads())).ok


async def test_a_full_disk_that_has_room_again(tmp_path: Path) -> None:
    ledger, torn, counts = MemoryLedger(), Torn(tmp_path), Counts()
    torn.left = 0
    await append(ledger, "a", 300)
    async with running(checkpointer(ledger, torn, metrics=counts)) as made:
        await until(lambda: "failed" in counts.results)
        assert "No space left" in made.problem
        torn.left = -1
        await reaches(made, 300)
        await until(lambda: made.problem == "")
    assert audit_log(tmp_path, policy=POLICY, origin="log.example").ok


async def test_an_altered_ledger_is_not_signed(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    await append(ledger, "a", 20)
    async with running(checkpointer(ledger)) as made:
        await reaches(made, 20)
    await ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("DROP TRIGGER receipt_no_UPDATE")
        connection.execute("UPDATE receipt SET head = ? WHERE idx = 3", (b"x" * 32,))
    connection.close()
    ledger = SqliteLedger(tmp_path)
    counts = Counts()
    made = checkpointer(ledger, metrics=counts)
    async with running(made):
        made.grew(await append(ledger, "b", 5))
        await until(lambda: made.broken)
        with pytest.raises(Unavailable, match="operator"):
            await made.work(len)
    assert counts.results == ["failed"]
    newest = await ledger.checkpoint()
    assert newest is not None
    assert newest.size == 20
    await ledger.close()


async def test_a_ledger_restored_from_an_older_copy_is_not_signed(tmp_path: Path) -> None:
    """Without the exported log it would sign a second history of the same sizes."""
    ledger, where = SqliteLedger(tmp_path / "data"), tmp_path / "log"
    await append(ledger, "a", 20)
    async with running(checkpointer(ledger, TileDirectory(where))) as made:
        await reaches(made, 20)
    await ledger.close()
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    ledger = SqliteLedger(tmp_path / "data")
    await append(ledger, "b", 20)
    async with running(checkpointer(ledger, TileDirectory(where))) as made:
        await reaches(made, 40)
    await ledger.close()
    restored = SqliteLedger(tmp_path / "copy")
    made = checkpointer(restored, TileDirectory(where))
    async with running(made):
        made.grew(await append(restored, "other", 50))
        await until(lambda: made.broken)
    assert "restored from an older copy" in made.problem
    newest = await restored.checkpoint()
    assert newest is not None
    assert newest.size == 20
    await restored.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_memory_is_bounded_and_old_leaves_are_read_again(kind: str, tmp_path: Path) -> None:
    ledger: Ledger = SqliteLedger(tmp_path) if kind == "sqlite" else MemoryLedger()
    store = MemoryTiles(most=2)
    async with running(checkpointer(ledger, store)) as made:
        for number in range(6):
            made.grew(await append(ledger, f"c{number}", 250))
            await reaches(made, 250 * (number + 1))
        assert sum(level == 0 for level, _ in store._tiles) == 2
        tree = MerkleTree(await ledger.heads())
        for index in (0, 255, 256, 700, 1499):
            assert await made.work(partial(lambda log, at: log.proofs(1500).inclusion(at), at=index)) == tree.inclusion(
                index
            )
        for old in (1, 256, 700, 1499):
            found = await made.work(partial(lambda log, at: log.proofs(1500).consistency(at), at=old))
            assert found == tree.consistency(old)
    await ledger.close()


async def test_old_leaves_that_the_ledger_forgot_have_no_proofs() -> None:
    ledger = MemoryLedger(Limits(bodies=100, heads=100))
    async with running(checkpointer(ledger, MemoryTiles(most=1))) as made:
        made.grew(await append(ledger, "a", 300))
        await until(lambda: made.broken or made.newest is not None or made.problem != "")
        # this one fell behind before it began: it cannot read what is gone, and says so
        assert "evicted" in made.problem or "kept" in made.problem
    ledger = MemoryLedger(Limits(bodies=300, heads=300))
    async with running(checkpointer(ledger, MemoryTiles(most=1))) as made:
        for number in range(4):
            made.grew(await append(ledger, f"c{number}", 200))
            await reaches(made, 200 * (number + 1))
        assert await made.work(lambda log: log.proofs(800).inclusion(790))
        with pytest.raises(Unavailable):
            await made.work(lambda log: log.proofs(800).inclusion(3))


@pytest.mark.parametrize("damage", ["flip", "gone", "note"])
async def test_damaged_files_are_not_built_upon(tmp_path: Path, damage: str) -> None:
    ledger = MemoryLedger()
    await append(ledger, "a", 300)
    async with running(checkpointer(ledger, TileDirectory(tmp_path))) as made:
        await reaches(made, 300)
    partial = tmp_path / "tile/0/001.p/44"
    if damage == "flip":
        raw = bytearray(partial.read_bytes())
        raw[40] ^= 1
        partial.write_bytes(raw)
    elif damage == "gone":
        partial.unlink()
    else:
        (tmp_path / "checkpoint").write_bytes(signer().checkpoint(300, bytes(32)))
    made = checkpointer(ledger, TileDirectory(tmp_path))
    async with running(made):
        await until(lambda: made.broken)


# -- witnesses ---------------------------------------------------------------------------------------------------


@contextmanager
def witnesses(where: Path, count: int) -> Any:
    """Servers, and the lines of a policy."""
    made: list[WitnessServer] = []
    lines: list[str] = []
    threads: list[threading.Thread] = []
    logs = [log_verifier(key) for key in signer().pinned()]
    for number in range(count):
        key, name = SigningKey(bytes([number]) * 32), f"witness.example/w{number}"
        store = WitnessStore(where / f"w{number}.sqlite")
        server = WitnessServer(("127.0.0.1", 0), Witness(name, [key], logs), store, clock=lambda: 1_800_000_000)
        threads.append(threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}))
        threads[-1].start()
        made.append(server)
        url = f"http://127.0.0.1:{server.server_address[1]}"
        lines.append(f"witness w{number} {Cosigner(name, key.public).vkey()} {url}")
    try:
        yield made, lines
    finally:
        for server, thread in zip(made, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
            server.store.close()


def policy_of(lines: list[str], threshold: int) -> Any:
    names = " ".join(line.split(" ")[1] for line in lines)
    return parse_policy("\n".join([*lines, f"group all {threshold} {names}", "quorum all", ""]).encode())


async def test_a_quorum_of_witnesses(tmp_path: Path) -> None:
    """Two of three, one of them away: cosigned all the same, and the shim counts who was missing."""
    ledger, counts = MemoryLedger(), Counts()
    with witnesses(tmp_path, 2) as (_, lines):
        key = Cosigner("witness.example/away", SigningKey(b"a" * 32).public)
        policy = policy_of([*lines, f"witness away {key.vkey()} http://127.0.0.1:9"], 2)
        asked = Witnesses(policy, timeout=60.0, counted=counts)
        async with running(checkpointer(ledger, witnesses=asked, hold=True, metrics=counts)) as made:
            for number in range(3):
                size = await append(ledger, f"c{number}", 10)
                made.grew(size)
                await reaches(made, size)
                assert made.newest is not None
                assert made.newest.enough
                assert len(parse_note(made.newest.note)[1]) == 4
    assert {name for name, fine in counts.witnesses if fine} == {"w0", "w1"}
    assert {name for name, fine in counts.witnesses if not fine} == {"away"}
    stored = await ledger.checkpoint()
    assert stored is not None
    assert made.newest is not None
    assert stored.note == made.newest.note


async def test_too_few_witnesses_by_policy(tmp_path: Path) -> None:
    ledger, counts = MemoryLedger(), Counts()
    await append(ledger, "a", 10)
    with witnesses(tmp_path, 2) as (servers, lines):
        stopped = servers[1]
        real = stopped.decide
        stopped.decide = lambda _: (_ for _ in ()).throw(OSError("away"))
        policy = policy_of(lines, 2)
        held = checkpointer(
            ledger, witnesses=Witnesses(policy, timeout=60.0, counted=counts), hold=True, metrics=counts
        )
        async with running(held):
            await until(lambda: counts.results.count("no_quorum") > 1)
            assert await ledger.checkpoint() is None
            # it comes back: nothing was lost, and the witnesses know a log that only grew
            stopped.decide = real
            await reaches(held, 10)
            assert held.newest is not None
            assert held.newest.enough
        # published without a quorum, asked again until there is one
        stopped.decide = lambda _: (_ for _ in ()).throw(OSError("away"))
        open_ = checkpointer(ledger, witnesses=Witnesses(policy, timeout=60.0, counted=counts))
        async with running(open_):
            open_.grew(await append(ledger, "b", 10))
            await reaches(open_, 20)
            assert open_.newest is not None
            before = open_.newest
            assert not before.enough
            stopped.decide = real
            await until(lambda: open_.newest != before)
        assert open_.newest is not None
        assert (open_.newest.size, open_.newest.enough) == (20, True)


async def test_witnesses_refuse_another_history(tmp_path: Path) -> None:
    """A shim with the log's keys over another ledger gets no cosignature, and with `hold` publishes nothing."""
    honest, forged = MemoryLedger(), MemoryLedger()
    await append(honest, "a", 20)
    await append(forged, "forged", 30)
    with witnesses(tmp_path, 1) as (servers, lines):
        policy, counts = policy_of(lines, 1), Counts()
        async with running(checkpointer(honest, witnesses=Witnesses(policy, timeout=60.0, counted=counts))) as made:
            await reaches(made, 20)
        refused = Counts()
        bad = checkpointer(
            forged, witnesses=Witnesses(policy, timeout=60.0, counted=refused), hold=True, metrics=refused
        )
        async with running(bad):
            await until(lambda: "no_quorum" in refused.results)
        assert bad.newest is None
        assert refused.witnesses
        assert not any(fine for _, fine in refused.witnesses)
        assert servers[0].store.seen("log.example").size == 20


@pytest.mark.parametrize("text", ["", "quorum none\n", "log nonsense\n", "witness w nonsense\n"])
def test_policies_that_ask_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy"
    path.write_text(text)
    with pytest.raises(ConfigError, match="log_witnesses"):
        read_policy(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path / "none")


async def test_a_ledger_that_is_away_is_waited_for() -> None:
    class Away(MemoryLedger):
        away = True

        async def checkpoint(self, *, covering: int | None = None) -> Checkpoint | None:
            if self.away:
                msg = "away"
                raise Unavailable(msg)
            return await super().checkpoint(covering=covering)

    ledger, counts = Away(), Counts()
    await append(ledger, "a", 3)
    async with running(checkpointer(ledger, metrics=counts)) as made:
        await until(lambda: counts.results.count("failed") > 2)
        ledger.away = False
        await reaches(made, 3)
        assert made.problem == ""
    stored = await ledger.checkpoint()
    assert stored is not None
    assert LogHead.from_text(parse_note(stored.note)[0]).size == 3


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("a defect")])
async def test_a_failure_in_between_is_gone_on_from(kind: str, error: Exception, tmp_path: Path) -> None:
    """After any failure the next checkpoint is of the same log, and proofs of before are there again."""

    class Failing(MemoryLedger):
        fails = 0

        async def heads(self, *, first: int = 0, limit: int = 65_536) -> Sequence[bytes]:
            if self.fails and first:
                self.fails -= 1
                raise error
            return await super().heads(first=first, limit=limit)

    ledger, counts = Failing(), Counts()
    store: TileStore = MemoryTiles() if kind == "memory" else TileDirectory(tmp_path)
    size = await append(ledger, "a", 300)
    async with running(checkpointer(ledger, store, metrics=counts)) as made:
        await reaches(made, size)
        ledger.fails = 2
        size = await append(ledger, "b", 5)
        made.grew(size)
        await reaches(made, size)
        assert counts.results.count("failed") == 2
        tree = MerkleTree(await ledger.heads())
        assert await made.work(lambda log: log.proofs(305).inclusion(7)) == tree.inclusion(7)
        # a failure with nothing new to sign: what was published is served again all the same
        before = made.newest
        made._begin_anew()
        made.grew(size)
        await until(lambda: made._tree is not None and made._tree.published is not None)
        assert await made.work(lambda log: log.proofs(305).inclusion(299)) == tree.inclusion(299)
        assert made.newest == before


async def test_a_witness_that_never_answers_holds_up_nobody(tmp_path: Path) -> None:
    """It takes its time and no more: the log goes on without it, and the loop was free meanwhile."""
    ledger, counts = MemoryLedger(), Counts()
    with socket.create_server(("127.0.0.1", 0)) as mute, witnesses(tmp_path, 1) as (_, lines):
        key = Cosigner("witness.example/mute", SigningKey(b"m" * 32).public)
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        policy = policy_of([*lines, f"witness mute {key.vkey()} {url}"], 1)
        asked = Witnesses(policy, timeout=0.2, counted=counts)
        async with running(checkpointer(ledger, witnesses=asked, hold=True, metrics=counts)) as made:
            for number in range(2):
                size = await append(ledger, f"c{number}", 10)
                made.grew(size)
                turns = 0
                while made.newest is None or made.newest.size < size:
                    await asyncio.sleep(0.001)
                    turns += 1
                    assert turns < 60_000
                # the loop went round while the mute one was waited for
                assert turns > 1
    assert {name for name, fine in counts.witnesses if fine} == {"w0"}
    # on a busy machine the other one may have been late too, and was asked again
    assert ("mute", False) in counts.witnesses


async def test_a_stop_in_the_middle_signs_no_leaf_twice() -> None:
    """The thread still appends a page when the task ends; what is signed after that is the log all the same."""
    began = threading.Event()

    class Slow(MemoryTiles):
        def put(self, tile: Tile, content: bytes) -> None:
            began.set()
            time.sleep(0.05)
            super().put(tile, content)

    ledger = MemoryLedger()
    size = 0
    for number in range(5):
        size = await append(ledger, f"c{number}", 1000)
    made = checkpointer(ledger, Slow())
    made.start()
    await asyncio.to_thread(began.wait, 60)
    await made.stop(timeout=60.0)
    newest = await ledger.checkpoint()
    assert newest is not None
    assert (newest.size, newest.root) == (size, await root(ledger, size))


def test_a_page_that_is_not_the_next_one_is_not_appended() -> None:
    tree = LogTree(MemoryTiles())
    tree.extend(0, [bytes(32)] * 3)
    for first in (0, 2, 4):
        with pytest.raises(ValueError, match="follow"):
            tree.extend(first, [bytes(32)])
    assert len(tree) == 3
