"""Receipts in COSE: another library verifies them, and every changed bit is refused."""

from __future__ import annotations

from random import Random

import cbor2
import pytest
from cwt import COSE, COSEKey
from cwt.exceptions import VerifyError

from tcd import cose
from tcd.errors import VerificationError
from tcd.receipts import KeySet, MlDsaKey, SigningKey
from tcd.receipts.errors import BadInclusion, BadSignature, MalformedNote, MissingSignature, UnknownKey, WrongOrigin
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import MerkleTree, leaf_hash, node_hash
from tests.unit.receipts.simulator import seed

ORIGIN = "tcd.example"
KEY = SigningKey(seed("log/ed"))
KEYS = KeySet(LogSigner(ORIGIN, [KEY]).pinned())
HEADS = [seed(f"head{number}") for number in range(11)]
TREE = MerkleTree(HEADS)


def receipt(index: int, size: int = len(HEADS), key: SigningKey = KEY, origin: str = ORIGIN) -> bytes:
    path, root = TREE.inclusion(index, size), TREE.root(size)
    return cose.write_receipt(origin=origin, size=size, index=index, path=path, root=root, key=key)


def another_root(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """RFC 9162's verification, written down once more."""
    fn, sn, r = index, size - 1, leaf
    for p in path:
        assert sn
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return r


@pytest.mark.parametrize("size", range(1, len(HEADS) + 1))
def test_every_leaf_round_trips_and_cwt_verifies_it(size: int) -> None:
    # an OKP key, Ed25519
    peer = COSEKey.new({1: 1, 2: bytes.fromhex(KEY.kid), 3: -19, -1: 6, -2: KEY.public})
    for index in range(size):
        data = receipt(index, size)
        assert cose.check_receipt(data, HEADS[index], keys=KEYS, origin=ORIGIN) == cose.Shown(
            ORIGIN, size, index, KEY.kid
        )
        # a relying party without our code: CBOR, the proof, the detached root
        _, unprotected, payload, _ = cbor2.loads(data).value
        assert payload is None
        shown, at, path = cbor2.loads(unprotected[396][-1][0])
        assert (shown, at) == (size, index)
        root = another_root(index, size, leaf_hash(HEADS[index]), path)
        protected, _, opened = COSE.new().decode_with_headers(data, peer, detached_payload=root)
        assert opened == root
        assert (protected[395], protected[15]) == (1, {1: ORIGIN})
        with pytest.raises(VerifyError):
            COSE.new().decode(data, peer, detached_payload=seed("another root"))


def refused(data: bytes) -> bool:
    """Whether leaf 4 is not shown; a size that leads to the same root, which RFC 9942 does not sign, may be claimed."""
    try:
        shown = cose.check_receipt(data, HEADS[4], keys=KEYS, origin=ORIGIN)
    except VerificationError:
        return True
    assert (shown.origin, shown.index, shown.kid) == (ORIGIN, 4, KEY.kid)
    assert 9 <= shown.size <= 16
    assert shown.size != len(HEADS)
    return False


def test_every_bit_but_those_of_the_size_is_covered() -> None:
    data = receipt(4)
    taken = 0
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        taken += not refused(bytes(changed))
    # 11 ^ 1, 11 ^ 2, 11 ^ 4
    assert taken == 3


def test_what_it_does_not_show() -> None:
    data = receipt(4)

    def check(shown: bytes, head: bytes = HEADS[4], keys: KeySet = KEYS, origin: str = ORIGIN) -> None:
        cose.check_receipt(shown, head, keys=keys, origin=origin)

    with pytest.raises(BadSignature):
        check(data, HEADS[5])
    with pytest.raises(WrongOrigin):
        check(data, origin="other.example")
    with pytest.raises(WrongOrigin):
        check(receipt(4, origin="other.example"))
    with pytest.raises(UnknownKey):
        check(receipt(4, key=SigningKey(seed("stranger"))))
    with pytest.raises(UnknownKey):
        check(data, keys=KeySet(LogSigner(ORIGIN, [KEY]).pinned(compromised_after_size=99)))
    with pytest.raises(BadInclusion):
        check(cose.write_receipt(origin=ORIGIN, size=11, index=4, path=(), root=TREE.root(), key=KEY))
    with pytest.raises(MissingSignature):
        cose.write_receipt(origin=ORIGIN, size=1, index=0, path=(), root=TREE.root(1), key=MlDsaKey(seed("q")))
    indefinite = b"\xd2\x9f" + data[2:] + b"\xff"
    for other in (
        b"",
        b"\xf6",
        data + b"\0",
        data[:-1],
        indefinite,
        b"\x81" * 5000,
        b"\xbb" + b"\xff" * 8,
        bytes(20_000),
    ):
        with pytest.raises(MalformedNote):
            check(other)


def test_arbitrary_bytes_are_refused() -> None:
    random, data, taken = Random(20261126), receipt(4), 0  # noqa: S311 - reproducible
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(random.randrange(1, 5)):
            at = random.randrange(len(changed))
            changed[at : at + random.randrange(3)] = random.randbytes(random.randrange(3))
        taken += bytes(changed) != data and not refused(bytes(changed))
    assert taken < 30
