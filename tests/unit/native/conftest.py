"""A compiled library to test, and switching between it and numpy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.native import build
from tcd.native import library as kernels

Both = Callable[[Callable[[], Any]], tuple[Any, Any]]


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The library of these sources, or the one that TCD_NATIVE_LIBRARY names."""
    named = os.environ.get("TCD_NATIVE_LIBRARY")
    if named:
        return Path(named)
    if build.compiler() is None:
        pytest.skip("compiler: there is no C compiler")
    return build.ensure()


@pytest.fixture
def both(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Run something by the kernels, then by numpy."""
    native = kernels.Loaded(kernels.open_library(compiled), str(compiled))

    def run(call: Callable[[], Any]) -> tuple[Any, Any]:
        answers = []
        for loaded in (native, kernels.Loaded(None, "test")):
            monkeypatch.setattr(kernels, "loaded", lambda one=loaded: one)
            with np.errstate(all="ignore"):
                answers.append(call())
        return answers[0], answers[1]

    return run
