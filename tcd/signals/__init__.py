"""Signals: logits, sampled token and hidden states to trace, entropy, spectrum and feature windows. Pure numpy."""

from __future__ import annotations

from tcd.signals.step import raw_step, start, step

__all__ = ["raw_step", "start", "step"]
