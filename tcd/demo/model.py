"""The Triton model `tcd_demo_llm`: a decoupled stream of tokens, each with tcd's answer to its step.

Thin: it reads the request, chooses the way to tcd and sends what `generate` yields. No tensor leaves Triton on the
way over BLS; on the way over the shim the newest signals do.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.contract import DIAGNOSE_RAW
from tcd.demo.generate import generate
from tcd.demo.llm import LanguageModel
from tcd.demo.records import Params
from tcd.demo.watch import OUTPUTS, EnsembleWatcher, ShimSession, ShimWatcher, Tensors, Watcher, WatchError
from tcd.errors import InvalidRequest


class DemoModel:
    """Triton's Python model; one generation at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Triton's hook: load the weights.

        Raises:
            tcd.demo.weights.WeightsMissing: when they are not installed; the model does not load.
        """
        self._pb: Any = importlib.import_module("triton_python_backend_utils")
        parameters = json.loads(args["model_config"]).get("parameters", {})
        threads = int(parameters.get("THREADS", {}).get("string_value", "1"))
        self._model = LanguageModel.load(threads=threads)
        self._assets = AssetDirectory(default_asset_dir())

    def execute(self, requests: Sequence[Any]) -> None:
        """Triton's hook: answer each request with one response per token."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._stream(request, sender)
            except (InvalidRequest, ValueError) as error:
                refusal = self._pb.TritonError(str(error), self._pb.TritonError.INVALID_ARG)
                sender.send(self._pb.InferenceResponse(output_tensors=[], error=refusal))
            sender.send(flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _stream(self, request: Any, sender: Any) -> None:
        prompt, params = (self._text(request, name) for name in ("PROMPT", "PARAMS"))
        settings = Params.from_json(params)
        watcher = self._watcher(settings)
        try:
            for token in generate(self._model, prompt, settings, watcher):
                step = self._pb.Tensor("STEP", np.array([token.to_json().encode()], np.object_))
                sender.send(self._pb.InferenceResponse(output_tensors=[step]))
                if sender.is_cancelled():
                    break
        finally:
            if watcher is not None:
                watcher.close()

    def _text(self, request: Any, name: str) -> str:
        value = self._pb.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0]
        return bytes(value).decode()

    def _watcher(self, params: Params) -> Watcher | None:
        if params.via == "triton":
            return EnsembleWatcher(self._infer, temperature=params.temperature)
        if params.via == "shim":
            session = ShimSession(params.shim_url, session=params.session, temperature=params.temperature)
            return ShimWatcher(session, self._assets.current())
        return None

    def _infer(self, tensors: Tensors) -> Mapping[str, NDArray[np.generic]]:
        """Call the ensemble from inside Triton (BLS).

        Raises:
            WatchError: when it does not answer.
        """
        pb = self._pb
        call = pb.InferenceRequest(
            model_name=DIAGNOSE_RAW.name,
            requested_output_names=list(OUTPUTS),
            inputs=[pb.Tensor(name, np.ascontiguousarray(array)) for name, array in tensors.items()],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
        )
        try:
            response = call.exec()
        except pb.TritonModelException as error:
            raise WatchError(str(error)) from error
        if response.has_error():
            raise WatchError(response.error().message())
        # copies: the answer's memory goes back to Triton with it
        return {tensor.name(): np.array(tensor.as_numpy()) for tensor in response.output_tensors()}
