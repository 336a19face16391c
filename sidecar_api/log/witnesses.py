"""Asking witnesses for cosignatures, off the event loop, and knowing whether there are enough."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tcd.errors import ConfigError, VerificationError
from tcd.receipts.note import parse_note, verify_lines
from tcd.receipts.tlog_policy import MAX_POLICY, WitnessPolicy, parse_policy
from tcd.witness import collect

_LOG = logging.getLogger(__name__)


class Counted(Protocol):
    """Where answers are counted."""

    def cosigned(self, witness: str, *, fine: bool) -> None:
        """A witness answered, or did not."""
        ...


def read_policy(path: Path) -> WitnessPolicy:
    """The policy of a file.

    Raises:
        ConfigError: it cannot be read, is none, or names no address of a witness.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_POLICY + 1)
        policy = parse_policy(raw)
    except OSError as error:
        msg = f"log_witnesses: {path} cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    except VerificationError as error:
        msg = f"log_witnesses: {path}: {error.detail}"
        raise ConfigError(msg) from None
    if not policy.urls:
        msg = f"log_witnesses: {path} gives no witness an address; remedy: add the URL to its line"
        raise ConfigError(msg)
    return policy


class Witnesses:
    """The witnesses of a log."""

    def __init__(self, policy: WitnessPolicy, *, timeout: float, counted: Counted) -> None:
        """Ask the witnesses of `policy`, each at most twice and for `timeout` seconds."""
        self.policy = policy
        self._timeout = timeout
        self._counted = counted
        self._sizes: dict[str, int] = {}
        self._said: dict[str, str] = {}

    async def cosign(self, note: bytes, *, size: int, prove: Callable[[int], Sequence[bytes]]) -> bytes:
        """The note with what the witnesses that answered added; the others are logged and counted."""
        found = await asyncio.to_thread(
            collect, self.policy, note, size=size, prove=prove, sizes=self._sizes, timeout=self._timeout
        )
        self._sizes = found.sizes
        for name in found.cosigned:
            self._counted.cosigned(name, fine=True)
            self._said.pop(name, None)
        for name, reason in found.failed.items():
            self._counted.cosigned(name, fine=False)
            if self._said.get(name) != reason:
                self._said[name] = reason
                _LOG.warning("the witness %s did not cosign: %s", name, reason)
        return found.note

    def enough(self, note: bytes) -> bool:
        """Whether a quorum cosigned a note."""
        text, lines = parse_note(note)
        signed = verify_lines(text, lines, self.policy.witnesses.values())
        good = {(found.verifier.name, found.verifier.hash) for found in signed}
        return self.policy.satisfied([n for n, key in self.policy.witnesses.items() if (key.name, key.hash) in good])
