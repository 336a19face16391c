"""Keys: who may read them, which purposes they have, when they end."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tcd.doctor.finding import Finding
from tcd.errors import ConfigError, VerificationError
from tcd.keystore import KeyStore
from tcd.receipts import KeySet
from tcd.receipts.keys import ALG, HYBRID

_DAY_US: Final = 86_400_000_000
#: A key that ends sooner is warned about.
SOON_DAYS: Final = 30


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def check_seed(path: Path) -> Finding:
    """The receipt key that the first start makes in the data directory."""
    if not path.exists():
        return Finding("receipt key", "ok", f"{path.name} will be made at the first start")
    if _open_to_others(path):
        return Finding(
            "receipt key", "fail", f"{path} can be read by others", f"chmod 600 {path}; rotate it if one did"
        )
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        return Finding("receipt key", "fail", f"{path}: {type(error).__name__}", "restore it from its backup")
    if re.fullmatch("[0-9a-f]{64}", text) is None:
        return Finding("receipt key", "fail", f"{path} is no seed of 64 hex digits", "restore it from its backup")
    return Finding("receipt key", "ok", f"{path}, readable by its owner alone")


def check_key_directory(directory: Path, *, origin: str, log: bool, now_us: int) -> Iterator[Finding]:
    """The directory of `tcd keys`: purposes, validity, modes of the seeds."""
    seeds = sorted((directory / "private").glob("*"))
    loose = [path.name for path in seeds if _open_to_others(path)]
    if loose:
        detail = f"can be read by others: {', '.join(loose[:3])}"
        yield Finding("seeds", "fail", detail, f"chmod 600 {directory}/private/*; rotate them if somebody did")
    else:
        yield Finding("seeds", "ok", f"{len(seeds)}, readable by their owner alone")
    try:
        store = KeyStore(directory, os.urandom, lambda: now_us)
        keys = store.keyset()
        current = {"receipt": store.current("receipt", origin, ALG, HYBRID)}
        if log:
            current["checkpoint"] = store.current("checkpoint", origin, ALG)
    except (ConfigError, VerificationError) as error:
        yield Finding("keys", "fail", error.detail, "restore the directory, or make another with `tcd keys generate`")
        return
    for purpose, signer in current.items():
        if signer is None:
            remedy = f"tcd keys generate --dir {directory} --purpose {purpose} --origin {origin}"
            yield Finding(f"{purpose} key", "fail", f"none of {origin} is valid now", remedy)
        else:
            yield _ends(keys, signer.kid, purpose, directory=directory, now_us=now_us)


def _ends(keys: KeySet, kid: str, purpose: str, *, directory: Path, now_us: int) -> Finding:
    key = keys.get(kid)
    end = key.not_after_us if key is not None else None
    if end is None:
        return Finding(f"{purpose} key", "ok", f"{kid}, without an end")
    days = (end - now_us) / _DAY_US
    if days < SOON_DAYS:
        remedy = f"tcd keys rotate {kid} --dir {directory}"
        return Finding(f"{purpose} key", "warn", f"{kid} ends in {days:.1f} days", remedy)
    return Finding(f"{purpose} key", "ok", f"{kid}, ends in {days:.0f} days")
