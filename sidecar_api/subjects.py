"""Names that leave the process: keyed digests of subjects, bounded in number, never the raw names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

from tcd.config import Settings
from tcd.receipts import subject_digest


class Subjects:
    """Keyed digests of one installation."""

    def __init__(self, key: bytes) -> None:
        """Digest with `key`, a secret of at least 16 bytes."""
        self._key = key
        self._short = lru_cache(maxsize=4096)(self._digest)

    def _digest(self, *parts: str) -> str:
        return subject_digest(self._key, *parts)

    def derived(self, purpose: bytes) -> bytes:
        """Another secret of 32 bytes that follows from the key, one for each purpose."""
        return hashlib.sha256(purpose + b"\0" + self._key).digest()

    def subject(self, tenant: str, user: str, session: str) -> str:
        """Of a subject, as receipts carry it."""
        return self._digest(tenant, user, session)

    def tenant(self, tenant: str) -> str:
        """Of a tenant: the name of its stream."""
        return self._short("tenant", tenant)

    def user(self, tenant: str, user: str) -> str:
        """Of a user: the name of its stream in the unit `request`, and whose credits are capped."""
        return self._short("user", tenant, user)

    def stream(self, subject: tuple[str, str, str], *, unit: str, mark: str = "") -> str:
        """Name of the stream that a subject's hypotheses belong to; `mark` continues the tenant's name."""
        tenant, user, _ = subject
        return self.tenant(tenant + mark) if unit != "request" else self.user(tenant + mark, user)


def subject_key(settings: Settings, random: Callable[[int], bytes]) -> bytes:
    """The key of subject digests: the settings', else one that follows from the receipt key, else a random one."""
    if settings.subject_key_hex is not None:
        return bytes.fromhex(settings.subject_key_hex.get_secret_value())
    if settings.attest_sk_hex is not None:
        seed = bytes.fromhex(settings.attest_sk_hex.get_secret_value())
        return hashlib.sha256(b"tcd/subject-key/v1\0" + seed).digest()
    return random(32)


def subject_fingerprint(settings: Settings) -> bytes:
    """What shims of one ledger compare, so that all of them name tenants alike; tells nothing about the key."""
    key = subject_key(settings, lambda _: b"")
    return hashlib.sha256(b"tcd/subject-check/v1\0" + key).digest() if key else b""
