"""Ed25519 signing by libsodium where the extra `fast` is installed, else by OpenSSL.

RFC 8032 leaves no choice: both give the same 64 bytes, and libsodium takes two thirds of the time. Verifying stays
with OpenSSL and the checks of `edwards`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Sign = Callable[[bytes], bytes]
_SIGNATURE: Final = 64


def openssl(seed: bytes) -> tuple[bytes, Sign]:
    """Public key and signing function of a 32-byte seed."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes_raw(), key.sign


keypair: Callable[[bytes], tuple[bytes, Sign]] = openssl

try:
    from nacl.bindings import crypto_sign, crypto_sign_seed_keypair
except ImportError:  # not installed, or its library cannot be loaded
    pass
else:

    def libsodium(seed: bytes) -> tuple[bytes, Sign]:
        """As `openssl`."""
        public, secret = crypto_sign_seed_keypair(seed)

        def sign(message: bytes) -> bytes:
            signed: bytes = crypto_sign(message, secret)
            return signed[:_SIGNATURE]

        return public, sign

    keypair = libsodium
