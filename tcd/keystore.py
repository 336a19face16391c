"""Keys in a directory: private seeds that only the owner can read, beside the public key set.

`DIR/private/KID.seed` holds a seed in hex (mode 0600, directory 0700); `DIR/keyset.json` what verifiers pin;
`DIR/roots.json` the public root keys, where there are some; `DIR/serial` the number of the last signed key set.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tcd.errors import ConfigError, VerificationError
from tcd.files import SECRET, write_whole
from tcd.receipts.keys import SEED_SIZES, Signer, signer
from tcd.receipts.keyset import ALGORITHMS, KeySet, PinnedKey, Purpose
from tcd.receipts.signed_keyset import RootKeys, sign_keyset

KEYSET: Final = "keyset.json"
ROOTS: Final = "roots.json"
SERIAL: Final = "serial"
PRIVATE: Final = "private"
_MAX: Final = 1_048_576
_PRIVATE_MODE: Final = 0o700
_PUBLIC_MODE: Final = 0o644
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")


def read_json(path: Path, limit: int = _MAX) -> Any:
    """Content of a JSON file.

    Raises:
        ConfigError: it cannot be read, is too long, or is no JSON.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            msg = f"{path} has over {limit} bytes"
            raise ConfigError(msg)
        return json.loads(raw.decode("utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{path} is no JSON: {type(error).__name__}"
        raise ConfigError(msg) from None


def read_seed(path: Path, *alg: str) -> Signer:
    """The key of a seed file; the algorithm is told by its length, which may be one of `alg` only.

    Raises:
        ConfigError: it cannot be read, others can read it, or it is no seed. No message repeats it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii").strip() if path.stat().st_size <= _MAX else ""
    except (OSError, UnicodeDecodeError):
        msg = f"the key {path} cannot be read"
        raise ConfigError(msg) from None
    if mode & 0o077:
        msg = f"the key {path} can be read by others; remedy: chmod 600, and rotate it if somebody did"
        raise ConfigError(msg)
    return seed_key(text, *alg)


def seed_key(text: str, *alg: str) -> Signer:
    """The key of a seed in hex, of the first of `alg` that has seeds of this length.

    Raises:
        ConfigError: none has. The message does not repeat the seed.
    """
    fine = _HEX.fullmatch(text) is not None
    found = next((name for name in alg or SEED_SIZES if fine and len(text) == 2 * SEED_SIZES[name]), None)
    if found is None:
        sizes = " or ".join(f"{2 * SEED_SIZES[name]} ({name})" for name in alg or SEED_SIZES)
        msg = f"a seed has {sizes} hex digits"
        raise ConfigError(msg)
    return signer(found, bytes.fromhex(text))


def _age(aged: tuple[int, PinnedKey]) -> int:
    return aged[0]


@dataclass(frozen=True, slots=True)
class KeyStore:
    """The keys of a directory.

    Attributes:
        root: the directory.
        random: source of random bytes.
        now_us: microseconds since 1970.
    """

    root: Path
    random: Callable[[int], bytes]
    now_us: Callable[[], int]

    def keyset(self) -> KeySet:
        """The public key set; empty where there is none.

        Raises:
            ConfigError: the file is none.
        """
        path = self.root / KEYSET
        if not path.exists():
            return KeySet()
        try:
            return KeySet.from_json(read_json(path))
        except VerificationError as error:
            msg = f"{path}: {error.detail}"
            raise ConfigError(msg) from None

    def generate(
        self,
        *,
        purpose: Purpose,
        origin: str,
        alg: str = "Ed25519",
        seed_hex: str | None = None,
        tenants: Iterable[str] | None = None,
        not_before_us: int | None = None,
        not_after_us: int | None = None,
    ) -> PinnedKey:
        """Make a key, or take one over from a seed, and pin it.

        Raises:
            ConfigError: the key set cannot have it, or a file cannot be written.
        """
        if alg not in ALGORITHMS[purpose]:
            msg = f"a key of purpose {purpose} is {' or '.join(ALGORITHMS[purpose])}, not {alg}"
            raise ConfigError(msg)
        seed = seed_hex if seed_hex is not None else self.random(SEED_SIZES[alg]).hex()
        key = seed_key(seed, alg)
        try:
            pinned = PinnedKey(
                key.public,
                purpose,
                origin,
                tenants=None if tenants is None else frozenset(tenants),
                not_before_us=not_before_us,
                not_after_us=not_after_us,
                alg=alg,
            )
            keys = KeySet([*self.keyset(), pinned])
            KeySet.from_json(keys.to_json())
        except (ValueError, VerificationError) as error:
            msg = f"the key cannot be pinned: {error}"
            raise ConfigError(msg) from None
        self._write_seed(key, seed)
        self._write_keys(keys)
        return pinned

    def change(self, kid: str, **members: int) -> PinnedKey:
        """Change validity or compromise of a pinned key; only ever to less trust.

        Raises:
            ConfigError: no such key, or it would be trusted more than before.
        """
        keys = self.keyset()
        old = self._find(keys, kid)
        for name, value in members.items():
            before = getattr(old, name)
            if value < 0 or (before is not None and value > before):
                msg = f"{name} is {before} already: a later one would trust the key again"
                raise ConfigError(msg)
        new = replace(old, **members)  # type: ignore[arg-type] # the members are integers of PinnedKey
        self._write_keys(KeySet(new if key.kid == old.kid else key for key in keys))
        return new

    @staticmethod
    def _find(keys: KeySet, kid: str) -> PinnedKey:
        found = [key for key in keys if key.kid.startswith(kid)] if len(kid) >= 8 else []  # noqa: PLR2004 - no guess
        if len(found) != 1:
            msg = f"{len(found)} keys of the set have an id that begins with {kid[:40]!r}"
            raise ConfigError(msg)
        return found[0]

    def rotate(self, kid: str, *, overlap_us: int = 0) -> tuple[PinnedKey, PinnedKey]:
        """Retire a key and make its successor: the same purpose, origin, tenants and algorithm, valid from now.

        Args:
            kid: of the key, or its first 8 digits or more.
            overlap_us: for how long the old key stays valid.

        Returns:
            The retired key and the new one.

        Raises:
            ConfigError: no such key, it is not valid any more, or a file cannot be written.
        """
        old, now = self._find(self.keyset(), kid), self.now_us()
        if old.compromised_after_size is not None or not old.valid_at(now):
            msg = f"key {old.kid} is not valid any more: generate a new one"
            raise ConfigError(msg)
        new = self.generate(purpose=old.purpose, origin=old.origin, alg=old.alg, tenants=old.tenants, not_before_us=now)
        until = now + overlap_us
        if old.not_after_us is not None:
            until = min(until, old.not_after_us)
        return self.change(old.kid, not_after_us=until), new

    def holds(self, kid: str) -> bool:
        """Whether the seed of a key is here."""
        return (self.root / PRIVATE / f"{kid}.seed").exists()

    def secret(self, kid: str) -> Signer:
        """The key pair of a pinned key.

        Raises:
            ConfigError: it is not here, or others can read it.
        """
        key = self._find(self.keyset(), kid)
        return read_seed(self.root / PRIVATE / f"{key.kid}.seed", key.alg)

    def current(self, purpose: Purpose, origin: str, *algorithms: str) -> Signer | None:
        """The key pair to sign with now: the newest that is valid, not compromised, of all tenants, and here.

        Args:
            purpose: of the key.
            origin: of the key.
            algorithms: that it may be of.

        Returns:
            The key pair, None where there is none.

        Raises:
            ConfigError: two are equally new, or a file cannot be read.
        """
        now = self.now_us()
        usable = [
            key
            for key in self.keyset().of(purpose, origin)
            if key.alg in algorithms
            and key.tenants is None
            and key.compromised_after_size is None
            and key.valid_at(now)
            and self.holds(key.kid)
        ]
        ages = sorted(((-1 if key.not_before_us is None else key.not_before_us, key) for key in usable), key=_age)
        if len(ages) > 1 and ages[-1][0] == ages[-2][0]:
            kids = ", ".join(key.kid for age, key in ages if age == ages[-1][0])
            msg = f"{self.root} has several {purpose} keys of {origin} ({kids}); remedy: tcd keys retire all but one"
            raise ConfigError(msg)
        return self.secret(ages[-1][1].kid) if ages else None

    def add_root(self, *, alg: str = "Ed25519", threshold: int | None = None) -> RootKeys:
        """Make a root key; `threshold` of all of them must sign a key set from now on.

        Raises:
            ConfigError: a threshold that cannot be met, or a file cannot be written.
        """
        seed = self.random(SEED_SIZES[alg]).hex()
        key = seed_key(seed, alg)
        known = self.roots()
        keys = (*(() if known is None else known.keys), (key.alg, key.public))
        try:
            roots = RootKeys(keys, threshold or (1 if known is None else known.threshold))
        except VerificationError as error:
            raise ConfigError(error.detail) from None
        self._write_seed(key, seed)
        self._write(self.root / ROOTS, roots.to_json())
        return roots

    def roots(self) -> RootKeys | None:
        """The public root keys, None where there are none.

        Raises:
            ConfigError: the file is none.
        """
        path = self.root / ROOTS
        if not path.exists():
            return None
        try:
            return RootKeys.from_json(read_json(path))
        except VerificationError as error:
            msg = f"{path}: {error.detail}"
            raise ConfigError(msg) from None

    def export(self, roots: Iterable[Signer] = ()) -> dict[str, Any]:
        """The key set to hand to verifiers: signed, with the next serial, where root keys are given.

        Raises:
            ConfigError: a file cannot be read or written.
        """
        signers = tuple(roots)
        if not signers:
            return self.keyset().to_json()
        path = self.root / SERIAL
        serial = 1 + (int(read_json(path)) if path.exists() else 0)
        signed = sign_keyset(self.keyset(), serial=serial, roots=signers)
        self._write(path, serial)
        return signed

    def _write_seed(self, key: Signer, seed: str) -> None:
        folder = self.root / PRIVATE
        try:
            folder.mkdir(mode=_PRIVATE_MODE, parents=True, exist_ok=True)
            folder.chmod(_PRIVATE_MODE)
            path = folder / f"{key.kid}.seed"
            if not path.exists():
                write_whole(path, f"{seed.lower()}\n".encode(), mode=SECRET)
        except OSError as error:
            msg = f"the key cannot be stored in {folder}: {error.strerror}"
            raise ConfigError(msg) from None

    def _write_keys(self, keys: KeySet) -> None:
        self._write(self.root / KEYSET, keys.to_json())

    @staticmethod
    def _write(path: Path, value: Any) -> None:
        try:
            write_whole(path, json.dumps(value, indent=1).encode() + b"\n", mode=_PUBLIC_MODE)
        except OSError as error:
            msg = f"{path} cannot be written: {error.strerror}"
            raise ConfigError(msg) from None
