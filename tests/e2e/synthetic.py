"""A labelled synthetic calibration that is large enough for a guarantee: for tests of the controller only."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tcd.calibration.assets import F64, Binding, DetectorAsset, MultivariateAsset
from tcd.calibration.store import default_asset_dir, load_assets, write_asset, write_manifest


def write_synthetic(directory: Path, *, sessions: int, seed: int = 0) -> None:
    """Write the demonstration assets with `sessions` made-up session maxima each; bound as the default key."""
    rng = np.random.default_rng(seed)
    demo = load_assets(default_asset_dir())
    assert demo.default is not None
    detector = next(iter(demo.detectors.values()))
    monitor = next(iter(demo.multivariates.values()))
    provenance = dataclasses.replace(
        detector.provenance, source="synthetic session maxima, for tests", n_sessions=sessions, demo=False
    )

    def maxima(like: F64) -> F64:
        return np.sort(rng.normal(like.mean(), like.std() + 1e-3, sessions))

    made: list[DetectorAsset | MultivariateAsset] = [
        dataclasses.replace(
            detector,
            provenance=provenance,
            masks={
                number: dataclasses.replace(mask, sessions=maxima(mask.sessions))
                for number, mask in detector.masks.items()
            },
        ),
        dataclasses.replace(monitor, provenance=provenance, sessions=maxima(monitor.sessions)),
    ]
    digests = [write_asset(directory, asset) for asset in made]
    policy = write_asset(directory, demo.routing[demo.policies[0]])
    binding = Binding(key=demo.default.key, level=2, detector=digests[0], multivariate=digests[1])
    write_manifest(directory, bindings=[binding], policies={0: policy}, projections=[], default=None)
