"""The short way of the models into the kernels: the library's bits, or a refusal; assets and keys that change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.contract import DETECTOR, DIAGNOSE, FUSED, MAX_BATCH, MULTIVARIATE, ROUTING, Model, Status
from tcd.native import library as kernels
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import diagnose
from tcd.triton.entry import Entry
from tests.unit.detector.hostile import KEYS, hostile_row, spoilt
from tests.unit.native.test_same_bits import ASSETS, assert_same_outputs

Make = Callable[[Model], Entry]


@pytest.fixture
def directory() -> AssetDirectory:
    return AssetDirectory(default_asset_dir())


@pytest.fixture
def make(compiled: Path, directory: AssetDirectory, monkeypatch: pytest.MonkeyPatch) -> Make:
    native = kernels.Loaded(kernels.open_library(compiled), str(compiled))
    # what is compared with is numpy
    monkeypatch.setattr(kernels, "loaded", lambda: kernels.Loaded(None, "test"))
    library = native.library
    assert library is not None
    return lambda model: Entry(library, model, directory, directory.current)


def inputs(model: Model, tensors: Tensors) -> Tensors:
    return {tensor.name: tensors[tensor.name] for tensor in model.inputs}


def by_steps(make: Make, tensors: Tensors, before: int = 0) -> Tensors:
    """The outputs of the ensemble by its three steps."""
    pool, n = dict(tensors), tensors["LENGTHS"].shape[0]
    for model in (DETECTOR, MULTIVARIATE, ROUTING):
        found = make(model)(inputs(model, pool), n, before)
        assert found is not None
        pool.update(found)
    return {tensor.name: pool[tensor.name] for tensor in DIAGNOSE.outputs}


def fused(make: Make, tensors: Tensors) -> Tensors:
    found = make(FUSED)(inputs(FUSED, tensors), tensors["LENGTHS"].shape[0])
    assert found is not None
    return {tensor.name: found[tensor.name] for tensor in DIAGNOSE.outputs}


@pytest.mark.parametrize("seed", range(4))
def test_any_batch_has_the_librarys_bits(make: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for n in (1, 2, 33, MAX_BATCH):
        tensors = spoilt(pack([hostile_row(rng, 0.2) for _ in range(n)]), rng)
        with np.errstate(all="ignore"):
            want = diagnose(tensors, ASSETS)
        assert_same_outputs(by_steps(make, tensors), want)
        assert_same_outputs(fused(make, tensors), want)


def test_requests_of_one_batch_keep_their_outputs(make: Make) -> None:
    rng = np.random.default_rng(1)
    entry, before, answers = make(FUSED), 0, []
    requests = [pack([hostile_row(rng, 0.0) for _ in range(n)]) for n in (3, 1, 7, 64)]
    for tensors in requests:
        n = tensors["LENGTHS"].shape[0]
        answers.append(entry(inputs(FUSED, tensors), n, before))
        before += n
    for tensors, answer in zip(requests, answers, strict=True):
        assert answer is not None
        assert_same_outputs({t.name: answer[t.name] for t in DIAGNOSE.outputs}, diagnose(tensors, ASSETS))


def wide(array: Any) -> Any:
    return np.repeat(array, 2, axis=1)[:, ::2]


UNSUITED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "no such dtype": ("TRACE", lambda a: a.astype(np.float64)),
    "byte order": ("ALPHA", lambda a: a.astype(">f8")),
    "signed key": ("KEY", lambda a: a.astype(np.int64)),
    "strided values": ("ENTROPY", wide),
    "strided counts": ("LENGTHS", wide),
    "one axis": ("SUP", lambda a: a.reshape(-1)),
    "three axes": ("FEATURES", lambda a: a.reshape(a.shape[0], -1, 1)),
    "a row less": ("POLICY", lambda a: a[:-1]),
    "another width": ("BASE", lambda a: a[:, :3]),
    "unaligned": (
        "SPECTRUM",
        lambda a: (
            np.frombuffer(b"\0" + np.ascontiguousarray(a).tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape)
        ),
    ),
}


@pytest.mark.parametrize("case", UNSUITED)
def test_what_the_kernels_do_not_read_is_left_to_the_general_way(make: Make, case: str) -> None:
    name, spoil = UNSUITED[case]
    tensors = pack([ScoreRow(trace=np.full(20, -1, np.float32))] * 3)
    tensors[name] = spoil(tensors[name])
    entry = make(FUSED)
    assert entry(inputs(FUSED, tensors), 3) is None
    del tensors[name]
    assert entry(tensors, 3) is None
    assert entry(inputs(FUSED, pack([ScoreRow()] * 3)), 3) is not None


def test_rows_beyond_a_batch_are_left_to_the_general_way(make: Make) -> None:
    tensors = pack([ScoreRow()] * (MAX_BATCH + 1))
    assert make(FUSED)(inputs(FUSED, tensors), MAX_BATCH + 1) is None
    assert make(FUSED)(inputs(FUSED, pack([ScoreRow()])), 1, MAX_BATCH) is None


def test_what_is_no_array_raises_and_the_models_go_the_general_way(make: Make) -> None:
    tensors: dict[str, Any] = pack([ScoreRow()])
    tensors["TRACE"] = "text"
    with pytest.raises(TypeError):
        make(DETECTOR)(inputs(DETECTOR, tensors), 1)


def test_rows_of_layouts_that_the_kernels_read(make: Make) -> None:
    rng = np.random.default_rng(2)
    tensors = pack([hostile_row(rng, 0.1) for _ in range(9)])
    for name in ("TRACE", "FEATURES"):
        tensors[name] = np.pad(tensors[name], ((0, 0), (0, 3)))[:, :-3]
        assert not tensors[name].flags.c_contiguous
    tensors["ENTROPY"] = np.zeros((9, 0), np.float32)
    with np.errstate(all="ignore"):
        assert_same_outputs(fused(make, tensors), diagnose(tensors, ASSETS))


def test_more_keys_than_are_remembered(make: Make) -> None:
    rng = np.random.default_rng(3)
    entry, distinct = make(FUSED), 0
    for _ in range(6):
        rows = [hostile_row(rng, 0.0) for _ in range(MAX_BATCH)]
        tensors = pack(rows)
        tensors["KEY"] = rng.integers(1, 2**63, tensors["KEY"].shape).astype(np.uint64)
        tensors["KEY"][::5] = np.array(KEYS[0], np.uint64)
        tensors["POLICY"] = rng.integers(0, 2**63, tensors["POLICY"].shape).astype(np.uint64)
        found = entry(inputs(FUSED, tensors), MAX_BATCH)
        assert found is not None
        with np.errstate(all="ignore"):
            assert_same_outputs({t.name: found[t.name] for t in DIAGNOSE.outputs}, diagnose(tensors, ASSETS))
        distinct += len(np.unique(tensors["KEY"], axis=0))
    assert distinct > 1000


def test_status_bits_are_counted(make: Make) -> None:
    entry = make(DETECTOR)
    tensors = pack([ScoreRow()] * 3 + [ScoreRow(trace=np.full(20, np.nan, np.float32))] * 2)
    entry(inputs(DETECTOR, tensors), 5)
    found = entry(inputs(DETECTOR, tensors), 5)
    assert found is not None
    wanted = [2 * int(((found["DETECTOR_STATUS"] >> bit) & 1).sum()) for bit in range(8)]
    assert entry.bits.tolist() == wanted
    assert wanted[int(np.log2(Status.ABSENT))] == 6
    assert wanted[int(np.log2(Status.NONFINITE))] == 4


def test_a_new_manifest_is_used_from_the_next_call_on(compiled: Path, tmp_path: Path) -> None:
    for file in default_asset_dir().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    directory = AssetDirectory(tmp_path)
    asked = []

    def current() -> Any:
        asked.append(1)
        return directory.current()

    entry = Entry(kernels.open_library(compiled), FUSED, directory, current)
    tensors = inputs(FUSED, pack([ScoreRow(trace=np.full(20, -1, np.float32), key=KEYS[0])]))

    def assets() -> list[int]:
        found = entry(tensors, 1)
        assert found is not None
        return [int(value) for value in found["ASSETS"][0]]

    before = assets()
    assert before[0]
    assert assets() == before
    assert len(asked) == 1
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    empty = '{"schema": "tcd-assets-1", "keys": [], "default": null, "policies": {}, "projections": []}'
    for content, wanted in ((empty, 0), (text, before[0]), ("{", before[0]), (empty, 0)):
        # as a promotion does it: another file under the name
        (tmp_path / "new").write_text(content)
        (tmp_path / "new").replace(manifest)
        assert assets()[0] == wanted
    manifest.unlink()
    assert assets()[0] == 0
    assert assets()[0] == 0
    assert len(asked) == 6
