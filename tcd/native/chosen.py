"""Which asset answers each row of a batch, as addresses: one lookup per distinct key."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, Match
from tcd.calibration.lookup import Kept

_KEY_BYTES: Final = 24
_MOST_KEYS: Final = 4096
#: An asset's structure, which keeps what it points to.
Handle = ctypes.Structure
Find = Callable[[AssetSet, tuple[int, int, int]], tuple[Any, Match]]


class Chosen:
    """What answers each row: addresses of structures and flags, one for all rows or one for each."""

    __slots__ = ("_addresses", "_flags", "_owners", "fields")

    def __init__(self, handles: Sequence[Handle | None], flags: Sequence[bool]) -> None:
        """Keep the structures as long as their addresses; `fields` are those of a call."""
        self._owners = handles
        addresses = [None if handle is None else ctypes.addressof(handle) for handle in handles]
        self._addresses = (ctypes.c_void_p * len(handles))(*addresses)
        self._flags = (ctypes.c_uint8 * len(flags))(*flags)
        self.fields = (ctypes.addressof(self._addresses), ctypes.addressof(self._flags), int(len(handles) > 1))


class Lookup:
    """Finds assets by key and keeps what was found, per asset set."""

    def __init__(self, find: Find, make: Kept[Any, Any]) -> None:
        """Look with `find`; `make` gives an asset's structure.

        Args:
            find: `AssetSet.detector_match` or `AssetSet.multivariate_match`.
            make: from an asset.
        """
        self._find = find
        self._make = make
        self._known: Kept[AssetSet, dict[bytes, tuple[Handle | None, bool, Chosen]]] = Kept(lambda _: {}, most=8)

    def __call__(self, keys: NDArray[np.generic], assets: AssetSet) -> Chosen:
        """The assets of (N, 3) UINT64 keys, N >= 1."""
        raw = keys.tobytes()
        n = keys.shape[0]
        known = self._known(assets)
        first = raw[:_KEY_BYTES]
        if n == 1 or raw == first * n:
            return (known.get(first) or self._look(first, assets, known))[2]
        parts = [raw[i : i + _KEY_BYTES] for i in range(0, len(raw), _KEY_BYTES)]
        found = [known.get(part) or self._look(part, assets, known) for part in parts]
        return Chosen([handle for handle, _, _ in found], [fallback for _, fallback, _ in found])

    def find(self, key: tuple[int, ...], assets: AssetSet) -> tuple[Any, bool]:
        """The structure for a key of three levels, None for none, and whether it is a fall-back."""
        raw, known = np.array(key, np.uint64).tobytes(), self._known(assets)
        return (known.get(raw) or self._look(raw, assets, known))[:2]

    def _look(
        self, raw: bytes, assets: AssetSet, known: dict[bytes, tuple[Handle | None, bool, Chosen]]
    ) -> tuple[Handle | None, bool, Chosen]:
        if len(known) >= _MOST_KEYS:
            known.clear()
        a, b, c = np.frombuffer(raw, np.uint64).tolist()
        asset, match = self._find(assets, (a, b, c))
        handle = None if asset is None else self._make(asset)
        answer = known[raw] = (handle, match.fallback, Chosen([handle], [match.fallback]))
        return answer
