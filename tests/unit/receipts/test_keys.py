"""Ed25519 keys: strictness beyond OpenSSL's, key ids, pinned sets; Wycheproof beside the checkout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tcd.errors import VerificationError
from tcd.receipts import KeySet, PinnedKey, SigningKey, ed25519, key_id
from tcd.receipts.edwards import _D, SMALL_ORDER_Y, L, P, point_problem, signature_problem
from tcd.receipts.errors import BadKey, MalformedKeyset
from tcd.receipts.keys import verify_ed25519

Point = tuple[int, int]
SIGN = 1 << 255


def add(a: Point, b: Point) -> Point:
    product = _D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, P - 2, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, P - 2, P) % P
    return x, y


def x_of(y: int) -> int:
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0
    return x


def test_the_small_order_points_are_all_those_whose_order_divides_eight() -> None:
    points = set()
    for y in SMALL_ORDER_Y:
        x = x_of(y)
        for point in ((x, y), (-x % P, y)):
            points.add(point)
            eighth = point
            for _ in range(3):
                eighth = add(eighth, eighth)
            assert eighth == (0, 1)
    assert len(points) == 8


def small_order_and_not_canonical() -> list[bytes]:
    """The 14 encodings: eight points of small order, and the non-canonical encodings that OpenSSL may take."""
    numbers = [0, 1, P - 1, P, P + 1, *sorted(SMALL_ORDER_Y - {0, 1, P - 1})]
    numbers += [n | SIGN for n in numbers]
    return sorted({n.to_bytes(32, "little") for n in numbers})


def test_unsafe_keys_are_refused() -> None:
    bad = small_order_and_not_canonical()
    assert len(bad) == 14
    for encoded in (*bad, (P + 18).to_bytes(32, "little"), (2).to_bytes(32, "little"), b"", b"\1" * 31):
        assert point_problem(encoded)
        with pytest.raises(BadKey):
            PinnedKey(encoded, "receipt", "o")
        with pytest.raises(BadKey):
            verify_ed25519(encoded, bytes(64), b"")


def test_honest_keys_are_taken() -> None:
    for seed in range(20):
        key = SigningKey(hashlib.sha256(bytes([seed])).digest())
        assert point_problem(key.public) == ""
        assert signature_problem(key.sign(b"m")) == ""


def test_signatures_out_of_range_or_with_small_order_r_are_refused() -> None:
    key = SigningKey(bytes(32))
    sig = key.sign(b"m")
    s = int.from_bytes(sig[32:], "little")
    assert verify_ed25519(key.public, sig, b"m")
    for bad in (
        sig[:32] + (s + L).to_bytes(32, "little"),
        sig[:63],
        sig + b"\0",
        b"",
        *(encoded + sig[32:] for encoded in small_order_and_not_canonical()),
    ):
        assert not verify_ed25519(key.public, bad, b"m")
        assert signature_problem(bad)


def test_kid_is_the_documented_digest() -> None:
    key = SigningKey(bytes(32))
    expected = hashlib.sha256(b"tcd/kid/v1\0Ed25519\0" + key.public).hexdigest()[:32]
    assert key.kid == key_id(key.public) == expected
    assert key.public.hex() == "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"  # RFC 8032 seed zero


def test_keys_from_hex_and_from_a_random_source() -> None:
    assert SigningKey.from_hex("00" * 32).kid == SigningKey(bytes(32)).kid
    assert SigningKey.generate(bytes).kid == SigningKey(bytes(32)).kid
    for bad in ("", "0" * 63, "0" * 65, "g" * 64, "0x" + "0" * 62):
        with pytest.raises(ValueError, match="64 hex digits"):
            SigningKey.from_hex(bad)
    assert "00000000" not in repr(SigningKey(bytes(32)))


def test_key_set_round_trip_and_refusals() -> None:
    keys = [
        PinnedKey(SigningKey(bytes([i]) * 32).public, purpose, "o", tenants, i or None, None, size)  # type: ignore[arg-type]
        for i, (purpose, tenants, size) in enumerate(
            [("receipt", None, None), ("checkpoint", frozenset({"b", "a"}), 5), ("admin", frozenset(), None)]
        )
    ]
    pinned = KeySet(keys)
    text = json.dumps(pinned.to_json())
    again = KeySet.from_json(json.loads(text))
    assert again.digest == pinned.digest
    assert [again.get(key.kid) for key in keys] == keys
    assert len(again) == 3
    with pytest.raises(ValueError, match="twice"):
        KeySet([keys[0], keys[0]])
    for change in ({"kid": "0" * 32}, {"extra": 1}, {"alg": "RSA"}, {"purpose": "all"}, {"pub": "00" * 32}):
        obj = json.loads(text)
        obj["keys"][0].update(change)
        with pytest.raises((ValueError, VerificationError)):
            KeySet.from_json(obj)
    with pytest.raises(MalformedKeyset):
        KeySet.from_json({"v": "tcd.keyset/2", "keys": []})


def test_validity_includes_its_ends() -> None:
    key = PinnedKey(SigningKey(bytes(32)).public, "receipt", "o", None, 10, 20)
    assert [key.valid_at(t) for t in (9, 10, 20, 21)] == [False, True, True, False]


def test_wycheproof(shared: Path) -> None:
    data = json.loads((shared / "vectors" / "receipts" / "wycheproof" / "ed25519_test.json").read_text())
    ran = 0
    for group in data["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            got = verify_ed25519(public, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            assert got is (case["result"] == "valid"), case["tcId"]
            ran += 1
    assert ran == data["numberOfTests"] == 151


def test_libsodium_and_openssl_sign_alike() -> None:
    """RFC 8032, section 7.1, tests 1 and 3, and seeds and messages at random."""
    cases = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ]
    ways = (ed25519.openssl, ed25519.libsodium)
    for seed, message, signature in cases:
        for way in ways:
            assert way(bytes.fromhex(seed))[1](bytes.fromhex(message)).hex() == signature
    random = np.random.default_rng(7)
    for size in (*range(70), 1000, 16_384):
        fresh, text = random.bytes(32), random.bytes(size)
        (public, sign), (other, sign_too) = (way(fresh) for way in ways)
        assert public == other
        assert sign(text) == sign_too(text)
        assert verify_ed25519(public, sign(text), text)
    assert ed25519.keypair is ed25519.libsodium


def both(public: bytes, signature: bytes, message: bytes) -> bool:
    """What OpenSSL and libsodium say: the same."""
    ways = (ed25519.openssl_verifier, ed25519.libsodium_verifier)
    said = {way(public)(signature, message) for way in ways}
    assert len(said) == 1, (public.hex(), signature.hex(), message.hex())
    return said.pop()


def test_libsodium_and_openssl_verify_alike() -> None:
    """Signatures that fit, and with each part changed at random."""
    random, refused = np.random.default_rng(11), 0
    for size in range(200):
        seed, text = random.bytes(32), random.bytes(size)
        key = SigningKey(seed)
        signature, other = key.sign(text), SigningKey(random.bytes(32))
        assert both(key.public, signature, text)
        at, bit = int(random.integers(63)), 1 << int(random.integers(8))
        changed = bytes(byte ^ bit * (i == at) for i, byte in enumerate(signature))
        shifted = signature[:32] + ((int.from_bytes(signature[32:], "little") + 1) % L).to_bytes(32, "little")
        for public, made, said in (
            *((key.public, changed, text), (key.public, shifted, text), (other.public, signature, text)),
            *((key.public, signature, text + b"x"), (key.public, other.sign(text), text)),
        ):
            if not signature_problem(made):
                refused += not both(public, made, said)
    assert refused > 900
    assert ed25519.verifier is ed25519.libsodium_verifier


def test_libsodium_and_openssl_verify_alike_what_the_checks_let_through_of_wycheproof(shared: Path) -> None:
    taken, looked_at = 0, 0
    data = json.loads((shared / "vectors" / "receipts" / "wycheproof" / "ed25519_test.json").read_text())
    for group in data["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            made = bytes.fromhex(case["sig"])
            if not (point_problem(public) or signature_problem(made)):
                looked_at += 1
                taken += both(public, made, bytes.fromhex(case["msg"]))
    assert looked_at > taken > 50
