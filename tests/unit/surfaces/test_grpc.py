"""What gRPC has of its own: health, reflection, deadlines, malformed bytes, metadata, state, streams."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sidecar_api.grpc.errors import DETAILS
from tcd import errors
from tcd.v1 import tcd_pb2 as pb
from tests.unit.shim.conftest import Client, ScriptedScorer
from tests.unit.surfaces.ways import app_of, grpc_to

TOKEN = "a-token-of-some-length"


def details(error: Any) -> dict[str, Any]:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())[DETAILS])
    kinds = {
        "problem": pb.Problem,
        "info": error_details_pb2.ErrorInfo,
        "bad": error_details_pb2.BadRequest,
        "retry": error_details_pb2.RetryInfo,
        "request": error_details_pb2.RequestInfo,
    }
    out = {}
    for name, kind in kinds.items():
        for item in status.details:
            message = kind()
            if item.Unpack(message):
                out[name] = message
    return out


async def test_health_follows_readiness_and_reflection_knows_the_service() -> None:
    app = app_of()
    why = "away"
    app.runtime.checks = {"triton": lambda: why}
    async with grpc_to(app) as (stub, channel):
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="tcd.v1.TcdService")
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        own = await stub.Health(pb.HealthRequest())
        assert (own.ok, own.ready, dict(own.checks)) == (True, False, {"triton": "away"})
        why = ""
        for _ in range(1200):
            if (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING:
                break
            await asyncio.sleep(0.05)
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="tcd.v1.TcdService"))
        reply = await call.read()
        files = [FileDescriptorProto.FromString(raw) for raw in reply.file_descriptor_response.file_descriptor_proto]
        assert "TcdService" in {service.name for file in files for service in file.service}
        call.cancel()
        version = await stub.Version(pb.VersionRequest())
        assert version.config_hash == app.runtime.settings.config_hash


async def test_headers_are_metadata() -> None:
    async with grpc_to(app_of()) as (stub, _):
        trace = "ab" * 16
        call = stub.Diagnose(
            pb.DiagnoseRequest(trace_vector=[-1.0]),
            metadata=(("x-request-id", "mine"), ("traceparent", f"00-{trace}-{'cd' * 8}-01")),
        )
        answer = await call
        sent = dict(await call.initial_metadata())
        assert answer.request_id == sent["x-request-id"] == "mine"
        assert sent["traceparent"].startswith(f"00-{trace}-")
        assert sent["x-tcd-config-hash"] == answer.config_hash
        assert "ratelimit" in sent
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Diagnose(pb.DiagnoseRequest(entropy=-1.0), metadata=(("x-request-id", "bad"),))
        found = details(caught.value)
        assert found["info"].reason == found["problem"].code == "validation_failed"
        assert found["bad"].field_violations[0].field == "/entropy"
        assert found["request"].request_id == "bad"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Diagnose(pb.DiagnoseRequest(), metadata=(("idempotency-key", "a b"),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_callers_deadline_is_kept_with_a_decision() -> None:
    async def forever(_: Any) -> None:
        await asyncio.Event().wait()

    async with grpc_to(app_of(ScriptedScorer(before=forever))) as (stub, _):
        answer = await stub.Diagnose(pb.DiagnoseRequest(deadline_ms=50.0), timeout=60)
        assert (answer.cause, answer.action) == ("degraded", "block")
        # with the transport's deadline alone the answer comes before it, if only this machine lets it
        answers = []
        for session in range(20):
            with contextlib.suppress(grpc.aio.AioRpcError):
                answers.append(await stub.Diagnose(pb.DiagnoseRequest(session=f"s{session}"), timeout=1.0))
                break
        assert [found.cause for found in answers] == ["degraded"]


@pytest.mark.parametrize("method", ["Diagnose", "Verify", "GetState", "LoadState"])
async def test_bytes_that_are_no_message_are_the_callers_fault(method: str) -> None:
    async with grpc_to(app_of()) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/tcd.v1.TcdService/{method}")(b"\xff\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details(caught.value)["info"].reason == "invalid_request"


async def test_too_many_bytes() -> None:
    async with grpc_to(app_of()) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/tcd.v1.TcdService/Diagnose")(b"\0" * ((1 << 20) + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_state_moves_with_a_token_only() -> None:
    tokens = ({"token": TOKEN, "scopes": ["state:read", "state:load"]},)
    source, target = app_of(api_tokens=tokens), app_of(api_tokens=tokens)
    bearer = (("authorization", f"Bearer {TOKEN}"),)
    async with grpc_to(source) as (stub, _), grpc_to(target) as (other, _):
        await stub.Diagnose(pb.DiagnoseRequest(trace_vector=[-1.0], step_id=0))
        for ask in (stub.GetState(pb.GetStateRequest()), stub.LoadState(pb.LoadStateRequest())):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        found = await stub.GetState(pb.GetStateRequest(), metadata=bearer)
        loaded = await other.LoadState(pb.LoadStateRequest(detector_json=found.detector_json), metadata=bearer)
        assert (loaded.ok, loaded.sessions) == (True, 1)
        again = await other.GetState(pb.GetStateRequest(), metadata=bearer)
        assert again.detector_json == found.detector_json
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other.LoadState(pb.LoadStateRequest(detector_json=b"{}"), metadata=bearer)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_line_feed_at_the_end_of_a_name_is_the_callers_fault() -> None:
    tokens = ({"token": TOKEN, "scopes": ["state:read"]},)
    app = app_of(api_tokens=tokens)
    reply = await Client(app).get("/state/get", "gpu_id=a%0A", authorization=f"Bearer {TOKEN}")
    assert (reply.status, reply.json()["code"]) == (422, "validation_failed")
    async with grpc_to(app) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetState(pb.GetStateRequest(gpu_id="a\n"), metadata=(("authorization", f"Bearer {TOKEN}"),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        settled = pb.SettleRequest(reservation="00", inputs="sha256:" + "0" * 64 + "\n")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Settle(settled)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_receipt_verifies_over_grpc() -> None:
    async with grpc_to(app_of()) as (stub, _):
        answer = await stub.Diagnose(pb.DiagnoseRequest(trace_vector=[-1.0]))
        asked = pb.VerifyRequest(
            receipt_head_hex=answer.receipt_head,
            receipt_body_json=answer.receipt_body,
            receipt_sig_hex=answer.receipt_sig,
            verify_key_hex=answer.verify_key,
        )
        report = await stub.Verify(asked)
        assert (report.ok, report.code) == (True, "ok")
        asked.receipt_sig_hex = "00" * 64
        report = await stub.Verify(asked)
        assert (report.ok, report.code) == (False, "bad_signature")


async def test_a_stream_goes_on_after_a_refusal() -> None:
    async with grpc_to(app_of()) as (stub, _):
        call = stub.DiagnoseStream()
        kinds = []
        for step, entropy in enumerate([1.0, -1.0, 2.0]):
            await call.write(pb.DiagnoseRequest(step_id=step, entropy=entropy))
            kinds.append((await call.read()).WhichOneof("result"))
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert kinds == ["response", "problem", "response"]


async def test_a_defect_is_internal_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of()

    async def broken(*_: Any) -> Any:
        msg = "secret"
        raise RuntimeError(msg)

    monkeypatch.setattr(app.runtime.service, "diagnose", broken)
    async with grpc_to(app) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Diagnose(pb.DiagnoseRequest())
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in (caught.value.details() or "")


def test_every_error_has_a_status_code() -> None:
    def tree(kind: type[errors.TcdError]) -> list[type[errors.TcdError]]:
        return [kind, *(found for sub in kind.__subclasses__() for found in tree(sub))]

    for kind in tree(errors.TcdError):
        assert kind.grpc_status in grpc.StatusCode.__members__
        assert (kind.grpc_status == "INTERNAL") is (kind.http_status == 500), kind
