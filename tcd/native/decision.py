"""The record of a decision by the compiled kernels, in one call: digests, witness, numbers, head."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.native.memory import address

F32 = NDArray[np.float32]
SIGNALS: Final = 4
REALS: Final = 20
RANDOM: Final = 16
_MAX_BODY: Final = 16_384
_MAX_VALUES: Final = 16_384
_HEAD: Final = 32
#: `struct decision_call`.
_CALL: Final = struct.Struct(f"=4q{2 * SIGNALS}q{REALS}d{RANDOM * (1 + SIGNALS)}s")
_FLOAT: Final = np.dtype(np.float32)
_PROTOTYPE: Final = ctypes.PYFUNCTYPE(ctypes.c_int, *[ctypes.c_char_p] * 4, ctypes.c_void_p)
#: Codes of `tcd_decision`.
NOT_FINITE, STRANGE_REQUEST, STRANGE_COMPONENTS, BAD_WITNESS, TOO_LONG = -1, -2, -3, -4, -5


class Refused(ValueError):
    """A record that is not written, and the kernel's code for why."""

    def __init__(self, code: int) -> None:
        """Refused with `code`."""
        super().__init__(_WHY.get(code, "a template has an unknown mark"))
        self.code = code


_WHY: Final = {
    NOT_FINITE: "hex64 holds finite numbers only",
    STRANGE_REQUEST: "the request is not compact ASCII JSON with plain numbers",
    STRANGE_COMPONENTS: "the components are not compact ASCII JSON that begins with av",
    BAD_WITNESS: "a witness value is not finite",
    TOO_LONG: f"a body has at most {_MAX_BODY} bytes",
}


class Filler:
    """`tcd_decision` of a library; holds the interpreter's lock, because it takes less time than handing that over."""

    __slots__ = ("_at", "_call", "_lock", "_out", "_view")

    def __init__(self, library: ctypes.CDLL) -> None:
        """Fill by `library`."""
        self._call: Any = _PROTOTYPE(("tcd_decision", library))
        self._out = (ctypes.c_char * (_HEAD + _MAX_BODY))()
        self._at = ctypes.addressof(self._out)
        self._view = memoryview(self._out).cast("B")
        # between a call and the copy of what it wrote another thread may run
        self._lock = threading.Lock()

    def __call__(
        self,
        template: bytes,
        request: bytes | None,
        components: bytes,
        exact: int,
        signals: Sequence[F32],
        reals: Sequence[float],
        random: bytes,
    ) -> tuple[bytes, bytes]:
        """Head and body of a record; see `tcd.receipts.filling.by_python`.

        Raises:
            Refused: see the codes.
            ValueError: a signal is not contiguous FP32, or too long.
        """
        places: list[int] = []
        for signal in signals:
            if (
                (signal.dtype is not _FLOAT and signal.dtype != _FLOAT)
                or not signal.flags.c_contiguous
                or signal.size > _MAX_VALUES
            ):
                msg = f"a signal is contiguous FP32 of at most {_MAX_VALUES} values"
                raise ValueError(msg)
            places += (address(signal), signal.size) if signal.size else (0, 0)
        size = -1 if request is None else len(request)
        call = _CALL.pack(len(template), size, len(components), exact, *places, *reals, random)
        with self._lock:
            found = self._call(template, request, components, call, self._at)
            if found < 0:
                raise Refused(found)
            view = self._view
            return view[:_HEAD].tobytes(), view[_HEAD : _HEAD + found].tobytes()


def sha256(library: ctypes.CDLL, data: bytes, *, plain: bool = False) -> bytes:
    """The kernels' SHA-256; `plain` without the CPU's own instructions."""
    out = (ctypes.c_uint8 * 32)()
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    function(("tcd_sha256", library))(data, len(data), int(plain), ctypes.addressof(out))
    return bytes(out)
