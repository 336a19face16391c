"""ML-DSA-44 (FIPS 204) from `cryptography`, the post-quantum half of hybrid signatures.

Every use has its own context string, so that a signature made for one purpose verifies for no other.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from tcd.receipts.errors import BadKey

ALG: Final = "ML-DSA-44"
SEED: Final = 32
PUBLIC: Final = 1312
SIGNATURE: Final = 2420


class MlDsaSecret:
    """A private key from its 32-byte seed (FIPS 204's xi)."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        """Expand the seed.

        Raises:
            ValueError: the seed is not 32 bytes long.
        """
        if len(seed) != SEED:
            msg = "an ML-DSA-44 seed has 32 bytes"
            raise ValueError(msg)
        self._private = MLDSA44PrivateKey.from_seed_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes, context: bytes) -> bytes:
        """2,420-byte signature, randomised ("hedged")."""
        return self._private.sign(message, context)


class MlDsaPublic:
    """A loaded public key."""

    __slots__ = ("_public",)

    def __init__(self, public: bytes) -> None:
        """Load 1,312 bytes.

        Raises:
            BadKey: another length.
        """
        if len(public) != PUBLIC:
            msg = f"an ML-DSA-44 public key has {PUBLIC} bytes"
            raise BadKey(msg)
        self._public = MLDSA44PublicKey.from_public_bytes(public)

    def verify(self, signature: bytes, message: bytes, context: bytes) -> bool:
        """Whether the key signed `message` under `context`."""
        if len(signature) != SIGNATURE:
            return False
        try:
            self._public.verify(signature, message, context)
        except InvalidSignature:
            return False
        return True
