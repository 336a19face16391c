"""The fuzzing target of rewriting: `python -m tests.property.spotlight.fuzz -max_total_time=600` (needs `tcd[fuzz]`).

Whatever the bytes: no exception, a known reason or an outcome, twice is once, and text of a tool stays in its frame.
"""

from __future__ import annotations

import json
import sys
from random import Random
from typing import Any, Final

from tcd.spotlight import REASONS, Envelope, Outcome, Policy, nonce, rewrite
from tcd.spotlight.characters import WHITE

KEY: Final = b"k" * 32
NONCE: Final = nonce(KEY, Random(3).randbytes)  # noqa: S311 - reproducible
_MARKINGS: Final = ("datamark", "delimit", "encode", "none")
_ZONES: Final = ("both", "heuristic", "operator", "both")
_ROLES: Final = ("tool", "user", "system", "assistant")
#: What mutation alone would take long to find.
SEEDS: Final = (
    b'{"messages":[{"role":"user","content":"hi"},{"role":"tool","content":"a b"}]}',
    b'{"system":"s","messages":[{"role":"user","content":[{"type":"tool_result","content":"a b"}]}]}',
    b'{"prompt":["a","```\\nb c\\n```"]}',
    b'{"text_input":"From: a\\nTo: b\\n\\nc d"}',
    b"a\x1e```\n<table>x</table>\n```\x1ea,b,c\n1,2,3\n4,5,6\n",
    b'What? {"a": [1, 2, "}"], "b": {"c": "\\\\"}}\x1eFrom: a\nTo: b\n\nc',
    f"q <tcd-data:{NONCE}>a b</tcd-data:{NONCE}> r\x1e<llmtrace-data>a</llmtrace-data>".encode(),
    "\ue000 \u202e\ufe0f\U000e0041\u200b é".encode(),
)


def policy_of(byte: int, second: int) -> Policy:
    """A policy from two bytes."""
    return Policy(
        zones=_ZONES[byte & 3],
        marking=_MARKINGS[byte >> 2 & 3],
        keep_newlines=bool(byte & 16),
        marker="fixed" if byte & 32 else "random",
        plain_tags=bool(byte & 64),
        marker_length=1 + (second & 1),
        shadow=False,
    )


def random(number: int) -> Any:
    """A seeded source."""
    return Random(number).randbytes  # noqa: S311 - reproducible


def body_of(data: bytes, second: int) -> bytes:
    """Either the bytes, or a chat whose texts they are, split at U+001E."""
    if not second & 2:
        return data
    texts = data.decode("utf-8", "ignore").split("\x1e")
    messages = [{"role": _ROLES[(index + (second >> 2)) & 3], "content": text} for index, text in enumerate(texts)]
    return json.dumps({"messages": messages}).encode()


def check(data: bytes) -> Outcome | None:
    """One input; raises AssertionError where a property fails."""
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    policy = policy_of(first, second)
    body = body_of(data[2:], second)
    boundary = data[2:66].decode("latin-1") if second & 128 else None
    outcome = rewrite(body, policy, key=KEY, random=random(first), boundary=boundary)
    assert set(outcome.failures) <= set(REASONS)
    json.dumps(outcome.to_json())
    if not outcome.body_rewritten:
        assert outcome.body == body
        return outcome
    again = rewrite(outcome.body, policy, key=KEY, random=random(second + 300))
    assert again.body == outcome.body, "a second pass changed something"
    _framed(outcome, policy)
    return outcome


def _framed(outcome: Outcome, policy: Policy) -> None:
    messages = json.loads(outcome.body).get("messages")
    if policy.marking == "none" or not isinstance(messages, list):
        return
    envelope = Envelope(outcome.marking, policy.keep_newlines, outcome.marker, outcome.nonce)
    for message in messages:
        content = message.get("content")
        if message.get("role") not in {"tool", "function"} or not isinstance(content, str) or not content:
            continue
        assert content.startswith(envelope.opening)
        assert content.index(envelope.closing) == len(content) - len(envelope.closing)
        if policy.marking == "datamark" and not policy.keep_newlines:
            assert not set(content) & set(WHITE)


def main() -> None:
    """Fuzz until told to stop."""
    import atheris  # noqa: PLC0415 - an extra

    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: void(check(data)))
    atheris.Fuzz()


def void(_: object) -> None:
    """Libfuzzer takes no other answer."""


if __name__ == "__main__":
    main()
