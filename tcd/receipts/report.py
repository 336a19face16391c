"""What a verifier answers: ordered checks with stable codes, and the policy that makes "valid" reproducible."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

from tcd.errors import VerificationError
from tcd.receipts import canonical
from tcd.receipts.errors import BY_CODE, CheckSkipped
from tcd.receipts.keys import PUBLIC_SIZES
from tcd.receipts.keyset import KeySet
from tcd.receipts.rules import Rule
from tcd.receipts.tlog_policy import WitnessPolicy

Status = Literal["pass", "fail", "skipped", "absent"]
Trust = Literal["server", "caller", "none"]
#: Checks of one receipt in their order.
SINGLE: Final = (
    *("size", "utf8", "parse", "canonical", "schema", "head", "key", "key_valid", "signature"),
    *("concordance", "witness", "chain", "clock", "inclusion", "checkpoint", "witness_quorum", "eproc", "policy"),
)
#: Checks of a chain in their order.
CHAIN: Final = ("records", "head", "links", "time", "start", "tail", "key", "signature", "inclusion", "eproc")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check. `code` is `ok`, the code of the failure, `skipped` or `absent`; `detail` is for people."""

    name: str
    status: Status
    code: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """JSON form, without the detail."""
        return {"name": self.name, "status": self.status, "code": self.code}


@dataclass(frozen=True, slots=True)
class VerifyPolicy:
    """What a verifier demands.

    Attributes:
        keys: the pinned keys; nothing else is trusted.
        require: names of checks of `SINGLE` that must pass even when nothing was given for them.
        require_chain: the same for `CHAIN`. A chain without signatures proves its links, not its issuer.
        origins: accepted issuers; None = those of the keys.
        now_us: the verifier's time in microseconds since 1970; None = receipts from the future are not noticed.
        max_future_us: how far a receipt may be ahead of `now_us`.
        algorithms: the floor: every receipt's suite must have them.
        log_algorithms: the same for the signatures of a log's checkpoint, where a proof is given.
        witnesses: the witnesses that must have cosigned a proof's checkpoint; None = none are known.
        rule: a further condition on what was verified (`rules`); None = none.
        digest: `sha256:` digest of the policy; `now_us` is an input, not part of it.
    """

    keys: KeySet
    require: frozenset[str] = frozenset({"signature"})
    require_chain: frozenset[str] = frozenset()
    origins: frozenset[str] | None = None
    now_us: int | None = None
    max_future_us: int = 300_000_000
    algorithms: frozenset[str] = frozenset({"Ed25519"})
    log_algorithms: frozenset[str] = frozenset({"Ed25519"})
    witnesses: WitnessPolicy | None = None
    rule: Rule | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Refuse names of checks and algorithms that do not exist."""
        unknown = (self.require - set(SINGLE)) | (self.require_chain - set(CHAIN))
        if unknown:
            msg = f"unknown checks {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        unknown = (self.algorithms | self.log_algorithms) - {name for name in PUBLIC_SIZES if "+" not in name}
        if unknown:
            msg = f"unknown algorithms {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        object.__setattr__(self, "digest", self._digest())

    def _digest(self) -> str:
        value: dict[str, Any] = {
            "v": "tcd.verify-policy/1",
            "keys": self.keys.digest,
            "require": sorted(self.require),
            "require_chain": sorted(self.require_chain),
            "max_future_us": self.max_future_us,
            "algorithms": sorted(self.algorithms),
            "log_algorithms": sorted(self.log_algorithms),
        }
        if self.witnesses is not None:
            written = self.witnesses.write().encode("utf-8", "surrogateescape")
            value["witnesses"] = "sha256:" + hashlib.sha256(b"tcd/tlog-policy/v1\0" + written).hexdigest()
        if self.rule is not None:
            value["rule"] = self.rule.to_json()
        if self.origins is not None:
            value["origins"] = sorted(self.origins)
        return "sha256:" + hashlib.sha256(b"tcd/verify-policy/v1\0" + canonical.write(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a verification.

    Attributes:
        ok: every requested check passed.
        code: `ok`, or the code of the first check that failed or was skipped though requested.
        checks: in the documented order.
        policy: digest of the policy.
        trust: `server` when a pinned key signed; `caller` when the signature fits only a key the caller brought;
            `none` when no signature was verified.
        body: the parsed body, None when it could not be parsed.
        first_bad: chain mode: index of the first bad record.
    """

    ok: bool
    code: str
    checks: tuple[CheckResult, ...]
    policy: str
    trust: Trust
    body: Mapping[str, Any] | None = None
    first_bad: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer of /verify."""
        out: dict[str, Any] = {
            "ok": self.ok,
            "code": self.code,
            "checks": [check.to_json() for check in self.checks],
            "policy": self.policy,
            "trust": self.trust,
        }
        if self.first_bad is not None:
            out["first_bad"] = self.first_bad
        return out

    def verified(self) -> Mapping[str, Any]:
        """The verified body.

        Raises:
            VerificationError: the subclass of the first failed check.
        """
        if self.ok and self.body is not None:
            return self.body
        bad = next((c for c in self.checks if c.status in {"fail", "skipped"} and c.code == self.code), None)
        error = BY_CODE.get(self.code, CheckSkipped)
        raise error(bad.detail or bad.name if bad is not None else self.code)


@lru_cache(maxsize=256)
def _plain(name: str, status: Status) -> CheckResult:
    """A result without a detail; there are few, and they are made for every receipt."""
    return CheckResult(name, status, "ok" if status == "pass" else status)


@dataclass(slots=True)
class Checks:
    """Collects results; a check that was requested and could not run counts as a failure."""

    requested: set[str]
    results: list[CheckResult] = field(default_factory=list)

    def passed(self, name: str) -> None:
        """Record a pass."""
        self.results.append(_plain(name, "pass"))

    def failed(self, name: str, error: VerificationError) -> None:
        """Record a failure with the code of `error`."""
        self.results.append(CheckResult(name, "fail", error.code, error.detail))

    def missing(self, name: str, detail: str = "") -> None:
        """Record that a check did not run."""
        self.results.append(self._missing(name, detail))

    def _missing(self, name: str, detail: str = "") -> CheckResult:
        status: Status = "skipped" if name in self.requested else "absent"
        return CheckResult(name, status, status, detail) if detail else _plain(name, status)

    def report(
        self,
        order: tuple[str, ...],
        *,
        policy: str,
        trust: Trust,
        body: Mapping[str, Any] | None = None,
        first_bad: int | None = None,
    ) -> Report:
        """The report, with `missing` for every check of `order` that has no result yet."""
        found: dict[str, list[CheckResult]] = {}
        for result in self.results:
            found.setdefault(result.name, []).append(result)
        ranked = [result for name in order for result in found.get(name) or (self._missing(name),)]
        bad = next((c for c in ranked if c.status == "fail"), None)
        bad = bad or next((c for c in ranked if c.status == "skipped"), None)
        code = "ok" if bad is None else bad.code
        return Report(bad is None, code, tuple(ranked), policy, trust, body, first_bad)
