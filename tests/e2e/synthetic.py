"""A labelled synthetic calibration that is large enough for a guarantee: for tests of the controller only."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tcd.calibration.assets import F64, Binding, DetectorAsset, MultivariateAsset
from tcd.calibration.store import default_asset_dir, load_assets, write_asset, write_manifest


def write_synthetic(directory: Path, *, detector_maxima: F64, multivariate_maxima: F64) -> None:
    """Write the demonstration assets with session maxima of made-up sessions, bound to their model's key."""
    demo = load_assets(default_asset_dir())
    assert demo.default is not None
    detector = next(iter(demo.detectors.values()))
    monitor = next(iter(demo.multivariates.values()))
    provenance = dataclasses.replace(
        detector.provenance, source="synthetic sessions, for tests", n_sessions=len(detector_maxima), demo=False
    )
    masks = {
        number: dataclasses.replace(mask, sessions=np.sort(detector_maxima)) for number, mask in detector.masks.items()
    }
    made: list[DetectorAsset | MultivariateAsset] = [
        dataclasses.replace(detector, provenance=provenance, masks=masks),
        dataclasses.replace(monitor, provenance=provenance, sessions=np.sort(multivariate_maxima)),
    ]
    digests = [write_asset(directory, asset) for asset in made]
    policy = write_asset(directory, demo.routing[demo.policies[0]])
    binding = Binding(key=demo.default.key, level=2, detector=digests[0], multivariate=digests[1])
    write_manifest(directory, bindings=[binding], policies={0: policy}, projections=[], default=None)
