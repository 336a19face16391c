"""The session unit through the real controller: streams of sessions, reserved, scored step by step and settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tcd.bench.sessions.data import F64, Bool
from tcd.risk_av import Controller, ControllerParams, epoch_length_auto

STREAM: Final = "tenant"
#: Sessions of a stream that are open at once, their steps in turn.
CONCURRENCY: Final = 8


@dataclass(frozen=True, slots=True)
class Epoch:
    """What happened in one epoch.

    Attributes:
        sup_fdp: largest false discovery proportion at any settlement.
        false_alarms: benign sessions that triggered.
        benign: benign sessions; `failing` the others.
        caught: failing sessions that triggered.
    """

    sup_fdp: float
    false_alarms: int
    benign: int
    caught: int
    failing: int


def length_for(calibration: int, alpha: float) -> int:
    """Sessions per epoch that a table of this size carries; at least 1."""
    return max(1, epoch_length_auto(alpha, 1.0 / (calibration + 1)))


def play(p: F64, benign: Bool, *, alpha: float, length: int, concurrency: int = CONCURRENCY) -> list[Epoch]:
    """Epochs of `length` sessions each, until the sessions are used up; an incomplete epoch is left out.

    Args:
        p: (m, T) p-values of sessions in the order of their arrival, NaN after the end.
        benign: (m,) labels.
        alpha: budget of each epoch.
        length: sessions per epoch.
        concurrency: sessions open at once.
    """
    controller = Controller(ControllerParams(alpha=alpha, schedule=("uniform", length)))
    whole = len(p) // length * length
    epoch_of, rejected = np.zeros(whole, np.int64), np.zeros(whole, np.bool_)
    counts: dict[int, list[int]] = {}
    worst: dict[int, float] = {}
    ends = (~np.isnan(p)).sum(axis=1)
    alphas = np.zeros(whole)
    waiting = iter(range(whole))
    running: list[list[int]] = []
    while True:
        while len(running) < concurrency and (fresh := next(waiting, None)) is not None:
            reserved = controller.reserve(stream=STREAM, hypothesis=str(fresh))
            epoch_of[fresh], alphas[fresh] = reserved.epoch, reserved.alpha
            counts.setdefault(reserved.epoch, [0, 0])
            running.append([fresh, 0])
        if not running:
            break
        for entry in list(running):
            row, step = entry
            value = float(p[row, step])
            trigger = value <= alphas[row]
            controller.settle(stream=STREAM, hypothesis=str(row), p=value, trigger=bool(trigger))
            if trigger and not rejected[row]:
                rejected[row] = True
                tally = counts[int(epoch_of[row])]
                tally[0] += 1
                tally[1] += int(benign[row])
                epoch = int(epoch_of[row])
                worst[epoch] = max(worst.get(epoch, 0.0), tally[1] / tally[0])
            entry[1] += 1
            if entry[1] == ends[row]:
                controller.close(stream=STREAM, hypothesis=str(row), reason="end")
                running.remove(entry)
        controller.take_events()
    out = []
    for epoch in sorted(counts):
        rows = epoch_of == epoch
        well, hit = benign[:whole][rows], rejected[rows]
        out.append(
            Epoch(
                worst.get(epoch, 0.0),
                int((hit & well).sum()),
                int(well.sum()),
                int((hit & ~well).sum()),
                int((~well).sum()),
            )
        )
    return out
