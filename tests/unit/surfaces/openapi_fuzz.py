"""Requests made from the OpenAPI document, judged by every check of schemathesis, and by what a schema cannot say."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from sidecar_api.app import create_app
from sidecar_api.http.openapi import document
from sidecar_api.pins import FixedAssets
from tests import openapi
from tests.unit.shim.conftest import ScriptedScorer, settings_of, synthetic_assets

TOO_LARGE = 413
TOKEN = "a-token-of-some-length"
OPERATIONS = tuple((path, method) for path, item in document()["paths"].items() for method in item)
SECURED = {path for path, item in document()["paths"].items() for kind in item.values() if "security" in kind}


def _diagnose(body: dict[str, Any]) -> bool:
    rows, entropies = body.get("feature_window", []), body.get("entropy_window", [])
    if body.get("window", "step") == "step":
        broken = bool(rows or entropies)
    else:
        broken = bool(
            (entropies and body.get("entropy") is not None)
            or (rows and body.get("features"))
            or len({len(row) for row in rows}) > 1
            or sum(map(len, rows)) > 16384
        )
    context = body.get("context", {})
    ranges = {"temperature": 1000, "top_p": 1, "max_tokens": 10_000_000}
    for name, high in ranges.items():
        value = context.get(name)
        if value is None:
            continue
        fine = isinstance(value, int if name == "max_tokens" else int | float) and not isinstance(value, bool)
        broken |= not (fine and 0 <= value <= high)
    return broken or len(json.dumps(context, ensure_ascii=False, separators=(",", ":")).encode()) > 8192


def _verify(body: dict[str, Any]) -> bool:
    given = {name: body.get(name) is not None for name in ("receipt_head_hex", "receipt_body_json", "heads", "bodies")}
    single = given["receipt_head_hex"] or given["receipt_body_json"]
    chain = given["heads"] or given["bodies"]
    if single is chain or (single and not (given["receipt_head_hex"] and given["receipt_body_json"])):
        return True
    sizes = {len(body[name]) for name in ("heads", "bodies", "sigs", "proofs") if body.get(name) is not None}
    return chain and not (given["heads"] and given["bodies"] and len(sizes) == 1 and 0 not in sizes)


def _reserve(body: dict[str, Any]) -> bool:
    return ("features" in body["signals"]) is (body.get("feature_cols", 0) == 0)


#: Rules that a schema cannot say: whether a body that fits the schema may be refused. docs/http.md has them in words.
BEYOND: dict[str, Callable[[Any], bool]] = {
    "/diagnose": _diagnose,
    "/v1/diagnose": _diagnose,
    "/verify": _verify,
    "/v1/verify": _verify,
    "/v1/reserve": _reserve,
    # its digest must be that of its content
    "/state/load": lambda _: True,
}


def _normal(value: Any) -> Any:
    """A JSON number without a fraction as an integer: JSON Schema does not tell 1.0 from 1, the shim does."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    return {k: _normal(v) for k, v in value.items()} if isinstance(value, dict) else value


def _prepared(case: Any) -> Any:
    case.body = _normal(case.body)
    session = case.body.get("session", "s") if isinstance(case.body, dict) and "diagnose" in case.path else None
    if isinstance(session, str) and 1 <= len(session) <= 128 and session.isprintable():
        # a width of features that differs from the session's earlier steps is refused, and rightly
        case.body["session"] = hashlib.sha256(repr(case.body).encode()).hexdigest()
    # a short deadline may pass: the 504 is documented, and tested with a scorer that hangs
    for part in (case.body, case.headers):
        if isinstance(part, MutableMapping):
            for name in ("deadline_ms", "X-Deadline-Ms", "x-deadline-ms"):
                found = part.get(name)
                if isinstance(found, str) and re.fullmatch(r"[1-9][0-9]{0,5}(\.[0-9]{1,3})?", found):
                    part[name] = "60000"
                elif isinstance(found, int | float) and not isinstance(found, bool) and 0 < found <= 600_000:
                    part[name] = 60_000
    return case


def _judge(case: Any, path: str, seen: Counter[int]) -> None:
    # with what was generated as a credential every check, then behind the lock all but that the lock is there
    everything = CHECKS.get_all()
    calls: list[tuple[dict[str, str], list[Any]]] = [({}, everything)]
    if path in SECURED:
        rest = [check for check in everything if check.__name__ != "ignored_auth"]
        calls.append(({"authorization": f"Bearer {TOKEN}"}, rest))
    for headers, checks in calls:
        reply = case.call(headers=headers)
        seen[reply.status_code] += 1
        openapi.validate(case, reply, checks, partial(_excused, case, path, reply.status_code))


def _excused(case: Any, path: str, status: int, failure: str) -> bool:
    if failure == "AcceptedNegativeData" and status == TOO_LARGE:
        # a refusal, though schemathesis does not count it among them
        return True
    rule = BEYOND.get(path)
    return failure == "RejectedPositiveData" and status in {400, 422} and rule is not None and rule(case.body)


def fuzz(path: str, method: str, mode: GenerationMode, cases: int) -> Counter[int]:
    """Statuses of that many requests; empty when there is nothing to vary.

    Raises:
        AssertionError, schemathesis' failures: a check failed.
    """
    tokens = ({"token": TOKEN, "scopes": ["state:read", "state:load", "spotlight:nonce", "receipts:read"]},)
    app = create_app(
        settings_of(edge_rate_cap=1e9, edge_rate_refill=1e9, log_decisions=False, api_tokens=tokens),
        scorer=ScriptedScorer(0.5),
        assets=FixedAssets(synthetic_assets()),
    )
    seen: Counter[int] = Counter()
    if path == "/readyz" and mode is GenerationMode.NEGATIVE:
        # its one parameter is any string, and probes may add others: nothing can be wrong
        return seen
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method]
    openapi.fuzz(operation, mode, cases, lambda case: _judge(_prepared(case), path, seen))
    return seen
