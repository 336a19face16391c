"""All of a controller's state as bytes, so that a start folds the events after them and not the whole log.

A saved state is what the events before it come to, bit for bit; it holds nothing that they do not. Layout: a name of
the format, 8 bytes of length, JSON (the shortest text of a float names it exactly), the rows of the streams at rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from tcd.risk_av.catalogue import open_rule
from tcd.risk_av.eprocess import EState
from tcd.risk_av.errors import ReplayError
from tcd.risk_av.exact import Scaled
from tcd.risk_av.hypothesis import Epoch, Granted, Hypothesis
from tcd.risk_av.idle import IdleStreams
from tcd.risk_av.params import ControllerParams, Terms
from tcd.risk_av.pool import PoolState
from tcd.risk_av.rules import Level
from tcd.risk_av.stream import Stream
from tcd.risk_av.views import EprocSnapshot

_NAME: Final = b"tcd/controller-state/v1\0"
_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class Saved:
    """The parts of a controller."""

    params: ControllerParams
    streams: dict[str, Stream]
    pools: dict[str, PoolState]
    idle: IdleStreams


def save(saved: Saved) -> bytes:
    """The parts as bytes; equal states give equal bytes."""
    kinds, rows = saved.idle.save()
    value = {
        "params": saved.params.to_json(),
        "streams": [_stream(stream) for stream in saved.streams.values()],
        "pools": [[name, *astuple(pool)] for name, pool in sorted(saved.pools.items())],
        "idle": kinds,
    }
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_NAME, len(text).to_bytes(_LENGTH, "big"), text, rows))


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
        value = json.loads(data[start:end])
        streams = [_load_stream(one) for one in value["streams"]]
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
    # a place of a lease is in the queue, among the closed ones, or only with its lease: each is written once
    known: dict[int, Hypothesis] = {}
    for h in (*stream.closed.values(), *stream.queue, *(s for g in stream.leases.values() for s in g.slots)):
        known.setdefault(id(h), h)
    at = {identity: number for number, identity in enumerate(known)}
    digests = sorted({h.params for h in known.values()})
    return {
        "name": stream.name,
        "params": stream.params.to_json(),
        "epochs": [_epoch(epoch) for epoch in stream.epochs.values()],
        "counts": [stream.seq, stream.leased, stream.open, stream.folded, stream.claim],
        "estate": stream.estate,
        "peak": stream.peak,
        "alarms": [stream.alarm, stream.cusum_alarm],
        "snapshot": [getattr(stream.snapshot, name) for name in EprocSnapshot.__slots__],
        "digests": digests,
        "hypotheses": [_hypothesis(h, digests.index(h.params)) for h in known.values()],
        "closed": len(stream.closed),
        "queue": [at[id(h)] for h in stream.queue],
        "leases": [
            [g.number, g.holder, g.epoch, g.index, g.seq, g.terms.to_json(), [at[id(s)] for s in g.slots]]
            for g in stream.leases.values()
        ],
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
    known = [_load_hypothesis(one, value["digests"]) for one in value["hypotheses"]]
    stream.closed.update((h.name, h) for h in known[: value["closed"]])
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
        rule.terms.to_json(),
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


def _hypothesis(h: Hypothesis, digest: int) -> list[Any]:
    return [
        *(h.name, h.user, h.epoch, h.index, h.seq, *h.level, h.wealth, h.exhausted, h.claim, digest),
        *(h.p, h.rejected, h.credited, h.failures, h.reason),
    ]


def _load_hypothesis(value: list[Any], digests: list[str]) -> Hypothesis:
    name, user, epoch, index, seq, *level, wealth, exhausted, claim, digest = value[:13]
    return Hypothesis(
        name, user, epoch, index, seq, Level(*level), wealth, exhausted, claim, digests[digest], *value[13:]
    )
