"""Replay of an e-process snapshot from the one before: the alarm followed from the evidence, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tcd.receipts import canonical
from tcd.receipts.body import check_eproc
from tcd.receipts.errors import ReplayMismatch, SchemaMismatch
from tcd.risk_av.eprocess import START, EState, advance, mixture
from tcd.risk_av.exact import ONE, Scaled, at_least, scaled, unhex64
from tcd.risk_av.params import Terms
from tcd.risk_av.rules import rai_level
from tcd.risk_av.views import NO_DIGEST, EprocSnapshot


def snapshot_digest(snapshot: Mapping[str, Any]) -> str:
    """Digest of a snapshot: the `prev` of the next one."""
    return "sha256:" + hashlib.sha256(b"tcd/eproc/v1\0" + canonical.encode(dict(snapshot))).hexdigest()


def read_snapshot(value: Any) -> EprocSnapshot:
    """A snapshot from its JSON form.

    Raises:
        SchemaMismatch: it is none.
    """
    check_eproc(value)
    return EprocSnapshot(
        stream=value["stream"],
        params=value["params"],
        claim=value["claim"],
        step=value["step"],
        prev=value["prev"],
        x=unhex64(value["x"]),
        s=Scaled(unhex64(value["s"]), value["s_exp2"]),
        e=Scaled(unhex64(value["e"]), value["e_exp2"]),
        c=Scaled(unhex64(value["c"]), value["c_exp2"]),
        threshold=unhex64(value["threshold"]),
        trigger=value["trigger"],
        epoch=value["epoch"],
        index=value["index"],
        known=value["known"],
        alloc=unhex64(value["alloc"]),
        spent=unhex64(value["spent"]),
        wealth=unhex64(value["wealth"]),
    )


def _same(what: str, shown: object, expected: object) -> None:
    if shown != expected:
        msg = f"{what} is {shown!r}, the replay gives {expected!r}"
        raise ReplayMismatch(msg)


def _check_levels(now: EprocSnapshot, before: EprocSnapshot, terms: Terms) -> None:
    """The level and the budget of the folded hypothesis follow from the terms.

    The omega schedule needs the budget before; it is known when the earlier snapshot is the reservation before.
    The levels of other rules than `rai` depend on when rejections became known: they follow from the event log,
    not from two snapshots, and are not checked here.
    """
    _same("params", now.params, terms.digest())
    if terms.rule != "rai":
        return
    spent = terms.from_spent
    if terms.schedule[0] == "omega" and now.index != terms.from_index + 1:
        if (before.epoch, before.index, before.params) != (now.epoch, now.index - 1, now.params):
            return
        spent = before.spent
    level = rai_level(terms, now.index, spent, now.known)
    _same("alloc", now.alloc, level.alpha)
    _same("spent", now.spent, level.spent)
    _same("wealth", now.wealth, max(0.0, terms.alpha - level.spent) * (level.known + 1))


def replay_step(previous: Mapping[str, Any], current: Mapping[str, Any], terms: Mapping[str, Any]) -> EprocSnapshot:
    """Replay `current` from `previous`.

    Equal snapshots pass under their own terms: several receipts may carry one. A snapshot of step 0 has no previous
    one and is compared with the start of a claim. In which epoch a claim starts is for the `open` record to say, not
    for the replay.

    Args:
        previous: the snapshot before (JSON form).
        current: the snapshot to check (JSON form).
        terms: the terms it was reserved under (JSON form), from the `open` record of its epoch.

    Returns:
        The checked snapshot.

    Raises:
        ReplayMismatch: it does not follow, or is linked to another snapshot.
        SchemaMismatch: one of the three is malformed.
    """
    now, before = read_snapshot(current), read_snapshot(previous)
    try:
        agreed = Terms.from_json(terms)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"terms: {error}"
        raise SchemaMismatch(msg) from error
    if now == before:
        if now.step == 0:
            return check_start(now, agreed)
        _same("params", now.params, agreed.digest())
        return now
    _same("prev", now.prev, snapshot_digest(previous))
    _same("step", now.step, before.step + 1)
    for name in ("stream", "claim", "threshold"):
        _same(name, getattr(now, name), getattr(before, name))
    follows = now.index == before.index + 1 if now.epoch == before.epoch else now.index == 1
    if before.step and (now.epoch < before.epoch or not follows):
        msg = f"reservation {now.epoch}/{now.index} is not the one after {before.epoch}/{before.index}"
        raise ReplayMismatch(msg)
    if not 0.0 <= now.x <= 1.0:
        msg = "x is no p-value"
        raise ReplayMismatch(msg)
    state = advance(EState(before.step, before.s, before.c), now.x)
    m = mixture(state)
    _same("s", now.s, state.s)
    _same("e", now.e, m)
    _same("c", now.c, state.c)
    _same("trigger", now.trigger, before.trigger or at_least(m, scaled(before.threshold)))
    _check_levels(now, before, agreed)
    return now


def check_start(snapshot: EprocSnapshot, terms: Terms) -> EprocSnapshot:
    """Check a snapshot of step 0 against the terms of its claim.

    Raises:
        ReplayMismatch: it is not the start of a claim under these terms.
    """
    expected = EprocSnapshot(
        stream=snapshot.stream,
        params=terms.digest(),
        claim=snapshot.claim,
        step=0,
        prev=NO_DIGEST,
        x=1.0,
        s=START.s,
        e=ONE,
        c=START.c,
        threshold=1.0 / terms.alpha_e,
        trigger=False,
    )
    _same("the start", snapshot, expected)
    return snapshot
