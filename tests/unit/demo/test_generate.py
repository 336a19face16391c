"""The loop of a watched generation: it obeys, holds, stops, and goes on when tcd does not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tcd.calibration.assets import AssetSet
from tcd.demo.generate import generate
from tcd.demo.llm import LanguageModel
from tcd.demo.records import STATIC, Answer, Params, Route, Token
from tcd.demo.watch import EnsembleWatcher, Seen, Tensors, WatchError
from tcd.scoring import diagnose_raw

TIGHT = Route(0.6, 0.9, 400, 3)


class Script:
    """A watcher that answers by step."""

    def __init__(self, answer: Callable[[Seen], Answer]) -> None:
        self.answer = answer
        self.seen: list[Seen] = []

    def observe(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        return self.answer(seen)

    def close(self) -> None:
        """Nothing is held."""


def calm(seen: Seen) -> Answer:
    route = Route(seen.base.temperature, seen.base.top_p, seen.left)
    return Answer(score=0.1, p_value=1.0, tier=0, verdict=False, route=route)


def alarm(route: Route = TIGHT, tier: int = 1) -> Answer:
    return Answer(score=0.9999, p_value=0.01, tier=tier, verdict=True, route=route)


def at(steps: set[int], answer: Answer) -> Callable[[Seen], Answer]:
    return lambda seen: answer if seen.step in steps else calm(seen)


def run(model: LanguageModel, params: Params, watcher: Script | None) -> list[Token]:
    return list(generate(model, "abc", params, watcher))


PARAMS = Params(max_tokens=12, temperature=1.5, top_p=1.0)


def test_a_calm_watcher_changes_nothing(tiny: LanguageModel) -> None:
    watched, alone = run(tiny, PARAMS, Script(calm)), run(tiny, PARAMS, None)
    assert [t.token for t in watched] == [t.token for t in alone]
    assert {(t.temperature, t.top_p, t.decoder) for t in watched} == {(1.5, 1.0, 0)}
    assert len(watched) == 12
    assert [t.stop for t in watched] == [""] * 11 + ["length"]


def test_the_route_governs_the_next_token_only(tiny: LanguageModel) -> None:
    tokens = run(tiny, PARAMS, Script(at({4, 5}, alarm())))
    assert [t.step for t in tokens if t.decoder == 3] == [5, 6]
    assert {(t.temperature, t.top_p) for t in tokens if t.decoder == 3} == {(0.6, 0.9)}
    assert [t.step for t in tokens if t.alarmed] == [4, 5]


def test_until_the_catch_the_obeyed_run_is_the_ignored_one(tiny: LanguageModel) -> None:
    answer = alarm(Route(0.0, 0.9, 400, 2))
    ignored = run(tiny, replace(PARAMS, obey=False), Script(at({4}, answer)))
    obeyed = run(tiny, PARAMS, Script(at({4}, answer)))
    assert [t.token for t in ignored[:5]] == [t.token for t in obeyed[:5]]
    assert {t.temperature for t in ignored} == {1.5}
    assert obeyed[5].temperature == 0.0


def test_a_tightened_route_is_held_for_calm_tokens(tiny: LanguageModel) -> None:
    tokens = run(tiny, replace(PARAMS, hold=3), Script(at({2}, alarm())))
    assert [t.step for t in tokens if t.decoder == 3] == [3, 4, 5, 6]


def test_a_route_of_no_more_tokens_ends_the_generation(tiny: LanguageModel) -> None:
    tokens = run(tiny, PARAMS, Script(at({4}, alarm(Route(0.6, 0.9, 0.0, 3), tier=2))))
    assert len(tokens) == 5
    assert tokens[-1].stop == "ended by tcd"
    assert len(run(tiny, replace(PARAMS, obey=False), Script(at({4}, alarm(Route(0.6, 0.9, 0.0, 3), tier=2))))) == 12


def test_a_route_may_shorten_the_rest(tiny: LanguageModel) -> None:
    assert len(run(tiny, PARAMS, Script(at({4}, alarm(Route(0.6, 0.9, 2.0, 3)))))) == 7


def test_without_an_answer_it_goes_on_under_the_static_setting(tiny: LanguageModel) -> None:
    def broken(seen: Seen) -> Answer:
        if seen.step == 3:
            message = "HTTP 503 scoring_unavailable"
            raise WatchError(message)
        return calm(seen)

    tokens = run(tiny, PARAMS, Script(broken))
    assert len(tokens) == 12
    assert [t.step for t in tokens if t.error] == [3]
    assert tokens[3].answer is None
    assert (tokens[4].temperature, tokens[4].decoder) == (STATIC.temperature, STATIC.decoder)
    assert tokens[5].decoder == 0


def test_the_watcher_sees_the_prediction_before_the_token(tiny: LanguageModel) -> None:
    script = Script(calm)
    tokens = run(tiny, replace(PARAMS, change_at=6, then_temperature=3.0), script)
    for seen, token in zip(script.seen, tokens, strict=True):
        shifted = seen.logits.astype(np.float64) - seen.logits.max()
        p = np.exp(shifted) / np.exp(shifted).sum()
        assert token.lp == pytest.approx(np.log(p[token.token]), abs=1e-5)
        assert token.entropy == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
        assert np.allclose(seen.logits, seen.hidden[-1] @ tiny.embedding.numpy().T, atol=1e-4)
    # the base is what is asked for the next token
    assert [seen.base.temperature for seen in script.seen] == [1.5] * 5 + [3.0] * 7
    assert [seen.left for seen in script.seen] == list(range(11, -1, -1))


def test_the_ensemble_watcher_hands_the_windows_back(tiny: LanguageModel, assets: AssetSet) -> None:
    lengths, sups = [], []

    def infer(tensors: Tensors) -> Tensors:
        lengths.append(tensors["PREV_LENGTHS"][0].tolist())
        sups.append(tensors["SUP"][0, 0])
        return diagnose_raw(tensors, assets)

    tokens = list(generate(tiny, "abc" * 12, replace(PARAMS, max_tokens=30), EnsembleWatcher(infer, temperature=1.5)))
    assert [row[0] for row in lengths] == list(range(30))
    assert sups[0] == -1e300
    assert sups == sorted(sups)
    assert sups[-1] > -1e300
    assert all(t.answer is not None and 0 <= t.answer.score <= 1 for t in tokens)
    # hidden states of another width than the assets know: no features, hence a fall-back, and it says so
    assert all(t.answer is not None and t.answer.guarantee.startswith("none") for t in tokens)
