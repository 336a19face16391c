"""Hostile tokens and signatures: whatever comes, the parsers refuse it in their own words or it is what was signed."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar_api.admin.principals import SCOPES, KeySet, Principals
from sidecar_api.admin.signatures import BadSignature, Message, Signatures
from sidecar_api.admin.store import memory_store
from sidecar_api.admin.tokens import BadToken, Tokens
from tcd.client.admin import COMPONENTS, IF_PRESENT, OperatorKey, sign

ALICE, BOB = OperatorKey.generate("alice"), OperatorKey.generate("bob")
PRINCIPALS = Principals(KeySet.model_validate_json(json.dumps({"keys": [k.public(SCOPES) for k in (ALICE, BOB)]})))
NOW = int(time.time())
URL = "http://admin.test:8081/admin/v1/policies"
BODY = b'{"files": {}}'

#: JSON with the members that tokens have, and others.
NAMES = st.sampled_from(["alg", "typ", "kid", "crit", "jwk", "iss", "aud", "sub", "iat", "nbf", "exp", "jti", "cnf"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["EdDSA", "at+jwt", "alice", ALICE.kid, "tcd-operator", "tcd-admin", NOW, NOW + 60, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8)


#: The same cases in each run; the long one has others, each time.
FEW = settings(max_examples=40, deadline=None, derandomize=True)
MANY = settings(max_examples=10_000, deadline=None)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refused(token: str) -> bool:
    try:
        Tokens(PRINCIPALS, now=lambda: NOW).verify(f"Bearer {token}", certificate=b"x")
    except BadToken as error:
        return bool(error.why) and str(error) == "a valid access token is needed"
    return False


def signed(header: Any, claims: Any, key: OperatorKey = ALICE) -> str:
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(key.private.sign(text.encode()))}"


GOOD = {
    "iss": "tcd-operator", "aud": "tcd-admin", "sub": "alice", "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "j",
    "scope": "config:read",
}  # fmt: skip
HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": ALICE.kid}


@FEW
@given(st.text(max_size=200) | st.text("abcXYZ019-_.=", max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    assert refused(text)


@FEW
@given(OBJECTS, OBJECTS)
def test_whatever_a_key_signs_is_a_token_only_when_it_says_all_that_a_token_says(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    assert refused(signed(header, claims))
    # with one member changed, and the rest good
    for name in claims.keys() & GOOD.keys() - {"jti"}:
        if claims[name] != GOOD[name] and not (name in {"iat", "nbf", "exp"} and type(claims[name]) is int):
            assert refused(signed(HEADER, {**GOOD, name: claims[name]}))
    if "cnf" in claims:
        assert refused(signed(HEADER, {**GOOD, "cnf": claims["cnf"]}))


@FEW
@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(min_size=64, max_size=64))
def test_no_bytes_are_a_token(header: bytes, claims: bytes, signature: bytes) -> None:
    assert refused(f"{b64(header)}.{b64(claims)}.{b64(signature)}")


@FEW
@given(st.data())
def test_one_character_of_a_good_token_changed_is_none(data: st.DataObject) -> None:
    token = signed(HEADER, GOOD)
    assert not refused(token)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda c: c != token[at]))
    assert refused(token[:at] + other + token[at + 1 :])


@pytest.mark.parametrize("depth", [10, 1000, 2500])
def test_deep_json_is_refused(depth: int) -> None:
    deep = b64(b"[" * depth + b"]" * depth)
    assert refused(f"{deep}.{deep}.{b64(bytes(64))}")


# ---------------------------------------------------------------- signatures


def message(**changes: str) -> Message:
    token = ALICE.token(SCOPES)
    headers = sign(ALICE, "PUT", URL, {"authorization": f"Bearer {token}", "idempotency-key": "k"}, BODY)
    found = {name.lower(): value for name, value in headers.items()}
    return Message("PUT", URL, {"host": "admin.test:8081", **found, **changes}, BODY)


async def outcomes(*messages: Message) -> list[str]:
    """What becomes of requests that come one after the other."""
    store = memory_store()
    verifier = Signatures(store, now=time.time)
    # on a busy machine a message may be seconds older than its verifier
    verifier._since = 0
    alice = PRINCIPALS.of(ALICE.kid)
    assert alice is not None

    async def outcome(one: Message) -> str:
        try:
            await verifier.verify(one, alice)
        except BadSignature as error:
            return error.why if str(error) == "a valid signature of this request is needed" else "in"
        return "in"

    said = [await outcome(one) for one in messages]
    await store.close()
    return said


PARAMETER = st.sampled_from(
    [
        "created=1", f"created={NOW}", f"created={10**15 - 1}", "created=-1", "created=1.5", 'created="1"', "created",
        f"expires={NOW + 60}", 'nonce="0123456789abcdef"', "nonce=:AAAA:", 'tag="tcd-admin"', 'alg="ed25519"',
        'alg="hmac-sha256"', f'keyid="{ALICE.kid}"', f'keyid="{BOB.kid}"', "keyid=token", 'x="\\""',
    ]
)  # fmt: skip
COMPONENT = st.sampled_from(
    [
        *(f'"{name}"' for name in (*COMPONENTS, *IF_PRESENT)),
        '"@signature-params"', '"@query"', '"@query-param";name="x"', '"@path"',
        '"@status"', '"@request-target"', '"@method";req', '"content-digest";sf', '"content-digest";key="sha-256"',
        '"content-type";bs', '"authorization";tr', '"no-such"', '""', '"@"', "1", "?1", ":AAAA:", '"@METHOD"', "a",
    ]
)  # fmt: skip
INPUTS = st.one_of(
    st.builds(
        lambda label, covered, parameters: f"{label}=({' '.join(covered)});{';'.join(parameters)}",
        st.sampled_from(["sig", "sig1", "*", "SIG", "a"]),
        st.lists(COMPONENT, max_size=8),
        st.lists(PARAMETER, max_size=8),
    ),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=60),
)
ANY = st.one_of(
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=60),
    st.sampled_from(["sig=:AAAA:", "sig=1", "sig=()", "sig", "sig=:=:", "sha-256=:AAAA:", "sha-1=:AAAA:", "a=?1"]),
)


@FEW
@given(INPUTS, ANY, ANY)
def test_no_headers_that_nobody_signed_are_a_signature(given_input: str, signature: str, digest: str) -> None:
    bad = message(**{"signature-input": given_input})
    (why,) = asyncio.run(outcomes(bad))
    assert why != "in"
    bad = message(**{"signature-input": given_input, "signature": signature, "content-digest": digest})
    (why,) = asyncio.run(outcomes(bad))
    assert why != "in"


@FEW
@given(st.data())
def test_one_character_changed_is_refused_or_is_the_same_signature_of_the_same_request(data: st.DataObject) -> None:
    good = message()
    name = data.draw(st.sampled_from(["signature-input", "signature", "content-digest", "authorization"]))
    value = good.headers[name]
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(min_codepoint=0, max_codepoint=255).filter(lambda c: c != value[at]))
    changed = Message(good.method, good.url, {**good.headers, name: value[:at] + other + value[at + 1 :]}, good.body)
    first, second = asyncio.run(outcomes(changed, good))
    # another spelling of the same: then the real one is its replay
    assert second == ("replayed" if first == "in" else "in"), (name, value, at, other)


FUZZ = [
    test_no_text_is_a_token,
    test_whatever_a_key_signs_is_a_token_only_when_it_says_all_that_a_token_says,
    test_no_bytes_are_a_token,
    test_one_character_of_a_good_token_changed_is_none,
    test_no_headers_that_nobody_signed_are_a_signature,
    test_one_character_changed_is_refused_or_is_the_same_signature_of_the_same_request,
]


@pytest.mark.long
@pytest.mark.parametrize("fuzz", FUZZ, ids=lambda fuzz: str(fuzz.__name__))
def test_many(fuzz: Any) -> None:
    made = given(**fuzz.hypothesis._given_kwargs)(fuzz.hypothesis.inner_test)
    MANY(made)()
