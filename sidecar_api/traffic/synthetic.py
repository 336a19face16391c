"""Synthetic traffic: generations with the marginals and the memory of recorded ones, some of them faulty.

Interleaved, so that there is something to do at once; the same seed gives the same requests. Nothing measured on them
is a result about a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as counting
from typing import Final

import numpy as np

from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.traffic.lines import Line, Naming
from tcd.demo.recording.synthetic import Signals, Tables, blow_up, drift, healthy, loop

#: Generations under way at once.
LANES: Final = 64
_SHORTEST, _LONGEST = 32, 128
#: Shares of generations that loop, whose temperature blows up, and that drift; the others are healthy.
FAULTS: Final = (0.04, 0.03, 0.03)


def synthetic(count: int, *, seed: int, naming: Naming | None = None) -> Iterator[Line]:
    """`count` requests of generations of 32 to 127 tokens; a tenth of the generations is faulty."""
    names, tables, numbers = naming or Naming(), Tables.shipped(), counting()
    lanes = [_generation(tables, seed, next(numbers), names.model_id) for _ in range(min(LANES, count))]
    for number in range(1, count + 1):
        lane = (number - 1) % len(lanes)
        request = next(lanes[lane], None)
        if request is None:
            lanes[lane] = _generation(tables, seed, next(numbers), names.model_id)
            request = next(lanes[lane])
        yield Line(number, names.apply(request))


def _generation(tables: Tables, seed: int, number: int, model_id: str) -> Iterator[DiagnoseRequest]:
    rng = np.random.default_rng([seed, number])
    n = int(rng.integers(_SHORTEST, _LONGEST))
    signals = _faulty(tables, rng, healthy(tables, rng, n), n)
    for t in range(n):
        yield DiagnoseRequest(
            trace_vector=[min(-float(signals.surprisal[t]), 0.0)],
            entropy=float(signals.entropy[t]),
            spectrum=np.sort(np.exp(signals.log_sigma[t]))[::-1].tolist(),
            features=signals.features[t].tolist(),
            step_id=t,
            model_id=model_id,
            session=f"synthetic-{number}",
            context={"temperature": 1.0},
            tokens_delta=1,
        )


def _faulty(tables: Tables, rng: np.random.Generator, signals: Signals, n: int) -> Signals:
    draw, onset = rng.random(), int(rng.integers(n // 4, n // 2))
    looping, hot, drifting = np.cumsum(FAULTS)
    if draw < looping:
        return loop(signals, rng, onset=onset, period=int(rng.integers(1, onset + 1)))
    if draw < hot:
        return blow_up(signals, tables, rng, onset=onset, temperature=float(rng.choice([1.5, 2.0, 3.0])))
    if draw < drifting:
        return drift(signals, tables, rng, onset=onset, strength=2.0)
    return signals
