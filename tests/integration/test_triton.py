"""The ensemble in a real Triton: every client, every batch size, hostile inputs, the same bits everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tcd import scoring
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import DIAGNOSE, DIAGNOSE_RAW, FUSED, Model, detector_key
from tcd.errors import ScoringError
from tcd.rows import ScoreRow, pack, unpack
from tcd.signals import start
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import InferenceClient, connect
from tcd.triton.launcher import TritonServer
from tcd.triton.wire import Tensors

pytestmark = pytest.mark.triton
KEY = detector_key("model0", "gpu0", "chat", "en", "default")


@pytest.fixture(scope="module")
def assets() -> AssetSet:
    return load_assets(default_asset_dir())


@pytest.fixture(params=["http", "grpc"])
async def client(request: pytest.FixtureRequest, triton_server: TritonServer) -> AsyncIterator[InferenceClient]:
    url = triton_server.http_url if request.param == "http" else f"grpc://{triton_server.grpc_url}"
    made = connect(url)
    yield made
    await made.close()


def rows(seed: int, n: int) -> list[ScoreRow]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        trace = int(rng.choice([0, 3, 16, 50, 64, 65, 200, 256, 700, 1500, 4096], p=[0.05, 0.05, *[0.1] * 9]))
        depth = int(rng.integers(0, 60))
        collapse = i % 3 == 0
        out.append(
            ScoreRow(
                trace=-rng.exponential(0.01 if collapse else 1.5, trace).astype(np.float32),
                entropy=rng.exponential(0.02 if collapse else 2.0, trace).astype(np.float32),
                spectrum=np.sort(rng.exponential(3.0, 16))[::-1].astype(np.float32)
                if i % 2
                else np.zeros(0, np.float32),
                features=rng.normal(size=(depth, 16)).astype(np.float32),
                key=KEY,
                alpha=0.02,
                controller=i % 4 != 0,
                sup=(float(rng.normal()), -1e300),
                base=(0.8, 0.95, 256.0, float(rng.random())),
            )
        )
    return out


def same(expected: Any, got: Any) -> None:
    assert set(expected) == set(got)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("n", [1, 7, 64, 200])
async def test_a_batch_has_the_bits_of_the_library(client: InferenceClient, assets: AssetSet, n: int) -> None:
    tensors = pack(rows(n, n))
    same(scoring.diagnose(tensors, assets), await client.infer(tensors, timeout=60))


@pytest.mark.parametrize("n", [1, 7, 200])
async def test_the_fused_model_has_the_ensembles_bits(client: InferenceClient, assets: AssetSet, n: int) -> None:
    tensors = pack(rows(n + 1, n))
    answers = [await client.infer(tensors, model=model, timeout=60) for model in (DIAGNOSE, FUSED)]
    same(scoring.diagnose(tensors, assets), answers[0])
    same(answers[0], answers[1])


async def test_each_row_has_the_same_bits_alone_and_in_any_batch(client: InferenceClient, assets: AssetSet) -> None:
    batch = rows(11, 200)
    library = scoring.diagnose(pack(batch), assets)
    answers: dict[int, list[Tensors]] = {}
    for size in (1, 7, 64, 200):
        chunks = [batch[i : i + size] for i in range(0, 200 if size > 1 else 40, size)]
        answers[size] = [await client.infer(pack(chunk), timeout=60) for chunk in chunks]
    for size, parts in answers.items():
        for name, array in library.items():
            joined = np.concatenate([p[name] for p in parts])
            assert joined.tobytes() == array[: len(joined)].tobytes(), (size, name)


@pytest.mark.parametrize(("model", "step"), [(DIAGNOSE, "tcd_detector"), (FUSED, "tcd_fused")])
async def test_requests_of_many_widths_meet_in_dynamic_batches_and_keep_their_bits(
    triton_server: TritonServer, assets: AssetSet, model: Model, step: str
) -> None:
    requests = [pack(rows(seed, 1 + seed % 3)) for seed in range(60)]
    assert len({r["TRACE"].shape[1] for r in requests}) == 4
    client = connect(triton_server.http_url, max_connections=64)
    try:
        for _ in range(20):  # how many wait while a batch is scored is up to the scheduler
            before = _executions(triton_server, step)
            answers = await asyncio.gather(*(client.infer(r, model=model, timeout=240) for r in requests))
            for request, answer in zip(requests, answers, strict=True):
                same(scoring.diagnose(request, assets), answer)
            # neighbours differ in width: without ragged batches nearly every request is an execution
            if _executions(triton_server, step) - before <= len(requests) // 3:
                return
    finally:
        await client.close()
    pytest.fail("requests of different widths were never batched together")


def call(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """What curl does: GET, or POST when there is a body."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", parts.path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _executions(server: TritonServer, model: str) -> int:
    _, reply = call(f"{server.http_url}/v2/models/{model}/stats")
    return int(json.loads(reply)["model_stats"][0]["execution_count"])


@pytest.mark.parametrize("model", [DIAGNOSE.name, FUSED.name])
async def test_the_micro_batcher_gives_each_caller_the_librarys_row(
    client: InferenceClient, assets: AssetSet, model: str
) -> None:
    batcher = MicroBatcher(client, model=model)
    batch = rows(5, 150)
    results = await asyncio.gather(*(batcher.score(r, timeout=60) for r in batch))
    expected = unpack(scoring.diagnose(pack(batch), assets))
    for got, want in zip(results, expected, strict=True):
        assert got.components.tobytes() == want.components.tobytes()
        assert (got.p_value, got.score, got.sup, got.status, got.route, got.trigger, got.assets) == (
            *(want.p_value, want.score, want.sup, want.status, want.route, want.trigger, want.assets),
        )
    assert batcher.stats.batches < 30
    assert await batcher.drain(timeout=60)


async def test_the_raw_ensemble_walks_a_session_with_the_librarys_bits(
    client: InferenceClient, assets: AssetSet
) -> None:
    rng = np.random.default_rng(3)
    prev = start(2, flags=1)
    common = {k: v for k, v in pack([ScoreRow(key=KEY, alpha=0.05)] * 2).items() if k in _names(DIAGNOSE_RAW)}
    for _ in range(70):
        tensors: Tensors = {
            "LOGITS": rng.normal(size=(2, 300)).astype(np.float32),
            "TOKEN": rng.integers(0, 300, (2, 1)).astype(np.int32),
            "HIDDEN": rng.normal(size=(2, 8, 32)).astype(np.float32),
            **common,
            **prev,
        }
        out = await client.infer(tensors, model=DIAGNOSE_RAW, timeout=60)
        same(scoring.diagnose_raw(tensors, assets), out)
        prev = {f"PREV_{k}": out[f"NEXT_{k}"] for k in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
    assert prev["PREV_LENGTHS"][0].tolist()[:2] == [70, 70]
    assert prev["PREV_TRACE"].shape == (2, 256)


async def test_hidden_states_may_be_absent(client: InferenceClient, assets: AssetSet) -> None:
    tensors: Tensors = {
        "LOGITS": np.zeros((1, 40), np.float32),
        "TOKEN": np.ones((1, 1), np.int32),
        "HIDDEN": np.zeros((1, 0, 0), np.float32),
        **{k: v for k, v in pack([ScoreRow()]).items() if k in _names(DIAGNOSE_RAW)},
        **start(1),
    }
    same(scoring.diagnose_raw(tensors, assets), await client.infer(tensors, model=DIAGNOSE_RAW, timeout=60))


def _names(model: Any) -> set[str]:
    return {t.name for t in model.inputs}


# --- the clients that users have


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient(triton_server: TritonServer, assets: AssetSet, kind: str) -> None:
    library: Any = tritonclient.http if kind == "http" else tritonclient.grpc
    address = triton_server.http_url.removeprefix("http://") if kind == "http" else triton_server.grpc_url
    tensors = pack(rows(2, 3))
    inputs = []
    for tensor in DIAGNOSE.inputs:
        item = library.InferInput(tensor.name, list(tensors[tensor.name].shape), tensor.dtype)
        item.set_data_from_numpy(tensors[tensor.name])
        inputs.append(item)
    with library.InferenceServerClient(address) as made:
        assert made.is_server_ready()
        result = made.infer("tcd_diagnose", inputs)
        same(scoring.diagnose(tensors, assets), {t.name: result.as_numpy(t.name) for t in DIAGNOSE.outputs})
        metadata = made.get_model_metadata("tcd_diagnose", **({} if kind == "http" else {"as_json": True}))
    assert [t["name"] for t in metadata["inputs"]] == [t.name for t in DIAGNOSE.inputs]


def plain(tensors: Tensors) -> dict[str, Any]:
    kinds = {t.name: t.dtype for t in DIAGNOSE.inputs}
    return {
        "inputs": [
            {"name": n, "datatype": kinds[n], "shape": list(a.shape), "data": a.reshape(-1).tolist()}
            for n, a in tensors.items()
        ]
    }


def post(server: TritonServer, body: Any) -> tuple[int, dict[str, Any]]:
    url = f"{server.http_url}/v2/models/tcd_diagnose/infer"
    status, reply = call(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return status, json.loads(reply)


def test_plain_json_as_curl_sends_it(triton_server: TritonServer, assets: AssetSet) -> None:
    tensors = pack(rows(4, 2))
    status, reply = post(triton_server, plain(tensors))
    assert status == 200
    expected = scoring.diagnose(tensors, assets)
    outputs = {o["name"]: o for o in reply["outputs"]}
    assert set(outputs) == set(expected)
    for name, output in outputs.items():
        got = np.array(output["data"], expected[name].dtype).reshape(output["shape"])
        np.testing.assert_array_equal(got, expected[name], err_msg=name)


def broken(case: str) -> dict[str, Any]:
    body = plain(pack([ScoreRow()]))
    inputs = {i["name"]: i for i in body["inputs"]}
    if case == "missing":
        body["inputs"].remove(inputs["SUP"])
    elif case == "unknown":
        body["inputs"].append({"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [0]})
    elif case == "dtype":
        inputs["ALPHA"]["datatype"] = "FP32"
    elif case == "dim":
        inputs["KEY"] |= {"shape": [1, 2], "data": [0, 0]}
    elif case == "rank":
        inputs["TRACE"] |= {"shape": [1, 8, 8]}
    elif case == "rows":
        inputs["ALPHA"] |= {"shape": [2, 1], "data": [0, 0]}
    elif case == "short":
        inputs["KEY"] |= {"data": [0]}
    elif case == "too_many_rows":
        body = plain(pack([ScoreRow()] * 257))
    return body


@pytest.mark.parametrize("case", ["missing", "unknown", "dtype", "dim", "rank", "rows", "short", "too_many_rows"])
def test_a_wrong_request_is_refused_and_the_server_stays_well(triton_server: TritonServer, case: str) -> None:
    status, reply = post(triton_server, broken(case))
    assert status == (500 if case == "short" else 400), reply  # Triton's own choice for data short of its shape
    assert reply["error"]
    assert post(triton_server, plain(pack([ScoreRow()])))[0] == 200


def test_a_wrong_request_over_grpc_is_invalid_argument(triton_server: TritonServer) -> None:
    item = tritonclient.grpc.InferInput("TRACE", [1, 4], "FP32")
    item.set_data_from_numpy(np.zeros((1, 4), np.float32))
    made = tritonclient.grpc.InferenceServerClient(triton_server.grpc_url)
    with made, pytest.raises(InferenceServerException) as error:
        made.infer("tcd_diagnose", [item])
    assert "INVALID_ARGUMENT" in str(error.value.status())


async def test_our_clients_say_what_was_refused(client: InferenceClient) -> None:
    tensors = pack([ScoreRow()] * 257)
    with pytest.raises(ScoringError, match="batch"):
        await client.infer(tensors, timeout=60)


async def test_values_that_are_not_numbers_are_answered_with_a_status(client: InferenceClient) -> None:
    tensors = pack([ScoreRow(trace=np.full(40, np.nan, np.float32), features=np.full((1, 16), np.inf, np.float32))] * 2)
    tensors["SUP"][:] = np.nan
    tensors["ALPHA"][:] = np.inf
    tensors["BASE"][:] = -np.inf
    outputs = await client.infer(tensors, timeout=60)
    assert (outputs["P_VALUE"] == 1).all()
    assert (outputs["STATUS"] != 0).all()
    assert (outputs["TRIGGER"] == 0).all()


# --- what surrounds inference


async def test_the_models_own_metrics_are_scraped(triton_server: TritonServer) -> None:
    client = connect(triton_server.http_url)
    await asyncio.sleep(0.6)
    await client.infer(pack(rows(0, 1)), timeout=60)  # counts go out with an execution: those of earlier tests too
    before = _metrics(triton_server)
    await client.infer(pack(rows(1, 9)), timeout=60)
    await asyncio.sleep(0.6)
    await client.infer(pack(rows(2, 1)), timeout=60)
    await client.close()
    after = _metrics(triton_server)
    for model in ("tcd_detector", "tcd_multivariate", "tcd_routing"):
        label = f'{{model="{model}"}}'
        assert after[f"tcd_model_rows_total{label}"] - before[f"tcd_model_rows_total{label}"] >= 10
        assert after[f"tcd_model_batch_rows_sum{label}"] - before[f"tcd_model_batch_rows_sum{label}"] == 10
        assert after[f"tcd_model_batch_rows_count{label}"] - before[f"tcd_model_batch_rows_count{label}"] == 2
        assert after[f"tcd_model_failures_total{label}"] == 0
    assert any(k.startswith('tcd_model_status_total{model="tcd_detector"') for k in after)


def _metrics(server: TritonServer) -> dict[str, float]:
    lines = call(server.metrics_url)[1].decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_loading_models_needs_the_key(triton_server: TritonServer) -> None:
    url = f"{triton_server.http_url}/v2/repository/index"
    assert call(url, b"{}")[0] == 403
    assert call(url, b"{}", {"admin-key": "guess"})[0] == 403
    status, reply = call(url, b"{}", triton_server.admin_headers)
    assert status == 200
    models = {m["name"]: m.get("state") for m in json.loads(reply)}
    assert models["tcd_diagnose"] == "READY"
