"""A decision's record by the kernels: hashes, numbers, witness and refusals are those of Python."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.native import decision as native
from tcd.native.decision import Filler, Refused, sha256
from tcd.native.library import open_library
from tcd.receipts import filling, jcs
from tcd.receipts.filling import COMPONENTS, E_OBJECT, MARKS, NONCE, REQUEST, WITNESS, Objects, by_python

COMPONENTS_JSON = b'{"av":{"a":1.0,"details":{}},"b":"}"}'
ZEROS = [0.0] * filling.REALS
RANDOM = bytes(range(filling.RANDOM_BYTES))


@pytest.fixture
def library(compiled: Path) -> ctypes.CDLL:
    return open_library(compiled)


@pytest.fixture
def filler(library: ctypes.CDLL) -> Filler:
    return Filler(library)


@pytest.mark.parametrize("plain", [False, True])
def test_sha256(library: ctypes.CDLL, *, plain: bool) -> None:
    rng = np.random.default_rng(1)
    for size in (*range(260), 1000, 4096, 65_537):
        data = rng.bytes(size)
        assert sha256(library, data, plain=plain) == hashlib.sha256(data).digest(), size


def digest(filler: Filler, text: bytes, *, exact: int = 0) -> str:
    """What the kernels write for the request `text`."""
    return filler(REQUEST.encode(), text, COMPONENTS_JSON, exact, filling.NO_WINDOWS, ZEROS, RANDOM)[1].decode()


def doubles(rng: np.random.Generator) -> list[float]:
    bits = rng.integers(0, 2**64, 20_000, np.uint64).view(np.float64)
    near = [s * m * 10.0**k for k in range(-30, 31) for m in (1.0, 1.5, 9.999999999999999, 1 / 3) for s in (1, -1)]
    edges = [0.0, -0.0, 5e-324, 2.0**53, 2.0**53 + 2, 1e21, 1e-6, 1e-7, 1.7976931348623157e308, 123456789012345680000.0]
    floats = rng.normal(0, 10, 2000).astype(np.float32).astype(float)
    return [float(x) for x in (*bits[np.isfinite(bits)], *near, *edges, *floats)]


def test_numbers_are_written_as_rfc_8785_wants(filler: Filler) -> None:
    """Shortest digits in any notation, as `repr` and msgspec write them."""
    values = doubles(np.random.default_rng(2))
    text = json.dumps(values, separators=(",", ":")).encode()
    assert digest(filler, text) == jcs.digest(values)
    for value in values[::17]:
        for written in (repr(value), f"{value!r}".replace("e-0", "e-"), repr(value).replace("e+", "e")):
            assert digest(filler, f'{{"x":{written},"y":[]}}'.encode()) == jcs.digest({"x": value, "y": []}), written


@pytest.mark.parametrize(
    "text",
    [b'"a\\n"', b'"\xc3\xa9"', b'"\x01"', b'"open', b"[1, 2]", b"[1.5.2]", b"[1e]", b"[1e9999]", b"[-]"],
)
def test_what_the_kernels_do_not_make_canonical_is_refused(filler: Filler, text: bytes) -> None:
    with pytest.raises(Refused) as refused:
        digest(filler, text)
    assert refused.value.code == native.STRANGE_REQUEST
    assert digest(filler, text, exact=1) == "sha256:" + hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("text", [b"", b'{"av":', b'{"av":{', b'{"b":1}', b'{"av":1}', b'{"av":{"a":"\\""}}'])
def test_components_without_their_e_object(filler: Filler, text: bytes) -> None:
    with pytest.raises(Refused) as refused:
        filler(E_OBJECT.encode(), None, text, 0, filling.NO_WINDOWS, ZEROS, RANDOM)
    assert refused.value.code == native.STRANGE_COMPONENTS
    if b"\\" not in text:
        with pytest.raises(filling.Strange):
            by_python(E_OBJECT.encode(), Objects(None, text, 1), filling.NO_WINDOWS, ZEROS, RANDOM)


def cases(rng: np.random.Generator) -> Any:
    def window(most: int) -> Any:
        size = int(rng.choice([0, 1, 2, 15, 511, 512, 513, most]))
        values = rng.normal(0, 10.0 ** rng.integers(-20, 20), size).astype(np.float32)
        values[rng.random(size) < 0.2] = rng.choice([0.0, -0.0, 1.0])
        return values

    template = "".join(f"<{mark}" for mark in (*MARKS, NONCE, REQUEST, COMPONENTS, E_OBJECT, WITNESS))
    reals = [float(x) for x in rng.choice([0.0, -0.0, 1.0, -1e300, 5e-324, math.pi], filling.REALS)]
    windows = (window(4096), window(4096), window(16), window(8192).reshape(1, -1))
    request = jcs.encode({"a": reals[0], "é": "\n"})
    components = jcs.encode({"av": {"a": reals[1]}, "b": [reals[2]]})
    return template.encode() + rng.bytes(40).hex().encode(), Objects(request, components, 1), windows, reals


def test_whole_records(filler: Filler) -> None:
    rng = np.random.default_rng(3)
    for _ in range(150):
        template, objects, windows, reals = cases(rng)
        random = rng.bytes(filling.RANDOM_BYTES)
        want = by_python(template, objects, windows, reals, random)
        assert filler(template, objects.request, objects.components, 1, windows, reals, random) == want


def test_read_only_windows_and_windows_of_another_layout(filler: Filler) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    fixed = values.copy()
    fixed.flags.writeable = False
    empty = filling.NO_WINDOWS[0]
    want = by_python(WITNESS.encode(), Objects(None, COMPONENTS_JSON, 1), (empty, empty, empty, values), ZEROS, RANDOM)
    assert filler(WITNESS.encode(), None, COMPONENTS_JSON, 1, (empty, empty, empty, fixed), ZEROS, RANDOM) == want
    others: list[Any] = [values.T, values.astype(np.float64), np.zeros(16_385, np.float32)]
    for other in others:
        with pytest.raises(ValueError, match="contiguous FP32"):
            filler(WITNESS.encode(), None, COMPONENTS_JSON, 1, (empty, empty, empty, other), ZEROS, RANDOM)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite(filler: Filler, value: float) -> None:
    window = np.array([1.0, value, 2.0], np.float32)
    empty = filling.NO_WINDOWS[0]
    for fill in (lambda *a: filler(a[0], *a[1], *a[2:]), by_python):
        with pytest.raises(ValueError, match="witness value is not finite"):
            fill(WITNESS.encode(), Objects(None, COMPONENTS_JSON, 1), (window, empty, empty, empty), ZEROS, RANDOM)
        with pytest.raises(ValueError, match="finite numbers only"):
            fill(b"", Objects(None, COMPONENTS_JSON, 1), filling.NO_WINDOWS, [*ZEROS[1:], value], RANDOM)


def test_the_longest_body(filler: Filler) -> None:
    for size, fits in ((16_384, True), (16_385, False)):
        template = b"x" * (size - 16) + MARKS[0].encode()
        if fits:
            head, body = filler(template, None, COMPONENTS_JSON, 1, filling.NO_WINDOWS, ZEROS, RANDOM)
            assert len(body) == size
            assert head == hashlib.sha256(b"tcd/receipt/v2/head\0" + body).digest()
            continue
        with pytest.raises(Refused) as refused:
            filler(template, None, COMPONENTS_JSON, 1, filling.NO_WINDOWS, ZEROS, RANDOM)
        assert refused.value.code == native.TOO_LONG


def test_an_unknown_mark(filler: Filler) -> None:
    with pytest.raises(Refused, match="unknown mark"):
        filler(b"\x1f", None, COMPONENTS_JSON, 1, filling.NO_WINDOWS, ZEROS, RANDOM)


def test_a_number_is_hex64(filler: Filler) -> None:
    for value in (0.0, -0.0, 1.5, -1e300):
        body = filler(MARKS[3].encode(), None, COMPONENTS_JSON, 1, filling.NO_WINDOWS, [value] * 20, RANDOM)[1]
        assert body.decode() == struct.pack(">d", value + 0.0).hex()


def test_threads_share_a_filler(filler: Filler) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def mine(number: int) -> bool:
        # long in the kernel, so that most switches come right after it
        window = np.arange(16_000, dtype=np.float32) * np.float32(number + 1)
        given = (COMPONENTS_JSON, 1, (window, *filling.NO_WINDOWS[1:]), [float(number)] * filling.REALS, RANDOM)
        want = filler(WITNESS.encode(), None, *given)
        return all(filler(WITNESS.encode(), None, *given) == want for _ in range(300))

    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(mine, range(4)))
    finally:
        sys.setswitchinterval(before)
