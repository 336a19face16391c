"""The smallest requests that show whether a model answers: zeros for any model, a canary row for the ensemble."""

from __future__ import annotations

import json
from http.client import HTTPException, HTTPResponse
from socket import create_connection
from typing import Final

import numpy as np

from tcd.contract import DIAGNOSE, TEXT_MODELS, Model
from tcd.errors import ScoringError
from tcd.rows import ScoreRow, pack
from tcd.triton.wire import DTYPES, HEADER_LIMIT, Codec, Tensors, response_limit

_WIDTH: Final = 64
#: A row that exercises every step; its key has no asset but the default.
CANARY: Final = ScoreRow(
    trace=np.full(48, -1.0, np.float32),
    entropy=np.full(48, 1.5, np.float32),
    spectrum=np.linspace(4.0, 0.25, 16, dtype=np.float32),
    features=np.ones((1, 16), np.float32),
)


def zero_inputs(model: Model, *, rows: int = 1, width: int = _WIDTH) -> Tensors:
    """Zeros for every input of a model: an empty row (all LENGTHS are 0)."""
    return {t.name: np.zeros((rows, *(width if d < 0 else d for d in t.dims)), DTYPES[t.dtype]) for t in model.inputs}


def canary_inputs(model: Model) -> Tensors:
    """The canary row for `tcd_diagnose` and what has its inputs, zeros for any other model."""
    return pack([CANARY]) if model.inputs == DIAGNOSE.inputs else zero_inputs(model)


def _empty_texts(model: Model, host: str, port: int) -> bytes:
    """An infer request with an empty text for every input, as JSON."""
    inputs = [{"name": t.name, "datatype": t.dtype, "shape": [1, *t.dims], "data": [""]} for t in model.inputs]
    body = json.dumps({"inputs": inputs}).encode()
    head = f"POST /v2/models/{model.name}/infer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def probe(host: str, port: int, model: Model, *, timeout: float) -> None:
    """One blocking inference over HTTP, for the launcher (the shim has the asynchronous clients).

    Raises:
        ScoringError: no answer within `timeout` (per read), a refusal, or an answer off the contract.
    """
    codec = Codec(f"{host}:{port}")
    textual = model.name in TEXT_MODELS
    request = _empty_texts(model, host, port) if textual else codec.encode(model, canary_inputs(model))
    try:
        with create_connection((host, port), timeout=timeout) as sock:
            sock.sendall(request)
            response = HTTPResponse(sock, method="POST")
            response.begin()
            body = response.read(HEADER_LIMIT if textual else response_limit(model, 1))
    except (OSError, HTTPException) as error:
        msg = f"{model.name} gave no answer: {error!r}"
        raise ScoringError(msg) from error
    if response.status != 200:  # noqa: PLR2004
        msg = f"{model.name} answered {response.status}: {body[:300].decode(errors='replace')}"
        raise ScoringError(msg)
    if textual:
        return
    header_length = response.headers.get("Inference-Header-Content-Length", "")
    codec.decode(model, 1, body, int(header_length) if header_length.isdigit() else None)
