"""Recordings scored the way callers are served: by the library, by a real Triton, or step by step by a shim.

Nothing is fitted. What comes back is held against the library's answers bit for bit.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tcd.bench import shim
from tcd.bench.detector.rows import Tensors, Terms, as_scored, chunks, joined, library, of_one_hypothesis, terms
from tcd.calibration.evaluate import Scored
from tcd.calibration.steps import Steps
from tcd.calibration.store import load_assets
from tcd.calibration.traces import Sequence
from tcd.contract import COMPONENTS
from tcd.errors import ScoringError
from tcd.triton.client import connect
from tcd.triton.launcher import LaunchOptions, TritonServer

F64 = NDArray[np.float64]
WAYS: Final = ("library", "triton", "http")
_TIMEOUT: Final = 90.0
_CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Served:
    """Answers by sequence.

    Attributes:
        scored: with the statistic and the p-values of each step.
        score: (n,) of each sequence, as an answer carries it: 1 - merged p, FP32.
        compared: values held against the library's, by name.
        different: how many of them were not the same bits.
    """

    scored: list[Scored]
    score: list[F64]
    compared: dict[str, int]
    different: dict[str, int]


class Differences:
    """Counts of values that were compared, and of those that were not the same bits."""

    def __init__(self) -> None:
        """Nothing compared yet."""
        self.compared: dict[str, int] = {}
        self.different: dict[str, int] = {}

    def hold(self, name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
        """Compare two arrays of one type, value by value."""
        if got.dtype != want.dtype or got.shape != want.shape:
            msg = f"{name}: {got.dtype}{got.shape} came back, not {want.dtype}{want.shape}"
            raise ScoringError(msg)
        width = f"u{want.dtype.itemsize}"
        unequal = np.ascontiguousarray(got).view(width) != np.ascontiguousarray(want).view(width)
        self.compared[name] = self.compared.get(name, 0) + want.size
        self.different[name] = self.different.get(name, 0) + int(unequal.sum())


def _through_triton(sequences: list[Sequence], under: Terms, folder: Path) -> list[Tensors]:
    options = LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, assets=folder)

    async def every(url: str) -> list[Tensors]:
        client = connect(url)
        try:
            return [
                joined([await client.infer(chunk, timeout=_TIMEOUT) for chunk in chunks(sequence, under)])
                for sequence in sequences
            ]
        finally:
            await client.close()

    with TritonServer(options) as server:
        return asyncio.run(every(server.http_url))


def _bodies(sequence: Sequence, session: str, model: str) -> Iterator[bytes]:
    """One request per step, as a thin client sends it."""
    for i in range(sequence.steps):
        body = {
            "trace_vector": [float(sequence.trace[i])],
            "entropy": float(sequence.entropy[i]),
            "spectrum": sequence.spectrum[i].tolist(),
            "features": sequence.features[i].tolist(),
            "step_id": i,
            "model_id": model,
            "user": session,
            "session": session,
            "tokens_delta": 1,
            "deadline_ms": 60_000,
        }
        yield json.dumps(body).encode()


def _generation(url: str, sequence: Sequence, session: str, model: str) -> list[dict[str, Any]]:
    """Answers of a session.

    Raises:
        ScoringError: if a step was refused or not scored.
    """
    where = urlsplit(url)
    connection = HTTPConnection(str(where.hostname), where.port, timeout=_TIMEOUT)
    out: list[dict[str, Any]] = []
    try:
        for body in _bodies(sequence, session, model):
            connection.request("POST", "/diagnose", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
            if reply.status != HTTPStatus.OK or any(check["status"] == "failed" for check in answer["checks"]):
                msg = (
                    f"a step of {session} was not decided: {reply.status} {answer.get('detail', answer.get('checks'))}"
                )
                raise ScoringError(msg)
            out.append(answer)
    except OSError as error:
        msg = f"the shim cannot be reached: {error}"
        raise ScoringError(msg) from error
    finally:
        connection.close()
    return out


def _through_http(sequences: list[Sequence], model: str, folder: Path) -> list[list[dict[str, Any]]]:
    env = {
        "TCD_ASSETS": str(folder.resolve()),
        "TCD_LOG_LEVEL": "warning",
        # what is measured is the answers, not the limits
        "TCD_DEADLINE_MAX_MS": "60000",
        "TCD_HTTP_RATE_CAP": "1e9",
        "TCD_HTTP_RATE_REFILL": "1e9",
        "TCD_EDGE_RATE_CAP": "1e9",
        "TCD_EDGE_RATE_REFILL": "1e9",
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        shim.shim(Path(directory), "bench", env) as server,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        waiting = [
            pool.submit(_generation, server.url, sequence, f"generation-{i}", model)
            for i, sequence in enumerate(sequences)
        ]
        return [one.result() for one in waiting]


def _answered(answers: list[dict[str, Any]]) -> Tensors:
    """What the library answers too, out of a session's HTTP answers, in the library's types."""
    parts = [answer["components"] for answer in answers]
    detector = [[(one[name]["severity"], one[name]["p_value"]) for name in COMPONENTS] for one in parts]
    monitor = [(one["multivariate"]["distance"], one["multivariate"]["p_value"]) for one in parts]
    return {
        "SCORE": np.array([[answer["score"]] for answer in answers], np.float32),
        "COMPONENTS": np.array(detector, np.float32),
        "MV": np.array(monitor, np.float32),
        "P_VALUE": np.array([[answer["p_value"]] for answer in answers], np.float64),
    }


def serve(steps: list[Steps], folder: Path, way: str, *, model: str) -> Served:
    """Score recordings by given assets, one way or another.

    Args:
        steps: the recordings.
        folder: directory of the assets.
        way: one of `WAYS`.
        model: `model_id` of the requests, by which the assets are found.

    Raises:
        AssetError: if the assets do not answer the recordings.
        LauncherError: if the server does not start.
        ScoringError: if a row is not answered.
    """
    under = terms(load_assets(folder), model)
    sequences = [one.sequence for one in steps]
    want = [library(sequence, under) for sequence in sequences]
    got, held = want, Differences()
    if way == "triton":
        got = _through_triton(sequences, under, folder)
        for mine, theirs in zip(want, got, strict=True):
            for name, array in mine.items():
                held.hold(name, theirs[name], array)
    # a shim answers no statistic: what it answers is shown to be the library's, whose statistic is taken
    scored = [as_scored(one, out, under) for one, out in zip(steps, got, strict=True)]
    if way == "http":
        got = [_answered(answers) for answers in _through_http(sequences, model, folder)]
        for sequence, mine, theirs in zip(sequences, want, got, strict=True):
            session = of_one_hypothesis(sequence, mine, under)
            held.hold("SCORE", theirs["SCORE"], session["SCORE"])
            held.hold("COMPONENTS", theirs["COMPONENTS"], session["COMPONENTS"][:, :, :2])
            held.hold("MV", theirs["MV"], session["MV"][:, [0, 3]])
            # beyond the longest calibrated session a shim freezes the p of the hypothesis
            known = slice(0, under.horizon)
            held.hold("P_VALUE", theirs["P_VALUE"][known], session["P_VALUE"][known])
    score = [np.asarray(out["SCORE"], np.float64)[:, 0] for out in got]
    return Served(scored, score, held.compared, held.different)
