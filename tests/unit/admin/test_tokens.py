"""Tokens that are refused, each for one reason (RFC 8725); the answer is the same for all."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar_api.admin.principals import SCOPES
from tests.unit.admin.kit import BASE, Admin

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    return Admin(tmp_path)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(admin: Admin, change: Change | None = None, *, key: Ed25519PrivateKey | None = None) -> str:
    """A good token, changed before it is signed."""
    now = int(time.time())
    header: dict[str, Any] = {"alg": "EdDSA", "typ": "at+jwt", "kid": admin.alice.kid}
    claims: dict[str, Any] = {
        "iss": "tcd-operator", "aud": "tcd-admin", "sub": "alice", "iat": now, "nbf": now, "exp": now + 300,
        "jti": "j", "scope": "policy:read config:read",
    }  # fmt: skip
    if change is not None:
        change(header, claims)
    return signed(admin, json.dumps(header).encode(), json.dumps(claims).encode(), key=key)


def signed(admin: Admin, header: bytes, claims: bytes, *, key: Ed25519PrivateKey | None = None) -> str:
    text = f"{b64(header)}.{b64(claims)}"
    return f"{text}.{b64((key or admin.alice.private).sign(text.encode()))}"


def claim(**changes: Any) -> Change:
    def change(_: dict[str, Any], claims: dict[str, Any]) -> None:
        now = claims["iat"]
        for name, value in changes.items():
            if value is None:
                del claims[name]
            else:
                # the suite may have been collected long before
                claims[name] = value(now) if callable(value) else value

    return change


def head(**changes: Any) -> Change:
    return lambda header, _: header.update(changes)


def later(seconds: int) -> Callable[[int], int]:
    return lambda now: now + seconds


REFUSED: dict[str, Change] = {
    "alg none": head(alg="none"),
    "alg HS256": head(alg="HS256"),
    "alg Ed448": head(alg="ES256"),
    "typ JWT": head(typ="JWT"),
    "typ is a list": head(typ=["at+jwt"]),
    "typ is an object": head(typ={"at+jwt": 1}),
    "alg is a list": head(alg=["EdDSA"]),
    "kid is an object": head(kid={}),
    "iss is a list": claim(iss=["tcd-operator"]),
    "aud is an object": claim(aud={"tcd-admin": 1}),
    "sub is a list": claim(sub=["alice"]),
    "cnf is a text": claim(cnf="x"),
    "cnf is empty": claim(cnf={}),
    "cnf has more": claim(cnf={"x5t#S256": "a", "jkt": "b"}),
    "cnf is no text": claim(cnf={"x5t#S256": 1}),
    "cnf of a certificate that nobody shows": claim(cnf={"x5t#S256": "a" * 43}),
    "no kid that is pinned": head(kid="somebody-else"),
    "kid is no string": head(kid=7),
    "jku": head(jku="https://evil.example/keys"),
    "jwk": head(jwk={"kty": "OKP"}),
    "x5u": head(x5u="https://evil.example/cert"),
    "crit": head(crit=["b64"], b64=False),
    "expired": claim(iat=later(-1000), nbf=later(-1000), exp=later(-500)),
    "not yet": claim(nbf=later(1000)),
    "made in the future": claim(iat=later(1000), exp=later(1100)),
    "ten years": claim(exp=later(315_360_000)),
    "sixteen minutes": claim(exp=later(960)),
    "exp is a string": claim(exp=lambda now: str(now + 300)),
    "exp is a float": claim(exp=lambda now: now + 300.5),
    "exp is true": claim(exp=True),
    "no exp": claim(exp=None),
    "no iat": claim(iat=None),
    "no nbf": claim(nbf=None),
    "no jti": claim(jti=None),
    "jti is a number": claim(jti=7),
    "a long jti": claim(jti="j" * 129),
    "no scope": claim(scope=None),
    "scope is a list": claim(scope=["policy:read"]),
    "another issuer": claim(iss="https://evil.example"),
    "another audience": claim(aud="shim"),
    "a list of audiences": claim(aud=["tcd-admin", "other"]),
    "no audience": claim(aud=None),
    "another's name": claim(sub="bob"),
    "a claim that is not known": claim(admin=True),
}


async def status(admin: Admin, authorization: str) -> int:
    reply = await admin.send("GET", BASE + "/whoami", headers={"authorization": authorization})
    if reply.status_code == 401:
        assert reply.json()["detail"] == "a valid access token is needed"
        assert reply.headers["www-authenticate"] == "Bearer"
    return int(reply.status_code)


async def test_a_good_token_gets_in(admin: Admin) -> None:
    assert await status(admin, f"Bearer {token(admin)}") == 200
    assert await status(admin, f"Bearer {token(admin, head(typ='tcd-admin+jwt'))}") == 200


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_token_is_refused(admin: Admin, reason: str) -> None:
    assert await status(admin, f"Bearer {token(admin, REFUSED[reason])}") == 401


async def test_the_form_is_checked_before_anything_is_decoded(admin: Admin) -> None:
    good = token(admin)
    first, middle, last = good.split(".")
    # four bits of the last character stand for nothing: another one that says the same, and another signature
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same = last[:-1] + digits[digits.index(last[-1]) ^ 1]
    assert base64.urlsafe_b64decode(same + "==") == base64.urlsafe_b64decode(last + "==")
    other = last[:40] + digits[digits.index(last[40]) ^ 1] + last[41:]
    long = signed(admin, json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": "k" * 1_000_000}).encode(), b"{}")
    for bad in (
        "", good + "=", good + "==", f"{first}.{middle}.", f"{first}.{middle}", f"{good}.x", f" {good}", long,
        f"{first}.{middle}.{same}", f"{first}.{middle}.{other}",
        f"{first}.{b64(b'not json')}.{last}", f"{first}.{b64(b'[]')}.{last}",
        f"{b64(b'{}')}.{middle}.{last}", "tcd-bootstrap-" + "0" * 64,
    ):  # fmt: skip
        assert await status(admin, f"Bearer {bad}") == 401, bad[:80]
    assert await status(admin, good) == 401
    assert await status(admin, f"Basic {good}") == 401


async def test_a_member_twice_is_refused(admin: Admin) -> None:
    _, middle, _ = token(admin).split(".")
    claims = base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))
    twice = claims[:-1] + b', "scope": "principals:write"}'
    header = json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": admin.alice.kid}).encode()
    assert await status(admin, f"Bearer {signed(admin, header, claims)}") == 200
    assert await status(admin, f"Bearer {signed(admin, header, twice)}") == 401
    again = header[:-1] + b', "alg": "EdDSA"}'
    assert await status(admin, f"Bearer {signed(admin, again, claims)}") == 401


async def test_another_key_under_a_pinned_id_is_refused(admin: Admin) -> None:
    assert await status(admin, f"Bearer {token(admin, key=admin.bob.private)}") == 401
    assert await status(admin, f"Bearer {token(admin, key=Ed25519PrivateKey.generate())}") == 401


async def test_a_symmetric_signature_with_the_public_key_is_refused(admin: Admin) -> None:
    public = admin.alice.private.public_key().public_bytes_raw()
    forged = jwt.encode({"sub": "alice"}, public + b"\0" * 32, algorithm="HS256", headers={"kid": admin.alice.kid})
    assert await status(admin, f"Bearer {forged}") == 401


async def test_a_token_never_gives_more_than_its_principal_has(admin: Admin) -> None:
    said = (await admin.get("/whoami", admin.carol, SCOPES)).json()
    assert said["scopes"] == ["policy:read", "policy:write"]
    said = (await admin.get("/whoami", admin.alice, ["config:read", "no:such"])).json()
    assert said["scopes"] == ["config:read"]
    assert said["granted"] == sorted(SCOPES)


async def test_two_authorizations_are_refused(admin: Admin) -> None:
    good = f"Bearer {token(admin)}"
    reply = await admin.send("GET", BASE + "/whoami", headers=[("authorization", good), ("authorization", good)])  # type: ignore[arg-type]
    assert reply.status_code == 400
