"""RFC 8785: own cases, the rfc8785 package as oracle, and the published vectors beside the checkout."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785

from tcd.receipts import jcs
from tcd.receipts.fast import float_list, sorted_json, stdlib_floats, stdlib_sorted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e-6, "0.000001"),
        (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"),
        (1.25e-7, "1.25e-7"),
        (1e16, "10000000000000000"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
        (0.00012, "0.00012"),
        (-9007199254740992.0, "-9007199254740992"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(value: float, text: str) -> None:
    assert jcs.encode(value) == text.encode()
    assert jcs.encode([value, 2.0]) == f"[{text},2]".encode()


def test_numbers_read_back_and_equal_the_oracle() -> None:
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    values = [float(v) for v in bits if math.isfinite(v)] + [float(v) for v in rng.normal(size=5000)]
    values += [float(v) for v in rng.integers(-(2**60), 2**60, 5000)]
    assert json.loads(jcs.encode(values), parse_int=float) == values
    for value in values:
        assert jcs.encode(value) == rfc8785.dumps(value)
        assert jcs.encode([value])[1:-1] == jcs.encode(value)


def test_objects_equal_the_oracle() -> None:
    value: Any = {
        "\ue000": 1,
        "\U0001f602": 2,
        "z": [1, 2.5, True, None, {"b": '\u001f"\\\n\u007f/é', "a": []}],
        "": {},
        "A": (1.0, 2.0),
    }
    assert jcs.encode(value) == rfc8785.dumps(value)
    text = jcs.encode(value).decode()
    assert text.index("\U0001f602") < text.index("\ue000")  # by UTF-16 code units, not by code points


@pytest.mark.parametrize(
    ("value", "text"), [(2**53, "9007199254740992"), (10**21, "1e+21"), (-(2**64), "-18446744073709552000")]
)
def test_large_integers_that_are_binary64_are_written(value: int, text: str) -> None:
    assert jcs.encode(value) == text.encode()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [math.nan], [1.0, -math.inf], 2**53 + 1, 10**400, "\ud800", ["a\udfff"]]
)
def test_what_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        jcs.encode(value)


@pytest.mark.parametrize("value", [{1: 2}, b"x", {"a": {3}}, object()])
def test_types_json_does_not_have_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        jcs.encode(value)


def test_depth_is_bounded() -> None:
    deep: object = 1
    for _ in range(jcs.MAX_DEPTH):
        deep = [deep]
    jcs.encode(deep)
    with pytest.raises(ValueError, match="deeper"):
        jcs.encode([deep])


def test_both_json_writers_write_the_same_bytes() -> None:
    rng = np.random.default_rng(6)
    value = {"b": [1, -(2**53) + 1, True, False, None], "a": {"d": 'é\u007f"\\\U0001f602', "c0": ""}, "z_9": []}
    assert sorted_json(value) == stdlib_sorted(value)
    floats = [float(v) for v in rng.normal(size=1000)] + [0.0, 1.0, -3.0, 123456.0, 0.001, 1e15]
    assert float_list(floats) == stdlib_floats(floats)
    assert "n" in stdlib_floats([math.nan])
    assert "n" in float_list([math.inf])


def test_published_documents(shared: Path) -> None:
    root = shared / "vectors" / "receipts" / "jcs"
    names = sorted(path.name for path in (root / "input").glob("*.json"))
    assert len(names) == 6
    for name in names:
        value = json.loads((root / "input" / name).read_text("utf-8"))
        assert jcs.encode(value) == (root / "output" / name).read_bytes().rstrip(b"\n"), name


def test_published_numbers(shared: Path) -> None:
    lines = (shared / "vectors" / "receipts" / "jcs" / "es6_numbers_1000.txt").read_text().split()
    assert len(lines) == 1000
    for line in lines:
        bits, text = line.split(",")
        value = struct.unpack(">d", bytes.fromhex(bits.zfill(16)))[0]
        assert jcs.number(value) == text
