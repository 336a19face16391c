"""The ways from a generation step to tcd: none, the library, HTTP, the logits processor, and from inside Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from tcd.calibration.store import default_asset_dir, load_assets
from tcd.client import Client
from tcd.client.hf import TcdLogitsProcessor
from tcd.demo.client import stream
from tcd.demo.llm import Generation, LanguageModel
from tcd.demo.records import Params
from tcd.demo.sampler import Setting, choose
from tcd.demo.stage import Places
from tcd.demo.watch import MODEL_ID, EnsembleWatcher, Seen
from tcd.scoring import diagnose_raw
from tcd.signals.provider import DefaultProvider

_SETTING = Setting(0.8, 0.95)
#: Seconds that an answer may take on a busy machine.
DEADLINE = 30.0


class Hook(Protocol):
    """What is done at every step, after the token was drawn."""

    def __call__(self, generation: Generation, token: int, step: int) -> None:
        """Ask tcd."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way.

    Attributes:
        name: what the report calls it.
        place: where the model runs.
        generate: tokens as they come, for a prompt, a number of tokens, a seed and the session's name.
    """

    name: str
    place: str
    generate: Callable[[str, int, int, str], Iterator[int]]


def _drive(model: LanguageModel, prompt: str, tokens: int, seed: int, hook: Hook) -> Iterator[int]:
    generation, rng = model.start(prompt), np.random.default_rng(seed)
    for step in range(tokens):
        history = [*generation.prompt, *generation.tokens]
        token = choose(generation.logits, _SETTING, history=history, rng=rng)
        hook(generation, token, step)
        generation.push(token)
        yield token
        if generation.ended:
            return


def _nothing(generation: Generation, token: int, step: int) -> None:
    """Without tcd."""


def _library() -> Hook:
    assets = load_assets(default_asset_dir())
    watcher = EnsembleWatcher(lambda tensors: diagnose_raw(tensors, assets), temperature=_SETTING.temperature)

    def ask(generation: Generation, token: int, step: int) -> None:
        watcher.observe(Seen(step, generation.logits, token, generation.hidden, _SETTING, 100))

    return ask


def _http(client: Client, session: str) -> Hook:
    provider = DefaultProvider(load_assets(default_asset_dir()))

    def ask(generation: Generation, token: int, step: int) -> None:
        signals = provider.step(generation.logits, token, generation.hidden[-1])
        assert signals is not None  # noqa: S101 - the model's logits are numbers
        client.diagnose(session=session, step_id=step, model_id=MODEL_ID, tokens_delta=1, **signals.members())

    return ask


def _processor(client: Client, session: str) -> Hook:
    guard = TcdLogitsProcessor(client, session=session, eos_token_id=0, model_id=MODEL_ID, on_error="continue")

    def ask(generation: Generation, token: int, step: int) -> None:  # noqa: ARG001 - it sees the token one step later
        ids = torch.tensor([[*generation.prompt, *generation.tokens]])
        guard(ids, torch.from_numpy(generation.logits)[None])
        if guard.failures:
            msg = "the shim did not answer the logits processor"
            raise RuntimeError(msg)

    return ask


def in_process(model: LanguageModel, client: Client) -> list[Way]:
    """The ways of a model in this process; `client` is the shim's."""
    hooks: dict[str, Callable[[str], Hook]] = {
        "without tcd": lambda _: _nothing,
        "library": lambda _: _library(),
        "HTTP, tcd.client": lambda session: _http(client, session),
        "HTTP, logits processor": lambda session: _processor(client, session),
    }

    def way(make: Callable[[str], Hook]) -> Callable[[str, int, int, str], Iterator[int]]:
        return lambda prompt, tokens, seed, session: _drive(model, prompt, tokens, seed, make(session))

    return [Way(name, "in the process", way(make)) for name, make in hooks.items()]


def in_triton(places: Places) -> list[Way]:
    """The ways of a model in Triton, its tokens streamed over gRPC."""
    kinds: dict[str, Any] = {
        "without tcd, in Triton": "none",
        "ensemble by BLS, in Triton": "triton",
        "HTTP to the shim, in Triton": "shim",
    }

    def way(via: Any) -> Callable[[str, int, int, str], Iterator[int]]:
        def generate(prompt: str, tokens: int, seed: int, session: str) -> Iterator[int]:
            params = Params(
                seed=seed,
                max_tokens=tokens,
                temperature=_SETTING.temperature,
                top_p=_SETTING.top_p,
                via=via,
                shim_url=places.shim_url,
                session=session,
                obey=False,
            )
            for token in stream(places.grpc_url, prompt, params):
                if token.error:
                    msg = f"tcd did not answer: {token.error}"
                    raise RuntimeError(msg)
                yield token.token

        return generate

    return [Way(name, "in Triton", way(via)) for name, via in kinds.items()]
