"""Reserve, Settle and Rewrite: the same members, receipts and problems over HTTP and gRPC."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import status_pb2

from sidecar_api.caller_schemas import Outputs, ReserveRequest, ReserveResponse, SettleRequest
from sidecar_api.grpc.errors import DETAILS
from sidecar_api.rewrite_schemas import RewriteRequest, RewriteResponse
from tcd import errors
from tcd.client import messages
from tcd.contract import COMPONENTS
from tcd.v1 import tcd_pb2 as pb
from tests.unit.shim.conftest import Client
from tests.unit.surfaces.ways import app_of, grpc_to, same

OUTPUTS: dict[str, Any] = {
    "SCORE": [0.25],
    "P_STEP": [1.0, 0.75],
    "SUP_OUT": [0.5, 1.0],
    "COMPONENTS": [0.0, 1.0, 0.0] * len(COMPONENTS),
    "MV": [0.0, 0.0, 0.0, 1.0],
    "P_VALUE": [0.5],
    "TRIGGER": [0],
    "VERDICT": [0],
    "TIER": [0],
    "STATUS": [0],
    "ROUTE": [1.0, 1.0, 0.0, 0.0],
    "ASSETS": [0, 0, 0],
}
BODY = '{"n":1.50,"messages":[{"role":"user","content":"Sum up."},{"role":"tool","content":"a b","x":1e2}]}'
MESSAGES: dict[str, Any] = {"reserve": pb.ReserveRequest, "settle": pb.SettleRequest, "rewrite": pb.RewriteRequest}


def settlement(reserved: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {"reservation": reserved["reservation"], "inputs": "sha256:" + "ab" * 32, "sup": reserved["sup"]}
    return {**made, "outputs": OUTPUTS, "step_id": 1, "tokens": 7, **changes}


def message(method: str, members: dict[str, Any]) -> Any:
    value = dict(members)
    if "outputs" in value:
        value["outputs"] = {name.lower(): item for name, item in value["outputs"].items()}
    if "body" in value:
        value["body_json"] = json.dumps(value.pop("body")).encode()
    return MESSAGES[method](**value)


def rewritten(reply: pb.RewriteResponse) -> dict[str, Any]:
    value = messages.report(reply)
    value["body"] = json.loads(value.pop("body_json"))
    value["receipt"] = value.pop("receipt_head")
    for zone in value["zone_byte_ranges_per_message"]:
        zone["ranges"] = [[pair["start"], pair["end"]] for pair in zone["ranges"]]
    value["findings"] = [MessageToDict(finding) for finding in reply.findings]
    return value


class Both:
    """An app behind HTTP and one in the same state behind gRPC; each call goes to both."""

    def __init__(self, http: Client, stub: Any) -> None:
        self.http, self.stub = http, stub

    async def ask(self, method: str, members: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Any]:
        over_http = (await self.http.post(members, f"/v1/{method}")).json()
        call = getattr(self.stub, method.capitalize())(message(method, members))
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            problem = pb.Problem()
            details = status_pb2.Status.FromString(dict(await call.trailing_metadata())[DETAILS]).details
            assert any(detail.Unpack(problem) for detail in details)
            return over_http, messages.problem(problem), code
        reply = await call
        made = {"reserve": messages.report, "settle": messages.decision, "rewrite": rewritten}[method](reply)
        return over_http, made, code

    async def equal(self, method: str, **members: Any) -> dict[str, Any]:
        over_http, over_grpc, code = await self.ask(method, members)
        assert code is grpc.StatusCode.OK, over_grpc
        assert same(over_grpc, over_http), (method, over_grpc, over_http)
        return over_http


@contextlib.asynccontextmanager
async def both(**changes: Any) -> AsyncIterator[Both]:
    async with grpc_to(app_of(**changes)) as (stub, _):
        yield Both(Client(app_of(**changes)), stub)


async def test_reserve_and_settle_are_equal_over_both() -> None:
    async with both() as ways:
        members = {"signals": ["trace"], "tenant": "acme", "session": "s", "temperature": 0.5, "request_id": "r0"}
        first = await ways.equal("reserve", **members)
        assert first["controller"] is True
        assert first["cost"] > 0
        answer = await ways.equal("settle", **settlement(first, request_id="r1"))
        assert answer["p_value"] == 0.5
        assert "evidence=caller" in answer["guarantee"]
        assert answer["receipt"]
        again = await ways.equal("settle", **settlement(first, request_id="r1"))
        assert again == answer
        second = await ways.equal("reserve", **{**members, "request_id": "r2"})
        assert second["sup"] == [0.5, 1.0]
        last = settlement(second, inputs="sha256:" + "cd" * 32, step_id=2, tokens=9, end=True, request_id="r3")
        assert (await ways.equal("settle", **last))["step"] == 2


REFUSED: list[tuple[str, dict[str, Any], type[errors.TcdError], str | None]] = [
    ("reserve", {}, errors.ValidationFailed, ""),
    ("reserve", {"signals": ["x"]}, errors.ValidationFailed, "/signals/0"),
    ("reserve", {"signals": ["features"]}, errors.ValidationFailed, "/feature_cols"),
    ("reserve", {"signals": ["trace"], "top_p": 2.0}, errors.ValidationFailed, "/top_p"),
    ("reserve", {"signals": ["trace"], "user": "a\nb"}, errors.ValidationFailed, "/user"),
    ("settle", {}, errors.ValidationFailed, ""),
    ("settle", {"outputs": {**OUTPUTS, "SCORE": [0.0, 1.0]}}, errors.ValidationFailed, "/outputs/SCORE"),
    ("settle", {"outputs": {**OUTPUTS, "P_VALUE": [7.0]}}, errors.ValidationFailed, "/outputs"),
    ("settle", {"outputs": {**OUTPUTS, "ASSETS": [1, 2, 3]}}, errors.Conflict, None),
    ("settle", {"sup": [0.0, 0.0]}, errors.ValidationFailed, "/sup"),
    ("settle", {"reservation": "00"}, errors.NotFound, None),
    ("settle", {"inputs": "x"}, errors.ValidationFailed, "/inputs"),
    ("rewrite", {}, errors.ValidationFailed, ""),
    ("rewrite", {"body": {"prompt": "a"}, "marking": "loud"}, errors.ValidationFailed, "/marking"),
    ("rewrite", {"body": {"nothing": 1}}, errors.RewriteRefused, None),
]


async def test_every_refusal_is_equal_over_both() -> None:
    async with both(spotlight_on_failure="closed") as ways:
        reserved = await ways.equal("reserve", signals=["trace"], request_id="r")
        for number, (method, change, error, pointer) in enumerate(REFUSED):
            base = settlement(reserved, inputs=f"sha256:{number:064x}") if method == "settle" and change else {}
            over_http, over_grpc, code = await ways.ask(method, {**base, **change})
            for problem in (over_http, over_grpc):
                problem.pop("request_id")
            assert (over_http.get("code"), over_http.get("pointer")) == (error.code, pointer), (method, change)
            assert same(over_grpc, over_http), (method, change, over_grpc, over_http)
            assert code is grpc.StatusCode[error.grpc_status]


@pytest.mark.parametrize("options", [{}, {"active": True}, {"active": True, "marking": "encode"}])
async def test_rewrite_is_equal_over_both(options: dict[str, Any]) -> None:
    async with both(attest_sk_hex="22" * 32) as ways:
        members = {"body": json.loads(BODY), **options}
        over_http, over_grpc, code = await ways.ask("rewrite", members)
        assert code is grpc.StatusCode.OK
        for answer in (over_http, over_grpc):
            answer.pop("request_id")
        assert over_http["zones_marked"] == 1
        assert same(over_grpc, over_http), (over_grpc, over_http)


async def test_the_body_keeps_its_bytes_and_boundaries_come_as_metadata() -> None:
    async with grpc_to(app_of()) as (stub, _):
        reply = await stub.Rewrite(pb.RewriteRequest(body_json=BODY.encode()))
        assert reply.body_json == BODY.encode()
        text = '{"prompt": "Sum up: a b"}'
        asked = pb.RewriteRequest(body_json=text.encode(), active=True)
        reply = await stub.Rewrite(asked, metadata=(("x-tcd-data-boundary", "0:8-11"),))
        assert reply.zones_marked == 1
        assert [z.origin for z in reply.zones if z.kind == "data"] == ["operator_header"]


@pytest.mark.parametrize("body", [b"", b'{"a":1},"active":true', b"\xff", b"{"])
async def test_a_body_that_is_not_one_json_value_is_the_callers_fault(body: bytes) -> None:
    async with grpc_to(app_of()) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Rewrite(pb.RewriteRequest(body_json=body))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_snapshot_cannot_bring_members_of_its_own() -> None:
    tokens = ({"token": "a-token-of-some-length", "scopes": ["state:load"]},)
    async with grpc_to(app_of(api_tokens=tokens)) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.LoadState(
                pb.LoadStateRequest(detector_json=b'{},"model_id":"m"'),
                metadata=(("authorization", "Bearer a-token-of-some-length"),),
            )
        assert "not JSON" in str(caught.value.details())


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (ReserveRequest, pb.ReserveRequest),
        (ReserveResponse, pb.ReserveResponse),
        (SettleRequest, pb.SettleRequest),
        (Outputs, pb.Outputs),
        (RewriteRequest, pb.RewriteRequest),
        (RewriteResponse, pb.RewriteResponse),
    ],
)
def test_the_messages_have_the_members_of_the_schema(kind: type[msgspec.Struct], made: type) -> None:
    renamed = {"body": "body_json", "receipt": "receipt_head"}
    names = {renamed.get(f.encode_name, f.encode_name.lower()) for f in msgspec.structs.fields(kind)}
    assert {f.name for f in made.DESCRIPTOR.fields} == names  # type: ignore[attr-defined]
