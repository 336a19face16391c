"""Names that leave the process: keyed digests of subjects, bounded in number, never the raw names."""

from __future__ import annotations

from functools import lru_cache

from tcd.receipts import subject_digest


class Subjects:
    """Keyed digests of one installation."""

    def __init__(self, key: bytes) -> None:
        """Digest with `key`, a secret of at least 16 bytes."""
        self._key = key
        self._short = lru_cache(maxsize=4096)(self._digest)

    def _digest(self, *parts: str) -> str:
        return subject_digest(self._key, *parts)

    def subject(self, tenant: str, user: str, session: str) -> str:
        """Of a subject, as receipts carry it."""
        return self._digest(tenant, user, session)

    def tenant(self, tenant: str) -> str:
        """Of a tenant: the name of its stream."""
        return self._short("tenant", tenant)

    def user(self, tenant: str, user: str) -> str:
        """Of a user: the name of its stream in the unit `request`, and whose credits are capped."""
        return self._short("user", tenant, user)
