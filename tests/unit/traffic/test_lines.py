"""Every line of a recording is a request, or is counted with its number and the reason."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import pytest

from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.traffic import Bad, Line, Naming, items_of
from sidecar_api.traffic.synthetic import LANES, synthetic
from tests.conftest import ROOT


def read(*lines: bytes | dict[str, Any], naming: Naming | None = None) -> list[Line | Bad]:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return list(items_of(io.BytesIO(b"\n".join(raw)), naming))


GOOD = b'{"trace_vector":[-1.0],"session":"s","step_id":0}'
BAD = {
    "unknown member": (b'{"trace_vector":[-1.0],"x":1}', "/x: unknown member"),
    "no JSON": (b"nope", "not JSON"),
    "empty": (b"", "an empty line"),
    "twice": (b'{"trace_vector":[-1.0],"trace_vector":[-2.0]}', "/trace_vector: the member is there twice"),
    "NaN": (b'{"trace_vector":[NaN]}', "/trace_vector/0: not a finite number"),
    "bool": (b'{"trace_vector":[true]}', "/trace_vector/0"),
    "array": (b"[1]", "Expected object"),
    "no UTF-8": (b'{"session":"\xff"}', "not JSON"),
    "text of a number": (b'{"session":"b","model_id":"m","log_prob":"-1"}', "Expected `float`"),
    "unknown signal": (b'{"session":"b","model_id":"m","log_prob":-1,"entropi":1}', "entropi"),
    "ragged": (
        b'{"session":"b","model_id":"m","log_prob":[-1,-2],"entropy":[1]}',
        "1 entries of entropy, 2 of log_prob",
    ),
    "cut": (b'{"trace_vector":[-1.0', "not JSON"),
    "too long": (b'{"trace_vector":[' + b"-1.0," * 300_000 + b"-1]}", "longer than 1048576 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_and_the_others_are_read(name: str) -> None:
    line, reason = BAD[name]
    first, bad, last = read(GOOD, line, GOOD)
    assert isinstance(first, Line)
    assert isinstance(last, Line)
    assert isinstance(bad, Bad)
    assert bad.number == 2
    assert reason in bad.reason
    assert (first.number, last.number) == (1, 3)


def test_rows_of_a_session_log_are_requests_of_their_steps() -> None:
    whole = {"session": "a", "model_id": "m", "log_prob": [-1.0, -2.0], "entropy": [0.5, 0.25], "temperature": 0.7}
    step = {"session": "b", "model_id": "m", "log_prob": -3.0, "step": 0, "features": [1.0, 2.0], "label": "healthy"}
    found = read(whole, step)
    requests = [item.request for item in found if isinstance(item, Line)]
    assert [item.number for item in found] == [1, 1, 2]
    assert [(r.session, r.step_id, r.trace_vector, r.entropy) for r in requests] == [
        ("a", 0, [-1.0], 0.5),
        ("a", 1, [-2.0], 0.25),
        ("b", 0, [-3.0], None),
    ]
    assert requests[0].context == {"temperature": 0.7}
    assert requests[2].features == [1.0, 2.0]


def test_what_made_a_request_once_is_left_out_and_names_can_be_others() -> None:
    sent = {"trace_vector": [-1.0], "tenant": "acme", "session": "s", "request_id": "r", "idempotency_key": "k"}
    (kept,) = read({**sent, "deadline_ms": 5.0})
    (other,) = read(sent, naming=Naming(tenant="replay", suffix="-2"))
    assert isinstance(kept, Line)
    assert isinstance(other, Line)
    assert kept.request == DiagnoseRequest(trace_vector=[-1.0], tenant="acme", session="s")
    assert other.session == ("replay", "user0", "s-2")
    (long,) = read({**sent, "session": "s" * 128}, naming=Naming(suffix="-2"))
    assert isinstance(long, Bad)
    assert long.reason.startswith("/session")


def test_recordings_are_read_as_what_a_caller_would_send() -> None:
    found = [item for item in items_of(ROOT / "tests" / "data" / "traces_small") if isinstance(item, Line)]
    assert len({item.session for item in found}) == 26
    assert found[0].request.step_id == 0
    assert len(found[0].request.features) == 16


def test_synthetic_traffic_follows_from_its_seed_and_begins_each_session_at_step_0() -> None:
    one, same, other = (list(synthetic(2200, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert [line.number for line in one] == list(range(1, 2201))
    steps: dict[str, list[int | None]] = {}
    for line in one:
        steps.setdefault(line.request.session, []).append(line.request.step_id)
    assert all(found == list(range(len(found))) for found in steps.values())
    assert max(Counter(line.request.session for line in one[: 32 * LANES]).values()) == 32
