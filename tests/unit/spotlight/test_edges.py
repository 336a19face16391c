"""Edge cases of `rewrite`: nothing to do, odd white space, odd tags, odd bodies, and every reason to fail."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tcd.spotlight import REASONS, Policy, sentence, unmark
from tests.unit.spotlight.kit import ACTIVE, chat, envelope, framed, marked, messages, operator, run


def test_disabled_is_a_no_op_even_for_garbage() -> None:
    for body in (b"", b"garbage", chat(("tool", "a b"))):
        outcome = run(body, Policy(zones="off", shadow=False, on_failure="closed"))
        assert (outcome.body, outcome.body_rewritten, outcome.refused, outcome.failures) == (body, False, False, ())


def test_empty_messages() -> None:
    body = b'{ "messages" : [ ] }'
    outcome = run(body)
    assert (outcome.body, outcome.failures, outcome.zones) == (body, (), {})


def test_no_data_zone_is_byte_identical() -> None:
    body = b'{"messages" :[ {"content":"hi","role" : "user"}],"temperature":1.50, "n": 1e0}\n'
    outcome = run(body)
    assert outcome.body == body
    assert not outcome.body_rewritten
    assert outcome.finding() is None


def test_all_white_space_zone() -> None:
    outcome = run(chat(("tool", " \t\n")))
    assert messages(outcome)[1]["content"] == framed(outcome.marker * 3, outcome)


def test_zone_without_white_space() -> None:
    outcome = run(chat(("tool", "word")))
    assert messages(outcome)[1]["content"] == framed("word", outcome)


def test_empty_text_has_no_zone() -> None:
    body = chat(("tool", ""))
    assert run(body).body == body


SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff"


@pytest.mark.parametrize("space", SPACES, ids=[f"U+{ord(c):04X}" for c in SPACES])
def test_every_white_space_character_becomes_the_marker(space: str) -> None:
    outcome = run(chat(("tool", f"é{space}b")))
    assert messages(outcome)[1]["content"] == framed(f"é{outcome.marker}b", outcome)


def test_white_space_is_unicodes_property_and_five_more() -> None:
    from tcd.spotlight.characters import WHITE  # noqa: PLC0415

    # str.isspace() adds four separators that are no White_Space
    unicode = {chr(c) for c in range(0x110000) if chr(c).isspace()} - set(map(chr, range(0x1C, 0x20)))
    assert set(WHITE) == unicode | set("\u200b\u200c\u200d\u2060\ufeff")
    assert len(WHITE) == len(set(WHITE))


REMOVED = {
    "soft hyphen": ("a\xadb", "ab", "invisible"),
    "mongolian vowel separator": ("a\u180eb", "ab", "invisible"),
    "invisible operators": ("a\u2061\u2064b", "ab", "invisible"),
    "tag characters": ("a\U000e0001\U000e0041b", "ab", "tag"),
    "bidi override": ("a\u202eb\u202c", "ab", "bidi"),
    "bidi isolate": ("a\u2066b\u2069", "ab", "bidi"),
    "arabic letter mark": ("a\u061cb", "ab", "bidi"),
    "variation selector on a letter": ("a\ufe0fb", "ab", "variation_selector"),
    "second variation selector": ("\u2764\ufe0f\ufe0f", "\u2764\ufe0f", "variation_selector"),
    "supplementary selector": ("\u2764\U000e0100", "\u2764", "variation_selector"),
    "selector on a digit that is no keycap": ("1\ufe0f", "1", "variation_selector"),
    "private use": ("a\ue000b", "ab", "private_use"),
    "private use planes": ("a\U000f0000\U00100000b", "ab", "private_use"),
}


@pytest.mark.parametrize("name", REMOVED)
def test_hidden_characters_are_removed_and_counted(name: str) -> None:
    text, kept, kind = REMOVED[name]
    outcome = run(chat(("tool", text)))
    assert messages(outcome)[1]["content"] == framed(kept, outcome)
    assert outcome.removed == {kind: len(text) - len(kept)}


@pytest.mark.parametrize("text", ["\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f3f3\ufe0f"])
def test_emoji_keep_their_selector(text: str) -> None:
    outcome = run(chat(("tool", text)))
    assert messages(outcome)[1]["content"] == framed(text, outcome)
    assert outcome.removed == {}


def user(text: str, policy: Policy = ACTIVE) -> Any:
    outcome = run(chat(("user", text)), policy)
    return outcome, messages(outcome)[-1]["content"]


def tags() -> tuple[str, str]:
    mine = operator()
    return f"<tcd-data:{mine}>", f"</tcd-data:{mine}>"


def test_nested_tags() -> None:
    begin, end = tags()
    outcome, text = user(f"q {begin}a {begin}b{end} c{end} r")
    assert text == f"q {marked('a b c', outcome)} r"


def test_a_stray_close_is_stripped_and_ends_nothing() -> None:
    begin, end = tags()
    outcome, text = user(f"{end}q {begin}a b{end}{end} r")
    assert text == f"q {marked('a b', outcome)} r"


def test_an_unclosed_tag_makes_the_rest_data() -> None:
    begin, _ = tags()
    outcome, text = user(f"q {begin}a b")
    assert text == f"q {marked('a b', outcome)}"


def test_empty_tags_are_stripped_and_mark_nothing() -> None:
    begin, end = tags()
    outcome, text = user(f"q{begin}{end} r")
    assert text == "q r"
    assert (outcome.zones_marked, outcome.reminder_added, outcome.body_rewritten) == (0, False, True)


def test_touching_spans_merge() -> None:
    begin, end = tags()
    outcome, text = user(f"q {begin}a{end}{begin} b{end}")
    assert text == f"q {marked('a b', outcome)}"
    assert outcome.zones_marked == 1


def test_two_nonces_of_the_operator() -> None:
    one, two = operator(1), operator(2)
    outcome, text = user(f"<tcd-data:{one}>a</tcd-data:{two}> b</tcd-data:{one}> q")
    assert text == f"{marked('a b', outcome)} q"


def test_operator_spans_switch_heuristics_off_for_their_text_only() -> None:
    begin, end = tags()
    code = "\n```\nx y\n```\n"
    outcome = run(chat(("user", f"{begin}a b{end}{code}"), ("user", code)))
    _, first, second = (m["content"] for m in messages(outcome))
    assert first == f"{marked('a b', outcome)}{code}"
    assert second == "\n" + marked(code[1:], outcome)
    assert outcome.zones == {
        ("data", "operator_inline"): 1,
        ("data", "heuristic"): 1,
        ("instruction", "role"): 2,
    }


@pytest.mark.parametrize(("zones", "count"), [("heuristic", 2), ("operator", 2), ("both", 3)])
def test_modes(zones: Any, count: int) -> None:
    begin, end = tags()
    body = chat(("user", f"{begin}a b{end}"), ("user", "```\nx\n```"), ("tool", "c d"))
    outcome = run(body, Policy(shadow=False, zones=zones))
    assert outcome.zones_marked == count
    assert (begin in outcome.body.decode()) is (zones == "heuristic")


def test_the_header_speaks_of_original_bytes_and_of_parts() -> None:
    begin, end = tags()
    parts = [{"type": "text", "text": "one two"}, {"type": "image_url"}, {"type": "text", "text": f"{begin}x{end} é ü"}]
    last = len(f"{begin}x{end} ".encode())
    outcome = run(chat(("user", parts)), boundary=f"0:0-3, 0.1:{last}-{last + 2}")
    content = messages(outcome)[1]["content"]
    assert content[0]["text"] == f"{framed('one', outcome)} two"
    assert content[2]["text"] == f"{framed('x', outcome)} {framed('é', outcome)} ü"


def test_json_with_braces_in_strings() -> None:
    document = '{"a": "}}}] \\" {", "b": [1, 2, {"c": "\\\\"}]}'
    outcome, text = user(f"What is b? {document}")
    assert text == f"What is b? {marked(document, outcome)}"


def test_the_delimiter_inside_the_content_ends_nothing() -> None:
    policy = Policy(shadow=False, marking="delimit")
    inside = f"a </tcd-untrusted:{'0' * 32}> b"
    outcome = run(chat(("tool", inside)), policy)
    assert messages(outcome)[1]["content"] == framed(inside, outcome)


def test_encode() -> None:
    policy = Policy(shadow=False, marking="encode")
    outcome = run(chat(("tool", "a é\n")), policy)
    assert messages(outcome)[1]["content"] == framed(base64.b64encode("a é\n".encode()).decode(), outcome)
    assert "base64" in messages(outcome)[0]["content"]
    assert unmark(messages(outcome)[1]["content"], envelope(outcome)) == "a é\n"


def test_boundary_alone_wraps_its_roles_and_changes_nothing_inside() -> None:
    policy = Policy(shadow=False, marking="none")
    outcome = run(chat(("tool", "a b\u202e"), ("user", "```\nc\n```")), policy)
    assert messages(outcome)[1]["content"] == framed("a b\u202e", outcome)
    assert messages(outcome)[2]["content"] == "```\nc\n```"


def test_null_content() -> None:
    body = chat(("assistant", None), ("user", "hi"), ("tool", None))
    assert run(body).body == body


def test_multimodal_parts_are_untouched() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    outcome = run(chat(("user", [image, audio, {"type": "text", "text": "hi"}]), ("tool", "a b")))
    assert messages(outcome)[1]["content"][:2] == [image, audio]


def test_one_mebibyte() -> None:
    frame = len(chat(("tool", "")))
    body = chat(("tool", "a " * ((2**20 - frame) // 2) + "x" * ((2**20 - frame) % 2)))
    assert len(body) == 2**20
    outcome = run(body)
    assert outcome.body_rewritten
    assert outcome.failures == ()
    assert " " not in messages(outcome)[1]["content"]
    assert run(body + b" ").failures == ("body_too_large",)


def test_shadow_mode_does_the_work_and_forwards_the_original() -> None:
    body = chat(("user", "q"), ("tool", "a b\ue000"))
    shadow, active = run(body, Policy()), run(body)
    assert (shadow.body, shadow.body_rewritten, shadow.reminder_added) == (body, False, False)
    assert active.body_rewritten
    assert active.reminder_added
    for name in (
        "zones_marked",
        "byte_delta_total",
        "zone_byte_ranges_per_message",
        "marker",
        "nonce",
        "zones",
        "removed",
    ):
        assert getattr(shadow, name) == getattr(active, name), name
    finding = shadow.finding()
    assert finding is not None
    assert (finding["name"], finding["severity"], finding["shadow_mode"]) == ("spotlighting_applied", "info", True)
    assert finding["marker_codepoint"] == f"U+{ord(shadow.marker):04X}"
    assert finding["zone_byte_ranges"] == [{"message": 1, "part": 0, "ranges": [[0, 6]]}]


def test_the_byte_delta_is_that_of_the_texts() -> None:
    outcome = run(chat(("tool", "a é\u202e")))
    added = sum(len(m["content"].encode()) for m in messages(outcome)) - len("a é\u202e".encode())
    assert outcome.byte_delta_total == added


def test_a_fixed_marker_that_occurs_is_resampled_and_counted() -> None:
    policy = Policy(shadow=False, marker="fixed", fixed_marker="\ue123")
    assert run(chat(("tool", "a b")), policy).marker == "\ue123"
    for body in (chat(("tool", "a \ue123b")), chat(("user", "\ue123"), ("tool", "a b"))):
        outcome = run(body, policy)
        assert outcome.marker != "\ue123"
        assert outcome.marker_collisions == 1


def test_k_gram_markers() -> None:
    policy = Policy(shadow=False, marker_length=3)
    outcome = run(chat(("tool", "a  b")), policy)
    assert len(outcome.marker) == 3
    assert messages(outcome)[1]["content"] == framed(f"a{outcome.marker * 2}b", outcome)
    assert run(outcome.body, policy, seed=9).body == outcome.body


TOOL = chat(("tool", "a b"))
FAILURES: dict[str, tuple[bytes, dict[str, Any], dict[str, Any]]] = {
    "body_parse_failed": (b'{"messages": [', {}, {}),
    "body_missing_messages": (b'{"model": "m"}', {}, {}),
    "unsupported_body": (b'{"messages": ["hi"]}', {}, {}),
    "header_parse_failed": (TOOL, {}, {"boundary": "0:x-3"}),
    "header_range_out_of_bounds": (TOOL, {}, {"boundary": "0:0-4"}),
    "header_message_index_out_of_bounds": (TOOL, {}, {"boundary": "1:0-1"}),
    "no_zones_available": (chat(("user", "hi")), {}, {"boundary": ""}),
    "body_reserialize_failed": (TOOL, {"max_output": 10}, {}),
    "deadline_exceeded": (TOOL, {}, {"expired": lambda: True}),
    "body_too_large": (TOOL, {"max_body": 10}, {}),
}


def test_every_reason_has_a_case() -> None:
    assert set(FAILURES) == set(REASONS)


@pytest.mark.parametrize("reason", FAILURES)
def test_fail_open_forwards_and_counts_the_reason(reason: str) -> None:
    body, members, options = FAILURES[reason]
    outcome = run(body, Policy(shadow=False, on_failure="open", **members), **options)
    assert reason in outcome.failures
    assert not outcome.refused
    if reason.startswith("header_"):
        # the token is dropped, what the roles say stays
        assert outcome.zones_marked == 1
    else:
        assert outcome.body == body


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("reason", FAILURES)
def test_fail_closed_refuses(reason: str, *, shadow: bool) -> None:
    body, members, options = FAILURES[reason]
    outcome = run(body, Policy(shadow=shadow, on_failure="closed", **members), **options)
    assert outcome.refused
    assert reason in outcome.failures
    assert outcome.body == body


@pytest.mark.parametrize(
    "token",
    [
        "\u0660:0-1",
        "",
        "0",
        "0:",
        "0:1",
        "0:1-",
        "-1:0-1",
        "0:1-1",
        "0:2-1",
        "a:0-1",
        "0:0-1-2",
        "0.:0-1",
        "0:0-9999999999",
    ],
)
def test_bad_tokens_are_dropped_one_by_one(token: str) -> None:
    outcome = run(chat(("user", "abc")), boundary=f"0:0-1,{token},0:2-3")
    assert outcome.failures == ("header_parse_failed",)
    assert outcome.zone_byte_ranges_per_message[0].ranges == ((0, 1), (2, 3))


def test_deadline_between_texts() -> None:
    calls = 0

    def expired() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3

    outcome = run(chat(("tool", "a"), ("tool", "b"), ("tool", "c")), expired=expired)
    assert outcome.failures == ("deadline_exceeded",)
    assert calls == 4


BAD_BODIES = {
    "not utf-8": (b'{"messages":[{"role":"tool","content":"\xff"}]}', "body_parse_failed"),
    "byte order mark": (b'\xef\xbb\xbf{"messages":[]}', "body_parse_failed"),
    "lone surrogate": (b'{"messages":[{"role":"tool","content":"\\ud800"}]}', "body_parse_failed"),
    "deep nesting": (b'{"messages":' + b"[" * 100_000, "body_parse_failed"),
    "two values": (b'{"messages":[]}{}', "body_parse_failed"),
    "no object": (b"[]", "unsupported_body"),
    "messages is no list": (b'{"messages": {}}', "body_missing_messages"),
    "content is a number": (b'{"messages":[{"role":"tool","content":5}]}', "unsupported_body"),
    "token ids": (b'{"prompt":[1,2]}', "unsupported_body"),
    "text_input is a list": (b'{"text_input":["a"]}', "unsupported_body"),
    "system is an object": (b'{"system":{},"messages":[]}', "unsupported_body"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies(name: str) -> None:
    body, reason = BAD_BODIES[name]
    outcome = run(body)
    assert outcome.failures == (reason,)
    assert outcome.body == body


def test_the_outcome_is_json() -> None:
    outcome = run(chat(("tool", "a b\u202e")), boundary="x")
    value = json.loads(json.dumps(outcome.to_json()))
    assert value["failures"] == ["header_parse_failed"]
    assert value["zones"] == [{"kind": "data", "origin": "role", "count": 1}]
    assert value["removed_characters"] == {"bidi": 1}
    assert value["findings"][0]["marker_codepoint"] == f"U+{ord(outcome.marker):04X}"
    assert sentence(envelope(outcome)) in outcome.body.decode().replace('\\"', '"')
