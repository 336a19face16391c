"""Renders the model repository's config.pbtxt files from `tcd.contract`, and checks them.

`python -m tcd.triton.pbtxt` writes them, with `--check` it fails when one differs. The rules and the traps behind them
are in the comments that every file carries.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from tcd.contract import MAX_BATCH, MODELS, TEXT_MODELS, Model, Tensor
from tcd.kept import keep
from tcd.triton.options import DEFAULT_REPOSITORY

#: Class that each model's `1/model.py` shows to Triton.
CLASSES: Final = {
    "tcd_signals": ("tcd.triton.signals", "Signals"),
    "tcd_detector": ("tcd.triton.detector", "Detector"),
    "tcd_multivariate": ("tcd.triton.multivariate", "Multivariate"),
    "tcd_routing": ("tcd.triton.routing", "Routing"),
    "tcd_fused": ("tcd.triton.fused", "Fused"),
    "tcd_spotlight": ("tcd.triton.spotlight", "Spotlight"),
}
_PROTO_TYPES: Final = {
    "FP32": "TYPE_FP32",
    "FP64": "TYPE_FP64",
    "INT32": "TYPE_INT32",
    "UINT64": "TYPE_UINT64",
    "BYTES": "TYPE_STRING",
}
#: Width of -1 dims in the warm-up request: the smallest bucket of a signal.
_WARMUP_WIDTH: Final = 64
_WARMUP_ROWS: Final = 4
_HEADER: Final = "# Rendered from tcd/contract.py by `python -m tcd.triton.pbtxt`; do not edit."
_BATCHING: Final = """\
# No queue policy and no priorities: either makes the batcher miss wake-ups and stall requests for 500 ms.
# Delay 0: a delay is paid in full by every step at low load; the shim batches before it calls.
dynamic_batching { }
"""
_INSTANCES: Final = """\
# KIND_AUTO without a list of GPUs loads with and without one.
instance_group [ { kind: KIND_AUTO count: 1 } ]

# Tensors of an earlier step stay on the GPU when they are there; the models take both.
parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }
"""


def _dims(dims: Iterable[int]) -> str:
    return ", ".join(map(str, dims))


def _tensor(kind: str, tensor: Tensor) -> str:
    lines = [
        *(f"# {line}" for line in textwrap.wrap(f"{tensor.name}: {tensor.doc}", 116)),
        f"{kind} {{",
        f'  name: "{tensor.name}"',
        f"  data_type: {_PROTO_TYPES[tensor.dtype]}",
        f"  dims: [ {_dims(tensor.dims)} ]",
    ]
    if tensor.ragged and kind == "input":
        lines.append("  allow_ragged_batch: true")
    return "\n".join([*lines, "}", ""])


def _warmup(model: Model) -> str:
    lines = ["model_warmup {", '  name: "empty_rows"', f"  batch_size: {_WARMUP_ROWS}"]
    for tensor in model.inputs:
        dims = _dims(_WARMUP_WIDTH if d < 0 else d for d in tensor.dims)
        value = f"{{ data_type: {_PROTO_TYPES[tensor.dtype]} dims: [ {dims} ] zero_data: true }}"
        lines.append(f'  inputs {{ key: "{tensor.name}" value {value} }}')
    return "\n".join([*lines, "}", ""])


def _steps(model: Model) -> str:
    lines = ["ensemble_scheduling {"]
    for step in model.steps:
        lines += ["  step {", f'    model_name: "{step.model}"', "    model_version: -1"]
        for field, names in (("input_map", step.inputs), ("output_map", step.outputs)):
            lines += [f'    {field} {{ key: "{inner}" value: "{outer}" }}' for inner, outer in names.items()]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def render(model: Model) -> str:
    """The config.pbtxt of a model of the Python backend, or of an ensemble when the model has steps."""
    head = [_HEADER, *(f"# {line}" for line in textwrap.wrap(f"{model.name}: {model.doc}.", 116))]
    kind = 'platform: "ensemble"' if model.steps else 'backend: "python"'
    blocks = ["\n".join([*head, f'name: "{model.name}"', kind, f"max_batch_size: {MAX_BATCH}", ""])]
    blocks += [_tensor("input", t) for t in model.inputs]
    blocks += [_tensor("output", t) for t in model.outputs]
    blocks += [_steps(model)] if model.steps else [_BATCHING, _INSTANCES, _warmup(model)]
    return "\n".join(blocks)


def render_module(module: str, name: str) -> str:
    """The `1/model.py` of a model: one import."""
    return f"from {module} import {name} as TritonPythonModel  # noqa: F401 - Triton looks for this name\n"


def repository_files(models: Iterable[Model] = (*MODELS.values(), *TEXT_MODELS.values())) -> dict[str, str]:
    """Every file of the repository by its path in it; an ensemble's empty version directory holds a .gitkeep."""
    files = {}
    for model in models:
        files[f"{model.name}/config.pbtxt"] = render(model)
        if model.steps:
            files[f"{model.name}/1/.gitkeep"] = ""
        else:
            files[f"{model.name}/1/model.py"] = render_module(*CLASSES[model.name])
    return files


def write(repository: Path, files: dict[str, str]) -> None:
    """Write files into a repository, making its directories."""
    for name, text in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def kept(repository: Path = DEFAULT_REPOSITORY) -> dict[Path, Callable[[], str]]:
    """The repository as `tcd.kept` keeps it."""
    return {repository / name: partial(str, text) for name, text in repository_files().items()}


if __name__ == "__main__":
    sys.exit(keep("tcd.triton.pbtxt", kept()))
