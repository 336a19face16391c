"""`tcd verify`: receipts, chains and bundles, offline. Exit 0 verified, 1 refused, 2 nothing could be decided."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tcd.receipts import Report, VerifyPolicy
    from tcd.receipts.erased_by import ErasedBy
    from tcd.receipts.seen import Memory

app = typer.Typer(help="Verify receipts offline.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The file to verify.")]
Keys = Annotated[Path, typer.Option("--keyset", help="Pinned keys: tcd.keyset/1, or a signed one with --roots.")]
Roots = Annotated[Path | None, typer.Option("--roots", help="Root keys that sign key sets: tcd.root/1.")]
Policy = Annotated[Path | None, typer.Option("--policy", help="What is demanded: tcd.verify-policy/1.")]
Witnesses = Annotated[Path | None, typer.Option("--witnesses", help="Witnesses and their quorum: C2SP tlog-policy.")]
State = Annotated[Path | None, typer.Option("--state", help="File in which seen logs are remembered.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
NoClock = Annotated[bool, typer.Option("--no-clock", help="Do not refuse receipts from the future.")]
_MAX: int = 16 * 2**20


@app.callback()
def _group() -> None:
    """Verify receipts offline."""


@dataclass
class _Setting:
    policy: VerifyPolicy
    memory: Memory
    state: Path | None
    as_json: bool

    def remember(self, newest: tuple[str, Any] | None) -> None:
        """Store what was seen; only ever called after everything verified."""
        from tcd.files import write_whole
        from tcd.receipts.seen import Memory

        if self.state is not None:
            logs = dict(self.memory.logs)
            if newest is not None:
                logs[newest[0]] = newest[1]
            made = Memory(logs, self.memory.serial)
            write_whole(self.state, json.dumps(made.to_json(), indent=1).encode() + b"\n", mode=0o644)


def _setting(
    keyset: Path,
    roots: Path | None,
    policy: Path | None,
    witnesses: Path | None,
    state: Path | None,
    *,
    clock: bool,
    as_json: bool,
) -> _Setting:
    from tcd.errors import ConfigError
    from tcd.keystore import read_json
    from tcd.receipts import KeySet
    from tcd.receipts.policy_file import VERSION, policy_from_json
    from tcd.receipts.seen import Memory
    from tcd.receipts.signed_keyset import RootKeys, open_keyset
    from tcd.receipts.tlog_policy import parse_policy

    memory = Memory.from_json(read_json(state, _MAX)) if state is not None and state.exists() else Memory({})
    value, serial = read_json(keyset), memory.serial
    if roots is not None:
        keys, serial = open_keyset(value, roots=RootKeys.from_json(read_json(roots)), newest=memory.serial)
    elif isinstance(value, dict) and "sigs" in value:
        msg = "the key set is signed: name the root keys with --roots"
        raise ConfigError(msg)
    else:
        keys = KeySet.from_json(value)
    now = time.time_ns() // 1000 if clock else None
    made = policy_from_json(read_json(policy) if policy is not None else {"v": VERSION}, keys, now_us=now)
    if witnesses is not None:
        made = replace(made, witnesses=parse_policy(witnesses.read_bytes()))
    return _Setting(made, Memory(memory.logs, max(serial, memory.serial)), state, as_json)


def _undecidable(reason: str, *, as_json: bool) -> typer.Exit:
    if as_json:
        print(json.dumps({"ok": False, "code": "undecidable", "detail": reason}))
    else:
        print(f"tcd verify: {reason}", file=sys.stderr)
    return typer.Exit(2)


def _decide(work: Callable[[], int], *, as_json: bool) -> None:
    from tcd.errors import TcdError

    try:
        code = work()
    except TcdError as error:
        raise _undecidable(error.detail, as_json=as_json) from None
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _undecidable(reason, as_json=as_json) from None
    raise typer.Exit(code)


def _request_form(value: Any) -> Any:
    """A request with its defaults filled in, as the shim digests it."""
    from sidecar_api.verification import canonical_request

    return canonical_request(value) if isinstance(value, dict) else value


def _lines(report: Report, indent: str = "  ") -> list[str]:
    shown = [check for check in report.checks if check.status != "absent"]
    width = max(len(check.name) for check in report.checks)
    return [f"{indent}{check.status:8}{check.name:{width}}  {check.code}  {check.detail}".rstrip() for check in shown]


def _verdict(report: Report, what: str) -> str:
    return f"{'ok' if report.ok else 'REFUSED'}: {what}: {report.code}"


def _erased_by(by: ErasedBy) -> str:
    when = datetime.fromtimestamp(by.ts_us / 1e6, timezone.utc).isoformat(timespec="seconds")
    actor = json.dumps(by.actor, ensure_ascii=False)
    return f"erased by record {by.index} of {when}, actor {actor}, reason {by.reason} ({by.record})"


@app.command()
def receipt(
    file: File,
    keyset: Keys,
    roots: Roots = None,
    policy: Policy = None,
    witnesses: Witnesses = None,
    proof: Annotated[Path | None, typer.Option(help="Inclusion proof (tlog-proof@v1) of the receipt.")] = None,
    no_clock: NoClock = False,
    as_json: AsJson = False,
) -> None:
    """Verify one receipt: an answer of /diagnose, or a request of /verify."""

    def work() -> int:
        from tcd.cli.verify_inputs import one
        from tcd.keystore import read_json
        from tcd.receipts import verify_single

        setting = _setting(keyset, roots, policy, witnesses, None, clock=not no_clock, as_json=as_json)
        options = one(read_json(file, _MAX))
        if "req_obj" in options:
            options["req_obj"] = _request_form(options["req_obj"])
        if proof is not None:
            options["proof"] = proof.read_bytes()
        report = verify_single(options.pop("body"), policy=setting.policy, **options)
        if as_json:
            print(json.dumps(report.to_json()))
        else:
            print("\n".join([_verdict(report, "receipt"), *_lines(report)]))
        return int(not report.ok)

    _decide(work, as_json=as_json)


@app.command()
def chain(
    file: File,
    keyset: Keys,
    roots: Roots = None,
    policy: Policy = None,
    witnesses: Witnesses = None,
    no_clock: NoClock = False,
    as_json: AsJson = False,
) -> None:
    """Verify consecutive records: an array of receipts, {heads, bodies, sigs}, or lines of receipts (.jsonl).

    A receipt whose body was erased is {erased: {kid, origin, suite, tenant}, head, sig, proof}, and says who erased it
    where it has erased_by: the erase record {body, head, sig, proof}, with both proofs in a log of one size.
    """

    def work() -> int:
        from tcd.cli.chain_walk import walk
        from tcd.cli.verify_inputs import windows
        from tcd.keystore import read_json

        setting = _setting(keyset, roots, policy, witnesses, None, clock=not no_clock, as_json=as_json)
        found = walk(windows(file, None if file.suffix == ".jsonl" else read_json(file, _MAX)), setting.policy)
        if found is None:
            return 2
        report, wrong = found.report, found.wrong
        if as_json:
            print(json.dumps(found.to_json()))
            return int(not report.ok)
        where = f"{found.records} records" if report.ok else f"record {found.first_bad}"
        print("\n".join([_verdict(wrong or report, f"chain, {where}"), *_lines(report)]))
        for records, by in found.told():
            print(f"  {records}: {'erased, and no record beside it says by whom' if by is None else _erased_by(by)}")
        if wrong is not None:
            print("\n".join([f"  erase record beside it: {wrong.code}", *_lines(wrong, "    ")]))
        return int(not report.ok)

    _decide(work, as_json=as_json)


@app.command()
def bundle(
    file: File,
    keyset: Keys,
    roots: Roots = None,
    policy: Policy = None,
    witnesses: Witnesses = None,
    state: State = None,
    no_clock: NoClock = False,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle (tcd.bundle/1): records, proofs, disclosures; and, with --state, the log over time."""

    def work() -> int:
        from tcd.receipts.bundle import MAX_BUNDLE, verify_bundle
        from tcd.receipts.errors import MalformedBundle

        setting = _setting(keyset, roots, policy, witnesses, state, clock=not no_clock, as_json=as_json)
        with file.open("rb") as opened:
            raw = opened.read(MAX_BUNDLE + 1)
        try:
            report = verify_bundle(
                raw,
                policy=setting.policy,
                seen=setting.memory.logs if state is not None else None,
                request_form=_request_form,
            )
        except MalformedBundle as error:
            refused = {"ok": False, "code": error.code, "detail": error.detail}
            print(json.dumps(refused) if as_json else f"REFUSED: bundle: {error.code}: {error.detail}")
            return 1
        if report.ok:
            setting.remember(report.newest)
        elif report.log == "equivocation" and state is not None:
            _keep_evidence(state, raw)
        if as_json:
            print(json.dumps(report.to_json()))
            return int(not report.ok)
        whole = "the whole chain" if report.complete else "a part of a chain"
        print(f"{'ok' if report.ok else 'REFUSED'}: bundle of {len(report.receipts)} receipts, {whole}: {report.code}")
        for number, single in enumerate(report.receipts):
            if not single.ok:
                by = report.erased_by.get(number)
                named = [] if by is None else [f"    {_erased_by(by)}"]
                print("\n".join([f"  receipt {number}: {single.code}", *named, *_lines(single, "    ")]))
        for single in report.erasures:
            if not single.ok:
                print("\n".join([f"  erase record: {single.code}", *_lines(single, "    ")]))
        print("\n".join([f"  chain: {report.chain.code}", *_lines(report.chain, "    "), f"  log: {report.log}"]))
        return int(not report.ok)

    _decide(work, as_json=as_json)


@app.command()
def cose(
    file: File,
    receipt_file: Annotated[Path, typer.Argument(help="The receipt in COSE.")],
    keyset: Keys,
    no_clock: NoClock = False,
    as_json: AsJson = False,
) -> None:
    """Verify one receipt, and that its log's receipt in COSE shows it (extra `cose`)."""

    def work() -> int:
        from tcd.cli.verify_inputs import one
        from tcd.cose import check_receipt
        from tcd.errors import VerificationError
        from tcd.keystore import read_json
        from tcd.receipts import verify_single

        setting = _setting(keyset, None, None, None, None, clock=not no_clock, as_json=as_json)
        options = one(read_json(file, _MAX))
        try:
            body = verify_single(options.pop("body"), policy=setting.policy, **options).verified()
            head, keys = bytes.fromhex(options["head"]), setting.policy.keys
            shown = check_receipt(receipt_file.read_bytes(), head, keys=keys, origin=body["origin"])
        except VerificationError as error:
            refused = {"ok": False, "code": error.code, "detail": error.detail}
            print(json.dumps(refused) if as_json else f"REFUSED: {error.code}: {error.detail}")
            return 1
        found = {"ok": True, "code": "ok", "origin": shown.origin, "index": shown.index, "kid": shown.kid}
        print(json.dumps(found) if as_json else f"ok: leaf {shown.index} of {shown.origin}, signed by {shown.kid}")
        return 0

    _decide(work, as_json=as_json)


@app.command()
def replay(
    file: File,
    keyset: Keys,
    assets: Annotated[Path, typer.Option("--assets", help="Directory of the published calibrations.")],
    roots: Roots = None,
    policy: Policy = None,
    witnesses: Witnesses = None,
    no_clock: NoClock = False,
    as_json: AsJson = False,
) -> None:
    """Score a session's decisions again from their requests (req_obj) and the published assets: the same bits?

    FILE has answers of /diagnose, an array or lines (.jsonl), each with its request as `req_obj`, from the session's
    first step on.
    """

    def work() -> int:
        from sidecar_api.replaying import replay as replayed
        from tcd.calibration.store import load_assets
        from tcd.cli.verify_inputs import answers
        from tcd.receipts import verify_single

        setting = _setting(keyset, roots, policy, witnesses, None, clock=not no_clock, as_json=as_json)
        decisions = []
        for number, options in enumerate(answers(file)):
            request = _request_form(options.get("req_obj", {}))
            options["req_obj"] = request
            report = verify_single(options.pop("body"), policy=setting.policy, **options)
            if not report.ok:
                refused = {"ok": False, "code": report.code, "first_bad": number}
                print(json.dumps(refused) if as_json else _verdict(report, f"receipt {number}"))
                return 1
            decisions.append((report.verified(), request))
        rows = list(replayed(decisions, load_assets(assets)))
        same = all(not row.differences for row in rows) and any(row.scored for row in rows)
        if as_json:
            shown = [{"seq": row.seq, "scored": row.scored, "differences": list(row.differences)} for row in rows]
            print(json.dumps({"ok": same, "code": "ok" if same else "replay_mismatch", "decisions": shown}))
            return int(not same)
        for row in rows:
            state = "the same bits" if row.scored else "no score"
            print(f"  decision {row.seq}: {', '.join(row.differences) or state}")
        print(f"{'ok' if same else 'REFUSED'}: {sum(row.scored for row in rows)} of {len(rows)} decisions replayed")
        return int(not same)

    _decide(work, as_json=as_json)


def _keep_evidence(state: Path, raw: bytes) -> None:
    """Two histories of a log: what was seen is in the state, what contradicts it is kept beside it."""
    import hashlib

    from tcd.files import write_whole

    write_whole(state.with_name(f"{state.name}.evidence-{hashlib.sha256(raw).hexdigest()[:16]}"), raw)
    print(f"tcd verify: the log shows two histories; the evidence is beside {state}", file=sys.stderr)
