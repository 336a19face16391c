"""Cost of a request by window, batch and width of the features, beside the no-op ensemble's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.bench.ensemble.peers import Load, cpu
from tcd.calibration.assets import Asset, Binding, DetectorAsset, MultivariateAsset
from tcd.calibration.store import default_asset_dir, load_assets, write_asset, write_manifest
from tcd.contract import DIAGNOSE
from tcd.rows import ScoreRow
from tcd.triton.noop import NOOP_DIAGNOSE
from tcd.triton.perf import realistic_rows

WINDOWS: Final = (16, 64, 256, 1024, 4096)
SIZES: Final = (1, 4, 16, 64, 128, 256)
FEATURES: Final = (4, 16, 64, 256)
_BATCH: Final = 32
_VECTORS: Final = 16


def key_of(width: int) -> tuple[int, int, int]:
    """The key whose assets are for feature vectors of this width; 16 has the default's."""
    return (width, 0, 0) if width != 16 else (0, 0, 0)  # noqa: PLR2004 - the width of tcd's own features


def write_assets(directory: Path) -> None:
    """The demonstration assets, and stand-ins of every width: for time, not for truth."""
    assets = load_assets(default_asset_dir())
    default = assets.default
    assert default is not None  # noqa: S101 - the demonstration assets answer every key
    detector, reference = assets.detector((0, 0, 0))[0], assets.multivariate((0, 0, 0))[0]
    assert isinstance(detector, DetectorAsset)  # noqa: S101
    assert isinstance(reference, MultivariateAsset)  # noqa: S101
    bindings = []
    for width in FEATURES:
        if key_of(width) == (0, 0, 0):
            continue
        square = np.eye(width)
        made = replace(reference, mean=np.zeros(width), cholesky=square)
        digests = [write_asset(directory, asset) for asset in (replace(detector, features=width), made)]
        bindings.append(Binding(width, 1, *digests))
    shipped: list[Asset] = [detector, reference, *assets.routing.values()]
    for asset in shipped:
        write_asset(directory, asset)
    write_manifest(directory, bindings=bindings, default=default, policies=dict(assets.policies))


def _rows(n: int, window: int, width: int) -> list[ScoreRow]:
    rng = np.random.default_rng(width)
    return [
        replace(row, key=key_of(width), features=rng.normal(size=(_VECTORS, width)).astype(np.float32))
        for row in realistic_rows(n, window=window)
    ]


def measure(load: Load, *, windows: Sequence[int], sizes: Sequence[int], features: Sequence[int]) -> dict[str, Any]:
    """CPU and latency of a request of both ensembles, one of the three numbers growing.

    Raises:
        LauncherError: perf_analyzer failed.
    """
    plans = {
        "window": [(w, _BATCH, 16) for w in windows],
        "batch": [(64, b, 16) for b in sizes],
        "features": [(64, _BATCH, d) for d in features],
    }
    out: dict[str, Any] = {}
    for name, plan in plans.items():
        lines = []
        for at, (window, batch, width) in zip((windows, sizes, features)[list(plans).index(name)], plan, strict=True):
            rows = _rows(max(batch, 32), window, width)
            line: dict[str, Any] = {name: at}
            for model in (NOOP_DIAGNOSE, DIAGNOSE):
                point = load.point(model, rows, batch=batch)
                line[model.name] = {
                    "cpu_us_per_request": cpu(point) * batch,
                    "p50_us": point.p50_us,
                    "p99_us": point.p99_us,
                    "rows_per_second": point.rows_per_second,
                }
            lines.append(line)
        out[name] = lines
    return out
