"""Building and loading the kernels: what is refused, what is said, and that no vector width changes a bit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tcd.contract import Length
from tcd.detector.catalogue import STATISTICS
from tcd.native import build, detector
from tcd.native import library as kernels


@pytest.fixture
def fresh() -> Iterator[None]:
    kernels.loaded.cache_clear()
    yield
    kernels.loaded.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_numpy_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCD_NATIVE", "0")
    assert kernels.loaded() == kernels.Loaded(None, "TCD_NATIVE=0")


@pytest.mark.usefixtures("fresh")
def test_a_missing_library_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TCD_NATIVE", raising=False)
    monkeypatch.setenv("TCD_NATIVE_LIBRARY", str(tmp_path / "none.so"))
    with caplog.at_level(logging.WARNING):
        assert kernels.loaded().library is None
        assert kernels.loaded().library is None
    said = (
        "scoring with numpy, the same bits but several times slower: none.so was not built; "
        "remedy: install a C compiler and run `python -m tcd.native.build`"
    )
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.usefixtures("fresh")
def test_a_missing_library_is_refused_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TCD_NATIVE", "1")
    monkeypatch.setenv("TCD_NATIVE_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(kernels.NativeMissing, match="not built"):
        kernels.loaded()


def test_a_library_of_other_sources_is_refused(compiled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    other.write_bytes(compiled.read_bytes().replace(build.digest().encode(), b"0" * 64))
    assert not build.is_current(other)
    with pytest.raises(OSError, match="other sources"):
        kernels.open_library(other)


def test_no_compiler_and_a_compiler_that_fails_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    with pytest.raises(build.NoCompiler, match="cannot be started"):
        build.build(tmp_path / "k.so")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(build.NoCompiler, match="does not compile"):
        build.build(tmp_path / "k.so")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.NoCompiler, match="no C compiler"):
        build.build(tmp_path / "k.so")
    assert list(tmp_path.iterdir()) == []


def test_no_vector_width_and_no_optimisation_changes_a_bit(compiled: Path, tmp_path: Path) -> None:
    """The clone that this CPU runs against plain code for the oldest one."""
    plain = build.build(tmp_path / "plain.so", extra=("-O1", "-DTCD_ONE_TARGET"))
    rng = np.random.default_rng(3)
    n = 64
    counts = np.empty((n, int(Length.FLAGS)), np.int64)
    counts[:, 0], counts[:, 1] = rng.integers(0, 301, n), rng.integers(0, 301, n)
    counts[:, 2], counts[:, 3], counts[:, 4] = 16, rng.integers(1, 113, n), rng.choice((3, 16, 40), n)
    windows = (
        -rng.exponential(2, (n, 300)).astype(np.float32),
        rng.exponential(2, (n, 300)).astype(np.float32),
        rng.exponential(20, (n, 16)).astype(np.float32),
        rng.normal(3, 10, (n, 112 * 40)).astype(np.float32),
    )
    one, other = (
        detector.statistics(kernels.open_library(path), windows, counts)[0].tobytes() for path in (compiled, plain)
    )
    assert len(one) == n * len(STATISTICS) * 8
    assert one == other
