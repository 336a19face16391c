"""Groups of rows that share an asset: one lookup per distinct key of a batch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, Match

_A = TypeVar("_A")
_S = TypeVar("_S")
_V = TypeVar("_V")
I64 = NDArray[np.int64]
Key = tuple[int, int, int]
Find = Callable[[AssetSet, Key], tuple[_A | None, Match]]
#: Rows of a batch: their indices, or all of them, whose views need no copy.
Rows = I64 | slice
ALL: Final = slice(None)


@dataclass(frozen=True, slots=True)
class Group(Generic[_A]):
    """Rows of a batch and the asset that answers them, None for none."""

    rows: Rows
    asset: _A | None
    fallback: bool


def alike(table: NDArray[np.generic]) -> bool:
    """Whether all rows of a table are the same bytes, and there is one."""
    n = table.shape[0]
    return n == 1 or (n > 1 and table.tobytes() == table[0].tobytes() * n)


def chosen(rows: Rows, where: NDArray[np.bool_]) -> Rows:
    """Those of the rows at which `where`, a flag for every row of the batch, is set."""
    if isinstance(rows, slice):
        return rows if where.all() else np.flatnonzero(where)
    return np.asarray(rows[where[rows]])


class Kept(Generic[_S, _V]):
    """What follows from an immutable object, made once per object and kept with it. By identity, bounded, pure."""

    def __init__(self, make: Callable[[_S], _V], *, most: int = 256) -> None:
        """Keep what `make` answers for at most `most` objects."""
        self._make = make
        self._most = most
        # the object is kept beside its value, so that its id is not given to another
        self._known: dict[int, tuple[_S, _V]] = {}

    def __call__(self, source: _S) -> _V:
        """The value for an object."""
        known = self._known.get(id(source))
        if known is None:
            if len(self._known) >= self._most:
                self._known.clear()
            known = self._known[id(source)] = (source, self._make(source))
        return known[1]


#: Answers of an asset set, by lookup and key.
_FOUND: Final[Kept[AssetSet, dict[tuple[Any, bytes], tuple[Any, Match]]]] = Kept(lambda _: {}, most=8)
_MOST_KEYS: Final = 4096


def _find(assets: AssetSet, find: Find[_A], key: NDArray[np.generic]) -> tuple[_A | None, Match]:
    known = _FOUND(assets)
    name = (find, key.tobytes())
    if name not in known:
        if len(known) >= _MOST_KEYS:
            known.clear()
        a, b, c = map(int, key.tolist())
        answer = known[name] = find(assets, (a, b, c))
        return answer
    return known[name]


def by_asset(keys: NDArray[np.generic], assets: AssetSet, find: Find[_A]) -> Iterator[Group[_A]]:
    """Split a batch by the asset that answers its keys.

    Args:
        keys: (N, 3) UINT64.
        assets: the set to look in.
        find: `AssetSet.detector_match` or `AssetSet.multivariate_match`.
    """
    if alike(keys):
        asset, match = _find(assets, find, keys[0])
        yield Group(ALL, asset, match.fallback)
        return
    groups: dict[tuple[str | None, bool], tuple[_A | None, list[int]]] = {}
    for i, key in enumerate(keys):
        asset, match = _find(assets, find, key)
        groups.setdefault((match.digest, match.fallback), (asset, []))[1].append(i)
    for (_, fallback), (asset, rows) in groups.items():
        # different keys that one asset answers, as every key does that falls through to the default
        yield Group(ALL if len(rows) == keys.shape[0] else np.array(rows, np.int64), asset, fallback)
