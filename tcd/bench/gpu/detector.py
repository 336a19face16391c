"""The detector of tensors: its bits against the host's, and from which batch on it would pay."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tcd import detector
from tcd.bench.gpu.agreement import Check
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import DETECTOR
from tcd.rows import Tensors, pack
from tcd.signals.device import to_device
from tcd.triton.perf import realistic_rows

_WINDOWS: Final = ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES")
_CONTROL: Final = ("LENGTHS", "KEY", "SUP")
#: Lengths of windows in the check of bits; those of a generation's age.
_LENGTHS: Final = (4, 20, 64, 150)


def _there(tensors: Tensors, device: str) -> list[Any]:
    return [*(to_device(tensors[name], device) for name in _WINDOWS), *(tensors[name] for name in _CONTROL)]


def _host(tensors: Tensors, assets: AssetSet) -> Tensors:
    trace, entropy, spectrum, features, lengths, key, sup = (tensors[name] for name in (*_WINDOWS, *_CONTROL))
    return detector.score(trace, entropy, spectrum, features, lengths, key, sup, assets)


def bits(device: str, rows: int) -> Check:
    """Whether every output of every row has the bits of `tcd.detector.score`."""
    score = importlib.import_module("tcd.detector.device").score
    assets, same, seen = load_assets(default_asset_dir()), 0, 0
    for window in _LENGTHS:
        made = realistic_rows(rows, window=window, seed=window)
        tensors = pack([replace(row, features=row.features[: min(window, 16)]) for row in made])
        want = _host(tensors, assets)
        found = {name: array.cpu().numpy() for name, array in score(*_there(tensors, device), assets).items()}
        for i in range(rows):
            same += all(found[t.name][i].tobytes() == want[t.name][i].tobytes() for t in DETECTOR.outputs)
        seen += rows
    return ("the detector of tensors has the host's bits", same == seen, f"{same} of {seen} rows the same")


def times(device: str, batches: Sequence[int], calls: int) -> list[dict[str, float]]:
    """Median ms of a batch of windows of 64 tokens: on the host, and on the device with windows at rest there."""
    torch: Any = importlib.import_module("torch")
    score = importlib.import_module("tcd.detector.device").score
    assets, out = load_assets(default_asset_dir()), []
    for rows in batches:
        tensors = pack(realistic_rows(rows, window=64))
        ways: dict[str, Callable[[], object]] = {
            "host": partial(_host, tensors, assets),
            "device": partial(score, *_there(tensors, device), assets),
        }
        line = {"rows": float(rows)}
        for name, call in ways.items():
            call()
            taken = []
            for _ in range(calls):
                began = time.perf_counter()
                call()
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                taken.append(time.perf_counter() - began)
            line[name] = sorted(taken)[len(taken) // 2] * 1e3
        out.append(line)
    return out
