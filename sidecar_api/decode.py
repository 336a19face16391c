"""Bytes to requests: 400 for what is no JSON, 422 with a JSON pointer for what is outside the contract.

The fast path decodes once, with strict types. Everything slow (which member is NaN, is a member there twice)
runs only when the fast path cannot rule it out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sidecar_api.caller_schemas import ReserveRequest
from sidecar_api.schemas import MAX_CONTEXT_BYTES, DiagnoseRequest, Opening, VerifyRequest
from tcd.contract import MAX_FEATURE_VALUES
from tcd.errors import InvalidRequest, ValidationFailed

MAX_DIAGNOSE: Final = 1 << 20
MAX_VERIFY: Final = 4 << 20
MAX_BATCH: Final = 4 << 20
MAX_BATCH_ITEMS: Final = 256
#: Members in which `sanitize=zero` may replace a non-finite number.
SANITIZED: Final = (
    *("trace_vector", "entropy", "spectrum", "features", "entropy_window", "feature_window", "drift_score"),
)
_T = TypeVar("_T")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ID: Final = re.compile(r"[^\x21-\x7e]")
_UNKNOWN: Final = re.compile(r"unknown field `(.*)`")
_PATH: Final = re.compile(r" - at (?:`key` in )?`\$(.*)`$")
_STEP: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+|\.\.\.)\]")
_LONG_INT: Final = 20
_NONE: Final = np.zeros(0, np.float32)
_NO_ROWS: Final = np.zeros((0, 0), np.float32)

_diagnose: Final = msgspec.json.Decoder(DiagnoseRequest, strict=True)
_verify: Final = msgspec.json.Decoder(VerifyRequest, strict=True)


@lru_cache(maxsize=64)
def check_content_type(value: bytes | None, encoding: bytes | None) -> None:
    """Only `application/json` in UTF-8, not compressed.

    Raises:
        InvalidRequest: anything else.
    """
    kind, _, rest = (value or b"").decode("latin-1").partition(";")
    charset = rest.strip().lower().replace('"', "").replace(" ", "")
    if kind.strip().lower() != "application/json" or charset not in {"", "charset=utf-8", "charset=utf8"}:
        msg = "the content type must be application/json"
        raise InvalidRequest(msg)
    if encoding is not None and encoding.strip().lower() != b"identity":
        msg = "compressed bodies are not read"
        raise InvalidRequest(msg)


def decode_diagnose(body: bytes, *, sanitize: bool = False) -> tuple[DiagnoseRequest, int]:
    """A validated request and the number of values that `sanitize` replaced by 0.

    Raises:
        InvalidRequest: not JSON.
        ValidationFailed: a member is unknown, twice there, mistyped, not finite or out of its limits.
    """
    request, sanitized = _decode(body, _diagnose, DiagnoseRequest, sanitize=sanitize)
    # in JSON a control character other than DEL has to be escaped
    if b"\\" in body or b"\x7f" in body or request.request_id is not None or request.idempotency_key is not None:
        check_names(request)
    _check_windows(request)
    if request.context:
        _check_context(request, len(body))
    return request, sanitized


def decode_step(body: bytes, opening: Opening, *, sanitize: bool = False) -> tuple[DiagnoseRequest, int]:
    """As `decode_diagnose`, of a message that must leave out the subject, which was fixed before.

    Raises:
        InvalidRequest, ValidationFailed: as `decode_diagnose`.
    """
    request, sanitized = decode_diagnose(body, sanitize=sanitize)
    if b'"tenant"' in body or b'"user"' in body or b'"session"' in body or b"\\" in body:
        fixed = {"tenant", "user", "session"}.intersection(json.loads(body))
        if fixed:
            msg = "fixed when the stream was opened"
            raise ValidationFailed(msg, pointer=f"/{min(fixed)}")
    return msgspec.structs.replace(
        request, tenant=opening.tenant, user=opening.user, session=opening.session
    ), sanitized


def diagnose_of(value: dict[str, Any], *, sanitize: bool = False) -> tuple[DiagnoseRequest, int]:
    """As `decode_diagnose`, of members that another surface has read.

    Raises:
        ValidationFailed: as `decode_diagnose`.
    """
    count = [0]
    if sanitize:
        value = {k: _zeroed(v, count) if k in SANITIZED else v for k, v in value.items()}
    request = convert(value, DiagnoseRequest)
    check_names(request)
    _check_windows(request)
    if request.context:
        _check_context(request, MAX_DIAGNOSE)
    return request, count[0]


def decode_verify(body: bytes) -> VerifyRequest:
    """A validated request of /verify.

    Raises:
        InvalidRequest, ValidationFailed: as `decode_diagnose`.
    """
    request, _ = _decode(body, _verify, VerifyRequest, sanitize=False)
    return request


def decode_plain(body: bytes, decoder: msgspec.json.Decoder[_T], kind: type[_T]) -> _T:
    """A validated request of another strict schema; NaN and members twice there are refused by name too.

    Raises:
        InvalidRequest, ValidationFailed: as `decode_diagnose`.
    """
    request, _ = _decode(body, decoder, kind, sanitize=False)
    return request


def _decode(body: bytes, decoder: msgspec.json.Decoder[_T], kind: type[_T], *, sanitize: bool) -> tuple[_T, int]:
    try:
        request = decoder.decode(body)
    except msgspec.ValidationError as error:
        if not (sanitize and "Number out of range" in str(error)):
            raise refused(str(error)) from None
        return _sanitized(body, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        value = _lenient(body, str(error))
        pointer = _nonfinite(value)
        if pointer is None:
            msg = f"not JSON: {error}"
            raise InvalidRequest(msg) from None
        if not sanitize:
            msg = "not a finite number"
            raise ValidationFailed(msg, pointer=pointer) from None
        return _sanitized(body, kind)
    except RecursionError:
        msg = "nested too deeply"
        raise InvalidRequest(msg) from None
    if _may_repeat(body):
        _lenient(body, "")
    return request, 0


def _may_repeat(body: bytes) -> bool:
    """Whether a member may be there twice: no if all string tokens differ, or all those before a colon."""
    if b"\\" in body:
        return True
    parts = body.split(b'"')
    tokens = parts[1::2]
    if len(tokens) == len(set(tokens)):
        return False
    keys = [key for key, after in zip(tokens, parts[2::2], strict=True) if after.lstrip()[:1] == b":"]
    return len(keys) != len(set(keys))


def _integer(text: str) -> float | int:
    return int(text) if len(text) <= _LONG_INT else float(text)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                msg = "the member is there twice"
                raise ValidationFailed(msg, pointer="/" + _escape(name[:128]))
            seen.add(name)
    return value


def _lenient(body: bytes, why: str) -> Any:
    """The body read by the tolerant parser of the standard library, which knows NaN; refuses double members."""
    try:
        return json.loads(body.decode("utf-8"), parse_int=_integer, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else why or "not UTF-8 JSON"
        msg = f"not JSON: {reason}"
        raise InvalidRequest(msg) from None


def _nonfinite(value: Any, pointer: str = "") -> str | None:
    """JSON pointer of the first non-finite number (the nesting is bounded by the parser's)."""
    stack = [(value, pointer)]
    while stack:
        item, where = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return where
        if isinstance(item, dict):
            stack.extend((v, f"{where}/{_escape(k)}") for k, v in reversed(item.items()))
        elif isinstance(item, list):
            stack.extend((item[i], f"{where}/{i}") for i in range(len(item) - 1, -1, -1))
    return None


def _zeroed(value: Any, count: list[int]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        count[0] += 1
        return 0.0
    if isinstance(value, list):
        return [_zeroed(item, count) if isinstance(item, float | list) else item for item in value]
    return value


def _sanitized(body: bytes, kind: type[_T]) -> tuple[_T, int]:
    """The request with non-finite signals replaced by 0, as a policy may want it."""
    value = _lenient(body, "")
    count = [0]
    if isinstance(value, dict):
        try:
            value = {k: _zeroed(v, count) if k in SANITIZED else v for k, v in value.items()}
        except RecursionError:
            msg = "not JSON: nested too deeply"
            raise InvalidRequest(msg) from None
    return convert(value, kind), count[0]


def convert(value: Any, kind: type[_T]) -> _T:
    """A validated struct of a value that is not JSON any more, or never was.

    Raises:
        ValidationFailed: a number is not finite, or the value is outside the schema.
    """
    pointer = _nonfinite(value)
    if pointer is not None:
        msg = "not a finite number"
        raise ValidationFailed(msg, pointer=pointer)
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise refused(str(error)) from None


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def refused(message: str) -> ValidationFailed:
    """A msgspec error with its path as a JSON pointer."""
    found = _PATH.search(message)
    pointer = ""
    if found is not None:
        steps = [name or index for name, index in _STEP.findall(found[1])]
        pointer = "".join("/" + _escape(step) for step in steps if step != "...")
        message = message[: found.start()]
    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        pointer += "/" + _escape(unknown[1][:128])
        message = "unknown member"
    if message.startswith("Number out of range"):
        message = "not a finite number"
    return ValidationFailed(message.replace("`", ""), pointer=pointer)


def opening_of(values: dict[str, str]) -> Opening:
    """The subject of a stream.

    Raises:
        ValidationFailed: a name is unknown or out of its limits.
    """
    opening = convert(values, Opening)
    check_names(DiagnoseRequest(tenant=opening.tenant, user=opening.user, session=opening.session))
    return opening


def check_names(request: DiagnoseRequest | ReserveRequest) -> None:
    """Refuse names that receipts cannot carry, and ids that cannot be echoed in a header.

    Raises:
        ValidationFailed: the pointer names the member.
    """
    names = ("tenant", "user", "session", "model_id", "gpu_id", "task", "lang")
    joined = (
        request.tenant
        + request.user
        + request.session
        + request.model_id
        + request.gpu_id
        + request.task
        + request.lang
    )
    if _CONTROL.search(joined):
        bad = next(name for name in names if _CONTROL.search(getattr(request, name)))
        msg = "control characters"
        raise ValidationFailed(msg, pointer=f"/{bad}")
    for name in ("request_id", "idempotency_key"):
        value = getattr(request, name)
        if value is not None and _NOT_ID.search(value):
            msg = "only visible ASCII characters"
            raise ValidationFailed(msg, pointer=f"/{name}")


def _check_windows(request: DiagnoseRequest) -> None:
    rows = request.feature_window
    if request.window == "step":
        if request.entropy_window or rows:
            msg = "only with window=full"
            raise ValidationFailed(msg, pointer="/feature_window" if rows else "/entropy_window")
        return
    if request.entropy_window and request.entropy is not None:
        msg = "give entropy or entropy_window, not both"
        raise ValidationFailed(msg, pointer="/entropy")
    if not rows:
        return
    if request.features:
        msg = "give features or feature_window, not both"
        raise ValidationFailed(msg, pointer="/features")
    cols = len(rows[0])
    ragged = next((i for i, row in enumerate(rows) if len(row) != cols), None)
    if ragged is not None:
        msg = f"not {cols} values as in the first row"
        raise ValidationFailed(msg, pointer=f"/feature_window/{ragged}")
    if len(rows) * cols > MAX_FEATURE_VALUES:
        msg = f"more than {MAX_FEATURE_VALUES} values"
        raise ValidationFailed(msg, pointer="/feature_window")


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in {int, float} and low <= value <= high


def _max_tokens(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 10_000_000  # noqa: PLR2004 - as tokens_delta


#: Context members that are used, and what they may be; null = not given.
_USED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "temperature": (_number(0.0, 1000.0), "not a number in 0..1000"),
    "top_p": (_number(0.0, 1.0), "not a number in 0..1"),
    "max_tokens": (_max_tokens, "not an integer in 0..10000000"),
}


def _check_context(request: DiagnoseRequest, size: int) -> None:
    context = request.context
    for name, (fine, why) in _USED.items():
        value = context.get(name)
        if value is not None and not fine(value):
            raise ValidationFailed(why, pointer=f"/context/{name}")
    if size > MAX_CONTEXT_BYTES and len(msgspec.json.encode(context)) > MAX_CONTEXT_BYTES:
        msg = f"more than {MAX_CONTEXT_BYTES} bytes"
        raise ValidationFailed(msg, pointer="/context")


def float32(values: list[float]) -> NDArray[np.float32]:
    """Values in the precision of the tensors; the schema's limits keep them finite."""
    return np.array(values, np.float32) if values else _NONE


def float32_rows(rows: list[list[float]]) -> NDArray[np.float32]:
    """Rows of equal length in the precision of the tensors, shape (rows, cols)."""
    return np.array(rows, np.float32) if rows else _NO_ROWS
