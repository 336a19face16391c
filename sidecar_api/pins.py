"""What is pinned at reservation: key, signal mask, assets, merge weight; and what they allow to claim.

Resolved from the same asset directory as the models', with the same rules; the ids that the ensemble
reports back are held against it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from tcd.calibration.assets import (
    AssetSet,
    Canary,
    DetectorAsset,
    MaskCalibration,
    MultivariateAsset,
    Provenance,
    RoutingPolicy,
)
from tcd.contract import SPECTRUM_RANK, Signal
from tcd.risk_av import epoch_length_auto, merged_p_floor
from tcd.routing.policy import DEFAULT_POLICY

Key = tuple[int, int, int]
_CACHED: Final = 4096
#: A look at the manifest costs a system call. A row that was scored with newer assets says so, and is scored anew.
LOOK_SECONDS: Final = 0.01
_FEATURES: Final = int(Signal.FEATURES)


class Assets(Protocol):
    """Where the assets come from: `tcd.calibration.store.AssetDirectory`, or a fixed set."""

    def current(self) -> AssetSet:
        """The set in use."""
        ...


@dataclass(frozen=True, slots=True)
class FixedAssets:
    """A set that never changes."""

    assets: AssetSet

    def current(self) -> AssetSet:
        """The set."""
        return self.assets


class Shape(NamedTuple):
    """What of a row decides which calibration answers it.

    Attributes:
        mask: signals that are present.
        cols: width of a feature vector, 0 without.
        short: whether there are fewer singular values than the detector needs.
    """

    mask: int
    cols: int
    short: bool

    @classmethod
    def of(cls, mask: int, cols: int, spectrum: int) -> Shape:
        """The shape of a row."""
        return cls(mask, cols if mask & _FEATURES else 0, 0 < spectrum < SPECTRUM_RANK)


@dataclass(frozen=True, slots=True)
class Pins:
    """The pinned terms of a hypothesis.

    Attributes:
        key, mask: of the rows.
        ids: detector, multivariate and policy asset; 0 = none.
        weight: of the detector in the merge.
        p_floor: smallest p-value that can come out.
        length: epoch length that the calibration carries; 0 = too small for any claim.
        horizon: tokens of the longest calibrated session; 0 = none.
        threshold: of the fast alarm, on the score.
        level: the step p that it stands for.
        policy: the routing policy.
        digests: of detector, multivariate, policy and manifest; None = none.
        confidence: 1 - delta where the p-values hold given the calibration set; None where they are marginal.
        reasons: why there is no guarantee, whatever a step says.
        monitor: the multivariate reference, where the rows' features fit it.
    """

    key: Key
    mask: int
    ids: tuple[int, int, int]
    weight: float
    p_floor: float
    length: int
    horizon: int
    threshold: float
    level: float
    policy: RoutingPolicy
    digests: tuple[str | None, str | None, str | None, str]
    confidence: float | None
    reasons: tuple[str, ...]
    monitor: MultivariateAsset | None = field(default=None, repr=False, compare=False)

    @property
    def identity(self) -> tuple[Key, int, tuple[int, int, int], float]:
        """What must not change while a hypothesis is open."""
        return (self.key, self.mask, self.ids, self.weight)

    def same(self, other: Pins) -> bool:
        """Whether the identities are equal; nearly always the pins are the same object."""
        return self is other or self.identity == other.identity


@dataclass(frozen=True, slots=True)
class _Found:
    """What the asset directory has for a row, and what is wrong with it."""

    detector: DetectorAsset | None
    table: MaskCalibration | None
    monitor: MultivariateAsset | None
    usable: MultivariateAsset | None
    reasons: tuple[str, ...]


def _look_up(assets: AssetSet, key: Key, shape: Shape) -> _Found:
    detector, found = assets.detector_match(key)
    monitor, matched = assets.multivariate_match(key)
    known = shape.mask
    if detector is not None and known & Signal.FEATURES and shape.cols != detector.features:
        known &= ~Signal.FEATURES
    if detector is not None and shape.short:
        known &= ~Signal.SPECTRUM
    table = detector.mask(known) if detector is not None and known else None
    watched = monitor if shape.mask & Signal.FEATURES else None
    usable = watched if watched is not None and watched.features == shape.cols else None
    strange = known != shape.mask or (watched is not None and usable is None)
    wrong = {
        "no calibration": detector is None and monitor is None,
        "fallback": found.fallback or strange or (watched is not None and matched.fallback),
        "unknown mask": detector is not None and table is None,
    }
    return _Found(detector, table, watched, usable, tuple(reason for reason, there in wrong.items() if there))


def resolve(assets: AssetSet, key: Key, shape: Shape, *, alpha: float) -> Pins:
    """The pins of a row under a set of assets; `alpha` is the budget of an epoch."""
    policy = assets.policy(0) or DEFAULT_POLICY
    found = _look_up(assets, key, shape)
    detector, table, monitor, usable = found.detector, found.table, found.monitor, found.usable
    used: list[Provenance] = []
    if detector is not None and table is not None and policy.weight > 0:
        used.append(detector.provenance)
    if usable is not None and policy.weight < 1:
        used.append(usable.provenance)
    p_floor = merged_p_floor(
        detector=table.p_floor if table is not None else None,
        multivariate=usable.p_floor if usable is not None else None,
        weight=policy.weight,
    )
    length = epoch_length_auto(alpha, p_floor)
    small = ("calibration too small",) if used and length < 1 else ()
    demo = ("demo calibration",) if any(provenance.demo for provenance in used) else ()
    level = table.level if table is not None else 0.0
    return Pins(
        key=key,
        mask=shape.mask,
        ids=(
            detector.asset_id if detector is not None and shape.mask else 0,
            monitor.asset_id if monitor is not None else 0,
            policy.asset_id,
        ),
        weight=policy.weight,
        p_floor=p_floor,
        length=length,
        horizon=min((provenance.horizon for provenance in used), default=0),
        threshold=1.0 - level,
        level=level,
        policy=policy,
        digests=(
            detector.digest if detector is not None else None,
            monitor.digest if monitor is not None else None,
            policy.digest,
            assets.manifest_digest,
        ),
        confidence=assets.confidence,
        reasons=found.reasons + demo + small,
        monitor=usable,
    )


class Resolver:
    """`resolve` with a bounded memory of its answers."""

    def __init__(self, assets: Assets, *, alpha: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Resolve against `assets`, which are looked at once in `LOOK_SECONDS` at most; `clock` in seconds."""
        self._assets = assets
        self._alpha = alpha
        self._clock = clock
        self._looked = -math.inf
        self._set: AssetSet | None = None
        self._known: OrderedDict[tuple[Key, Shape], Pins] = OrderedDict()

    def current(self) -> AssetSet:
        """The assets in use."""
        return self._assets.current()

    @property
    def canary(self) -> Canary | None:
        """The candidate on trial, in the assets that the newest pins are of."""
        return None if self._set is None else self._set.canary

    def retune(self, alpha: float) -> None:
        """Resolve for another budget of an epoch from now on."""
        self._alpha = alpha
        self._known.clear()

    def pins(self, key: Key, shape: Shape, *, fresh: bool = False) -> Pins:
        """Pins of a row under the newest assets; `fresh` looks at them in any case."""
        now = self._clock()
        if fresh or self._set is None or now - self._looked >= LOOK_SECONDS:
            self._looked = now
            assets = self._assets.current()
            if assets is not self._set:
                self._set = assets
                self._known.clear()
        found = self._known.get((key, shape))
        if found is None:
            found = self._known[key, shape] = resolve(self._set, key, shape, alpha=self._alpha)
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return found
