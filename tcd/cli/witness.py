"""`tcd witness`: a stand-alone witness that cosigns the checkpoints of logs it knows and refuses inconsistent ones."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.receipts.witnessing import Verdict, Witness


def command(
    name: Annotated[str, typer.Option(help="Name of the witness in its cosignatures, such as witness.example/w1.")],
    key: Annotated[list[Path], typer.Option(help="Seed file of the witness (hex, mode 0600); again for more.")],
    log: Annotated[list[str] | None, typer.Option(help="vkey of a log; again for more.")] = None,
    logs: Annotated[Path | None, typer.Option(help="tlog-policy file; its `log` lines are the logs.")] = None,
    alg: Annotated[list[str] | None, typer.Option(help="Algorithm of each --key. [default: Ed25519]")] = None,
    state: Annotated[Path, typer.Option(help="File of what was cosigned; never delete it.")] = Path("witness.sqlite"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8090,
) -> None:
    """Answer `POST /add-checkpoint` until stopped; prints the address and the witness's own keys first."""
    from tcd.errors import ConfigError, VerificationError
    from tcd.witness import WitnessServer, WitnessStore

    try:
        witness, vkeys = _witness(name, key, alg or [], log or [], logs)
        store = WitnessStore(state)
    except (ConfigError, VerificationError) as error:
        fail("witness", error)
    try:
        server = WitnessServer((host, port), witness, store, log=_log)
    except OSError as error:
        store.close()
        fail("witness", f"cannot listen on {host}:{port}: {error.strerror}")
    for vkey in vkeys:
        print(f"key {vkey}")
    print(f"listening http://{host}:{server.server_address[1]}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        store.close()


def _witness(
    name: str, keys: list[Path], algs: list[str], vkeys: list[str], policy: Path | None
) -> tuple[Witness, list[str]]:
    from tcd.errors import ConfigError
    from tcd.keystore import read_seed
    from tcd.receipts.cosign import Cosigner, MlDsaVerifier, verifier_of
    from tcd.receipts.note import check_name
    from tcd.receipts.tlog_policy import parse_policy
    from tcd.receipts.witnessing import Witness

    check_name(name)
    if len(algs) > len(keys) or not set(algs) <= {"Ed25519", "ML-DSA-44"}:
        msg = "--alg is Ed25519 or ML-DSA-44, once for each --key"
        raise ConfigError(msg)
    signers = [read_seed(path, alg) for path, alg in zip(keys, [*algs, *["Ed25519"] * len(keys)], strict=False)]
    trusted = [verifier_of(vkey) for vkey in vkeys]
    if policy is not None:
        try:
            trusted += parse_policy(policy.read_bytes()).logs
        except OSError as error:
            msg = f"{policy} cannot be read: {error.strerror}"
            raise ConfigError(msg) from None
    if not trusted or any(isinstance(item, Cosigner) for item in trusted):
        msg = "name at least one log: --log or --logs"
        raise ConfigError(msg)
    own = [
        Cosigner(name, signer.public) if signer.alg == "Ed25519" else MlDsaVerifier(name, signer.public)
        for signer in signers
    ]
    return Witness(name, signers, trusted), [verifier.vkey() for verifier in own]


def _log(verdict: Verdict) -> None:
    reason = f" {verdict.reason}" if verdict.reason else ""
    size = f" {verdict.new.size}" if verdict.new is not None else ""
    print(f"{verdict.status} {verdict.origin!r}{size}{reason}", file=sys.stderr, flush=True)
