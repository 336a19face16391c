"""The first start: one credential, printed once, with which the first principals are enrolled."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tcd.errors import Unauthorized
from tcd.files import write_whole

#: Seconds that it can be used.
LIVES: Final = 3600
_FILE: Final = "bootstrap.json"
_PREFIX: Final = "tcd-bootstrap-"


class Bootstrap:
    """The credential; only its digest is kept."""

    def __init__(self, folder: Path, *, now: Callable[[], float]) -> None:
        """Keep it in `folder`."""
        self._path = folder / _FILE
        self._now = now

    def create(self, random: Callable[[int], bytes]) -> str | None:
        """A new credential; None while one is still good, which was printed when it was made."""
        if self._digest() is not None:
            return None
        secret = _PREFIX + random(32).hex()
        made = {"digest": hashlib.sha256(secret.encode()).hexdigest(), "until": int(self._now()) + LIVES}
        write_whole(self._path, json.dumps(made).encode(), mode=0o600)
        return secret

    def check(self, authorization: str | None) -> None:
        """Refuse what is not the credential.

        Raises:
            Unauthorized: always the same words.
        """
        kind, _, secret = (authorization or "").partition(" ")
        digest = self._digest() or ""
        given = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        if not (hmac.compare_digest(digest, given) and kind.lower() == "bearer" and digest):
            msg = "a valid bootstrap credential is needed"
            raise Unauthorized(msg)

    def used(self) -> None:
        """Forget it for good."""
        self._path.unlink(missing_ok=True)

    def _digest(self) -> str | None:
        try:
            known = json.loads(self._path.read_bytes())
            digest, until = str(known["digest"]), int(known["until"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return digest if self._now() < until else None
