"""Writes docs/verifier/vectors: `python -m tests.unit.conformance.make_receipt_vectors`.

Keys are hashes of their names.
ML-DSA-44 signatures are randomised, so the cases that need them come out with other bytes every time.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.conformance.receipt_vectors import verdict
from tcd.receipts import (
    HybridKey,
    Issuer,
    KeySet,
    MlDsaKey,
    Signer,
    SigningKey,
    VerifyPolicy,
    canonical,
    chain_id,
    segment,
)
from tcd.receipts.body import CONTEXT, head_of, signature_input
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.cosign import Subtree
from tcd.receipts.edwards import L
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import MerkleTree
from tcd.receipts.note import NoteSignature, sign_note, write_note
from tcd.risk_av import Terms
from tcd.risk_av.exact import hex64
from tests.unit.receipts.conftest import Session
from tests.unit.receipts.simulator import seed

FOLDER: Final = Path(__file__).resolve().parents[3] / "docs" / "verifier" / "vectors"
ORIGIN: Final = "tcd.example"
OWN, STOLEN, UNKNOWN, FOREIGN = (SigningKey(seed(name)) for name in ("own", "stolen", "unknown", "foreign"))
HYBRID: Final = HybridKey(seed("hybrid") + seed("hybrid/q"))
LOG: Final = SigningKey(seed("log/ed"))
Item = dict[str, Any]


def session(key: Any, name: str, *, tenant: str = "acme", decisions: int = 2) -> Session:
    made = Session(issuer=Issuer(key, origin=ORIGIN), name=name, tenant=tenant)
    made.open()
    made.fold(0.01)
    for _ in range(decisions):
        made.decision()
    made.close()
    return made


class World:
    """Five sessions in one log: of the own key, of a key stolen at size 6, of a key that nobody pinned, hybrid."""

    def __init__(self) -> None:
        self.sessions = {
            "own": session(OWN, "a"),
            "stolen": session(STOLEN, "b"),
            "unknown": session(UNKNOWN, "c"),
            "hybrid": session(HYBRID, "d"),
            "second": session(OWN, "e"),
        }
        records = [receipt for made in self.sessions.values() for receipt in made.receipts]
        self.places = {receipt.head_hex: index for index, receipt in enumerate(records)}
        self.tree = MerkleTree(receipt.head for receipt in records)
        self.signer = LogSigner(ORIGIN, [LOG])
        start = self.sessions["own"].receipts[0].ts_us
        own, stolen = Issuer(OWN, origin=ORIGIN), Issuer(STOLEN, origin=ORIGIN)
        self.keys = KeySet(
            [
                own.pinned(not_before_us=start, not_after_us=start + 1000, tenants=frozenset({"acme"})),
                stolen.pinned(compromised_after_size=6),
                Issuer(HYBRID, origin=ORIGIN).pinned(),
                Issuer(FOREIGN, origin="other.example").pinned(),
                *self.signer.pinned(),
            ]
        )
        self.policy = VerifyPolicy(self.keys)

    def items(self, name: str, *, proofs: bool = False) -> list[Item]:
        return [
            {
                "receipt": r.head_hex,
                "receipt_body": r.body_text,
                "receipt_sig": r.sig_hex,
                **({"proof": self.proof(r.head_hex)} if proofs else {}),
            }
            for r in self.sessions[name].receipts
        ]

    def proof(self, head: str, size: int | None = None) -> str:
        size = len(self.tree) if size is None else size
        note = self.signer.checkpoint(size, self.tree.root(size))
        index = self.places[head]
        return TlogProof(index, self.tree.inclusion(index, size), note).write().decode()


def signed(body: bytes, key: SigningKey, kid: str) -> Item:
    head = head_of(body)
    sig = key.sign(signature_input(suite="Ed25519", kid=kid, head=head), CONTEXT)
    return {"receipt": head.hex(), "receipt_body": body.decode(), "receipt_sig": sig.hex()}


def resigned(item: Item, change: Callable[[Any], Any], key: SigningKey = OWN) -> Item:
    """The same record, changed and signed again by `key`."""
    value = json.loads(item["receipt_body"])
    change(value)
    return signed(canonical.write(value), key, value["kid"])


def text(item: Item, change: Callable[[str], str], key: SigningKey = OWN) -> Item:
    """The same bytes but for `change`, with their own head and signature."""
    body = change(item["receipt_body"])
    return signed(body.encode(), key, json.loads(item["receipt_body"])["kid"])


def _bodies(first: Item) -> dict[str, list[Item]]:
    def put(old: str, new: str) -> list[Item]:
        return [text(first, lambda body: body.replace(old, new, 1))]

    nested = "[" * 9 + "]" * 9
    return {
        "space between tokens": put('":"', '": "'),
        "line feed at the end": [text(first, lambda body: body + "\n")],
        "byte order mark": [text(first, lambda body: "\ufeff" + body)],
        "keys in another order": [text(first, lambda body: '{"v":"tcd.receipt/2",' + body[1:-22] + "}")],
        "needless escape": put('"acme"', '"\\u0061cme"'),
        "key twice": [text(first, lambda body: body[:-1] + ',"v":"tcd.receipt/2"}')],
        "float": put('"seq":0', '"seq":0.0'),
        "exponent": put('"seq":0', '"seq":0e0'),
        "minus zero": put('"seq":0', '"seq":-0'),
        "integer of 2^53": put('"seq":0', '"seq":9007199254740992'),
        "control character": put('"acme"', '"ac\\nme"'),
        "lone surrogate": put('"acme"', '"\\ud800"'),
        "nesting of nine": [text(first, lambda _: nested)],
        "513 elements": [text(first, lambda _: "[" + ",".join("0" for _ in range(513)) + "]")],
        "no object": [text(first, lambda _: "[]")],
        "no JSON": [text(first, lambda _: "{")],
        "another version": [resigned(first, lambda v: v.update(v="tcd.receipt/3"))],
        "another suite": [resigned(first, lambda v: v.update(suite="ed25519"))],
        "member missing": [resigned(first, lambda v: v.pop("nonce"))],
        "member null": [resigned(first, lambda v: v.update(nonce=None))],
        "unknown type": [resigned(first, lambda v: v.update(typ="note"))],
        "upper-case digest": [resigned(first, lambda v: v.update(config="sha256:" + "A" * 64))],
        "open that is not the first": [resigned(first, lambda v: v["chain"].update(seq=1))],
        "tenant of 128 characters": [resigned(first, lambda v: v.update(tenant="t" * 128))],
        "tenant of 129 characters": [resigned(first, lambda v: v.update(tenant="t" * 129))],
        "head of another body": [{**first, "receipt": "0" * 64}],
        "changed body": [{**first, "receipt_body": first["receipt_body"].replace("acme", "acmf")}],
    }


def _keys(world: World, first: Item) -> dict[str, list[Item]]:
    sig = first["receipt_sig"]
    above = (int.from_bytes(bytes.fromhex(sig)[32:], "little") + L).to_bytes(32, "little").hex()
    stolen = world.items("stolen", proofs=True)
    return {
        "key that is not pinned": world.items("unknown")[:1],
        "signed by another pinned key": [
            {**first, "receipt_sig": resigned(first, lambda _: None, STOLEN)["receipt_sig"]}
        ],
        "key of the log": [resigned(first, lambda v: v.update(kid=LOG.kid), LOG)],
        "key of another origin": [resigned(first, lambda v: v.update(kid=FOREIGN.kid), FOREIGN)],
        "tenant that the key may not sign for": [resigned(first, lambda v: v.update(tenant="other"))],
        "before the key's validity": [resigned(first, lambda v: v.update(ts_us=v["ts_us"] - 1))],
        "at the end of the key's validity": [resigned(first, lambda v: v.update(ts_us=v["ts_us"] + 1000))],
        "after the key's validity": [resigned(first, lambda v: v.update(ts_us=v["ts_us"] + 1001))],
        "compromised key without a proof": world.items("stolen")[:1],
        "compromised key, leaf 4 of the first six": stolen[:1],
        "compromised key, leaf 6 of the first six": stolen[2:3],
        "no signature": [{**first, "receipt_sig": None}],
        "signature in upper case": [{**first, "receipt_sig": sig.upper()}],
        "signature of 63 bytes": [{**first, "receipt_sig": sig[:-2]}],
        "one bit of the signature": [{**first, "receipt_sig": f"{int(sig[0], 16) ^ 1:x}" + sig[1:]}],
        "S plus the group order": [{**first, "receipt_sig": sig[:64] + above}],
        "R of small order": [{**first, "receipt_sig": "01" + "00" * 31 + sig[64:]}],
        "signature over the head alone": [{**first, "receipt_sig": OWN.sign(bytes.fromhex(first["receipt"])).hex()}],
    }


def _chains(world: World, own: list[Item]) -> dict[str, list[Item]]:
    other = world.items("second")

    time = json.loads(own[0]["receipt_body"])["ts_us"]

    def moved(item: Item) -> Item:
        return resigned(item, lambda v: v["chain"].update(prev="1" * 64))

    return {
        "whole chain": own,
        "its middle": own[1:3],
        "first record missing": [own[0], own[2]],
        "neighbours swapped": [own[0], own[2], own[1], own[3]],
        "record twice": [own[0], own[1], own[1], own[2]],
        "two records of one number": [own[0], own[1], resigned(own[1], lambda v: v.update(nonce="0" * 32))],
        "record of another session": [own[0], other[1]],
        "prev of another record": [own[0], moved(own[1])],
        "time going backwards": [own[1], resigned(own[2], lambda v: v.update(ts_us=time))],
    }


def _logs(world: World) -> dict[str, list[Item]]:
    own = world.items("own", proofs=True)
    first = own[0]
    proof = first["proof"]
    parsed = TlogProof.parse(proof.encode())
    size, root = len(world.tree), world.tree.root()

    def shown(**changes: Any) -> list[Item]:
        made = TlogProof(
            changes.get("index", parsed.index),
            changes.get("path", parsed.path),
            changes.get("checkpoint", parsed.checkpoint),
            changes.get("extra"),
        )
        return [{**first, "proof": made.write().decode()}]

    def noted(text: str, *keys: SigningKey) -> bytes:
        return write_note(text, [sign_note(text, ORIGIN, key) for key in keys or (LOG,)])

    heads = [bytes.fromhex(item["receipt"]) for item in own[1::-1]]
    swapped = MerkleTree(heads)

    def crossed(head: str) -> str:
        index = heads.index(bytes.fromhex(head))
        note = world.signer.checkpoint(2, swapped.root())
        return TlogProof(index, swapped.inclusion(index), note).write().decode()

    def replaced(old: str, new: str) -> list[Item]:
        return [{**first, "proof": proof.replace(old, new, 1)}]

    foreign = LogSigner("other.example", [LOG]).checkpoint(size, root)
    signed_text = f"{ORIGIN}\n{size}\n"
    lines = proof.split("\n")
    line = sign_note(signed_text + lines_root(root), ORIGIN, LOG)
    flipped = NoteSignature(line.name, line.hash, bytes([line.signature[0] ^ 1]) + line.signature[1:])
    return {
        "chain with proofs": own,
        "smaller tree": [{**own[1], "proof": world.proof(own[1]["receipt"], 3)}],
        "head named in the proof": shown(extra=bytes.fromhex(first["receipt"])),
        "another head named in the proof": shown(extra=bytes(32)),
        "index plus one": shown(index=1),
        "index beyond the tree": shown(index=size),
        "hash missing": shown(path=parsed.path[:-1]),
        "hash too many": shown(path=(*parsed.path, bytes(32))),
        "hashes swapped": shown(path=(parsed.path[1], parsed.path[0], *parsed.path[2:])),
        "proof of another receipt": [{**first, "proof": own[1]["proof"]}],
        "index with a leading zero": replaced("index 0", "index 00"),
        "not a proof": replaced("tlog-proof@v1", "tlog-proof@v2"),
        "base64 that is not canonical": replaced(lines[2], lines[2][:-2] + chr(ord(lines[2][-2]) + 1) + "="),
        "size with a leading zero": shown(checkpoint=noted(signed_text.replace("\n2", "\n02") + lines_root(root))),
        "size with a plus": shown(checkpoint=noted(signed_text.replace("\n2", "\n+2") + lines_root(root))),
        "root of 31 bytes": shown(checkpoint=noted(signed_text + lines_root(root[:31]))),
        "checkpoint of another log": shown(checkpoint=foreign),
        "checkpoint signed by a stranger": shown(checkpoint=noted(signed_text + lines_root(root), UNKNOWN)),
        "one bit of the checkpoint's signature": shown(
            checkpoint=write_note(signed_text + lines_root(root), [flipped])
        ),
        "the same line twice": shown(checkpoint=noted(signed_text + lines_root(root), LOG, LOG)),
        "17 lines": shown(checkpoint=noted(signed_text + lines_root(root), *[UNKNOWN] * 16, LOG)),
        "records in the log in another order": [{**item, "proof": crossed(item["receipt"])} for item in own[:2]],
    }


def lines_root(root: bytes) -> str:
    """The line of a checkpoint's root."""
    return base64.b64encode(root).decode() + "\n"


def _hybrid(world: World) -> dict[str, list[Item]]:
    own = world.items("hybrid")
    first, sig = own[0], own[0]["receipt_sig"]
    return {
        "hybrid chain": own,
        "hybrid without its ML-DSA-44 half": [{**first, "receipt_sig": sig[:128]}],
        "hybrid with the half of another receipt": [{**first, "receipt_sig": sig[:128] + own[1]["receipt_sig"][128:]}],
        "hybrid with one bit of its ML-DSA-44 half": [{**first, "receipt_sig": sig[:-1] + f"{int(sig[-1], 16) ^ 1:x}"}],
        "hybrid with one bit of its Ed25519 half": [{**first, "receipt_sig": f"{int(sig[0], 16) ^ 1:x}" + sig[1:]}],
    }


def cases(world: World) -> list[dict[str, Any]]:
    """Named runs of records with the verdict of `tcd.receipts`."""
    own = world.items("own")
    groups = {
        "body": _bodies(own[0]),
        "key": _keys(world, own[0]),
        "chain": _chains(world, own),
        "log": _logs(world),
        "hybrid": _hybrid(world),
    }
    out = []
    for group, named in groups.items():
        for name, receipts in named.items():
            ok, code = verdict(receipts, world.policy)
            needs = {"needs": ["ML-DSA-44"]} if group == "hybrid" else {}
            out.append({"name": f"{group}: {name}", "ok": ok, "code": code, **needs, "receipts": receipts})
    return out


def primitives(world: World) -> dict[str, Any]:
    """The steps under receipts, from the same sessions."""
    records = [receipt for made in world.sessions.values() for receipt in made.receipts][:4]
    keys: list[Signer] = [OWN, MlDsaKey(seed("hybrid/q")), HYBRID]
    values = [-0.25, -1.5, 0.0, 1e-7, 3.0]
    signals = [values, values[:1], [], [2.0, 2.0]]
    snapshots = Session(name="e")
    steps = []
    for p in (0.5, 0.001, 0.9, 0.02):
        before = snapshots.controller.state("acme").snapshot.to_json()
        snapshots.fold(p)
        steps.append((before, snapshots.controller.state("acme").snapshot.to_json()))
    terms = Terms.of(snapshots.controller.params).to_json()
    wrong = [(before, {**after, "wealth": before["x"]}) for before, after in steps[:1]]
    subtrees = [Subtree(ORIGIN, 0, 20, world.tree.root()), Subtree(ORIGIN, 16, 20, world.tree.range_root(16, 20))]
    return {
        "v": "tcd.receipt-primitives/1",
        "about": "The steps under receipts: hashes, ids, what is signed, witness segments, e-process snapshots.",
        "heads": [{"body": r.body_text, "head": r.head_hex} for r in records],
        "kids": [{"alg": key.alg, "pub": key.public.hex(), "kid": key.kid} for key in keys],
        "messages": [
            {
                "suite": suite,
                "kid": r.kid,
                "head": r.head_hex,
                "message": signature_input(suite=suite, kid=r.kid, head=r.head).hex(),
            }
            for r, suite in zip(records, ("Ed25519", "Ed25519+ML-DSA-44"), strict=False)
        ],
        "chains": [
            {"kind": kind, "parts": parts, "id": chain_id(kind, *parts)}
            for kind, parts in (("session", ["a", "b"]), ("session", ["ab", ""]), ("epoch", ["s", "\u00e9"]))
        ],
        "witness": [
            {"values": [hex64(x) for x in signal], "segment": segment("trace", np.asarray(signal), bytes(range(16)))}
            for signal in signals
        ],
        "eproc": [
            {"previous": before, "current": after, "terms": terms, "ok": good}
            for good, pairs in ((True, steps), (False, wrong))
            for before, after in pairs
        ],
        "subtrees": [
            {
                "origin": item.origin,
                "start": item.start,
                "end": item.end,
                "root": item.root.hex(),
                "time": time,
                "message": item.message(item.origin, time).hex(),
            }
            for item, time in zip(subtrees, (1_760_000_000, 0), strict=True)
        ],
    }


def main() -> None:
    world = World()
    made = {
        "v": "tcd.receipt-vectors/1",
        "about": "Runs of receipts with the verdict that a verifier of docs/receipt-v2.md must come to.",
        "keyset": world.keys.to_json(),
        "cases": cases(world),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "receipts.json").write_text(json.dumps(made, indent=1, ensure_ascii=True) + "\n")
    (FOLDER / "primitives.json").write_text(json.dumps(primitives(world), indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
