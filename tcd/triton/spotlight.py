"""`tcd_spotlight` in Triton: request bodies in, bodies to forward and outcomes out, for `tcd.spotlight.rewrite`.

Rows are independent; a row that the policy refuses refuses its request, so that an ensemble does not go on with it.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NoReturn

import numpy as np

from tcd.contract import BODY, OPTIONS, OUTCOME, REWRITTEN, SPOTLIGHT, Model
from tcd.spotlight import Outcome, Policy, rewrite
from tcd.triton.metrics import ModelMetrics

_KEY_BYTES: Final = 32
_MAX_OPTIONS: Final = 16 * 1024


class Refused(Exception):
    """A request that is answered with an error."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one row asks for."""

    policy: Policy
    boundary: str | None

    @classmethod
    def parse(cls, raw: bytes) -> Options:
        """Read the OPTIONS of a row.

        Raises:
            Refused: no JSON object, or a member that is unknown or out of range.
        """
        if not raw:
            return _DEFAULT
        value = _json(raw)
        boundary = value.pop("boundary", None)
        if not isinstance(boundary, str | None):
            _refuse("boundary is no string")
        try:
            return cls(Policy.from_json(value), boundary)
        except ValueError as error:
            _refuse(str(error))


def _json(raw: bytes) -> dict[str, Any]:
    value: object = None
    if len(raw) <= _MAX_OPTIONS:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        _refuse(f"no JSON object of at most {_MAX_OPTIONS} bytes")
    return value


def _refuse(why: str) -> NoReturn:
    msg = f"{OPTIONS.name}: {why}"
    raise Refused(msg) from None


_DEFAULT: Final = Options(Policy(), None)


class Spotlight:
    """Triton's Python model."""

    model: ClassVar[Model] = SPOTLIGHT

    def initialize(self, args: dict[str, str]) -> None:
        """Triton's hook: take the key from the environment, or make one.

        Raises:
            RuntimeError: the configuration is not the contract's; the model does not load.
            ValueError: `TCD_SPOTLIGHT_KEY_HEX` is no 32 bytes of hex.
        """
        self._pb: Any = importlib.import_module("triton_python_backend_utils")
        declared = {t["name"] for t in json.loads(args["model_config"])["output"]}
        if declared != {t.name for t in self.model.outputs}:
            msg = f"config.pbtxt of {self.model.name} is not the contract's; run python -m tcd.triton.pbtxt --write"
            raise RuntimeError(msg)
        given = os.environ.get("TCD_SPOTLIGHT_KEY_HEX", "")
        self._key = bytes.fromhex(given) if given else os.urandom(_KEY_BYTES)
        if len(self._key) != _KEY_BYTES:
            msg = f"TCD_SPOTLIGHT_KEY_HEX is not {_KEY_BYTES} bytes"
            raise ValueError(msg)
        self._metrics = ModelMetrics(self._pb, self.model.name)

    def is_ready(self) -> bool:
        """Triton's hook (servers from 26.03 on)."""
        return True

    def finalize(self) -> None:
        """Triton's hook: the last counts go out."""
        self._metrics.flush()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's hook: one response per request, whatever is in it."""
        responses = [self._respond(request) for request in requests]
        self._metrics.flush_if_due()
        return responses

    def _respond(self, request: Any) -> Any:
        pb = self._pb
        try:
            tensors = {tensor.name(): tensor.as_numpy().reshape(-1) for tensor in request.inputs()}
            outcomes = [self._row(*row) for row in zip(tensors[BODY.name], tensors[OPTIONS.name], strict=True)]
        except Refused as error:
            self._metrics.failure(str(error))
            return pb.InferenceResponse(output_tensors=[], error=pb.TritonError(str(error), pb.TritonError.INVALID_ARG))
        except Exception as error:  # noqa: BLE001 - the boundary: an exception would fail the requests of others
            self._metrics.failure(f"{type(error).__name__}: {error}")
            refusal = pb.TritonError(f"{self.model.name} failed on this request", pb.TritonError.INTERNAL)
            return pb.InferenceResponse(output_tensors=[], error=refusal)
        self._metrics.batch(len(outcomes), None)
        told = [json.dumps(outcome.to_json()).encode() for outcome in outcomes]
        return pb.InferenceResponse(
            output_tensors=[
                pb.Tensor(REWRITTEN.name, _column([outcome.body for outcome in outcomes])),
                pb.Tensor(OUTCOME.name, _column(told)),
            ]
        )

    def _row(self, body: bytes | str, options: bytes | str) -> Outcome:
        asked = Options.parse(_bytes(options))
        outcome = rewrite(_bytes(body), asked.policy, key=self._key, random=os.urandom, boundary=asked.boundary)
        if outcome.refused:
            msg = f"the request was refused: {', '.join(outcome.failures)}"
            raise Refused(msg)
        return outcome


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _column(values: list[bytes]) -> Any:
    column = np.empty((len(values), 1), np.object_)
    column[:, 0] = values
    return column
