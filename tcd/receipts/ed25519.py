"""Ed25519 by libsodium where the extra `fast` is installed, else by OpenSSL.

RFC 8032 leaves no choice when signing: both give the same 64 bytes, and libsodium takes two thirds of the time. Both
verify without the cofactor, in half the time by libsodium; in what else they take they differ, so keys and signatures
go through the checks of `edwards` first. A test holds both ways to each other, on what is refused there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Sign = Callable[[bytes], bytes]
#: Whether a signature is that of a message.
Verify = Callable[[bytes, bytes], bool]
_SIGNATURE: Final = 64


def openssl(seed: bytes) -> tuple[bytes, Sign]:
    """Public key and signing function of a 32-byte seed."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes_raw(), key.sign


def openssl_verifier(public: bytes) -> Verify:
    """Verifying function of a 32-byte public key; both were checked by `edwards`."""
    key = Ed25519PublicKey.from_public_bytes(public)

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


keypair: Callable[[bytes], tuple[bytes, Sign]] = openssl
verifier: Callable[[bytes], Verify] = openssl_verifier

try:
    from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
    from nacl.exceptions import BadSignatureError
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

    def libsodium_verifier(public: bytes) -> Verify:
        """As `openssl_verifier`."""

        def verify(signature: bytes, message: bytes) -> bool:
            try:
                crypto_sign_open(signature + message, public)
            except BadSignatureError:
                return False
            return True

        return verify

    keypair = libsodium
    verifier = libsodium_verifier
