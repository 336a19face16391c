"""Marks untrusted text in a chat request so that a model can tell data from instructions. Pure.

Spotlighting, Hines et al. 2024 (arXiv 2403.14720), with zones that a text inside them cannot leave.
"""

from __future__ import annotations

from tcd.spotlight.bodies import BodyError, locate
from tcd.spotlight.engine import rewrite
from tcd.spotlight.marking import Envelope, mark, unmark
from tcd.spotlight.nonces import nonce
from tcd.spotlight.outcome import Outcome, Ranges
from tcd.spotlight.policy import REASONS, Policy, Reason
from tcd.spotlight.reminder import sentence
from tcd.spotlight.zones import Cut, Segment, Text, cut

__all__ = [
    "REASONS",
    "BodyError",
    "Cut",
    "Envelope",
    "Outcome",
    "Policy",
    "Ranges",
    "Reason",
    "Segment",
    "Text",
    "cut",
    "locate",
    "mark",
    "nonce",
    "rewrite",
    "sentence",
    "unmark",
]
