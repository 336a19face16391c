"""Requests made from one operation of an OpenAPI document, as both of our documents are fuzzed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode


def fuzz(operation: Any, mode: GenerationMode, cases: int, judge: Callable[[Any], None], *, number: int = 1) -> None:
    """Judge that many cases of a mode, those of seed `number`; none when there is nothing to vary.

    Raises:
        AssertionError, schemathesis' failures: `judge` found something.
    """
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        strategy.validate()
    except Unsatisfiable:
        return

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        # an empty list is no parameter at all once it is in a URL
        assume(not any(value in ([], {}) for value in (case.query or {}).values()))
        judge(case)

    try:
        run()
    except (Unsatisfiable, SkipTest):
        # nothing can be wrong with a request that has no parameters
        assert mode is GenerationMode.NEGATIVE


def validate(case: Any, reply: Any, checks: list[Any], excused: Callable[[str], bool]) -> None:
    """Every check over a reply that is no defect; failures are forgiven where their name is `excused`.

    Raises:
        AssertionError, schemathesis' failures: a check failed.
    """
    assert reply.status_code < 500, (case.body, reply.content)
    try:
        case.validate_response(reply, checks=checks)
    except FailureGroup as group:
        for failure in group.exceptions:
            if not excused(type(failure).__name__):
                raise failure from None
