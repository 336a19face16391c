"""An answer's values are held to the contract by the kernels and by numpy, with the verdict of the shim's rules."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from sidecar_api import evidence
from tcd.contract import DIAGNOSE
from tcd.errors import ScoringError
from tcd.native.library import Loaded, loaded
from tcd.rows import Checked, Proven, unpack
from tcd.triton import bounds, wire
from tcd.triton.wire import DTYPES, Codec

ROWS = 5
#: What a float may be: in bounds somewhere, just outside, far away, no number.
FLOATS = (0.0, -0.0, 1.0, 0.5, 3.0, 2e7, 2.1e7, 1e38, -1e-9, 1.0000001, 3.5, 4.0, -1.0, math.inf, -math.inf, math.nan)
INTEGERS = (0, 1, 2, 3, (1 << 24) - 1, 1 << 24, -1, -(1 << 31))


def fine(rng: np.random.Generator) -> dict[str, Any]:
    """Outputs within all bounds."""
    made = {}
    for tensor in DIAGNOSE.outputs:
        dtype = DTYPES[tensor.dtype]
        array = np.zeros((ROWS, *tensor.dims), dtype)
        if dtype.kind == "f":
            array[...] = rng.integers(0, 2, array.shape)
        made[tensor.name] = array
    made["COMPONENTS"][..., 2] = rng.normal(size=made["COMPONENTS"].shape[:-1]) * 1e30
    made["MV"][:, :2] = rng.normal(size=(ROWS, 2))
    return made


def body_of(outputs: dict[str, Any]) -> tuple[bytes, int]:
    header = json.dumps(
        {
            "outputs": [
                {
                    "name": t.name,
                    "datatype": t.dtype,
                    "shape": list(outputs[t.name].shape),
                    "parameters": {"binary_data_size": outputs[t.name].nbytes},
                }
                for t in DIAGNOSE.outputs
            ]
        }
    ).encode()
    return header + b"".join(outputs[t.name].tobytes() for t in DIAGNOSE.outputs), len(header)


def decoded(codec: Codec, outputs: dict[str, Any]) -> bool:
    body, length = body_of(outputs)
    try:
        return isinstance(codec.decode(DIAGNOSE, ROWS, body, length), Checked)
    except ScoringError:
        return False


@pytest.fixture
def codecs(monkeypatch: pytest.MonkeyPatch) -> list[Codec]:
    """By the kernels where there are some, and by numpy."""
    made = [Codec("h:1")]
    assert decoded(made[0], fine(np.random.default_rng(0)))

    monkeypatch.setattr(wire, "loaded", lambda: Loaded(None, "test"))
    made.append(Codec("h:1"))
    assert decoded(made[1], fine(np.random.default_rng(0)))
    return made


def test_both_give_the_verdict_of_the_evidence_rules(codecs: list[Codec]) -> None:
    rng = np.random.default_rng(3)
    refused = 0
    for tensor in DIAGNOSE.outputs:
        dtype = DTYPES[tensor.dtype]
        if dtype.kind == "u":
            continue
        for value in FLOATS if dtype.kind == "f" else INTEGERS:
            for at in range(math.prod(tensor.dims)):
                outputs = fine(rng)
                with np.errstate(over="ignore"):
                    outputs[tensor.name].reshape(ROWS, -1)[rng.integers(ROWS), at] = value
                verdicts = [decoded(codec, outputs) for codec in codecs]
                results = unpack(outputs)
                rules = not any(evidence._numbers(result) for result in results)
                assert verdicts == [bounds.outside(outputs) is None] * 2, (tensor.name, value, at)
                # flags are held to 0 and 1 here, where a result has them as booleans
                if tensor.name not in {"TRIGGER", "VERDICT"}:
                    assert verdicts[0] == rules, (tensor.name, value, at)
                refused += not verdicts[0]
    assert refused > 100


def test_results_of_a_checked_answer_are_proven_and_equal_to_others() -> None:
    outputs = fine(np.random.default_rng(1))
    plain, proven = unpack(outputs), unpack(Checked(outputs))
    assert {type(result) for result in proven} == {Proven}
    for a, b in zip(plain, proven, strict=True):
        assert a._replace(components=None) == b._replace(components=None)  # type: ignore[arg-type]
        assert (a.components == b.components).all()


def test_the_kernels_are_used_where_they_are() -> None:
    codec = Codec("h:1")
    assert decoded(codec, fine(np.random.default_rng(0)))
    [layout] = codec._layouts.values()
    assert (layout.bounded is None) is (loaded().library is None)
