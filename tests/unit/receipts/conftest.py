"""Honest receipts to attack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tcd.receipts import (
    ChainState,
    Issuer,
    KeySet,
    Receipt,
    SigningKey,
    VerifyPolicy,
    chain_id,
    jcs,
    segment,
    subject_digest,
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
from tcd.risk_av import Controller, ControllerParams, Settlement
from tests.unit.receipts.simulator import LogSimulator, seed

CONFIG = "sha256:" + "c0" * 32
POLICY = "sha256:" + "b0" * 32
REQUEST = {"trace_vector": [-0.25, -1.5, 0.0, 1e-7], "session": "s0", "context": {"temperature": 0.7, "ä": None}}
COMPONENTS = {"invertibility": {"severity": 0.5}}
E_OBJECT = {"e_process": 1.25, "alarm": False}
SIGNALS = {"trace": [-0.25, -1.5, 0.0], "entropy": [2.0], "spectrum": [3.0, 2.0, 0.5], "features": []}
PARAMS = ControllerParams(schedule=("uniform", 4))


def issuer(seed: int = 1, origin: str = "tcd.example") -> Issuer:
    return Issuer(SigningKey(hashlib.sha256(bytes([seed])).digest()), origin=origin)


def nonce(n: int) -> bytes:
    return hashlib.sha256(b"nonce%d" % n).digest()[:16]


def salt(n: int) -> bytes:
    return hashlib.sha256(b"salt%d" % n).digest()[:16]


@dataclass
class Session:
    """One session: a controller, an issuer, the receipts so far; `before` is for a snapshot to replay from."""

    issuer: Issuer = field(default_factory=issuer)
    name: str = "s0"
    tenant: str = "acme"
    controller: Controller = field(default_factory=lambda: Controller(PARAMS))
    receipts: list[Receipt] = field(default_factory=list)
    count: int = 0
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def chain(self) -> ChainState:
        if self.receipts:
            return self.receipts[-1].next()
        return ChainState(chain_id("session", self.tenant, self.name))

    def issue(self, typ: str, members: dict[str, Any]) -> Receipt:
        self.count += 1
        receipt = self.issuer.issue(
            chain=self.chain,
            typ=typ,
            tenant=self.tenant,
            config=CONFIG,
            policy=POLICY,
            members=members,
            ts_us=1_760_000_000_000_000 + self.count,
            nonce=nonce(self.count),
        )
        self.receipts.append(receipt)
        return receipt

    @property
    def subject(self) -> str:
        return subject_digest(b"0123456789abcdef", self.tenant, "u0", self.name)

    def open(self) -> Receipt:
        model = Model("model0", "gpu0", "chat", "en")
        return self.issue(
            "open",
            open_session_members(
                subject=self.subject,
                model=model,
                unit="session",
                keys=(1, 2, 2**64 - 1),
                mask=15,
                assets=(7, 8, 0),
                weight=0.5,
            ),
        )

    def fold(self, p: float) -> Settlement:
        """One whole hypothesis of the stream, so that the e-process moves."""
        name = f"h{self.count}-{p}"
        level = self.controller.reserve(stream="acme", hypothesis=name).alpha
        self.controller.settle(stream="acme", hypothesis=name, p=p, trigger=p <= level)
        done = self.controller.close(stream="acme", hypothesis=name, reason="end")
        assert done is not None
        return done

    def decision(self, p: float = 0.25, **changes: Any) -> Receipt:
        reservation = self.controller.reserve(stream="acme", hypothesis=self.name)
        settled = self.controller.settle(stream="acme", hypothesis=self.name, p=p, trigger=p <= reservation.alpha)
        members = decision_members(
            subject=self.subject,
            model=Model("model0", "gpu0", "chat", "en"),
            req=jcs.digest(REQUEST),
            comp=jcs.digest(COMPONENTS),
            e=jcs.digest(E_OBJECT),
            decision=Decision(False, settled.trigger, 0.75, 0.5, "degrade", "allow", "detector", self.count, 1, ("é",)),
            route=Route(0.7, 0.95, 256, "default", "cautious"),
            components={"invertibility": Component(True, 0.5, 0.01, -3.5)},
            av=av_members(reservation, settled, unit="session", p_floor=0.001, sup=(-1e300, 2.5)),
            eproc=self.controller.state("acme").snapshot,
            witness=[segment(n, np.asarray(v), salt(i)) for i, (n, v) in enumerate(SIGNALS.items())],
            guarantee="none (test)",
            assets=(7, 8, 0),
        )
        members.update(changes)
        return self.issue("decision", members)

    def close(self) -> Receipt:
        return self.issue("close", close_members(reason="end", count=self.chain.seq + 1))


@pytest.fixture
def session() -> Session:
    made = Session()
    made.open()
    for p in (0.5, 0.01, 0.3):
        made.fold(p)
    made.decision()
    return made


@pytest.fixture
def make_session() -> Callable[..., Session]:
    return Session


@pytest.fixture
def policy(session: Session) -> VerifyPolicy:
    return VerifyPolicy(KeySet([session.issuer.pinned()]))


def logged(session: Session, *, others: int, witnesses: int) -> LogSimulator:
    """A log with other entries before those of a session."""
    made = LogSimulator(witnesses=witnesses)
    for number in range(others):
        made.tree.append(seed(f"other{number}"))
    made.add(session.receipts)
    return made


@pytest.fixture
def log(session: Session) -> LogSimulator:
    """A session of an open record, two decisions and a close record, after three other entries."""
    session.decision()
    session.close()
    return logged(session, others=3, witnesses=2)


@pytest.fixture
def log_policy(session: Session, log: LogSimulator) -> VerifyPolicy:
    """Demands all of the log: both algorithms and the quorum."""
    return log.policy(session.issuer.pinned())
