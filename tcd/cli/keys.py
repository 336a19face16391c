"""`tcd keys`: make, rotate, retire and export keys. Private keys stay in files of mode 0600 and are never printed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.keystore import KeyStore
    from tcd.receipts import PinnedKey

app = typer.Typer(help="Keys of receipts, of the log and of operators.", no_args_is_help=True)
#: Seed of the receipt key in hex.
SEED_VARIABLE = "TCD_ATTEST_SK_HEX"
Directory = Annotated[Path, typer.Option("--dir", help="Directory of the keys.")]
Kid = Annotated[str, typer.Argument(help="Id of the key, or its first 8 digits or more.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_US = 1_000_000


@app.callback()
def _group() -> None:
    """Keys of receipts, of the log and of operators."""


def _store(directory: Path) -> KeyStore:
    from tcd.keystore import KeyStore

    return KeyStore(directory, os.urandom, lambda: time.time_ns() // 1000)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    from tcd.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        fail("keys", error)


def _shown(key: PinnedKey, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(key.to_json()))
        return
    extra = [
        f"{name} {value}"
        for name, value in (
            ("not before", key.not_before_us),
            ("not after", key.not_after_us),
            ("compromised after", key.compromised_after_size),
        )
        if value is not None
    ]
    print("  ".join([key.kid, key.purpose, key.alg, key.origin, *extra]))


@app.command()
def generate(
    directory: Directory,
    purpose: Annotated[str, typer.Option(help="receipt, checkpoint, admin, or root, which signs key sets.")],
    origin: Annotated[str, typer.Option(help="Name of the issuer and of its log.")] = "tcd.localhost",
    alg: Annotated[str, typer.Option(help="Ed25519, ML-DSA-44, or Ed25519+ML-DSA-44.")] = "Ed25519",
    tenant: Annotated[list[str] | None, typer.Option(help="Tenant that it may sign for; again for more.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Validity from now.")] = None,
    threshold: Annotated[int | None, typer.Option(min=1, help="root: how many root keys must sign.")] = None,
    from_env: Annotated[bool, typer.Option(help=f"Take over the seed in {SEED_VARIABLE} (hex).")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key in a directory and print its public part."""
    with _refusals():
        from tcd.errors import ConfigError
        from tcd.receipts.keys import SEED_SIZES
        from tcd.receipts.keyset import PURPOSES

        if alg not in SEED_SIZES or purpose not in {*PURPOSES, "root"}:
            msg = f"unknown algorithm {alg!r} or purpose {purpose!r}"
            raise ConfigError(msg)
        seed = os.environ.get(SEED_VARIABLE) if from_env else None
        if from_env and not seed:
            msg = f"{SEED_VARIABLE} is not set"
            raise ConfigError(msg)
        store = _store(directory)
        if purpose == "root":
            roots = store.add_root(alg=alg, threshold=threshold)
            print(
                json.dumps(roots.to_json()) if as_json else f"{len(roots.keys)} root keys, {roots.threshold} must sign"
            )
            return
        now = time.time_ns() // 1000
        _shown(
            store.generate(
                purpose=purpose,  # type: ignore[arg-type] # checked above
                origin=origin,
                alg=alg,
                seed_hex=seed,
                tenants=tenant or None,
                not_before_us=now if days is not None else None,
                not_after_us=now + days * 86_400 * _US if days is not None else None,
            ),
            as_json=as_json,
        )


@app.command(name="list")
def show(
    directory: Directory,
    vkeys: Annotated[
        bool, typer.Option("--vkeys", help="Print the log's keys as a tlog-policy, for `tcd witness --logs`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the public keys of a directory."""
    with _refusals():
        from tcd.receipts.logcheck import log_verifier

        for key in _store(directory).keyset():
            if not vkeys:
                _shown(key, as_json=as_json)
            elif key.purpose == "checkpoint" and key.compromised_after_size is None:
                print(f"log {log_verifier(key).vkey()}")
        if vkeys:
            print("quorum none")


@app.command()
def rotate(
    directory: Directory,
    kid: Kid,
    overlap_minutes: Annotated[int, typer.Option(min=0, help="How long the old key stays valid.")] = 5,
    out: Annotated[Path | None, typer.Option(help="File for the members of the `rotate` record.")] = None,
    as_json: AsJson = False,
) -> None:
    """Retire a key and make its successor; print both."""
    with _refusals():
        store = _store(directory)
        old, new = store.rotate(kid, overlap_us=overlap_minutes * 60 * _US)
        _shown(old, as_json=as_json)
        _shown(new, as_json=as_json)
        if out is not None and old.purpose == "receipt":
            from tcd.receipts.rotation import rotate_members

            members = rotate_members(
                origin=old.origin, old=old, new=store.secret(new.kid), from_us=new.not_before_us or 0
            )
            _write(out, members)


@app.command()
def retire(directory: Directory, kid: Kid, as_json: AsJson = False) -> None:
    """End the validity of a key now: what it signed before stays valid."""
    with _refusals():
        _shown(_store(directory).change(kid, not_after_us=time.time_ns() // 1000), as_json=as_json)


@app.command()
def compromise(
    directory: Directory,
    kid: Kid,
    size: Annotated[int, typer.Option(min=0, help="Leaves that the log had before the theft.")],
    as_json: AsJson = False,
) -> None:
    """Distrust a stolen key: only receipts among the first SIZE leaves of the log stay valid."""
    with _refusals():
        _shown(_store(directory).change(kid, compromised_after_size=size), as_json=as_json)


@app.command()
def export(
    directory: Directory,
    root: Annotated[list[Path] | None, typer.Option(help="Seed file of a root key that signs; again for more.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
) -> None:
    """Write the public key set for verifiers, signed where root keys are given."""
    with _refusals():
        from tcd.keystore import read_seed

        value = _store(directory).export([read_seed(path) for path in root or ()])
        if out is None:
            print(json.dumps(value, indent=1))
        else:
            _write(out, value)


def _write(path: Path, value: Any) -> None:
    from tcd.errors import ConfigError
    from tcd.files import write_whole

    try:
        write_whole(path, json.dumps(value, indent=1).encode() + b"\n", mode=0o644)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise ConfigError(msg) from None
