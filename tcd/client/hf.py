"""A logits processor for Hugging Face `generate`: feeds the signals of each step to tcd and applies the route.

Needs torch and transformers. Put it first, so that it sees the model's own logits::

    guard = TcdLogitsProcessor(client, session="g1", eos_token_id=tokenizer.eos_token_id)
    model.generate(**inputs, do_sample=True, logits_processor=LogitsProcessorList([guard]))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import torch

from tcd.client.errors import ClientError
from tcd.client.models import Decision, Route
from tcd.signals.provider import DefaultProvider, SignalProvider

_GREEDY: Final = 0.05
_NGRAM: Final = 3
_HISTORY: Final = 256


class Diagnoser(Protocol):
    """What the hook calls: a `Client`."""

    def diagnose(self, **members: Any) -> Decision:
        """Decide about one step."""
        ...


class _Generation:
    """One row of the batch."""

    def __init__(self, session: str, provider: SignalProvider) -> None:
        self.session = session
        self.provider = provider
        self.logits: Any = None
        self.step = 0
        self.route: Route | None = None
        self.stopped = False
        self.pending: list[dict[str, Any]] = []


class TcdLogitsProcessor:
    """Judges every step (or every few) of each row, and decodes the next one as the route says.

    A `block` forces the end-of-text token. When tcd cannot be asked, `on_error` decides: `stop` ends the text
    (fail closed), `continue` goes on as before and `failures` counts.
    """

    def __init__(
        self,
        client: Diagnoser,
        *,
        session: str | Sequence[str],
        eos_token_id: int,
        every: int = 1,
        provider: Callable[[], SignalProvider] = DefaultProvider,
        context: dict[str, Any] | None = None,
        on_error: str = "stop",
        **members: Any,
    ) -> None:
        """Guard one `generate`.

        Args:
            client: the client.
            session: of the generation; for a batch one for each row, or a prefix.
            eos_token_id: what ends a text.
            every: steps per call; signals of the steps in between travel with the next call.
            provider: makes the signal provider of a row.
            context: temperature, top_p, max_tokens as `generate` uses them.
            on_error: `stop` or `continue`.
            members: further members of each request (tenant, user, model_id, ...).
        """
        if on_error not in {"stop", "continue"}:
            msg = "on_error is stop or continue"
            raise ValueError(msg)
        self._client, self._sessions, self._eos = client, session, eos_token_id
        self._every, self._provider = max(1, every), provider
        self._context, self._on_error, self._members = dict(context or {}), on_error, members
        self._rows: list[_Generation] = []
        self.decisions: list[list[Decision]] = []
        self.failures = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The next step's scores, (B, V), as the routes in force want them."""
        if not self._rows:
            self._rows = [_Generation(name, self._provider()) for name in self._names(scores.shape[0])]
            self.decisions = [[] for _ in self._rows]
        out = scores.clone()
        for index, row in enumerate(self._rows):
            if row.logits is not None and not row.stopped:
                self._judge(index, row, int(input_ids[index, -1]))
            row.logits = scores[index].detach().clone()
            if row.stopped:
                out[index] = _only(out[index], self._eos)
            elif row.route is not None:
                out[index] = _routed(out[index], row.route, input_ids[index])
                if 0 < row.route.max_tokens <= row.step:
                    out[index] = _only(out[index], self._eos)
        return out

    def _names(self, rows: int) -> list[str]:
        if isinstance(self._sessions, str):
            return [self._sessions] if rows == 1 else [f"{self._sessions}/{i}" for i in range(rows)]
        if len(self._sessions) != rows:
            msg = f"{len(self._sessions)} sessions for {rows} rows"
            raise ValueError(msg)
        return list(self._sessions)

    def _judge(self, index: int, row: _Generation, token: int) -> None:
        signals = row.provider.step(row.logits, token)
        if signals is not None:
            row.pending.append(signals.members())
        row.step += 1
        if row.step % self._every and row.step > 1:
            return
        try:
            decision = self._client.diagnose(
                session=row.session,
                step_id=row.step - 1,
                tokens_delta=len(row.pending),
                context=self._context,
                **_merged(row.pending),
                **self._members,
            )
        except ClientError:
            self.failures += 1
            row.stopped = self._on_error == "stop"
            return
        row.pending.clear()
        self.decisions[index].append(decision)
        row.stopped = decision.stop
        row.route = decision.route if decision.enforced != "allow" else None


def _merged(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Members of several steps in one request: all log-probabilities, the newest of the rest."""
    if not steps:
        return {}
    return {**steps[-1], "trace_vector": [value for step in steps for value in step["trace_vector"]]}


def _only(scores: Any, token: int) -> Any:
    out = torch.full_like(scores, float("-inf"))
    out[token] = 0.0
    return out


def _routed(scores: Any, route: Route, tokens: Any) -> Any:
    if route.decoder == "no_repeat":
        scores = _without_repeats(scores, tokens)
    if route.decoder == "greedy" or route.temperature < _GREEDY:
        return _only(scores, int(scores.argmax()))
    scores = scores / route.temperature
    if route.top_p >= 1.0:
        return scores
    order = torch.argsort(scores, descending=True)
    mass = torch.softmax(scores[order], -1).cumsum(-1)
    # the smallest nucleus that holds top_p, at least one token
    dropped = order[1:][mass[:-1] >= route.top_p]
    scores = scores.clone()
    scores[dropped] = float("-inf")
    return scores


def _without_repeats(scores: Any, tokens: Any) -> Any:
    recent = tokens[-_HISTORY:].tolist()
    tail = recent[len(recent) - _NGRAM + 1 :]
    starts = range(len(recent) - _NGRAM + 1)
    forbidden = {recent[i + _NGRAM - 1] for i in starts if recent[i : i + _NGRAM - 1] == tail}
    if not forbidden or len(forbidden) >= scores.shape[0]:
        return scores
    out = scores.clone()
    out[list(forbidden)] = float("-inf")
    return out
