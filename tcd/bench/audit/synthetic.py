"""A log of any length, written fast through the real ledger: every receipt is signed, every event is a controller's.

Sessions of a few tenants under the null (a trigger is a false alarm), records as a shim writes them: open, decisions,
close, the open and close of epochs, checkpoints signed with Ed25519 and ML-DSA-44. Only the requests are missing:
digests of requests and answers are random, components are constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tcd.bench.controller.shim import synthetic_assets
from tcd.calibration.assets import asset_id
from tcd.calibration.conformal import session_p
from tcd.contract import COMPONENTS, SUP_START
from tcd.receipts import ChainState, Issuer, KeySet, MlDsaKey, Receipt, SigningKey, chain_id, records
from tcd.receipts.decisions import Av, Numbers, Subject, route_text
from tcd.receipts.filling import NO_WINDOWS, RANDOM_BYTES, Objects
from tcd.receipts.log_signer import LogSigner
from tcd.risk_av import Controller, ControllerParams, EpochOpened, Event, Reservation, Terms

ORIGIN: Final = "audit.bench"
#: Decisions of a session; with its open and close a chain has two more records.
STEPS: Final = 18
_TENANTS: Final = 8
_D: Final = "sha256:" + "d" * 64
_BEGIN_US: Final = 1_790_000_000_000_000
_MODEL: Final = records.Model("model0", "gpu0", "chat", "en")
_ROUTE: Final = route_text(records.Route(1.0, 1.0, 256, "default", "normal"))
_MONITORS: Final = len(COMPONENTS) + 1


def issuer() -> Issuer:
    """Signs receipts."""
    return Issuer(SigningKey(b"\1" * 32), origin=ORIGIN)


def signer() -> LogSigner:
    """Signs checkpoints."""
    return LogSigner(ORIGIN, [SigningKey(b"\2" * 32), MlDsaKey(b"\3" * 32)])


def keyset() -> KeySet:
    """The keys of both."""
    return KeySet([issuer().pinned(), *signer().pinned()])


@dataclass(slots=True)
class _Session:
    """One session while it is written."""

    tenant: str
    stream: str
    hypothesis: str
    reservation: Reservation
    chain: ChainState
    subject: Subject


class Writer:
    """Makes records and events; all follow from the seed."""

    def __init__(self, seed: int = 0, part: int = 0) -> None:
        """Begin a log, or one of its parts: no two parts may have sessions of one tenant."""
        self._seed = seed
        self._issuer = issuer()
        self._random = np.random.default_rng((seed, part) if part else seed)
        self._controller = Controller(ControllerParams(schedule=("uniform", 10), keep_closed=16))
        self._writer = self._issuer.writer(config=_D, policy=_D)
        (detector,) = synthetic_assets().detectors.values()
        self._ids = (asset_id(detector.digest), 0, 0)
        self._table = detector.masks[1].sessions
        self._epochs: dict[str, ChainState] = {}
        self._events: list[Event] = []
        self.now_us = _BEGIN_US

    def take_events(self) -> tuple[Event, ...]:
        """Events since the last call."""
        found = (*self._events, *self._controller.take_events())
        self._events = []
        return found

    def session(self, number: int) -> Iterator[Receipt]:
        """All records of a session, those of an epoch that it opens first."""
        tenant = f"tenant-{number % _TENANTS}"
        stream, hypothesis = f"stream of {tenant}", f"h{number}"
        reservation = self._controller.reserve(stream=stream, hypothesis=hypothesis)
        events = self._controller.take_events()
        self._events += events
        for event in events:
            if isinstance(event, EpochOpened):
                yield from self._epoch(event, tenant)
        digest = chain_id("subject", str(number))
        members = records.open_session_members(
            subject=digest, model=_MODEL, unit="session", keys=(1, 1, 1), mask=1, assets=self._ids, weight=1.0
        )
        opened = self._issue(ChainState(chain_id("session", str(number), str(self._seed))), "open", tenant, members)
        yield opened
        subject = Subject.of(_MODEL, digest, tenant)
        session = _Session(tenant, stream, hypothesis, reservation, opened.next(), subject)
        yield from self._decisions(session)
        self._controller.close(stream=stream, hypothesis=hypothesis, reason="end")
        snapshot = self._controller.state(stream).snapshot
        members = records.close_members(reason="end", count=session.chain.seq + 1, eproc=snapshot)
        yield self._issue(session.chain, "close", tenant, members)

    def _epoch(self, event: EpochOpened, tenant: str) -> Iterator[Receipt]:
        known = self._epochs.get(event.stream)
        if known is not None:
            yield self._issue(known, "close", tenant, records.close_members(reason="epoch_roll", count=known.seq + 1))
        members = records.open_epoch_members(
            stream=event.stream, epoch=event.epoch, claim_level=event.params.alpha, terms=Terms.of(event.params)
        )
        chain = ChainState(chain_id("epoch", event.stream, str(event.epoch), str(self._seed)))
        opened = self._issue(chain, "open", tenant, members)
        yield opened
        self._epochs[event.stream] = opened.next()

    def _decisions(self, session: _Session) -> Iterator[Receipt]:
        """Steps whose running maximum ends uniform, so that the p-value of the hypothesis is null."""
        maxima = np.sort(self._random.uniform(size=STEPS))
        maxima *= self._random.uniform() / maxima[-1]
        p_values = session_p(self._table, None, maxima).tolist()
        scores = self._random.uniform(size=STEPS).tolist()
        waits = self._random.integers(1_000, 60_000, STEPS).tolist()
        noise = self._random.bytes(RANDOM_BYTES * STEPS)
        snapshot = self._controller.state(session.stream).snapshot
        av = Av.of(session.reservation, stream=session.stream, unit="session", p_floor=1e-3)
        sent = SUP_START
        for step in range(STEPS):
            self.now_us += waits[step]
            p = p_values[step]
            settled = self._controller.settle(
                stream=session.stream, hypothesis=session.hypothesis, p=p, trigger=p <= session.reservation.alpha
            )
            triggered = settled.trigger
            action, cause = ("block", "av") if triggered else ("allow", "")
            mine = noise[RANDOM_BYTES * step : RANDOM_BYTES * (step + 1)]
            name = mine[:8].hex().encode()
            head, body = self._writer.write(
                session.chain,
                ts_us=self.now_us,
                random=mine,
                subject=session.subject,
                objects=Objects(b'{"request":"%s"}' % name, b'{"av":{"e":"%s"},"input":{}}' % name, 1),
                verdict=(action, action, cause, (action, cause) if cause else (), triggered, triggered),
                numbers=Numbers(
                    ((0.0, 1.0, 0.0) * _MONITORS + (scores[step], 0.999, p, sent, SUP_START)),
                    step,
                    0,
                    (False,) * _MONITORS,
                ),
                route=_ROUTE,
                av=av,
                eproc=snapshot,
                windows=NO_WINDOWS,
                guarantee="supfdr<=0.05|unit=session|prds|marginal",
                assets=self._ids,
            )
            made = self._issuer.seal(
                body, head=head, chain=session.chain, typ="decision", tenant=session.tenant, ts_us=self.now_us
            )
            yield made
            session.chain, sent = made.next(), float(maxima[step])

    def _issue(self, chain: ChainState, typ: str, tenant: str, members: dict[str, object]) -> Receipt:
        self.now_us += 10
        return self._issuer.issue(
            chain=chain, typ=typ, tenant=tenant, config=_D, policy=_D, members=members, ts_us=self.now_us,
            nonce=self._random.bytes(16),
        )  # fmt: skip
