"""Experiment 2: SupFDR, the mean over streams of the largest false discovery proportion of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from tcd.bench.controller.arrays import F64, Bools, rai, sup_fdp
from tcd.bench.controller.rate import Rate
from tcd.risk_av import RULES, ControllerParams, EpochRule, RuleName, Terms, open_rule

ALPHA = 0.05
Design = Literal["iid", "ar"]


def normal_p(z: F64) -> F64:
    """One-sided p-values of standard normal scores."""
    from scipy.special import ndtr

    return np.asarray(ndtr(-z), np.float64)


def gaussian(
    n: int, steps: int, rng: np.random.Generator, *, design: Design, signals: float = 0.1, mu: float = 3.0
) -> tuple[F64, Bools]:
    """p-values and which hypotheses are signals; `ar` = scores with lag-1 correlation .9."""
    z = rng.standard_normal((n, steps))
    if design == "ar":
        rho = 0.9
        for t in range(1, steps):
            z[:, t] = rho * z[:, t - 1] + np.sqrt(1.0 - rho * rho) * z[:, t]
    signal = rng.random((n, steps)) < signals
    return normal_p(z + mu * signal), signal


def conformal(
    n: int, steps: int, rng: np.random.Generator, *, calibration: int, signals: float, mu: float = 4.0
) -> tuple[F64, Bools]:
    """Conformal p-values of epochs that each have one frozen calibration set of their own."""
    signal = rng.random((n, steps)) < signals
    scores = rng.standard_normal((n, steps)) + mu * signal
    p = np.empty((n, steps))
    for i in range(n):
        table = np.sort(rng.standard_normal(calibration))
        p[i] = (1.0 + calibration - np.searchsorted(table, scores[i], side="left")) / (calibration + 1.0)
    return p, signal


def play(rule: EpochRule, p: list[float]) -> list[bool]:
    """Decisions of a rule of the catalogue when each hypothesis is settled before the next is reserved."""
    out = []
    for t, value in enumerate(p, start=1):
        rejected = value <= rule.reserve().alpha
        if rejected:
            rule.rejected(t)
        rule.closed(t, value)
        out.append(rejected)
    return out


def of_rule(name: RuleName, steps: int) -> EpochRule:
    """A rule at the start of an epoch of `steps`."""
    return open_rule(Terms.of(ControllerParams(alpha=ALPHA, rule=name, schedule=("uniform", steps))))


def peers() -> dict[str, tuple[RuleName, Callable[[], object]]]:
    """Rules of online-fdr (BSD-3-Clause) that are the same as ours; empty when it is not installed."""
    from importlib.util import find_spec

    if find_spec("online_fdr") is None:
        return {}
    from online_fdr.p_values.investing.addis.addis import Addis
    from online_fdr.p_values.investing.lord.plus_plus import LordPlusPlus
    from online_fdr.p_values.investing.saffron.saffron import Saffron

    return {
        "LordPlusPlus": ("lord", lambda: LordPlusPlus(alpha=ALPHA, wealth=ALPHA / 10)),
        "Saffron": ("saffron", lambda: Saffron(alpha=ALPHA, wealth=ALPHA / 2, lambda_=0.5)),
        "Addis": ("addis", lambda: Addis(alpha=ALPHA, wealth=ALPHA / 2, lambda_=0.25, tau=0.5)),
    }


def agreement(streams: int, steps: int, seed: int) -> dict[str, tuple[int, int]]:
    """Per rule of online-fdr: decisions, and how many of them are other than ours."""
    p, _ = gaussian(streams, steps, np.random.default_rng(seed), design="iid")
    out = {}
    for peer, (name, make) in peers().items():
        different = 0
        for row in p.tolist():
            theirs = make()
            ours = play(of_rule(name, steps), row)
            different += sum(bool(theirs.test_one(value)) is not mine for value, mine in zip(row, ours, strict=True))  # type: ignore[attr-defined]
        out[peer] = (p.size, different)
    return out


def _mean(values: F64, label: str, check: str, note: str = "") -> Rate:
    mean, std = float(values.mean()), float(values.std(ddof=1))
    return Rate.of_mean("supfdr", label, mean, std, len(values), bound=ALPHA, check=check, note=note)


def _in_chunks(n: int, make: Callable[[int], tuple[F64, Bools]], omega: float | None) -> tuple[F64, float]:
    parts, found, there = [], 0, 0
    for start in range(0, n, 2000):
        p, signal = make(min(2000, n - start))
        _, rejected = rai(p, alpha=ALPHA, omega=omega)
        parts.append(sup_fdp(rejected, signal))
        found += int((rejected & signal).sum())
        there += int(signal.sum())
    return np.concatenate(parts), found / max(1, there)


def experiment(streams: int, rule_streams: int, steps: int = 1000) -> list[Rate]:
    """SupFDR of RAI (numpy, all streams) and of every rule of the catalogue (real code, fewer streams)."""
    out = []
    designs: tuple[Design, ...] = ("iid", "ar")
    for design in designs:
        # under AR(.9) no theorem applies: empirical
        note = "" if design == "iid" else "empirical: outside the theorem"
        for omega, schedule in ((None, "uniform"), (0.005, "omega .005")):
            rng = np.random.default_rng(7)
            values, power = _in_chunks(streams, lambda n, d=design, r=rng: gaussian(n, steps, r, design=d), omega)  # type: ignore[misc]
            label = f"rai {schedule}, {design}, T={steps}, power {power:.2f}"
            out.append(_mean(values, label, "at_most", note))
    for calibration, length, signals in ((999, 10, 0.1), (999, 10, 0.5), (9999, 100, 0.1)):
        rng = np.random.default_rng(8)
        values, power = _in_chunks(
            streams,
            lambda n, c=calibration, t=length, s=signals, r=rng: conformal(n, t, r, calibration=c, signals=s),  # type: ignore[misc]
            None,
        )
        label = f"rai uniform, conformal n={calibration}, L={length}, {signals:.0%} signals, power {power:.2f}"
        out.append(_mean(values, label, "at_most"))
    for design in designs:
        p, signal = gaussian(rule_streams, steps, np.random.default_rng(9), design=design)
        for name in RULES:
            rejected = np.array([play(of_rule(name, steps), row) for row in p.tolist()])
            power = float((rejected & signal).sum() / signal.sum())
            proven = name in {"rai", "alpha_spending"} and design == "iid"
            note = "" if proven else "no SupFDR is claimed"
            label = f"{name}, {design}, T={steps}, power {power:.2f}"
            out.append(_mean(sup_fdp(rejected, signal), label, "at_most" if proven else "shown", note))
    return out
