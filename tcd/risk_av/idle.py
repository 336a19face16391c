"""Streams at rest: about 190 bytes each. A row is the tombstone of a subject: what it spent stays.

Rows lie in blocks, an open-addressed index of 4-byte numbers finds them by the first 16 bytes of SHA-256 of the
stream's name. What several streams have in common (parameters, terms) is kept once.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tcd.risk_av.eprocess import EState, mixture
from tcd.risk_av.exact import Scaled
from tcd.risk_av.hypothesis import Epoch
from tcd.risk_av.params import ControllerParams, Terms
from tcd.risk_av.rules import Rai
from tcd.risk_av.stream import Stream
from tcd.risk_av.views import EprocSnapshot

#: key; epoch, index, known, rejections, seq, folded, step, leased; claim, kind; mantissas and exponents of S, C and
#: the maximum; spent; flags; of the snapshot: prev, x, epoch, index, known, alloc, spent, wealth.
_ROW: Final = struct.Struct("<16s8IHHdidididB32sd3I3d")
_BLOCK: Final = 4096
_FREE: Final = -1
_DELETED: Final = -2
_KEY: Final = 16
_ALARM, _CUSUM = 1, 2
MAX_KINDS: Final = 0xFFFF


def stream_key(name: str) -> bytes:
    """What finds a stream at rest."""
    return hashlib.sha256(b"tcd/idle/v1\0" + name.encode()).digest()[:_KEY]


class _Row(NamedTuple):
    """`_ROW`, unpacked; members that start with `at_` belong to the snapshot."""

    key: bytes
    epoch: int
    reserved: int
    known: int
    rejections: int
    seq: int
    folded: int
    step: int
    leased: int
    claim: int
    kind: int
    s_m: float
    s_k: int
    c_m: float
    c_k: int
    peak_m: float
    peak_k: int
    spent: float
    flags: int
    prev: bytes
    x: float
    at_epoch: int
    at_index: int
    at_known: int
    alloc: float
    at_spent: float
    wealth: float


@dataclass(frozen=True, slots=True)
class _Kind:
    """What many streams have in common."""

    params: ControllerParams
    terms: Terms
    claim_level: float
    snapshot_params: str
    threshold: float


@dataclass(frozen=True, slots=True)
class FrozenRows:
    """Streams at rest that change no more, before they are written out."""

    kinds: tuple[_Kind, ...]
    owed: dict[bytes, dict[str, int]]
    blocks: bytes
    index: array[int]
    count: int

    def common(self) -> dict[str, Any]:
        """What streams have in common and their credits, as JSON values."""
        kinds = [
            [k.params.to_json(), k.terms.to_json(), k.claim_level, k.snapshot_params, k.threshold] for k in self.kinds
        ]
        owed = {key.hex(): sorted(self.owed[key].items()) for key in sorted(self.owed)}
        return {"kinds": kinds, "credits": owed, "count": self.count}

    def rows(self) -> list[bytes]:
        """The rows, ordered by key."""
        return sorted(self.blocks[at * _ROW.size : (at + 1) * _ROW.size] for at in self.index if at >= 0)


class IdleStreams:
    """Streams without open hypotheses, packed."""

    __slots__ = (
        "_blocks",
        "_capacity",
        "_count",
        "_credits",
        "_free",
        "_index",
        "_kinds",
        "_numbers",
        "_rows",
        "_used",
    )

    def __init__(self) -> None:
        """None."""
        self._capacity = 64
        self._index = array("i", [_FREE]) * self._capacity
        self._blocks: list[bytearray] = []
        self._free: list[int] = []
        self._rows = 0
        self._used = 0
        self._count = 0
        self._kinds: list[_Kind] = []
        self._numbers: dict[_Kind, int] = {}
        self._credits: dict[bytes, dict[str, int]] = {}

    def __len__(self) -> int:
        """Streams at rest."""
        return self._count

    def __contains__(self, name: str) -> bool:
        """Whether a stream rests here."""
        return self._count > 0 and self._slot(stream_key(name)) is not None

    @property
    def nbytes(self) -> int:
        """Bytes of rows and index."""
        return len(self._blocks) * _BLOCK * _ROW.size + self._index.itemsize * self._capacity

    @staticmethod
    def fits(stream: Stream) -> bool:
        """Whether a stream can rest: nothing open, nothing waiting to be folded, no lease out, and rule RAI."""
        epoch = stream.epoch
        return (
            epoch is not None
            and isinstance(epoch.rule, Rai)
            and not stream.queue
            and not stream.leases
            and len(stream.epochs) == 1
        )

    def put(self, stream: Stream) -> bool:
        """Pack a stream that `fits`; False when there are too many kinds of parameters.

        The hypotheses it remembers for idempotence are forgotten.
        """
        key = stream_key(stream.name)
        row = self._pack(key, stream)
        if row is None:
            return False
        if stream.epoch is not None and stream.epoch.credits:
            self._credits[key] = stream.epoch.credits
        self._insert(key, row)
        return True

    def _pack(self, key: bytes, stream: Stream) -> bytes | None:
        epoch, snapshot = stream.epoch, stream.snapshot
        assert epoch is not None  # noqa: S101 - for the type checker: it fits
        rule = epoch.rule
        kind = _Kind(stream.params, rule.terms, epoch.claim_level, snapshot.params, snapshot.threshold)
        number = self._numbers.get(kind)
        if number is None:
            if len(self._kinds) >= MAX_KINDS:
                return None
            number = self._numbers[kind] = len(self._kinds)
            self._kinds.append(kind)
        estate = stream.estate
        return _ROW.pack(
            key,
            *(epoch.number, rule.index, rule.known, epoch.rejections),
            *(stream.seq, stream.folded, estate.step, stream.leased),
            stream.claim,
            number,
            *estate.s,
            *estate.c,
            *stream.peak,
            rule.spent,
            _ALARM * stream.alarm + _CUSUM * stream.cusum_alarm,
            bytes.fromhex(snapshot.prev[7:]),
            snapshot.x,
            *(snapshot.epoch, snapshot.index, snapshot.known),
            *(snapshot.alloc, snapshot.spent, snapshot.wealth),
        )

    def peek(self, name: str) -> Stream | None:
        """A copy of a stream at rest, None when none of this name rests here."""
        slot = self._slot(stream_key(name)) if self._count else None
        return None if slot is None else self._wake(name, self._packed(self._index[slot]))

    def take(self, name: str) -> Stream | None:
        """Wake a stream, None when none of this name rests here."""
        key = stream_key(name)
        slot = self._slot(key) if self._count else None
        if slot is None:
            return None
        at = self._index[slot]
        stream = self._wake(name, self._packed(at))
        self._credits.pop(key, None)
        self._index[slot] = _DELETED
        self._free.append(at)
        self._count -= 1
        return stream

    def each(self, change: Callable[[Stream], None]) -> None:
        """Wake every stream for a change and pack it again; hot reloads are rare."""
        for at in [at for at in self._index if at >= 0]:
            packed = self._packed(at)
            stream = self._wake("", packed)
            change(stream)
            block, row = divmod(at, _BLOCK)
            changed = self._pack(packed[:_KEY], stream)
            if changed is None:
                msg = "too many kinds of parameters at rest"
                raise ValueError(msg)
            self._blocks[block][row * _ROW.size : (row + 1) * _ROW.size] = changed

    def dumps(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys (hex) and all of the state of each stream, nameless."""
        for at in self._index:
            if at >= 0:
                packed = self._packed(at)
                yield packed[:_KEY].hex(), self._wake("", packed).dump()

    def freeze(self) -> FrozenRows:
        """A copy that changes no more."""
        return FrozenRows(
            tuple(self._kinds),
            {key: dict(owed) for key, owed in self._credits.items()},
            b"".join(self._blocks),
            self._index[:],
            self._count,
        )

    @classmethod
    def load(cls, common: dict[str, Any], rows: bytes) -> IdleStreams:
        """Inverse of `FrozenRows`: what it gives as `common` and, in one piece, as `rows`.

        Raises:
            ValueError, KeyError, TypeError: it cannot be what those gave.
        """
        if len(rows) != common["count"] * _ROW.size:
            msg = f"{len(rows)} bytes are not {common['count']} rows"
            raise ValueError(msg)
        out = cls()
        for params, terms, claim_level, snapshot_params, threshold in common["kinds"]:
            kind = _Kind(
                ControllerParams.from_json(params), Terms.from_json(terms), claim_level, snapshot_params, threshold
            )
            out._numbers[kind] = len(out._kinds)
            out._kinds.append(kind)
        for start in range(0, len(rows), _ROW.size):
            row = rows[start : start + _ROW.size]
            out._insert(row[:_KEY], row)
        out._credits = {bytes.fromhex(key): dict(owed) for key, owed in common["credits"].items()}
        return out

    def _wake(self, name: str, packed: bytes) -> Stream:
        row = _Row(*_ROW.unpack(packed))
        kind = self._kinds[row.kind]
        stream = Stream(name, kind.params)
        rule = Rai(kind.terms)
        rule.index, rule.known, rule.spent = row.reserved, row.known, row.spent
        epoch = Epoch(row.epoch, rule, kind.terms.digest(), kind.claim_level, row.rejections)
        epoch.credits = dict(self._credits.get(row.key, {}))
        stream.epoch = epoch
        stream.epochs = {epoch.number: epoch}
        stream.seq, stream.folded, stream.claim, stream.leased = row.seq, row.folded, row.claim, row.leased
        stream.estate = EState(row.step, Scaled(row.s_m, row.s_k), Scaled(row.c_m, row.c_k))
        stream.peak = Scaled(row.peak_m, row.peak_k)
        stream.alarm = bool(row.flags & _ALARM)
        stream.cusum_alarm = bool(row.flags & _CUSUM)
        stream.snapshot = EprocSnapshot(
            stream=stream.public,
            params=kind.snapshot_params,
            claim=row.claim,
            step=row.step,
            prev="sha256:" + row.prev.hex(),
            x=row.x,
            s=stream.estate.s,
            e=mixture(stream.estate),
            c=stream.estate.c,
            threshold=kind.threshold,
            trigger=stream.alarm,
            epoch=row.at_epoch,
            index=row.at_index,
            known=row.at_known,
            alloc=row.alloc,
            spent=row.at_spent,
            wealth=row.wealth,
        )
        return stream

    def _packed(self, at: int) -> bytes:
        block, row = divmod(at, _BLOCK)
        start = row * _ROW.size
        return bytes(self._blocks[block][start : start + _ROW.size])

    def _slot(self, key: bytes) -> int | None:
        slot = int.from_bytes(key[:8], "little") % self._capacity
        while True:
            at = self._index[slot]
            if at == _FREE:
                return None
            if at >= 0 and self._packed(at)[:_KEY] == key:
                return slot
            slot = (slot + 1) % self._capacity

    def _insert(self, key: bytes, row: bytes) -> None:
        if 2 * (self._used + 1) > self._capacity:
            self._grow()
        if self._free:
            at = self._free.pop()
        else:
            at = self._rows
            self._rows += 1
            if at == len(self._blocks) * _BLOCK:
                self._blocks.append(bytearray(_BLOCK * _ROW.size))
        block, number = divmod(at, _BLOCK)
        start = number * _ROW.size
        self._blocks[block][start : start + _ROW.size] = row
        self._link(key, at)
        self._count += 1

    def _link(self, key: bytes, at: int) -> None:
        slot = int.from_bytes(key[:8], "little") % self._capacity
        while self._index[slot] >= 0:
            slot = (slot + 1) % self._capacity
        self._used += self._index[slot] == _FREE
        self._index[slot] = at

    def _grow(self) -> None:
        """A new index: twice the size when it is half full of rows, the same when it is full of deleted ones."""
        rows = [at for at in self._index if at >= 0]
        self._capacity = max(64, 1 << (4 * len(rows)).bit_length() - 1)
        self._index = array("i", [_FREE]) * self._capacity
        self._used = 0
        for at in rows:
            self._link(self._packed(at)[:_KEY], at)
