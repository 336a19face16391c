"""The codec: what it writes is what it reads, for every model of the contract."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcd.contract import DIAGNOSE, MODELS
from tcd.errors import ScoringError
from tcd.triton.probe import canary_inputs, zero_inputs
from tcd.triton.wire import DTYPES, Codec, response_limit
from tests.unit.triton.conftest import answer
from tests.unit.triton.test_http_client import body_of


@pytest.mark.parametrize("name", MODELS)
def test_a_request_holds_every_input_in_the_contracts_order(name: str) -> None:
    model = MODELS[name]
    tensors = zero_inputs(model, rows=3, width=7)
    request = Codec("h:1").encode(model, dict(reversed(tensors.items())))
    head, _, body = request.partition(b"\r\n\r\n")
    length = int(head.split(b"Inference-Header-Content-Length: ")[1].split(b"\r\n")[0])
    assert int(head.split(b"\r\nContent-Length: ")[1].split(b"\r\n")[0]) == len(body)
    header = json.loads(body[:length])
    assert [(i["name"], i["datatype"], i["shape"]) for i in header["inputs"]] == [
        (t.name, t.dtype, [3, *(7 if d < 0 else d for d in t.dims)]) for t in model.inputs
    ]
    assert body[length:] == b"".join(tensors[t.name].tobytes() for t in model.inputs)


@pytest.mark.parametrize("name", MODELS)
def test_an_honest_answer_is_within_the_limit_and_read_back(name: str) -> None:
    model = MODELS[name]
    outputs = answer(zero_inputs(model, rows=2), model)
    body, length = body_of(outputs)
    assert len(body) <= response_limit(model, 2)
    read = Codec("h:1").decode(model, 2, body, length)
    assert {n: a.tobytes() for n, a in read.items()} == {n: a.tobytes() for n, a in outputs.items()}


def test_equal_shapes_are_encoded_from_memory_and_big_endian_is_refused() -> None:
    model = MODELS["tcd_diagnose"]
    codec = Codec("h:1")
    first = codec.encode(model, canary_inputs(model))
    assert codec.encode(model, canary_inputs(model)) == first
    assert len(codec._heads) == 1
    swapped = canary_inputs(model)
    swapped["TRACE"] = swapped["TRACE"].astype(">f4")
    with pytest.raises(ValueError, match="TRACE"):
        codec.encode(model, swapped)


def test_a_strided_view_is_sent_as_what_it_shows() -> None:
    model = MODELS["tcd_diagnose"]
    tensors = canary_inputs(model)
    strided = dict(tensors)
    strided["ENTROPY"] = np.asfortranarray(np.repeat(tensors["ENTROPY"], 2, axis=1))[:, ::2]
    assert Codec("h:1").encode(model, strided) == Codec("h:1").encode(model, tensors)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_mutation_of_an_answer_gets_past_as_anything_but_the_contract(data: st.DataObject) -> None:
    model = MODELS["tcd_diagnose"]
    body, length = body_of(answer(zero_inputs(model, rows=2), model))
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    claimed = data.draw(st.sampled_from((length, length - 1, length + 1, 0, len(body))))
    try:
        outputs = Codec("h:1").decode(model, 2, bytes(mutated), claimed)
    except ScoringError:
        return
    for tensor in model.outputs:
        array = outputs[tensor.name]
        assert array.dtype == DTYPES[tensor.dtype]
        assert array.shape == (2, *tensor.dims)
        assert np.isfinite(array.astype(np.float64)).all()
    assert all(0 <= p <= 1 for p in outputs["P_VALUE"][:, 0].tolist())


def test_the_trace_is_a_header_and_changes_nothing_else() -> None:
    codec, tensors = Codec("h:1"), canary_inputs(DIAGNOSE)
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    bare, traced = codec.encode(DIAGNOSE, tensors), codec.encode(DIAGNOSE, tensors, trace=trace)
    line = f"traceparent: {trace}\r\n".encode()
    assert traced.replace(line, b"", 1) == bare
    assert traced.split(b"\r\n")[1] + b"\r\n" == line
