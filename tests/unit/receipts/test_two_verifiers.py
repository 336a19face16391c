"""Two verifiers without common code, on over 5,000 receipts changed or not: the same verdict every time."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tcd.errors import TcdError
from tcd.receipts import (
    Anchor,
    HybridKey,
    Issuer,
    KeySet,
    Signer,
    SigningKey,
    VerifyPolicy,
    canonical,
    verify_chain,
    verify_single,
)
from tcd.receipts.body import head_of, signature_input
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.note import parse_note, sign_note, write_note
from tests.unit.receipts.conftest import Session
from tests.unit.receipts.simulator import LogSimulator, seed

SOURCE = Path(__file__).resolve().parents[3] / "docs" / "verifier" / "verify.mjs"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
OWN, OTHER, STOLEN = (SigningKey(seed(name)) for name in ("own", "other", "stolen"))
HYBRID = HybridKey(seed("h") * 2)
Item = dict[str, Any]


class World:
    """Four sessions in one log: of an honest key, of one stolen at size 9, of one nobody pinned, of a hybrid one."""

    def __init__(self) -> None:
        self.log = LogSimulator(witnesses=1)
        self.sessions: list[list[Item]] = []
        made = []
        keys: tuple[Signer, ...] = (OWN, STOLEN, OTHER, HYBRID)
        for number, key in enumerate(keys):
            session = Session(issuer=Issuer(key, origin="tcd.example"), name=f"s{number}")
            session.open()
            for _ in range(4):
                session.decision()
            session.close()
            made.append(session.receipts)
        for receipts in made:
            self.log.add(receipts)
        for number, receipts in enumerate(made):
            self.sessions.append(
                [
                    {
                        "receipt": r.head_hex,
                        "receipt_body": r.body_text,
                        "receipt_sig": r.sig_hex,
                        "proof": self.log.proof(6 * number + place).decode(),
                    }
                    for place, r in enumerate(receipts)
                ]
            )
        self.size = len(self.log.tree)
        self.checkpoints = {size: self.log.checkpoint(size) for size in range(1, self.size + 1)}
        time = json.loads(self.sessions[0][0]["receipt_body"])["ts_us"]
        self.keys = KeySet(
            [
                Issuer(OWN, origin="tcd.example").pinned(
                    not_before_us=time, not_after_us=time + 1000, tenants=frozenset({"acme"})
                ),
                Issuer(STOLEN, origin="tcd.example").pinned(compromised_after_size=9),
                Issuer(HYBRID, origin="tcd.example").pinned(),
                *self.log.signer.pinned(),
            ]
        )
        self.policy = VerifyPolicy(self.keys)

    def proof(self, index: int, size: int) -> str:
        return TlogProof(index, self.log.tree.inclusion(index, size), self.checkpoints[size]).write().decode()


def resigned(item: Item, key: SigningKey, change: Any) -> Item:
    value = json.loads(item["receipt_body"])
    change(value)
    body = canonical.write(value)
    head = head_of(body)
    message = signature_input(suite="Ed25519", kid=value["kid"], head=head)
    return {**item, "receipt": head.hex(), "receipt_body": body.decode(), "receipt_sig": key.sign(message).hex()}


def _flip(random: Random, text: str) -> str:
    at = random.randrange(len(text))
    return text[:at] + chr(ord(text[at]) ^ 1 << random.randrange(7)) + text[at + 1 :]


def _lines(random: Random, proof: str) -> str:
    parsed = TlogProof.parse(proof.encode())
    text, lines = parse_note(parsed.checkpoint)
    stranger = sign_note(text, "stranger", OTHER)
    chosen = random.choice(
        (
            [],
            lines[:1],
            lines[1:],
            [stranger],
            [*lines, stranger],
            [*lines, *[stranger] * 14],
            [lines[0]] * 2,
            lines[::-1],
        )
    )
    note = write_note(text, chosen) if chosen else text.encode()
    return TlogProof(parsed.index, parsed.path, note).write().decode()


INDICES = ("0", "01", "-1", "+1", "7", str(2**63))


def _proof(random: Random, world: World, item: Item) -> str | None:
    """Another proof: none, cut, of another leaf or size, with other lines, another order."""
    proof = item["proof"]
    parsed = TlogProof.parse(proof.encode())

    def shuffled() -> str:
        path = list(parsed.path)
        random.shuffle(path)
        return TlogProof(parsed.index, tuple(path), parsed.checkpoint).write().decode()

    def named() -> str:
        extra = random.choice((bytes.fromhex(item["receipt"]), bytes(32), b""))
        return TlogProof(parsed.index, parsed.path, parsed.checkpoint, extra).write().decode()

    made: tuple[Callable[[], str | None], ...] = (
        lambda: None,
        lambda: _flip(random, proof),
        lambda: _lines(random, proof),
        lambda: world.proof(random.randrange(world.size), world.size),
        lambda: world.proof(parsed.index, random.randrange(parsed.index + 1, world.size + 1)),
        lambda: proof.replace(f"index {parsed.index}", f"index {random.choice(INDICES)}"),
        lambda: proof.replace("\n\n", "\n", 1),
        named,
        shuffled,
    )
    return random.choice(made)()


CHANGES = (
    lambda v: v.update(ts_us=v["ts_us"] + 10_000),
    lambda v: v.update(ts_us=0),
    lambda v: v.update(tenant="other"),
    lambda v: v.update(tenant=""),
    lambda v: v.update(origin="other.example"),
    lambda v: v.update(kid=STOLEN.kid),
    lambda v: v.update(kid=OTHER.kid),
    lambda v: v.update(v="tcd.receipt/3"),
    lambda v: v.update(suite="ed25519"),
    lambda v: v.update(nonce="0" * 31),
    lambda v: v["chain"].update(seq=v["chain"]["seq"] + 1),
    lambda v: v["chain"].update(prev="1" * 64),
    lambda v: v["chain"].update(seq=2**53),
    lambda v: v.update(config="sha256:" + "G" * 64),
    lambda v: v.update(nonce="0" * 32),
)
TEXTS = ("", " ", "\ufeff", "{}", "[]", "null", '{"a":1}', "1e5", '"\\', "\ud83d", '{"v":"tcd.receipt/2","v":1}')


def changed(random: Random, world: World) -> list[Item]:
    """A run of records of one session, changed at one place or not at all."""
    session = random.choice(world.sessions)
    first = random.randrange(len(session))
    items = [dict(item) for item in session[first : first + random.randrange(1, 4)]]
    at = random.randrange(len(items))
    item = items[at]
    match random.randrange(9):
        case 0:
            member = random.choice(("receipt", "receipt_body", "receipt_sig"))
            item[member] = _flip(random, item[member])
        case 1 | 2 | 3:
            item["proof"] = _proof(random, world, item)
        case 4:
            sig = item["receipt_sig"]
            item["receipt_sig"] = random.choice(
                (None, "", "zz", "0" * 128, sig.upper(), "ab" * 2484, sig[:128], sig[128:])
            )
        case 5:
            items[at] = resigned(item, random.choice((OWN, STOLEN, OTHER)), random.choice(CHANGES))
        case 6:
            item["receipt_body"] = random.choice(TEXTS)
        case 7:
            other = random.randrange(len(items))
            items[at], items[other] = items[other], items[at]
        case _:
            pass
    return items


def ours(items: list[Item], policy: VerifyPolicy) -> tuple[bool, str]:
    """The verdict of `tcd.receipts` on a run of records: each by itself, then their links."""
    for item in items:
        report = verify_single(
            item["receipt_body"],
            head=item["receipt"],
            sig=item["receipt_sig"] or "",
            proof=item["proof"],
            policy=policy,
        )
        if not report.ok:
            return False, report.code
    first = json.loads(items[0]["receipt_body"])["chain"]
    start = Anchor(first["seq"] - 1, first["prev"]) if first["seq"] else None
    proofs = [item["proof"] for item in items]
    try:
        chain = verify_chain(
            [item["receipt_body"] for item in items],
            heads=[item["receipt"] for item in items],
            sigs=[item["receipt_sig"] for item in items],
            proofs=proofs if all(proofs) else None,
            start=start,
            policy=policy,
        )
    except TcdError as error:
        return False, error.code
    # a record without a proof has its links checked, and no place in the log
    return chain.ok or (chain.code == "key_not_valid" and not all(proofs)), chain.code


@pytest.mark.parametrize("count", [3000, pytest.param(26_000, marks=pytest.mark.long)])
def test_both_verifiers_agree(tmp_path: Path, count: int) -> None:
    world, random = World(), Random(20261126)  # noqa: S311 - reproducible
    runs = [changed(random, world) for _ in range(count)]
    assert sum(map(len, runs)) > 5000
    (tmp_path / "keys.json").write_text(json.dumps(world.keys.to_json()))
    (tmp_path / "runs.jsonl").write_text("".join(f"{json.dumps(items)}\n" for items in runs))
    command = [str(NODE), str(SOURCE), "keys.json", "runs.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(theirs) == len(runs)
    verdicts: Counter[bool] = Counter()
    codes: set[str] = set()
    for items, other in zip(runs, theirs, strict=True):
        ok, code = ours(items, world.policy)
        assert ok is other["ok"], (code, other, items)
        verdicts[ok] += 1
        codes.add(other["code"])
    assert min(verdicts.values()) > count / 10
    assert len(codes) >= 14, codes
