"""Building and loading the kernels: what is refused, what is said, and that no vector width changes a bit."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration import default_asset_dir, load_assets
from tcd.native import build, detector, multivariate
from tcd.native import library as kernels
from tcd.rows import Tensors, pack
from tests.unit.detector.hostile import hostile_row


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


def widths() -> list[str]:
    """The oldest CPU, and AVX2 where this one has it: the clone that it chooses may be a wider one."""
    info = Path("/proc/cpuinfo")
    return ["-O1", "-mavx2"] if info.exists() and " avx2 " in info.read_text() else ["-O1"]


@pytest.mark.parametrize("option", widths())
def test_no_vector_width_and_no_optimisation_changes_a_bit(compiled: Path, tmp_path: Path, option: str) -> None:
    """The clone that this CPU chooses against code for another one: all that the three steps answer."""
    plain = build.build(tmp_path / "plain.so", extra=(option, "-DTCD_ONE_TARGET"))
    rng = np.random.default_rng(3)
    tensors = pack([hostile_row(rng, 0.05) for _ in range(128)])
    one, other = (
        {name: array.tobytes() for name, array in answers(kernels.open_library(path), tensors).items()}
        for path in (compiled, plain)
    )
    assert one == other


def answers(library: ctypes.CDLL, tensors: Tensors) -> Tensors:
    assets = load_assets(default_asset_dir())
    found = detector.score(library, tensors, assets)
    return {**found, **multivariate.score(library, tensors, assets)}


def test_the_clones_are_compared_on_rows_that_have_evidence(compiled: Path) -> None:
    rng = np.random.default_rng(3)
    found = answers(kernels.open_library(compiled), pack([hostile_row(rng, 0.05) for _ in range(128)]))
    assert int((np.asarray(found["DETECTOR_P"], np.float64)[:, 0] < 1.0).sum()) > 30
    assert int((np.asarray(found["MV"], np.float64)[:, 0] > 0.0).sum()) > 30
