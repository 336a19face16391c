"""`tcd audit`: fsck of a ledger and of a log directory. Exit 0 nothing wrong, 1 findings, 2 undecidable."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcd.ledger.findings import Audit
    from tcd.receipts import VerifyPolicy
    from tcd.receipts.seen import Memory

app = typer.Typer(help="Check a ledger or a log directory.", no_args_is_help=True)
Keys = Annotated[Path, typer.Option("--keyset", help="Pinned keys: tcd.keyset/1.")]
Witnesses = Annotated[Path | None, typer.Option("--witnesses", help="Witnesses and their quorum: C2SP tlog-policy.")]
State = Annotated[Path | None, typer.Option("--state", help="File in which seen logs are remembered.")]
Origin = Annotated[str, typer.Option("--origin", help="Name of the log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]


@app.callback()
def _group() -> None:
    """Check a ledger or a log directory."""


def _policy(keyset: Path, witnesses: Path | None) -> VerifyPolicy:
    from tcd.keystore import read_json
    from tcd.receipts import KeySet, VerifyPolicy
    from tcd.receipts.tlog_policy import parse_policy

    keys = KeySet.from_json(read_json(keyset))
    return VerifyPolicy(keys, witnesses=None if witnesses is None else parse_policy(witnesses.read_bytes()))


def _memory(state: Path | None) -> Memory:
    from tcd.keystore import read_json
    from tcd.receipts.seen import Memory

    return Memory.from_json(read_json(state)) if state is not None and state.exists() else Memory({})


def _report(work: Callable[[Memory], Audit], state: Path | None, *, as_json: bool) -> None:
    from tcd.errors import TcdError
    from tcd.files import write_whole
    from tcd.receipts.seen import Memory

    try:
        memory = _memory(state)
        audit = work(memory)
        if state is not None and audit.ok and audit.newest is not None:
            origin, seen = audit.newest
            made = Memory({**memory.logs, origin: seen}, memory.serial)
            write_whole(state, json.dumps(made.to_json(), indent=1).encode() + b"\n", mode=0o644)
    except TcdError as error:
        print(f"tcd audit: {error.detail}", file=sys.stderr)
        raise typer.Exit(2) from None
    except OSError as error:
        print(f"tcd audit: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps(audit.to_json()))
    else:
        for finding in audit.findings:
            print(f"{finding.code:18}{finding.where}  {finding.detail}".rstrip())
        looked = ", ".join(f"{count} {name}" for name, count in sorted(audit.counts.items()))
        print(f"{'ok' if audit.ok else 'FINDINGS'}: {looked}")
    raise typer.Exit(int(not audit.ok))


@app.command()
def store(
    data_dir: Annotated[Path, typer.Argument(help="Data directory (or its ledger.sqlite) that no server uses now.")],
    keyset: Keys,
    origin: Origin = "",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Check a ledger: rows, bodies, links, signatures, checkpoints, and what was seen of its log before."""

    def work(memory: Memory) -> Audit:
        from tcd.errors import ConfigError
        from tcd.ledger.audit import audit_store
        from tcd.ledger.sqlite import FILE

        path = data_dir / FILE if data_dir.is_dir() else data_dir
        if not path.is_file():
            msg = f"{path} is not there"
            raise ConfigError(msg)
        seen = memory.logs.get(origin) if origin else None
        if state is not None and not origin:
            msg = "with --state name the log with --origin"
            raise ConfigError(msg)
        return audit_store(path, policy=_policy(keyset, None), seen=seen, origin=origin)

    _report(work, state, as_json=as_json)


@app.command()
def log(
    directory: Annotated[Path, typer.Argument(help="Directory of tlog-tiles files.")],
    keyset: Keys,
    origin: Origin,
    witnesses: Witnesses = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Check a log directory: checkpoint, tiles, entries, and what was seen of it before."""

    def work(memory: Memory) -> Audit:
        from tcd.ledger.audit_log import audit_log

        return audit_log(directory, policy=_policy(keyset, witnesses), origin=origin, seen=memory.logs.get(origin))

    _report(work, state, as_json=as_json)
