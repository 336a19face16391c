"""Calibration assets and the set of them that a scoring call uses. Immutable and pure: no I/O, no clock.

An asset is content-addressed: its digest is the SHA-256 of the bytes of its file, its id the first 8 bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.conformal import smallest_p

F64 = NDArray[np.float64]
#: Level answered by a lookup that fell through to the manifest's default, and by one that found nothing.
LEVEL_DEFAULT: Final = 3
LEVEL_NONE: Final = -1
#: Heads that a mask may have.
MOST_HEADS: Final = 4
_CONFIDENCE_DIGITS: Final = 9


def asset_id(digest: str) -> int:
    """Id of an asset: the first 8 bytes of its SHA-256, big-endian. `digest` is `sha256:` and 64 hex digits."""
    return int(digest.removeprefix("sha256:")[:16], 16)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an asset comes from.

    Attributes:
        source: name and digest of the log it was fitted from.
        n_steps: healthy steps in the conformal table.
        n_sessions: healthy sessions in the session table.
        horizon: longest calibrated session in tokens (T_max).
        software: version of the software that fitted it.
        demo: whether it is a demonstration, too small for any guarantee.
        notes: anything else, as text.
    """

    source: str
    n_steps: int
    n_sessions: int
    horizon: int
    software: str
    demo: bool
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """A logistic combination: intercept, (F,) weights on z and on z squared, the latter never negative."""

    intercept: float
    linear: F64
    quadratic: F64

    def only(self, known: NDArray[np.bool_]) -> Head:
        """The same without the statistics that are not known, (F,)."""
        return Head(self.intercept, self.linear * known, self.quadratic * known)


@dataclass(frozen=True, slots=True)
class MaskCalibration:
    """Combination and conformal tables of one signal mask.

    Attributes:
        mask: the signal mask (`tcd.contract.Signal`).
        heads: one to `MOST_HEADS` combinations, each for faults of its own, weights 0 for statistics that the mask does
            not carry. The statistic is the log of the sum of their odds.
        steps: ascending statistics of healthy steps.
        sessions: ascending session maxima of healthy sessions.
        components: ascending statistics of healthy steps per component.
        level: merged step p (weight of the default policy) at or under which the fast alarm sounds.
        adjusted: (n + 1,) p-values of a hypothesis by the number of session maxima at or above its own; None for the
            marginal ones, (1 + number) / (n + 1).
    """

    mask: int
    heads: tuple[Head, ...]
    steps: F64
    sessions: F64
    components: tuple[F64, ...]
    level: float
    adjusted: F64 | None = None

    @property
    def p_floor(self) -> float:
        """Smallest p-value of a hypothesis."""
        return smallest_p(self.sessions, self.adjusted)


@dataclass(frozen=True, slots=True, repr=False)
class DetectorAsset:
    """Scales, weights and tables of the detector.

    Attributes:
        statistics: names of the raw statistics, in the order of `location`.
        location: (A, F) medians of healthy steps by age (`tcd.detector.catalogue.AGES`).
        scale: (A, F) 1.4826 MAD of healthy steps, positive.
        features: width of a feature vector, 0 when no mask uses features.
        masks: calibrations by signal mask.
        delta: probability that the calibration set is too lucky for the asset's adjusted tables; 0 for marginal ones.
    """

    digest: str
    provenance: Provenance
    statistics: tuple[str, ...]
    location: F64
    scale: F64
    features: int
    masks: Mapping[int, MaskCalibration]
    delta: float = 0.0

    def __repr__(self) -> str:
        """Name and digest; the tables are long."""
        return f"DetectorAsset({self.digest})"

    @property
    def asset_id(self) -> int:
        """Id on the wire."""
        return asset_id(self.digest)

    def mask(self, mask: int) -> MaskCalibration | None:
        """Calibration of a signal mask, None when there is none."""
        return self.masks.get(mask)


@dataclass(frozen=True, slots=True, repr=False)
class MultivariateAsset:
    """Reference of the multivariate monitor.

    Attributes:
        mean: (d,) mean of healthy feature vectors.
        cholesky: (d, d) lower Cholesky factor of the shrunk covariance.
        shrinkage: weight of the identity target.
        smoothing: r of the MEWMA, 1 = the newest row alone.
        jitter: what was added to the diagonal because Cholesky failed without; 0 normally.
        steps: ascending distances of healthy steps.
        sessions: ascending session maxima of healthy sessions.
        threshold: distance above which `trigger` is set, the quantile at `threshold_alpha`.
        threshold_alpha: level of `threshold`.
        adjusted: p-values of a hypothesis, as in `MaskCalibration`.
        delta: as in `DetectorAsset`.
    """

    digest: str
    provenance: Provenance
    mean: F64
    cholesky: F64
    shrinkage: float
    smoothing: float
    jitter: float
    steps: F64
    sessions: F64
    threshold: float
    threshold_alpha: float
    adjusted: F64 | None = None
    delta: float = 0.0

    def __repr__(self) -> str:
        """Name and digest; the tables are long."""
        return f"MultivariateAsset({self.digest})"

    @property
    def asset_id(self) -> int:
        """Id on the wire."""
        return asset_id(self.digest)

    @property
    def features(self) -> int:
        """Width of a feature vector."""
        return int(self.mean.shape[0])

    @property
    def p_floor(self) -> float:
        """Smallest p-value of a hypothesis."""
        return smallest_p(self.sessions, self.adjusted)


@dataclass(frozen=True, slots=True)
class TierRule:
    """What a tier does to the decoding parameters. None leaves one as it is.

    Attributes:
        temperature: (lo, hi) clamp.
        top_p: cap.
        max_tokens: cap; 0 ends the generation.
        decoder: index in `tcd.contract.DECODERS`, 0 = as asked.
    """

    temperature: tuple[float, float] | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    decoder: int = 0


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """A routing table.

    Attributes:
        weight: w of the merge p = min(1, p_detector / w, p_multivariate / (1 - w)).
        drift: drift at or above which the tier is at least cautious.
        failed: status bits (`tcd.contract.Status`) of a monitor that make the tier at least cautious.
        tiers: rules of the tiers normal, cautious, strict.
    """

    digest: str
    provenance: Provenance
    name: str
    weight: float
    drift: float
    failed: int
    tiers: tuple[TierRule, TierRule, TierRule]

    @property
    def asset_id(self) -> int:
        """Id on the wire."""
        return asset_id(self.digest)


@dataclass(frozen=True, slots=True, repr=False)
class ProjectionAsset:
    """A fixed projection of hidden states to feature vectors.

    Attributes:
        matrix: (D, K) FP64; features = hidden @ matrix.
    """

    digest: str
    provenance: Provenance
    matrix: F64

    def __repr__(self) -> str:
        """Name and digest; the tables are long."""
        return f"ProjectionAsset({self.digest})"

    @property
    def asset_id(self) -> int:
        """Id on the wire."""
        return asset_id(self.digest)

    @property
    def width(self) -> int:
        """D, the width of the hidden states."""
        return int(self.matrix.shape[0])


Asset = DetectorAsset | MultivariateAsset | RoutingPolicy | ProjectionAsset
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Binding:
    """A manifest entry: `key` is bound to assets that were fitted for level `level` of the key."""

    key: int
    level: int
    detector: str | None
    multivariate: str | None


@dataclass(frozen=True, slots=True)
class Canary:
    """A candidate that a share of the sessions is judged by, under keys of its own.

    Attributes:
        id: digest of the candidate's manifest.
        share: of the sessions, in (0, 1).
        sessions: that are to be judged before it is promoted.
        bindings: the candidate's, by its real keys.
    """

    id: str
    share: float
    sessions: int
    bindings: Mapping[int, Binding]

    def covers(self, subject: str, key: tuple[int, int, int]) -> bool:
        """Whether it judges a session: a fixed share of the subjects (by digest), where it knows the key."""
        draw = hashlib.sha256(f"{self.id} {subject}".encode()).digest()
        known = any(value in self.bindings and self.bindings[value].detector for value in key)
        return known and int.from_bytes(draw[:8], "big") < self.share * 2**64

    def key(self, key: tuple[int, int, int]) -> tuple[int, int, int]:
        """The key that rows of its sessions carry: the manifest binds it to the candidate's assets."""
        first, second, third = (canary_key(self.id, value) for value in key)
        return (first, second, third)


def canary_key(candidate: str, key: int) -> int:
    """A key value of a candidate's canary, never 0."""
    return int.from_bytes(hashlib.sha256(f"canary {candidate} {key:016x}".encode()).digest()[:8], "big") or 1


@dataclass(frozen=True, slots=True)
class Match:
    """Answer of a lookup: the digest, the level that matched and whether that is a fall-back."""

    digest: str | None
    level: int
    fallback: bool


def _frozen(mapping: Mapping[str, _T]) -> Mapping[str, _T]:
    return MappingProxyType(dict(mapping))


@dataclass(frozen=True, slots=True, repr=False)
class AssetSet:
    """All assets of one manifest.

    Attributes:
        manifest_digest: `sha256:` of the manifest's bytes.
        bindings: by key value.
        default: binding for keys that match nothing, None for none.
        policies: digests by policy id; 0 is the default policy.
        canary: a candidate on trial; its own keys are among `bindings`.
    """

    manifest_digest: str = "sha256:" + "0" * 64
    detectors: Mapping[str, DetectorAsset] = field(default_factory=dict)
    multivariates: Mapping[str, MultivariateAsset] = field(default_factory=dict)
    routing: Mapping[str, RoutingPolicy] = field(default_factory=dict)
    projections: Mapping[str, ProjectionAsset] = field(default_factory=dict)
    bindings: Mapping[int, Binding] = field(default_factory=dict)
    default: Binding | None = None
    policies: Mapping[int, str] = field(default_factory=dict)
    canary: Canary | None = None

    def __repr__(self) -> str:
        """Name and digest of the manifest."""
        return f"AssetSet({self.manifest_digest})"

    def __post_init__(self) -> None:
        """Freeze the mappings, so that a set can be shared between threads."""
        for name in ("detectors", "multivariates", "routing", "projections"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        object.__setattr__(self, "bindings", MappingProxyType(dict(self.bindings)))
        object.__setattr__(self, "policies", MappingProxyType(dict(self.policies)))

    def _match(self, key: tuple[int, int, int], kind: str) -> Match:
        for level, value in enumerate(key):
            binding = self.bindings.get(value) if value else None
            digest = getattr(binding, kind) if binding else None
            if binding and digest:
                return Match(digest, level, level > 0 and binding.level != level)
        digest = getattr(self.default, kind) if self.default else None
        return Match(digest, LEVEL_DEFAULT, True) if digest else Match(None, LEVEL_NONE, False)

    def detector_match(self, key: tuple[int, int, int]) -> tuple[DetectorAsset | None, Match]:
        """Detector asset of a key, and how it was found."""
        match = self._match(key, "detector")
        return (self.detectors[match.digest] if match.digest else None), match

    def multivariate_match(self, key: tuple[int, int, int]) -> tuple[MultivariateAsset | None, Match]:
        """Multivariate asset of a key, and how it was found."""
        match = self._match(key, "multivariate")
        return (self.multivariates[match.digest] if match.digest else None), match

    def detector(self, key: tuple[int, int, int]) -> tuple[DetectorAsset | None, int]:
        """Detector asset of a key and the level that matched: 0, 1, 2; 3 the manifest's default; -1 none."""
        asset, match = self.detector_match(key)
        return asset, match.level

    def multivariate(self, key: tuple[int, int, int]) -> tuple[MultivariateAsset | None, int]:
        """Multivariate asset of a key and the level that matched, as `detector`."""
        asset, match = self.multivariate_match(key)
        return asset, match.level

    @property
    def confidence(self) -> float | None:
        """1 - delta where every calibration of the set has adjusted p-values, delta their sum; None otherwise."""
        trial = set() if self.canary is None else {canary_key(self.canary.id, key) for key in self.canary.bindings}
        named = {b for b in (*self.bindings.values(), self.default) if b is not None and b.key not in trial}
        # what a canary's sessions are judged by claims nothing
        used = {digest for b in named for digest in (b.detector, b.multivariate)} if trial else None
        pools: tuple[Mapping[str, DetectorAsset | MultivariateAsset], ...] = (self.detectors, self.multivariates)
        shares = [a.delta for pool in pools for digest, a in pool.items() if used is None or digest in used]
        if not shares or min(shares) <= 0:
            return None
        # a sum of shares of one delta is that delta but for the last bits
        return max(0.0, round(1.0 - math.fsum(shares), _CONFIDENCE_DIGITS)) or None

    def policy(self, policy_id: int) -> RoutingPolicy | None:
        """Routing policy by id: 0 is the default, else an entry of the manifest or an asset id."""
        digest = self.policies.get(policy_id)
        if digest:
            return self.routing[digest]
        return next((p for p in self.routing.values() if p.asset_id == policy_id), None)

    def projection(self, width: int) -> ProjectionAsset | None:
        """Recorded projection for hidden states of this width, None for the hash-derived one."""
        return next((p for p in self.projections.values() if p.width == width), None)

    def by_id(self, asset_id: int) -> Asset | None:
        """Any asset by its id."""
        pools: tuple[Mapping[str, Asset], ...] = (self.detectors, self.multivariates, self.routing, self.projections)
        return next((asset for pool in pools for asset in pool.values() if asset.asset_id == asset_id), None)
