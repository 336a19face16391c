"""Routing: merged p-values and a policy to trigger, verdict, tier and route. Pure, batch-first numpy."""

from __future__ import annotations

from tcd.routing.policy import DEFAULT_POLICY
from tcd.routing.step import merge, route

__all__ = ["DEFAULT_POLICY", "merge", "route"]
