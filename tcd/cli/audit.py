"""`tcd audit`: fsck of a ledger and of a log directory. Exit 0 nothing wrong, 1 findings, 2 undecidable."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcd.ledger.auditing.order import Order
    from tcd.ledger.findings import Audit
    from tcd.receipts.seen import Memory

app = typer.Typer(help="Check a ledger or a log directory.", no_args_is_help=True)
Keys = Annotated[Path, typer.Option("--keyset", help="Pinned keys: tcd.keyset/1.")]
Witnesses = Annotated[Path | None, typer.Option("--witnesses", help="Witnesses and their quorum: C2SP tlog-policy.")]
State = Annotated[Path | None, typer.Option("--state", help="File in which seen logs are remembered.")]
Origin = Annotated[str, typer.Option("--origin", help="Name of the log.")]
Notes = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", help="A signed checkpoint from elsewhere (a witness); may be given again."),
]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's records.")]
Policies = Annotated[Path | None, typer.Option("--policies", help="Bundle that decided: actions are recomputed.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings under which the bundle applied; TCD_CONFIG_PATH.")
]
Assets = Annotated[Path | None, typer.Option("--assets", help="Published calibrations: p-values are recomputed.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for report.json and report.html.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, max=64, help="Processes beside this one that check rows and signatures.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]


@app.callback()
def _group() -> None:
    """Check a ledger or a log directory."""


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
    except (TcdError, OSError) as error:
        fail("audit", error)
    if as_json:
        print(json.dumps(audit.to_json()))
    else:
        for finding in audit.findings:
            print(f"{finding.code:18}{finding.where}  {finding.detail}".rstrip())
        looked = ", ".join(f"{count} {name}" for name, count in sorted(audit.counts.items()))
        print(f"{'ok' if audit.ok else 'FINDINGS'}: {looked}")
    raise typer.Exit(int(not audit.ok))


def _order(
    keyset: Path,
    *,
    origin: str,
    witnesses: Path | None = None,
    notes: list[Path] | None = None,
    tenant: str | None = None,
    policies: Path | None = None,
    config: Path | None = None,
    assets: Path | None = None,
) -> Order:
    """The part of an order that does not say where the ledger is; settings only where there are policies."""
    from tcd.config import load
    from tcd.keystore import read_json

    made: Order = {"keyset": read_json(keyset), "origin": origin, "tenant": tenant}
    made["notes"] = [path.read_text() for path in notes or ()]
    if witnesses is not None:
        made["witnesses"] = witnesses.read_text()
    if assets is not None:
        made["assets"] = str(assets)
    if policies is not None:
        settings = load(os.environ, path=config).settings
        names = ("mode", "on_failure", "static_action", "hard_fail_on_floor")
        made["policies"] = str(policies)
        made["defaults"] = {name: getattr(settings, name) for name in names}
        made["config"] = settings.config_hash
    return made


def _made(order: Order, memory: Memory, out: Path | None, workers: int) -> Audit:
    """The audit, and its report where one is wanted."""
    from tcd.ledger.auditing.order import make, write

    seen = memory.logs.get(order["origin"])
    shown = sys.stderr.isatty()

    def progress(done: int, total: int, note: str) -> None:
        if shown:
            print(f"\r{done} of {total}, {note}        ", end="", file=sys.stderr, flush=True)

    result = make(order, seen=() if seen is None else (seen,), workers=workers, progress=progress)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write(result, out)
    return result.audit


@app.command()
def store(
    data_dir: Annotated[Path, typer.Argument(help="Data directory (or its ledger.sqlite) that no server uses now.")],
    keyset: Keys,
    origin: Origin = "",
    state: State = None,
    witnesses: Witnesses = None,
    checkpoint: Notes = None,
    tenant: Tenant = None,
    policies: Policies = None,
    config: Config = None,
    assets: Assets = None,
    out: Out = None,
    workers: Workers = 0,
    live: Annotated[
        bool, typer.Option("--live", help="A shim may use it meanwhile: audit it up to where it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Audit a SQLite ledger: rows, links, signatures, log, budgets, decisions, and what was seen of its log before."""

    def work(memory: Memory) -> Audit:
        from tcd.errors import ConfigError
        from tcd.ledger.sqlite import FILE

        path = data_dir / FILE if data_dir.is_dir() else data_dir
        if not path.is_file():
            msg = f"{path} is not there"
            raise ConfigError(msg)
        if state is not None and not origin:
            msg = "with --state name the log with --origin"
            raise ConfigError(msg)
        order = _order(
            keyset, origin=origin, witnesses=witnesses, notes=checkpoint, tenant=tenant, policies=policies,
            config=config, assets=assets,
        )  # fmt: skip
        return _made({**order, "sqlite": str(path), "live": live}, memory, out, workers)

    _report(work, state, as_json=as_json)


@app.command()
def postgresql(
    keyset: Keys,
    origin: Origin = "",
    state: State = None,
    witnesses: Witnesses = None,
    checkpoint: Notes = None,
    tenant: Tenant = None,
    policies: Policies = None,
    config: Config = None,
    assets: Assets = None,
    out: Out = None,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Audit the PostgreSQL ledger that TCD_LEDGER names, also while shims write it."""

    def work(memory: Memory) -> Audit:
        from tcd.errors import ConfigError

        if state is not None and not origin:
            msg = "with --state name the log with --origin"
            raise ConfigError(msg)
        order = _order(
            keyset, origin=origin, witnesses=witnesses, notes=checkpoint, tenant=tenant, policies=policies,
            config=config, assets=assets,
        )  # fmt: skip
        return _made({**order, "postgresql": os.environ.get("TCD_LEDGER", "")}, memory, out, workers)

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
        from tcd.ledger.auditing.order import asked_of

        policy = asked_of(_order(keyset, origin=origin, witnesses=witnesses)).policy
        return audit_log(directory, policy=policy, origin=origin, seen=memory.logs.get(origin))

    _report(work, state, as_json=as_json)
