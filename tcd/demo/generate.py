"""The watched generation: predict, draw, ask tcd, obey, go on. One record per token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from tcd.demo.llm import LanguageModel
from tcd.demo.records import STATIC, Answer, Params, Route, Stop, Token
from tcd.demo.sampler import Setting, choose
from tcd.demo.watch import Seen, Watcher, WatchError
from tcd.signals.logits import token_signals


def generate(
    model: LanguageModel,
    prompt: str,
    params: Params,
    watcher: Watcher | None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Token]:
    """Generate and yield every token with tcd's answer to its step.

    A route of tier 0 leaves what was asked for. A tightened one governs the next token: its temperature, top-p and
    decoder, and how many tokens may follow.
    When tcd does not answer, the record says so and the next token is drawn under `STATIC`. The ensemble keeps no
    state, so a server that calls it directly has to hold a tightened route itself (`Params.hold`); the shim does that.

    Args:
        model: the language model.
        prompt: text to continue.
        params: see `Params`; `obey=False` asks tcd and ignores the answer.
        watcher: whom to ask; None generates unwatched.
        clock: seconds, for the timings in the records.

    Raises:
        ValueError: if the prompt is empty or too long.
    """
    generation = model.start(prompt)
    rng = np.random.default_rng(params.seed)
    setting, last = params.asked(0), params.max_tokens - 1
    held: Route | None = None
    calm, step = 0, 0
    while True:
        began = clock()
        token = choose(generation.logits, setting, history=[*generation.prompt, *generation.tokens], rng=rng)
        signal = token_signals(generation.logits[None], np.array([token], np.int32))
        base = params.asked(step + 1)
        seen = Seen(step, generation.logits, token, generation.hidden, base, last - step)
        asked = clock()
        answer, error = _ask(watcher, seen)
        answered = clock()
        if answer is not None:
            held, calm = (answer.route, 0) if answer.tier else (held, calm + 1)
        route = held if calm <= params.hold else None
        following, last = _obey(params, step, last, base, route, error)
        text = generation.push(token)
        stop: Stop = ""
        if generation.ended:
            stop = "end of text"
        elif step >= last:
            stop = "length" if step >= params.max_tokens - 1 else "ended by tcd"
        yield Token(
            step=step,
            token=token,
            text=text,
            lp=float(signal.log_probability[0]),
            entropy=float(signal.entropy[0]),
            temperature=setting.temperature,
            top_p=setting.top_p,
            decoder=setting.decoder,
            asked=params.asked(step).temperature,
            answer=answer,
            error=error,
            llm_ms=(clock() - answered + asked - began) * 1e3,
            tcd_ms=(answered - asked) * 1e3,
            stop=stop,
        )
        if stop:
            return
        setting = following
        step += 1


def _ask(watcher: Watcher | None, seen: Seen) -> tuple[Answer | None, str]:
    if watcher is None:
        return None, ""
    try:
        return watcher.observe(seen), ""
    except WatchError as error:
        return None, error.detail


def _obey(params: Params, step: int, last: int, base: Setting, route: Route | None, error: str) -> tuple[Setting, int]:
    """The setting of the next token, and the last step that may follow."""
    if not params.obey:
        return base, last
    if error:
        return STATIC, last
    if route is None:
        return base, last
    return route.setting, min(last, step + max(0, int(route.max_tokens)))
