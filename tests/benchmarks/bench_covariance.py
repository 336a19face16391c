"""Distances of a batch of feature vectors beside a loop over scikit-learn's: the ratio of process times.

Medians of interleaved repetitions. Asserts nothing; prints the batch, both times per row and the ratio.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from sklearn.covariance import LedoitWolf

from tcd.multivariate import cholesky, ledoit_wolf, mahalanobis

WIDTH, SAMPLES, REPETITIONS = 16, 2000, 7


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(SAMPLES, WIDTH)) @ rng.normal(size=(WIDTH, WIDTH))
    peer = LedoitWolf().fit(samples)
    estimate = ledoit_wolf(samples)
    factor, _ = cholesky(estimate.covariance)
    for batch in (32, 128, 1024):
        rows = samples[:batch]
        times: list[tuple[float, float]] = []
        for _ in range(REPETITIONS):
            start = time.process_time()
            looped = np.sqrt([peer.mahalanobis(row[None])[0] for row in rows])
            middle = time.process_time()
            for _ in range(20):
                ours = mahalanobis(rows - estimate.mean, factor)
            times.append((middle - start, (time.process_time() - middle) / 20))
            if np.abs(ours - looped).max() > 1e-8:
                msg = "the distances differ"
                raise ValueError(msg)
        theirs, mine = (statistics.median(column) for column in zip(*times, strict=True))
        us = 1e6 / batch
        sys.stdout.write(
            f"batch {batch:5}  loop {theirs * us:8.1f} us/row  ours {mine * us:6.2f} us/row  {theirs / mine:6.0f}x\n"
        )


if __name__ == "__main__":
    main()
