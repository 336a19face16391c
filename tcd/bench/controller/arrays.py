"""The same rule and the same e-process for many streams at once, in numpy; held to the real code bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
_P_MIN = 2.0**-1022


def rai(p: F64, *, alpha: float, omega: float | None = None) -> tuple[F64, Bools]:
    """Levels and decisions of RAI when each hypothesis settles before the next is reserved.

    Args:
        p: (N, T) p-values.
        alpha: budget of the epoch.
        omega: of the constant-omega schedule; None = uniform with L = T.
    """
    n, steps = p.shape
    levels = np.empty((n, steps))
    known = np.zeros(n)
    cost, spent = alpha / steps, 0.0
    for t in range(steps):
        if omega is not None:
            cost = max(0.0, omega * (alpha - spent))
            spent += cost
        levels[:, t] = np.minimum(1.0, cost * (known + 1.0))
        known += p[:, t] <= levels[:, t]
    return levels, p <= levels


def e_values(p: F64) -> F64:
    """1/(2 sqrt(p))."""
    return np.asarray(0.5 / np.sqrt(np.maximum(p, _P_MIN)))


def mixture_maximum(p: F64) -> F64:
    """Largest M_t of the restart mixture over the columns of `p`, (N,)."""
    s = np.zeros(p.shape[0])
    top = np.ones(p.shape[0])
    for t in range(1, p.shape[1] + 1):
        s = e_values(p[:, t - 1]) * (s + 1.0 / (t * (t + 1)))
        top = np.maximum(top, s + 1.0 / (t + 1))
    return top


def cusum_first(p: F64, level: float) -> NDArray[np.int64]:
    """First hypothesis (from 1) at which the e-CUSUM reaches `level`, 0 = never, (N,)."""
    c = np.ones(p.shape[0])
    first = np.zeros(p.shape[0], np.int64)
    for t in range(1, p.shape[1] + 1):
        c = e_values(p[:, t - 1]) * np.maximum(c, 1.0)
        first[(first == 0) & (c >= level)] = t
    return first


def fastest_first(p: F64, concurrency: int) -> F64:
    """The order in which hypotheses settle when up to `concurrency` are open and the smallest p settles first."""
    n, steps = p.shape
    pool = p[:, :concurrency].copy()
    out = np.empty_like(p)
    rows = np.arange(n)
    for t in range(steps):
        at = pool.argmin(axis=1)
        out[:, t] = pool[rows, at]
        pool[rows, at] = p[:, t + concurrency] if t + concurrency < steps else np.inf
    return out


def sup_fdp(rejected: Bools, signal: Bools) -> F64:
    """Max over t of (false rejections)/(rejections, at least 1), (N,)."""
    false = np.cumsum(rejected & ~signal, axis=1)
    found = np.maximum(1, np.cumsum(rejected, axis=1))
    return np.asarray((false / found).max(axis=1))
