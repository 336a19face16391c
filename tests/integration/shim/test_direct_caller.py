"""A caller of its own: reserve over HTTP, tritonclient against the real ensemble, settle; same bits as the shim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton_http

from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.inputs import inputs_digest
from tcd.rows import ScoreRow, pack
from tcd.scoring import LibraryScorer
from tcd.triton.launcher import TritonServer
from tests.integration.shim.test_shim_triton import client_of, make_app

pytestmark = pytest.mark.triton


def infer(client: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """One row through `tcd_diagnose` with the public client; outputs as flat lists by tensor name."""
    kinds = {"float32": "FP32", "float64": "FP64", "int32": "INT32", "uint64": "UINT64"}
    inputs = []
    for name, array in tensors.items():
        tensor = triton_http.InferInput(name, list(array.shape), kinds[str(array.dtype)])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = client.infer("tcd_diagnose", inputs)
    names = [output["name"] for output in result.get_response()["outputs"]]
    return {name: result.as_numpy(name).reshape(-1).tolist() for name in names}


async def test_reserve_infer_settle(triton_server: TritonServer) -> None:
    app = make_app(LibraryScorer(AssetDirectory(default_asset_dir()).current()))
    triton = triton_http.InferenceServerClient(triton_server.http_url.removeprefix("http://"))
    rng = np.random.default_rng(5)
    trace: list[float] = []
    who = {"session": "direct", "temperature": 0.7}
    async with client_of(app) as shim:
        for step in range(6):
            trace.append(float(-rng.exponential()))
            value = {"signals": ["trace"], "tokens": step + 1, "tokens_delta": 1, **who}
            reply = await shim.post("/v1/reserve", json=value)
            assert reply.status_code == 200, reply.text
            reserved = reply.json()
            assert (reserved["cost"] > 0) is (reserved["controller"] and step == 0)
            row = ScoreRow(
                trace=np.array(trace, np.float32),
                key=tuple(reserved["key"]),
                policy=reserved["policy"],
                alpha=reserved["alpha"],
                sup=tuple(reserved["sup"]),
                base=tuple(reserved["base"]),
                controller=reserved["controller"],
            )
            tensors = pack([row])
            assert int(tensors["LENGTHS"][0, 5]) == reserved["flags"]
            outputs = infer(triton, tensors)
            settled = await shim.post(
                "/v1/settle",
                json={
                    "reservation": reserved["reservation"],
                    "inputs": inputs_digest(tensors),
                    "sup": reserved["sup"],
                    "outputs": outputs,
                    "step_id": step,
                    "tokens": step + 1,
                },
            )
            assert settled.status_code == 200, settled.text
            answer = settled.json()
            through = await shim.post(
                "/diagnose",
                json={
                    "trace_vector": trace[-1:],
                    "tokens_delta": 1,
                    "session": "through",
                    "context": {"temperature": 0.7},
                },
            )
            same = through.json()
            for name in ("score", "p_value", "trigger", "verdict", "action"):
                assert answer[name] == same[name], name
            assert inputs_digest(row) == inputs_digest(tensors)
            forged = {**outputs, "P_VALUE": [0.0], "TRIGGER": [1 - outputs["TRIGGER"][0]]}
            again = await shim.post(
                "/v1/settle",
                json={
                    "reservation": reserved["reservation"],
                    "inputs": inputs_digest(tensors),
                    "sup": reserved["sup"],
                    "outputs": forged,
                },
            )
            assert again.status_code == 409
