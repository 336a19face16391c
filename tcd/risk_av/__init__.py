"""Anytime-valid risk control: reserve -> score -> settle, e-process and e-CUSUM, replayable bit for bit."""

from __future__ import annotations

from tcd.risk_av.catalogue import open_rule
from tcd.risk_av.controller import Controller
from tcd.risk_av.eprocess import START, EState, advance, e_value, mixture, p_equivalent
from tcd.risk_av.errors import BudgetUsedUp, LevelMismatch, ReplayError
from tcd.risk_av.events import (
    Acknowledged,
    Closed,
    Configured,
    Drawn,
    EpochOpened,
    Event,
    Failed,
    Leased,
    LeaseEnded,
    PoolShared,
    Reserved,
    Rested,
    Settled,
    event_from_json,
    event_to_json,
)
from tcd.risk_av.exact import hex64, unhex64
from tcd.risk_av.guarantee import (
    Unit,
    check_epoch_length,
    epoch_length_auto,
    guarantee,
    merged_p_floor,
    sessions_needed,
)
from tcd.risk_av.lease import Lease, LeaseHolder, lease_limit
from tcd.risk_av.params import RULES, ControllerParams, RuleName, Terms
from tcd.risk_av.planning import LeaseRequest
from tcd.risk_av.pool import Pool
from tcd.risk_av.rules import EpochRule
from tcd.risk_av.saving import Frozen
from tcd.risk_av.views import CloseReason, EprocSnapshot, Reservation, Settlement, StreamView, stream_digest

__all__ = [
    "RULES",
    "START",
    "Acknowledged",
    "BudgetUsedUp",
    "CloseReason",
    "Closed",
    "Configured",
    "Controller",
    "ControllerParams",
    "Drawn",
    "EState",
    "EpochOpened",
    "EpochRule",
    "EprocSnapshot",
    "Event",
    "Failed",
    "Frozen",
    "Lease",
    "LeaseEnded",
    "LeaseHolder",
    "LeaseRequest",
    "Leased",
    "LevelMismatch",
    "Pool",
    "PoolShared",
    "ReplayError",
    "Reservation",
    "Reserved",
    "Rested",
    "RuleName",
    "Settled",
    "Settlement",
    "StreamView",
    "Terms",
    "Unit",
    "advance",
    "check_epoch_length",
    "e_value",
    "epoch_length_auto",
    "event_from_json",
    "event_to_json",
    "guarantee",
    "hex64",
    "lease_limit",
    "merged_p_floor",
    "mixture",
    "open_rule",
    "p_equivalent",
    "sessions_needed",
    "stream_digest",
    "unhex64",
]
