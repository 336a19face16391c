"""From a request to what the ensemble is asked: windows, key, base route. Pure; a replay goes the same way."""

from __future__ import annotations

from functools import lru_cache

from sidecar_api.decision import RouteTuple
from sidecar_api.decode import float32, float32_rows
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.windows import SessionWindow, Staged
from tcd.contract import detector_key, temperature_bucket


@lru_cache(maxsize=4096)
def _key(model: str, gpu: str, task: str, lang: str, temperature: float | None) -> tuple[int, int, int]:
    """Three SHA-256 per distinct key, not per step."""
    return detector_key(model, gpu, task, lang, temperature_bucket(temperature))


def stage(window: SessionWindow, request: DiagnoseRequest) -> Staged:
    """The windows of a step; `window` does not change."""
    trace, spectrum = float32(request.trace_vector), float32(request.spectrum)
    if request.window == "full":
        entropies = request.entropy_window or ([] if request.entropy is None else [request.entropy])
        rows = request.feature_window or ([request.features] if request.features else [])
        return window.whole(trace, float32(entropies), spectrum, float32_rows(rows))
    entropy = float32([] if request.entropy is None else [request.entropy])
    features = float32_rows([request.features] if request.features else [])
    return window.stage(trace, entropy, spectrum, features)


def names(request: DiagnoseRequest) -> tuple[str, str, str, str]:
    """What is judged: model, gpu, task, language."""
    return request.model_id, request.gpu_id, request.task, request.lang


def key(request: DiagnoseRequest) -> tuple[int, int, int]:
    """The levels of the detector key."""
    temperature = context(request, "temperature") if request.context else None
    return _key(request.model_id, request.gpu_id, request.task, request.lang, temperature)


def base(request: DiagnoseRequest) -> RouteTuple:
    """How the caller decodes now: temperature, top_p, max_tokens, and the drift that only tightens."""
    if not request.context:
        return (1.0, 1.0, 0.0, request.drift_score)
    return (
        context(request, "temperature", 1.0) or 0.0,
        context(request, "top_p", 1.0) or 0.0,
        context(request, "max_tokens", 0.0) or 0.0,
        request.drift_score,
    )


def context(request: DiagnoseRequest, name: str, default: float | None = None) -> float | None:
    """A number of the request's context."""
    value = request.context.get(name)
    if type(value) is float:
        return value
    return float(value) if isinstance(value, int | float) else default
