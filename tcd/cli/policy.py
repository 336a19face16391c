"""`tcd policy`: what a bundle says, what looks wrong in it, and what it would change before it is in force."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.trust import Defaults, Logged, PolicySet, Replay

app = typer.Typer(help="Policies: check, show, compare, replay.", no_args_is_help=True)

Bundle = Annotated[Path, typer.Argument(help="TOML file, or a directory of them.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings under which it applies; TCD_CONFIG_PATH.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _group() -> None:
    """Policies."""


def _read(path: Path) -> PolicySet:
    from tcd.bundles import read
    from tcd.trust import BadBundle

    try:
        return read(path)
    except BadBundle as error:
        fail("policy", error)


def _defaults(config: Path | None) -> Defaults:
    from tcd.config import load
    from tcd.errors import ConfigError
    from tcd.trust import Defaults

    try:
        settings = load(os.environ, path=config).settings
    except ConfigError as error:
        fail("policy", error)
    return Defaults(settings.mode, settings.on_failure, settings.static_action, settings.hard_fail_on_floor)


@app.command()
def lint(bundle: Bundle, as_json: AsJson = False) -> None:
    """Name what is allowed and looks wrong. Exit code 0: nothing; 1: something; 2: the bundle is refused."""
    from tcd.trust import lint as look

    policies = _read(bundle)
    remarks = look(policies)
    if as_json:
        print(json.dumps([{n: getattr(r, n) for n in ("file", "line", "policy", "code", "detail")} for r in remarks]))
    else:
        for r in remarks:
            print(f"{r.file}:{r.line}: {r.policy}: {r.code}: {r.detail}")
        print(f"{len(policies)} policies, {len(remarks)} remarks, digest {policies.digest}")
    raise typer.Exit(1 if remarks else 0)


@app.command()
def show(
    bundle: Bundle,
    tenant: str = typer.Option("tenant0"),
    user: str = typer.Option("user0"),
    session: str = typer.Option("sess0"),
    model_id: str = typer.Option("model0"),
    gpu_id: str = typer.Option("gpu0"),
    task: str = typer.Option("chat"),
    lang: str = typer.Option("en"),
    config: Config = None,
) -> None:
    """Print the policy that a subject has, as it is resolved, as JSON."""
    from tcd.trust.policies import SUBJECT

    given = (tenant, user, session, model_id, gpu_id, task, lang)
    subject = dict(zip(SUBJECT, given, strict=True))
    policy, defaults = _read(bundle).of(subject), _defaults(config)
    if policy is None:
        table, mode, about = defaults.table(), defaults.mode, {"policy_ref": "default", "sections": {}}
    else:
        table, mode = policy.table(defaults), policy.over(defaults).mode
        about = {
            "policy_ref": policy.ref,
            "digest": policy.digest,
            "from": f"{policy.file}:{policy.line}",
            "match": dict(policy.match),
            "sections": {name: dict(section) for name, section in policy.sections.items() if section},
        }
    rows = [
        {
            "name": r.name,
            "when": dict(r.when),
            "action": r.action,
            "cause": r.cause,
            **({"cel": r.cel} if r.cel else {}),
        }
        for r in table
    ]
    print(json.dumps({**about, "mode": mode, "decision": rows}, indent=2, default=list))


@app.command()
def grant(
    bundle: Bundle,
    key_file: Path = typer.Option(..., "--key-file", help="File with the operator's Ed25519 seed, 64 hex digits."),
    reason: str = typer.Option(..., help="Why; it goes into the log."),
    minutes: int = typer.Option(15, min=1, max=24 * 60, help="How long a reload may use it."),
) -> None:
    """Print a break-glass grant that allows a running shim to take exactly this bundle although it loosens."""
    from tcd.receipts.keys import SigningKey
    from tcd.reload import issue

    policies = _read(bundle)
    try:
        key = SigningKey.from_hex(key_file.read_text("utf-8").strip())
    except (OSError, ValueError) as error:
        fail("policy", error)
    until = int(time.time()) + 60 * minutes
    print(issue(key, config_hash=policies.digest, until=until, reason=reason), end="")
    print(f"public key {key.public.hex()}", file=sys.stderr)


@app.command()
def diff(
    bundle: Bundle,
    against: Annotated[Path | None, typer.Option(help="The bundle in force: which subjects of the log change.")] = None,
    log: Annotated[Path | None, typer.Option(help="JSON lines: a decision log, or bodies of receipts.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Data directory of a shim: the receipts in its ledger.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Replay recorded decisions under a candidate. Exit code 0: all as they were; 1: some change; 2: it cannot be said.

    Entries that do not say enough, for example receipts under a policy that matches users, are counted and named.
    """
    from tcd.trust import replay

    if (log is None) == (ledger is None):
        fail("policy", "one of --log and --ledger")
    candidate = _read(bundle)
    entries = list(_bodies(ledger) if ledger is not None else _lines(log or Path()))
    found = replay(candidate, entries, defaults=_defaults(config))
    rebound = _rebound(_read(against), candidate, entries) if against is not None else []
    if as_json:
        print(json.dumps(_json(found, rebound, entries)))
    else:
        _print(found, rebound, entries)
    if found.unknown:
        raise typer.Exit(2)
    raise typer.Exit(1 if found.changed or rebound else 0)


def _lines(path: Path) -> Iterator[Logged]:
    from tcd.trust import RecordError, logged

    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    found = logged(json.loads(line))
                except (ValueError, RecordError) as error:
                    fail("policy", f"{path}:{number}: {getattr(error, 'detail', 'not JSON')}")
                if found is not None:
                    yield found
    except OSError as error:
        fail("policy", f"{path}: {error.strerror}")


def _bodies(folder: Path) -> Iterator[Logged]:
    from tcd.ledger.sqlite import FILE
    from tcd.trust import RecordError, logged

    query = "SELECT idx, body FROM body JOIN receipt USING (idx) WHERE typ = 'decision' ORDER BY idx"
    path = folder / FILE
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            for index, body in connection.execute(query):
                try:
                    found = logged(json.loads(body))
                except (ValueError, RecordError) as error:
                    fail("policy", f"{path}: receipt {index}: {getattr(error, 'detail', error)}")
                if found is not None:
                    yield found
    except sqlite3.Error as error:
        fail("policy", f"{path}: {error}")


def _rebound(old: PolicySet, new: PolicySet, entries: list[Logged]) -> list[Any]:
    from tcd.trust import subjects_that_change

    subjects: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    for entry in entries:
        subjects.setdefault(tuple(sorted(entry.subject.items())), entry.subject)
    return subjects_that_change(old, new, subjects.values())


def _json(found: Replay, rebound: list[Any], entries: list[Logged]) -> dict[str, Any]:
    return {
        "entries": found.entries,
        "changed": [
            {
                "index": c.index,
                "subject": dict(entries[c.index].subject),
                "before": c.before,
                "after": c.after,
                "enforced_before": c.enforced_before,
                "enforced_after": c.enforced_after,
                "milder": c.milder,
            }
            for c in found.changed
        ],
        "unknown": [{"index": index, "why": why} for index, why in found.unknown],
        "subjects": [
            {"subject": dict(r.subject), "before": r.before, "after": r.after, "changes": dict(r.changes)}
            for r in rebound
        ],
    }


def _print(found: Replay, rebound: list[Any], entries: list[Logged]) -> None:
    for r in rebound:
        who = " ".join(f"{name}={value}" for name, value in r.subject.items())
        print(f"subject {who}: {r.before or 'the settings'} -> {r.after or 'the settings'}")
        for name, (before, after) in r.changes.items():
            print(f"  {name}: {before} -> {after}")
    for c in found.changed:
        tenant = entries[c.index].subject.get("tenant", "")
        print(
            f"decision {c.index} ({tenant}): {c.before} -> {c.after}, enforced {c.enforced_before} -> "
            f"{c.enforced_after}{', milder' if c.milder else ''}"
        )
    for index, why in found.unknown:
        print(f"decision {index}: cannot be said: {why}")
    print(f"{found.entries} decisions, {len(found.changed)} change, {len(found.unknown)} cannot be said")
