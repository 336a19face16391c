"""Whatever is sent, with and without a credential, ends in an answer that was meant: never a 500, never in."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar_api.admin.principals import SCOPES
from tests.unit.admin.kit import BASE, ROUTES, Admin

NAMES = st.sampled_from(
    [
        "authorization",
        "signature",
        "signature-input",
        "content-digest",
        "content-type",
        "idempotency-key",
        "host",
        "x-request-id",
    ]
)
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.sampled_from(
        [
            'sig=("@method");created=1;keyid="a"', "sig=:AAAA:", 'sig=("@method" "@method";x)', "sha-256=:AAAA:",
            "sig=();created=99999999999999999999", "Bearer a.b.c", "a=1, a=2", '"', "(", "sig=?1",
        ]
    ),
)  # fmt: skip
PATHS = st.one_of(
    st.sampled_from([path for _, path in ROUTES]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(lambda text: "/" + text),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["keys", "files", "kid", "x"]), inner),
    max_leaves=12,
)
BODIES = st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode()))
MEANT = {200, 202, 400, 401, 403, 404, 405, 409, 413, 422, 429}


async def sent(admin: Admin, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
    import httpx2  # noqa: PLC0415

    try:
        return await admin.send(method, BASE + path.replace("{", "").replace("}", ""), content=body, headers=headers)
    except httpx2.InvalidURL:
        return None


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["GET", "PUT", "POST", "DELETE"]), PATHS, st.dictionaries(NAMES, VALUES, max_size=5), BODIES)
def test_without_a_credential(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        admin = Admin(Path(folder))
        reply = asyncio.run(sent(admin, method, path, headers, body))
    assert reply is None or reply.status_code in MEANT - {200, 202, 403}
    assert admin.acts.made == []


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["GET", "PUT", "POST", "DELETE"]), PATHS, st.dictionaries(NAMES, VALUES, max_size=5), BODIES)
def test_with_a_token_but_no_signature(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        admin = Admin(Path(folder))
        headers = {**headers, "authorization": f"Bearer {admin.alice.token(SCOPES)}"}
        headers.pop("host", None)
        reply = asyncio.run(sent(admin, method, path, headers, body))
    assert reply is None or reply.status_code in MEANT - {202}
    assert admin.acts.made == []


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([("PUT", "/principals"), ("PUT", "/policies"), ("POST", "/policies:validate")]), JSON)
def test_a_signed_request_with_any_json(route: tuple[str, str], body: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        admin = Admin(Path(folder))
        reply = asyncio.run(admin.call(*route, admin.alice, body))
    assert reply.status_code in MEANT - {401, 403, 429}
    assert admin.acts.made == []
