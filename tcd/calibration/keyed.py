"""One fit of a log with many keys: an asset per key that has enough sessions, coarser ones for the rest.

Calibration is made per key at one level (0: with the temperature bucket, 1: without, 2: the model alone). A request
whose key has too few sessions of its own is answered by the coarser assets, and the answer says FALLBACK.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tcd.calibration.assets import Binding, DetectorAsset, MultivariateAsset
from tcd.calibration.fit import Split, fit_traces, split_prompts
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import Steps, steps_of
from tcd.calibration.store import load_assets, write_asset, write_manifest
from tcd.calibration.traces import Key, Sequence, Traces
from tcd.detector.windows import BLOCK
from tcd.errors import AssetError
from tcd.routing import DEFAULT_POLICY

#: Fewest conformal sessions of a key with an asset of its own, and how many it should have.
LEAST: Final = 16
BETTER: Final = 32
#: Share of the prompts that fits scales and weights; without faults there are no weights to learn.
SHARE_FAULTS, SHARE_BENIGN = 2 / 3, 1 / 3
_LEVELS: Final = 3
_BENIGN: Final = frozenset({"healthy", "greedy", "control"})


@dataclass(frozen=True, slots=True)
class Fitted:
    """Assets of one key.

    Attributes:
        key: its parts; empty for the assets of everything, which answer unknown keys.
        level: of the key, 3 for everything.
        exact: whether an answer is calibrated for its own key; False says FALLBACK.
        sessions: conformal sessions.
        binding: of the manifest.
        p_floor: smallest p-value of a hypothesis of the detector with all signals.
    """

    key: tuple[str, ...]
    level: int
    exact: bool
    sessions: int
    binding: Binding
    p_floor: float


@dataclass(frozen=True, slots=True)
class KeyedFit:
    """What `fit_keys` wrote.

    Attributes:
        manifest: its digest.
        fitted: per key, the finest level first.
        under: conformal sessions of the keys that have too few, and are answered by a coarser one.
        split: of the prompts.
    """

    manifest: str
    fitted: tuple[Fitted, ...]
    under: Mapping[tuple[str, ...], int]
    split: Split

    def lines(self) -> list[str]:
        """What was fitted, for people."""
        out = [f"manifest {self.manifest}"]
        for one in self.fitted:
            kind = "" if one.exact else ", fall-back"
            few = f"; {BETTER} are better" if one.sessions < BETTER else ""
            name = "/".join(one.key) or "everything else"
            out.append(f"{name}: {one.sessions} sessions{few}, smallest p {one.p_floor:.3g}{kind}")
        out += [f"{'/'.join(key)}: {n} sessions are too few" for key, n in sorted(self.under.items())]
        return out


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of the one key that is asked for; None for any."""

    model_id: str | None = None
    gpu_id: str | None = None
    task: str | None = None
    lang: str | None = None
    bucket: str | None = None

    def key(self, *, model_id: str) -> Key:
        """The key with the parts that a request has by default."""
        return Key(
            self.model_id or model_id,
            self.gpu_id or "gpu0",
            self.task or "chat",
            self.lang or "en",
            self.bucket or "default",
        )


def of_key(traces: Traces, asked: Asked) -> Traces:
    """The log, if all of its sessions are of the key that is asked for.

    Raises:
        AssetError: a session is of another key.
    """
    for sequence in traces.sequences:
        key = _key(sequence)
        for name in Key._fields:
            wanted = getattr(asked, name)
            if wanted is not None and wanted != getattr(key, name):
                msg = f"mixed keys: session {sequence.session!r} has {name} {getattr(key, name)!r}, not {wanted!r}"
                raise AssetError(msg)
    return traces


@dataclass(frozen=True, slots=True)
class _Group:
    """Sequences that share a key at a level."""

    level: int
    key: Key
    members: tuple[int, ...]


def _key(sequence: Sequence) -> Key:
    if sequence.key is None:
        msg = "the recordings do not say whose generations they are: name their key"
        raise AssetError(msg)
    return sequence.key


def _groups(steps: list[Steps], level: int) -> Iterator[_Group]:
    """All keys at each level from `level` on."""
    for at in range(level, _LEVELS):
        found: dict[tuple[str, ...], list[int]] = {}
        for i, one in enumerate(steps):
            found.setdefault(_key(one.sequence).at(at), []).append(i)
        for members in found.values():
            yield _Group(at, _key(steps[members[0]].sequence), tuple(members))


def held_back(prompts: Iterable[str], share: float) -> list[str]:
    """A share of the prompts, by the hash of their names: the same ones at every fit."""
    names = sorted(prompts, key=lambda p: hashlib.sha256(f"held-back:{p}".encode()).digest())
    return names[: int(len(names) * share + 1e-9)]


def named(prompts: Iterable[str], listed: str, share: float) -> frozenset[str]:
    """The prompts to hold out: those listed, separated by commas, and a share of all.

    Raises:
        AssetError: one that is listed is not there.
    """
    known = set(prompts)
    wanted = {prompt for prompt in listed.split(",") if prompt}
    missing = sorted(wanted - known)
    if missing:
        msg = f"no session has the prompt {missing[0]!r} that is to be held out"
        raise AssetError(msg)
    return frozenset(wanted | set(held_back(known, share)))


def conformal_sessions(steps: list[Steps], split: Split) -> int:
    """Whole benign sessions of the conformal part that are long enough to be judged."""
    return sum(
        s.sequence.complete and s.sequence.healthy >= BLOCK for s in steps if s.sequence.prompt_id in split.conformal
    )


def has_faults(sequences: tuple[Sequence, ...]) -> bool:
    """Whether there are labelled faults to learn weights from."""
    return any(s.onset >= 0 and s.kind not in _BENIGN for s in sequences)


def _benign(steps: Steps) -> Steps:
    """The same steps without the label of a fault, where weights are given."""
    sequence = steps.sequence
    if sequence.kind in _BENIGN:
        return steps
    return replace(steps, sequence=replace(sequence, kind="control", onset=-1))


class _Fitter:
    """Fits groups; groups of the same sequences share their assets."""

    def __init__(
        self, steps: list[Steps], split: Split, source: str, options: FitOptions, *, demo: bool, notes: str
    ) -> None:
        self._steps, self._split, self._source = steps, split, source
        self._demo, self._notes = demo, notes
        self._options = options
        self._made: dict[tuple[int, ...], tuple[DetectorAsset, MultivariateAsset | None]] = {}

    def pooled(self) -> None:
        """Fit everything; the weights of all keys are its."""
        everything = tuple(range(len(self._steps)))
        made = fit_traces(
            self._steps, self._split, self._source, demo=self._demo, options=self._options, notes=self._notes
        )
        self._made[everything] = made
        self._options = replace(self._options, weights=made[0].masks)

    def fit(self, members: tuple[int, ...]) -> tuple[DetectorAsset, MultivariateAsset | None]:
        """Assets of some of the sequences."""
        if members not in self._made:
            steps = [_benign(self._steps[i]) for i in members]
            self._made[members] = fit_traces(
                steps, self._split, self._source, demo=self._demo, options=self._options, notes=self._notes
            )
        return self._made[members]


def fit_keys(
    traces: Traces,
    out_dir: Path,
    *,
    level: int = 0,
    least: int = LEAST,
    share: float | None = None,
    default: bool = True,
    demo: bool = False,
    projection: str | None = None,
    held_out: frozenset[str] = frozenset(),
    options: FitOptions | None = None,
    steps: list[Steps] | None = None,
) -> KeyedFit:
    """Fit assets for every key of a log and point `out_dir` at them.

    Args:
        traces: sequences that name their keys.
        out_dir: asset directory; made if needed, its manifest is replaced.
        level: level of the key that calibration is made per.
        least: fewest conformal sessions of a key with an asset of its own.
        share: of the prompts, those that fit scales and weights; the others are conformal.
        default: whether unknown keys are answered by the assets of everything, as a fall-back.
        demo: mark the assets as a demonstration.
        projection: digest of a projection asset in `out_dir` that the features were made with.
        held_out: prompts left out of both parts, for evaluation.
        options: choices of the fit; its `delta` is shared by all assets.
        steps: of `traces`, where they are made already.

    Raises:
        AssetError: no key has enough sessions, or the sequences cannot be fitted together.
    """
    options = options or FitOptions()
    steps = steps if steps is not None else [steps_of(s) for s in traces.sequences]
    if share is None:
        share = SHARE_FAULTS if has_faults(traces.sequences) else SHARE_BENIGN
    split = split_prompts(traces.prompts, held_out=held_out, share=share)
    enough, under = _sorted_out(steps, split, level, least, options.least)
    everything = tuple(range(len(steps)))
    distinct = len({group.members for group in enough} | ({everything} if default else set()))
    notes = f"{len(held_out)} prompts held out" if held_out else ""
    fitter = _Fitter(
        steps, split, traces.source, replace(options, delta=options.delta / distinct), demo=demo, notes=notes
    )
    fitter.pooled()
    fitted: list[Fitted] = []
    written: dict[tuple[int, ...], tuple[str, str | None]] = {}
    whole = [_Group(_LEVELS, _key(steps[0].sequence), everything)] if default else []
    for group in (*enough, *whole):
        detector, monitor = fitter.fit(group.members)
        if group.members not in written:
            second = write_asset(out_dir, monitor) if monitor is not None else None
            written[group.members] = write_asset(out_dir, detector), second
        wire = group.key.value(group.level) if group.level < _LEVELS else 0
        fitted.append(
            Fitted(
                key=group.key.at(group.level) if group.level < _LEVELS else (),
                level=group.level,
                exact=group.level == level,
                sessions=detector.provenance.n_sessions,
                binding=Binding(wire, level, *written[group.members]),
                p_floor=detector.masks[max(detector.masks)].p_floor,
            )
        )
    manifest = write_manifest(
        out_dir,
        bindings=[one.binding for one in fitted if one.level < _LEVELS],
        default=fitted[-1].binding if default else None,
        policies={0: write_asset(out_dir, DEFAULT_POLICY)},
        projections=[projection] if projection else [],
    )
    load_assets(out_dir)
    return KeyedFit(manifest, tuple(fitted), under, split)


def _sorted_out(
    steps: list[Steps], split: Split, level: int, least: int, to_fit: int
) -> tuple[list[_Group], dict[tuple[str, ...], int]]:
    """Groups with enough sessions, and how many the other keys have.

    Raises:
        AssetError: no key at `level` has enough.
    """
    enough: list[_Group] = []
    under: dict[tuple[str, ...], int] = {}
    for group in _groups(steps, level):
        members = [steps[i] for i in group.members]
        count = conformal_sessions(members, split)
        fitting = sum(s.sequence.healthy >= BLOCK for s in members if s.sequence.prompt_id in split.fit)
        if count >= least and fitting >= to_fit:
            enough.append(group)
        else:
            under[group.key.at(group.level)] = count
    if not any(group.level == level for group in enough):
        best = max(under.values(), default=0)
        msg = (
            f"no key has {least} healthy conformal sessions, the best has {best} "
            f"of {len(steps)} sessions in all; {BETTER} are better"
        )
        raise AssetError(msg)
    return enough, under
