"""Online testing rules: levels to 1e-9 relative with identical decisions, also with decisions that arrive late."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from tcd.conformance.findings import Finding, Malformed, compare, relative
from tcd.risk_av import RULES, ControllerParams, EpochRule, RuleName, Terms, open_rule
from tcd.risk_av.gamma import gamma_lord, gamma_saffron
from tcd.risk_av.investing import Investing, InvestingRule

#: Vector name -> rule of the catalogue, or constants that the catalogue does not have.
NAMES: Final[Mapping[str, str | InvestingRule]] = {
    "lordpp": "lord",
    "lordpp_w0half": InvestingRule(gamma_lord, 0.5),
    "lord_async": "lord",
    "saffron": "saffron",
    "saffron_l01": InvestingRule(gamma_saffron, 0.5, lam=0.1),
    "saffron_async": "saffron",
    "addis": "addis",
    "alpha_spending": "alpha_spending",
    "fs_alpha_investing": "foster_stine",
    "e_lond_kappa.5": "e_lond",
}
_RAI: Final = "rai_lord_"
_LENGTH: Final = 1_000_000


def _maker(name: str, alpha: float) -> Callable[[], EpochRule] | Finding | None:
    """What makes the rule of a vector; a finding where it should exist and does not; None for a rule of others."""
    if name.startswith(_RAI):
        omega = float(name.rpartition("_w")[2])
        return lambda: open_rule(Terms.of(ControllerParams(alpha=alpha, schedule=("omega", omega))))
    known = NAMES.get(name)
    if known is None:
        return None
    if isinstance(known, InvestingRule):
        terms = Terms.of(ControllerParams(alpha=alpha, rule="lord", schedule=("uniform", _LENGTH)))
        return lambda: Investing(terms, known)
    if known not in RULES:
        return Finding(name, "not implemented", note=f"tcd.risk_av has no rule {known}")
    params = ControllerParams(alpha=alpha, rule=cast("RuleName", known), schedule=("uniform", _LENGTH))
    return lambda: open_rule(Terms.of(params))


def _run(rule: EpochRule, p: list[float], ends: list[int] | None) -> list[float]:
    """Levels; decision j is known to test t when E_j <= t - 1, or when j < t without `ends`."""
    levels: list[float] = []
    waiting: list[int] = []
    for t in range(1, len(p) + 1):
        for j in [j for j in waiting if ends is None or ends[j - 1] <= t - 1]:
            waiting.remove(j)
            if p[j - 1] <= levels[j - 1]:
                rule.rejected(j)
            rule.closed(j, p[j - 1])
        levels.append(rule.reserve().alpha)
        waiting.append(t)
    return levels


def _stream(stream: str, data: Mapping[str, Any]) -> list[Finding]:
    p, ends = [float(v) for v in data["p"]], [int(e) for e in data["E"]]
    if len(p) != len(ends):
        msg = f"{stream}: {len(p)} p-values and {len(ends)} ends"
        raise Malformed(msg)
    out = []
    for name, expected in data["results"].items():
        title = f"{stream}/{name}"
        make = _maker(name, float(data["alpha"]))
        if make is None:
            out.append(Finding(title, "not compared", note="tcd does not offer this rule"))
            continue
        if isinstance(make, Finding):
            out.append(Finding(title, make.status, note=make.note))
            continue
        want, reject = [float(v) for v in expected["alpha_t"]], [bool(r) for r in expected["reject"]]
        if not len(want) == len(reject) == len(p):
            msg = f"{title}: levels, decisions and p-values differ in number"
            raise Malformed(msg)
        levels = _run(make(), p, ends if "_async" in name else None)
        wrong = sum((q <= level) != r for q, level, r in zip(p, levels, reject, strict=True))
        if name.startswith("e_lond"):
            # in units of e: reject when 1/(2 sqrt(p)) >= 1/alpha_t
            levels = [2.0 * math.sqrt(level) for level in levels]
        out.append(compare(title, map(relative, levels, want), wrong=wrong))
    return out


def check_online(data: Mapping[str, Any]) -> list[Finding]:
    """Findings of a file with `streams` of p-values and the `results` of rules."""
    return [finding for name, stream in data["streams"].items() for finding in _stream(name, stream)]
