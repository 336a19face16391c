"""Mutations that are not signed as they have to be, replayed ones, and those that come in another order."""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from http_message_signatures import HTTPMessageSigner, algorithms

from sidecar_api.admin.principals import SCOPES
from tcd.client.admin import COMPONENTS, IF_PRESENT, OperatorKey, _Key, _Message
from tests.unit.admin.kit import BASE, URL, Admin

PATH = "/policies"
BODY = json.dumps({"files": {"a.toml": "x"}}).encode()


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    return Admin(tmp_path)


def headers_of(by: OperatorKey, *, path: str = PATH, body: bytes | None = BODY, **changes: Any) -> dict[str, str]:
    """Headers of a good request, with changes of what the signature says."""
    message = _Message(
        changes.pop("method", "PUT"),
        changes.pop("url", URL) + BASE + path,
        {
            "content-type": "application/json",
            "authorization": f"Bearer {by.token(SCOPES)}",
            "idempotency-key": changes.pop("idempotency_key", None) or uuid.uuid4().hex,
        },
    )
    created = dt.datetime.fromtimestamp(time.time() + changes.pop("age", 0), tz=dt.timezone.utc)
    life = changes.pop("life", 60)
    values: dict[str, Any] = {
        "key_id": by.kid,
        "created": created,
        "expires": None if life is None else created + dt.timedelta(seconds=life),
        "nonce": uuid.uuid4().hex,
        "label": "sig",
        "tag": "tcd-admin",
        "covered_component_ids": (*COMPONENTS, *IF_PRESENT),
        "body": body,
    }
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=_Key(changes.pop("key", by)))
    signer.sign(message, **{**values, **changes})
    return message.headers


async def put(
    admin: Admin, headers: dict[str, str], *, path: str = PATH, body: bytes = BODY, method: str = "PUT"
) -> Any:
    return await admin.send(method, BASE + path, content=body, headers=headers)


async def refused(admin: Admin, headers: dict[str, str], **changes: Any) -> None:
    reply = await put(admin, headers, **changes)
    assert reply.status_code == 401, reply.text
    assert reply.json()["detail"] == "a valid signature of this request is needed"
    assert await admin.plane.approvals.seen_by(await _caller(admin)) == []
    assert admin.acts.made == []


async def _caller(admin: Admin) -> Any:
    from sidecar_api.admin.tokens import Caller  # noqa: PLC0415

    known = await admin.plane.people.current()
    assert known is not None
    found = known.of(admin.alice.kid)
    assert found is not None
    return Caller(found, found.scopes, "j")


async def test_a_signed_request_gets_in(admin: Admin) -> None:
    assert (await put(admin, headers_of(admin.alice))).status_code == 202


@pytest.mark.parametrize("missing", COMPONENTS)
async def test_each_component_has_to_be_covered(admin: Admin, missing: str) -> None:
    covered = [name for name in (*COMPONENTS, *IF_PRESENT) if name != missing]
    headers = headers_of(admin.alice, covered_component_ids=covered, body=None if missing == "content-digest" else BODY)
    await refused(admin, headers)


@pytest.mark.parametrize("covered", [COMPONENTS, (*COMPONENTS, '"idempotency-key";bs')], ids=["not", "otherwise"])
async def test_the_idempotency_key_has_to_be_covered_and_the_refusal_says_so(admin: Admin, covered: Any) -> None:
    reply = await put(admin, headers_of(admin.alice, covered_component_ids=covered))
    assert reply.status_code == 401
    assert reply.json()["detail"] == "the signature has to cover idempotency-key"
    # who has not shown the key of the token is told nothing
    await refused(admin, headers_of(admin.alice, covered_component_ids=covered, key=admin.bob))
    assert await admin.plane.approvals.seen_by(await _caller(admin)) == []


async def test_who_changes_the_idempotency_key_on_the_way_does_not_have_it_done_twice(admin: Admin) -> None:
    # the first try comes under another key, its answer never arrives, and the sender tries again under its own
    sent = headers_of(admin.alice, idempotency_key="mine")
    await refused(admin, {**sent, "idempotency-key": "another"})
    await refused(admin, {name: value for name, value in sent.items() if name != "idempotency-key"})
    for _ in range(2):
        retry = headers_of(admin.alice, idempotency_key="mine")
        assert (await put(admin, retry)).status_code == 202
    assert len(await admin.plane.approvals.seen_by(await _caller(admin))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"age": -120},
        {"age": 120},
        {"age": -90, "life": 600},
        {"life": None},
        {"life": 3600},
        {"nonce": None},
        {"nonce": "short"},
        {"nonce": "n" * 200},
        {"tag": None},
        {"tag": "tcd-other"},
        {"include_alg": False},
        {"key_id": "somebody-else"},
        {"method": "POST"},
        {"path": "/policies?x=1"},
        {"url": "http://other.test:8081"},
        {"url": "https://admin.test:8081"},
        {"body": BODY + b" "},
    ],
    ids=str,
)
async def test_a_signature_of_something_else_is_refused(admin: Admin, changes: dict[str, Any]) -> None:
    await refused(admin, headers_of(admin.alice, **changes))


async def test_the_key_has_to_be_the_tokens(admin: Admin) -> None:
    await refused(admin, headers_of(admin.alice, key=admin.bob))
    await refused(admin, headers_of(admin.alice, key=admin.bob, key_id=admin.bob.kid))


async def test_a_request_without_a_signature_is_refused(admin: Admin) -> None:
    headers = headers_of(admin.alice)
    for name in ("signature", "signature-input", "content-digest"):
        await refused(admin, {k: v for k, v in headers.items() if k.lower() != name})
    await refused(admin, {**headers, "Signature": "sig=:AAAA:"})
    await refused(admin, {**headers, "Content-Digest": "sha-256=:AAAA:"})


async def test_a_replayed_request_is_refused(admin: Admin) -> None:
    headers = headers_of(admin.alice)
    assert (await put(admin, headers)).status_code == 202
    reply = await put(admin, headers)
    assert reply.status_code == 401
    assert (await put(admin, {**headers, "idempotency-key": "another"})).status_code == 401
    assert len(await admin.plane.approvals.seen_by(await _caller(admin))) == 1


async def test_requests_may_come_in_any_order_but_each_once(admin: Admin) -> None:
    first, second = headers_of(admin.alice), headers_of(admin.alice)
    assert (await put(admin, second)).status_code == 202
    assert (await put(admin, first)).status_code == 202
    assert (await put(admin, second)).status_code == 401


async def test_a_signature_from_before_the_start_is_refused(admin: Admin) -> None:
    # a restart forgets the nonces
    admin.plane.signatures._since = int(time.time()) + 3600
    await refused(admin, headers_of(admin.alice))


async def test_when_nonces_cannot_be_remembered_nothing_gets_in(admin: Admin) -> None:
    admin.plane.store._nonces = 1
    assert (await put(admin, headers_of(admin.alice))).status_code == 202
    assert (await put(admin, headers_of(admin.alice))).status_code == 503


async def test_a_mutation_needs_an_idempotency_key(admin: Admin) -> None:
    headers = headers_of(admin.alice, covered_component_ids=COMPONENTS)
    assert (await put(admin, {k: v for k, v in headers.items() if k != "idempotency-key"})).status_code == 400
