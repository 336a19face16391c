"""The compiled kernels, loaded once per process: which ones, or why there are none.

TCD_NATIVE=0 scores with numpy, TCD_NATIVE=1 refuses to do without the kernels; unset, they are used where they are.
Both give the same bits.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from tcd.detector.catalogue import NAMES
from tcd.native import build

_LOG: Final = logging.getLogger(__name__)
_FUNCTIONS: Final = (
    *("tcd_statistics", "tcd_detector", "tcd_multivariate", "tcd_route", "tcd_sha256", "tcd_decision", "tcd_answers"),
)
REMEDY: Final = "install a C compiler and run `python -m tcd.native.build`"


class NativeMissing(RuntimeError):
    """TCD_NATIVE=1 and the kernels cannot be loaded."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The library, or None and the reason."""

    library: ctypes.CDLL | None
    reason: str


def open_library(path: Path) -> ctypes.CDLL:
    """The library at `path`.

    Raises:
        OSError: it is not there, not loadable, or made of other sources.
    """
    library = ctypes.CDLL(str(path))
    texts = {}
    for name in ("tcd_digest", "tcd_names"):
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_char_p, ()
        texts[name] = function().decode()
    if texts["tcd_digest"] != build.digest():
        msg = f"{path.name} was made of other sources"
        raise OSError(msg)
    if tuple(texts["tcd_names"].split()) != NAMES:
        msg = f"{path.name} has other statistics than the catalogue"
        raise OSError(msg)
    for name in _FUNCTIONS:
        function = getattr(library, name)
        function.restype = ctypes.c_int
        if name != "tcd_statistics":
            # a structure as bytes
            function.argtypes = (ctypes.c_char_p,)
    library.tcd_answers.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    return library


@lru_cache(maxsize=1)
def loaded() -> Loaded:
    """What this process scores with; says so once in the log when that is not the kernels.

    Raises:
        NativeMissing: TCD_NATIVE=1 and there are none.
    """
    wanted = os.environ.get("TCD_NATIVE", "")
    if wanted == "0":
        return Loaded(None, "TCD_NATIVE=0")
    path = Path(os.environ.get("TCD_NATIVE_LIBRARY") or build.LIBRARY)
    try:
        return Loaded(open_library(path), str(path))
    except (OSError, AttributeError) as error:
        reason = str(error) if path.exists() else f"{path.name} was not built"
    if wanted == "1":
        msg = f"TCD_NATIVE=1, but there are no compiled kernels: {reason}; remedy: {REMEDY}"
        raise NativeMissing(msg)
    _LOG.warning("scoring with numpy, the same bits but several times slower: %s; remedy: %s", reason, REMEDY)
    return Loaded(None, reason)
