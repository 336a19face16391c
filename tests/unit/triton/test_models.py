"""The model classes without Triton: gathering, slicing, ragged widths, failures, metrics, assets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tcd import scoring
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import DETECTOR, DIAGNOSE, MODELS, MULTIVARIATE, ROUTING, SIGNALS, Model, Status, unpack_status
from tcd.rows import ScoreRow, pack
from tcd.signals import start, step
from tcd.triton import base
from tcd.triton.base import BatchModel, join
from tcd.triton.detector import Detector
from tcd.triton.fused import Fused
from tcd.triton.multivariate import Multivariate
from tcd.triton.noop import NOOP_MODELS, Noop
from tcd.triton.routing import Routing
from tcd.triton.signals import Signals
from tcd.triton.wire import DTYPES, Tensors

CLASSES: dict[str, type[BatchModel]] = {
    "tcd_signals": Signals,
    "tcd_detector": Detector,
    "tcd_multivariate": Multivariate,
    "tcd_routing": Routing,
    "tcd_fused": Fused,
}


def config(model: Model) -> dict[str, str]:
    outputs = [
        {"name": t.name, "data_type": f"TYPE_{t.dtype}", "dims": [str(d) for d in t.dims]} for t in model.outputs
    ]
    return {
        "model_config": json.dumps({"output": outputs, "max_batch_size": 256}),
        "model_instance_kind": "CPU",
    }


def loaded(kind: type[BatchModel]) -> Any:
    model = kind()
    model.initialize(config(kind.model))
    return model


@pytest.fixture(scope="module")
def assets() -> AssetSet:
    return load_assets(default_asset_dir())


def rows(seed: int, n: int) -> list[ScoreRow]:
    """Rows of many widths, some of them empty or short."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        trace, entropy = rng.choice([0, 5, 40, 64, 65, 300, 1100], 2)
        feature_rows = int(rng.integers(0, 40))
        out.append(
            ScoreRow(
                trace=-rng.exponential(1.0, trace).astype(np.float32),
                entropy=rng.exponential(1.0, entropy).astype(np.float32),
                spectrum=rng.exponential(1.0, rng.integers(0, 20)).astype(np.float32),
                features=rng.normal(size=(feature_rows, 16)).astype(np.float32),
                alpha=0.01,
                controller=True,
            )
        )
    return out


def ensemble(pb: Any, requests: list[Tensors]) -> list[dict[str, Any]]:
    """What Triton does with the three steps, all requests in one dynamic batch."""
    pools = [dict(r) for r in requests]
    for kind in (Detector, Multivariate, Routing):
        model = loaded(kind)
        responses = model.execute([pb.request({t.name: p[t.name] for t in kind.model.inputs}) for p in pools])
        for pool, response in zip(pools, responses, strict=True):
            pool.update(pb.tensors(response))
    return [{t.name: p[t.name] for t in DIAGNOSE.outputs} for p in pools]


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        assert (array.dtype, array.shape) == (b[name].dtype, b[name].shape), name
        assert array.tobytes() == np.ascontiguousarray(b[name]).tobytes(), name


def test_ragged_requests_of_one_dynamic_batch_have_the_bits_of_the_library_alone(pb: Any, assets: AssetSet) -> None:
    batches = [pack(rows(seed, n)) for seed, n in ((1, 1), (2, 3), (3, 1), (4, 17), (5, 1))]
    assert len({b["TRACE"].shape[1] for b in batches}) > 1
    for tensors, outputs in zip(batches, ensemble(pb, batches), strict=True):
        same(scoring.diagnose(tensors, assets), outputs)


@pytest.mark.parametrize(
    ("column", "count"), [(0, 65), (1, 100), (2, 4096), (3, 300), (4, 257), (0, -1), (3, -7), (0, 2**31 - 1)]
)
def test_a_count_beyond_the_requests_own_width_is_bad_input_whatever_its_neighbours_are(
    pb: Any, column: int, count: int
) -> None:
    wrong = pack([ScoreRow(trace=np.ones(30, np.float32), features=np.ones((1, 16), np.float32))])
    wrong["LENGTHS"][0, column] = count
    full = np.ones(4096, np.float32)
    wide = pack([ScoreRow(trace=full, entropy=full, spectrum=full)])
    wide["FEATURES"] = np.ones((1, 16384), np.float32)
    alone = ensemble(pb, [wrong])[0]
    beside = ensemble(pb, [wide, wrong, wide])[1]
    same(alone, beside)
    assert unpack_status(int(alone["STATUS"][0, 0]))[0] & Status.BAD_INPUT
    assert alone["P_VALUE"][0, 0] == 1.0


def test_widths_beyond_the_contract_are_cut_and_their_counts_bad(pb: Any) -> None:
    tensors = pack([ScoreRow()])
    tensors["TRACE"] = np.ones((1, 9000), np.float32)
    tensors["LENGTHS"][0, 0] = 9000
    out = ensemble(pb, [tensors])[0]
    assert unpack_status(int(out["STATUS"][0, 0]))[0] & Status.BAD_INPUT
    good = pack([ScoreRow(trace=np.full(40, -1, np.float32))])
    padded = dict(good)
    padded["TRACE"] = np.pad(good["TRACE"], ((0, 0), (0, 9000)))
    same(ensemble(pb, [good])[0], ensemble(pb, [padded])[0])


def test_nothing_raises_and_everything_is_finite_for_hostile_values(pb: Any) -> None:
    rng = np.random.default_rng(7)
    tensors = pack(rows(7, 40))
    for name in ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES", "ALPHA", "SUP", "BASE"):
        array = tensors[name]
        flat = array.reshape(-1)
        hit = rng.integers(0, flat.size, 40)
        flat[hit] = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45], flat.dtype), 40)
    tensors["LENGTHS"] = rng.integers(-(2**31), 2**31 - 1, tensors["LENGTHS"].shape).astype(np.int32)
    tensors["LENGTHS"][:20] = pack(rows(7, 40))["LENGTHS"][:20]
    out = ensemble(pb, [tensors])[0]
    for tensor in DIAGNOSE.outputs:
        array = out[tensor.name]
        assert array.shape == (40, *tensor.dims)
        assert array.dtype == DTYPES[tensor.dtype]
        assert np.isfinite(array.astype(np.float64)).all(), tensor.name


@pytest.mark.parametrize("kind", [Detector, Multivariate, Routing])
def test_a_batch_that_raises_is_retried_row_by_row_and_only_the_bad_row_fails(
    pb: Any, kind: type[BatchModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(kind)
    model.entry = None
    real = model.compute
    calls = []

    def compute(inputs: Tensors, assets: AssetSet) -> Any:
        calls.append(len(inputs["LENGTHS"]))
        if (inputs["LENGTHS"][:, 5] == 6).any():
            raise ZeroDivisionError
        return real(inputs, assets)

    monkeypatch.setattr(model, "compute", compute)
    tensors = pack(rows(9, 5))
    pool = {**tensors, **_intermediate(tensors)}
    clean = pb.tensors(loaded(kind).execute([pb.request({t.name: pool[t.name] for t in kind.model.inputs})])[0])
    pool["LENGTHS"][3, 5] = 6
    response = model.execute([pb.request({t.name: pool[t.name] for t in kind.model.inputs})])[0]
    out = pb.tensors(response)
    assert calls == [5, 1, 1, 1, 1, 1]
    status = next(a for n, a in out.items() if n.endswith("STATUS"))[:, 0]
    failed = int(Status.FAILED) << (16 if kind is Routing else 0)
    assert [bool(s & failed) for s in status] == [False, False, False, True, False]
    for name, array in out.items():
        assert np.isfinite(array.astype(np.float64)).all()
        assert array[:3].tobytes() == clean[name][:3].tobytes()
    p = next(a for n, a in out.items() if n.endswith("_P") or n == "P_VALUE")
    assert (p[3] == 1).all()
    model.finalize()
    mine = [(n, m) for n, m in pb.metrics if m.labels["model"] == kind.model.name]
    assert sum(m.value for n, m in mine if n == "tcd_model_failures_total") == 1
    assert sum(m.value for n, m in mine if n == "tcd_model_status_total" and m.labels["status"] == "failed") == 1


def _intermediate(tensors: Tensors) -> Tensors:
    n = len(tensors["LENGTHS"])
    names = {t.name for t in DIAGNOSE.inputs}
    return {t.name: np.ones((n, *t.dims), DTYPES[t.dtype]) for t in ROUTING.inputs if t.name not in names}


def test_an_output_that_is_not_finite_counts_as_a_failure(pb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(Multivariate)
    model.entry = None
    poisoned = dict(model.failed(pack([ScoreRow()])))
    poisoned["MV"] = np.full((1, 4), np.nan)
    monkeypatch.setattr(model, "compute", lambda *_: poisoned)
    inputs = {t.name: pack([ScoreRow()])[t.name] for t in MULTIVARIATE.inputs}
    out = pb.tensors(model.execute([pb.request(inputs)])[0])
    assert out["MULTIVARIATE_STATUS"].tolist() == [[int(Status.FAILED)]]
    assert np.isfinite(out["MV"]).all()


def test_metrics_are_those_of_a_histogram_and_go_out_together(pb: Any) -> None:
    model = loaded(Detector)
    requests = [pb.request({t.name: pack(rows(1, n))[t.name] for t in DETECTOR.inputs}) for n in (3, 4)]
    model.execute(requests)
    model.execute(requests[:1])
    model.finalize()
    label = {"model": "tcd_detector"}
    assert pb.metric("tcd_model_batch_rows_count", **label).value == 2
    assert pb.metric("tcd_model_batch_rows_sum", **label).value == 10
    within = {"1": 0, "2": 0, "4": 1, "8": 2, "16": 2, "256": 2, "+Inf": 2}
    for le, executions in within.items():
        assert pb.metric("tcd_model_batch_rows_bucket", le=le, **label).value == executions
    assert pb.metric("tcd_model_rows_total", model="tcd_detector").value == 10


def raw(seed: int, n: int, *, vocabulary: int = 50, window: int = 8, steps: int = 1) -> Tensors:
    """Inputs of tcd_signals after `steps` steps of a session."""
    rng = np.random.default_rng(seed)
    prev = start(n, flags=1)
    assets = load_assets(default_asset_dir())
    for _ in range(steps):
        tensors: Tensors = {
            "LOGITS": rng.normal(size=(n, vocabulary)).astype(np.float32),
            "TOKEN": rng.integers(0, vocabulary, (n, 1)).astype(np.int32),
            "HIDDEN": rng.normal(size=(n, window, 24)).astype(np.float32),
            **prev,
        }
        out = step(tensors, assets)
        prev = {f"PREV_{k}": out[f"NEXT_{k}"] for k in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
    return {**tensors, "KEY": np.zeros((n, 3), np.uint64)}


def test_signals_of_other_vocabularies_and_windows_share_a_batch_without_meeting(pb: Any, assets: AssetSet) -> None:
    model = loaded(Signals)
    batches = [
        raw(1, 2),
        raw(2, 1, vocabulary=70),
        raw(3, 1, steps=70),
        raw(4, 1, window=5),
        raw(5, 1, steps=20),
    ]
    responses = model.execute([pb.request(b) for b in batches])
    for tensors, response in zip(batches, responses, strict=True):
        same(dict(step(tensors, assets)), pb.tensors(response))


def test_signals_counts_beyond_their_own_window_stay_bad_beside_wider_ones(pb: Any) -> None:
    model = loaded(Signals)
    wrong = raw(1, 1)
    wrong["PREV_LENGTHS"] = np.array([[65, 65, 0, 0, 0, 1]], np.int32)
    marked = raw(1, 1)
    marked["PREV_LENGTHS"] = ~wrong["PREV_LENGTHS"]
    for tensors in (wrong, marked):
        alone = pb.tensors(model.execute([pb.request(tensors)])[0])
        beside = pb.tensors(model.execute([pb.request(raw(3, 1, steps=70)), pb.request(tensors)])[1])
        same(alone, beside)
        assert (alone["NEXT_LENGTHS"][0, :4] < 0).all()


def test_signals_that_raise_answer_windows_that_the_monitors_refuse(pb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(Signals)
    monkeypatch.setattr(model, "compute", lambda *_: None)
    out = pb.tensors(model.execute([pb.request(raw(1, 2))])[0])
    tensors = {**pack([ScoreRow(), ScoreRow()])}
    tensors |= {"TRACE": out["NEXT_TRACE"], "ENTROPY": out["NEXT_ENTROPY"], "SPECTRUM": out["SPECTRUM"]}
    tensors |= {"FEATURES": out["NEXT_FEATURES"], "LENGTHS": out["NEXT_LENGTHS"]}
    scored = ensemble(pb, [tensors])[0]
    assert all(unpack_status(int(s))[0] & Status.BAD_INPUT for s in scored["STATUS"][:, 0])
    assert out["NEXT_LENGTHS"][:, 5].tolist() == [1, 1]


class GpuTensor:
    """A Triton tensor on a GPU: as_numpy raises, DLPack works (here through a CPU tensor of torch)."""

    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return False

    def as_numpy(self) -> None:
        raise RuntimeError

    def to_dlpack(self) -> Any:
        from torch import from_numpy  # noqa: PLC0415 - only this test pays for torch

        return from_numpy(self._array).__dlpack__()


def test_inputs_on_the_gpu_are_fetched_through_dlpack() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(base._read(GpuTensor("TRACE", array), stays=False), array)


def test_logits_and_hidden_states_stay_on_the_gpu(pb: Any) -> None:
    """Requests of both kinds in one dynamic batch: each answers what it answers alone, and they agree to rounding."""
    rng = np.random.default_rng(4)

    def request(rows: int, *, gpu: bool) -> Any:
        tensors: dict[str, Any] = {
            "LOGITS": rng.normal(0, 3, (rows, 300)).astype(np.float32),
            "TOKEN": rng.integers(0, 300, (rows, 1)).astype(np.int32),
            "HIDDEN": rng.normal(0, 2, (rows, 32, 576)).astype(np.float32),
            **start(rows),
            "KEY": np.zeros((rows, 3), np.uint64),
        }
        kinds = {name: GpuTensor if gpu and name in Signals.resident else pb.Tensor for name in tensors}
        inputs = [kinds[name](name, array) for name, array in tensors.items()]
        return SimpleNamespace(inputs=lambda: inputs), tensors

    made = [request(2, gpu=True), request(1, gpu=False), request(3, gpu=True), request(2, gpu=False)]
    model = loaded(Signals)
    together = [pb.tensors(response) for response in model.execute([r for r, _ in made])]
    for (single, tensors), answered in zip(made, together, strict=True):
        (alone,) = (pb.tensors(response) for response in model.execute([single]))
        host = step(tensors, load_assets(default_asset_dir()))
        for name, array in alone.items():
            assert array.tobytes() == answered[name].tobytes(), name
            np.testing.assert_allclose(array, host[name], rtol=1e-5, atol=1e-5)


def test_join_pads_every_axis_and_keeps_dtypes() -> None:
    parts: list[Any] = [np.ones((2, 1, 3), np.uint64), np.ones((1, 2, 1), np.uint64)]
    out = join(parts)
    assert out.shape == (3, 2, 3)
    assert out.dtype == np.uint64
    assert out.sum() == 6 + 2
    assert join(parts[:1]) is parts[0]


def test_a_changed_manifest_is_read_and_a_broken_one_refused_once(
    pb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in default_asset_dir().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("TCD_ASSETS", str(tmp_path))
    model = loaded(Detector)
    request = pb.request({t.name: pack(rows(1, 2))[t.name] for t in DETECTOR.inputs})
    before = pb.tensors(model.execute([request])[0])
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    manifest.write_text("{")
    for _ in range(3):
        same(before, pb.tensors(model.execute([request])[0]))
    model.finalize()
    assert pb.metric("tcd_model_failures_total").value == 1
    manifest.write_text(text)
    same(before, pb.tensors(model.execute([request])[0]))


def test_a_model_without_assets_does_not_load(pb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCD_ASSETS", str(tmp_path))
    with pytest.raises(Exception, match="manifest"):
        loaded(Detector)


def test_a_config_that_is_not_the_contracts_does_not_load(pb: Any) -> None:
    with pytest.raises(RuntimeError, match="pbtxt"):
        Detector().initialize(config(MULTIVARIATE))


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_of_a_model_has_its_contract(name: str) -> None:
    assert CLASSES[name].model is MODELS[name]
    assert CLASSES[name]().is_ready()


def test_the_no_op_answers_the_same_tensors(pb: Any) -> None:
    for model in NOOP_MODELS[:-1]:
        noop = Noop()
        noop.initialize(config(model))
        request = pb.request({t.name: np.zeros((3, 4), DTYPES[t.dtype]) for t in model.inputs})
        out = pb.tensors(noop.execute([request])[0])
        assert {n: (a.shape, a.dtype) for n, a in out.items()} == {
            t.name: ((3, *t.dims), DTYPES[t.dtype]) for t in model.outputs
        }
    assert SIGNALS.name not in {m.name for m in NOOP_MODELS}


def test_large_batches_from_the_host_go_to_the_instances_gpu_and_small_ones_stay(
    pb: Any, monkeypatch: pytest.MonkeyPatch, assets: AssetSet
) -> None:
    monkeypatch.setenv("TCD_GPU_BREAK_EVEN", "150")
    on_cpu = loaded(Signals)
    assert on_cpu.gpu == ""
    model: Any = Signals()
    model.initialize({**config(SIGNALS), "model_instance_kind": "GPU", "model_instance_device_id": "1"})
    assert (model.gpu, model.break_even) == ("cuda:1", 150)
    # there is none here: torch's own CPU device stands for it
    model.gpu = "cpu"
    small, large = raw(1, 2), raw(2, 3)
    assert isinstance(model.placed(small)["LOGITS"], np.ndarray)
    moved: dict[str, Any] = model.placed(large)
    assert not isinstance(moved["LOGITS"], np.ndarray)
    assert not isinstance(moved["HIDDEN"], np.ndarray)
    assert moved["TOKEN"] is large["TOKEN"]
    for tensors in (small, large):
        answered = pb.tensors(model.execute([pb.request(tensors)])[0])
        for name, array in step(tensors, assets).items():
            np.testing.assert_allclose(answered[name], array, rtol=1e-5, atol=1e-5)
