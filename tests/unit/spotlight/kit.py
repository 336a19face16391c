"""Requests and a seeded source of randomness for the tests of spotlighting."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tcd.spotlight import Envelope, Outcome, Policy, nonce, rewrite, unmark

KEY = b"k" * 32
ACTIVE = Policy(shadow=False)


def seeded(seed: int = 0) -> Any:
    return Random(seed).randbytes  # noqa: S311 - reproducible


def operator(seed: int = 99) -> str:
    return nonce(KEY, seeded(seed))


def chat(*messages: tuple[str, Any], **members: Any) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": role, "content": content} for role, content in messages], **members},
        ensure_ascii=False,
    ).encode()


def run(body: bytes, policy: Policy = ACTIVE, *, seed: int = 0, **options: Any) -> Outcome:
    return rewrite(body, policy, key=KEY, random=seeded(seed), **options)


def messages(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(outcome.body)["messages"]
    return found


def envelope(outcome: Outcome, *, keep_newlines: bool = False) -> Envelope:
    return Envelope(outcome.marking, keep_newlines, outcome.marker, outcome.nonce)


def framed(inner: str, outcome: Outcome) -> str:
    return f"{envelope(outcome).opening}{inner}{envelope(outcome).closing}"


def marked(text: str, outcome: Outcome) -> str:
    """`text` as datamark leaves it, for text whose white space is spaces and line feeds."""
    return framed(text.replace(" ", outcome.marker).replace("\n", outcome.marker), outcome)


__all__ = [
    "ACTIVE",
    "KEY",
    "Policy",
    "chat",
    "envelope",
    "framed",
    "marked",
    "messages",
    "operator",
    "run",
    "seeded",
    "unmark",
]
