"""The server on a GPU host: where its models run, what it answers, and what its log says of its memory pools."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from tcd.bench.gpu.agreement import DECISIONS, Check
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import DIAGNOSE_RAW
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import diagnose_raw
from tcd.signals import start
from tcd.triton.client import connect
from tcd.triton.launcher import DEFAULT_MODELS, LaunchOptions, TritonServer

_STEPS = ("tcd_signals", "tcd_detector", "tcd_multivariate", "tcd_routing")
#: What the log says when a pool was too small: outputs are then wrong or empty.
POOL_ERRORS = ("CNMEM_STATUS_OUT_OF_MEMORY", "failed to copy data", "failed to allocate pinned")
_BATCHES = (1, 16, 64)


def _inputs(rows: int, vocabulary: int, width: int) -> Tensors:
    rng = np.random.default_rng(rows)
    common = pack([ScoreRow(alpha=0.05, controller=True)] * rows)
    names = {tensor.name for tensor in DIAGNOSE_RAW.inputs}
    return {
        "LOGITS": rng.normal(0, 3, (rows, vocabulary)).astype(np.float32),
        "TOKEN": rng.integers(0, vocabulary, (rows, 1)).astype(np.int32),
        "HIDDEN": rng.normal(size=(rows, 32, width)).astype(np.float32),
        **{name: array for name, array in common.items() if name in names},
        **start(rows, flags=1),
    }


def _kinds(url: str) -> dict[str, str]:
    kinds = {}
    for model in _STEPS:
        with urllib.request.urlopen(f"{url}/v2/models/{model}/config", timeout=10) as reply:  # noqa: S310 - our own server
            kinds[model] = str(json.load(reply)["instance_group"][0]["kind"])
    return kinds


def measure(vocabulary: int, width: int, break_even: int) -> dict[str, Any]:
    """Start the server with the break-even that was measured, compare its answers with the library's, time them.

    Raises:
        LauncherError: it does not start.
    """
    assets = load_assets(default_asset_dir())
    with tempfile.TemporaryDirectory(prefix="tcd-gpu-") as place:
        log = Path(place) / "triton.log"
        options = LaunchOptions(
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            models=DEFAULT_MODELS,
            log_path=log,
            restrict_admin=False,
            gpu_break_even=break_even,
        )
        differ, rows_seen, ms = 0, 0, {}
        with TritonServer(options) as server:
            kinds = _kinds(server.http_url)

            async def ask(tensors: Tensors) -> tuple[Tensors, float]:
                client = connect(server.http_url)
                taken = []
                for _ in range(10):
                    began = time.perf_counter()
                    out = await client.infer(tensors, model=DIAGNOSE_RAW, timeout=60.0)
                    taken.append(time.perf_counter() - began)
                await client.close()
                return out, sorted(taken)[len(taken) // 2] * 1e3

            for rows in _BATCHES:
                tensors = _inputs(rows, vocabulary, width)
                out, ms[str(rows)] = asyncio.run(ask(tensors))
                want = diagnose_raw(tensors, assets)
                differ += int(np.any([(out[n] != want[n]).any(axis=1) for n in DECISIONS], axis=0).sum())
                rows_seen += rows
        text = log.read_text(errors="replace")
    return {
        "kinds": kinds,
        "break_even": break_even,
        "differ": differ,
        "rows": rows_seen,
        "ms_per_request": ms,
        "pool_errors": [line for line in text.splitlines() if any(word in line for word in POOL_ERRORS)][:5],
    }


def checks(found: dict[str, Any]) -> list[Check]:
    """What has to hold of the server."""
    on_gpu = all(kind == "KIND_GPU" for kind in found["kinds"].values())
    return [
        ("KIND_AUTO put the models on the GPU", on_gpu, ", ".join(f"{m} {k}" for m, k in found["kinds"].items())),
        (
            "the server decides as the library",
            found["differ"] == 0,
            f"{found['differ']} of {found['rows']} rows differ",
        ),
        (
            "no memory pool was too small",
            not found["pool_errors"],
            "; ".join(found["pool_errors"]) or "nothing in the log",
        ),
    ]
