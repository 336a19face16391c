"""What crosses Triton as JSON is read strictly and comes back as it went."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tcd.demo.records import Answer, Params, Receipt, Route, Token
from tcd.errors import InvalidRequest

ANSWER = Answer(
    score=0.999,
    p_value=0.01,
    tier=1,
    verdict=True,
    route=Route(0.7, 0.95, 12.0, 3),
    budget=0.04,
    components={"recurrence": 0.9},
    receipt=Receipt("ab", "{}", "cd", "ef"),
)
TOKEN = Token(
    step=3,
    token=42,
    text="é<b>",
    lp=-1.5,
    entropy=2.5,
    temperature=0.8,
    top_p=0.95,
    decoder=0,
    asked=0.8,
    answer=ANSWER,
    stop="length",
)


def test_params_and_tokens_survive_json() -> None:
    params = Params(seed=4, temperature=0, via="shim", shim_url="http://127.0.0.1:9", change_at=3)
    assert Params.from_json(params.to_json()) == params
    assert Token.from_json(TOKEN.to_json()) == TOKEN
    assert TOKEN.alarmed


@pytest.mark.parametrize(
    "members",
    [
        {"unknown": 1},
        {"seed": True},
        {"seed": 1.5},
        {"seed": -1},
        {"obey": 1},
        {"max_tokens": 0},
        {"max_tokens": 513},
        {"temperature": -0.1},
        {"temperature": "hot"},
        {"then_temperature": 1e9},
        {"top_p": 0},
        {"top_p": 1.5},
        {"via": "carrier pigeon"},
        {"shim_url": "file:///etc/passwd"},
        {"hold": -1},
    ],
)
def test_wrong_params_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Params.from_json(json.dumps(members))


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"temperature": NaN}', "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Params.from_json(text)


@pytest.mark.parametrize("text", ["{}", "[]", '{"answer": null}', '{"answer": 3}', "x"])
def test_a_step_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Token.from_json(text)


def test_the_change_is_asked_for_from_its_step_on() -> None:
    params = Params(temperature=0.5, change_at=4, then_temperature=2.0)
    assert [params.asked(step).temperature for step in (0, 3, 4, 90)] == [0.5, 0.5, 2.0, 2.0]
    assert Params(temperature=0.5, then_temperature=2.0).asked(90).temperature == 0.5
