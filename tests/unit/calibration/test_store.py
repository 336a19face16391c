"""The asset store: round trip, digests, corruption cases, reload."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration import AssetDirectory, default_asset_dir, load_assets
from tcd.calibration.assets import Binding, DetectorAsset, Head, asset_id
from tcd.calibration.codec import decode, digest_of, encode
from tcd.calibration.store import MANIFEST, SCHEMA, read_asset, write_asset, write_manifest
from tcd.contract import detector_key
from tcd.errors import AssetError
from tcd.routing import DEFAULT_POLICY

KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    target = tmp_path / "assets"
    shutil.copytree(default_asset_dir(), target)
    return target


def detector_file(directory: Path) -> Path:
    digest: str = json.loads((directory / MANIFEST).read_text())["keys"][0]["detector"]
    return directory / (digest.removeprefix("sha256:") + ".npz")


def test_the_shipped_assets_load_and_are_marked_as_a_demonstration() -> None:
    assets = load_assets(default_asset_dir())
    detector, level = assets.detector(KEY)
    monitor, _ = assets.multivariate(KEY)
    assert detector is not None
    assert monitor is not None
    assert level == 2
    assert detector.provenance.demo
    assert monitor.provenance.demo
    assert set(detector.masks) == set(range(1, 16))
    assert detector.asset_id == asset_id(detector.digest) == int(detector.digest[7:23], 16)
    assert assets.by_id(detector.asset_id) is detector
    assert assets.by_id(1) is None
    assert sum(path.stat().st_size for path in default_asset_dir().iterdir()) < 3_000_000


def test_levels_of_the_key() -> None:
    assets = load_assets(default_asset_dir())
    assert not assets.detector_match(KEY)[1].fallback
    other = detector_key("other", "g", "t", "l", "b")
    assert assets.detector(other)[1] == 3
    assert assets.detector_match(other)[1].fallback
    assert assets.detector((0, 0, 0))[1] == 3
    bare = replace(assets, default=None)
    assert bare.detector(other) == (None, -1)


def test_an_asset_of_another_level_is_a_fall_back() -> None:
    assets = load_assets(default_asset_dir())
    binding = assets.bindings[KEY[2]]
    moved = replace(assets, bindings={KEY[1]: replace(binding, key=KEY[1], level=2)})
    asset, match = moved.detector_match(KEY)
    assert asset is not None
    assert (match.level, match.fallback) == (1, True)
    exact = replace(assets, bindings={KEY[1]: replace(binding, key=KEY[1], level=1)})
    assert not exact.detector_match(KEY)[1].fallback


def test_encoding_is_deterministic_and_decoding_its_inverse(copy: Path) -> None:
    assets = load_assets(copy)
    pools = (assets.detectors, assets.multivariates, assets.routing, assets.projections)
    for asset in (asset for pool in pools for asset in pool.values()):
        data = encode(asset)
        assert digest_of(data) == asset.digest
        again = decode(data)
        assert again.digest == asset.digest
        assert encode(again) == data


def test_writing_twice_changes_nothing_and_leaves_no_temporary(tmp_path: Path) -> None:
    assert write_asset(tmp_path, DEFAULT_POLICY) == write_asset(tmp_path, DEFAULT_POLICY)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_flipped_byte_is_found(copy: Path) -> None:
    path = detector_file(copy)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssetError, match="the file's digest is"):
        load_assets(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    detector_file(copy).unlink()
    with pytest.raises(AssetError, match="is missing"):
        load_assets(copy)


def bad_entry(**changed: object) -> str:
    entry = {"key": "00", "level": 2, "detector": None, "multivariate": None, **changed}
    return json.dumps({"schema": SCHEMA, "keys": [entry], "default": None, "policies": {}, "projections": []})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": "tcd-assets-9"}',
        "[" * 100_000,
        bad_entry(key="zz"),
        bad_entry(level=9),
        bad_entry(level="2"),
    ],
)
def test_a_bad_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(AssetError, match=MANIFEST):
        load_assets(copy)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="No such file"):
        load_assets(tmp_path)


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "", "sha256:" + "0" * 63])
def test_a_digest_is_no_path(copy: Path, digest: str) -> None:
    with pytest.raises(AssetError, match="not a digest"):
        read_asset(copy, digest)


def test_an_asset_of_the_wrong_kind_is_refused(copy: Path) -> None:
    policy = write_asset(copy, DEFAULT_POLICY)
    write_manifest(copy, bindings=[Binding(KEY[2], 2, policy, None)])
    with pytest.raises(AssetError, match="not a DetectorAsset"):
        load_assets(copy)


@pytest.mark.parametrize("data", [b"", b"{", b"PK\x03\x04", b"{}", b'{"kind":"policy"}', b"\x80\x04N."])
def test_bytes_that_are_no_asset(data: bytes) -> None:
    with pytest.raises(AssetError, match="not an asset"):
        decode(data)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(AssetError, match="not an asset"):
        decode(path.read_bytes())


def test_a_broken_table_is_refused(copy: Path) -> None:
    assets = load_assets(copy)
    detector = assets.detector(KEY)[0]
    assert isinstance(detector, DetectorAsset)
    mask = detector.masks[15]
    head = mask.heads[0]
    for broken, reason in (
        (replace(mask, steps=mask.steps[::-1]), "not sorted"),
        (replace(mask, steps=np.append(mask.steps, np.nan)), "finite"),
        (replace(mask, heads=(replace(head, quadratic=-head.quadratic - 1),)), "negative quadratic"),
        (replace(mask, heads=(Head(0.0, head.linear[:3], head.quadratic[:3]),)), "do not fit"),
        (replace(mask, heads=()), "3 axes"),
        (replace(mask, heads=(head,) * 5), "do not fit"),
        (replace(mask, level=2.0), "out of range"),
    ):
        with pytest.raises(AssetError, match=reason):
            decode(encode(replace(detector, masks={15: broken})))


def test_a_new_manifest_is_picked_up_and_a_broken_one_refused(copy: Path) -> None:
    directory = AssetDirectory(copy)
    first = directory.current()
    assert directory.current() is first
    binding = first.bindings[KEY[2]]
    write_manifest(copy, bindings=[binding], policies=dict(first.policies))
    second = directory.current()
    assert second.manifest_digest != first.manifest_digest
    assert second.default is None
    (copy / MANIFEST).write_text("{")
    assert directory.current() is second
    assert directory.refused is not None
    write_manifest(copy, bindings=[binding], default=binding, policies=dict(first.policies))
    assert directory.current().default == binding
    assert directory.refused is None


def test_a_vanished_manifest_keeps_the_old_set(copy: Path) -> None:
    directory = AssetDirectory(copy)
    first = directory.current()
    (copy / MANIFEST).unlink()
    assert directory.current() is first
    assert directory.refused is not None


def test_sets_are_immutable() -> None:
    assets = load_assets(default_asset_dir())
    with pytest.raises(TypeError):
        assets.bindings[1] = None  # type: ignore[index]
    detector = assets.detector(KEY)[0]
    assert detector is not None
    with pytest.raises(ValueError, match="read-only"):
        detector.masks[15].steps[0] = 0.0
