"""Parameters of a stream, and the terms of one epoch that a receipt commits to before any data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tcd.risk_av.eprocess import KAPPA
from tcd.risk_av.exact import hex64, unhex64

Schedule = tuple[Literal["uniform"], int] | tuple[Literal["omega"], float]
RuleName = Literal["rai", "lord", "e_lond", "alpha_spending", "foster_stine", "saffron", "addis"]
RULES: Final = ("rai", "lord", "e_lond", "alpha_spending", "foster_stine", "saffron", "addis")
MAX_LENGTH: Final = 1_000_000


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        msg = f"{name} = {value!r} is not in ({low}, {high}]"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class ControllerParams:
    """How a stream spends its budget.

    Attributes:
        alpha: budget of one epoch, in (0, 1].
        rule: name of the online testing rule (`tcd.risk_av.catalogue`).
        schedule: `("uniform", L)` (c = alpha/L, L reservations per epoch) or `("omega", w)` (c = w(alpha - B));
            for the other rules than `rai`, which spend by their own sequence, `("uniform", L)` is the epoch's length.
        kappa: exponent of the p-to-e calibrator; only 1/2 replays bit for bit.
        alpha_e: the e-process alarms at 1/alpha_e.
        cusum_arl: the e-CUSUM alarms at this value: mean number of hypotheses between false alarms.
        epoch_roll: `auto` opens the next epoch after L reservations, `manual` lets the budget exhaust.
        p_floor: smallest p-value that the calibration can give; a level of the omega schedule under it is
            reported as exhausted. 0 = unknown.
        credit_cap: rejections credited per user and epoch; None = no cap.
        keep_closed: folded hypotheses per stream that are remembered for idempotence.
        shares: `alpha` is this part of a pool's (`tcd.risk_av.pool`); 1 = the stream's own.
    """

    alpha: float = 0.05
    rule: RuleName = "rai"
    schedule: Schedule = ("uniform", 10)
    kappa: float = KAPPA
    alpha_e: float = 0.05
    cusum_arl: float = 1000.0
    epoch_roll: Literal["auto", "manual"] = "auto"
    p_floor: float = 0.0
    credit_cap: int | None = None
    keep_closed: int = 1024
    shares: int = 1

    def __post_init__(self) -> None:
        """Refuse what the theorems do not cover."""
        _between("alpha", self.alpha, 0.0, 1.0)
        _between("alpha_e", self.alpha_e, 0.0, 1.0)
        _between("cusum_arl", self.cusum_arl, 1.0, 1e300)
        kind, size = self.schedule
        if kind == "omega":
            _between("omega", size, 0.0, 1.0)
        elif type(size) is not int or not 1 <= size <= MAX_LENGTH:
            msg = f"uniform schedule: {size!r} is not a number of reservations in 1..{MAX_LENGTH}"
            raise ValueError(msg)
        checks = {
            f"unknown schedule {kind!r}": kind in {"uniform", "omega"},
            f"unknown rule {self.rule!r}": self.rule in RULES,
            f"rule {self.rule} has no schedule omega": self.rule == "rai" or kind == "uniform",
            "kappa must be 0.5": self.kappa == KAPPA,
            f"unknown epoch_roll {self.epoch_roll!r}": self.epoch_roll in {"auto", "manual"},
            "p_floor is not in [0, 1]": 0.0 <= self.p_floor <= 1.0,
            "credit_cap is negative": self.credit_cap is None or self.credit_cap >= 0,
            "keep_closed is negative": self.keep_closed >= 0,
            "shares is under 1": self.shares >= 1,
        }
        wrong = [text for text, fine in checks.items() if not fine]
        if wrong:
            raise ValueError("; ".join(wrong))

    def with_schedule(self, schedule: Schedule) -> ControllerParams:
        """The same with another schedule."""
        return replace(self, schedule=schedule)

    def to_json(self) -> dict[str, Any]:
        """JSON form; reals as hex64, absent members where a value is None."""
        kind, size = self.schedule
        out: dict[str, Any] = {
            "alpha": hex64(self.alpha),
            "alpha_e": hex64(self.alpha_e),
            "cusum_arl": hex64(self.cusum_arl),
            "epoch_roll": self.epoch_roll,
            "kappa": hex64(self.kappa),
            "keep_closed": self.keep_closed,
            "p_floor": hex64(self.p_floor),
            "rule": self.rule,
            "schedule": kind,
            "size": size if kind == "uniform" else hex64(size),
        }
        if self.credit_cap is not None:
            out["credit_cap"] = self.credit_cap
        if self.shares > 1:
            out["shares"] = self.shares
        return out

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> ControllerParams:
        """Inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: for anything `to_json` does not write.
        """
        kind = obj["schedule"]
        size = obj["size"]
        return cls(
            alpha=unhex64(obj["alpha"]),
            rule=obj["rule"],
            schedule=("uniform", size) if kind == "uniform" else (kind, unhex64(size)),
            kappa=unhex64(obj["kappa"]),
            alpha_e=unhex64(obj["alpha_e"]),
            cusum_arl=unhex64(obj["cusum_arl"]),
            epoch_roll=obj["epoch_roll"],
            p_floor=unhex64(obj["p_floor"]),
            credit_cap=obj.get("credit_cap"),
            keep_closed=obj["keep_closed"],
            shares=obj.get("shares", 1),
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """What fixes every level of a stretch of an epoch: committed in its `open` record before any data.

    A hot reload of alpha ends a stretch: the new terms start after `from_index` reservations with `from_spent`
    already spent. `digest` is the `params` member of an e-process snapshot.
    """

    rule: str
    schedule: Schedule
    alpha: float
    kappa: float
    alpha_e: float
    cusum_arl: float
    from_index: int = 0
    from_spent: float = 0.0

    @classmethod
    def of(cls, params: ControllerParams, *, from_index: int = 0, from_spent: float = 0.0) -> Terms:
        """Terms of a stretch under `params`."""
        return cls(
            params.rule,
            params.schedule,
            params.alpha,
            params.kappa,
            params.alpha_e,
            params.cusum_arl,
            from_index,
            from_spent,
        )

    def full(self, index: int) -> bool:
        """Whether a uniform schedule has no reservation left after `index` of them."""
        kind, size = self.schedule
        return kind == "uniform" and index >= size

    def to_json(self) -> dict[str, Any]:
        """JSON form in the profile tcd-jcs-1."""
        kind, size = self.schedule
        return {
            "alpha": hex64(self.alpha),
            "alpha_e": hex64(self.alpha_e),
            "cusum_arl": hex64(self.cusum_arl),
            "from_index": self.from_index,
            "from_spent": hex64(self.from_spent),
            "kappa": hex64(self.kappa),
            "rule": self.rule,
            "schedule": kind,
            "size": size if kind == "uniform" else hex64(size),
        }

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Terms:
        """Inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: for anything `to_json` does not write.
        """
        kind, size = obj["schedule"], obj["size"]
        terms = cls(
            rule=obj["rule"],
            schedule=("uniform", size) if kind == "uniform" else (kind, unhex64(size)),
            alpha=unhex64(obj["alpha"]),
            kappa=unhex64(obj["kappa"]),
            alpha_e=unhex64(obj["alpha_e"]),
            cusum_arl=unhex64(obj["cusum_arl"]),
            from_index=obj["from_index"],
            from_spent=unhex64(obj["from_spent"]),
        )
        ControllerParams(
            alpha=terms.alpha,
            rule=obj["rule"],
            schedule=terms.schedule,
            kappa=terms.kappa,
            alpha_e=terms.alpha_e,
            cusum_arl=terms.cusum_arl,
        )
        if terms.from_index < 0 or terms.from_spent < 0.0:
            msg = "terms start before the epoch"
            raise ValueError(msg)
        return terms

    def digest(self) -> str:
        """`sha256:` digest of the JSON form."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(b"tcd/terms/v1\0" + text.encode()).hexdigest()
