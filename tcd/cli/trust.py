"""`tcd trust`: whom a shim trusts and why, from the journal in its data directory; it may be running."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.trust import TrustGraph

app = typer.Typer(help="The trust graph of a shim.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option("--data-dir", help="Of the shim; default as in the settings.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings; default TCD_CONFIG_PATH.")]


@app.callback()
def _group() -> None:
    """The trust graph of a shim."""


def _graph(folder: Path | None, config: Path | None) -> TrustGraph:
    from sidecar_api.stores import data_directory, own_directory
    from sidecar_api.trusting import FILE, connected
    from tcd.config import load
    from tcd.errors import ConfigError
    from tcd.journal import read

    try:
        settings = load(os.environ, cli={"data_dir": folder}, path=config).settings
        path = (own_directory(settings, os.environ) or data_directory(settings, os.environ)) / FILE
        if not path.exists():
            fail("trust", f"{path} is not there")
        return connected(settings, read(path)[0])
    except ConfigError as error:
        fail("trust", error)


@app.command()
def show(
    data_dir: Folder = None,
    config: Config = None,
    below: float = typer.Option(1.0, help="Only nodes that are trusted less than this."),
) -> None:
    """Print `trust kind:name`, least trusted first; users by their keyed digest."""
    scores = _graph(data_dir, config).scores(time.time())
    for node, trust in sorted(scores.items(), key=lambda item: (item[1], item[0])):
        if trust < below:
            print(f"{trust:.4f} {node}")


@app.command()
def explain(
    node: str = typer.Argument(help="kind:name, for example model:model0"),
    data_dir: Folder = None,
    config: Config = None,
) -> None:
    """Print as JSON why a node is trusted as it is: its own evidence, and the dependencies that lower it most."""
    from tcd.trust import Node

    try:
        parsed = Node.parse(node)
    except ValueError as error:
        fail("trust", error)
    told = _graph(data_dir, config).explain(parsed, time.time())
    paths = [{"path": [str(n) for n in nodes], "leaves": left} for nodes, left in told.paths]
    shown = {"node": str(told.node), "trust": told.trust, "own": told.own, "good": told.good, "bad": told.bad}
    print(json.dumps({**shown, "paths": paths}, indent=2))
