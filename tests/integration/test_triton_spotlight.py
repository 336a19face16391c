"""`tcd_spotlight` in a real Triton: JSON and binary tensors, batches, refusals, and the library's bytes."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tcd.contract import SPOTLIGHT
from tcd.spotlight import Envelope, mark, sentence
from tcd.triton.launcher import TritonServer

pytestmark = pytest.mark.triton


def chat(text: str) -> bytes:
    return json.dumps(
        {"messages": [{"role": "user", "content": "Sum up."}, {"role": "tool", "content": text}]}
    ).encode()


def infer(server: TritonServer, bodies: list[bytes], options: bytes) -> list[tuple[bytes, Any]]:
    tensors = []
    for name, values in (("BODY", bodies), ("OPTIONS", [options] * len(bodies))):
        tensor = tritonclient.grpc.InferInput(name, [len(values), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[v] for v in values], np.object_))
        tensors.append(tensor)
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        result = client.infer(SPOTLIGHT.name, tensors)
    rewritten, told = result.as_numpy("REWRITTEN"), result.as_numpy("OUTCOME")
    return [(body, json.loads(out)) for body, out in zip(rewritten[:, 0], told[:, 0], strict=True)]


def expected(text: str, outcome: Any) -> list[str]:
    envelope = Envelope("datamark", keep_newlines=False, marker=outcome["marker"], nonce=outcome["nonce"])
    return [sentence(envelope), "Sum up.", mark(text, envelope)[0]]


def test_a_batch_over_grpc_is_what_the_library_makes_of_it(triton_server: TritonServer) -> None:
    texts = [f"result {i}\nignore é \U0001f600\u202e all" for i in range(33)]
    answers = infer(triton_server, [chat(t) for t in texts], b'{"shadow": false}')
    for text, (body, outcome) in zip(texts, answers, strict=True):
        assert [m["content"] for m in json.loads(body)["messages"]] == expected(text, outcome)
        assert outcome["removed_characters"] == {"bidi": 1}
    assert len({outcome["nonce"] for _, outcome in answers}) == len(answers)
    # marked once, marked for good, with the server's own key
    again = infer(triton_server, [body for body, _ in answers], b'{"shadow": false}')
    assert [body for body, _ in again] == [body for body, _ in answers]


def test_requests_that_share_a_dynamic_batch_keep_their_own_answers(triton_server: TritonServer) -> None:
    def one(index: int) -> bool:
        text = f"number {index} " * (1 + index * 7)
        [(body, outcome)] = infer(triton_server, [chat(text)], b'{"shadow": false}')
        return [m["content"] for m in json.loads(body)["messages"]] == expected(text, outcome)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(24)))


def test_shadow_mode_is_the_default(triton_server: TritonServer) -> None:
    [(body, outcome)] = infer(triton_server, [chat("a b")], b"")
    assert body == chat("a b")
    assert (outcome["shadow_mode"], outcome["zones_marked"]) == (True, 1)


def test_refusals_are_invalid_argument_and_leave_others_alone(triton_server: TritonServer) -> None:
    for body, options, why in (
        (b"garbage", b'{"on_failure": "closed"}', "body_parse_failed"),
        (b"{}", b"[]", "OPTIONS"),
    ):
        with pytest.raises(InferenceServerException, match=why) as caught:
            infer(triton_server, [body], options)
        assert "INVALID_ARGUMENT" in str(caught.value.status())
    assert infer(triton_server, [b"garbage"], b"")[0][1]["failures"] == ["body_parse_failed"]


def test_plain_json_over_http(triton_server: TritonServer) -> None:
    url = urlsplit(triton_server.http_url)
    assert url.hostname is not None
    connection = HTTPConnection(url.hostname, url.port or 80, timeout=60)
    inputs = [
        {"name": "BODY", "datatype": "BYTES", "shape": [1, 1], "data": [chat("a b").decode()]},
        {"name": "OPTIONS", "datatype": "BYTES", "shape": [1, 1], "data": ['{"shadow": false}']},
    ]
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/models/{SPOTLIGHT.name}/infer", json.dumps({"inputs": inputs}))
        answer = json.loads(connection.getresponse().read())
    data = {output["name"]: output["data"][0] for output in answer["outputs"]}
    told = json.loads(data["OUTCOME"])
    assert [m["content"] for m in json.loads(data["REWRITTEN"])["messages"]] == expected("a b", told)
