"""The floor that `tcd perf` measures against: the ensemble's shape with models that compute nothing.

Same tensors, same steps, rendered from the same contract; what is left is Triton itself.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcd.contract import DETECTOR, DIAGNOSE, FUSED, MULTIVARIATE, ROUTING, SPOTLIGHT, Model
from tcd.triton import pbtxt


def _renamed(name: str) -> str:
    return name.replace("tcd_", "noop_", 1)


def noop_model(model: Model) -> Model:
    """A model of the same tensors under a `noop_` name; its steps are no-ops too."""
    steps = tuple(replace(step, model=_renamed(step.model)) for step in model.steps)
    return replace(model, name=_renamed(model.name), doc=f"no-op of {model.name}", steps=steps)


#: The no-op of `tcd_diagnose` and its steps, steps first.
NOOP_MODELS = tuple(noop_model(m) for m in (DETECTOR, MULTIVARIATE, ROUTING, DIAGNOSE))
NOOP_DIAGNOSE = NOOP_MODELS[-1]
#: The no-op of `tcd_fused`: one model where the ensemble has three.
NOOP_FUSED = noop_model(FUSED)
#: The no-op of `tcd_spotlight`: every output is the first input.
NOOP_SPOTLIGHT = noop_model(SPOTLIGHT)


def write_repository(repository: Path) -> None:
    """Write the no-op models as a model repository."""
    files = {
        f"{NOOP_SPOTLIGHT.name}/config.pbtxt": pbtxt.render(NOOP_SPOTLIGHT),
        f"{NOOP_SPOTLIGHT.name}/1/model.py": pbtxt.render_module("tcd.triton.noop", "Echo"),
    }
    for model in (*NOOP_MODELS, NOOP_FUSED):
        files[f"{model.name}/config.pbtxt"] = pbtxt.render(model)
        if model.steps:
            files[f"{model.name}/1/.gitkeep"] = ""
        else:
            files[f"{model.name}/1/model.py"] = pbtxt.render_module("tcd.triton.noop", "Noop")
    pbtxt.write(repository, files)


class Noop:
    """A Triton model that answers zeros of its configured outputs."""

    def initialize(self, args: dict[str, str]) -> None:
        """Triton's hook: read the outputs from the configuration."""
        self._pb: Any = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        self._zeros: list[tuple[str, NDArray[np.generic]]] = []
        for output in config["output"]:
            dims = [int(d) for d in output["dims"]]
            dtype = self._pb.triton_string_to_numpy(output["data_type"])
            self._zeros.append((output["name"], np.zeros((int(config["max_batch_size"]), *dims), dtype)))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's hook: one response of zeros per request."""
        responses = []
        for request in requests:
            rows = request.inputs()[0].shape()[0]
            tensors = [self._pb.Tensor(name, zeros[:rows]) for name, zeros in self._zeros]
            responses.append(self._pb.InferenceResponse(output_tensors=tensors))
        return responses


class Echo:
    """A Triton model that answers its first input as each of its outputs."""

    def initialize(self, args: dict[str, str]) -> None:
        """Triton's hook: read the outputs from the configuration."""
        self._pb: Any = importlib.import_module("triton_python_backend_utils")
        self._names = [output["name"] for output in json.loads(args["model_config"])["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's hook: one response per request."""
        responses = []
        for request in requests:
            values = request.inputs()[0].as_numpy()
            tensors = [self._pb.Tensor(name, values) for name in self._names]
            responses.append(self._pb.InferenceResponse(output_tensors=tensors))
        return responses
