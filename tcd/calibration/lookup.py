"""Groups of rows that share an asset: one lookup per distinct key of a batch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import Match

_A = TypeVar("_A")
I64 = NDArray[np.int64]
Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Group(Generic[_A]):
    """Rows of a batch (their indices) and the asset that answers them, None for none."""

    rows: I64
    asset: _A | None
    fallback: bool


def by_asset(keys: NDArray[np.generic], find: Callable[[Key], tuple[_A | None, Match]]) -> Iterator[Group[_A]]:
    """Split a batch by what `find` answers for its keys.

    Args:
        keys: (N, 3) UINT64.
        find: `AssetSet.detector_match` or `AssetSet.multivariate_match`.
    """
    table = keys.tolist()
    places: dict[Key, list[int]] = {}
    if table and table.count(table[0]) == len(table):
        places[_key(table[0])] = list(range(len(table)))
    else:
        for i, key in enumerate(table):
            places.setdefault(_key(key), []).append(i)
    merged: dict[tuple[str | None, bool], tuple[_A | None, list[int]]] = {}
    for key, rows in places.items():
        asset, match = find(key)
        merged.setdefault((match.digest, match.fallback), (asset, []))[1].extend(rows)
    for (_, fallback), (asset, rows) in merged.items():
        yield Group(np.array(rows, np.int64), asset, fallback)


def _key(values: list[int]) -> Key:
    return int(values[0]), int(values[1]), int(values[2])
