"""A logits processor for vLLM's V1 interface: each request that names a tcd session is judged step by step.

vLLM is not needed to import this; mix it into vLLM's own base class and name the class with `--logits-processors`::

    from vllm.v1.sample.logits_processor import LogitsProcessor

    class Tcd(VllmGuard, LogitsProcessor):
        url = "http://127.0.0.1:8080"

A request takes part with `SamplingParams(extra_args={"tcd_session": "..."})` (`vllm_xargs` over HTTP). Interface:
vllm/v1/sample/logits_processor/interface.py of vLLM 0.11 to 0.29; not that of the V2 model runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch

from tcd.client.api import Client
from tcd.client.hf import Diagnoser, TcdLogitsProcessor

#: Arguments of a request that become members of /diagnose.
MEMBERS: Final = {"tcd_tenant": "tenant", "tcd_user": "user", "tcd_model_id": "model_id", "tcd_task": "task"}
SESSION: Final = "tcd_session"


def _arguments(params: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(params, "extra_args", None) or {}
    return {name: value for name, value in found.items() if name.startswith("tcd_")}


class _Guarded:
    """One request: its processor, and its tokens, which vLLM goes on appending to."""

    __slots__ = ("guard", "output", "prompt")

    def __init__(self, guard: TcdLogitsProcessor, prompt: list[int], output: list[int]) -> None:
        self.guard, self.prompt, self.output = guard, prompt, output


class VllmGuard:
    """Mixed into `vllm.v1.sample.logits_processor.LogitsProcessor`.

    Attributes:
        url: of the shim.
        deadline: seconds that a step may wait for a decision.
        every: steps per call.
        on_error: `stop` ends the text when tcd cannot be asked, `continue` goes on.
    """

    url: ClassVar[str] = "http://127.0.0.1:8080"
    deadline: ClassVar[float] = 2.0
    every: ClassVar[int] = 1
    on_error: ClassVar[str] = "stop"

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose arguments cannot be used.

        Raises:
            ValueError: a `tcd_` argument is unknown or no name.
        """
        given = _arguments(sampling_params)
        for name, value in given.items():
            if name != SESSION and name not in MEMBERS:
                msg = f"{name} is no argument of tcd"
                raise ValueError(msg)
            if not isinstance(value, str) or not 1 <= len(value) <= 128:  # noqa: PLR2004 - as the server has it
                msg = f"{name} is a name of 1 to 128 characters"
                raise ValueError(msg)
        if given and SESSION not in given:
            msg = f"{SESSION} names the generation"
            raise ValueError(msg)

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:  # noqa: ARG002, FBT001 - vLLM's
        """Guard the requests of an engine."""
        eos = vllm_config.model_config.hf_config.eos_token_id
        self._eos = int(eos[0] if isinstance(eos, list | tuple) else eos)
        self._client = self.connect()
        self._requests: dict[int, _Guarded] = {}

    def connect(self) -> Diagnoser:
        """The client; another one in tests."""
        return Client(self.url, deadline=self.deadline)

    def is_argmax_invariant(self) -> bool:
        """False: a route may be greedy, forbid repeats or end the text."""
        return False

    def update_state(self, batch_update: Any | None) -> None:
        """Follow the batch: removed, added, moved, in this order."""
        if batch_update is None:
            return
        requests = self._requests
        for index in batch_update.removed:
            requests.pop(index, None)
        for index, params, prompt, output in batch_update.added:
            # whoever was at this place before is gone
            requests.pop(index, None)
            given = _arguments(params)
            if SESSION in given:
                requests[index] = _Guarded(self._guard(given, params), list(prompt or ()), output)
        for first, second, direction in batch_update.moved:
            here, there = requests.pop(first, None), requests.pop(second, None)
            if here is not None:
                requests[second] = here
            if direction.name == "SWAP" and there is not None:
                requests[first] = there

    def _guard(self, given: Mapping[str, Any], params: Any) -> TcdLogitsProcessor:
        context = {"temperature": params.temperature, "top_p": params.top_p, "max_tokens": params.max_tokens}
        return TcdLogitsProcessor(
            self._client,
            session=given[SESSION],
            eos_token_id=self._eos,
            every=self.every,
            on_error=self.on_error,
            context={name: value for name, value in context.items() if value is not None},
            **{MEMBERS[name]: value for name, value in given.items() if name in MEMBERS},
        )

    def apply(self, logits: Any) -> Any:
        """The scores of (requests, vocabulary) as the routes in force want them; changed in place."""
        for index, request in self._requests.items():
            tokens = torch.tensor([[*request.prompt, *request.output]] if request.prompt or request.output else [[0]])
            logits[index] = request.guard(tokens, logits[index : index + 1])[0]
        return logits
