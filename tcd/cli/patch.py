"""`tcd patch`: the patches of a shim and their steps, from the journal in its data directory; it may be running."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.trust import Event

app = typer.Typer(help="Patches of a shim's settings.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option("--data-dir", help="Of the shim; default as in the settings.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings; default TCD_CONFIG_PATH.")]


@app.callback()
def _group() -> None:
    """Patches of a shim's settings."""


def _events(folder: Path | None, config: Path | None, *, forgotten: bool = False) -> list[Event]:
    """Steps of the journal; before them, where they are wanted, those of patches that the shim has forgotten."""
    from sidecar_api.patching import FILE, events_of
    from sidecar_api.stores import data_directory, own_directory
    from tcd.config import load
    from tcd.errors import ConfigError
    from tcd.journal import aside, read

    try:
        settings = load(os.environ, cli={"data_dir": folder}, path=config).settings
        path = (own_directory(settings, os.environ) or data_directory(settings, os.environ)) / FILE
        # the journal first: what is put aside meanwhile is then there twice, and nothing is missing
        now = read(path)[0]
        before = [value for file in aside(path) for value in read(file)[0]] if forgotten else []
        return events_of([*before, *now])
    except ConfigError as error:
        fail("patch", error)


@app.command("list")
def list_(data_dir: Folder = None, config: Config = None) -> None:
    """Print each patch and where it stands."""
    from tcd.trust import PatchRuntime

    for patch in PatchRuntime.replay(_events(data_dir, config), {}):
        people = f"by {patch.author}" + (f", approved by {patch.approver}" if patch.approver else "")
        value = json.dumps(patch.value)
        print(f"{patch.id}: {patch.setting} = {value} for {patch.share:.0%}, {patch.ttl:g} s: {patch.state}, {people}")


@app.command()
def log(data_dir: Folder = None, config: Config = None) -> None:
    """Print every step as a JSON line; the digest of each is a leaf of the transparency log.

    Also of patches that the shim has forgotten, where they were in force; of the others while it knows them.
    """
    lines = (
        json.dumps(asdict(event), sort_keys=True, separators=(",", ":"))
        for event in _events(data_dir, config, forgotten=True)
    )
    # a shim that was killed while it put steps aside did so again
    for line in dict.fromkeys(lines):
        print(line)
