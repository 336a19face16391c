"""`tcd config show`: every setting, its value and where it came from."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import typer

from tcd.cli.endings import fail
from tcd.config import Settings, load, shown
from tcd.errors import ConfigError

app = typer.Typer(help="Settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Settings."""


@app.command()
def show(
    origin: bool = typer.Option(False, "--origin", help="Also print where each value came from."),
    config: Path | None = typer.Option(None, "--config", help="TOML file; default TCD_CONFIG_PATH."),
) -> None:
    """Print every setting; secrets are hidden."""
    try:
        loaded = load(os.environ, path=config)
    except ConfigError as error:
        fail("config", error)
    for name in Settings.model_fields:
        tail = f"  # {loaded.origins[name]}" if origin else ""
        print(f"{name} = {shown(loaded.settings, name)}{tail}")
    print(f"# config_hash {loaded.settings.config_hash}")


@app.command()
def grant(
    key_file: Path = typer.Option(..., "--key-file", help="File with the operator's Ed25519 seed, 64 hex digits."),
    reason: str = typer.Option(..., help="Why; it goes into the log."),
    minutes: int = typer.Option(15, min=1, max=24 * 60, help="How long a reload may use it."),
    config: Path | None = typer.Option(None, "--config", help="TOML file; default TCD_CONFIG_PATH."),
) -> None:
    """Print a break-glass grant that allows a running shim to be reloaded with exactly these settings."""
    from tcd.receipts.keys import SigningKey
    from tcd.reload import issue

    try:
        loaded = load(os.environ, path=config)
        key = SigningKey.from_hex(key_file.read_text("utf-8").strip())
    except (ConfigError, OSError, ValueError) as error:
        fail("config", error)
    until = int(time.time()) + 60 * minutes
    print(issue(key, config_hash=loaded.settings.config_hash, until=until, reason=reason), end="")
    print(f"public key {key.public.hex()}", file=sys.stderr)


@app.command()
def reference() -> None:
    """Print the table of all settings that docs/configuration.md has."""
    print(table(), end="")


def table() -> str:
    """Every setting as Markdown: name, default, whether a reload may change it, what it is."""
    from typing import get_args

    from tcd.reload import RELOADABLE

    lines = ["| setting | default | reload | |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        words = [value for value in get_args(field.annotation) if isinstance(value, str)]
        said = field.description or (f"one of {', '.join(words)}" if words else "")
        default = shown(load({}).settings, name).replace("|", "\\|")
        lines.append(f"| `{name}` | `{default}` | {'yes' if name in RELOADABLE else ''} | {said} |")
    return "\n".join(lines) + "\n"
