"""What a shim signs with and whom its verifier trusts: keys of a directory of `tcd keys`, or of one seed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcd.config import Settings
from tcd.errors import ConfigError, VerificationError
from tcd.keystore import KEYSET, KeyStore
from tcd.receipts import KeySet, MlDsaKey, PinnedKey, Signer, SigningKey
from tcd.receipts.keys import ALG, HYBRID
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.mldsa import ALG as ML_DSA

_DERIVED: Final = b"tcd/log-key/v1\0"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys in use.

    Attributes:
        receipt: signs receipts.
        log: signs checkpoints; None with the log off.
        pinned: all that the shim's own verifier trusts, retired keys too.
        retired: earlier receipt keys whose seeds are here, by id: one of them may have to hand over.
    """

    receipt: Signer
    log: LogSigner | None
    pinned: KeySet
    retired: Callable[[str], tuple[PinnedKey, Signer] | None]

    @property
    def kids(self) -> frozenset[str]:
        """Ids of the keys that sign."""
        log = () if self.log is None else self.log.pinned()
        return frozenset({self.receipt.kid, *(key.kid for key in log)})


def _nobody(_: str) -> None:
    return None


def seed_keys(settings: Settings, seed: bytes) -> Keys:
    """Keys that follow from the seed of the receipt key: for one shim, or for several that share that seed.

    Raises:
        ConfigError: an origin that no checkpoint can carry.
    """
    receipt = SigningKey(seed)
    made = [hashlib.sha256(_DERIVED + alg.encode() + b"\0" + seed).digest() for alg in (ALG, ML_DSA)]
    log = _signer(settings.origin, [SigningKey(made[0]), MlDsaKey(made[1])]) if settings.log_enable else None
    pinned = [PinnedKey(receipt.public, "receipt", settings.origin), *(log.pinned() if log is not None else ())]
    return Keys(receipt, log, KeySet(pinned), _nobody)


def directory_keys(settings: Settings, directory: Path, *, now_us: Callable[[], int]) -> Keys:
    """The newest valid keys of a directory of `tcd keys`.

    Raises:
        ConfigError: there is none for receipts or for the log, or a file cannot be used.
    """
    store, origin = KeyStore(directory, os.urandom, now_us), settings.origin
    receipt = store.current("receipt", origin, ALG, HYBRID)
    if receipt is None:
        raise _missing(directory, "receipt", origin)
    log: LogSigner | None = None
    if settings.log_enable:
        classic = store.current("checkpoint", origin, ALG)
        quantum = store.current("checkpoint", origin, ML_DSA)
        if classic is None:
            raise _missing(directory, "checkpoint", origin)
        log = _signer(origin, [classic, *([quantum] if quantum is not None else [])])
    pinned = store.keyset()

    def retired(kid: str) -> tuple[PinnedKey, Signer] | None:
        key = pinned.get(kid)
        if key is None or key.purpose != "receipt" or key.compromised_after_size is not None:
            return None
        try:
            return key, store.secret(kid)
        except ConfigError:
            return None

    return Keys(receipt, log, pinned, retired)


def _missing(directory: Path, purpose: str, origin: str) -> ConfigError:
    command = f"tcd keys generate --dir {directory} --purpose {purpose} --origin {origin}"
    return ConfigError(f"{directory} has no valid {purpose} key of {origin}; remedy: {command}")


def _signer(origin: str, keys: list[Signer]) -> LogSigner:
    try:
        return LogSigner(origin, keys)
    except VerificationError as error:
        msg = f"origin: {error.detail}; remedy: another TCD_ORIGIN, or TCD_LOG_ENABLE=false"
        raise ConfigError(msg) from None


class KeyRing:
    """The keys of a running shim, which `refresh` reads anew."""

    def __init__(self, settings: Settings, *, seed: bytes, now_us: Callable[[], int]) -> None:
        """Read the keys.

        Args:
            settings: with `keys_dir`, or without: then all keys follow from `seed`.
            seed: of the receipt key, 32 bytes.
            now_us: microseconds since 1970.

        Raises:
            ConfigError: they cannot be used.
        """
        self._settings = settings
        self._seed = seed
        self.now_us = now_us
        self._stamp = self._seen()
        self.keys = self._read()
        self._known = self.keys.pinned

    def _read(self) -> Keys:
        directory = self._settings.keys_dir
        if directory is None:
            return seed_keys(self._settings, self._seed)
        return directory_keys(self._settings, directory, now_us=self.now_us)

    def _seen(self) -> tuple[int, int, int] | None:
        """What changes when the key set does."""
        directory = self._settings.keys_dir
        if directory is None:
            return None
        try:
            found = (directory / KEYSET).stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    @property
    def changed(self) -> bool:
        """Whether the key set was written since it was read, or another key's time has come."""
        return self._seen() != self._stamp or self._due()

    def _due(self) -> bool:
        """Whether a pinned key became valid that is newer than those in use, or one in use is over."""
        if self._settings.keys_dir is None:
            return False
        now, keys = self.now_us(), self.keys
        used = [key for key in keys.pinned if key.kid in keys.kids]
        if not all(key.valid_at(now) for key in used):
            return True
        since = {_role(key): _since(key) for key in used}
        return any(
            key.not_before_us is not None and since.get(_role(key), now) < key.not_before_us <= now
            for key in keys.pinned
            if key.tenants is None and key.origin == self._settings.origin and key.valid_at(now)
        )

    def problem(self) -> str:
        """Why receipts would not verify, or empty."""
        key = self._known.get(self.keys.receipt.kid)
        fine = key is not None and key.compromised_after_size is None and key.valid_at(self.now_us())
        return "" if fine else "the receipt key is not valid any more"

    def refresh(self) -> Keys:
        """Read the keys anew; the keys before. Where that fails, the old ones sign on, and `problem` knows the new set.

        Raises:
            ConfigError: they cannot be used.
        """
        before = self.keys
        self._stamp = self._seen()
        if self._settings.keys_dir is not None:
            self._known = KeyStore(self._settings.keys_dir, os.urandom, self.now_us).keyset()
        self.keys = self._read()
        return before


def _since(key: PinnedKey) -> int:
    return -1 if key.not_before_us is None else key.not_before_us


def _role(key: PinnedKey) -> str:
    """What one key at a time does: receipts, or one kind of line of a checkpoint."""
    return key.purpose if key.purpose == "receipt" else key.purpose + key.alg
