"""The tables of `docs/tensors.md`, rendered from the contract. `python -m tcd.triton.reference` writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tcd.contract import COMPONENTS, DECODERS, MODELS, TEXT_MODELS, TIERS, Model, Status, Tensor
from tcd.kept import keep

PAGE: Final = Path(__file__).parents[2] / "docs" / "tensors.md"
BEGIN: Final = "<!-- rendered from tcd/contract.py -->"


def _rows(tensors: tuple[Tensor, ...]) -> list[str]:
    return [
        f"| `{t.name}` | {t.dtype} [{', '.join(map(str, t.dims))}]{' ragged' if t.ragged else ''} | {t.doc} |"
        for t in tensors
    ]


def _model(model: Model) -> list[str]:
    lines = [f"### `{model.name}`", f"{model.doc[0].upper()}{model.doc[1:]}.", ""]
    if model.steps:
        lines += ["Steps: " + ", ".join(f"`{step.model}`" for step in model.steps) + ".", ""]
    for title, tensors in (("input", model.inputs), ("output", model.outputs)):
        lines += [f"| {title} | type, dims (without the batch) | meaning |", "|---|---|---|", *_rows(tensors), ""]
    return lines


def render() -> str:
    """The rendered part of the page."""
    lines = [BEGIN, "## Models", ""]
    ordered = sorted(MODELS.values(), key=lambda model: not model.steps)
    for model in (*ordered, *TEXT_MODELS.values()):
        lines += _model(model)
    lines += ["## Codes", "", "| code | values |", "|---|---|"]
    lines += [f"| order of `COMPONENTS` | {', '.join(COMPONENTS)} |"]
    lines += [f"| `TIER` | {', '.join(f'{i} {name}' for i, name in enumerate(TIERS))} |"]
    lines += [f"| `ROUTE[3]`, decoder | {', '.join(f'{i} {name}' for i, name in enumerate(DECODERS))} |"]
    bits = ", ".join(f"{int(s)} {(s.name or '').lower()}" for s in Status if s)
    lines += [f"| bits of each byte of `STATUS` | {bits}; in routing's byte 2 is an unknown policy |", ""]
    return "\n".join(lines)


def page() -> str:
    """The whole page: what is written by hand, then the rendered part."""
    return PAGE.read_text().partition(BEGIN)[0] + render()


if __name__ == "__main__":
    sys.exit(keep("tcd.triton.reference", {PAGE: page}))
