"""The data directory: the ledger, and the receipt key that is made where none is given."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from sidecar_api.subjects import subject_fingerprint
from tcd.config import Settings
from tcd.errors import ConfigError
from tcd.files import SECRET, write_whole
from tcd.ledger import Ledger, Limits, MemoryLedger, SqliteLedger
from tcd.ledger.shared import SharedLedger

#: File of the generated receipt key: an Ed25519 seed in hex, mode 0600.
KEY_FILE: Final = "attest.key"
_SEED: Final = re.compile(r"[0-9a-f]{64}")
#: A replica's name that is a directory's as it is.
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def data_directory(settings: Settings, environ: Mapping[str, str]) -> Path:
    """`data_dir`, else the user's state directory (XDG: `$XDG_STATE_HOME`, `~/.local/state`)."""
    if settings.data_dir is not None:
        return settings.data_dir
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "tcd"


def own_directory(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Where a shim keeps what is its own (trust, patches), or None where it keeps nothing.

    Shims on one database may share a data directory: each that has a name has a directory of that name there.
    """
    if settings.ledger == "sqlite":
        return data_directory(settings, environ)
    if settings.ledger == "memory" or not settings.replica:
        return None
    name = settings.replica
    if not _PLAIN.fullmatch(name):
        name = hashlib.sha256(name.encode()).hexdigest()
    return data_directory(settings, environ) / "replicas" / name


def memory_ledger(settings: Settings) -> MemoryLedger:
    """A ledger that is lost with the process, within the bounds of the settings."""
    # one open chain per session and per stream's epoch, and one of operators' acts
    chains = settings.sessions_max + settings.max_streams + 1
    return MemoryLedger(Limits(chains=chains, answers=settings.idempotency_entries))


def open_ledger(settings: Settings, environ: Mapping[str, str]) -> Ledger:
    """The ledger of the settings.

    Raises:
        ConfigError: the data directory cannot be used.
    """
    return memory_ledger(settings) if settings.ledger == "memory" else SqliteLedger(data_directory(settings, environ))


async def open_shared(settings: Settings) -> SharedLedger:
    """The ledger of a URL, which other shims may use too.

    Args:
        settings: with the receipt key, whose subjects all shims name alike.

    Raises:
        ConfigError: it cannot be used, or what it needs is not installed.
    """
    assert settings.ledger_url is not None  # noqa: S101 - for the type checker: the settings are consistent
    try:
        from tcd.ledger.postgres import PostgresLedger  # noqa: PLC0415 - an extra
    except ImportError:
        msg = "a ledger in PostgreSQL needs the extra postgres; remedy: pip install 'tcd[postgres]'"
        raise ConfigError(msg) from None
    return await PostgresLedger.open(
        settings.ledger_url.get_secret_value(),
        replica=settings.replica,
        subjects=subject_fingerprint(settings),
        origin=settings.origin,
    )


def with_key(settings: Settings, environ: Mapping[str, str], random: Callable[[int], bytes]) -> Settings:
    """Settings with the receipt key of the data directory, made at the first start, where none is configured.

    Raises:
        ConfigError: the file is not the owner's alone, or holds no key.
    """
    if settings.attest_sk_hex is not None or settings.ledger == "memory":
        return settings
    path = data_directory(settings, environ) / KEY_FILE
    if not path.exists():
        _made(path.parent)
        write_whole(path, random(32).hex().encode() + b"\n", mode=SECRET)
    try:
        mode, text = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the receipt key {path} cannot be read: {type(error).__name__}; remedy: restore it"
        raise ConfigError(msg) from None
    if mode & 0o077:
        msg = f"the receipt key {path} can be read by others; remedy: chmod 600, and rotate it if somebody did"
        raise ConfigError(msg)
    if not _SEED.fullmatch(text):
        msg = f"{path} does not hold a receipt key (64 hex digits); remedy: restore it"
        raise ConfigError(msg)
    return settings.model_copy(update={"attest_sk_hex": SecretStr(text)})


def keeping(made: SecretStr | None) -> Callable[[Settings], Settings]:
    """What a reload adds to the layers: the key that the start took from the data directory. It touches no file.

    Args:
        made: that key; None when the settings had one.
    """
    return lambda new: new if new.attest_sk_hex is not None else new.model_copy(update={"attest_sk_hex": made})


def _made(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the data directory {directory} cannot be made: {error.strerror}; remedy: choose another one"
        raise ConfigError(msg) from None
