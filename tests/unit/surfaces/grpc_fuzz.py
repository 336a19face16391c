"""Messages made from the descriptors of `tcd.v1`, and bytes: no INTERNAL, nothing accepted that is out of limits."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from sidecar_api.grpc.server import SERVICE
from tcd.v1 import tcd_pb2 as pb
from tests.unit.surfaces.ways import app_of, grpc_to

TOKEN = "a-token-of-some-length"
METHODS = tuple(method.name for method in SERVICE.methods)
MAX_SAFE = 2**53 - 1
ALLOWED = {
    *("INVALID_ARGUMENT", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "NOT_FOUND", "PERMISSION_DENIED"),
    "DEADLINE_EXCEEDED",
}
_LIMIT = 3.4e38
_number = st.floats(width=64) | st.floats(-4, 4) | st.sampled_from([0.0, -1.0, 0.5, 3.5e38, 1e-310])
_integer = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 5) | st.sampled_from([2**31, 2**53, 10_000_001])
_text = st.text(max_size=5) | st.text(min_size=129, max_size=130) | st.sampled_from(["\n", "a b", "0" * 64])
#: Words that mean something to some field: without them next to nothing is accepted.
_words = {
    "window": ["step", "full"],
    "signals": ["trace", "entropy", "spectrum", "features"],
    "inputs": ["sha256:" + "0" * 64],
    "body_format": ["auto", "openai_chat", "anthropic"],
    "marking": ["datamark", "delimit", "encode"],
    "boundary": ["0:0-1", "0.0:1-2,1:0-3"],
}
_bytes = {
    "body_json": [
        b'{"prompt": "a b"}',
        b'{"messages":[{"role":"tool","content":"a b"}]}',
        b"[",
        b"{}",
        b'"\xff"',
        b"1",
    ],
    "detector_json": [b"{}", b"null", b'{"version":1}', b"}"],
}
_value: Any = st.none() | st.booleans() | _number | st.text(max_size=8)
_json: Any = _value | st.lists(_value, max_size=2) | st.dictionaries(st.text(max_size=3), _value, max_size=2)
_names = st.sampled_from(["temperature", "top_p", "max_tokens", "x", ""])
_object = st.dictionaries(_names, _json, max_size=3)


def _struct(value: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(value)
    return made


def _field(field: FieldDescriptor, tokens: list[str]) -> Any:
    name = field.name
    if field.message_type is not None:
        one = _object.map(_struct) if field.message_type.name == "Struct" else _message(field.message_type, tokens)
    elif field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        one = _number
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        one = st.booleans()
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.sampled_from(_bytes[name]) | st.binary(max_size=8)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = st.sampled_from(tokens if name == "reservation" else _words.get(name, ["a", "b"])) | _text
    elif field.cpp_type == FieldDescriptor.CPPTYPE_UINT64:
        one = st.integers(0, 2**64 - 1) | st.integers(0, 3)
    else:
        one = _integer
    if name == "signals":
        return st.lists(st.sampled_from(_words[name]), min_size=1, max_size=3) | st.lists(one, max_size=4)
    return one if not field.is_repeated else st.lists(one, max_size=4)


def _message(kind: Descriptor, tokens: list[str]) -> Any:
    """Few members, or any of them: with all of them at once next to nothing would be accepted."""
    fields = {field.name: _field(field, tokens) for field in kind.fields}
    made = getattr(pb, kind.name)
    needed = {name: fields[name] for name in ("signals", "body_json") if name in fields}
    few = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True) if fields else st.just([])
    some = few.flatmap(lambda names: st.fixed_dictionaries({**needed, **{name: fields[name] for name in names}}))
    return (some | st.fixed_dictionaries({}, optional=fields)).map(lambda values: made(**values))


# -- an independent reading of the contract: whether a request may be accepted -----------------------------------------


def _names_fine(message: Any) -> bool:
    for name in ("model_id", "gpu_id", "task", "lang", "tenant", "user", "session"):
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name):
            value = getattr(message, name)
            least = 1 if name in {"model_id", "tenant", "user", "session"} else 0
            if not least <= len(value) <= 128 or re.search(r"[\x00-\x1f\x7f]", value):
                return False
    ids = [getattr(message, n) for n in ("request_id", "idempotency_key") if _has(message, n)]
    deadline = not _has(message, "deadline_ms") or 0 < message.deadline_ms <= 600_000
    return deadline and all(re.fullmatch(r"[\x21-\x7e]{1,128}", value) for value in ids)


def _has(message: Any, name: str) -> bool:
    return name in message.DESCRIPTOR.fields_by_name and bool(message.HasField(name))


def _finite(values: Any, *, least: float = -_LIMIT) -> bool:
    return all(least <= value <= _LIMIT for value in values)


def _diagnose(message: Any) -> bool:
    reals = [*message.trace_vector, *message.features, message.drift_score]
    reals += [value for row in message.feature_window for value in row.values]
    return (
        _names_fine(message)
        and _finite(reals)
        and _finite([*message.spectrum, *message.entropy_window, message.entropy], least=0.0)
        and 0 <= message.step_id <= MAX_SAFE
        and abs(message.tokens_delta) <= 10_000_000
        and all(0 <= token < 2**31 for token in message.token_ids)
        and (not message.HasField("window") or message.window in {"step", "full"})
        and (message.window == "full" or not (message.feature_window or message.entropy_window))
    )


def _reserve(message: Any) -> bool:
    return (
        _names_fine(message)
        and bool(message.signals)
        and set(message.signals) <= set(_words["signals"])
        and ("features" in message.signals) == (message.feature_cols > 0)
        and 0 <= message.feature_cols <= 2048
        and 0 <= message.spectrum_values <= 4096
        and 0 <= message.tokens <= MAX_SAFE
        and 0 <= message.step_id <= MAX_SAFE
        and 0 <= message.max_tokens <= 10_000_000
        and abs(message.tokens_delta) <= 10_000_000
        and 0 <= message.temperature <= 1000
        and 0 <= message.top_p <= 1
        and _finite([message.drift_score])
    )


def _settle(message: Any) -> bool:
    outputs = message.outputs
    return (
        _names_fine(message)
        and len(outputs.score) == len(outputs.p_value) == len(outputs.trigger) == len(outputs.verdict) == 1
        and len(outputs.assets) == 3
        and 0 <= outputs.p_value[0] <= 1
        and {outputs.trigger[0], outputs.verdict[0]} <= {0, 1}
        and re.fullmatch("sha256:[0-9a-f]{64}", message.inputs) is not None
    )


def _rewrite(message: Any) -> bool:
    try:
        msgspec.json.decode(message.body_json)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return not message.HasField("marking") or message.marking in _words["marking"]


def _verify(message: Any) -> bool:
    single = message.HasField("receipt_head_hex") and message.HasField("receipt_body_json")
    return single or bool(message.heads and len(message.heads) == len(message.bodies))


ACCEPTABLE: dict[str, Callable[[Any], bool]] = {
    "Diagnose": _diagnose,
    "Reserve": _reserve,
    "Settle": _settle,
    "Rewrite": _rewrite,
    "Verify": _verify,
    "GetState": _names_fine,
    # its digest would have to be right
    "LoadState": lambda _: False,
}


async def fuzz(method: str, cases: int) -> Counter[str]:
    """Status codes of that many requests of a method.

    Raises:
        AssertionError: a code that says that the server is at fault, or an answer to what is out of limits.
    """
    tokens = ({"token": TOKEN, "scopes": ["state:read", "state:load"]},)
    seen: Counter[str] = Counter()
    streams = SERVICE.methods_by_name[method].client_streaming
    async with grpc_to(app_of(api_tokens=tokens)) as (stub, channel):
        reserved = (await stub.Reserve(pb.ReserveRequest(signals=["trace"], session="known"))).reservation
        loop = asyncio.get_running_loop()
        path, bearer = f"/{SERVICE.full_name}/{method}", (("authorization", f"Bearer {TOKEN}"),)
        call = channel.stream_stream(path) if streams else channel.unary_unary(path)
        stream = call() if streams else None

        async def ask(raw: bytes) -> str:
            if stream is not None:
                await stream.write(raw)
                reply = pb.DiagnoseReply.FromString(await stream.read())
                return "OK" if reply.HasField("response") else _CODES[reply.problem.status]
            try:
                await call(raw, metadata=bearer)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return "OK"

        kind = SERVICE.methods_by_name[method].input_type
        acceptable = ACCEPTABLE.get("Diagnose" if streams else method)
        messages = _message(kind, [reserved, "00"]).map(lambda message: message.SerializeToString())

        @seed(1)
        @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(messages | messages | messages | st.binary(max_size=64))
        def run(raw: bytes) -> None:
            code = asyncio.run_coroutine_threadsafe(ask(raw), loop).result()
            seen[code] += 1
            assert code in ALLOWED | {"OK"}, code
            if code == "OK" and acceptable is not None:
                message = getattr(pb, kind.name).FromString(raw)
                assert acceptable(message), message

        await asyncio.to_thread(run)
        if stream is not None:
            stream.cancel()
    return seen


#: HTTP statuses of problems inside a stream.
_CODES = {
    400: "INVALID_ARGUMENT",
    409: "ALREADY_EXISTS",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
