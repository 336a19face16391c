"""From a request's arrays to a step's outputs in one call of the kernels: what a model in Triton does per request.

Between a request and its response a model runs on cold caches, where a line of Python costs several times what it
costs in a loop. The same kernels as `tcd.native.{detector,multivariate,routing}`, hence the same bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.calibration.store import AssetDirectory
from tcd.contract import DETECTOR, DIAGNOSE, MAX_BATCH, MULTIVARIATE, ROUTING, Model
from tcd.native import detector, multivariate, routing
from tcd.native.layout import Array, Block, Trusted
from tcd.native.memory import address

#: What a call answers.
_DONE, _CHANGED, _UNSUITED, _UNKNOWN = range(4)
_LOOKUPS: Final = 3
_SLOTS: Final = 1024
#: A key, an address and a flag.
_SLOT_WORDS: Final = 5
#: Arrays of outputs that are kept, one set for each place and size of a request in a batch.
_MOST_KEPT: Final = 512
#: Tensors between the steps, in the order in which routing takes them.
_BETWEEN: Final = tuple(tensor for tensor in ROUTING.inputs[:9])


class _Lookup(ctypes.Structure):
    """`struct lookup`."""

    _fields_ = (("slots", ctypes.c_void_p), ("used", ctypes.c_int64))


class _Entry(ctypes.Structure):
    """`struct entry`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("member", "open_view", "close_view", "names")),
        *(("manifest", ctypes.c_char_p), ("stamp", ctypes.c_int64 * 3), ("catalogue", ctypes.c_void_p)),
        *(("lookups", _Lookup * _LOOKUPS), ("missing", ctypes.c_uint64 * 3), ("missing_by", ctypes.c_int64)),
        ("bits", ctypes.c_int64 * 8),
    )


def _function(name: str) -> int:
    return int(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0)


#: Model to its function and the tensors that it fills, in the order in which it does; the first are its outputs.
_STEPS: Final[dict[str, tuple[str, Block, int]]] = {
    DETECTOR.name: ("tcd_enter_detector", detector.OUT, len(DETECTOR.outputs)),
    MULTIVARIATE.name: ("tcd_enter_multivariate", multivariate.OUT, len(MULTIVARIATE.outputs)),
    ROUTING.name: ("tcd_enter_routing", routing.OUT, len(ROUTING.outputs)),
}


def _fused() -> tuple[str, Block, int]:
    placed = {
        name: (name, dtype, shape)
        for block in (detector.OUT, multivariate.OUT, routing.OUT)
        for name, dtype, shape in block.tensors
    }
    first = ("COMPONENTS", "MV", *(tensor.name for tensor in ROUTING.outputs))
    between = tuple(tensor.name for tensor in _BETWEEN)
    return "tcd_enter_fused", Block([placed[name] for name in (*first, *between)]), len(DIAGNOSE.outputs)


class Entry:
    """One model's way into the kernels, for one thread.

    Attributes:
        bits: rows answered so far by bit of their status; whoever reads them may set them back to zero.
    """

    def __init__(
        self, library: ctypes.CDLL, model: Model, directory: AssetDirectory, current: Callable[[], AssetSet]
    ) -> None:
        """Prepare the calls.

        Args:
            library: the kernels.
            model: one of the three steps, or a model with the inputs and outputs of `tcd_diagnose`.
            directory: where the assets are from; its manifest is looked at in every call.
            current: called when the manifest is not the one that the set in use is from; the set to use now.
        """
        function, block, self._shown = _STEPS.get(model.name) or _fused()
        # holds the GIL while it runs; the file's name is kept nowhere else
        self._call = ctypes.PyDLL(library._name)[function]  # noqa: SLF001
        self._call.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        self._call.restype = ctypes.c_int
        self._remember = library.tcd_remember
        self._remember.argtypes = (*(ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p), ctypes.c_void_p, ctypes.c_int64)
        self._remember.restype = None
        self._directory, self._current = directory, current
        self._block = block
        self._memory = block.memory(MAX_BATCH)
        self._kept: dict[tuple[int, int], tuple[Trusted, Any]] = {}
        names: Any = ctypes.py_object * len(model.inputs)
        self._names = names(*(tensor.name for tensor in model.inputs))
        self._slots = np.zeros((_LOOKUPS, _SLOTS, _SLOT_WORDS), np.uint64)
        self._entry = _Entry()
        self._entry.member = _function("PyDict_GetItemWithError")
        self._entry.open_view = _function("PyObject_GetBuffer")
        self._entry.close_view = _function("PyBuffer_Release")
        self._entry.names = ctypes.addressof(self._names)
        self._entry.manifest = directory.manifest.encode()
        self._entry.catalogue = detector.catalogue()
        for by in range(_LOOKUPS):
            self._entry.lookups[by].slots = address(self._slots[by])
        self._place = ctypes.addressof(self._entry)
        self.bits: NDArray[np.int64] = np.ctypeslib.as_array(self._entry.bits)
        self._assets: AssetSet | None = None
        #: Structures whose addresses the slots hold.
        self._owners: dict[int, Any] = {}
        self._renew()

    def __call__(self, tensors: Mapping[str, Array], rows: int, before: int = 0) -> Trusted | None:
        """Answer the rows of one request.

        Args:
            tensors: a dictionary of the model's inputs.
            rows: N >= 1.
            before: rows of the same batch that were answered by calls before; their outputs stay as they are.

        Returns:
            The outputs, valid until a call that starts at or before their place; None when the tensors are not laid
            out as the kernels read them, or there is no memory: the general way then says what is wrong.

        Raises:
            ValueError: an asset does not fit the kernels.
        """
        if before + rows > MAX_BATCH:
            return None
        kept = self._kept.get((before, rows))
        if kept is None:
            kept = self._keep(before, rows)
        outputs, places = kept
        # the manifest may change, each row may have keys that are new, and all that is known be forgotten once
        for _ in range(2 * rows * _LOOKUPS + 2):
            answer = self._call(tensors, self._place, rows, places)
            if answer == _DONE:
                return outputs
            if answer == _CHANGED:
                self._renew()
            elif answer == _UNKNOWN:
                self._learn()
            else:
                break
        return None

    def _keep(self, before: int, rows: int) -> tuple[Trusted, Any]:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        tensors, addresses = self._block.within(self._memory, before, rows)
        outputs = Trusted(list(tensors.items())[: self._shown])
        places = (ctypes.c_void_p * len(addresses))(*addresses)
        kept = self._kept[before, rows] = (outputs, places)
        return kept

    def _renew(self) -> None:
        """Use the assets of now."""
        assets = self._current()
        self._entry.stamp[:] = self._directory.stamp or (-1, -1, -1)
        if assets is not self._assets:
            self._assets = assets
            self._slots[:] = 0
            for lookup in self._entry.lookups:
                lookup.used = 0
            self._owners.clear()

    def _learn(self) -> None:
        """Look up the key that was not known."""
        assert self._assets is not None  # noqa: S101 - __init__ set it
        by, key = self._entry.missing_by, tuple(self._entry.missing)
        find = (detector.find, multivariate.find, routing.find)[by]
        handle, flag = find(key, self._assets)
        self._owners[id(handle)] = handle
        self._remember(
            self._place,
            by,
            ctypes.addressof(self._entry.missing),
            None if handle is None else ctypes.addressof(handle),
            flag,
        )
