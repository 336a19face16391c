"""One dataplane: the same requests through every surface give the same members, receipts and problems included."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tcd import errors
from tests.unit.surfaces.ways import Grpc, all_ways, same

BASE: dict[str, Any] = {
    "tenant": "acme",
    "user": "u",
    "session": "s",
    "model_id": "m",
    "gpu_id": "",
    "task": "chat",
    "lang": "en",
}
STEPS: list[dict[str, Any]] = [
    {"step_id": 0, "trace_vector": [-0.5], "entropy": 1.25, "tokens_delta": 1},
    {"step_id": 3, "trace_vector": [-0.5, -2.0], "entropy": 0.0, "tokens_delta": -5, "drift_score": 0.75},
    {"spectrum": [3.0, 1.0, 0.5], "features": [0.1, -0.2], "context": {"temperature": 0.5, "top_p": 0.9}},
    {"trace_vector": [-1.0] * 300, "context": {"max_tokens": 64, "decoder": "sample", "gpu_util": 0.25, "x": None}},
    {
        "window": "full",
        "trace_vector": [-1.0] * 40,
        "entropy_window": [1.0, 2.0],
        "feature_window": [[1.0, 2.0], [3.0, 4.0]],
        "token_ids": [1, 2, 2147483647],
    },
    {"context": {"temperature": 1, "flag": True, "max_tokens": 0}, "deadline_ms": 60_000.0},
]
REFUSED: list[tuple[dict[str, Any], type[errors.TcdError]]] = [
    ({"entropy": -1.0}, errors.ValidationFailed),
    ({"trace_vector": [0.0] * 4097}, errors.ValidationFailed),
    ({"trace_vector": [3.5e38]}, errors.ValidationFailed),
    ({"model_id": ""}, errors.ValidationFailed),
    ({"model_id": "a\nb"}, errors.ValidationFailed),
    ({"step_id": -1}, errors.ValidationFailed),
    ({"tokens_delta": 10_000_001}, errors.ValidationFailed),
    ({"window": "half"}, errors.ValidationFailed),
    ({"entropy_window": [1.0]}, errors.ValidationFailed),
    ({"window": "full", "feature_window": [[1.0], [1.0, 2.0]]}, errors.ValidationFailed),
    ({"context": {"temperature": -1}}, errors.ValidationFailed),
    ({"context": {"max_tokens": 1.5}}, errors.ValidationFailed),
    ({"context": {"x": [1]}}, errors.ValidationFailed),
    ({"context": {str(i): i for i in range(65)}}, errors.ValidationFailed),
    ({"context": {"x": "y" * 8192}}, errors.ValidationFailed),
    ({"deadline_ms": 0.0}, errors.ValidationFailed),
    ({"token_ids": [-1]}, errors.ValidationFailed),
    ({"idempotency_key": "a b"}, errors.ValidationFailed),
    ({"step_id": 2}, errors.Conflict),
    ({"request_id": "r0"}, errors.Conflict),
]


async def test_every_member_is_equal_on_every_surface() -> None:
    async with all_ways() as ways:
        for index, step in enumerate(STEPS):
            request = {**BASE, **step, "request_id": f"r{index}"}
            answers = {name: await way.send(request) for name, way in ways.items()}
            wanted = answers.pop("http")
            assert wanted["receipt"], wanted
            assert set(wanted["components"]) >= {"av", "input", "multivariate", "sigma_cut"}
            for name, answer in answers.items():
                assert same(answer, wanted), (name, index)


async def test_every_refusal_is_equal_on_every_surface() -> None:
    async with all_ways() as ways:
        for way in ways.values():
            assert "verdict" in await way.send({**BASE, "step_id": 5, "request_id": "r0"})
        for number, (change, error) in enumerate(REFUSED):
            request = {**BASE, "request_id": f"x{number}", **change}
            problems = {name: await way.send(request) for name, way in ways.items()}
            for problem in problems.values():
                # a request that cannot be read has no id of its own
                problem.pop("request_id")
            wanted = problems["http"]
            assert (wanted["code"], wanted["status"]) == (error.code, error.http_status), (change, wanted)
            for name, problem in problems.items():
                # a message of the stream is what the pointer points into: the same members
                assert same(problem, wanted), (name, problem, wanted)
            unary = ways["grpc"]
            assert isinstance(unary, Grpc)
            assert unary.code == grpc.StatusCode[error.grpc_status]


async def test_the_subjects_quota_is_one_whatever_the_surface() -> None:
    async with all_ways(http_rate_cap=2.0, http_rate_refill=0.001) as ways:
        for name, way in ways.items():
            request = {**BASE, "tokens_delta": 100}
            assert "verdict" in await way.send(request), name
            problem = await way.send(request)
            assert (problem["code"], problem["status"], problem["violated-policies"]) == (
                *("quota-exceeded", 429),
                ["subject"],
            ), name
            assert problem["retry_after"] > 0
            if type(way) is Grpc:
                assert way.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("on_failure", ["closed", "open", "static"])
async def test_a_degraded_decision_is_the_same_everywhere(on_failure: str) -> None:
    class Away:
        async def score(self, row: Any, *, timeout: float) -> Any:
            msg = "away"
            raise errors.ScoringError(msg)

    async with all_ways(scorer=Away(), on_failure=on_failure) as ways:
        answers = [await way.send({**BASE, "trace_vector": [-1.0], "request_id": "r"}) for way in ways.values()]
        assert answers[0]["cause"] == "degraded"
        assert answers[0]["action"] == {"closed": "block", "open": "allow", "static": "degrade"}[on_failure]
        assert all(same(answer, answers[0]) for answer in answers)
