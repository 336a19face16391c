"""The most that a combination of the detector's statistics could reach: fitted on the very faults it is scored on.

`python tests/benchmarks/bench_ceiling.py DIR`. In-sample, so an optimistic bound for any weights of this form: what it
misses, the statistics do not show at this budget of false alarms. Asserts nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tcd.bench.detector import budget
from tcd.bench.detector.recordings import load
from tcd.calibration.evaluate import score_sequence
from tcd.calibration.fit import Split, fit_traces
from tcd.calibration.heads import GROUPS
from tcd.calibration.options import FitOptions

MASK = 15


def main() -> None:
    """Print a line for the heads as they are and one for a head of severe corruption alone."""
    recordings = load(Path(sys.argv[1]))
    everyone = frozenset(recordings.prompts)
    for name, groups in (("the heads as they are", GROUPS), ("a head for severe corruption alone", (("severe",),))):
        options = FitOptions(masks=(MASK,), groups=groups)
        detector, monitor = fit_traces(recordings.steps, Split(everyone, everyone), "all", demo=True, options=options)
        scored = [score_sequence(steps, detector, monitor, MASK) for steps in recordings.steps]
        found = budget.at_budget(scored)["alarms"]["severe"]
        shares = ", ".join(f"{found[f'within_{d}'][0]:.2f} within {d}" for d in (32, 64))
        sys.stdout.write(f"{name}: severe {shares}, median delay {found['delay']:g} (n={found['n']})\n")


if __name__ == "__main__":
    main()
