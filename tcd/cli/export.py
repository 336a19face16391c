"""`tcd export`: a log's heads, subtrees and signatures as JSON lines. Exit 0 written, 1 refused, 2 undecidable."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, TypeVar

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.ledger.auditing.sources import Store
    from tcd.ledger.export_erasures import Bodies, Erasures
    from tcd.ledger.export_sources import Source
    from tcd.receipts.export import Plan
    from tcd.receipts.log_signer import LogSigner

_Source = TypeVar("_Source", bound="Source")
app = typer.Typer(help="Export a log for other pipelines.", no_args_is_help=True)
#: Where the URL of a PostgreSQL ledger is taken from; on a command line others would see its password.
URL_VARIABLE = "TCD_LEDGER"
Keys = Annotated[Path, typer.Option("--keyset", help="Pinned keys: tcd.keyset/1.")]
Origin = Annotated[str, typer.Option("--origin", help="Name of the log.")]
Out = Annotated[Path | None, typer.Option("--out", help="File to write, whole or not at all; default: print.")]
First = Annotated[int, typer.Option("--first", min=0, help="First leaf, a multiple of the width.")]
Width = Annotated[int, typer.Option("--width", help="Leaves of a subtree, a power of two.")]
Sign = Annotated[Path | None, typer.Option("--sign", help="Directory with the log's keys, which sign the subtrees.")]
Quantum = Annotated[bool, typer.Option("--post-quantum", help="Refuse checkpoints without an ML-DSA-44 signature.")]

#: Who erased is no public matter, so that nobody gets it who did not ask.
Told = Annotated[
    bool, typer.Option("--erasures", help="Also say which bodies are gone, and write the records of who erased them.")
]


@app.callback()
def _group() -> None:
    """Export a log for other pipelines."""


def _signer(directory: Path | None, origin: str) -> LogSigner | None:
    from tcd.errors import ConfigError
    from tcd.keystore import KeyStore
    from tcd.receipts.log_signer import LogSigner

    if directory is None:
        return None
    store = KeyStore(directory, os.urandom, lambda: 0)
    keys = [key for key in store.keyset().of("checkpoint", origin) if key.not_after_us is None]
    try:
        return LogSigner(origin, [store.secret(key.kid) for key in sorted(keys, key=lambda key: key.alg)])
    except ValueError as error:
        msg = f"{directory} has no keys of the log {origin}: {error}"
        raise ConfigError(msg) from None


def _target(out: Path | None) -> AbstractContextManager[IO[bytes]]:
    from tcd.files import writing

    return contextlib.nullcontext(sys.stdout.buffer) if out is None else writing(out)


def _erasures(plan: Plan, source: Bodies) -> Erasures:
    from tcd.ledger.export_erasures import Erasures

    return Erasures(source, plan.policy, first=plan.first, size=plan.size)


def _export(
    source: AbstractContextManager[_Source],
    *,
    keyset: Path,
    origin: str,
    out: Path | None,
    first: int,
    width: int,
    sign: Path | None,
    quantum: bool,
    told: Callable[[Plan, _Source], Erasures] | None = None,
) -> None:
    from tcd.errors import ConfigError, TcdError, VerificationError
    from tcd.keystore import read_json
    from tcd.ledger.export_sources import checkpoints, pages
    from tcd.receipts import KeySet, VerifyPolicy
    from tcd.receipts.export import Plan, export_lines
    from tcd.receipts.fast import sorted_json

    try:
        algorithms = frozenset({"Ed25519", "ML-DSA-44"} if quantum else {"Ed25519"})
        policy = VerifyPolicy(KeySet.from_json(read_json(keyset)), log_algorithms=algorithms)
        signer = _signer(sign, origin)
        with source as opened:
            newest = opened.checkpoint()
            if newest is None:
                msg = "the log has no checkpoint yet: nothing of it is signed"
                raise ConfigError(msg)
            plan = Plan(origin, policy, newest.size, first, width, signer)
            noted = checkpoints(opened, after=first, size=newest.size)
            erasures = None if told is None else told(plan, opened)
            beside = None if erasures is None else erasures.lines
            with _target(out) as file:
                for line in export_lines(plan, pages(opened, newest.size), noted, beside=beside):
                    file.write(sorted_json(line) + b"\n")
        if erasures is not None and erasures.unnamed:
            print(
                f"tcd export: {erasures.unnamed} bodies are gone, and no erase record here says by whom",
                file=sys.stderr,
            )
    except VerificationError as error:
        fail("export", f"{error.code}: {error.detail}", code=1)
    except (TcdError, OSError) as error:
        fail("export", error)


@app.command()
def store(
    data_dir: Annotated[Path, typer.Argument(help="Data directory (or its ledger.sqlite) that no server uses now.")],
    keyset: Keys,
    origin: Origin,
    out: Out = None,
    first: First = 0,
    width: Width = 256,
    sign: Sign = None,
    post_quantum: Quantum = False,
    erasures: Told = False,
) -> None:
    """Export the log of a SQLite ledger."""
    from tcd.ledger.export_sources import sqlite_source
    from tcd.ledger.sqlite import FILE

    path = data_dir / FILE if data_dir.is_dir() else data_dir
    source = sqlite_source(path)
    _export(
        source, keyset=keyset, origin=origin, out=out, first=first, width=width, sign=sign, quantum=post_quantum,
        told=_erasures if erasures else None,
    )  # fmt: skip


@app.command()
def postgresql(
    keyset: Keys,
    origin: Origin,
    out: Out = None,
    first: First = 0,
    width: Width = 256,
    sign: Sign = None,
    post_quantum: Quantum = False,
    erasures: Told = False,
) -> None:
    """Export the log of the PostgreSQL ledger that TCD_LEDGER names, also while shims write it."""
    from tcd.ledger.export_postgres import postgres_source

    source = postgres_source(os.environ.get(URL_VARIABLE, ""))
    _export(
        source, keyset=keyset, origin=origin, out=out, first=first, width=width, sign=sign, quantum=post_quantum,
        told=_erasures if erasures else None,
    )  # fmt: skip


@app.command()
def log(
    directory: Annotated[Path, typer.Argument(help="Directory of tlog-tiles files, also while it grows.")],
    keyset: Keys,
    origin: Origin,
    out: Out = None,
    first: First = 0,
    width: Width = 256,
    sign: Sign = None,
    post_quantum: Quantum = False,
) -> None:
    """Export a log directory."""
    from tcd.ledger.export_sources import tiles_source

    source = tiles_source(directory)
    _export(source, keyset=keyset, origin=origin, out=out, first=first, width=width, sign=sign, quantum=post_quantum)


@app.command()
def parquet(
    out: Annotated[Path, typer.Option("--out", help="File to write, whole or not at all.")],
    data_dir: Annotated[
        Path | None, typer.Argument(help="Data directory of a SQLite ledger; without, TCD_LEDGER names PostgreSQL.")
    ] = None,
    typ: Annotated[str, typer.Option("--typ", help="Only receipts of this type, as decision; default all.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Only this tenant's; default all.")] = "",
    first: Annotated[int, typer.Option("--first", min=0, help="From this position of the ledger on.")] = 0,
    bodies: Annotated[bool, typer.Option("--bodies", help="With a column of the signed text itself.")] = False,
) -> None:
    """Write receipts as Parquet, one row each, also while a server uses the ledger (extra `parquet`)."""
    from tcd.errors import TcdError

    try:
        from tcd.parquet import Wanted, write
    except ImportError:
        fail("export", "needs the extra parquet; remedy: pip install 'tcd[parquet]'")
    try:
        with _store(data_dir) as store, _target(out) as file:
            count = write(store, file, Wanted(typ, tenant, first, bodies))
    except (TcdError, OSError) as error:
        fail("export", error)
    print(f"{out}: {count} receipts")


def _store(data_dir: Path | None) -> AbstractContextManager[Store]:
    from tcd.ledger.sqlite import FILE

    if data_dir is not None:
        from tcd.ledger.auditing.sources import sqlite_store

        return sqlite_store(data_dir / FILE if data_dir.is_dir() else data_dir, live=True)
    from tcd.ledger.auditing.postgres import postgres_store

    return postgres_store(os.environ.get(URL_VARIABLE, ""))


@app.command()
def cose(
    file: Annotated[Path, typer.Argument(help="A receipt with its inclusion proof: an answer with `proof`.")],
    keyset: Keys,
    sign: Annotated[Path, typer.Option("--sign", help="Directory with the log's keys.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
) -> None:
    """Write a receipt of the log in COSE (application/scitt-receipt+cose) of a receipt that verifies (extra `cose`)."""
    from tcd.cli.verify_inputs import one
    from tcd.cose import write_receipt
    from tcd.errors import ConfigError, TcdError, VerificationError
    from tcd.files import write_whole
    from tcd.keystore import read_json
    from tcd.receipts import KeySet, VerifyPolicy, verify_single
    from tcd.receipts.checkpoint import LogHead, TlogProof

    try:
        options = one(read_json(file))
        keys = KeySet.from_json(read_json(keyset))
        policy = VerifyPolicy(keys, require=frozenset({"signature", "inclusion", "checkpoint"}))
        body = verify_single(options.pop("body"), policy=policy, **options).verified()
        # verified: the log signed this root in a checkpoint
        proof = TlogProof.parse(options["proof"].encode())
        head = LogHead.from_note(proof.checkpoint)
        signer = _signer(sign, body["origin"])
        if signer is None or signer.pinned()[0].kid not in {key.kid for key in keys}:
            msg = "the log's key in that directory is not pinned"
            raise ConfigError(msg)
        made = write_receipt(
            origin=head.origin,
            size=head.size,
            index=proof.index,
            path=proof.path,
            root=head.root,
            key=signer.classic,
        )
        write_whole(out, made, mode=0o644)
    except VerificationError as error:
        fail("export", f"{error.code}: {error.detail}", code=1)
    except (TcdError, OSError) as error:
        fail("export", error)
