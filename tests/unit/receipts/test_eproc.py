"""Row 26: an e-process snapshot that does not follow is found, even re-signed by the issuer's own key."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tcd.receipts import VerifyPolicy, canonical, replay_step, snapshot_digest, verify_single
from tcd.receipts.body import head_of, signature_input
from tcd.receipts.eproc import read_snapshot
from tcd.receipts.errors import ReplayMismatch, SchemaMismatch
from tcd.risk_av import Controller, ControllerParams, EpochOpened, Terms, hex64
from tests.unit.receipts.conftest import Session


def snapshots(params: ControllerParams, ps: list[float], reload_at: int = -1) -> list[tuple[dict[str, Any], Terms]]:
    """Snapshots of a run with the terms each was reserved under; all reserved before the first is folded."""
    controller = Controller(params)
    controller.reserve(stream="s", hypothesis="first")
    out = [(controller.state("s").snapshot.to_json(), Terms.of(params))]
    controller.close(stream="s", hypothesis="first", reason="abandoned")
    made = [(controller.state("s").snapshot.to_json(), Terms.of(params))]
    for i, p in enumerate(ps):
        if i == reload_at:
            controller.configure(ControllerParams(alpha=0.02, schedule=params.schedule))
        got = controller.reserve(stream="s", hypothesis=str(i))
        terms = controller._streams["s"].epochs[got.epoch].rule.terms
        controller.settle(stream="s", hypothesis=str(i), p=p, trigger=p <= got.alpha)
        done = controller.close(stream="s", hypothesis=str(i), reason="end")
        assert done is not None
        made += [(snapshot.to_json(), terms) for snapshot in done.folded]
    return out + made


PS = [0.5, 0.002, 0.0, 1.0, 0.3, 1e-300, 0.25, 0.04, 0.9, 0.7, 0.001]


@pytest.mark.parametrize("schedule", [("uniform", 4), ("omega", 0.1)])
@pytest.mark.parametrize("reload_at", [-1, 2, 5])
def test_every_honest_step_replays_bit_for_bit(schedule: Any, reload_at: int) -> None:
    run = snapshots(ControllerParams(schedule=schedule), PS, reload_at)
    assert len(run) == len(PS) + 2
    for (before, _), (now, terms) in pairwise(run):
        snapshot = replay_step(before, now, terms.to_json())
        assert snapshot.to_json() == now
        assert snapshot.digest() == snapshot_digest(now)
        replay_step(now, now, terms.to_json())
    assert run[-1][0]["trigger"] is True


def flip(text: str) -> str:
    return hex64(1.75) if text != hex64(1.75) else hex64(1.5)


@pytest.mark.parametrize("name", sorted(set(snapshots(ControllerParams(), [0.5])[0][0]) - {"kind"}))
@pytest.mark.parametrize("step", [1, 3])
def test_every_member_is_bound(name: str, step: int) -> None:
    run = snapshots(ControllerParams(schedule=("uniform", 4)), PS)
    (before, _), (now, terms) = run[step - 1], run[step]
    if (name, step) == ("epoch", 1):
        return  # the start of a claim: bound by the open record of the epoch
    value = now[name]
    if isinstance(value, bool):
        changed: Any = not value
    elif isinstance(value, int):
        changed = value + 1
    else:
        changed = "sha256:" + "0" * 63 + "1" if value.startswith("sha256:") else flip(value)
    with pytest.raises(ReplayMismatch):
        replay_step(before, {**now, name: changed}, terms.to_json())
    other = {**terms.to_json(), "alpha": hex64(0.06)}
    with pytest.raises(ReplayMismatch):
        replay_step(before, now, other)


def test_a_start_is_checked_against_its_terms() -> None:
    (start, terms), *_ = snapshots(ControllerParams(), [])
    replay_step(start, start, terms.to_json())
    for change in ({"s": hex64(1.0)}, {"trigger": True}, {"threshold": hex64(5.0)}, {"spent": hex64(0.01)}):
        with pytest.raises(ReplayMismatch):
            replay_step({**start, **change}, {**start, **change}, terms.to_json())


@pytest.mark.parametrize(
    "terms", [{}, {"alpha": 1}, None, {"schedule": "x"}, {"kappa": hex64(0.25)}, {"from_index": -1}]
)
def test_malformed_terms_and_snapshots(terms: Any) -> None:
    (start, good), *_ = snapshots(ControllerParams(), [])
    bad = {**good.to_json(), **terms} if terms else terms
    with pytest.raises(SchemaMismatch):
        replay_step(start, start, bad)
    with pytest.raises(SchemaMismatch):
        read_snapshot({**start, "extra": 1})


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(wealth=hex64(0.5)),
        lambda e: e.update(e=flip(e["e"])),
        lambda e: e.update(e_exp2=e["e_exp2"] + 1),
        lambda e: e.update(trigger=not e["trigger"]),
        lambda e: e.update(params="sha256:" + "0" * 64),
        lambda e: e.update(x=hex64(0.9)),
        lambda e: e.update(step=e["step"] + 1),
    ],
)
def test_a_resigned_alteration_is_a_replay_mismatch(
    session: Session, policy: VerifyPolicy, change: Callable[[dict[str, Any]], object]
) -> None:
    before = session.receipts[-1]
    session.controller.close(stream="acme", hypothesis="s0", reason="end")
    value = json.loads(session.decision().body)
    terms = Terms.of(session.controller.params).to_json()
    for altered in (False, True):
        if altered:
            change(value["eproc"])
        body = canonical.encode(value)
        head = head_of(body)
        key = session.issuer._key
        sig = key.sign(signature_input(suite="Ed25519", kid=key.kid, head=head)).hex()
        report = verify_single(
            body, head=head.hex(), sig=sig, policy=policy, previous=before.body,
            previous_eproc=json.loads(before.body)["eproc"], terms=terms,
        )  # fmt: skip
        assert (report.ok, report.code) == ((False, "replay_mismatch") if altered else (True, "ok"))


def test_a_requested_replay_without_the_right_snapshot_is_skipped(session: Session, policy: VerifyPolicy) -> None:
    before = session.receipts[-1]
    session.controller.close(stream="acme", hypothesis="s0", reason="end")
    session.fold(0.03)
    receipt = session.decision()
    terms = Terms.of(session.controller.params).to_json()
    report = verify_single(
        receipt.body, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy, previous=before.body, terms=terms
    )
    assert (report.ok, report.code) == (False, "skipped")


def test_the_terms_are_those_of_the_epoch_event(session: Session) -> None:
    opened = next(event for event in session.controller.events if isinstance(event, EpochOpened))
    assert session.controller.state("acme").params == Terms.of(opened.params).digest()
    assert Terms.from_json(Terms.of(opened.params).to_json()) == Terms.of(opened.params)
