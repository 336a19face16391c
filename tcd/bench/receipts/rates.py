"""Rates of receipts beside raw signing: CPU time per call on one core, every row in every turn of one run."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

import numpy as np
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from tcd.bench.receipts.sample import DECISION, DIGEST, FULL, OPENED, ORIGIN, Session, seed
from tcd.receipts import HybridKey, KeySet, MlDsaKey, Receipt, Signer, SigningKey, VerifyPolicy, canonical, verify_chain
from tcd.receipts import verify_single as verify
from tcd.receipts.body import check_body, fits, head_of
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.members import VERSION
from tcd.receipts.merkle import MerkleTree, check_inclusion, leaf_hash

BATCHES: Final = (8, 32, 128, 512)
#: Leaves of the tree in which inclusion is checked: paths of 20 hashes.
TREE: Final = 1 << 20


class Turns:
    """Rows measured in turns, so that a busy machine hits all alike."""

    def __init__(self, turns: int, seconds: float) -> None:
        """Measure each row `turns` times, about `seconds` each time."""
        self._turns = turns
        self._seconds = seconds
        self._rows: dict[str, tuple[Callable[[], object], int]] = {}

    def add(self, name: str, work: Callable[[], object], each: int = 1) -> None:
        """A row; one call of `work` does `each` of what is counted."""
        self._rows[name] = (work, each)

    def run(self) -> dict[str, dict[str, float]]:
        """CPU microseconds per piece: the median and the best of the turns, and pieces per turn."""
        times: dict[str, list[float]] = {name: [] for name in self._rows}
        calls: dict[str, int] = {}
        for name, (work, _) in self._rows.items():
            once = min(_once(work) for _ in range(5))
            calls[name] = max(1, round(self._seconds / max(once, 1e-7)))
        for _ in range(self._turns):
            for name, (work, each) in self._rows.items():
                gc.collect()
                began = time.thread_time()
                for _ in range(calls[name]):
                    work()
                times[name].append((time.thread_time() - began) / calls[name] / each * 1e6)
        return {
            name: {
                "us": round(float(np.median(found)), 3),
                "best_us": round(min(found), 3),
                "per_second": round(1e6 / float(np.median(found))),
                "n": calls[name] * self._rows[name][1],
            }
            for name, found in times.items()
        }


def _once(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _policy(*keys: Any, quantum: bool = False) -> VerifyPolicy:
    both = frozenset({"Ed25519", "ML-DSA-44"})
    return VerifyPolicy(KeySet(keys), algorithms=both if quantum else frozenset({"Ed25519"}))


def _raw(turns: Turns, message: bytes) -> None:
    classic, quantum = Ed25519PrivateKey.from_private_bytes(bytes(32)), MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    signed, post = classic.sign(message), quantum.sign(message)
    public, post_public = classic.public_key(), quantum.public_key()
    turns.add("raw Ed25519 sign", lambda: classic.sign(message))
    turns.add("raw Ed25519 verify", lambda: public.verify(signed, message))
    turns.add("raw ML-DSA-44 sign", lambda: quantum.sign(message))
    turns.add("raw ML-DSA-44 verify", lambda: post_public.verify(post, message))


def _body(turns: Turns, receipt: Receipt) -> None:
    value = canonical.parse(receipt.body)
    text = receipt.body_text
    turns.add("canonical: encode", lambda: canonical.encode(value))
    turns.add("canonical: parse and compare", lambda: canonical.parse(receipt.body))
    turns.add("canonical: encode, rfc8785", lambda: rfc8785.dumps(value))
    turns.add("canonical: encode, json of the standard library", lambda: json.dumps(value, sort_keys=True).encode())
    turns.add("schema: one match of the text", lambda: fits(value, text))
    turns.add("schema: member by member", lambda: check_body(value))
    turns.add("head", lambda: head_of(receipt.body))


def _issued(turns: Turns, name: str, key: Signer, members: Any) -> Receipt:
    session = Session.of(key)
    session.issue("open", OPENED)
    turns.add(f"issue, {name}", lambda: session.issue("decision", members))
    return session.issue("decision", members)


def _verified(turns: Turns, name: str, receipt: Receipt, policy: VerifyPolicy, **options: Any) -> None:
    head, sig = receipt.head_hex, receipt.sig_hex

    def work() -> None:
        if not verify(receipt.body, head=head, sig=sig, policy=policy, **options).ok:
            raise AssertionError(name)

    turns.add(f"verify, {name}", work)


def _in_log(receipt: Receipt, signer: LogSigner, tree: MerkleTree) -> bytes:
    index = tree.append(receipt.head)
    size = len(tree)
    return TlogProof(index, tree.inclusion(index), signer.checkpoint(size, tree.root())).write()


def _chain(turns: Turns, key: SigningKey, policy: VerifyPolicy, records: int = 256) -> None:
    session = Session.of(key)
    made = [
        session.issue("decision" if number else "open", DECISION if number else OPENED) for number in range(records)
    ]
    bodies, heads, sigs = [r.body for r in made], [r.head_hex for r in made], [r.sig_hex for r in made]

    def work() -> None:
        if not verify_chain(bodies, heads=heads, sigs=sigs, policy=policy).ok:
            raise AssertionError

    turns.add("verify a chain, a record of it", work, records)


class Batches:
    """Decisions of a log whose batches are signed once: with a signature of each receipt besides, or without."""

    def __init__(self, members: Any, *, before: int = 0) -> None:
        """Decisions with these members, in a log that has `before` other leaves."""
        self._key, self._quantum = SigningKey(seed("log")), MlDsaKey(seed("log/q"))
        self._log = LogSigner(ORIGIN, [self._key, self._quantum])
        self._session = Session.of(SigningKey(seed("issuer")))
        self._session.issue("open", OPENED)
        self._members = members
        self.tree = MerkleTree(bytes(32) for _ in range(before))
        self._number = count()

    def _unsigned(self) -> bytes:
        """Head of a body as `Issuer.issue` writes it, which nothing signs but the log."""
        chain = self._session.state
        value = {
            **self._members,
            "v": VERSION,
            "typ": "decision",
            "suite": "Ed25519",
            "kid": self._key.kid,
            "origin": ORIGIN,
            "chain": {"id": chain.id, "seq": next(self._number) + 1, "prev": self._last},
            "ts_us": 1,
            "nonce": next(self._number).to_bytes(16, "big").hex(),
            "tenant": "t",
            "config": DIGEST,
            "policy": DIGEST,
        }
        body = canonical.write(value)
        if not fits(value, body.decode()):
            raise AssertionError
        head = head_of(body)
        self._last = head.hex()
        return head

    _last = "1" * 64

    def by_layer(self, size: int) -> None:
        """Issue `size` receipts with an Ed25519 signature each, and sign their subtree with both algorithms."""
        self._batch(self._session.issue("decision", self._members).head for _ in range(size))

    def alone(self, size: int) -> None:
        """Write `size` bodies, and sign their subtree with both algorithms."""
        self._batch(self._unsigned() for _ in range(size))

    def _batch(self, heads: Iterator[bytes]) -> None:
        start = len(self.tree)
        for head in heads:
            self.tree.append(head)
        self._log.subtrees(start, len(self.tree), self.tree.range_root)


def measure(*, turns: int, seconds: float, batches: Sequence[int] = BATCHES, tree: int = TREE) -> dict[str, Any]:
    """Rates, and batches of receipts beside a hybrid signature of each.

    Args:
        turns: of all rows, one after the other.
        seconds: about how long one row is measured in one turn.
        batches: sizes.
        tree: leaves of the log in which inclusion is checked.
    """
    rows = Turns(turns, seconds)
    key, hybrid = SigningKey(seed("issuer")), HybridKey(seed("h") * 2)
    signer = LogSigner(ORIGIN, [SigningKey(seed("log"))])
    receipt, full = _issued(rows, "Ed25519", key, DECISION), _issued(rows, "Ed25519, every witness segment", key, FULL)
    twice = _issued(rows, "hybrid", hybrid, DECISION)
    _raw(rows, b"tcd/receipt/v2/sig\0" + bytes(60))
    _body(rows, receipt)
    pinned = Session.of(key).issuer.pinned()
    policy = _policy(pinned, *signer.pinned())
    leaves = MerkleTree(number.to_bytes(32, "big") for number in range(tree - 1))
    proof = _in_log(receipt, signer, leaves)
    _verified(rows, "Ed25519", receipt, policy)
    _verified(rows, "Ed25519, every witness segment", full, policy)
    _verified(rows, "hybrid", twice, _policy(Session.of(hybrid).issuer.pinned(), quantum=True))
    _verified(rows, "Ed25519 and inclusion", receipt, policy, proof=proof)
    _chain(rows, key, policy)
    parsed, root, leaf = TlogProof.parse(proof), leaves.root(), leaf_hash(receipt.head)
    rows.add(
        f"inclusion, {len(parsed.path)} hashes",
        lambda: check_inclusion(parsed.index, tree, leaf, parsed.path, root),
    )
    for size in batches:
        for where, before in (("", 0), (", anywhere", 5)):
            makers = Batches(DECISION, before=before)
            for name, make in (("by layer", makers.by_layer), ("of the batch alone", makers.alone)):
                rows.add(f"hybrid {name}, batch of {size}{where}", partial(make, size), size)
    return {
        "body_bytes": len(receipt.body),
        "full_body_bytes": len(full.body),
        "turns": turns,
        "rows": rows.run(),
    }
