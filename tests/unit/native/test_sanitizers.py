"""Hostile rows through kernels that were compiled with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcd.native import build

TESTS = [str(Path(__file__).parent / name) for name in ("test_same_bits.py", "test_entry.py", "test_decision.py")]
ROOT = Path(__file__).parents[3]
OPTIONS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DTCD_ONE_TARGET")
KINDS = "(any_row and 0.2) or moving or layouts or without_rows or any_batch or general_way or keys or decision.py"
#: Reads far beyond a window: what the sanitizer must see.
OVERRUN = """
import sys
from pathlib import Path
import numpy as np
from tcd.native import detector, library
kernels = library.open_library(Path(sys.argv[1]))
windows = [np.zeros((1, 8), np.float32) for _ in range(4)]
detector.statistics(kernels, windows, np.array([[4000, 0, 0, 0, 0]]))
"""


def preloaded(library: Path) -> dict[str, str]:
    command = build.compiler()
    assert command is not None
    runtimes = [
        subprocess.run([*command, f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True).stdout
        for name in ("asan", "ubsan")
    ]
    return os.environ | {
        "LD_PRELOAD": ":".join(path.strip() for path in runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TCD_NATIVE_LIBRARY": str(library),
        "TCD_NATIVE": "1",
    }


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if build.compiler() is None:
        pytest.skip("compiler: there is no C compiler")
    return build.build(tmp_path_factory.mktemp("sanitized") / "kernels.so", extra=OPTIONS)


def test_hostile_rows_touch_no_memory_but_their_own(sanitized: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", KINDS]
    done = subprocess.run(command, env=preloaded(sanitized), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert " passed" in done.stdout


def test_the_sanitizer_would_see_it(sanitized: Path) -> None:
    command = [sys.executable, "-c", OVERRUN, str(sanitized)]
    done = subprocess.run(command, env=preloaded(sanitized), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
