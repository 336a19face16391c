"""`tcd perf` without perf_analyzer: its input, its sums, and the errors of getting the tool."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tcd.contract import DIAGNOSE
from tcd.errors import LauncherError
from tcd.triton.noop import NOOP_DIAGNOSE
from tcd.triton.perf import (
    PerfOptions,
    Point,
    Report,
    Target,
    as_table,
    input_json,
    measure,
    ratios,
    realistic_rows,
)
from tcd.triton.perf_tool import find


def test_the_input_has_every_tensor_of_every_row_in_one_shape() -> None:
    rows = realistic_rows(5, window=100)
    steps = json.loads(input_json(rows))["data"]
    assert len(steps) == 5
    shapes = {name: {tuple(s[name]["shape"]) for s in steps} for name in steps[0]}
    assert all(len(s) == 1 for s in shapes.values()), "rows of other shapes cannot share a client batch"
    assert set(shapes) == {t.name for t in DIAGNOSE.inputs}
    for tensor in DIAGNOSE.inputs:
        (shape,) = shapes[tensor.name]
        content = steps[3][tensor.name]["content"]
        assert len(content) == np.prod(shape)
        if tensor.dtype.startswith("FP"):
            assert all(type(v) is float for v in content), "perf_analyzer reads `12`as no float"
        else:
            assert all(type(v) is int for v in content)


def test_rows_are_seeded_and_some_collapse() -> None:
    a, b = realistic_rows(4, window=64, seed=1), realistic_rows(4, window=64, seed=1)
    assert all(x.trace.tobytes() == y.trace.tobytes() for x, y in zip(a, b, strict=True))
    assert a[3].entropy.mean() < a[0].entropy.mean() / 5


def point(model: str, batch: int, cpu: float | None, rate: float = 100.0) -> Point:
    return Point(model, batch, rate, 10.0, 20.0, cpu, 1000)


def test_ratios_are_ours_over_the_no_op_at_equal_batch() -> None:
    points = [
        point(NOOP_DIAGNOSE.name, 1, 10.0),
        point(DIAGNOSE.name, 1, 13.0, rate=80.0),
        point(DIAGNOSE.name, 32, 5.0),  # nothing to compare with
    ]
    assert ratios(points) == {1: {"throughput": 0.8, "p50": 1.0, "p99": 1.0, "cpu": 1.3}}
    remote = [point(NOOP_DIAGNOSE.name, 1, None), point(DIAGNOSE.name, 1, None)]
    assert "cpu" not in ratios(remote)[1]


def test_the_report_is_json_and_a_table() -> None:
    report = Report(PerfOptions(), (point(DIAGNOSE.name, 32, None),), {32: {"cpu": 1.1}})
    parsed = json.loads(report.to_json())
    assert parsed["points"][0]["model"] == "tcd_diagnose"
    assert parsed["ratios"]["32"]["cpu"] == 1.1
    assert as_table(report)[1] == ["tcd_diagnose", "32", "100", "0.01", "0.02", "-"]


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_wheel_is_unpacked_once_into_the_cache(tmp_path: Path) -> None:
    wheel = tmp_path / "t.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tritonclient-2.50.0.data/data/bin/perf_analyzer", "#!/bin/sh\necho 2.50\n")
    cache = tmp_path / "cache"
    tool = find(wheel=wheel, cache=cache)
    assert tool.binary == cache / "perf_analyzer"
    assert str(cache / "lib") in tool.env["LD_LIBRARY_PATH"]
    wheel.unlink()
    assert find(wheel=wheel, cache=cache).binary == tool.binary


@pytest.mark.parametrize("content", [b"no zip", None])
def test_a_wheel_without_the_tool_is_named(tmp_path: Path, content: bytes | None) -> None:
    wheel = tmp_path / "t.whl"
    if content is None:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("other", "x")
    else:
        wheel.write_bytes(content)
    with pytest.raises(LauncherError, match="remedy"):
        find(wheel=wheel, cache=tmp_path / "cache")


def test_a_fetch_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = script(tmp_path / "python", "echo 'ERROR: no route' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(LauncherError, match=r"no route; remedy: give --perf-analyzer or --wheel"):
        find(cache=tmp_path / "cache")


def test_a_binary_that_lacks_libraries_is_named(tmp_path: Path) -> None:
    broken = script(tmp_path / "pa", "echo 'pa: error while loading shared libraries: libb64.so.0d' >&2; exit 127")
    with pytest.raises(LauncherError, match=r"libb64\.so\.0d; remedy"):
        find(binary=broken, cache=tmp_path / "cache")
    with pytest.raises(LauncherError, match="does not start"):
        find(binary=tmp_path / "none", cache=tmp_path / "cache")


def test_no_server_is_a_clear_error(tmp_path: Path, unused_tcp_port: int) -> None:
    tool = find(binary=script(tmp_path / "pa", "exit 0"), cache=tmp_path / "cache")
    address = f"127.0.0.1:{unused_tcp_port}"
    with pytest.raises(LauncherError, match=r"no server answers.*tcd triton"):
        measure(tool, Target(address, address), PerfOptions())
