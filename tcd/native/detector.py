"""The detector by the compiled kernels: raw statistics, and the whole step."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import MOST_HEADS, AssetSet, DetectorAsset, Head, MaskCalibration
from tcd.calibration.lookup import Kept
from tcd.contract import COMPONENTS, Length
from tcd.detector.catalogue import AGES, HEADLINES, NEEDED, SLICES, STATISTICS
from tcd.native import layout
from tcd.native.chosen import Lookup
from tcd.native.layout import exactly, rows_of, tensor
from tcd.native.memory import address
from tcd.rowwise import Inputs, Outputs

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_WINDOWS: Final = ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES")
#: `struct catalogue`.
_CATALOGUE: Final = np.concatenate(
    [
        NEEDED.reshape(-1),
        [columns.start for columns in SLICES],
        [SLICES[-1].stop],
        np.array([(columns.start, columns.stop) for columns in HEADLINES]).reshape(-1),
        AGES,
    ]
).astype(np.int64)
_SHAPE: Final = (AGES.shape[0] + 1, len(STATISTICS))


@lru_cache(maxsize=1)
def catalogue() -> int:
    """Address of `struct catalogue`."""
    return address(_CATALOGUE)


def _held(array: F64, shape: tuple[int, ...], keep: list[F64]) -> int:
    """Address of an asset's array, which is kept.

    Raises:
        ValueError: it has another shape than the kernels read.
    """
    if array.shape != shape:
        msg = f"an array of the asset has shape {array.shape}, not {shape}"
        raise ValueError(msg)
    keep.append(np.ascontiguousarray(array, np.float64))
    return address(keep[-1])


def table(values: F64, keep: list[F64]) -> tuple[int, int]:
    """`struct table` of a sorted table."""
    return _held(values, (values.shape[0],), keep), values.shape[0]


def adjusted(values: F64 | None, sessions: F64, keep: list[F64]) -> int | None:
    """Address of the adjusted p-values of a table of sessions, None for none."""
    return None if values is None else _held(values, (sessions.shape[0] + 1,), keep)


def _head(head: Head, keep: list[F64]) -> tuple[float, int, int]:
    shape = _SHAPE[1:]
    return head.intercept, _held(head.linear, shape, keep), _held(head.quadratic, shape, keep)


def _heads(heads: tuple[Head, ...], keep: list[F64]) -> tuple[tuple[float, int | None, int | None], ...]:
    """`heads` of `struct mask`.

    Raises:
        ValueError: there is none, or there are more than the kernels know.
    """
    if not 0 < len(heads) <= MOST_HEADS:
        msg = f"{len(heads)} heads"
        raise ValueError(msg)
    return (*(_head(head, keep) for head in heads), *((0.0, None, None),) * (MOST_HEADS - len(heads)))


class _Mask(layout.Mask):
    """`struct mask` that keeps what it points to."""

    def __init__(self, mask: MaskCalibration) -> None:
        self.keep: list[F64] = []
        if len(mask.components) != len(COMPONENTS):
            msg = f"{len(mask.components)} tables of components"
            raise ValueError(msg)
        super().__init__(
            _heads(mask.heads, self.keep),
            len(mask.heads),
            table(mask.steps, self.keep),
            tuple(table(values, self.keep) for values in mask.components),
            table(mask.sessions, self.keep),
            adjusted(mask.adjusted, mask.sessions, self.keep),
            mask.level,
        )


class _Detector(layout.Detector):
    """`struct detector` that keeps what it points to.

    Raises:
        ValueError: the asset does not fit the kernels.
    """

    def __init__(self, asset: DetectorAsset) -> None:
        self.keep: list[F64] = []
        self.asset = asset
        self.held = {number: _Mask(mask) for number, mask in asset.masks.items()}
        if not all(0 <= number < layout.MASKS for number in self.held):
            msg = "a mask of an unknown signal"
            raise ValueError(msg)
        masks = [ctypes.addressof(self.held[i]) if i in self.held else None for i in range(layout.MASKS)]
        super().__init__(
            asset.asset_id,
            asset.features,
            _held(asset.location, _SHAPE, self.keep),
            _held(asset.scale, _SHAPE, self.keep),
            (ctypes.c_void_p * layout.MASKS)(*masks),
        )


OUT: Final = layout.Block(
    (
        ("DETECTOR_P", np.float64, (2,)),
        ("DETECTOR_SUP", np.float64, (1,)),
        ("COMPONENTS", np.float32, (len(COMPONENTS), 3)),
        ("DETECTOR_LEVEL", np.float64, (1,)),
        ("DETECTOR_ASSET", np.uint64, (1,)),
        ("DETECTOR_STATUS", np.int32, (1,)),
    )
)
_LOOK: Final = Lookup(AssetSet.detector_match, Kept(_Detector, most=32))


def find(key: tuple[int, ...], assets: AssetSet) -> tuple[layout.Detector | None, bool]:
    """The structure of the asset that answers a key of three levels, and whether it is a fall-back."""
    return _LOOK.find(key, assets)


def statistics(library: ctypes.CDLL, windows: tuple[NDArray[np.generic], ...], counts: I64) -> tuple[F64, Bool]:
    """Raw statistics (N, F) and which rows hold a value that no number or not allowed is (N,).

    Args:
        library: the kernels.
        windows: (N, W) trace, entropy, spectrum, features.
        counts: (N, 5) valid counts, inside the windows.

    Raises:
        MemoryError: no work space.
    """
    n = counts.shape[0]
    arrays = [rows_of(array, np.float32, n) for array in windows]
    counts = exactly(counts, np.int64, (n, 5))
    values, wrong = np.empty((n, len(STATISTICS))), np.empty(n, np.bool_)
    call = layout.Windows(n, *(tensor(array) for array in arrays))
    pointers = [ctypes.c_void_p(address(array)) for array in (counts, values, wrong)]
    if library.tcd_statistics(ctypes.byref(call), *pointers):
        raise MemoryError
    return values, wrong


def score(library: ctypes.CDLL, inputs: Inputs, assets: AssetSet) -> Outputs:
    """Answer a batch of N >= 1 rows, as `tcd.detector.score`.

    Raises:
        ValueError: an asset or a tensor does not fit the kernels.
        MemoryError: no work space.
    """
    n = inputs["LENGTHS"].shape[0]
    windows = [rows_of(inputs[name], np.float32, n) for name in _WINDOWS]
    lengths, sup = exactly(inputs["LENGTHS"], np.int32, (n, len(Length))), exactly(inputs["SUP"], np.float64, (n, 2))
    chosen = _LOOK(exactly(inputs["KEY"], np.uint64, (n, 3)), assets)
    out, places = OUT.make(n)
    call = layout.DETECTOR_CALL.pack(
        n,
        *(field for array in windows for field in tensor(array)),
        *(address(lengths), lengths.shape[1], address(sup), sup.shape[1]),
        catalogue(),
        *chosen.fields,
        *places,
    )
    if library.tcd_detector(call):
        raise MemoryError
    return out
