"""All of a controller's state as bytes, so that a start folds the events after them and not the whole log.

A saved state is what the events before it come to, bit for bit; it holds nothing that they do not. Layout: a name of
the format, 8 bytes of length, lines of JSON (the shortest text of a float names it exactly): what is common and then a
stream each, the rows of the streams at rest. What may change is copied at once; the rest is written out later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any, Final

from tcd.risk_av.catalogue import open_rule
from tcd.risk_av.eprocess import EState
from tcd.risk_av.errors import ReplayError
from tcd.risk_av.exact import Scaled
from tcd.risk_av.hypothesis import Epoch, Granted, Hypothesis
from tcd.risk_av.idle import FrozenRows, IdleStreams
from tcd.risk_av.params import ControllerParams, Terms
from tcd.risk_av.pool import PoolState
from tcd.risk_av.rules import Level
from tcd.risk_av.stream import Stream
from tcd.risk_av.views import EprocSnapshot

_NAME: Final = b"tcd/controller-state/v1\0"
_LENGTH: Final = 8
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Saved:
    """The parts of a controller."""

    params: ControllerParams
    streams: dict[str, Stream]
    pools: dict[str, PoolState]
    idle: IdleStreams


@dataclass(frozen=True, slots=True)
class Frozen:
    """A state that changes no more, before it is written out.

    Hypotheses that are closed and folded never change again: they are only referred to.
    """

    common: dict[str, Any]
    streams: list[tuple[str, tuple[Hypothesis, ...]]]
    rows: FrozenRows

    def encode(self) -> bytes:
        """The bytes; equal states give equal bytes. May run in another thread than the controller's."""
        # stream by stream: a thread that encodes holds up the others for one of them at most
        lines = [_encode({**self.common, "idle": self.rows.common()})]
        for text, closed in self.streams:
            written = _encode([_hypothesis(h) for h in closed])
            lines.append(f'{text[:-1]},"closed":{written}}}')
        whole = "\n".join(lines).encode()
        return b"".join((_NAME, len(whole).to_bytes(_LENGTH, "big"), whole, *self.rows.rows()))


def freeze(saved: Saved) -> Frozen:
    """Copy what may change."""
    return Frozen(
        {
            "params": saved.params.to_json(),
            "pools": [[name, *astuple(pool)] for name, pool in sorted(saved.pools.items())],
        },
        [(_encode(_stream(stream)), tuple(stream.closed.values())) for stream in saved.streams.values()],
        saved.idle.freeze(),
    )


@lru_cache(maxsize=1024)
def _common(of: ControllerParams | Terms) -> dict[str, Any]:
    """JSON form of what many streams have in common."""
    return of.to_json()


def load(data: bytes) -> Saved:
    """Inverse of `save`.

    Raises:
        ReplayError: these bytes are no saved state of this version.
    """
    start = len(_NAME) + _LENGTH
    if data[: len(_NAME)] != _NAME:
        msg = "not a saved state of this version"
        raise ReplayError(msg)
    end = start + int.from_bytes(data[len(_NAME) : start], "big")
    try:
        common, *lines = data[start:end].split(b"\n")
        value = json.loads(common)
        streams = [_load_stream(json.loads(line)) for line in lines]
        return Saved(
            ControllerParams.from_json(value["params"]),
            {stream.name: stream for stream in streams},
            {name: PoolState(*rest) for name, *rest in value["pools"]},
            IdleStreams.load(value["idle"], data[end:]),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        msg = f"a saved state that cannot be one: {type(error).__name__}"
        raise ReplayError(msg) from error


def _stream(stream: Stream) -> dict[str, Any]:
    # a place of a lease is among the closed ones, in the queue, or only with its lease: each is written once
    at = {id(h): number for number, h in enumerate(stream.closed.values())} if stream.leases else {}
    known: list[Hypothesis] = []
    for h in (*stream.queue, *(slot for granted in stream.leases.values() for slot in granted.slots)):
        if id(h) not in at:
            at[id(h)] = len(stream.closed) + len(known)
            known.append(h)
    return {
        "name": stream.name,
        "params": _common(stream.params),
        "epochs": [_epoch(epoch) for epoch in stream.epochs.values()],
        "counts": [stream.seq, stream.leased, stream.open, stream.folded, stream.claim],
        "estate": stream.estate,
        "peak": stream.peak,
        "alarms": [stream.alarm, stream.cusum_alarm],
        "snapshot": [getattr(stream.snapshot, name) for name in EprocSnapshot.__slots__],
        "queue": [at[id(h)] for h in stream.queue],
        "leases": [
            [g.number, g.holder, g.epoch, g.index, g.seq, _common(g.terms), [at[id(s)] for s in g.slots]]
            for g in stream.leases.values()
        ],
        "open": [_hypothesis(h) for h in known],
    }


def _load_stream(value: Mapping[str, Any]) -> Stream:
    stream = Stream(value["name"], ControllerParams.from_json(value["params"]))
    for epoch in map(_load_epoch, value["epochs"]):
        stream.epoch = stream.epochs[epoch.number] = epoch
    stream.seq, stream.leased, stream.open, stream.folded, stream.claim = value["counts"]
    step, s, c = value["estate"]
    stream.estate = EState(step, Scaled(*s), Scaled(*c))
    stream.peak = Scaled(*value["peak"])
    stream.alarm, stream.cusum_alarm = value["alarms"]
    snapshot = dict(zip(EprocSnapshot.__slots__, value["snapshot"], strict=True))
    stream.snapshot = EprocSnapshot(**{**snapshot, **{name: Scaled(*snapshot[name]) for name in ("s", "e", "c")}})
    closed = [_load_hypothesis(one) for one in value["closed"]]
    known = [*closed, *map(_load_hypothesis, value["open"])]
    stream.closed.update((h.name, h) for h in closed)
    stream.queue.extend(known[number] for number in value["queue"])
    stream.live.update((h.name, h) for h in stream.queue if h.name)
    for number, holder, epoch_number, index, seq, terms, slots in value["leases"]:
        places = [known[slot] for slot in slots]
        stream.leases[number] = Granted(number, holder, epoch_number, index, seq, Terms.from_json(terms), places)
    return stream


def _epoch(epoch: Epoch) -> list[Any]:
    rule = epoch.rule
    return [
        epoch.number,
        _common(rule.terms),
        [rule.index, rule.known, rule.spent, *rule.saved()],
        epoch.params,
        epoch.claim_level,
        epoch.rejections,
        epoch.live,
        sorted(epoch.credits.items()),
    ]


def _load_epoch(value: Iterable[Any]) -> Epoch:
    number, terms, (index, known, spent, *rest), params, claim_level, rejections, live, credits_ = value
    rule = open_rule(Terms.from_json(terms))
    rule.restore(index, known, spent, rest)
    return Epoch(number, rule, params, claim_level, rejections, live, dict(credits_))


def _hypothesis(h: Hypothesis) -> list[Any]:
    return [
        *(h.name, h.user, h.epoch, h.index, h.seq, *h.level, h.wealth, h.exhausted, h.claim, h.params),
        *(h.p, h.rejected, h.credited, h.failures, h.reason),
    ]


def _load_hypothesis(value: list[Any]) -> Hypothesis:
    name, user, epoch, index, seq, *level = value[:9]
    return Hypothesis(name, user, epoch, index, seq, Level(*level), *value[9:])
