"""Write `docs/reference` and the pictures, or with `--check` compare it; 1 when a page is out of date."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

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


def main(arguments: list[str]) -> int:
    """Write the pages or check them."""
    if arguments != ["--check"]:
        for name, render in PAGES.items():
            (DOCS / name).parent.mkdir(exist_ok=True)
            (DOCS / name).write_text(render())
        return 0
    stale = [name for name, render in PAGES.items() if (DOCS / name).read_text() != render()]
    for name in stale:
        sys.stderr.write(f"docs/{name} is out of date: python -m tcd.reference\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
