"""Raw statistics against their plain definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.contract import COMPONENTS, Length, Signal
from tcd.detector.statistics import INDEX, NAMES, SLICES, STATISTICS, Raw, compute, usable
from tcd.detector.windows import counts_of

RNG = np.random.default_rng(5)


def raw(
    trace: NDArray[Any] | None = None,
    entropy: NDArray[Any] | None = None,
    spectrum: NDArray[Any] | None = None,
    features: NDArray[Any] | None = None,
) -> Raw:
    empty = np.zeros(0, np.float32)
    t, e, s = (empty if x is None else np.asarray(x, np.float32) for x in (trace, entropy, spectrum))
    f = np.zeros((0, 0), np.float32) if features is None else np.asarray(features, np.float32)
    lengths = np.zeros((1, len(Length)), np.int32)
    lengths[0, :5] = (t.size, e.size, s.size, *f.shape)
    counts = counts_of(lengths, trace=t.size, entropy=e.size, spectrum=s.size, features=f.size)
    return compute(t[None], e[None], s[None], f.reshape(1, -1), counts)


def value(got: Raw, name: str) -> float:
    assert got.valid[0, INDEX[name]], name
    return float(got.values[0, INDEX[name]])


def test_components_are_neighbours_and_complete() -> None:
    covered = [i for columns in SLICES for i in range(columns.start, columns.stop)]
    assert covered == list(range(len(STATISTICS)))
    for name, columns in zip(COMPONENTS, SLICES, strict=True):
        assert {STATISTICS[i].component for i in range(columns.start, columns.stop)} == {name}
    assert usable(15).all()
    assert not usable(0).any()
    assert [NAMES[i] for i in np.flatnonzero(usable(int(Signal.SPECTRUM)))] == [
        "spread",
        "log_sigma_1",
        "log_sigma_16",
        "log_sigma_mean",
        "spectral_entropy",
    ]


def test_trace_and_entropy_statistics() -> None:
    lp, ent = -RNG.exponential(2, 80).astype(np.float32), RNG.exponential(2, 80).astype(np.float32)
    got = raw(lp, ent)
    d, e = lp.astype(np.float64), ent.astype(np.float64)
    assert value(got, "surprisal_16") == pytest.approx(-d[-16:].mean())
    assert value(got, "surprisal_4") == pytest.approx(-d[-4:].mean())
    assert value(got, "trace_low") == pytest.approx(np.sort(d[-16:])[:4].mean())
    assert value(got, "residual_16") == pytest.approx((-d - e)[-16:].mean())
    assert value(got, "residual_32") == pytest.approx((-d - e)[-32:].mean())
    assert value(got, "entropy_32") == pytest.approx(e[-32:].mean())
    assert value(got, "entropy_sd") == pytest.approx(e[-32:].std())
    assert value(got, "misfit_32") == pytest.approx(np.abs(d + e)[-32:].mean())
    assert value(got, "probability_16") == pytest.approx(np.exp(d)[-16:].mean())
    assert value(got, "log_entropy_32") == pytest.approx(np.log(e + 0.05)[-32:].mean())
    shift = e[-32:].mean() - e[:-32].mean()
    assert value(got, "entropy_self_32") == pytest.approx(shift / np.sqrt(1 + 32 / 48))
    shift = d[:-64].mean() - d[-64:].mean()
    assert value(got, "surprisal_self_64") == pytest.approx(shift / np.sqrt(1 + 64 / 16))
    logs = np.log(e + 0.05)
    shift = logs[-32:].mean() - logs[:-32].mean()
    assert value(got, "log_entropy_self") == pytest.approx(shift / np.sqrt(1 + 32 / 48))
    past = (e[-16:].mean() - e[:-16].mean()) / np.sqrt(1 + 16 / 64)
    assert value(got, "entropy_self") == pytest.approx(past)
    assert value(got, "surprisal_self") == pytest.approx(-(d[-16:].mean() - d[:-16].mean()) / np.sqrt(1 + 16 / 64))


@pytest.mark.parametrize("n", [32, 50, 112, 113, 300])
def test_recurrence_is_its_definition(n: int) -> None:
    x = RNG.normal(size=n).astype(np.float32)
    f = RNG.normal(3, 1, (min(n, 112), 5)).astype(np.float32)
    got = raw(x, None, None, f)
    for name, series in (("recurrence_trace", x[:, None]), ("recurrence_features", f)):
        lags = range(1, min(96, series.shape[0] - 16) + 1)
        newest = series[-16:].astype(np.float64)
        mean = [np.linalg.norm(newest - series[len(series) - 16 - p : len(series) - p], axis=1).mean() for p in lags]
        assert value(got, name) == pytest.approx(1 - min(mean) / np.mean(mean), abs=2e-5)


@pytest.mark.parametrize("n", [40, 112, 200])
def test_joint_recurrence_is_its_definition(n: int) -> None:
    lp, ent = (RNG.normal(size=n).astype(np.float32) for _ in range(2))
    f = RNG.normal(3, 1, (min(n, 112), 5)).astype(np.float32)
    got = raw(lp, ent, None, f)
    lags = range(1, min(96, f.shape[0] - 16) + 1)
    for name, block in (("recurrence_joint", 16), ("recurrence_joint_8", 8)):
        total = np.zeros(len(lags))
        for series in (lp[:, None], ent[:, None], f):
            x = series.astype(np.float64)
            gaps = [np.linalg.norm(x[-block:] - x[len(x) - block - p : len(x) - p], axis=1).mean() for p in lags]
            total += np.array(gaps) / np.mean(gaps)
        assert value(got, name) == pytest.approx(1 - total.min() / total.mean(), abs=5e-5)


def test_a_loop_is_a_perfect_recurrence_and_white_noise_is_not() -> None:
    period = RNG.normal(50, 1, (23, 16))
    loop = raw(
        np.resize(RNG.normal(size=23), 112), np.resize(RNG.normal(size=23), 112), None, np.resize(period, (112, 16))
    )
    noise = raw(RNG.normal(size=112), RNG.normal(size=112), None, RNG.normal(50, 1, (112, 16)))
    for name in ("recurrence_trace", "recurrence_entropy", "recurrence_features"):
        assert value(loop, name) > 0.999
        assert value(noise, name) < 0.6


def test_a_constant_window_is_a_perfect_recurrence() -> None:
    assert value(raw(np.zeros(64)), "recurrence_trace") == 1


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_feature_statistics_do_not_depend_on_the_scale_but_the_norm(scale: float) -> None:
    f = RNG.normal(2, 1, (60, 8)).astype(np.float32)
    one, other = raw(features=f), raw(features=(f.astype(np.float64) * scale).astype(np.float32))
    for name in ("recurrence_features", "feature_self", "feature_rank"):
        assert value(other, name) == pytest.approx(value(one, name), rel=1e-4)


def test_feature_statistics() -> None:
    f = RNG.normal(2, 1, (60, 8)).astype(np.float32).astype(np.float64)
    got = raw(features=f)
    assert value(got, "feature_norm") == pytest.approx(np.log(np.linalg.norm(f[-16:], axis=1).mean()), abs=1e-5)
    past = f[:-16]
    spread = ((past - past.mean(axis=0)) ** 2).sum(axis=1).mean()
    shift = np.linalg.norm(f[-16:].mean(axis=0) - past.mean(axis=0))
    assert value(got, "feature_self") == pytest.approx(shift / np.sqrt(spread * (1 + 16 / 44)), rel=1e-4)
    older, newer = f[:-32], f[-32:]
    spread = ((older - older.mean(axis=0)) ** 2).sum(axis=1).mean()
    shift = np.linalg.norm(newer.mean(axis=0) - older.mean(axis=0))
    assert value(got, "feature_self_32") == pytest.approx(shift / np.sqrt(spread * (1 + 32 / 28)), rel=1e-4)
    eigenvalues = np.linalg.eigvalsh(np.cov(f[-32:].T))
    assert value(got, "feature_rank") == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-4)


@pytest.mark.parametrize("count", [16, 17, 40, 64, 65, 500])
def test_spectrum_statistics_take_the_largest_in_any_order(count: int) -> None:
    sigma = RNG.exponential(5, count).astype(np.float32)
    top = np.sort(sigma.astype(np.float64))[::-1][:16]
    got = raw(spectrum=RNG.permutation(sigma))
    assert value(got, "log_sigma_1") == pytest.approx(np.log(top[0]), abs=1e-5)
    assert value(got, "spread") == pytest.approx(np.log(top[0] + 1e-6) - np.log(top[15] + 1e-6))
    share = top / top.sum()
    assert value(got, "spectral_entropy") == pytest.approx(-(share * np.log(share)).sum(), abs=1e-6)


def test_short_windows_have_no_self_reference() -> None:
    got = raw(-np.ones(31), np.ones(31), None, np.ones((31, 4)))
    invalid = {NAMES[i] for i in np.flatnonzero(~got.valid[0])}
    assert {"surprisal_self", "entropy_self", "feature_self", "recurrence_trace", "feature_rank"} <= invalid
    assert "surprisal_16" not in invalid
