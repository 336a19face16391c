"""Requests made from the admin plane's OpenAPI document, signed by a hook, to a real one over HTTP."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from functools import partial
from typing import Any

import requests
import schemathesis
from requests.auth import AuthBase
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from sidecar_api.admin.openapi import document
from sidecar_api.admin.principals import SCOPES
from tcd.client.admin import OperatorKey, sign
from tests import openapi
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
    checks = [check for check in CHECKS.get_all() if check.__name__ != "ignored_auth"]
    openapi.validate(case, reply, checks, partial(_excused, operation, reply))


def _excused(operation: dict[str, Any], reply: Any, failure: str) -> bool:
    if failure == "AcceptedNegativeData" and reply.status_code >= 400:
        # a refusal, though schemathesis does not count it among them
        return True
    varied = "requestBody" in operation or bool(operation["parameters"])
    if not (failure == "RejectedPositiveData" and varied and reply.status_code in MEANT):
        return False
    assert reply.headers["content-type"] == ["application/problem+json"]
    assert reply.json()["detail"]
    return True


def _prepared(live: Live, case: Any) -> Any:
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

    def judge(case: Any) -> None:
        _judge(live, _prepared(live, case), DOCUMENT["paths"][path][method], seen)

    openapi.fuzz(SCHEMA[path][method], mode, cases, judge, number=number)
    return seen


def waits(live: Live) -> None:
    """Signatures of this second are from before the start of a plane that forgets nonces; and no proposal waits."""

    async def forget() -> None:
        store = live.admin.server.plane.store
        async with store._driver.transaction() as tx:
            await tx.run("DELETE FROM tcd_admin_proposal WHERE until < $1", time.time() + 1e6)
            await tx.run("DELETE FROM tcd_admin_act WHERE state <> 'running'")

    live.run(forget())
