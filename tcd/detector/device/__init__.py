"""The detector for torch tensors on any device: the same statistics, the same bits, nothing copied back in between.

Windows stay where they are; counts, keys and running maxima are host arrays of a few numbers a row. Only + - * / sqrt,
comparisons and sums in a stated order are used, each its own kernel, so that no device rounds otherwise than numpy.
Import this package only where torch is installed; `tcd.detector` itself does not load it.
"""

from __future__ import annotations

from tcd.detector.device.score import score

__all__ = ["score"]
