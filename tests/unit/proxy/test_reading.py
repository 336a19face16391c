"""What is read of requests and answers; nothing that arrives makes the readers fail."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcd.proxy import bodies, logprobs
from tcd.proxy.headers import end_to_end, request_headers, rewritten_headers
from tcd.proxy.logprobs import Measured, measure, read


def measured(choice: Any) -> list[Measured]:
    answer = read(json.dumps({"choices": [choice]}).encode())
    assert answer is not None
    return measure(answer.choices[0])


def test_chat_log_probabilities() -> None:
    content = [{"token": "a", "logprob": -0.5, "top_logprobs": []}, {"token": "b", "logprob": -2, "bytes": None}]
    assert measured({"index": 0, "logprobs": {"content": content}}) == [Measured(-0.5, None), Measured(-2.0, None)]


def test_completion_log_probabilities_without_the_first_of_an_echoed_prompt() -> None:
    found = {"tokens": ["a", "b", "c"], "token_logprobs": [None, -1.0, -2.0], "top_logprobs": [None, {"b": -0.7}]}
    one, two = measured({"index": 0, "logprobs": found})
    assert (one.logprob, two) == (-1.0, Measured(-2.0, None))
    assert one.entropy is not None


@pytest.mark.parametrize("value", [-9999.0, 0.5, None])
def test_what_is_no_measurement_is_dropped(value: float | None) -> None:
    assert measured({"logprobs": {"content": [{"token": "a", "logprob": value}]}}) == []


def test_a_certain_token_may_be_rounded_above_zero() -> None:
    assert measured({"logprobs": {"content": [{"token": "a", "logprob": 1e-6}]}}) == [Measured(0.0, None)]


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=20))
def test_the_entropy_of_what_is_known_is_a_lower_bound(weights: list[float]) -> None:
    total = sum(weights)
    logs = sorted((math.log(w / total) for w in weights), reverse=True)
    whole = -sum(math.exp(v) * v for v in logs)
    bounds = [logprobs.entropy(logs[:k]) for k in range(1, len(logs) + 1)]
    assert all(b is not None and -1e-9 <= b <= whole + 1e-6 for b in bounds)
    # knowing more tokens never lowers it
    assert all((a or 0.0) <= (b or 0.0) + 1e-6 for a, b in pairwise(bounds))


def test_what_is_no_distribution_has_no_entropy() -> None:
    assert logprobs.entropy([-0.1, -0.1, -0.1]) is None
    assert logprobs.entropy([-9999.0]) is None


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    bodies.read(data)
    read(data)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"messages": []}, 1),
        ({"messages": [], "n": 3}, 3),
        ({"prompt": "a", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1], [2, 3]]}, 2),
        ({"n": True}, 1),
        ({"n": "7"}, 1),
    ],
)
def test_the_choices_that_an_answer_will_have(body: Any, count: int) -> None:
    assert bodies.choices(bodies.read(json.dumps(body).encode())) == count


def test_names_are_what_subjects_take() -> None:
    assert bodies.name("llama", "d") == "llama"
    assert [bodies.name(bad, "d") for bad in ("", "a\nb", "x" * 129, 7, None)] == ["d"] * 5


def test_the_decoding_settings_go_along() -> None:
    body = b'{"temperature": 0.5, "top_p": "x", "max_tokens": 9, "max_completion_tokens": 5}'
    assert bodies.context(bodies.read(body)) == {"temperature": 0.5, "max_tokens": 5}


def test_connection_takes_the_fields_it_names_but_never_the_length() -> None:
    fields = [(b"connection", b"close, X-A , content-length"), (b"X-A", b"1"), (b"Content-Length", b"3"), (b"b", b"2")]
    assert end_to_end(fields) == [(b"Content-Length", b"3"), (b"b", b"2")]


def test_a_transfer_coding_overrides_a_length() -> None:
    fields = [(b"host", b"a"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked")]
    assert request_headers(fields, host=b"up", via=None) == [(b"host", b"up"), (b"transfer-encoding", b"chunked")]


def test_a_changed_body_has_no_digest_of_the_old_one() -> None:
    fields = [(b"content-digest", b"x"), (b"content-length", b"3"), (b"authorization", b"k")]
    assert rewritten_headers(fields, 7) == [(b"authorization", b"k"), (b"content-length", b"7")]
