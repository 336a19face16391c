"""The model `tcd_spotlight` over a fake of Triton's Python API: any row, any batch, never an exception."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tcd.contract import SPOTLIGHT, TEXT_MODELS
from tcd.triton.noop import NOOP_SPOTLIGHT, Echo
from tcd.triton.spotlight import Spotlight

CONFIG = {"model_config": json.dumps({"output": [{"name": t.name} for t in SPOTLIGHT.outputs]})}
ACTIVE = b'{"shadow": false}'
CHAT = json.dumps({"messages": [{"role": "tool", "content": "a b"}]}).encode()


def column(*values: bytes) -> Any:
    out = np.empty((len(values), 1), np.object_)
    out[:, 0] = values
    return out


@pytest.fixture
def model(pb: Any, monkeypatch: pytest.MonkeyPatch) -> Spotlight:
    monkeypatch.setenv("TCD_SPOTLIGHT_KEY_HEX", "11" * 32)
    made = Spotlight()
    made.initialize(CONFIG)
    return made


def request(pb: Any, *rows: tuple[bytes, bytes]) -> Any:
    return pb.request({"BODY": column(*(b for b, _ in rows)), "OPTIONS": column(*(o for _, o in rows))})


def answers(pb: Any, response: Any) -> list[tuple[bytes, Any]]:
    tensors = pb.tensors(response)
    assert tensors["REWRITTEN"].shape == tensors["OUTCOME"].shape
    return [
        (body, json.loads(told))
        for body, told in zip(tensors["REWRITTEN"][:, 0], tensors["OUTCOME"][:, 0], strict=True)
    ]


def test_rows_of_a_batch_are_rewritten_by_their_own_options(pb: Any, model: Spotlight) -> None:
    plain = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    one = request(pb, (CHAT, ACTIVE), (CHAT, b""), (plain, ACTIVE), (b"garbage", b""))
    two = request(pb, (plain, b'{"shadow": false, "boundary": "0:0-2"}'))
    first, second = model.execute([one, two])
    rows = answers(pb, first)
    assert rows[0][1]["zones_marked"] == 1
    assert rows[0][1]["nonce"].encode() in rows[0][0]
    assert (rows[1][0], rows[1][1]["shadow_mode"], rows[1][1]["zones_marked"]) == (CHAT, True, 1)
    assert (rows[2][0], rows[2][1]["body_rewritten"]) == (plain, False)
    assert (rows[3][0], rows[3][1]["failures"]) == (b"garbage", ["body_parse_failed"])
    assert answers(pb, second)[0][1]["zones"] == [{"kind": "data", "origin": "operator_header", "count": 1}]
    again = model.execute([request(pb, (rows[0][0], ACTIVE))])[0]
    assert answers(pb, again)[0][0] == rows[0][0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (b"x", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"[" * 9999, "no JSON object"),
        (b" " * 16385, "no JSON object"),
        (b'{"boundary": 1}', "boundary is no string"),
        (b'{"colour": 1}', "colour is no member"),
        (b'{"shadow": 1}', "shadow is no bool"),
        (b'{"marking": "bold"}', "marking is not one of"),
    ],
)
def test_wrong_options_refuse_their_request_alone(pb: Any, model: Spotlight, options: bytes, why: str) -> None:
    bad, good = model.execute([request(pb, (CHAT, b""), (CHAT, options)), request(pb, (CHAT, b""))])
    assert bad.error.code == pb.TritonError.INVALID_ARG
    assert bad.error.message.startswith("OPTIONS: ")
    assert why in bad.error.message
    assert good.error is None
    assert answers(pb, good)[0][0] == CHAT


def test_fail_closed_refuses_its_request(pb: Any, model: Spotlight) -> None:
    response = model.execute([request(pb, (b"garbage", b'{"on_failure": "closed"}'))])[0]
    assert response.error.code == pb.TritonError.INVALID_ARG
    assert response.error.message == "the request was refused: body_parse_failed"
    model.finalize()
    assert pb.metric("tcd_model_failures_total").value == 1


def test_a_defect_is_an_error_of_its_request_without_details(
    pb: Any, model: Spotlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "secret"
        raise KeyError(msg)

    monkeypatch.setattr("tcd.triton.spotlight.rewrite", broken)
    response = model.execute([request(pb, (CHAT, b""))])[0]
    assert response.error.code == pb.TritonError.INTERNAL
    assert "secret" not in response.error.message


def test_text_may_come_as_str(pb: Any, model: Spotlight) -> None:
    tensors = {"BODY": np.array([[CHAT.decode()]], np.object_), "OPTIONS": np.array([[""]], np.object_)}
    assert answers(pb, model.execute([pb.request(tensors)])[0])[0][0] == CHAT


def test_it_does_not_load_with_another_config_or_key(pb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="pbtxt"):
        Spotlight().initialize({"model_config": json.dumps({"output": [{"name": "X"}]})})
    monkeypatch.setenv("TCD_SPOTLIGHT_KEY_HEX", "11")
    with pytest.raises(ValueError, match="32 bytes"):
        Spotlight().initialize(CONFIG)
    assert Spotlight.model is TEXT_MODELS["tcd_spotlight"]
    assert Spotlight().is_ready()


def test_the_no_op_echoes(pb: Any) -> None:
    echo = Echo()
    echo.initialize({"model_config": json.dumps({"output": [{"name": t.name} for t in NOOP_SPOTLIGHT.outputs]})})
    out = pb.tensors(echo.execute([request(pb, (b"x", b"y"))])[0])
    assert {name: array[0, 0] for name, array in out.items()} == {"REWRITTEN": b"x", "OUTCOME": b"x"}
