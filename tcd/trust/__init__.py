"""From scores to actions that an operator can explain: policies, the decision engine, trust, patches. Pure."""

from __future__ import annotations

from tcd.trust.diff import Logged, Replay, decisions_that_change, lint, reachable, replay, subjects_that_change
from tcd.trust.engine import ACTIONS, SEVERITY, Defaults, Risk, Row, Verdict, decide
from tcd.trust.graph import Explanation, Node, Params, TrustGraph, propagate
from tcd.trust.patches import Event, Objective, Patch, PatchRuntime
from tcd.trust.policies import BadBundle, Policy, PolicySet, load
from tcd.trust.records import RecordError, logged, record
from tcd.trust.rewriting import RewriteRules, Rewriting
from tcd.trust.tighten import Base, Loosening, loosenings

__all__ = [
    "ACTIONS",
    "SEVERITY",
    "BadBundle",
    "Base",
    "Defaults",
    "Event",
    "Explanation",
    "Logged",
    "Loosening",
    "Node",
    "Objective",
    "Params",
    "Patch",
    "PatchRuntime",
    "Policy",
    "PolicySet",
    "RecordError",
    "Replay",
    "RewriteRules",
    "Rewriting",
    "Risk",
    "Row",
    "TrustGraph",
    "Verdict",
    "decide",
    "decisions_that_change",
    "lint",
    "load",
    "logged",
    "loosenings",
    "propagate",
    "reachable",
    "record",
    "replay",
    "subjects_that_change",
]
