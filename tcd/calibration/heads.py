"""Training of the logistic heads from recorded faults, one head per group of kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration import logistic
from tcd.calibration.assets import DetectorAsset, Head
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import Steps, ready, scales, stack
from tcd.contract import Signal
from tcd.detector import statistics
from tcd.detector.step import standardise
from tcd.detector.windows import BLOCK
from tcd.errors import AssetError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Kinds of faults that a head learns together. A loop lowers what a corruption raises, and a corruption is weak where a
#: blow-up is plain: one head for all spends the false alarms of one on the others (docs/detection.md).
GROUPS: Final = (("severe", "mild"), ("temperature", "shift", "soft"), ("loop",))
#: Without features a corruption hides too well for a head of its own, without entropies a loop too.
FEWER_GROUPS: Final = (("severe", "mild", "temperature", "shift"), ("loop",))
ONE_GROUP: Final = (("severe", "mild", "temperature", "shift", "loop", "soft"),)
#: Weight of a kind of fault in training against that of the others of its head.
_EMPHASIS: Final = {"severe": 2.0, "mild": 2.0, "soft": 0.1}


@dataclass(frozen=True, slots=True)
class Training:
    """Training steps.

    Attributes:
        z: (n, F) z-scores.
        kind: (n,) kind of fault, "" for healthy.
        after: (n,) steps since the onset, 0 for healthy.
        known: (F,) statistics that all of them have.
    """

    z: F64
    kind: NDArray[np.str_]
    after: I64
    known: Bool

    def weight(self) -> F64:
        """Healthy steps weigh a half together, kinds of faults share the other half."""
        out = np.zeros(self.kind.shape[0])
        faults = {str(kind): _EMPHASIS.get(str(kind), 1.0) for kind in set(self.kind.tolist()) - {""}}
        for kind in ("", *sorted(faults)):
            here = self.kind == kind
            out[here] = 0.5 / here.sum() * (1.0 if kind == "" else faults[kind] / sum(faults.values()))
        return out

    def only(self, kinds: tuple[str, ...]) -> Training:
        """The healthy steps and those of some kinds of faults."""
        return self._at(np.isin(self.kind, ("", *kinds)))

    def with_(self, other: Training) -> Training:
        """Both."""
        z = np.concatenate((self.z, other.z))
        kind: NDArray[np.str_] = np.concatenate((self.kind, other.kind))
        after = np.concatenate((self.after, other.after))
        return Training(z, kind, after, self.known & other.known)

    def until(self, last: int) -> Training:
        """Without what comes later than `last` steps after an onset."""
        return self._at(self.after < last)

    def _at(self, chosen: Bool) -> Training:
        return Training(self.z[chosen], self.kind[chosen], self.after[chosen], self.known)

    def fit(self, usable: Bool, ridge: float) -> Head:
        """Weights of the usable statistics; zeros elsewhere."""
        usable = usable & self.known
        found = logistic.fit(self.z[:, usable], self.kind != "", self.weight(), ridge=ridge)
        linear, quadratic = np.zeros(usable.shape[0]), np.zeros(usable.shape[0])
        linear[usable], quadratic[usable] = found[1], found[2]
        return Head(found[0], linear, quadratic)


def training_of(parts: list[Steps], draft: DetectorAsset, options: FitOptions) -> Training:
    """Healthy steps of the fit part, and those after the onset of each fault."""
    owners: list[Steps] = []
    chosen: list[I64] = []
    kinds: list[str] = []
    onsets: list[int] = []
    for steps in parts:
        sequence = steps.sequence
        owners.append(steps)
        chosen.append(ready(steps)[:: options.stride])
        kinds.append("")
        onsets.append(-1)
        if sequence.onset >= 0 and sequence.kind not in {"control", "healthy", "greedy"}:
            first = max(sequence.onset + options.first, BLOCK - 1)
            owners.append(steps)
            chosen.append(np.arange(first, min(sequence.onset + options.last, sequence.steps), options.stride))
            kinds.append(sequence.kind)
            onsets.append(sequence.onset)
    labels = np.concatenate([np.full(i.shape[0], kind) for i, kind in zip(chosen, kinds, strict=True)])
    z = standardise(draft, stack(owners, chosen), np.arange(labels.shape[0]))
    after = np.concatenate([(i - onset) * (onset >= 0) for i, onset in zip(chosen, onsets, strict=True)])
    return Training(z, labels, after, ~statistics.NUCLEUS | all(s.sequence.nucleus for s in parts))


def more_of(steps: list[Steps], draft: DetectorAsset, options: FitOptions) -> Training:
    """The steps of the training recordings by their own scales.

    Raises:
        AssetError: if a prompt of theirs is among those of the data.
    """
    both = {s.sequence.prompt_id for s in steps} & {s.sequence.prompt_id for s in options.training}
    if both:
        msg = f"{len(both)} prompts are in the data and in the training recordings, e.g. {min(both)}"
        raise AssetError(msg)
    healthy = [s for s in options.training if s.sequence.healthy >= BLOCK]
    location, scale = scales(stack(healthy, [ready(s) for s in healthy]))
    return training_of(list(options.training), replace(draft, location=location, scale=scale), options)


def _groups(number: int) -> tuple[tuple[str, ...], ...]:
    """The groups of a signal mask: the less is seen, the fewer."""
    if number & Signal.FEATURES:
        return GROUPS
    return FEWER_GROUPS if number & Signal.ENTROPY else ONE_GROUP


def heads_of(number: int, training: Training, usable: Bool, options: FitOptions) -> tuple[Head, ...]:
    """One head per group of faults that the recordings hold; the shipped ones where they hold none.

    Raises:
        AssetError: if there is nothing to learn from, and no weights are given for the mask.
    """
    found = [
        group for group in options.groups or _groups(number) if options.learn and np.isin(training.kind, group).any()
    ]
    if found:
        return tuple(training.only(group).fit(usable, options.ridge) for group in found)
    shipped = options.weights.get(number)
    if shipped is None:
        msg = f"the recordings hold no faults to learn from, and no weights are given for mask {number}"
        raise AssetError(msg)
    return tuple(head.only(training.known) for head in shipped.heads)
