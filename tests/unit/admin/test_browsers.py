"""One-time codes and sessions of browsers: single use, short lives, bounds, and principals that go."""

from __future__ import annotations

import itertools
import json

import pytest

from sidecar_api.admin.dashboard.browsers import (
    CODE_LIVES,
    READING,
    SESSION_LIVES,
    SESSION_RESTS,
    Browsers,
    NotSignedIn,
    same,
)
from sidecar_api.admin.principals import SCOPES, KeySet, Principals
from sidecar_api.admin.tokens import Caller
from tcd.client.admin import OperatorKey

HOST = "127.0.0.1:8081"
ALICE, BOB, CAROL = (OperatorKey.generate(name) for name in ("alice", "bob", "carol"))


def people(*, carol: list[str] | None = None, alice: OperatorKey = ALICE) -> Principals:
    keys = [alice.public(SCOPES), BOB.public(SCOPES)]
    keys += [CAROL.public(carol, tenant="acme")] if carol else []
    return Principals(KeySet.model_validate_json(json.dumps({"keys": [*keys, OTHER.public(SCOPES)]})))


OTHER = OperatorKey.generate("other")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        numbers = itertools.count(1)
        self.browsers = Browsers(random=lambda n: next(numbers).to_bytes(n, "big"), now=lambda: self.now)


def caller(principals: Principals, key: OperatorKey, scopes: frozenset[str] = frozenset(SCOPES)) -> Caller:
    principal = principals.of(key.kid)
    assert principal is not None
    return Caller(principal, frozenset(s for s in SCOPES if s in scopes) & principal.scopes, "jti")


def entered(clock: Clock, known: Principals, key: OperatorKey = ALICE) -> str:
    code = clock.browsers.code(caller(known, key), HOST)
    return clock.browsers.exchange(code, HOST, known)[0]


def test_a_code_is_good_once_and_gives_a_session_that_reads() -> None:
    clock, known = Clock(), people()
    code = clock.browsers.code(caller(known, ALICE), HOST)
    cookie, viewer = clock.browsers.exchange(code, HOST, known)
    assert viewer.principal.name == "alice"
    assert viewer.scopes == READING
    assert "policy:write" in viewer.granted - viewer.scopes
    assert clock.browsers.find(cookie, HOST, known) == viewer
    with pytest.raises(NotSignedIn):
        clock.browsers.exchange(code, HOST, known)
    # what is kept is not what lets in
    assert code not in repr(vars(clock.browsers))
    assert cookie not in repr(vars(clock.browsers))


def test_reading_is_all_that_a_session_does() -> None:
    assert all(scope.endswith(":read") or scope == "receipts:audit" for scope in READING)
    assert set(SCOPES) > READING


@pytest.mark.parametrize(("wait", "good"), [(CODE_LIVES - 1, True), (CODE_LIVES, False)])
def test_a_code_lives_two_minutes(wait: float, *, good: bool) -> None:
    clock, known = Clock(), people()
    code = clock.browsers.code(caller(known, ALICE), HOST)
    clock.now += wait
    if good:
        clock.browsers.exchange(code, HOST, known)
    else:
        with pytest.raises(NotSignedIn):
            clock.browsers.exchange(code, HOST, known)


def test_a_code_for_another_address_is_no_good_and_gone() -> None:
    clock, known = Clock(), people()
    code = clock.browsers.code(caller(known, ALICE), HOST)
    with pytest.raises(NotSignedIn):
        clock.browsers.exchange(code, "localhost:8081", known)
    with pytest.raises(NotSignedIn):
        clock.browsers.exchange(code, HOST, known)


def test_a_session_ends_when_it_rests_and_after_an_hour_whatever_it_does() -> None:
    clock, known = Clock(), people()
    cookie, other = entered(clock, known), entered(clock, known, BOB)
    begun = clock.now
    while clock.now < begun + SESSION_LIVES - SESSION_RESTS:
        clock.now += SESSION_RESTS - 1
        clock.browsers.find(cookie, HOST, known)
    with pytest.raises(NotSignedIn):
        clock.browsers.find(other, HOST, known)
    clock.now = begun + SESSION_LIVES
    with pytest.raises(NotSignedIn):
        clock.browsers.find(cookie, HOST, known)
    assert len(clock.browsers) == 0


def test_who_is_removed_or_gets_another_key_is_out_and_scopes_go_at_once() -> None:
    clock = Clock()
    known = people(carol=["receipts:read", "alpha:read", "receipts:audit"])
    cookie = entered(clock, known, CAROL)
    less = people(carol=["receipts:read"])
    assert clock.browsers.find(cookie, HOST, less).scopes == {"receipts:read"}
    assert clock.browsers.find(cookie, HOST, less).tenant == "acme"
    with pytest.raises(NotSignedIn):
        clock.browsers.find(cookie, HOST, people())
    # it does not come back with the principal
    with pytest.raises(NotSignedIn):
        clock.browsers.find(cookie, HOST, known)
    mine = entered(clock, known)
    renewed = OperatorKey("alice", ALICE.kid, OperatorKey.generate("alice").private)
    with pytest.raises(NotSignedIn):
        clock.browsers.find(mine, HOST, people(alice=renewed))


def test_codes_that_nobody_enrolled_is_behind_are_no_good() -> None:
    clock, known = Clock(), people(carol=["receipts:read"])
    code = clock.browsers.code(caller(known, CAROL), HOST)
    with pytest.raises(NotSignedIn):
        clock.browsers.exchange(code, HOST, people())
    with pytest.raises(NotSignedIn):
        clock.browsers.exchange(clock.browsers.code(caller(known, CAROL), HOST), HOST, None)


def test_a_principal_has_eight_sessions_the_oldest_goes() -> None:
    clock, known = Clock(), people()
    bob = entered(clock, known, BOB)
    cookies = [entered(clock, known) for _ in range(9)]
    with pytest.raises(NotSignedIn):
        clock.browsers.find(cookies[0], HOST, known)
    for cookie in (bob, *cookies[1:]):
        clock.browsers.find(cookie, HOST, known)
    assert len(clock.browsers) == 9


def test_a_session_is_bound_to_the_certificate_that_its_browser_showed() -> None:
    clock, known = Clock(), people()
    for mine, other in (("a" * 43, "b" * 43), ("a" * 43, ""), ("", "a" * 43)):
        cookie, viewer = clock.browsers.exchange(clock.browsers.code(caller(known, ALICE), HOST), HOST, known, mine)
        assert clock.browsers.find(cookie, HOST, known, mine) == viewer
        with pytest.raises(NotSignedIn):
            clock.browsers.find(cookie, HOST, known, other)


def test_signing_out_ends_it_and_cookies_that_are_none_are_none() -> None:
    clock, known = Clock(), people()
    cookie = entered(clock, known)
    clock.browsers.end(cookie)
    for none in (cookie, None, "", "\udcff", "0" * 64, "x" * 100_000):
        with pytest.raises(NotSignedIn):
            clock.browsers.find(none, HOST, known)


def test_forms_have_the_secret_of_their_session() -> None:
    assert same("abc", "abc")
    for given in ("", "ab", "abcd", "\udcff", "ABC"):
        assert not same(given, "abc")
    assert not same("", "")
