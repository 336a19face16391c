"""`tcd config show`: every setting, its value and where it came from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

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
        print(f"tcd config: {error.detail}", file=sys.stderr)
        raise typer.Exit(2) from None
    for name in Settings.model_fields:
        tail = f"  # {loaded.origins[name]}" if origin else ""
        print(f"{name} = {shown(loaded.settings, name)}{tail}")
    print(f"# config_hash {loaded.settings.config_hash}")
