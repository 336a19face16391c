"""`docs/reference` and the pictures: written, or with `--check` compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tcd.kept import keep
from tcd.reference import cli, http, metrics, rpc
from tcd.reference.pictures import PICTURES

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"


def _openapi(name: str, title: str, note: str) -> str:
    return http.render(title, note, json.loads((DOCS / name).read_text()))


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/http.md": lambda: _openapi(
        "openapi.json", "HTTP", "Made from [`openapi.json`](../openapi.json); what it means is in [HTTP](../http.md)."
    ),
    "reference/admin.md": lambda: _openapi(
        "admin-openapi.json",
        "The admin plane",
        "Made from [`admin-openapi.json`](../admin-openapi.json); what it means is in [the admin plane](../admin.md).",
    ),
    "reference/grpc.md": lambda: rpc.render(
        ROOT / "tcd" / "v1" / "tcd.proto",
        ROOT,
        "Made from [`tcd.proto`](../../tcd/v1/tcd.proto); what it means is in [gRPC](../grpc.md).",
    ),
    "reference/metrics.md": metrics.render,
    "reference/cli.md": cli.render,
    **{f"images/{name}": draw for name, draw in PICTURES.items()},
}


if __name__ == "__main__":
    sys.exit(keep("tcd.reference", {DOCS / name: render for name, render in PAGES.items()}))
