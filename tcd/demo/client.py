"""Reads the stream of `tcd_demo_llm` over gRPC: one `Token` per emitted token, as it is emitted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, Final

import numpy as np

from tcd.demo.records import Params, Token
from tcd.errors import Unavailable

MODEL: Final = "tcd_demo_llm"


def stream(grpc_url: str, prompt: str, params: Params, *, step_timeout: float = 60.0) -> Iterator[Token]:
    """Generate on the server and yield its tokens. Closing the iterator cancels the generation.

    Args:
        grpc_url: `host:port` of Triton.
        prompt: text to continue.
        params: see `Params`.
        step_timeout: seconds to wait for the next token.

    Raises:
        Unavailable: the server answers with an error, or no token came in time.
    """
    from tritonclient import grpc  # noqa: PLC0415 - half a second to import

    received: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    inputs = [_text(grpc, "PROMPT", prompt), _text(grpc, "PARAMS", params.to_json())]
    with grpc.InferenceServerClient(grpc_url) as client:
        client.start_stream(lambda result, error: received.put((result, error)))
        finished = False
        try:
            client.async_stream_infer(MODEL, inputs, enable_empty_final_response=True)
            while not finished:
                result, error = _next(received, step_timeout)
                if error is not None:
                    msg = f"{MODEL}: {error}"
                    raise Unavailable(msg)
                finished = result.get_response().parameters["triton_final_response"].bool_param
                values = result.as_numpy("STEP")
                if values is not None:
                    yield Token.from_json(values[0].decode())
        finally:
            with contextlib.suppress(grpc.InferenceServerException):
                client.stop_stream(cancel_requests=not finished)


def _next(received: SimpleQueue[tuple[Any, Any]], timeout: float) -> tuple[Any, Any]:
    try:
        return received.get(timeout=timeout)
    except Empty:
        msg = f"{MODEL}: no token within {timeout:g} s"
        raise Unavailable(msg) from None


def _text(grpc: Any, name: str, value: str) -> Any:
    tensor = grpc.InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([value.encode()], np.object_))
    return tensor
