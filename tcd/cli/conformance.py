"""`tcd conformance`: check files of reference vectors, print the largest deviation per rule."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tcd.conformance import Report


def _lines(path: Path, report: Report) -> list[str]:
    lines = [f"{path.name}: {report.format}: {'FAILED' if report.failed else 'ok'}"]
    for f in report.findings:
        number = f"{f.deviation:.2e} of {f.tolerance:.0e} over {f.compared}" if math.isfinite(f.deviation) else ""
        lines.append(f"  {f.status:15} {f.rule:40} {number} {f.note}".rstrip())
    return lines


def command(
    files: Annotated[list[Path], typer.Argument(help="files of vectors: JSON, or RFC 8785 documents and numbers")],
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check FILES: exit 1 when a rule deviates or is missing, 2 when a file is malformed."""
    from dataclasses import asdict

    from tcd.conformance import Malformed, check, load

    found: list[dict[str, Any]] = []
    malformed = failed = False
    for path in files:
        try:
            report = check(load(path))
        except (OSError, ValueError, RecursionError) as error:
            reason = error if isinstance(error, (Malformed, OSError)) else f"not JSON: {error}"
            typer.echo(f"{path.name}: malformed: {reason}", err=True)
            found.append({"file": path.name, "malformed": str(reason)})
            malformed = True
            continue
        failed |= report.failed
        rows = [asdict(f) | {"deviation": f.deviation if math.isfinite(f.deviation) else None} for f in report.findings]
        found.append({"file": path.name, "format": report.format, "failed": report.failed, "findings": rows})
        if not as_json:
            print("\n".join(_lines(path, report)))
    if as_json:
        print(json.dumps(found, indent=1))
    raise typer.Exit(2 if malformed else int(failed))
