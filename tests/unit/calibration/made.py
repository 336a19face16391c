"""Healthy sessions that are made up."""

from __future__ import annotations

import numpy as np

from tcd.calibration.traces import Key, Sequence

STEPS = 40


def sequence(rng: np.random.Generator, name: str, key: Key, scale: float, *, weight: float = 1.0) -> Sequence:
    """Log-probabilities and entropies at a level of surprise that is `scale`."""
    entropy = (scale * rng.gamma(4.0, 0.25, STEPS)).astype(np.float32)
    return Sequence(
        prompt_id=name,
        kind="healthy",
        trace=(-entropy * rng.exponential(size=STEPS)).astype(np.float32),
        entropy=entropy,
        spectrum=np.zeros((STEPS, 0), np.float32),
        features=np.zeros((STEPS, 0), np.float32),
        healthy=STEPS,
        onset=-1,
        complete=True,
        session=name,
        key=key,
        weight=weight,
    )
