"""Witness segments: the lattice, its digest, and disclosure."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from tcd.receipts.errors import WitnessMismatch
from tcd.receipts.witness import (
    MAX_VALUES,
    check_disclosure,
    dequantise,
    quantise,
    quantise_reference,
    segment,
)
from tcd.risk_av import unhex64

SALT = bytes(range(16))


def test_the_digest_is_the_documented_one_little_endian_on_any_host() -> None:
    made = segment("trace", [-1.0, 0.0, -0.25], SALT)
    points = [0, 2**32 - 1, round(0.75 * (2**32 - 1))]
    text = b"tcd/witness/v1\0trace\0" + SALT + struct.pack(">I", 3) + struct.pack("<3I", *points)
    assert made == {
        "name": "trace",
        "n": 3,
        "q": "affine-u32/1",
        "lo": "bff0000000000000",
        "hi": "0000000000000000",
        "salt": SALT.hex(),
        "digest": "sha256:" + hashlib.sha256(text).hexdigest(),
    }


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1.0, 1e30])
def test_numpy_equals_the_reference_and_the_error_is_under_half_a_step(scale: float) -> None:
    rng = np.random.default_rng(3)
    values = np.sort(rng.normal(size=2000) * scale)
    lo, hi = float(values.min()), float(values.max())
    points = quantise(values, lo, hi)
    assert points.tolist() == quantise_reference(values.tolist(), lo, hi)
    assert bool((np.diff(points.astype(np.int64)) >= 0).all())
    back = dequantise(points, lo, hi)
    step = (hi - lo) / (2**32 - 1)
    assert bool((np.abs(back - values) <= step / 2 + np.spacing(np.abs(values)) + np.spacing(abs(hi))).all())
    assert bool((quantise(back, lo, hi) == points).all())


def test_constant_empty_and_shaped_segments() -> None:
    constant = segment("entropy", [2.5, 2.5], SALT)
    assert (unhex64(constant["lo"]), unhex64(constant["hi"])) == (2.5, 2.5)
    assert segment("entropy", [], SALT)["n"] == 0
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert segment("features", rows, SALT) == segment("features", [0, 1, 2, 3, 4, 5], SALT)
    assert segment("features", np.asfortranarray(rows), SALT) == segment("features", rows, SALT)


@pytest.mark.parametrize(
    ("name", "values", "salt"),
    [
        ("logits", [1.0], SALT),
        ("trace", [1.0], SALT[:15]),
        ("trace", [float("nan")], SALT),
        ("trace", [float("inf")], SALT),
        ("trace", [0.0] * (MAX_VALUES + 1), SALT),
        ("trace", [-1e308, 1e308], SALT),
    ],
)
def test_what_cannot_be_committed_is_refused(name: str, values: list[float], salt: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        segment(name, values, salt)


def test_the_largest_segment_is_taken() -> None:
    assert segment("features", np.zeros(MAX_VALUES), SALT)["n"] == MAX_VALUES


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [v[0] + 0.01, *v[1:]],
        lambda v: v[:-1],
        lambda v: [*v, v[0]],
        lambda v: v[::-1],
        lambda v: [*v[:-1], v[-1] * 2],
        lambda v: v[:0],
        lambda v: [float("nan"), *v[1:]],
    ],
)
def test_other_values_do_not_open_a_segment(change: object) -> None:
    values = [0.5, 1.25, 2.0, 3.0]
    made = segment("trace", values, SALT)
    check_disclosure(made, values)
    with pytest.raises(WitnessMismatch):
        check_disclosure(made, change(values))  # type: ignore[operator]
    for member, other in (("salt", "00" * 16), ("name", "entropy"), ("lo", "3ff0000000000000")):
        with pytest.raises(WitnessMismatch):
            check_disclosure({**made, member: other}, values)
