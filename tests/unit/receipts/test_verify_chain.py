"""Attacks on chains: rows 14, 15, 16 and 27."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tcd.errors import InvalidRequest, TooLarge, ValidationFailed
from tcd.receipts import Anchor, KeySet, Receipt, Report, VerifyPolicy, canonical, chain_id, verify_chain
from tcd.receipts.body import head_of
from tests.unit.receipts.conftest import Session


@pytest.fixture
def chain(session: Session) -> list[Receipt]:
    for _ in range(3):
        session.decision()
    session.close()
    return session.receipts


def run(receipts: list[Receipt], policy: VerifyPolicy, *, signed: bool = True, **options: Any) -> Report:
    return verify_chain(
        [r.body_text for r in receipts],
        heads=[r.head_hex for r in receipts],
        sigs=[r.sig_hex for r in receipts] if signed else None,
        policy=policy,
        **options,
    )


def status(report: Report, name: str) -> str:
    return next(c.status for c in report.checks if c.name == name)


def test_an_honest_chain(chain: list[Receipt], policy: VerifyPolicy) -> None:
    report = run(chain, policy)
    assert (report.ok, report.first_bad, report.trust) == (True, None, "server")
    assert status(report, "tail") == "pass"
    assert run(chain[:1], policy).ok
    assert run(chain[2:4], policy, start=Anchor(1, chain[1].head_hex), end=Anchor(3, chain[3].head_hex)).ok


def test_without_signatures_only_the_links_are_claimed(chain: list[Receipt], policy: VerifyPolicy) -> None:
    report = run(chain, policy, signed=False)
    assert (report.ok, report.trust, status(report, "signature")) == (True, "none", "absent")
    demanding = VerifyPolicy(policy.keys, require_chain=frozenset({"signature"}))
    report = run(chain, demanding, signed=False)
    assert (report.ok, report.code) == (False, "skipped")


def _swapped(receipts: list[Receipt], i: int) -> list[Receipt]:
    out = list(receipts)
    out[i], out[i + 1] = out[i + 1], out[i]
    return out


@pytest.mark.parametrize(
    ("change", "code", "first"),
    [
        (lambda c: c[1:], "seq_gap", 0),
        (lambda c: [*c[:2], *c[3:]], "seq_gap", 2),
        (lambda c: _swapped(c, 1), "seq_gap", 1),
        (lambda c: _swapped(c, 3), "seq_gap", 3),
        (lambda c: [*c[:2], *c[1:]], "seq_gap", 2),
    ],
)
def test_row_14_dropped_swapped_and_repeated(
    chain: list[Receipt], policy: VerifyPolicy, change: Callable[[list[Receipt]], list[Receipt]], code: str, first: int
) -> None:
    for signed in (True, False):
        report = run(change(chain), policy, signed=signed)
        assert (report.ok, report.code, report.first_bad) == (False, code, first)


def test_row_14_a_fork(session: Session, policy: VerifyPolicy) -> None:
    before = list(session.receipts)
    session.decision()
    fork = Session(issuer=session.issuer, receipts=before)
    fork.count = 50
    fork.decision()
    both = [*session.receipts, fork.receipts[-1]]
    assert session.receipts[-1].seq == fork.receipts[-1].seq
    report = run(both, policy)
    assert (report.ok, report.code, report.first_bad) == (False, "fork", 3)


def test_row_14_splices_and_relabelled_replays(
    chain: list[Receipt], policy: VerifyPolicy, make_session: Callable[..., Session]
) -> None:
    other = make_session(name="s1")
    other.open()
    for _ in range(4):
        other.decision()
    report = run([*chain[:2], *other.receipts[2:4]], policy)
    assert (report.ok, report.code, report.first_bad) == (False, "chain_id", 2)
    relabelled = []
    for receipt in chain:
        value = json.loads(receipt.body)
        value["chain"]["id"] = chain_id("session", "acme", "s9")
        relabelled.append(canonical.encode(value))
    heads = [head_of(body).hex() for body in relabelled]
    report = verify_chain(relabelled, heads=heads, policy=policy)
    assert (report.ok, report.code, report.first_bad) == (False, "prev_mismatch", 1)
    report = verify_chain(relabelled, heads=[r.head_hex for r in chain], policy=policy)
    assert (report.ok, report.code) == (False, "head_mismatch")
    report = verify_chain(relabelled[:1], heads=heads[:1], sigs=[chain[0].sig_hex], policy=policy)
    assert (report.ok, report.code) == (False, "bad_signature")


def test_row_15_a_truncated_tail(chain: list[Receipt], policy: VerifyPolicy) -> None:
    report = run(chain[:-1], policy)
    assert (report.ok, status(report, "tail")) == (True, "absent")  # cannot be told, and says so
    report = run(chain[:-1], VerifyPolicy(policy.keys, require_chain=frozenset({"tail"})))
    assert (report.ok, report.code) == (False, "skipped")
    end = Anchor(chain[-1].seq, chain[-1].head_hex)
    assert run(chain, policy, end=end).ok
    report = run(chain[:-1], policy, end=end)
    assert (report.ok, report.code, report.first_bad) == (False, "truncated", len(chain) - 2)
    report = run(chain, policy, end=Anchor(end.seq, "0" * 64))
    assert (report.ok, report.code) == (False, "fork")


def test_row_16_arrays_that_do_not_fit(chain: list[Receipt], policy: VerifyPolicy) -> None:
    bodies, heads = [r.body for r in chain], [r.head_hex for r in chain]
    for b, h, s in (([], [], None), (bodies[1:], heads, None), (bodies, heads[1:], None), (bodies, heads, ["00"])):
        with pytest.raises(InvalidRequest):
            verify_chain(b, heads=h, sigs=s, policy=policy)
    with pytest.raises(InvalidRequest):
        run(chain[::-1], policy)
    report = verify_chain(bodies, heads=heads[::-1], policy=policy)
    assert (report.ok, report.code, report.first_bad) == (False, "head_mismatch", 0)


def test_row_27_time_going_back(session: Session, policy: VerifyPolicy) -> None:
    value = json.loads(session.decision().body)
    value["ts_us"] = 5
    body = canonical.encode(value)
    bodies = [*(r.body for r in session.receipts[:-1]), body]
    report = verify_chain(bodies, heads=[head_of(b).hex() for b in bodies], policy=policy)
    assert (report.ok, report.code, report.first_bad) == (False, "time_order", 2)


def test_one_bad_record_is_named(chain: list[Receipt], policy: VerifyPolicy) -> None:
    bodies = [r.body for r in chain]
    bodies[3] = bodies[3].replace(b'"cause":"detector"', b'"cause":"policy"')
    report = verify_chain(bodies, heads=[r.head_hex for r in chain], sigs=[r.sig_hex for r in chain], policy=policy)
    assert (report.ok, report.code, report.first_bad, report.trust) == (False, "head_mismatch", 3, "none")
    bodies[3] = b"{}"
    report = verify_chain(bodies, heads=[r.head_hex for r in chain], policy=policy)
    assert (report.ok, report.code, report.first_bad) == (False, "schema", 3)


def test_anchors_at_the_start(chain: list[Receipt], policy: VerifyPolicy) -> None:
    assert run(chain[2:], policy, start=Anchor(1, chain[1].head_hex)).ok
    assert run(chain[2:], policy, start=Anchor(1, chain[0].head_hex)).code == "prev_mismatch"
    assert run(chain[2:], policy, start=Anchor(5, chain[1].head_hex)).code == "seq_gap"


def test_limits(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[0]
    many = [receipt] * 1025
    with pytest.raises(ValidationFailed):
        run(many, policy, signed=False)
    assert run(many[:1024], policy, signed=False).code == "seq_gap"
    with pytest.raises(TooLarge):
        verify_chain(["x" * 500_000] * 9, heads=["0" * 64] * 9, policy=policy)


def test_a_chain_of_1024(make_session: Callable[..., Session]) -> None:
    made = make_session()
    made.open()
    for _ in range(1022):
        made.issue("gap", {"gap": {"from": 0, "to": 0, "reason": "test"}})
    made.close()
    policy = VerifyPolicy(KeySet([made.issuer.pinned()]))
    assert len(made.receipts) == 1024
    assert run(made.receipts, policy).ok
