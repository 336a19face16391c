"""From which batch on a device pays: the signals by numpy, on the device from the host, and on the device at rest."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tcd.signals.device import hidden_signals, to_device, token_signals
from tcd.signals.hidden import features, spectrum
from tcd.signals.logits import token_signals as host_token_signals
from tcd.signals.projection import derived


def _median(call: Callable[[], object], calls: int, settle: Callable[[], None]) -> float:
    call()
    taken = []
    for _ in range(calls):
        settle()
        began = time.perf_counter()
        call()
        settle()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


def _by_numpy(logits: Any, hidden: Any, token: Any, matrix: Any) -> None:
    host_token_signals(logits, token)
    spectrum(hidden)
    features(hidden, matrix)


def _by_torch(logits: Any, hidden: Any, token: Any, matrix: Any, *, solve_there: bool) -> None:
    token_signals(logits, token)
    hidden_signals(hidden, matrix, solve_there=solve_there)


def _moved(logits: Any, hidden: Any, token: Any, matrix: Any, device: str) -> None:
    _by_torch(to_device(logits, device), to_device(hidden, device), token, matrix, solve_there=False)


def measure(device: str, batches: Sequence[int], calls: int, vocabulary: int, width: int) -> list[dict[str, float]]:
    """Median ms of the signals of a batch of logits and windows of 32 hidden states, by way and batch."""
    torch: Any = importlib.import_module("torch")
    rng, matrix = np.random.default_rng(0), derived(width)

    def settle() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    out = []
    for rows in batches:
        logits = rng.normal(0, 3, (rows, vocabulary)).astype(np.float32)
        hidden = rng.normal(size=(rows, 32, width)).astype(np.float32)
        token = rng.integers(0, vocabulary, rows).astype(np.int32)
        host = logits, hidden, token
        there = to_device(logits, device), to_device(hidden, device), token
        ways: dict[str, Callable[[], object]] = {
            "host": partial(_by_numpy, *host, matrix),
            "device, from the host": partial(_moved, *host, matrix, device),
            "device, at rest there": partial(_by_torch, *there, matrix, solve_there=False),
            "device, eigenvalues there": partial(_by_torch, *there, matrix, solve_there=True),
        }
        out.append({"rows": float(rows)} | {name: _median(call, calls, settle) for name, call in ways.items()})
    return out


def break_even(found: Sequence[dict[str, float]], vocabulary: int) -> dict[str, Any]:
    """Smallest batch from which on the device is faster for tensors from the host, and for those at rest there.

    `logits` is the setting TCD_GPU_BREAK_EVEN: rows times vocabulary, 0 where it never pays.
    """

    def first(way: str) -> int:
        slow = [line["rows"] for line in found if line[way] >= line["host"]]
        above = [line["rows"] for line in found if line["rows"] > max(slow, default=0.0)]
        return int(min(above, default=0))

    rows = first("device, from the host")
    return {"rows_from_host": rows, "rows_at_rest": first("device, at rest there"), "logits": rows * vocabulary}
