"""Properties of rewriting for any request: nothing is lost, nothing escapes, twice is once."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

from tcd.spotlight import REASONS, Policy, Text, cut, mark, rewrite, unmark
from tcd.spotlight.characters import WHITE, clean, private_use
from tcd.spotlight.marking import Envelope, is_marked, new_envelope
from tcd.spotlight.nonces import nonce
from tcd.spotlight.spans import place_header

KEY = b"k" * 32
NONCE = nonce(KEY, Random(3).randbytes)  # noqa: S311 - reproducible
PIECES = st.sampled_from(
    [
        *(
            "```",
            "\n```\n",
            "~~~\n",
            "<table>",
            "</table>",
            "<table ",
            "From: a\n",
            "To: b\n",
            '{"a": 1}',
            '{"',
            "[1, 2]",
        ),
        *(
            "a,b,c\n",
            "1,2,3\n",
            '"x,\n',
            " ",
            "\n",
            "\r\n",
            "\u00a0",
            "\u200b",
            "\u2028",
            "\ufeff",
            "é",
            "😀",
            "\u2764\ufe0f",
        ),
        *(
            "\ufe0f",
            "\u202e",
            "\xad",
            "\U000e0041",
            "\ue000",
            "\ue001",
            "\U000f0000",
            "word",
            "<llmtrace-data>",
            "\x00",
        ),
        *("</llmtrace-data>", f"<tcd-data:{NONCE}>", f"</tcd-data:{NONCE}>", f"<tcd-data:{'0' * 32}>"),
        *(
            f"</tcd-data:{'0' * 32}>",
            f"<tcd-untrusted:{NONCE}>",
            f"</tcd-untrusted:{NONCE}>",
            "Text between <tcd-untrusted:",
        ),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=6), max_size=14).map("".join)
ROLES = st.sampled_from(["user", "assistant", "system", "developer", "tool", "function", "other"])
PART = TEXTS | TEXTS.map(lambda text: {"type": "text", "text": text}) | st.just({"type": "image_url"})
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXTS | st.none() | st.lists(PART, max_size=3)}), max_size=5
)
POLICIES = st.builds(
    Policy,
    zones=st.sampled_from(["heuristic", "operator", "both"]),
    marking=st.sampled_from(["datamark", "delimit", "encode", "none"]),
    keep_newlines=st.booleans(),
    marker=st.sampled_from(["random", "fixed"]),
    marker_length=st.integers(1, 3),
    plain_tags=st.booleans(),
    shadow=st.just(False),
)
quick = settings(max_examples=150, deadline=None, database=None)


def random(number: int = 0) -> Any:
    return Random(number).randbytes  # noqa: S311 - reproducible


def body_of(messages: Any) -> bytes:
    return json.dumps({"messages": messages}, ensure_ascii=False).encode("utf-8", "replace")


@seed(1)
@quick
@given(TEXTS, ROLES, POLICIES, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=3))
def test_zones_cover_the_text_without_gap_or_overlap(
    text: str, role: str, policy: Policy, spans: list[tuple[int, int]]
) -> None:
    inside = [(a, b) for a, b in spans if a < b <= len(text)]
    found = cut(Text(0, 0, (), role, role == "tool", text), policy, key=KEY, header={(0, 0): inside})
    whole = "".join(s.text for s in found.segments)
    if not found.stripped:
        assert whole == text
        assert [s.start for s in found.segments] == [0, *(s.end for s in found.segments)][: len(found.segments)]
        assert not found.segments or found.segments[-1].end == len(text)
    else:
        rest = iter(text)
        assert all(c in rest for c in whole), "only tags are taken out"
    assert all(a.end <= b.start and a.kind != b.kind for a, b in zip(found.segments, found.segments[1:], strict=False))
    if role in {"system", "developer", "assistant"}:
        assert all(s.origin != "heuristic" for s in found.segments)


def plain(text: str, *, keep_newlines: bool = False) -> str:
    text, _ = clean(text)
    return "".join(" " if c in WHITE and not (keep_newlines and c in "\r\n") else c for c in text)


@seed(2)
@quick
@given(st.text() | TEXTS, POLICIES)
def test_unmark_inverts_mark(text: str, policy: Policy) -> None:
    envelope, _ = new_envelope(policy, [text], KEY, random())
    marked, removed = mark(text, envelope)
    kept, counts = clean(text) if policy.marking != "none" else (text, {})
    assert removed == counts
    assert sum(counts.values()) == len(text) - len(kept)
    if policy.marking == "datamark":
        assert unmark(marked, envelope) == plain(text, keep_newlines=envelope.keep_newlines)
        inner = marked[len(envelope.opening) : -len(envelope.closing)]
        assert private_use(inner) <= set(envelope.marker)
    else:
        assert unmark(marked, envelope) == kept
    assert is_marked(marked[len(envelope.opening) : len(marked) - len(envelope.closing)], envelope)


@seed(3)
@settings(quick, max_examples=250)
@given(MESSAGES, POLICIES, st.integers(0, 3))
@example([{"role": "user", "content": "<table>\n```\n<table>"}], Policy(shadow=False, marking="encode"), 0)
def test_twice_is_once(messages: Any, policy: Policy, number: int) -> None:
    first = rewrite(body_of(messages), policy, key=KEY, random=random(number))
    second = rewrite(first.body, policy, key=KEY, random=random(number + 1))
    assert not first.failures
    assert second.body == first.body
    assert not second.body_rewritten
    assert second.zones_marked == 0


@seed(4)
@quick
@given(MESSAGES, POLICIES)
def test_instructions_are_byte_identical_and_in_place(messages: Any, policy: Policy) -> None:
    body = body_of(messages)
    outcome = rewrite(body, policy, key=KEY, random=random())
    before, after = json.loads(body)["messages"], json.loads(outcome.body)["messages"]
    if outcome.reminder_added and len(after) == len(before) + 1:
        after = after[1:]
    assert [m["role"] for m in after] == [m["role"] for m in before]
    marked = {r.message for r in outcome.zone_byte_ranges_per_message}
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        same = index not in marked and old["role"] not in {"system", "developer"} and "tcd-data:" not in str(old)
        if same and "llmtrace" not in str(old):
            assert new == old
    for found in outcome.zone_byte_ranges_per_message:
        content = before[found.message]["content"]
        if isinstance(content, str) and "tcd-data:" not in content and "llmtrace" not in content:
            raw, position = content.encode(), 0
            new = after[found.message]["content"].encode()
            for start, end in found.ranges:
                assert raw[position:start] in new
                position = end
            assert new.startswith(raw[: found.ranges[0][0]])


@seed(5)
@quick
@given(st.lists(TEXTS, min_size=1, max_size=4), st.permutations(range(4)), POLICIES)
def test_the_order_of_messages_and_of_header_tokens_does_not_matter(
    texts: list[str], order: list[int], policy: Policy
) -> None:
    order = [i for i in order if i < len(texts)]
    role = ["user", "tool", "user", "function"]
    tokens = [f"{i}:0-{len(t.encode())}" for i, t in enumerate(texts) if t]
    messages = [{"role": role[i], "content": t} for i, t in enumerate(texts)]

    def contents(sent: Any, header: list[str]) -> list[str]:
        outcome = rewrite(body_of(sent), policy, key=KEY, random=random(), boundary=",".join(header) or None)
        got = [m["content"] for m in json.loads(outcome.body)["messages"]]
        return got[len(got) - len(sent) :]

    straight = contents(messages, tokens)
    assert contents(messages, tokens[::-1]) == straight
    moved = [f"{order.index(int(t.partition(':')[0]))}:{t.partition(':')[2]}" for t in tokens]
    shuffled = contents([messages[i] for i in order], moved)
    assert [shuffled[order.index(i)] for i in range(len(texts))] == straight


@seed(6)
@quick
@given(st.binary(max_size=80) | TEXTS.map(str.encode), st.text(max_size=30), POLICIES)
def test_any_bytes_give_an_outcome(body: bytes, header: str, policy: Policy) -> None:
    outcome = rewrite(body, policy, key=KEY, random=random(), boundary=header)
    assert set(outcome.failures) <= set(REASONS)
    assert outcome.failures
    json.dumps(outcome.to_json())


@seed(7)
@quick
@given(TEXTS, st.integers(0, 60), st.integers(0, 60))
def test_header_offsets_move_outwards_only(text: str, start: int, end: int) -> None:
    raw = text.encode("utf-8", "replace")
    text = raw.decode()
    spans, failures = place_header(f"0:{start}-{end}", {(0, 0): text})
    if start >= end or end > len(raw):
        assert failures
        return
    a, b = spans[0, 0][0]
    assert len(text[:a].encode()) <= start < end <= len(text[:b].encode())
    assert start - len(text[:a].encode()) < 4
    assert len(text[:b].encode()) - end < 4


@seed(8)
@quick
@given(TEXTS, st.sampled_from(["datamark", "delimit"]))
def test_no_text_in_a_zone_leaves_it(text: str, marking: Any) -> None:
    """Whatever a tool says, all of it comes out inside one frame, and nothing inside ends the frame."""
    policy = Policy(shadow=False, marking=marking)
    body = body_of([{"role": "tool", "content": f"x{text}"}])
    outcome = rewrite(body, policy, key=KEY, random=random())
    content = json.loads(outcome.body)["messages"][1]["content"]
    envelope = Envelope(outcome.marking, keep_newlines=False, marker=outcome.marker, nonce=outcome.nonce)
    assert content.startswith(envelope.opening)
    assert content.index(envelope.closing) == len(content) - len(envelope.closing)
    if marking == "datamark":
        assert not set(content) & set(WHITE)
