"""Arbitrary input to the parsers and the verifier; many honest receipts; both encoders against each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from tcd.errors import VerificationError
from tcd.receipts import (
    ChainState,
    Issuer,
    KeySet,
    Receipt,
    SigningKey,
    VerifyPolicy,
    canonical,
    chain_id,
    jcs,
    segment,
    subject_digest,
    verify_chain,
    verify_single,
)
from tcd.receipts.records import (
    Component,
    Decision,
    Model,
    Route,
    av_members,
    close_members,
    decision_members,
    open_session_members,
)
from tcd.receipts.report import SINGLE
from tcd.risk_av import Controller, Terms

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20), max_size=20)
PROFILE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=20,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(-1e300, 1e300), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)
KEY = SigningKey(bytes(range(32)))
ISSUER = Issuer(KEY, origin="tcd.example")
POLICY = VerifyPolicy(KeySet([ISSUER.pinned()]))
D = "sha256:" + "d" * 64


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PROFILE)
def test_the_profile_round_trips_and_is_rfc_8785(value: Any) -> None:
    if _depth(value) > canonical.MAX_DEPTH:
        with pytest.raises(VerificationError):
            canonical.encode(value)
        return
    body = canonical.encode(value)
    assert canonical.parse(body) == value
    assert body == rfc8785.dumps(value) == jcs.encode(value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(JSON)
def test_jcs_equals_the_oracle(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        with pytest.raises(ValueError, match=r".+"):
            jcs.encode(value)
        return
    assert jcs.encode(value) == expected


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text('{}[]",:\\u0019aé-+.eE tfn\n', max_size=40).map(str.encode),
        JSON.map(lambda v: json.dumps(v, ensure_ascii=False).encode(errors="replace")),
        PROFILE.map(lambda v: json.dumps(v, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()),
    )
)
def test_parse_takes_exactly_what_encode_writes(body: bytes) -> None:
    try:
        value = canonical.parse(body)
    except VerificationError:
        return
    assert canonical.encode(value) == body


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=40), JSON.map(json.dumps)), st.text(max_size=80), st.text())
def test_the_verifier_decides_any_input(body: bytes | str, head: str, sig: str) -> None:
    report = verify_single(body, head=head, sig=sig, policy=POLICY, verify_key=sig)
    assert not report.ok
    assert report.code != "ok"
    assert tuple(c.name for c in report.checks) == SINGLE


def _session(
    number: int, controller: Controller, rng: np.random.Generator, receipts: list[Receipt], history: dict[str, Any]
) -> Iterator[None]:
    """One honest session of random length on a shared controller; it stops where others may run."""
    name = f"s{number}"
    state = ChainState(chain_id("session", "t", name))
    subject = subject_digest(b"k" * 16, "t", "u", name)
    model = Model("m", lang="日本語")
    pins = {"keys": (1, 2, 3), "mask": 7, "assets": (4, 5, 6), "weight": 0.5}
    members = open_session_members(subject=subject, model=model, unit="session", **pins)  # type: ignore[arg-type]

    def issue(typ: str, members: dict[str, Any]) -> None:
        nonlocal state
        nonce = hashlib.sha256(f"{name}{state.seq}".encode()).digest()[:16]
        ts_us = int(rng.integers(10**15, 10**15 + 50))  # a clock that jumps
        receipt = ISSUER.issue(
            chain=state, typ=typ, tenant="t", config=D, policy=D, members=members, ts_us=ts_us, nonce=nonce
        )
        receipts.append(receipt)
        state = receipt.next()

    issue("open", members)
    yield
    final = float(rng.random())
    for step in range(int(rng.integers(1, 12))):
        got = controller.reserve(stream="t", hypothesis=name)
        yield
        p = min(1.0, final * (12 - step))
        settled = controller.settle(stream="t", hypothesis=name, p=p, trigger=p <= got.alpha)
        values = rng.normal(size=int(rng.integers(0, 20))).astype(np.float32) * 10.0 ** rng.integers(-30, 30)
        issue(
            "decision",
            decision_members(
                subject=subject,
                model=model,
                req=jcs.digest({"v": values.tolist()}),
                comp=D,
                e=D,
                decision=Decision(settled.trigger, settled.trigger, 1 - p, 0.5, "allow", "allow", "", step),
                route=Route(0.7, 0.9, 64, "default", "normal"),
                components={"invertibility": Component(False, 0.0, p, -0.0)},
                av=av_members(got, settled, unit="session", p_floor=0.001, sup=(-1e300, float(rng.normal()))),
                eproc=controller.state("t").snapshot,
                witness=[segment("trace", values, bytes(16))],
                guarantee="none (test)",
                assets=(1, 2, 2**64 - 1),
            ),
        )
        yield
    done = controller.close(stream="t", hypothesis=name, reason="end")
    assert done is not None
    history.update({snapshot.digest(): snapshot.to_json() for snapshot in done.folded})
    issue("close", close_members(reason="end", count=state.seq + 1, eproc=controller.state("t").snapshot))
    yield


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_no_honest_receipt_is_refused(count: int) -> None:
    rng = np.random.default_rng(8)
    controller = Controller()
    start = controller.state("t").snapshot
    history: dict[str, Any] = {start.digest(): start.to_json()}
    chains: list[list[Receipt]] = [[] for _ in range(count)]
    waiting = [_session(i, controller, rng, receipts, history) for i, receipts in enumerate(chains)]
    running: list[Iterator[None]] = []
    while waiting or running:
        while waiting and len(running) < 32:
            running.append(waiting.pop())
        chosen = int(rng.integers(len(running)))
        if next(running[chosen], "over") == "over":
            del running[chosen]
    terms = Terms.of(controller.params).to_json()
    replayed = 0
    for receipts in chains:
        heads, sigs = [r.head_hex for r in receipts], [r.sig_hex for r in receipts]
        assert verify_chain([r.body for r in receipts], heads=heads, sigs=sigs, policy=POLICY).ok
        for before, receipt in zip([None, *receipts], receipts, strict=False):
            snapshot = canonical.parse(receipt.body).get("eproc")
            step = snapshot is not None and snapshot["step"] > 0
            report = verify_single(
                receipt.body_text,
                head=receipt.head_hex,
                sig=receipt.sig_hex,
                policy=POLICY,
                previous=None if before is None else before.body_text,
                previous_eproc=history[snapshot["prev"]] if step else snapshot,
                terms=terms if snapshot is not None else None,
            )
            assert report.ok, report
            replayed += step
    assert sum(map(len, chains)) > 6 * count
    assert replayed > 4 * count
