"""Requests made from the admin plane's OpenAPI document, signed by a hook, to a real one over HTTP."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any
from unittest import SkipTest

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis.errors import Unsatisfiable
from requests.auth import AuthBase
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from sidecar_api.admin.openapi import document
from sidecar_api.admin.principals import SCOPES
from tcd.client.admin import OperatorKey, sign
from tests.integration.admin.live import Live

DOCUMENT = document()
#: Without its security: credentials are this module's, and each request is made with and without them.
SCHEMA = schemathesis.openapi.from_dict(
    {
        **DOCUMENT,
        "paths": {
            path: {method: {k: v for k, v in one.items() if k != "security"} for method, one in item.items()}
            for path, item in DOCUMENT["paths"].items()
        },
        "components": {"schemas": DOCUMENT["components"]["schemas"]},
    }
)
OPERATIONS = tuple((path, method) for path, item in DOCUMENT["paths"].items() for method in item)
#: Refusals of what fits the schema, which cannot say everything: that a text is a bundle of policies, that keys are
#: two persons', that a subject is three names or a digest. GETs without parameters have no such excuse.
MEANT = {400, 404, 409, 413, 422}


#: Seconds that an answer may take on a machine that is busy with something else.
PATIENCE = 300


class Signed(AuthBase):
    """A token and a signature of the request as it is sent."""

    def __init__(self, key: OperatorKey, *, signs: bool) -> None:
        self._key = key
        self._signs = signs

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        headers = {"authorization": f"Bearer {self._key.token(SCOPES)}"}
        if self._signs:
            content = request.body or b""
            if isinstance(content, str):
                content = content.encode()
            assert isinstance(content, bytes)
            request.headers.setdefault("content-type", "application/json")
            for name in {"content-type", "idempotency-key"} & {name.lower() for name in request.headers}:
                headers[name] = str(request.headers[name])
            headers = sign(self._key, str(request.method), str(request.url), headers, content)
        request.headers.update(headers)
        return request


def _judge(live: Live, case: Any, operation: dict[str, Any], seen: Counter[int]) -> None:
    # what is sent without a token is refused, whatever else it is
    bare = case.call(base_url=live.url, allow_redirects=False, timeout=PATIENCE)
    seen[bare.status_code] += 1
    assert bare.status_code in {400, 401, 413}, (bare.status_code, bare.content)
    signs = any("signature" in need for need in operation["security"])
    signed = Signed(live.admin.alice, signs=signs)
    reply = case.call(base_url=live.url, auth=signed, allow_redirects=False, timeout=PATIENCE)
    until = time.monotonic() + PATIENCE
    # what was decided a moment ago is in the log with the next checkpoint
    while b"no checkpoint covers" in reply.content and time.monotonic() < until:
        time.sleep(0.1)
        reply = case.call(base_url=live.url, auth=signed, allow_redirects=False, timeout=PATIENCE)
    seen[reply.status_code] += 1
    assert reply.status_code < 500, (case.body, reply.content)
    checks = [check for check in CHECKS.get_all() if check.__name__ != "ignored_auth"]
    try:
        case.validate_response(reply, checks=checks)
    except FailureGroup as group:
        for failure in group.exceptions:
            name = type(failure).__name__
            if name == "AcceptedNegativeData" and reply.status_code >= 400:
                # a refusal, though schemathesis does not count it among them
                continue
            varied = "requestBody" in operation or bool(operation["parameters"])
            if name == "RejectedPositiveData" and varied and reply.status_code in MEANT:
                assert reply.headers["content-type"] == ["application/problem+json"]
                assert reply.json()["detail"]
                continue
            raise failure from None


def _prepared(live: Live, case: Any) -> Any:
    # an empty list is no parameter at all once it is in a URL
    assume(not any(value in ([], {}) for value in (case.query or {}).values()))
    parameters = case.path_parameters or {}
    if "head" in parameters and uuid.uuid5(uuid.NAMESPACE_OID, str(parameters["head"])).int % 2:
        parameters["head"] = live.heads[0]
    return case


def fuzz(live: Live, path: str, method: str, mode: GenerationMode, cases: int, number: int = 1) -> Counter[int]:
    """Statuses of that many cases, those of seed `number`; each is sent without a token and with all there is to have.

    Raises:
        AssertionError, schemathesis' failures: a check failed.
    """
    seen: Counter[int] = Counter()
    operation = SCHEMA[path][method]
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        strategy.validate()
    except Unsatisfiable:
        return seen

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
        _judge(live, _prepared(live, case), DOCUMENT["paths"][path][method], seen)

    try:
        run()
    except (Unsatisfiable, SkipTest):
        # nothing can be wrong with a request that has no parameters
        assert mode is GenerationMode.NEGATIVE
    return seen


def waits(live: Live) -> None:
    """Signatures of this second are from before the start of a plane that forgets nonces; and no proposal waits."""

    async def forget() -> None:
        store = live.admin.server.plane.store
        async with store._driver.transaction() as tx:
            await tx.run("DELETE FROM tcd_admin_proposal WHERE until < $1", time.time() + 1e6)
            await tx.run("DELETE FROM tcd_admin_act WHERE state <> 'running'")

    live.run(forget())
