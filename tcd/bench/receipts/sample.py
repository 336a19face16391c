"""Receipts to measure with: a session of decisions of the size that the targets name, made by the library alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tcd.receipts import ChainState, Issuer, Receipt, Signer, chain_id, segment
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
from tcd.risk_av import Controller, ControllerParams

ORIGIN: Final = "tcd.example"
DIGEST: Final = "sha256:" + "d" * 64
_COMPONENTS: Final = ("disagreement", "invertibility", "entropy_drop")
_MODEL: Final = Model("model0", "gpu0", "chat", "en")


def seed(name: str) -> bytes:
    """A secret that is none."""
    return hashlib.sha256(name.encode()).digest()


def _decision(segments: int) -> Mapping[str, Any]:
    controller = Controller(ControllerParams(schedule=("uniform", 1000)))
    reservation = controller.reserve(stream="s", hypothesis="h")
    settled = controller.settle(stream="s", hypothesis="h", p=0.25, trigger=reservation.alpha >= 0.25)  # noqa: PLR2004
    names = ("trace", "entropy", "spectrum", "features")[:segments]
    return decision_members(
        subject=DIGEST,
        model=_MODEL,
        req=DIGEST,
        comp=DIGEST,
        e=DIGEST,
        decision=Decision(False, settled.trigger, 0.75, 0.5, "degrade", "allow", "detector", 3, 1),
        route=Route(0.7, 0.95, 256, "default", "cautious"),
        components={name: Component(True, 0.5, 0.01, -3.5) for name in _COMPONENTS[: 1 + segments // 2]},
        av=av_members(reservation, settled, unit="session", p_floor=0.001, sup=(-1e300, 2.5)),
        eproc=controller.state("s").snapshot,
        witness=[segment(name, np.linspace(-9.0, 0.0, 16), bytes(16)) for name in names],
        guarantee="none (bench)",
        assets=(7, 2**64 - 1, 0),
    )


#: Members of a decision of about 2.3 KB, and of one with every witness segment.
DECISION: Final = _decision(0)
FULL: Final = _decision(4)
OPENED: Final = open_session_members(
    subject=DIGEST, model=_MODEL, unit="session", keys=(1, 2, 3), mask=15, assets=(1, 2, 3), weight=0.5
)


@dataclass
class Session:
    """One chain of records in the making."""

    issuer: Issuer
    state: ChainState
    number: int = 0

    @classmethod
    def of(cls, key: Signer, name: str = "s") -> Session:
        """A session that nothing was issued of yet."""
        return cls(Issuer(key, origin=ORIGIN), ChainState(chain_id("session", name)))

    def issue(self, typ: str, members: Mapping[str, Any]) -> Receipt:
        """Its next record."""
        self.number += 1
        receipt = self.issuer.issue(
            chain=self.state,
            typ=typ,
            tenant="t",
            config=DIGEST,
            policy=DIGEST,
            members=members,
            ts_us=1_760_000_000_000_000 + self.number,
            nonce=self.number.to_bytes(16, "big"),
        )
        self.state = receipt.next()
        return receipt

    def close(self) -> Receipt:
        """Its last record."""
        return self.issue("close", close_members(reason="end", count=self.state.seq + 1))
