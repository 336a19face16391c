"""Signing keys: Ed25519, ML-DSA-44, and both at once, where every part of the signature must verify."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, Protocol

from tcd.receipts import ed25519, mldsa
from tcd.receipts.edwards import point_problem, signature_problem
from tcd.receipts.errors import BadKey

ALG: Final = "Ed25519"
HYBRID: Final = f"{ALG}+{mldsa.ALG}"
_PUBLIC: Final = 32
_SIGNATURE: Final = 64
_SEED: Final = 32
#: Bytes of the public keys and of the signatures of each algorithm.
PUBLIC_SIZES: Final = {ALG: _PUBLIC, mldsa.ALG: mldsa.PUBLIC, HYBRID: _PUBLIC + mldsa.PUBLIC}
SIGNATURE_SIZES: Final = {ALG: _SIGNATURE, mldsa.ALG: mldsa.SIGNATURE, HYBRID: _SIGNATURE + mldsa.SIGNATURE}
#: Bytes of the seeds.
SEED_SIZES: Final = {ALG: _SEED, mldsa.ALG: mldsa.SEED, HYBRID: _SEED + mldsa.SEED}
_HEX32: Final = re.compile(r"[0-9a-f]{64}")


def key_id(public: bytes, alg: str = ALG) -> str:
    r"""`kid` of a public key: 32 hex digits, the first 16 bytes of SHA-256("tcd/kid/v1\0" || alg || 0 || pub)."""
    return hashlib.sha256(b"tcd/kid/v1\0" + alg.encode() + b"\0" + public).hexdigest()[:32]


def check_public(public: bytes) -> None:
    """Refuse an unsafe Ed25519 public key.

    Raises:
        BadKey: small order, not canonical or not on the curve.
    """
    problem = point_problem(public)
    if problem:
        msg = f"public key: {problem}"
        raise BadKey(msg)


class Signer(Protocol):
    """A key pair of any algorithm.

    Attributes:
        alg: Ed25519, ML-DSA-44 or Ed25519+ML-DSA-44.
        kid: id of the key.
        public: the public key as a key set has it.
    """

    @property
    def alg(self) -> str: ...  # noqa: D102 - above

    @property
    def kid(self) -> str: ...  # noqa: D102 - above

    @property
    def public(self) -> bytes: ...  # noqa: D102 - above

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        """Sign a message that begins with the prefix of its kind; ML-DSA also binds `context`."""
        ...


class SigningKey:
    """An Ed25519 key pair."""

    __slots__ = ("_sign", "kid", "public")
    alg = ALG

    def __init__(self, seed: bytes) -> None:
        """A key from its 32-byte seed.

        Raises:
            ValueError: the seed is not 32 bytes long.
        """
        if len(seed) != _SEED:
            msg = "an Ed25519 seed has 32 bytes"
            raise ValueError(msg)
        self.public, self._sign = ed25519.keypair(seed)
        self.kid = key_id(self.public)

    @classmethod
    def from_hex(cls, seed: str) -> SigningKey:
        """A key from 64 hex digits (`TCD_ATTEST_SK_HEX`).

        Raises:
            ValueError: not 64 hex digits. The message does not repeat them.
        """
        if _HEX32.fullmatch(seed.lower()) is None:
            msg = "the signing key is not 64 hex digits"
            raise ValueError(msg)
        return cls(bytes.fromhex(seed))

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> SigningKey:
        """A new key from a source of random bytes such as `os.urandom`."""
        return cls(random(_SEED))

    def sign(self, message: bytes, context: bytes = b"") -> bytes:  # noqa: ARG002 - Ed25519 has no context
        """64-byte signature."""
        return self._sign(message)

    def __repr__(self) -> str:
        """Names the key without its secret."""
        return f"SigningKey(kid={self.kid})"


class MlDsaKey:
    """An ML-DSA-44 key pair."""

    __slots__ = ("_secret", "kid", "public")
    alg = mldsa.ALG

    def __init__(self, seed: bytes) -> None:
        """A key from its 32-byte seed.

        Raises:
            ValueError: the seed is not 32 bytes long.
        """
        self._secret = mldsa.MlDsaSecret(seed)
        self.public = self._secret.public
        self.kid = key_id(self.public, self.alg)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        """2,420-byte signature."""
        return self._secret.sign(message, context)

    def __repr__(self) -> str:
        """Names the key without its secret."""
        return f"MlDsaKey(kid={self.kid})"


class HybridKey:
    """An Ed25519 and an ML-DSA-44 key pair as one key: both sign, and both must verify."""

    __slots__ = ("_classic", "_quantum", "kid", "public")
    alg = HYBRID

    def __init__(self, seed: bytes) -> None:
        """A key from 64 bytes: the Ed25519 seed, then the ML-DSA-44 seed.

        Raises:
            ValueError: the seed is not 64 bytes long.
        """
        self._classic = SigningKey(seed[:_SEED])
        self._quantum = mldsa.MlDsaSecret(seed[_SEED:])
        self.public = self._classic.public + self._quantum.public
        self.kid = key_id(self.public, self.alg)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        """2,484 bytes: the Ed25519 signature, then the ML-DSA-44 signature."""
        return self._classic.sign(message) + self._quantum.sign(message, context)

    def __repr__(self) -> str:
        """Names the key without its secret."""
        return f"HybridKey(kid={self.kid})"


_CLASSES: Final[dict[str, Callable[[bytes], Signer]]] = {ALG: SigningKey, mldsa.ALG: MlDsaKey, HYBRID: HybridKey}


def signer(alg: str, seed: bytes) -> Signer:
    """The key pair of a seed.

    Raises:
        ValueError: an unknown algorithm, or a seed of another length.
    """
    if alg not in _CLASSES or len(seed) != SEED_SIZES[alg]:
        msg = f"no key of algorithm {alg!r} has a seed of {len(seed)} bytes"
        raise ValueError(msg)
    return _CLASSES[alg](seed)


class Public:
    """A loaded public key of any algorithm, checked to be safe."""

    __slots__ = ("_classic", "_quantum", "alg")

    def __init__(self, alg: str, public: bytes) -> None:
        """Load a key.

        Raises:
            BadKey: unknown algorithm, another length, or an unsafe Ed25519 key.
        """
        if alg not in PUBLIC_SIZES or len(public) != PUBLIC_SIZES[alg]:
            msg = f"{len(public)} bytes are no public key of algorithm {alg[:40]!r}"
            raise BadKey(msg)
        self.alg = alg
        classic = b"" if alg == mldsa.ALG else public[:_PUBLIC]
        if classic:
            check_public(classic)
        self._classic = ed25519.verifier(classic) if classic else None
        quantum = public[len(classic) :]
        self._quantum = mldsa.MlDsaPublic(quantum) if quantum else None

    def verify(self, signature: bytes, message: bytes, context: bytes = b"") -> bool:
        """Whether every part of the key signed `message`; False for a signature of another length."""
        if len(signature) != SIGNATURE_SIZES[self.alg]:
            return False
        first = 0 if self._classic is None else _SIGNATURE
        if self._classic is not None and not _verify(self._classic, signature[:first], message):
            return False
        return self._quantum is None or self._quantum.verify(signature[first:], message, context)


def _verify(verify: ed25519.Verify, signature: bytes, message: bytes) -> bool:
    return not signature_problem(signature) and verify(signature, message)


def verify_ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Strict Ed25519 verification by a raw public key.

    Raises:
        BadKey: the public key is unsafe.
    """
    check_public(public)
    return _verify(ed25519.verifier(public), signature, message)
