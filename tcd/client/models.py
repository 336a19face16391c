"""Answers as typed objects. New members of newer servers are ignored; a test holds these to the server's schema."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Route(Struct, kw_only=True, frozen=True):
    """How to decode from here on."""

    temperature: float
    top_p: float
    decoder: str
    max_tokens: int
    tags: list[str]
    tier: str
    route_id: str


class Decision(Struct, kw_only=True, frozen=True):
    """The decision about one step; the members are described in docs/http.md."""

    verdict: bool
    score: float
    threshold: float
    budget_remaining: float
    alpha_alloc: float
    alpha_spent: float
    alpha_wealth: float
    e_value: float
    e_value_log10: float
    e_process: float
    alarm: bool
    alarm_threshold: float
    trigger: bool
    p_value: float
    p_floor: float
    components: dict[str, dict[str, Any]]
    step: int
    cause: str
    action: str
    enforced: str
    route: Route
    guarantee: str
    unit: str
    epoch: int
    checks: list[dict[str, str]]
    request_id: str
    policy_ref: str
    config_hash: str
    calibration: dict[str, str | None]
    receipt: str | None = None
    receipt_body: str | None = None
    receipt_sig: str | None = None
    verify_key: str | None = None
    receipt_proof: str | None = None

    @property
    def stop(self) -> bool:
        """Whether the generation has to end here."""
        return self.enforced in {"block", "throttle", "ask_for_review", "escalate_to_human"}

    @property
    def degraded(self) -> bool:
        """Whether the failure policy decided, because evidence or durability could not be had."""
        return self.cause == "degraded"


class Erased(Struct, kw_only=True, frozen=True):
    """A receipt whose body the log has erased, and the log's `erase` record: heads in hex, and leaves."""

    receipt: str
    index: int
    record: str | None = None
    record_index: int | None = None


class Bodies(Struct, kw_only=True, frozen=True):
    """What the shim's log has of the bodies of what was verified: how many, and which were erased (at most 64)."""

    kept: int
    erased: int
    erasures: list[Erased] = []


class Report(Struct, kw_only=True, frozen=True):
    """A verification's report."""

    ok: bool
    code: str
    checks: list[dict[str, str]]
    policy: str
    trust: str
    first_bad: int | None = None
    bodies: Bodies | None = None
