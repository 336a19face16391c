"""The detector: windows of token signals to components, a statistic and its p-values. Pure, batch-first numpy."""

from __future__ import annotations

from tcd.detector.step import score

__all__ = ["score"]
