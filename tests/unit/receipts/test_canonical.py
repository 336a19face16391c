"""tcd-jcs-1: what is written, and everything that is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import VerificationError
from tcd.receipts import canonical
from tcd.receipts import members as receipt_members


def test_round_trip_and_order() -> None:
    value = {"b": [1, {"z": True, "a_1": ""}], "a": 'é\U0001f602"\\/\u007f', "c": -(2**53) + 1, "d": None}
    body = canonical.encode(value)
    assert (
        body == '{"a":"é\U0001f602\\"\\\\/\u007f","b":[1,{"a_1":"","z":true}],"c":-9007199254740991,"d":null}'.encode()
    )
    assert canonical.parse(body) == value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a": 1}', "not_canonical"),
        (b'{"a":1} ', "not_canonical"),
        (b'{"a":1}\n', "not_canonical"),
        (b'{"b":1,"a":2}', "not_canonical"),
        (b'{"\\u0061":1}', "not_canonical"),
        (b'{"a":"\\u0062"}', "not_canonical"),
        (b'{"a":"\\/"}', "not_canonical"),
        (b'\xef\xbb\xbf{"a":1}', "not_canonical"),
        ('{"a":1}'.encode("utf-16"), "not_canonical"),
        ('{"a":1}'.encode("utf-16-le"), "not_canonical"),
        ('{"a":1}'.encode("utf-32-be"), "not_canonical"),
        (b'{"a":1,"a":1}', "not_canonical"),
        (b'{"a":1,"a":2}', "not_canonical"),
        (b'{"a":{"b":1,"b":1}}', "not_canonical"),
        (b'{"A":1}', "not_canonical"),
        (b'{"":1}', "not_canonical"),
        (b'{"9a":1}', "not_canonical"),
        (b'{"a' + b"b" * 32 + b'":1}', "not_canonical"),
        (b"", "not_canonical"),
        (b"{", "not_canonical"),
        (b'{"a":1}{"a":1}', "not_canonical"),
        (b'{"a":01}', "not_canonical"),
        (b'{"a":+1}', "not_canonical"),
        (b'{"a":"\xff"}', "not_canonical"),
        (b'{"a":"\xed\xa0\x80"}', "not_canonical"),
        (b'{"a":1.0}', "bad_number"),
        (b'{"a":1e2}', "bad_number"),
        (b'{"a":-0}', "bad_number"),
        (b'{"a":9007199254740992}', "bad_number"),
        (b'{"a":-9007199254740992}', "bad_number"),
        (b'{"a":NaN}', "bad_number"),
        (b'{"a":-Infinity}', "bad_number"),
        (b'{"a":1' + b"0" * 400 + b"}", "bad_number"),
        (b'{"a":"\\ud800"}', "bad_string"),
        (b'{"a":"\\udfffx"}', "bad_string"),
        (b'{"a":"\\n"}', "bad_string"),
        (b'{"a":"\n"}', "bad_string"),
        (b'{"a":"\\u0000"}', "bad_string"),
        (b'{"a":"\x1f"}', "bad_string"),
        (b"[" * 9 + b"]" * 9, "limit"),
        (b"[" * 100_000 + b"]" * 100_000, "limit"),
        (b"[" * 100_000, "limit"),
        (b'{"a":' * 100_000, "limit"),
        (b"[" + b",".join([b"1"] * 513) + b"]", "limit"),
    ],
)
def test_refused_bytes_and_their_codes(body: bytes, code: str) -> None:
    spent = []
    for _ in range(3):
        started = time.process_time()
        with pytest.raises(VerificationError) as caught:
            canonical.parse(body)
        spent.append(time.process_time() - started)
        assert caught.value.code == code
    # the least: a collection of the whole suite's garbage may fall into one of them
    assert min(spent) < 0.5


def test_limits_are_inclusive() -> None:
    assert canonical.parse(b"[" * 8 + b"]" * 8) == [[[[[[[[]]]]]]]]
    assert len(canonical.parse(b"[" + b",".join([b"1"] * 512) + b"]")) == 512
    assert canonical.parse(b'{"a":"[[[[[[[[[[{{{{\\"[[[["}') == {"a": '[[[[[[[[[[{{{{"[[[['}
    value = canonical.parse(b'{"a' + b"b" * 31 + b'":9007199254740991}')
    assert canonical.parse(canonical.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"a": 1.0}, "bad_number"),
        ({"a": 2**53}, "bad_number"),
        ({"a": "\ud800"}, "bad_string"),
        ({"a": "\x00"}, "bad_string"),
        ({"a": "tab\t"}, "bad_string"),
        ({"A": 1}, "not_canonical"),
        ({1: 1}, "not_canonical"),
        ({"a": b"x"}, "not_canonical"),
        ({"a": {1, 2}}, "not_canonical"),
        ([[[[[[[[[1]]]]]]]]], "limit"),
        (list(range(513)), "limit"),
    ],
)
def test_the_encoder_refuses_the_same(value: Any, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        canonical.encode(value)
    assert caught.value.code == code


def test_the_written_format_has_the_members_that_the_code_documents() -> None:
    text = str(receipt_members.__doc__)
    page = (Path(__file__).resolve().parents[3] / "docs" / "receipt-v2.md").read_text()
    assert text[text.index("typ open, one of::") :].strip() in page
