"""Decisions again: what of each one follows from receipts, from a policy bundle and from calibrations is recomputed.

What needs the request (score, components, the route of an alarm) is not: `tcd verify replay` does it from the
disclosed requests, session by session.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from tcd.calibration.assets import AssetSet, DetectorAsset, MultivariateAsset, asset_id
from tcd.calibration.conformal import session_p
from tcd.errors import VerificationError
from tcd.ledger.auditing.budgets import Budgets
from tcd.ledger.auditing.sources import Row
from tcd.ledger.auditing.spill import Spill
from tcd.ledger.auditing.tips import Tip
from tcd.ledger.findings import Audit
from tcd.receipts.eproc import check_start, read_snapshot, replay_step
from tcd.risk_av import Terms
from tcd.risk_av.exact import hex64, unhex64
from tcd.routing import merge
from tcd.trust import Defaults, Policy, PolicySet, decide, logged

#: Units whose hypothesis is judged step by step.
_ROUTED: Final = frozenset({"session", "request"})
_EPOCHS: Final = 4
#: p-values that are remembered: of maxima that did not change from one step to the next.
_REMEMBERED: Final = 4096
_NO_EVIDENCE: Final = np.float64(1.0)


@dataclass(frozen=True, slots=True)
class Assets:
    """What decisions can be recomputed with beside the receipts; each may be missing.

    Attributes:
        policies: bundles, by the digest that a receipt names.
        defaults, config: the shim's settings for what a policy leaves open, and the digest of these settings.
        calibrations: detector and multivariate calibrations, by id.
    """

    policies: Mapping[str, Policy] = field(default_factory=dict)
    defaults: Defaults | None = None
    config: str = ""
    detectors: Mapping[int, DetectorAsset] = field(default_factory=dict)
    monitors: Mapping[int, MultivariateAsset] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        policies: PolicySet | None = None,
        defaults: Defaults | None = None,
        config: str = "",
        calibrations: AssetSet | None = None,
    ) -> Assets:
        """From what is loaded."""
        known = {policy.digest: policy for policy in policies or ()}
        if calibrations is None:
            return cls(known, defaults, config)
        detectors = {asset_id(digest): asset for digest, asset in calibrations.detectors.items()}
        monitors = {asset_id(digest): asset for digest, asset in calibrations.multivariates.items()}
        return cls(known, defaults, config, detectors, monitors)


class _Stream(msgspec.Struct, array_like=True):
    """A stream's e-process as receipts have shown it: the newest snapshot, and terms by digest."""

    snapshot: dict[str, Any]
    terms: dict[str, dict[str, Any]]


class Decisions:
    """Recomputes the decisions of one ledger."""

    def __init__(self, audit: Audit, assets: Assets, budgets: Budgets) -> None:
        """With what is there in `assets`."""
        self._audit = audit
        self._assets = assets
        self._budgets = budgets
        self._streams: Spill[_Stream] = Spill(_Stream, kept=4096)
        self._p: OrderedDict[tuple[int, int, str, str, str], str] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def opened(self, value: Mapping[str, Any], tip: Tip) -> None:
        """A session's `open` record pins what its p-values follow from; an epoch's has the terms of a stream."""
        said = value["open"]
        if said["scope"] == "session":
            pins = said["pins"]
            detector, monitor, _ = pins["assets"]
            tip.pins = (detector, monitor, pins["mask"], pins["weight"])
            return
        self._learn(said["stream"], said["terms"])

    def acknowledged(self, value: Mapping[str, Any]) -> None:
        """An `ack` record has the terms of a new claim."""
        self._learn(value["ack"]["stream"], value["ack"]["terms"])

    def _learn(self, stream: str, terms: dict[str, Any]) -> None:
        key = bytes.fromhex(stream.removeprefix("sha256:"))
        known = self._streams.get(key) or _Stream({}, {})
        known.terms[Terms.from_json(terms).digest()] = terms
        while len(known.terms) > _EPOCHS:
            del known.terms[next(iter(known.terms))]
        self._streams.put(key, known)

    def decided(self, row: Row, value: Mapping[str, Any], tip: Tip) -> bool:
        """Check a decision; whether its hypothesis was rejected by it."""
        said, av, where = value["decision"], value["av"], f"receipt {row.idx}"
        again = tip.hypothesis == av["hypothesis"] and tip.at >= 0
        first = said["trigger"] and not (again and tip.triggered)
        if av["unit"] in _ROUTED:
            self._trigger(where, said, av, tip if again else None)
            if again:
                self._p_value(f"receipt {tip.at}", value, tip)
        self._facts(where, value)
        self._policy(where, value)
        self.step(where, value.get("eproc"))
        self.counts["decisions"] += 1
        tip.hypothesis, tip.p, tip.triggered, tip.at = av["hypothesis"], av["p"], said["trigger"], row.idx
        return bool(first)

    def _trigger(self, where: str, said: Mapping[str, Any], av: Mapping[str, Any], before: Tip | None) -> None:
        p, level = unhex64(av["p"]), unhex64(av["alloc"])
        if before is not None and p > unhex64(before.p):
            self._audit.note("p_mismatch", where, "the p-value of the hypothesis rose")
        expected = (before is not None and before.triggered) or p <= level
        if said["trigger"] is not expected:
            what = "is" if said["trigger"] else "is not"
            self._audit.note("trigger_mismatch", where, f"p {p:.9g}, level {level:.9g}: there {what} a trigger")
        self.counts["trigger"] += 1

    def _facts(self, where: str, value: Mapping[str, Any]) -> None:
        """The verdict, and what a trigger comes to."""
        said, seen = value["decision"], value.get("risk")
        if seen is not None:
            expected = said["trigger"] or seen["alarm"] or seen["floor"]
            fine = said["verdict"] is expected and seen["failed"] is (said["cause"] == "degraded")
        else:
            blocked = said["action"] == "block" and said["cause"] in {"av", "degraded"}
            fine = not said["trigger"] or (said["verdict"] and blocked)
        if not fine:
            self._audit.note("decision_mismatch", where, "verdict, action or cause do not follow from what was known")
        self.counts["verdict" if seen is not None else "verdict, where there is a trigger"] += 1

    def _policy(self, where: str, value: Mapping[str, Any]) -> None:
        said = value["decision"]
        policy = self._assets.policies.get(value["policy"])
        entry = None if policy is None else logged(value)
        if policy is None or entry is None or entry.missing:
            self.counts["action absent"] += 1
            return
        settings = self._assets.defaults if self._assets.config == value["config"] else None
        table = policy.table(settings or Defaults())
        if settings is None or any(line.about is not None for line in table):
            # rows that ask about the request or the settings cannot be read here
            self.counts["action absent"] += 1
            return
        verdict = decide(table, entry.risk, mode=policy.over(settings).mode)
        cause = "degraded" if entry.risk.failed else verdict.cause
        shown = (said["action"], said["enforced"], said["cause"])
        if shown != (verdict.action, verdict.enforced, cause):
            detail = f"recorded {'/'.join(shown)}, the policy gives {verdict.action}/{verdict.enforced}/{cause}"
            self._audit.note("decision_mismatch", where, detail)
        self.counts["action"] += 1

    # -- p-values --------------------------------------------------------------------------------------------------

    def _p_value(self, where: str, later: Mapping[str, Any], tip: Tip) -> None:
        """The p-value of the decision before follows from the maxima that this one was scored with."""
        expected = self._expected(tip, later)
        if expected is None:
            self.counts["p-value absent"] += 1
            return
        if tip.p != expected:
            detail = f"p {unhex64(tip.p):.9g}, the calibration gives {unhex64(expected):.9g}"
            self._audit.note("p_mismatch", where, detail)
        self.counts["p-value"] += 1

    def _expected(self, tip: Tip, later: Mapping[str, Any]) -> str | None:
        if tip.pins is None or later["evidence"] != "shim":
            return None
        detector, monitor, mask, weight = tip.pins
        sup = later["av"]["sup"]
        name = (int(detector), int(monitor), f"{mask}/{weight}", sup[0], sup[1])
        known = self._p.get(name)
        if known is None:
            known = self._merged(int(detector), int(monitor), mask, unhex64(weight), (unhex64(sup[0]), unhex64(sup[1])))
            if known is None:
                return None
            self._p[name] = known
            if len(self._p) > _REMEMBERED:
                self._p.popitem(last=False)
        return known

    def _merged(self, detector: int, monitor: int, mask: int, weight: float, sup: tuple[float, float]) -> str | None:
        p = [np.asarray(_NO_EVIDENCE), np.asarray(_NO_EVIDENCE)]
        if detector:
            asset = self._assets.detectors.get(detector)
            calibration = None if asset is None else asset.mask(mask)
            if calibration is None:
                return None
            p[0] = session_p(calibration.sessions, calibration.adjusted, np.asarray(sup[0]))
        if monitor:
            reference = self._assets.monitors.get(monitor)
            if reference is None:
                return None
            p[1] = session_p(reference.sessions, reference.adjusted, np.asarray(sup[1]))
        return hex64(float(merge(p[0], p[1], weight)))

    # -- the e-process ---------------------------------------------------------------------------------------------

    def step(self, where: str, snapshot: dict[str, Any] | None) -> None:
        """A snapshot follows from the one before, where receipts have shown that."""
        if snapshot is None:
            return
        key = bytes.fromhex(snapshot["stream"].removeprefix("sha256:"))
        known = self._streams.get(key) or _Stream({}, {})
        before = known.snapshot
        if snapshot == before:
            return
        self._budgets.folded(where, snapshot)
        terms = known.terms.get(snapshot["params"])
        order = (snapshot["claim"], snapshot["step"])
        if before and order < (before["claim"], before["step"]):
            # an answer that was encoded before a later one
            self.counts["e-process step absent"] += 1
            return
        follows = bool(before) and order == (before["claim"], before["step"] + 1)
        try:
            if before and order == (before["claim"], before["step"]):
                self._audit.note("replay_mismatch", where, f"two snapshots of step {snapshot['step']}")
            elif terms is None or not (follows or snapshot["step"] == 0):
                self.counts["e-process step absent"] += 1
            elif snapshot["step"] == 0:
                check_start(read_snapshot(snapshot), Terms.from_json(terms))
                self.counts["e-process step"] += 1
            else:
                replay_step(before, snapshot, terms)
                self.counts["e-process step"] += 1
        except VerificationError as error:
            self._audit.note(error.code, where, error.detail)
        known.snapshot = snapshot
        self._streams.put(key, known)
