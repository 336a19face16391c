"""Every mutation is a record in the log before it happens."""

from __future__ import annotations

from typing import Protocol

from sidecar_api.http.runtime import Runtime
from tcd.errors import ConfigError


class Acts(Protocol):
    """Where acts are recorded."""

    async def record(self, action: str, actor: str, digest: str, *, reason: str = "") -> str:
        """Record an act on an object, durably, and why where somebody said; the head of its receipt."""
        ...


class LogActs:
    """Records acts as `admin` receipts of the shim: leaves of the log that its decisions are in."""

    def __init__(self, runtime: Runtime) -> None:
        """Record in the log of `runtime`.

        Raises:
            ConfigError: receipts are switched off.
        """
        if runtime.service.judge.receipts is None:
            msg = "the admin plane needs receipts: what operators do is recorded in the log"
            raise ConfigError(msg)
        self._judge = runtime.service.judge

    async def record(self, action: str, actor: str, digest: str, *, reason: str = "") -> str:
        """See `Acts`.

        Raises:
            TcdError: the ledger cannot keep it; then nothing is done either.
        """
        receipts = self._judge.receipts
        assert receipts is not None  # noqa: S101 - for the type checker: checked above
        made = receipts.admin(action, digest, actor=actor, reason=reason)
        await self._judge.put(made, lost=receipts.forget_acts)
        return str(made[-1].head.hex())
