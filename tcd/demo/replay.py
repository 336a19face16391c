"""The demo without the weights: a recording of its default scenarios, sent step by step to the same ensemble and shim.

A recording cannot obey, so it shows the catch only. Its features were made with the shipped projection.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tcd.contract import (
    DIAGNOSE,
    MAX_FEATURE_ROWS,
    MAX_FEATURE_VALUES,
    MAX_WINDOW,
    SUP_START,
    detector_key,
    temperature_bucket,
)
from tcd.demo.records import Answer, Token
from tcd.demo.sampler import Setting
from tcd.demo.scenarios import Kind
from tcd.demo.watch import MODEL_ID, Tensors, WatchError, answer_of
from tcd.errors import AssetError
from tcd.rows import ScoreRow, pack

RECORDING: Final = Path(__file__).parent / "data" / "recorded.npz"


class Poster(Protocol):
    """Whoever takes the newest signals of a step: `tcd.demo.watch.ShimSession`, or `RowSession`."""

    def post(self, step: int, values: Mapping[str, Any], *, base: Setting, left: int) -> Answer:
        """Answer one step.

        Raises:
            WatchError: when there is no answer.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded generation: signals of T steps, texts and how they were drawn."""

    kind: Kind
    prompt: str
    texts: tuple[str, ...]
    top_p: float
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.texts)

    def values(self, step: int) -> dict[str, Any]:
        """The signals of a step as members of a /diagnose request."""
        c = self.columns
        spectrum = c["spectrum"][step]
        return {
            "trace_vector": [float(c["lp"][step])],
            "entropy": float(c["entropy"][step]),
            # a short prompt's first windows have fewer singular values; the recording pads with zeros
            "spectrum": [float(v) for v in spectrum if v > 0],
            "features": c["features"][step].astype(float).tolist(),
        }


def load_recording(path: Path = RECORDING) -> dict[Kind, Recorded]:
    """The recorded scenarios.

    Raises:
        AssetError: when the file is missing or malformed.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        return {
            kind: Recorded(
                kind=kind,
                prompt=entry["prompt"],
                texts=tuple(entry["texts"]),
                top_p=entry["top_p"],
                columns={n.removeprefix(f"{kind}_"): a for n, a in arrays.items() if n.startswith(f"{kind}_")},
            )
            for kind, entry in meta.items()
        }
    except (OSError, EOFError, BadZipFile, ValueError, KeyError) as error:
        msg = f"recording {path}: {error}"
        raise AssetError(msg) from error


class RowSession:
    """Keeps the windows and calls `tcd_diagnose` with them, as a model server without logits at hand would."""

    def __init__(self, infer: Callable[[Tensors], Mapping[str, NDArray[np.generic]]], *, temperature: float) -> None:
        """Start a session.

        Args:
            infer: runs `tcd_diagnose`: a Triton client, or `tcd.scoring.diagnose`.
            temperature: of the session's start; it chooses the bucket of the detector key.
        """
        self._infer = infer
        self._key = detector_key(MODEL_ID, "gpu0", "chat", "en", temperature_bucket(temperature))
        self._trace: list[float] = []
        self._entropy: list[float] = []
        self._features: list[list[float]] = []
        self._sup = (SUP_START, SUP_START)

    def post(self, step: int, values: Mapping[str, Any], *, base: Setting, left: int) -> Answer:  # noqa: ARG002 - port
        """Score one step.

        Raises:
            WatchError: from `infer`.
        """
        self._trace = [*self._trace, *values["trace_vector"]][-MAX_WINDOW:]
        self._entropy = [*self._entropy, values["entropy"]][-MAX_WINDOW:]
        width = len(values["features"])
        self._features = [*self._features, values["features"]][-min(MAX_FEATURE_ROWS, MAX_FEATURE_VALUES // width) :]
        row = ScoreRow(
            trace=np.array(self._trace, np.float32),
            entropy=np.array(self._entropy, np.float32),
            spectrum=np.array(values["spectrum"], np.float32),
            features=np.array(self._features, np.float32),
            key=self._key,
            sup=self._sup,
            base=(base.temperature, base.top_p, float(max(left, 1)), 0.0),
        )
        out = self._infer(pack([row]))
        first, second = np.asarray(out["SUP_OUT"])[0].tolist()
        self._sup = (first, second)
        return answer_of(out)

    def close(self) -> None:
        """Nothing is held."""


def triton_infer(grpc_url: str) -> Callable[[Tensors], Mapping[str, NDArray[np.generic]]]:
    """Runs `tcd_diagnose` on a Triton server over gRPC."""
    from tritonclient import grpc  # noqa: PLC0415 - half a second to import
    from tritonclient.utils import np_to_triton_dtype  # noqa: PLC0415 - the same

    client = grpc.InferenceServerClient(grpc_url)
    names = [t.name for t in DIAGNOSE.outputs]

    def infer(tensors: Tensors) -> Mapping[str, NDArray[np.generic]]:
        inputs = []
        for name, array in tensors.items():
            tensor = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = [grpc.InferRequestedOutput(name) for name in names]
        try:
            result = client.infer(DIAGNOSE.name, inputs, outputs=outputs, client_timeout=60.0)
        except grpc.InferenceServerException as error:
            raise WatchError(str(error)) from error
        return {name: result.as_numpy(name) for name in names}

    return infer


def replay(
    recorded: Recorded,
    session: Poster,
    *,
    pace: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Token]:
    """Send a recording step by step and yield its tokens with tcd's answers.

    Args:
        recorded: the generation.
        session: whom to ask; it is closed at the end.
        pace: seconds per token at least, so that people can watch and the shim's rate limit is kept.
        clock: seconds, for the timings.
        sleep: waits.
    """
    c = recorded.columns
    try:
        for step, text in enumerate(recorded.texts):
            began = clock()
            following = min(step + 1, len(recorded) - 1)
            base = Setting(float(c["asked"][following]), recorded.top_p)
            answer, error = None, ""
            try:
                answer = session.post(step, recorded.values(step), base=base, left=len(recorded) - step - 1)
            except WatchError as failure:
                error = failure.detail
            taken = clock() - began
            yield Token(
                step=step,
                token=int(c["token"][step]),
                text=text,
                lp=float(c["lp"][step]),
                entropy=float(c["entropy"][step]),
                temperature=float(c["temperature"][step]),
                top_p=recorded.top_p,
                decoder=0,
                asked=float(c["asked"][step]),
                answer=answer,
                error=error,
                tcd_ms=taken * 1e3,
                stop="length" if following == step else "",
            )
            sleep(max(pace - (clock() - began), 0.0))
    finally:
        session.close()
