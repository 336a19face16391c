"""Puts the log of a shim together from its settings."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from sidecar_api.log.checkpointer import Checkpointer
from sidecar_api.log.keyring import KeyRing, Keys
from sidecar_api.log.service import LogService
from sidecar_api.log.witnesses import Witnesses, read_policy
from tcd.config import Settings
from tcd.errors import ConfigError
from tcd.ledger import Ledger
from tcd.ledger.tile_files import TileDirectory
from tcd.ledger.tile_memory import MemoryTiles, TileStore
from tcd.receipts import VerifyPolicy
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.tlog_policy import WitnessPolicy
from tcd.telemetry.transparency import LogMetrics


class ExportDirectory(TileDirectory):
    """A directory of tiles that no other process writes to."""

    def __init__(self, root: Path) -> None:
        """Take the directory.

        Raises:
            ConfigError: it cannot be made, or another process has it.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"log_dir: {root} cannot be used: {error.strerror}; remedy: choose another one"
            raise ConfigError(msg) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            msg = f"log_dir: another process exports to {root}; remedy: give each shim a directory of its own"
            raise ConfigError(msg) from None
        super().__init__(root)

    def close(self) -> None:
        """Let others have it."""
        os.close(self._lock)


def witness_policy(settings: Settings) -> WitnessPolicy | None:
    """The witnesses of the settings.

    Raises:
        ConfigError: the file is no policy.
    """
    return None if settings.log_witnesses is None else read_policy(settings.log_witnesses)


def verify_policy(keys: Keys, witnesses: WitnessPolicy | None) -> VerifyPolicy:
    """What the shim's own verifier demands: its keys, all signatures of the log, the quorum where there is one."""
    if keys.log is None:
        return VerifyPolicy(keys.pinned)
    return VerifyPolicy(keys.pinned, log_algorithms=keys.log.algorithms, witnesses=witnesses)


def make_log(
    settings: Settings,
    ledger: Ledger,
    keyring: KeyRing,
    *,
    witnesses: WitnessPolicy | None,
    metrics: LogMetrics,
    now_us: Callable[[], int],
) -> LogService | None:
    """The log of the settings, not started; None where it is off.

    Raises:
        ConfigError: the export directory cannot be had.
    """
    if not settings.log_enable:
        return None

    def signer() -> LogSigner:
        log = keyring.keys.log
        assert log is not None  # noqa: S101 - for the type checker: the log is on
        return log

    store: TileStore = MemoryTiles() if settings.log_dir is None else ExportDirectory(settings.log_dir)
    asked = None
    if witnesses is not None:
        asked = Witnesses(witnesses, timeout=settings.log_witness_timeout_s, counted=metrics)
    checkpointer = Checkpointer(
        ledger,
        store,
        signer,
        interval=settings.log_interval_s,
        witnesses=asked,
        hold=settings.log_no_quorum == "hold",
        metrics=metrics,
        now_us=now_us,
    )
    return LogService(ledger, checkpointer, lambda: keyring.keys.pinned)
