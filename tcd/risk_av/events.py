"""The event log of the controller: small typed records, JSON with reals as hex64.

The state of every stream is a fold over these records. `Reserved` carries the outcome too, so that a replay
checks it instead of trusting it. The four that every call makes are not frozen: that costs a microsecond each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tcd.risk_av.exact import hex64, unhex64
from tcd.risk_av.params import ControllerParams


@dataclass(frozen=True, slots=True)
class EpochOpened:
    """Epoch `epoch` of a stream starts under `params`; rejections start at 0."""

    kind: ClassVar[str] = "epoch"
    stream: str
    epoch: int
    params: ControllerParams


@dataclass(slots=True)
class Reserved:
    """A hypothesis got its level; `cost` is debited for good."""

    kind: ClassVar[str] = "reserve"
    stream: str
    hypothesis: str
    user: str
    epoch: int
    index: int
    seq: int
    cost: float
    alpha: float


@dataclass(slots=True)
class Settled:
    """The p-value of a hypothesis fell to `p`; `rejected` at its first rejection."""

    kind: ClassVar[str] = "settle"
    stream: str
    hypothesis: str
    p: float
    rejected: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A step of the hypothesis gave no evidence; its cost is kept."""

    kind: ClassVar[str] = "fail"
    stream: str
    hypothesis: str


@dataclass(slots=True)
class Closed:
    """The hypothesis is over and may be folded."""

    kind: ClassVar[str] = "close"
    stream: str
    hypothesis: str
    reason: str


@dataclass(frozen=True, slots=True)
class Configured:
    """New parameters of one stream, or of all streams present and to come (`stream` empty)."""

    kind: ClassVar[str] = "configure"
    stream: str
    params: ControllerParams


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An operator cleared the alarms of a stream: a new e-process, hence a new alpha_e claim, begins."""

    kind: ClassVar[str] = "acknowledge"
    stream: str
    claim: int


@dataclass(frozen=True, slots=True)
class Leased:
    """`count` reservations from `index` on are debited and belong to `holder`."""

    kind: ClassVar[str] = "lease"
    stream: str
    lease: int
    holder: str
    epoch: int
    index: int
    seq: int
    count: int
    cost: float


@dataclass(slots=True)
class Drawn:
    """A hypothesis got reservation number `offset` (from 0) of a lease; `known` is what its holder knew."""

    kind: ClassVar[str] = "draw"
    stream: str
    lease: int
    offset: int
    hypothesis: str
    user: str
    known: int
    alpha: float


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """A lease is over. Of its first `drawn` reservations the unknown ones count as e = kappa, the rest are skipped."""

    kind: ClassVar[str] = "lease_end"
    stream: str
    lease: int
    drawn: int


@dataclass(frozen=True, slots=True)
class Rested:
    """A stream without open hypotheses was packed: it forgets those that it remembered for idempotence, no more."""

    kind: ClassVar[str] = "rest"
    stream: str


@dataclass(frozen=True, slots=True)
class PoolShared:
    """Share number `share` of epoch `epoch` of a pool pays the next epoch of `stream`."""

    kind: ClassVar[str] = "share"
    pool: str
    epoch: int
    share: int
    stream: str
    alpha: float


LeasingEvent = Leased | Drawn | LeaseEnded
KeepingEvent = Rested | PoolShared
Event = EpochOpened | Reserved | Settled | Failed | Closed | Configured | Acknowledged | KeepingEvent | LeasingEvent


def event_to_json(event: Event) -> dict[str, Any]:
    """JSON form of an event."""
    out: dict[str, Any] = {"t": event.kind}
    for name in event.__slots__:
        value = getattr(event, name)
        if isinstance(value, float):
            out[name] = hex64(value)
        elif isinstance(value, ControllerParams):
            out[name] = value.to_json()
        else:
            out[name] = value
    return out


def _text(value: Any) -> str:
    if type(value) is not str:
        msg = "event: a string is expected"
        raise ValueError(msg)
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        msg = "event: a number >= 0 is expected"
        raise ValueError(msg)
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        msg = "event: a boolean is expected"
        raise ValueError(msg)
    return value


def _real(value: Any) -> float:
    return unhex64(_text(value))


_STREAM: dict[str, Callable[[Any], Any]] = {"stream": _text}
_HYPOTHESIS = {**_STREAM, "hypothesis": _text}
_FIELDS: dict[type[Event], dict[str, Callable[[Any], Any]]] = {
    EpochOpened: {**_STREAM, "epoch": _count, "params": ControllerParams.from_json},
    Reserved: {
        **_HYPOTHESIS,
        "user": _text,
        "epoch": _count,
        "index": _count,
        "seq": _count,
        "cost": _real,
        "alpha": _real,
    },
    Settled: {**_HYPOTHESIS, "p": _real, "rejected": _flag},
    Failed: _HYPOTHESIS,
    Closed: {**_HYPOTHESIS, "reason": _text},
    Configured: {**_STREAM, "params": ControllerParams.from_json},
    Acknowledged: {**_STREAM, "claim": _count},
    Rested: _STREAM,
    PoolShared: {**_STREAM, "pool": _text, "epoch": _count, "share": _count, "alpha": _real},
    Leased: {
        **_STREAM,
        "lease": _count,
        "holder": _text,
        "epoch": _count,
        "index": _count,
        "seq": _count,
        "count": _count,
        "cost": _real,
    },
    Drawn: {**_HYPOTHESIS, "lease": _count, "offset": _count, "user": _text, "known": _count, "alpha": _real},
    LeaseEnded: {**_STREAM, "lease": _count, "drawn": _count},
}
_TYPES: dict[str, type[Event]] = {cls.kind: cls for cls in _FIELDS}


def event_from_json(obj: Mapping[str, Any]) -> Event:
    """Inverse of `event_to_json`.

    Raises:
        ValueError: for anything `event_to_json` does not write.
    """
    cls = _TYPES.get(_text(obj.get("t")))
    if cls is None:
        msg = f"unknown event {obj.get('t')!r}"
        raise ValueError(msg)
    fields = _FIELDS[cls]
    if set(obj) != {"t", *fields}:
        msg = f"event {cls.kind}: members {sorted(obj)}"
        raise ValueError(msg)
    try:
        return cls(**{name: read(obj[name]) for name, read in fields.items()})
    except (KeyError, TypeError) as error:
        msg = f"event {cls.kind}: {error}"
        raise ValueError(msg) from error
