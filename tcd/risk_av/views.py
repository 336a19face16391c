"""What the controller answers: reservations, settlements, views of a stream and e-process snapshots."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal

from tcd.risk_av.exact import Scaled, hex64

CloseReason = Literal["end", "idle", "horizon", "pin_changed", "abandoned"]
CLOSE_REASONS: Final = ("end", "idle", "horizon", "pin_changed", "abandoned")
SNAPSHOT_KIND: Final = "restart-mixture/1"
NO_DIGEST: Final = "sha256:" + "0" * 64


def stream_digest(stream: str) -> str:
    """Public name of a stream in snapshots and receipts. Name streams by keyed digests where names are secret."""
    return "sha256:" + hashlib.sha256(b"tcd/stream/v1\0" + stream.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class EprocSnapshot:
    """State of a stream's e-process after `step` folded hypotheses, linked to the snapshot before.

    The last six members belong to the hypothesis folded in this step, as of its reservation. `to_json` gives the
    member `eproc` of a receipt.

    Attributes:
        stream: `stream_digest` of the stream.
        params: digest of the `Terms` the hypothesis was reserved under.
        claim: number of acknowledgements before this e-process began.
        step: hypotheses folded in this claim; 0 is the start.
        prev: digest of the snapshot of step - 1, zeros at step 0.
        x: the evidence: last p-value of the hypothesis, 1 when it never settled.
        s, e, c: S_t, M_t and C_t.
        threshold: 1/alpha_e.
        trigger: whether M reached the threshold in this claim, at this step or before (latched).
        epoch, index: where the hypothesis was reserved.
        known: credited rejections known at its reservation.
        alloc, spent, wealth: its level; the epoch's budget spent after its debit; (alpha - spent)(known + 1).
    """

    stream: str
    params: str
    claim: int
    step: int
    prev: str
    x: float
    s: Scaled
    e: Scaled
    c: Scaled
    threshold: float
    trigger: bool
    epoch: int = 0
    index: int = 0
    known: int = 0
    alloc: float = 0.0
    spent: float = 0.0
    wealth: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON form in the profile tcd-jcs-1."""
        return {
            "alloc": hex64(self.alloc),
            "c": hex64(self.c.m),
            "c_exp2": self.c.k,
            "claim": self.claim,
            "e": hex64(self.e.m),
            "e_exp2": self.e.k,
            "epoch": self.epoch,
            "index": self.index,
            "kind": SNAPSHOT_KIND,
            "known": self.known,
            "params": self.params,
            "prev": self.prev,
            "s": hex64(self.s.m),
            "s_exp2": self.s.k,
            "spent": hex64(self.spent),
            "step": self.step,
            "stream": self.stream,
            "threshold": hex64(self.threshold),
            "trigger": self.trigger,
            "wealth": hex64(self.wealth),
            "x": hex64(self.x),
        }

    def digest(self) -> str:
        """`sha256:` digest of the canonical JSON form; the `prev` of the next snapshot."""
        return "sha256:" + hashlib.sha256(b"tcd/eproc/v1\0" + self._canonical().encode()).hexdigest()

    def _canonical(self) -> str:
        """`to_json` as tcd-jcs-1, written out: this runs at every fold."""
        s, e, c = self.s, self.e, self.c
        return (
            f'{{"alloc":"{hex64(self.alloc)}","c":"{hex64(c.m)}","c_exp2":{c.k},"claim":{self.claim},'
            f'"e":"{hex64(e.m)}","e_exp2":{e.k},"epoch":{self.epoch},"index":{self.index},"kind":"{SNAPSHOT_KIND}",'
            f'"known":{self.known},"params":"{self.params}","prev":"{self.prev}","s":"{hex64(s.m)}","s_exp2":{s.k},'
            f'"spent":"{hex64(self.spent)}","step":{self.step},"stream":"{self.stream}",'
            f'"threshold":"{hex64(self.threshold)}","trigger":{"true" if self.trigger else "false"},'
            f'"wealth":"{hex64(self.wealth)}","x":"{hex64(self.x)}"}}'
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """The level of a hypothesis.

    Attributes:
        stream, hypothesis: whose.
        epoch, index: the epoch and the number of the reservation in it, from 1.
        seq: number of the reservation in the stream, from 1.
        alpha: the level to send as ALPHA; 0 is a legal level.
        cost: what *this call* debited; 0 when the hypothesis was reserved before.
        known: credited rejections known at the reservation.
        spent: budget of the epoch spent after the debit.
        wealth: (alpha - spent)(known + 1) after the debit.
        exhausted: no evidence can trigger at this level: the budget is gone.
        new: whether this call reserved it.
        closed: whether the hypothesis is over (only when not `new`).
    """

    stream: str
    hypothesis: str
    epoch: int
    index: int
    seq: int
    alpha: float
    cost: float
    known: int
    spent: float
    wealth: float
    exhausted: bool
    new: bool
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """State of a hypothesis after a settlement or a close.

    Attributes:
        stream, hypothesis, epoch, index, seq, alpha: as in `Reservation`.
        p: smallest p-value so far; 1 when none was settled.
        trigger: whether the hypothesis was ever rejected (latched).
        first: whether this call made the first rejection.
        credited: whether that rejection raised the rejections known to its epoch.
        e_value: of the hypothesis at `p`; kappa when none was settled.
        closed: whether the hypothesis is over.
        reason: why, or empty.
        folded: snapshots of the e-process steps that this call made, oldest first.
        alarm: whether the e-process of the stream has alarmed.
    """

    stream: str
    hypothesis: str
    epoch: int
    index: int
    seq: int
    alpha: float
    p: float
    trigger: bool
    first: bool
    credited: bool
    e_value: float
    closed: bool
    reason: str
    folded: tuple[EprocSnapshot, ...]
    alarm: bool


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream as of now. Numbers of the budget are those of its current epoch.

    Attributes:
        stream: name.
        epoch: current epoch, from 1; 0 before the first reservation.
        alpha: budget of the epoch.
        claim_level: what the epoch's claim is about: alpha, or more after a hot reload below what was spent.
        spent, budget_remaining: B and max(0, alpha - B).
        wealth: budget_remaining * (rejections_known + 1).
        reservations: in this epoch.
        length: reservations per epoch (uniform schedule) or None.
        next_alpha: level that the next reservation would get.
        rejections: settled rejections of this epoch.
        rejections_known: those credited to the levels (capped per user).
        exhausted: the epoch has no budget left and does not roll by itself.
        reserved_total, open, folded: reservations ever; hypotheses not closed; hypotheses folded ever.
        waiting: closed hypotheses that wait for an earlier one.
        e_process, e_process_log10, e_process_max: M_t (saturating), its logarithm, its maximum in this claim.
        e_cusum: C_t (saturating).
        alarm, alarm_threshold: latched alarm of the e-process and 1/alpha_e.
        cusum_alarm, cusum_threshold: latched alarm of the e-CUSUM and its level.
        claim: acknowledgements so far.
        params: digest of the terms in force.
        snapshot: newest snapshot.
    """

    stream: str
    epoch: int
    alpha: float
    claim_level: float
    spent: float
    budget_remaining: float
    wealth: float
    reservations: int
    length: int | None
    next_alpha: float
    rejections: int
    rejections_known: int
    exhausted: bool
    reserved_total: int
    open: int
    folded: int
    waiting: int
    e_process: float
    e_process_log10: float
    e_process_max: float
    e_cusum: float
    alarm: bool
    alarm_threshold: float
    cusum_alarm: bool
    cusum_threshold: float
    claim: int
    params: str
    snapshot: EprocSnapshot
