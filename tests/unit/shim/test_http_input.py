"""What comes in: every limit at n and n+1, wrong types, broken JSON, hostile sizes. Never a 500."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

LIMITS: list[tuple[str, Any, Any, str]] = [
    ("trace_vector", [-1.0] * 4096, [-1.0] * 4097, "/trace_vector"),
    ("spectrum", [1.0] * 4096, [1.0] * 4097, "/spectrum"),
    ("features", [1.0] * 2048, [1.0] * 2049, "/features"),
    ("token_ids", [1] * 4096, [1] * 4097, "/token_ids"),
    ("tenant", "t" * 128, "t" * 129, "/tenant"),
    ("user", "t" * 128, "t" * 129, "/user"),
    ("session", "t" * 128, "t" * 129, "/session"),
    ("model_id", "t" * 128, "t" * 129, "/model_id"),
    ("gpu_id", "t" * 128, "t" * 129, "/gpu_id"),
    ("task", "t" * 128, "t" * 129, "/task"),
    ("lang", "t" * 128, "t" * 129, "/lang"),
    ("request_id", "t" * 128, "t" * 129, "/request_id"),
    ("tokens_delta", 10**7, 10**7 + 1, "/tokens_delta"),
    ("tokens_delta", -(10**7), -(10**7) - 1, "/tokens_delta"),
    ("step_id", 2**53 - 1, 2**53, "/step_id"),
    ("step_id", 0, -1, "/step_id"),
    ("entropy", 0, -1e-9, "/entropy"),
    ("spectrum", [0], [1, -1e-9], "/spectrum/1"),
    ("deadline_ms", 600_000, 600_001, "/deadline_ms"),
    ("deadline_ms", 5000, 0, "/deadline_ms"),
    ("context", {f"k{i}": 1 for i in range(64)}, {f"k{i}": 1 for i in range(65)}, "/context"),
    ("context", {"k": "x" * 8184}, {"k": "x" * 8185}, "/context"),
    ("context", {"k" * 128: 1}, {"k" * 129: 1}, "/context"),
    ("context", {"temperature": 1000}, {"temperature": 1000.5}, "/context/temperature"),
    ("context", {"top_p": 1}, {"top_p": 1.01}, "/context/top_p"),
    ("context", {"max_tokens": 10**7}, {"max_tokens": 10**7 + 1}, "/context/max_tokens"),
    ("drift_score", 3.4e38, 3.5e38, "/drift_score"),
    ("trace_vector", [-3.4e38], [0.0, 3.5e38], "/trace_vector/1"),
]


@pytest.mark.parametrize(("member", "inside", "outside", "pointer"), LIMITS)
async def test_limit_holds_at_n_and_not_at_n_plus_1(
    make_client: Any, member: str, inside: Any, outside: Any, pointer: str
) -> None:
    client = make_client()
    good = await client.post({member: inside})
    assert good.status == 200, good.body
    bad = await client.post({member: outside})
    assert (bad.status, bad.json()["code"], bad.json()["pointer"]) == (422, "validation_failed", pointer)
    assert bad.headers["content-type"] == "application/problem+json"


FULL: list[tuple[dict[str, Any], str | None]] = [
    ({"entropy_window": [1.0] * 4096}, None),
    ({"entropy_window": [1.0] * 4097}, "/entropy_window"),
    ({"feature_window": [[1.0]] * 112}, None),
    ({"feature_window": [[1.0]] * 113}, "/feature_window"),
    ({"feature_window": [[1.0] * 2048] * 8}, None),
    ({"feature_window": [[1.0] * 2048] * 9}, "/feature_window"),
    ({"feature_window": [[1.0, 2.0], [1.0]]}, "/feature_window/1"),
    ({"feature_window": [[]]}, "/feature_window/0"),
    ({"entropy_window": [1.0], "entropy": 1.0}, "/entropy"),
    ({"feature_window": [[1.0]], "features": [1.0]}, "/features"),
]


@pytest.mark.parametrize(("members", "pointer"), FULL)
async def test_full_windows(make_client: Any, members: dict[str, Any], pointer: str | None) -> None:
    reply = await make_client().post({"window": "full", **members})
    if pointer is None:
        assert reply.status == 200, reply.body
    else:
        assert (reply.status, reply.json()["pointer"]) == (422, pointer)


@pytest.mark.parametrize("member", ["entropy_window", "feature_window"])
async def test_whole_windows_need_window_full(make_client: Any, member: str) -> None:
    reply = await make_client().post({member: [[1.0]] if member == "feature_window" else [1.0]})
    assert (reply.status, reply.json()["pointer"]) == (422, f"/{member}")


TYPES: list[tuple[str, Any, str]] = [
    ("trace_vector", [True], "/trace_vector/0"),
    ("trace_vector", ["1"], "/trace_vector/0"),
    ("trace_vector", 1.0, "/trace_vector"),
    ("trace_vector", None, "/trace_vector"),
    ("trace_vector", [[1.0]], "/trace_vector/0"),
    ("entropy", True, "/entropy"),
    ("entropy", "1", "/entropy"),
    ("entropy", [1], "/entropy"),
    ("features", [None], "/features/0"),
    ("step_id", 1.0, "/step_id"),
    ("step_id", True, "/step_id"),
    ("step_id", "1", "/step_id"),
    ("tokens_delta", 1.5, "/tokens_delta"),
    ("tokens_delta", False, "/tokens_delta"),
    ("tenant", 1, "/tenant"),
    ("tenant", "", "/tenant"),
    ("tenant", "a\u0000b", "/tenant"),
    ("session", "a\u001fb", "/session"),
    ("window", "all", "/window"),
    ("context", [], "/context"),
    ("context", {"k": {}}, "/context"),
    ("context", {"k": [1]}, "/context"),
    ("context", {"temperature": True}, "/context/temperature"),
    ("context", {"temperature": "1"}, "/context/temperature"),
    ("context", {"max_tokens": 1.5}, "/context/max_tokens"),
    ("context", {"n": 10**25}, "/context"),
    ("request_id", "a b", "/request_id"),
    ("request_id", "a\nb", "/request_id"),
    ("idempotency_key", "\u00e9", "/idempotency_key"),
    ("token_ids", [-1], "/token_ids/0"),
    ("unknown", 1, "/unknown"),
    ("a/b~c", 1, "/a~1b~0c"),
]


@pytest.mark.parametrize(("member", "value", "pointer"), TYPES)
async def test_strict_types(make_client: Any, member: str, value: Any, pointer: str) -> None:
    reply = await make_client().post({member: value})
    assert (reply.status, reply.json()["pointer"]) == (422, pointer), reply.body


NONFINITE: list[tuple[bytes, str]] = [
    (b'{"trace_vector":[1,NaN]}', "/trace_vector/1"),
    (b'{"entropy":Infinity}', "/entropy"),
    (b'{"drift_score":-Infinity}', "/drift_score"),
    (b'{"spectrum":[1,2,1e999]}', "/spectrum/2"),
    (b'{"features":[-1e400]}', "/features/0"),
    (b'{"window":"full","feature_window":[[1,2],[3,NaN]]}', "/feature_window/1/1"),
    (b'{"context":{"x":NaN}}', "/context/x"),
    (b'{"context":{"x":1e999}}', "/context"),
    (b'{"trace_vector":[' + b"9" * 400 + b"]}", "/trace_vector/0"),
]


@pytest.mark.parametrize(("body", "pointer"), NONFINITE)
async def test_non_finite_numbers_are_refused_by_name(make_client: Any, body: bytes, pointer: str) -> None:
    reply = await make_client().raw(body)
    assert (reply.status, reply.json()["pointer"]) == (422, pointer), reply.body


async def test_a_policy_may_replace_non_finite_signals_and_says_so(make_client: Any) -> None:
    client = make_client(sanitize="zero")
    reply = await client.raw(b'{"trace_vector":[-1,NaN,1e999],"entropy":Infinity}')
    assert reply.status == 200, reply.body
    found = reply.json()["components"]["input"]
    assert (found["sanitized"], found["triggered"]) == (3, True)
    refused = await client.raw(b'{"context":{"x":NaN}}')
    assert (refused.status, refused.json()["pointer"]) == (422, "/context/x")


BROKEN: list[bytes] = [
    b"",
    b"{",
    b'{"trace_vector":[1',
    b'{"tenant":"a',
    b"{}x",
    b"nul",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b'{"tenant":"\xff"}',
    b'{"tenant":"\\ud800"}',
    b"{'tenant':1}",
    b'{"entropy":01}',
    b'{"entropy":.5}',
    b'{"entropy": NaN',
    b"[" * 200_000,
    b'{"context":{"a":' + b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_broken_json_is_a_400_or_422(make_client: Any, body: bytes) -> None:
    reply = await make_client().raw(body)
    assert reply.status in {400, 422}, reply.body
    assert reply.json()["code"] in {"invalid_request", "validation_failed"}


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"', b"true", b"[" * 1000 + b"]" * 1000])
async def test_json_that_is_no_object_is_a_422(make_client: Any, body: bytes) -> None:
    assert (await make_client().raw(body)).status == 422


DOUBLE: list[bytes] = [
    b'{"tenant":"a","tenant":"b"}',
    b'{"tenant":"a","ten\\u0061nt":"b"}',
    b'{"entropy":1,"entropy":1}',
    b'{"context":{"a":1,"a":2}}',
    b'{"context" : {"a" : 1 , "a" : 2}}',
]


@pytest.mark.parametrize("body", DOUBLE)
async def test_a_member_must_not_be_there_twice(make_client: Any, body: bytes) -> None:
    reply = await make_client().raw(body)
    assert (reply.status, reply.json()["detail"]) == (422, "the member is there twice")


@pytest.mark.parametrize(
    "body",
    [
        b'{"tenant":"user","user":"tenant","session":"session"}',
        b'{"task":"lang","context":{"task":"x","lang":"task"}}',
        b'{"tenant":"a","user":"a","session":"a","context":{"q":"a\\"b","r":"a\\"b"}}',
    ],
)
async def test_equal_strings_are_no_double_members(make_client: Any, body: bytes) -> None:
    assert (await make_client().raw(body)).status == 200


async def test_huge_integers_cost_no_time_and_no_500(make_client: Any) -> None:
    client = make_client()
    for body in (
        b'{"step_id":' + b"9" * 900_000 + b"}",
        b'{"context":{"a":' + b"9" * 900_000 + b"}}",
        b'{"context":{"a":NaN,"b":' + b"9" * 900_000 + b"}}",
        b'{"entropy":' + b"9" * 900_000 + b"}",
    ):
        assert (await client.raw(body)).status == 422


async def test_wrong_content_types(make_client: Any) -> None:
    client = make_client()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json", ""):
        reply = await client.raw(b"{}", content_type=kind)
        assert (reply.status, reply.json()["code"]) == (400, "invalid_request"), kind
    for kind in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'):
        assert (await client.raw(b"{}", content_type=kind)).status == 200, kind
    assert (await client.raw(b"{}", content_encoding="gzip")).status == 400
    assert (await client.call("POST", "/diagnose", b"{}")).status == 400


async def test_body_of_exactly_1_mib_is_read_and_one_byte_more_is_not(make_client: Any) -> None:
    client = make_client()
    body = b'{"entropy":1' + b" " * ((1 << 20) - 13) + b"}"
    assert len(body) == 1 << 20
    assert (await client.raw(body)).status == 200
    assert (await client.raw(body + b" ")).status == 413
    assert (await client.raw([body, b" "])).status == 413
    assert (await client.raw(b"{}", content_length=str((1 << 20) + 1))).status == 413
    assert (await client.raw(b"{}", content_length="9" * 400)).status == 413
    assert (await client.raw(b"{}", content_length="x")).status == 400


@pytest.mark.parametrize("declared", [None, "2", "2097152"])
async def test_a_2_mib_body_allocates_no_more_than_the_limit(make_client: Any, declared: str | None) -> None:
    client = make_client()
    read = 0

    class Chunks(list[bytes]):
        def pop(self, index: Any = 0) -> bytes:
            nonlocal read
            read += 1
            return super().pop(index)

    chunks = Chunks([b" " * 65_536] * 32)
    headers = {"content-type": "application/json"} | ({"content-length": declared} if declared else {})
    await client.post({})
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(bytearray(chunks.pop())), "more_body": bool(chunks)}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/diagnose",
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "client": None,
    }
    await client.app(scope, receive, send)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert sent[0]["status"] == 413
    assert read == (0 if declared == "2097152" else 17)
    assert peak < 2_500_000


async def test_a_slow_body_is_given_up(make_client: Any) -> None:
    reply = await make_client(body_timeout_s=0.05).raw([])
    assert (reply.status, reply.json()["code"]) == (400, "invalid_request")


async def test_hostile_headers(make_client: Any) -> None:
    client = make_client()
    assert (await client.raw(b"{}", x_request_id="a" * 128)).headers["x-request-id"] == "a" * 128
    for bad in ("a" * 129, "a b", "", "\u00e9"):
        reply = await client.raw(b"{}", x_request_id=bad)
        assert reply.status == 400
        assert len(reply.headers["x-request-id"]) == 32
    assert (await client.raw(b"{}", idempotency_key="x" * 129)).status == 400
    for bad in ("-1", "0", "1e3", "abc", "9999999"):
        assert (await client.raw(b"{}", x_deadline_ms=bad)).status == 400, bad
        assert (await client.raw(b'{"deadline_ms": 900}', x_deadline_ms=bad)).status == 400, bad
    for path in ("/healthz", "/nope"):
        assert (await client.get(path, x_request_id="a b")).status == 400


async def test_paths_and_methods(make_client: Any) -> None:
    client = make_client()
    for method, path in (("GET", "/diagnose"), ("PUT", "/v1/verify"), ("POST", "/healthz"), ("DELETE", "/state/get")):
        reply = await client.call(method, path)
        assert (reply.status, reply.json()["code"]) == (405, "method_not_allowed")
        assert reply.headers["allow"]
    for path in ("/", "/diagnose/", "/v2/diagnose", "/docs", "/redoc", "/%00", "/..", "/state"):
        reply = await client.get(path)
        assert (reply.status, reply.json()["code"]) == (404, "not_found"), path
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["request_id"] == reply.headers["x-request-id"]


async def test_v1_is_the_same_route(make_client: Any) -> None:
    client = make_client(receipts_enable=False)
    one = (await client.post({"entropy": 1.0, "session": "a"})).json()
    two = (await client.post({"entropy": 1.0, "session": "b"}, "/v1/diagnose")).json()
    for reply in (one, two):
        for name in ("request_id", "epoch", "alpha_spent"):
            reply.pop(name)
        reply["components"].pop("av")
    varying = {"budget_remaining", "alpha_wealth"}
    assert {k: v for k, v in one.items() if k not in varying} == {k: v for k, v in two.items() if k not in varying}


async def test_problems_hold_no_input_and_no_stack(make_client: Any) -> None:
    secret = "s3cret-value-of-a-client"
    reply = await make_client().raw(json.dumps({"entropy": secret, "tenant": secret}).encode())
    assert secret.encode() not in reply.body
    assert b"Traceback" not in reply.body
