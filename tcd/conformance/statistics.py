"""E-values, conformal p-values, covariances and control charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from tcd.calibration.conditional import smoothed_p, weighted_p
from tcd.calibration.conformal import p_value
from tcd.conformance.findings import RELATIVE, Finding, absolute, compare, relative
from tcd.multivariate import cholesky, ewma, ledoit_wolf, mahalanobis, oas
from tcd.risk_av.eprocess import START, advance, e_value, mixture
from tcd.risk_av.exact import to_float

_COVARIANCE: Final = 1e-10
#: How far the ARL0 at a tabulated limit may be from the tabulated ARL0, relatively.
_ARL: Final = 0.02
_NODES: Final = 80


def _calibrators(data: Mapping[str, Any]) -> Iterator[Finding]:
    yield compare("calibrators/power_0.5", map(relative, map(e_value, data["p"]), data["power_0.5"]))
    for name in [name for name in data if name not in {"p", "power_0.5", "note"}]:
        yield Finding(f"calibrators/{name}", "not compared", note="tcd offers the calibrator of exponent 1/2 alone")


def _eprocess(data: Mapping[str, Any]) -> Iterator[Finding]:
    state, mixtures, charts = START, [], []
    for p in data["p"]:
        state = advance(state, float(p))
        mixtures.append(to_float(mixture(state)))
        charts.append(to_float(state.c))
    ours = {"restart_mixture": mixtures, "e_cusum": charts}
    for name, values in ours.items():
        yield compare(f"eprocess/{name}", [relative(a, b) for a, b in zip(values, data[name], strict=True)])
    for name, values in data.items():
        if isinstance(values, list) and name != "p" and name not in ours:
            yield Finding(f"eprocess/{name}", "not compared", note="tcd does not offer it")


def _conformal(data: Mapping[str, Any]) -> Iterator[Finding]:
    cal, test = np.array(data["cal"], np.float64), np.array(data["test"], np.float64)
    yield compare("conformal/p_conservative", map(relative, p_value(np.sort(cal), test), data["p_conservative"]))
    if "p_mondrian" in data:
        bins, of = np.array(data["bin_cal"]), data["bin_test"]
        tables = {b: np.sort(cal[bins == b]) for b in set(of)}
        got = [float(p_value(tables[b], np.array([s]))[0]) for b, s in zip(of, test, strict=True)]
        yield compare("conformal/p_mondrian", map(relative, got, data["p_mondrian"]))
    if "p_smoothed" in data:
        smoothed = smoothed_p(np.sort(cal), test, np.array(data["tie_u"], np.float64))
        yield compare("conformal/p_smoothed", map(relative, smoothed, data["p_smoothed"]))
    if "p_weighted" in data:
        order, weights = np.argsort(cal, kind="stable"), np.array(data["w_cal"], np.float64)
        weighted = weighted_p(cal[order], weights[order], test, np.array(data["w_test"], np.float64))
        yield compare("conformal/p_weighted", map(relative, weighted, data["p_weighted"]))


def _beta_bounds(_: Mapping[str, Any]) -> Iterator[Finding]:
    yield Finding("beta_bounds", "not compared", note="tcd splits delta over a grid of ranks, the file does not")


def _covariance(data: Mapping[str, Any]) -> Iterator[Finding]:
    for number, case in enumerate(data["cases"]):
        samples = np.array(case["X"], np.float64)
        factor = None
        for name, estimate in (("lw", ledoit_wolf(samples)), ("oas", oas(samples))):
            deviations = [absolute(estimate.shrinkage, case[f"{name}_shrinkage"])]
            if f"{name}_cov" in case:
                deviations.append(float(np.abs(estimate.covariance - np.array(case[f"{name}_cov"])).max()))
            yield compare(f"covariance/{number}/{name}", deviations, tolerance=_COVARIANCE)
            factor = cholesky(estimate.covariance)[0] if name == "lw" else factor
        if "mahalanobis2_lw" in case and factor is not None:
            centred = np.array(case["x"], np.float64) - samples.mean(axis=0)
            got = float(mahalanobis(centred[None], factor)[0] ** 2)
            yield compare(f"covariance/{number}/mahalanobis2_lw", [relative(got, case["mahalanobis2_lw"])])


def _mewma(data: Mapping[str, Any]) -> Iterator[Finding]:
    rows, r = np.array(data["Y"], np.float64), float(data["r"])
    factor, _ = cholesky(np.array(data["Sigma"], np.float64))
    got = [float(mahalanobis(ewma(rows[None, : t + 1], r), factor)[0] ** 2) for t in range(rows.shape[0])]
    yield compare("mewma/T2_asymptotic", [relative(a, b) for a, b in zip(got, data["T2_asymptotic"], strict=True)])
    yield Finding("mewma/T2_exact", "not compared", note="tcd uses the asymptotic covariance, as the limits do")


def _peers(name: str) -> Callable[[Mapping[str, Any]], Iterator[Finding]]:
    def found(_: Mapping[str, Any]) -> Iterator[Finding]:
        yield Finding(name, "not compared", note="tcd does not offer it")

    return found


_PARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[Finding]]]] = {
    "calibrators": _calibrators,
    "eprocess": _eprocess,
    "conformal": _conformal,
    "beta_bounds": _beta_bounds,
    "covariance": _covariance,
    "mewma": _mewma,
    "hotelling": _peers("hotelling"),
    "page_hinkley": _peers("page_hinkley"),
}


def is_statistics(data: Mapping[str, Any]) -> bool:
    """Whether a file has one of the parts of this format."""
    return any(isinstance(data.get(name), Mapping) for name in _PARTS)


def check_statistics(data: Mapping[str, Any]) -> list[Finding]:
    """Findings of a file with any of the parts."""
    return [finding for name, part in _PARTS.items() if name in data for finding in part(data[name])]


def arl0(dimension: int, smoothing: float, limit: float) -> float:
    """In-control ARL of the MEWMA that starts at 0, with the asymptotic covariance and T2 > limit as its signal.

    The squared length of Z is a Markov chain, whose integral equation is solved on Gauss-Legendre nodes (Rigdon, An
    integral equation for the in-control average run length of a MEWMA control chart, 1995).
    """
    from scipy.stats import ncx2  # noqa: PLC0415 - of the extras `calibrate` and `bench`

    top = np.sqrt(limit * smoothing / (2.0 - smoothing))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)  # type: ignore[no-untyped-call]
    length, weights = top * (nodes + 1.0) / 2.0, weights * top / 2.0
    square = length**2
    drift = ((1.0 - smoothing) / smoothing) ** 2

    def row(start: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        density = ncx2.pdf(square / smoothing**2, dimension, max(drift * start, 1e-12))
        return np.asarray(density * 2.0 * length * weights / smoothing**2, np.float64)

    kernel = np.stack([row(float(s)) for s in square])
    run = np.linalg.solve(np.eye(_NODES) - kernel, np.ones(_NODES))
    return float(1.0 + row(0.0) @ run)


def check_mewma_limits(data: Mapping[str, Any]) -> list[Finding]:
    """Findings of a table of MEWMA limits: the ARL0 at each, within 2 %."""
    out = []
    for case in data["h"]:
        got = arl0(int(case["p"]), float(case["r"]), float(case["h4"]))
        title = f"h/p={case['p']},r={case['r']},ARL0={case['ARL0']}"
        out.append(compare(title, [relative(got, float(case["ARL0"]))], tolerance=_ARL))
    if "arl_r01" in data:
        out.append(Finding("arl_r01", "not compared", tolerance=RELATIVE, note="out of control: not recomputed"))
    return out
