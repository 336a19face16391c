"""SmolLM2 behind OpenAI's routes, for trying the proxy: `python -m tcd.demo.openai_api --port 8000`.

`/v1/chat/completions`, `/v1/completions` and `/v1/models`; streaming or not, with log-probabilities, `n` choices.
One generation step at a time, so streams interleave. A demonstration, not a server for production.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tcd.demo.llm import LanguageModel
from tcd.demo.sampler import Setting, choose

MODEL: Final = "smollm2-135m"
_MOST: Final = 512
_TOP: Final = 20


class Piece(NamedTuple):
    """A token: its text, its log-probability, and the likeliest tokens with theirs."""

    text: str
    logprob: float
    top: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """How to generate."""

    max_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    top: int = 0


class Engine(Protocol):
    """Generates."""

    def generate(self, prompt: str, asked: Asked) -> Iterator[Piece]:
        """The tokens that follow a prompt."""
        ...


class SmolEngine:
    """The language model of the demo."""

    def __init__(self, model: LanguageModel) -> None:
        """Generate with `model`."""
        self._model = model

    def generate(self, prompt: str, asked: Asked) -> Iterator[Piece]:
        """See `Engine`."""
        generation = self._model.start(prompt)
        rng = np.random.default_rng(asked.seed)
        setting = Setting(asked.temperature, asked.top_p)
        for _ in range(asked.max_tokens):
            logits = generation.logits.astype(np.float64)
            token = choose(generation.logits, setting, history=generation.tokens, rng=rng)
            logs = logits - logits.max()
            logs -= np.log(np.exp(logs).sum())
            likely = np.argsort(-logs, kind="stable")[: asked.top]
            top = [(self._model.tokenizer.decode([int(i)]), float(logs[i])) for i in likely]
            text = generation.push(token)
            if generation.ended:
                return
            yield Piece(text, float(logs[token]), top)


def template(messages: Sequence[Mapping[str, Any]]) -> str:
    """ChatML, as SmolLM2 was trained on it; parts of a content are joined."""
    out = []
    for message in messages:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(str(part.get("text", "")) for part in content)
        out.append(f"<|im_start|>{message['role']}\n{content}<|im_end|>\n")
    return "".join(out) + "<|im_start|>assistant\n"


class _Shape:
    """What chunks and answers of one route look like."""

    def __init__(self, body: Mapping[str, Any], *, chat: bool) -> None:
        self.chat = chat
        self.stream = bool(body.get("stream"))
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.model = str(body.get("model", MODEL))
        self.wants = body.get("logprobs") not in {None, False}

    def logprobs(self, pieces: Sequence[Piece]) -> Any:
        if not self.wants:
            return None
        if not self.chat:
            return {
                "tokens": [p.text for p in pieces],
                "token_logprobs": [p.logprob for p in pieces],
                "top_logprobs": [dict(p.top) for p in pieces],
                "text_offset": [0] * len(pieces),
            }
        return {
            "content": [
                {**_token(p.text, p.logprob), "top_logprobs": [_token(text, lp) for text, lp in p.top]} for p in pieces
            ],
            "refusal": None,
        }

    def choice(self, index: int, pieces: Sequence[Piece], finish: str | None) -> dict[str, Any]:
        text = "".join(p.text for p in pieces)
        shared = {"index": index, "logprobs": self.logprobs(pieces), "finish_reason": finish}
        if not self.chat:
            return {**shared, "text": text}
        if self.stream:
            return {**shared, "delta": {"content": text} if pieces else {}}
        return {**shared, "message": {"role": "assistant", "content": text, "refusal": None}}

    def envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if self.stream else "chat.completion"
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": self.model, "choices": choices}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class Api:
    """The routes over an engine; all steps run in one thread."""

    def __init__(self, engine: Engine) -> None:
        """Serve `engine`."""
        self._engine = engine
        self._thread = ThreadPoolExecutor(1)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/models", self.models),
            ]
        )

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "demo"}]})

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await request.json()
        top = int(body.get("top_logprobs") or 0)
        return await self._answer(body, _Shape(body, chat=True), template(body["messages"]), top)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions, of one prompt."""
        body = await request.json()
        prompt = body["prompt"] if isinstance(body["prompt"], str) else body["prompt"][0]
        return await self._answer(body, _Shape(body, chat=False), prompt, int(body.get("logprobs") or 0))

    async def _answer(self, body: Mapping[str, Any], shape: _Shape, prompt: str, top: int) -> Response:
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 64
        n = int(body.get("n") or 1)
        asked = [
            Asked(
                max_tokens=min(int(most), _MOST),
                temperature=float(body.get("temperature", 1.0)),
                top_p=float(body.get("top_p", 1.0)),
                seed=int(body.get("seed") or 0) + i,
                top=min(top, _TOP),
            )
            for i in range(n)
        ]
        steps = self._steps(prompt, asked)
        if shape.stream:
            return StreamingResponse(self._stream(shape, steps, n), media_type="text/event-stream")
        pieces: list[list[Piece]] = [[] for _ in asked]
        async for index, piece in steps:
            if piece is not None:
                pieces[index].append(piece)
        choices = [
            shape.choice(i, found, "length" if len(found) == asked[i].max_tokens else "stop")
            for i, found in enumerate(pieces)
        ]
        tokens = sum(map(len, pieces))
        usage = {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({**shape.envelope(choices), "usage": usage})

    async def _steps(self, prompt: str, asked: Sequence[Asked]) -> AsyncIterator[tuple[int, Piece | None]]:
        """Tokens of all choices in turn; None ends one."""
        running = {i: self._engine.generate(prompt, how) for i, how in enumerate(asked)}
        for index in itertools.cycle(range(len(asked))):
            if not running:
                return
            if index in running:
                piece = await self._step(running[index])
                if piece is None:
                    del running[index]
                yield index, piece

    async def _step(self, tokens: Iterator[Piece]) -> Piece | None:
        step: Callable[[], Piece | None] = lambda: next(tokens, None)  # noqa: E731 - typed
        return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    async def _stream(
        self, shape: _Shape, steps: AsyncIterator[tuple[int, Piece | None]], n: int
    ) -> AsyncIterator[bytes]:
        if shape.chat:
            for index in range(n):
                first = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                yield _event(shape.envelope([first]))
        async for index, piece in steps:
            choice = shape.choice(index, [] if piece is None else [piece], "stop" if piece is None else None)
            if piece is None:
                choice["logprobs"] = None
            yield _event(shape.envelope([choice]))
        yield b"data: [DONE]\n\n"


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def main() -> None:
    """Serve on loopback."""
    import uvicorn  # noqa: PLC0415 - only to serve

    parser = argparse.ArgumentParser(description="SmolLM2 behind OpenAI's routes.")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one")
    arguments = parser.parse_args()
    app = Api(SmolEngine(LanguageModel.load())).app()
    with socket.create_server(("127.0.0.1", arguments.port)) as sock:
        config = uvicorn.Config(app, access_log=False, log_config=None, lifespan="off", date_header=True)
        print(f"openai    http://127.0.0.1:{sock.getsockname()[1]}/v1", flush=True)  # noqa: T201 - a command
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
