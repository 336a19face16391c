"""Calibration: conformal tables, immutable assets, their store, and fitting them from recorded traces."""

from __future__ import annotations

from tcd.calibration.assets import AssetSet, DetectorAsset, MultivariateAsset, RoutingPolicy
from tcd.calibration.store import AssetDirectory, default_asset_dir, load_assets

__all__ = [
    "AssetDirectory",
    "AssetSet",
    "DetectorAsset",
    "MultivariateAsset",
    "RoutingPolicy",
    "default_asset_dir",
    "load_assets",
]
