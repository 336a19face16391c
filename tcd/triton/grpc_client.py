"""`InferenceClient` over tritonclient.grpc.aio, for servers that only open their gRPC port."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tcd.contract import DIAGNOSE, Model
from tcd.errors import ScoringError, ScoringTimeout
from tcd.rows import Checked
from tcd.triton.client import ScoringUnreachable
from tcd.triton.trace import TRACEPARENT
from tcd.triton.wire import DTYPES, Tensors, as_wire, batch_rows, check_outputs, find_model

_LONGEST_MESSAGE = 200


def _decode(response: Any) -> Tensors:
    """Tensors of a `ModelInferResponse`; its raw contents are not trusted to be as long as its shapes."""
    if len(response.outputs) != len(response.raw_output_contents):
        msg = "the server answered tensors without contents"
        raise ScoringError(msg)
    outputs: Tensors = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        dtype = DTYPES.get(tensor.datatype)
        shape = tuple(tensor.shape)
        if dtype is None or any(d < 0 for d in shape) or math.prod(shape) * dtype.itemsize != len(raw):
            msg = "the server answered a tensor whose size is not its shape's"
            raise ScoringError(msg)
        outputs[tensor.name] = np.frombuffer(raw, dtype).reshape(shape)
    return outputs


def _error(error: InferenceServerException) -> ScoringError:
    status = str(error.status() or "")
    message = str(error.message() or "").partition("\n")[0][:_LONGEST_MESSAGE]
    if "DEADLINE_EXCEEDED" in status:
        return ScoringTimeout("the server did not answer by the deadline")
    if "UNAVAILABLE" in status or "CANCELLED" in status:
        return ScoringUnreachable(f"no answer from the server: {message}")
    return ScoringError(f"the server answered {status}: {message}")


class GrpcClient:
    """`InferenceClient` over one gRPC channel."""

    def __init__(self, target: str) -> None:
        """Make a client of `host:port`; the channel opens at the first call."""
        self._target = target
        self._client: InferenceServerClient | None = None

    def _connected(self) -> InferenceServerClient:
        if self._client is None:
            self._client = InferenceServerClient(self._target)
        return self._client

    async def infer(self, tensors: Tensors, *, model: Model | str = DIAGNOSE, timeout: float) -> Tensors:
        """See `InferenceClient.infer`."""
        model = find_model(model)
        inputs = []
        for tensor, array in zip(model.inputs, as_wire(model, tensors), strict=True):
            item = InferInput(tensor.name, list(array.shape), tensor.dtype)
            item.set_data_from_numpy(array)
            inputs.append(item)
        if timeout <= 0:
            msg = "the deadline has passed"
            raise ScoringTimeout(msg)
        trace = TRACEPARENT.get()
        headers = {"traceparent": trace} if trace else None
        try:
            result = await self._connected().infer(model.name, inputs, client_timeout=timeout, headers=headers)
        except InferenceServerException as error:
            raise _error(error) from error
        outputs = Checked(_decode(result.get_response()))
        check_outputs(model, batch_rows(tensors), outputs)
        return outputs

    async def ready(self, *, timeout: float = 1.0) -> bool:
        """See `InferenceClient.ready`."""
        try:
            return bool(await asyncio.wait_for(self._connected().is_server_ready(), timeout))
        except (InferenceServerException, grpc.RpcError, asyncio.TimeoutError):
            return False

    async def close(self) -> None:
        """See `InferenceClient.close`."""
        if self._client is not None:
            await self._client.close()
            self._client = None
