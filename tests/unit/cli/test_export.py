"""`tcd export`: what the lines say is checked by code that knows nothing of ours but the page `docs/log-export.md`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from typer.testing import CliRunner, Result

from tcd.cli.main import app
from tcd.keystore import KeyStore
from tcd.ledger import Batch, SqliteLedger
from tcd.ledger.postgres import PostgresLedger
from tcd.ledger.tile_files import TileDirectory
from tcd.ledger.values import Checkpoint
from tcd.receipts import KeySet, Receipt, VerifyPolicy
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.export import Plan, export_lines
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import MerkleTree
from tests.postgres import PostgresServer
from tests.unit.receipts.conftest import Session
from tests.unit.receipts.simulator import LogSimulator

ORIGIN = "tcd.example"
SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "log-export.schema.json"
SIZES = (3, 10, 21)


# -- the check of somebody else --------------------------------------------------------------------------------


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha(b"\1", root_of(leaves[:split]), root_of(leaves[split:]))


def check_signatures(keys: dict[str, Any], line: dict[str, Any], start: int, end: int) -> set[str]:
    """Algorithms whose signature verifies; an error where one does not."""
    name = ORIGIN.encode()
    named = bytes([len(name)]) + name
    good = set()
    for item in line["sigs"]:
        key, sig = keys[item["kid"]], bytes.fromhex(item["sig"])
        place = struct.pack(">QQ", start, end) + bytes.fromhex(line["root"])
        structure = b"subtree/v1\n\0" + named + struct.pack(">Q", item.get("time", 0)) + named + place
        if item["alg"] == "ML-DSA-44":
            MLDSA44PublicKey.from_public_bytes(bytes.fromhex(key["pub"])).verify(sig, structure)
        else:
            text = line["note"].split("\n\n")[0] + "\n" if "note" in line else ""
            message = text.encode() if text else b"tcd/subtree/v1\0" + structure
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key["pub"])).verify(sig, message)
        good.add(item["alg"])
    return good


def check(lines: list[dict[str, Any]], pinned: set[str], *, heads: list[bytes] | None = None) -> list[set[str]]:
    """Check an export from leaf 0; the algorithms that signed each checkpoint, then each subtree."""
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    for line in lines:
        schema.validate(line)
    opening, *rest = lines
    keys = {}
    for key in opening["keys"]:
        kid = sha(b"tcd/kid/v1\0", key["alg"].encode(), b"\0", bytes.fromhex(key["pub"]))[:16].hex()
        assert kid == key["kid"]
        assert kid in pinned
        keys[kid] = key
    leaves: list[bytes] = []
    checkpoints, subtrees, covered = [], [], 0
    for line in rest:
        if line["t"] == "head":
            assert line["index"] == len(leaves)
            leaves.append(sha(b"\0", bytes.fromhex(line["head"])))
        elif line["t"] == "subtree":
            assert (line["start"], line["end"]) == (covered, len(leaves))
            covered = line["end"]
            assert root_of(leaves[line["start"] :]).hex() == line["root"]
            subtrees.append(check_signatures(keys, line, line["start"], line["end"]))
        else:
            assert line["size"] == len(leaves)
            assert root_of(leaves).hex() == line["root"]
            assert line["note"].split("\n")[:2] == [ORIGIN, str(line["size"])]
            checkpoints.append(check_signatures(keys, line, 0, line["size"]))
    assert (rest[-1]["t"], covered) == ("checkpoint", opening["size"])
    if heads is not None:
        assert leaves == [sha(b"\0", head) for head in heads]
    return checkpoints + subtrees


# -- what it is given ------------------------------------------------------------------------------------------


@pytest.fixture
def receipts() -> list[Receipt]:
    made = Session()
    made.open()
    for _ in range(SIZES[-1]):
        made.decision()
    return made.receipts


@pytest.fixture
def log(receipts: list[Receipt]) -> LogSimulator:
    made = LogSimulator(witnesses=1)
    made.add(receipts[: SIZES[-1]])
    return made


@pytest.fixture
def folder(tmp_path: Path, log: LogSimulator) -> Path:
    (tmp_path / "keys.json").write_text(json.dumps(KeySet(log.pinned()).to_json()))
    return tmp_path


async def fill(ledger: Any, receipts: list[Receipt], log: LogSimulator) -> None:
    # the last receipt is under no checkpoint yet
    await ledger.append(Batch(tuple(receipts)), now_us=0)
    for size in SIZES:
        await ledger.put_checkpoint(Checkpoint(size, log.tree.root(size), log.checkpoint(size)))
    await ledger.close()


def export(folder: Path, *arguments: str, **env: str) -> Result:
    options = ("--keyset", str(folder / "keys.json"), "--origin", ORIGIN)
    return CliRunner().invoke(app, ["export", *arguments, *options], env=env)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pinned(log: LogSimulator) -> set[str]:
    return {key.kid for key in log.pinned()}


BOTH = {"Ed25519", "ML-DSA-44"}


def test_a_sqlite_ledger(folder: Path, receipts: list[Receipt], log: LogSimulator) -> None:
    asyncio.run(fill(SqliteLedger(folder / "data"), receipts, log))
    out = folder / "log.jsonl"
    done = export(folder, "store", str(folder / "data"), "--out", str(out), "--width", "8", "--post-quantum")
    assert done.exit_code == 0, done.output
    heads = [receipt.head for receipt in receipts[: SIZES[-1]]]
    assert check(read(out), pinned(log), heads=heads) == [BOTH] * 3 + [set()] * 3
    printed = export(folder, "store", str(folder / "data"), "--width", "8")
    assert printed.stdout == out.read_text()


def test_a_postgresql_ledger(
    folder: Path, receipts: list[Receipt], log: LogSimulator, postgres: PostgresServer
) -> None:
    url = postgres.place()

    async def made() -> None:
        await fill(await PostgresLedger.open(url), receipts, log)

    asyncio.run(made())
    done = export(folder, "postgresql", "--width", "4", TCD_LEDGER=url)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert check(lines, pinned(log))[:3] == [BOTH] * 3
    refused = export(folder, "postgresql", TCD_LEDGER="postgresql://u:s3cret@127.0.0.1:1/none")
    assert refused.exit_code == 2
    assert "s3cret" not in refused.output


def test_a_directory_of_tiles_and_subtrees_that_are_signed(folder: Path, receipts: list[Receipt]) -> None:
    store = KeyStore(folder / "own", os.urandom, lambda: 1)
    for alg in ("Ed25519", "ML-DSA-44"):
        store.generate(purpose="checkpoint", origin=ORIGIN, alg=alg)
    keys = sorted(store.keyset(), key=lambda key: key.alg)
    signer = LogSigner(ORIGIN, [store.secret(key.kid) for key in keys])
    (folder / "keys.json").write_text(json.dumps(store.keyset().to_json()))
    simulated = LogSimulator(witnesses=0)
    simulated.add(receipts)
    heads = [number.to_bytes(32, "big") for number in range(600)] + [receipt.head for receipt in receipts]
    simulated.tree = type(simulated.tree)(heads)
    TileDirectory(folder / "tiles").export(heads, signer.checkpoint(len(heads), simulated.tree.root(), time=7))
    arguments = ("log", str(folder / "tiles"), "--sign", str(folder / "own"), "--post-quantum")
    done = export(folder, *arguments, "--width", "64")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    whole = check(lines, {key.kid for key in keys}, heads=heads)
    assert whole == [BOTH] * (1 + -(-len(heads) // 64))
    # one bit of any signature is noticed by the independent check
    for kind in ("subtree", "checkpoint"):
        broken = json.loads(json.dumps(lines))
        chosen = next(line for line in broken if line["t"] == kind)
        for item in chosen["sigs"]:
            item["sig"] = f"{int(item['sig'][0], 16) ^ 1:x}" + item["sig"][1:]
        with pytest.raises(InvalidSignature):
            check(broken, {key.kid for key in keys})


def test_going_on_where_an_earlier_export_ended(folder: Path, receipts: list[Receipt], log: LogSimulator) -> None:
    asyncio.run(fill(SqliteLedger(folder / "data"), receipts, log))
    whole = [
        json.loads(line) for line in export(folder, "store", str(folder / "data"), "--width", "4").stdout.splitlines()
    ]
    rest = export(folder, "store", str(folder / "data"), "--width", "4", "--first", "8").stdout.splitlines()
    opening, *lines = map(json.loads, rest)
    assert opening["first"] == 8
    assert opening["before"] == [log.tree.root(8).hex()]
    at = next(number for number, line in enumerate(whole) if line.get("index") == 8)
    assert lines == whole[at:]
    for wrong in ("--first=3", "--first=24", "--width=3", "--width=131072"):
        assert export(folder, "store", str(folder / "data"), "--width", "4", wrong).exit_code == 2


def test_what_does_not_fit_is_not_written(folder: Path, receipts: list[Receipt], log: LogSimulator) -> None:
    out = folder / "log.jsonl"
    other = LogSimulator(witnesses=0)
    other.add([*receipts[1:3], receipts[0], *receipts[3:]])
    asyncio.run(fill(SqliteLedger(folder / "swapped"), receipts, other))
    done = export(folder, "store", str(folder / "swapped"), "--out", str(out))
    assert (done.exit_code, out.exists(), list(folder.glob("*.part"))) == (1, False, [])
    assert "inconsistent_log" in done.output
    stranger = LogSimulator(witnesses=0, name="stranger")
    stranger.add(receipts[: SIZES[-1]])
    asyncio.run(fill(SqliteLedger(folder / "strange"), receipts, stranger))
    assert export(folder, "store", str(folder / "strange"), "--out", str(out)).exit_code == 1
    asyncio.run(SqliteLedger(folder / "empty").close())
    for missing in ("empty", "nowhere"):
        assert export(folder, "store", str(folder / missing), "--out", str(out)).exit_code == 2
    assert export(folder, "log", str(folder / "nowhere"), "--out", str(out)).exit_code == 2
    assert not out.exists()


def test_a_receipt_of_the_log_in_cose(folder: Path, receipts: list[Receipt]) -> None:
    store = KeyStore(folder / "own", os.urandom, lambda: 1)
    store.generate(purpose="checkpoint", origin=ORIGIN)
    (key,) = store.keyset()
    signer = LogSigner(ORIGIN, [store.secret(key.kid)])
    tree = MerkleTree(receipt.head for receipt in receipts)
    note = signer.checkpoint(len(tree), tree.root())
    session = Session()
    keys = KeySet([session.issuer.pinned(), key])
    (folder / "keys.json").write_text(json.dumps(keys.to_json()))
    proof = TlogProof(3, tree.inclusion(3), note).write().decode()
    shown = receipts[3]
    answer = {"receipt": shown.head_hex, "receipt_body": shown.body_text, "receipt_sig": shown.sig_hex, "proof": proof}
    (folder / "answer.json").write_text(json.dumps(answer))
    out = folder / "receipt.cose"

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--keyset", str(folder / "keys.json")])

    made = ("export", "cose", str(folder / "answer.json"), "--sign", str(folder / "own"), "--out", str(out))
    assert run(*made).exit_code == 0
    checked = run("verify", "cose", str(folder / "answer.json"), str(out), "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout) == {"ok": True, "code": "ok", "origin": ORIGIN, "index": 3, "kid": key.kid}
    other = receipts[4]
    del answer["proof"]
    answer |= {"receipt": other.head_hex, "receipt_body": other.body_text, "receipt_sig": other.sig_hex}
    (folder / "answer.json").write_text(json.dumps(answer))
    wrong = run("verify", "cose", str(folder / "answer.json"), str(out), "--json")
    assert (wrong.exit_code, json.loads(wrong.stdout)["code"]) == (1, "bad_signature")
    # without a proof there is no root that the log signed
    assert run(*made).exit_code == 1


@pytest.mark.parametrize("scale", [4, pytest.param(100, marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_log(log: LogSimulator, scale: int) -> None:
    def peak(size: int) -> int:
        heads = ([number.to_bytes(32, "big")] for number in range(size))
        tree = LogSimulator(witnesses=0)
        tree.tree = type(tree.tree)(number.to_bytes(32, "big") for number in range(size))
        note = tree.checkpoint()
        plan = Plan(ORIGIN, VerifyPolicy(KeySet(log.pinned())), size)
        tracemalloc.start()
        count = sum(1 for _ in export_lines(plan, heads, iter([(size, note)])))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == size + -(-size // 256) + 2
        return found

    assert peak(2_000 * scale) < 1.2 * peak(2_000) + 20_000
