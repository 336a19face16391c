"""Groups of rows by asset, and what is kept beside immutable objects."""

from __future__ import annotations

import numpy as np

from tcd.calibration import default_asset_dir, load_assets
from tcd.calibration.assets import AssetSet
from tcd.calibration.lookup import ALL, Kept, alike, by_asset, chosen

ASSETS = load_assets(default_asset_dir())


def test_rows_that_share_a_key_are_one_group_without_indices() -> None:
    (group,) = by_asset(np.array([[1, 2, 3]] * 4, np.uint64), ASSETS, AssetSet.detector_match)
    assert group.rows == ALL
    assert group.asset is not None
    assert group.fallback


def test_different_keys_of_one_asset_are_one_group() -> None:
    groups = list(by_asset(np.array([[1, 2, 3], [4, 5, 6]], np.uint64), ASSETS, AssetSet.detector_match))
    assert [group.rows for group in groups] == [ALL]


def test_rows_of_different_assets_are_apart_and_in_order() -> None:
    key = next(iter(ASSETS.bindings), 0)
    table = np.array([[key, 0, 0], [9, 9, 9], [key, 0, 0]], np.uint64)
    seen = sorted(
        i for group in by_asset(table, ASSETS, AssetSet.multivariate_match) for i in np.arange(3)[group.rows].tolist()
    )
    assert seen == [0, 1, 2]


def test_an_empty_batch_has_no_group() -> None:
    assert list(by_asset(np.zeros((0, 3), np.uint64), ASSETS, AssetSet.detector_match)) == []
    assert next(by_asset(np.zeros((1, 3), np.uint64), AssetSet(), AssetSet.detector_match)).asset is None


def test_a_new_set_of_assets_is_looked_up_anew() -> None:
    table = np.array([[1, 2, 3]], np.uint64)
    assert next(by_asset(table, ASSETS, AssetSet.detector_match)).asset is not None
    assert next(by_asset(table, AssetSet(), AssetSet.detector_match)).asset is None


def test_chosen_rows() -> None:
    flags = np.array([True, False, True])
    assert chosen(ALL, np.ones(3, np.bool_)) == ALL
    assert np.arange(3)[chosen(ALL, flags)].tolist() == [0, 2]
    assert np.arange(3)[chosen(np.array([1, 2]), flags)].tolist() == [2]


def test_alike() -> None:
    assert alike(np.array([[1, 2], [1, 2]]))
    assert not alike(np.array([[1, 2], [1, 3]]))
    assert not alike(np.zeros((0, 2)))


def test_a_kept_value_is_made_once_and_the_store_is_bounded() -> None:
    made = iter(range(1, 9))
    kept: Kept[list[int], int] = Kept(lambda _: next(made), most=2)
    first, second, third = [1], [1], [3]
    assert [kept(first), kept(first), kept(second)] == [1, 1, 2]
    assert kept(third) == 3
    assert kept(first) == 4
