"""The `tcd` command: one file per sub-command, registered here."""

from __future__ import annotations

import importlib

import typer

from tcd import __version__

app = typer.Typer(
    name="tcd",
    help="Anytime-valid, verifiable safety sidecar for LLM inference.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

#: Sub-command to module; the module has `command` (one command) or `app` (a group of them).
COMMANDS = {
    "serve": "tcd.cli.serve",
    "triton": "tcd.cli.triton",
    "doctor": "tcd.cli.doctor",
    "demo": "tcd.cli.demo",
    "perf": "tcd.cli.perf",
    "bench": "tcd.cli.bench",
    "calibrate": "tcd.cli.calibrate",
    "record": "tcd.cli.record",
    "synth": "tcd.cli.synth",
    "conformance": "tcd.cli.conformance",
    "config": "tcd.cli.config",
    "policy": "tcd.cli.policy",
    "trust": "tcd.cli.trust",
    "patch": "tcd.cli.patch",
    "keys": "tcd.cli.keys",
    "verify": "tcd.cli.verify",
    "audit": "tcd.cli.audit",
    "export": "tcd.cli.export",
    "replay": "tcd.cli.replay",
    "witness": "tcd.cli.witness",
    "proxy": "tcd.cli.proxy",
    "admin": "tcd.cli.admin",
}


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tcd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Anytime-valid, verifiable safety sidecar for LLM inference."""


for _name, _module in COMMANDS.items():
    _loaded = importlib.import_module(_module)
    if hasattr(_loaded, "app"):
        app.add_typer(_loaded.app, name=_name)
    else:
        app.command(name=_name)(_loaded.command)


if __name__ == "__main__":
    app()
