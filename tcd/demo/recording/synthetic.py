"""Labelled synthetic generations for property tests: no model, no weights, a few milliseconds each.

The marginals, the share of the variance between requests and the memory within one are those of healthy SmolLM2
generations (`tcd.demo.recording.realism` measures both sides; docs/benchmarks.md has the table). Not modelled:
the joint behaviour of entropy, hidden states and spectrum outside loops, soft loops, what a language or a task changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tcd.calibration.traces import Sequence as Recorded
from tcd.contract import Length, Signal
from tcd.signals.logits import NUCLEUS_CAP

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Tokens that synthetic texts are drawn from: so many that no two of a text's 4-grams are equal by chance.
VOCABULARY: Final = 49_152
_LEVELS: Final = np.linspace(0.0, 1.0, 33)
_BINS: Final = 8
#: The nucleus follows the entropy closely: it has finer bins.
_FINE: Final = 32
#: Entropy of the next copy of a looped token over that of the last one, and how much it varies (log scale).
_DECAY, _SPREAD = 0.6, 0.3
#: Distance of a copied feature vector from the last copy, relative to its norm: at the first copy, and per copy.
_JITTER, _JITTER_DECAY = 0.3, 0.7
_FLOOR: Final = 0.02
_COLUMNS: Final = {
    Signal.TRACE: (Length.TRACE,),
    Signal.ENTROPY: (Length.ENTROPY,),
    Signal.SPECTRUM: (Length.SPECTRUM,),
    Signal.FEATURES: (Length.FEATURE_ROWS, Length.FEATURE_COLS),
}


@dataclass(frozen=True, slots=True)
class Memory:
    """How a signal remembers: shares of its latent variance, the rest is white.

    Attributes:
        between: differs between requests and stays within one.
        slow: decays by `keep` per step.
        near: correlation of neighbouring steps in the rest.
    """

    between: float
    slow: float
    keep: float
    near: float

    def latent(self, rng: np.random.Generator, n: int, width: int) -> F64:
        """Standard normal (n, width) with this memory."""
        drive = rng.normal(size=(n, width)) * np.sqrt(1.0 - self.keep**2)
        slow = np.empty((n, width))
        state = rng.normal(size=width)
        for t in range(n):
            state = self.keep * state + drive[t]
            slow[t] = state
        # a moving average with first autocorrelation `near`
        a = 0.0 if self.near == 0 else (1.0 - np.sqrt(1.0 - 4.0 * self.near**2)) / (2.0 * self.near)
        noise = rng.normal(size=(n + 1, width))
        white = (noise[1:] + a * noise[:-1]) / np.sqrt(1.0 + a * a)
        within = np.sqrt(self.slow) * slow + np.sqrt(1.0 - self.slow) * white
        return np.asarray(np.sqrt(self.between) * rng.normal(size=width) + np.sqrt(1.0 - self.between) * within)


ENTROPY_MEMORY: Final = Memory(0.21, 0.17, 0.88, 0.0)
SURPRISAL_MEMORY: Final = Memory(0.05, 0.0, 0.0, 0.0)
FEATURE_MEMORY: Final = Memory(0.26, 0.15, 0.88, 0.17)
SPECTRUM_MEMORY: Final = Memory(0.5, 1.0, 0.967, 0.0)


@dataclass(frozen=True, slots=True)
class Tables:
    """What was measured of healthy steps.

    Attributes:
        entropy: (33,) quantiles, nats.
        surprisal: (8, 33) quantiles of the sampled token's, by octile of the entropy.
        nucleus: (32, 33) quantiles of the log of the nucleus size, by 32nd of the entropy.
        feature_mean, feature_factor: (16,), (16, 16) mean and lower Cholesky factor of the covariance.
        spectrum_mean, spectrum_factor: the same of the logarithms of the 16 singular values.
    """

    entropy: F64
    surprisal: F64
    nucleus: F64
    feature_mean: F64
    feature_factor: F64
    spectrum_mean: F64
    spectrum_factor: F64

    @classmethod
    def shipped(cls) -> Tables:
        """Those of the recordings that the shipped assets were fitted on."""
        text = resources.files("tcd.demo").joinpath("data/synthetic.json").read_text("utf-8")
        return cls(**{name: np.array(value) for name, value in json.loads(text).items()})

    @classmethod
    def measure(cls, sequences: Sequence[Recorded]) -> Tables:
        """Measure the healthy steps of sequences that are not greedy."""
        healthy = [s for s in sequences if s.kind in {"healthy", "soft"} and s.healthy]
        entropy = np.concatenate([s.entropy[: s.healthy] for s in healthy]).astype(np.float64)
        surprisal = -np.concatenate([s.trace[: s.healthy] for s in healthy]).astype(np.float64)
        features = np.concatenate([s.features[: s.healthy] for s in healthy]).astype(np.float64)
        # the window of the spectrum is full from its 32nd step on at the latest
        sigma = np.concatenate([s.spectrum[32 : s.healthy] for s in healthy]).astype(np.float64)
        logs = np.log(sigma[(sigma > 0).all(axis=1)])
        return cls(
            np.quantile(entropy, _LEVELS),
            _by_entropy(entropy, surprisal, _BINS),
            _by_entropy(entropy, features[:, -1], _FINE),
            features.mean(axis=0),
            np.linalg.cholesky(np.cov(features.T)),
            logs.mean(axis=0),
            np.linalg.cholesky(np.cov(logs.T)),
        )

    def to_json(self) -> str:
        """As `shipped` reads it: five significant digits."""
        body = {f.name: getattr(self, f.name).tolist() for f in fields(self)}
        return json.dumps(_rounded(body), separators=(",", ":")).replace('],"', '],\n"')


def _by_entropy(entropy: F64, values: F64, bins: int) -> F64:
    """Quantiles (bins, 33) of values in equal parts of the entropy."""
    bounds = np.quantile(entropy, np.arange(1, bins) / bins)
    part = np.searchsorted(bounds, entropy)
    return np.stack([np.quantile(values[part == i], _LEVELS) for i in range(bins)])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else float(f"{value:.5g}")


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals of one synthetic generation of n steps.

    Attributes:
        entropy, surprisal: (n,) nats, at least 0.
        log_sigma: (n, 16) logarithms of the singular values.
        features: (n, 16), the last one the log of the nucleus size.
        tokens: (n,) ids.
    """

    entropy: F64
    surprisal: F64
    log_sigma: F64
    features: F64
    tokens: I64

    def columns(self) -> dict[str, NDArray[Any]]:
        """Columns of a recording."""
        return {
            "ent": self.entropy,
            "lp": -self.surprisal,
            "sv": np.sort(np.exp(self.log_sigma), axis=1)[:, ::-1],
            "feat": self.features,
            "nuc95": np.clip(np.rint(np.exp(self.features[:, -1])), 1, NUCLEUS_CAP),
            "tok": self.tokens,
            "sampled_eos": np.zeros(self.tokens.shape[0], np.bool_),
        }


def healthy(tables: Tables, rng: np.random.Generator, n: int) -> Signals:
    """A healthy generation of n tokens."""
    width = tables.feature_mean.shape[0]
    level = ENTROPY_MEMORY.latent(rng, n, 1)[:, 0]
    chance = SURPRISAL_MEMORY.latent(rng, n, 1)[:, 0]
    scalars = _scalars(tables, level, chance, rng.normal(size=n))
    log_sigma = tables.spectrum_mean + SPECTRUM_MEMORY.latent(rng, n, width) @ tables.spectrum_factor.T
    features = tables.feature_mean + FEATURE_MEMORY.latent(rng, n, width) @ tables.feature_factor.T
    features[:, -1] = scalars.log_nucleus
    return Signals(scalars.entropy, scalars.surprisal, log_sigma, features, rng.integers(1, VOCABULARY, n))


@dataclass(frozen=True, slots=True)
class _Scalars:
    entropy: F64
    surprisal: F64
    log_nucleus: F64


def _scalars(tables: Tables, level: F64, chance: F64, spread: F64) -> _Scalars:
    """Entropy of latent levels; surprisal and nucleus given the entropy, of latent chances; all (n,)."""
    share = special.ndtr(level)

    def given(table: F64, latent: F64) -> F64:
        part = np.minimum((share * table.shape[0]).astype(np.int64), table.shape[0] - 1)
        place = special.ndtr(latent)
        return np.array([np.interp(p, _LEVELS, table[b]) for p, b in zip(place, part, strict=True)])

    entropy = np.interp(share, _LEVELS, tables.entropy)
    return _Scalars(np.asarray(entropy), given(tables.surprisal, chance), given(tables.nucleus, spread))


def loop(signals: Signals, rng: np.random.Generator, *, onset: int, period: int) -> Signals:
    """From `onset` on the text repeats the `period` tokens before it, and the model grows surer with every copy.

    Raises:
        ValueError: unless 1 <= period <= onset.
    """
    if not 1 <= period <= onset:
        msg = f"a loop of period {period} cannot begin at step {onset}"
        raise ValueError(msg)
    entropy, surprisal, log_sigma, features, tokens = (getattr(signals, f.name).copy() for f in fields(signals))
    for t in range(onset, tokens.shape[0]):
        copy = (t - onset) // period
        before = t - period
        fade = _DECAY * np.exp(_SPREAD * rng.normal(size=2))
        entropy[t] = max(entropy[before] * fade[0], _FLOOR * entropy[before] / (entropy[before] + _FLOOR))
        surprisal[t] = min(surprisal[before], entropy[before]) * fade[1]
        jitter = _JITTER * _JITTER_DECAY**copy * np.linalg.norm(features[before]) / np.sqrt(features.shape[1])
        features[t] = features[before] + jitter * rng.normal(size=features.shape[1])
        features[t, -1] = max(0.0, features[before, -1]) * min(1.0, entropy[t] / max(entropy[before], _FLOOR))
        tokens[t] = tokens[before]
    return Signals(entropy, surprisal, log_sigma, features, tokens)


def blow_up(signals: Signals, tables: Tables, rng: np.random.Generator, *, onset: int, temperature: float) -> Signals:
    """From `onset` on sampled at `temperature` > 1: unlikely tokens, then a wilder distribution and other features."""
    heat = np.log2(max(temperature, 1.0))
    excess = np.where(np.arange(signals.tokens.shape[0]) >= onset, 2.2 * heat + 1.5 * (heat > 0), 0.0)
    out = drift(signals, tables, rng, onset=onset, strength=1.5 * heat)
    noise = np.abs(1.0 + 0.7 * rng.normal(size=excess.shape[0]))
    return replace(out, surprisal=np.where(excess > 0, out.entropy + excess * noise, out.surprisal))


def drift(signals: Signals, tables: Tables, rng: np.random.Generator, *, onset: int, strength: float) -> Signals:
    """From `onset` on entropy, surprisal and features lie `strength` standard deviations off, the latter anywhere."""
    late = np.arange(signals.tokens.shape[0]) >= onset
    share = np.clip(np.interp(signals.entropy, tables.entropy, _LEVELS), 1e-3, 1.0 - 1e-3)
    level, chance, spread = special.ndtri(share) + strength, *rng.normal(size=(2, late.shape[0]))
    moved = _scalars(tables, level, chance, spread)
    direction = rng.normal(size=signals.features.shape[1])
    step = tables.feature_factor @ (direction / np.linalg.norm(direction)) * 2.0 * strength
    features = signals.features + late[:, None] * step
    features[:, -1] = np.where(late, moved.log_nucleus, signals.features[:, -1])
    return replace(
        signals,
        entropy=np.where(late, moved.entropy, signals.entropy),
        surprisal=np.where(late, moved.surprisal, signals.surprisal),
        features=features,
    )


def missing(tensors: dict[str, NDArray[np.generic]], absent: Signal) -> dict[str, NDArray[np.generic]]:
    """The request's tensors (`tcd.calibration.traces.replay`) of a caller who has not the signals of a mask."""
    lengths = tensors["LENGTHS"].copy()
    for signal, columns in _COLUMNS.items():
        if absent & signal:
            lengths[:, list(columns)] = 0
    return {**tensors, "LENGTHS": lengths}
