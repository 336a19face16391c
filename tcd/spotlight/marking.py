"""Marking untrusted text, after Spotlighting (Hines et al. 2024, arXiv 2403.14720): datamark, delimit, encode.

One envelope (marking, marker, nonce) holds for all Data of a request. `unmark` inverts `mark` up to the white-space
class and the characters that were removed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from tcd.spotlight import nonces
from tcd.spotlight.characters import clean, has_private_use, is_clean, private_use, replace_white
from tcd.spotlight.nonces import Random
from tcd.spotlight.policy import MARKER_FIRST, MARKER_LAST, MAX_MARKER_LENGTH, Marking, Policy

TAG: Final = "tcd-untrusted"
_BLOCK: Final = MARKER_LAST - MARKER_FIRST + 1
_TRIES: Final = 64


@dataclass(frozen=True, slots=True)
class Envelope:
    """How the Data of one request is marked.

    Attributes:
        marking: of all its Data.
        keep_newlines: datamark inside lines only.
        marker: stands for white space; "" unless `marking` is datamark.
        nonce: authentic, of the tags.
    """

    marking: Marking
    keep_newlines: bool
    marker: str
    nonce: str

    @property
    def opening(self) -> str:
        """The tag before marked text."""
        return f"<{TAG}:{self.nonce}>"

    @property
    def closing(self) -> str:
        """The tag after marked text."""
        return f"</{TAG}:{self.nonce}>"


def purpose(marking: Marking, *, keep_newlines: bool) -> str:
    """What a nonce is issued for."""
    return f"{marking}-lines" if keep_newlines else marking


def choose_marker(policy: Policy, texts: Collection[str], random: Random) -> tuple[str, int]:
    """A marker that is nowhere in the request, and how often the drawn one was.

    A longer one is drawn when single characters do not do: a text may hold all 6400 of them.
    """
    collisions = 0
    if policy.marker == "fixed":
        if not any(policy.fixed_marker in text for text in texts):
            return policy.fixed_marker, 0
        collisions = 1
    used = set().union(*map(private_use, texts))
    length = policy.marker_length
    while True:
        free = [c for c in map(chr, range(MARKER_FIRST, MARKER_LAST + 1)) if c not in used] if used else None
        for _ in range(_TRIES):
            marker = _draw(length, random, free if length == 1 and collisions else None)
            if not used or not any(marker in text for text in texts):
                return marker, collisions
            collisions += 1
            if length == 1 and not free:
                break
        length = min(length + 1, MAX_MARKER_LENGTH)


def _draw(length: int, random: Random, free: list[str] | None) -> str:
    """`length` code points, of `free` when it holds any; 16 random bits each, so that the bias is under 10 %."""
    drawn = random(2 * length)
    numbers = [int.from_bytes(drawn[i : i + 2], "big") for i in range(0, 2 * length, 2)]
    if free:
        return "".join(free[n % len(free)] for n in numbers)
    return "".join(chr(MARKER_FIRST + n % _BLOCK) for n in numbers)


def new_envelope(policy: Policy, texts: Collection[str], key: bytes, random: Random) -> tuple[Envelope, int]:
    """A new envelope for a request with these texts, and the collisions of its marker."""
    keep = policy.keep_newlines and policy.marking == "datamark"
    marker, collisions = choose_marker(policy, texts, random) if policy.marking == "datamark" else ("", 0)
    while True:
        value = nonces.issue(key, random, purpose=purpose(policy.marking, keep_newlines=keep), marker=marker)
        if not any(value in text for text in texts):
            return Envelope(policy.marking, keep, marker, value), collisions


def mark(text: str, envelope: Envelope) -> tuple[str, dict[str, int]]:
    """Marked and framed text, and the characters removed by class."""
    removed: dict[str, int] = {}
    if envelope.marking != "none":
        text, removed = clean(text)
    if envelope.marking == "datamark":
        text = replace_white(text, envelope.marker, keep_newlines=envelope.keep_newlines)
    elif envelope.marking == "encode":
        text = base64.b64encode(text.encode()).decode("ascii")
    return f"{envelope.opening}{text}{envelope.closing}", removed


def unmark(text: str, envelope: Envelope) -> str:
    """The text inside a frame, white space as spaces.

    Raises:
        ValueError: it is not in the frame, or no base64 where that is the marking.
    """
    if not (text.startswith(envelope.opening) and text.endswith(envelope.closing)):
        msg = "the text is not in the frame of this envelope"
        raise ValueError(msg)
    inner = text[len(envelope.opening) : len(text) - len(envelope.closing)]
    if envelope.marking == "datamark":
        return inner.replace(envelope.marker, " ")
    if envelope.marking == "encode":
        return base64.b64decode(inner, validate=True).decode()
    return inner


def is_marked(inner: str, envelope: Envelope) -> bool:
    """Whether the text inside a frame is what `mark` leaves: nothing in it may be unmarked."""
    if envelope.nonce in inner:
        return False
    if envelope.marking == "encode":
        try:
            return is_clean(base64.b64decode(inner, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
    if envelope.marking == "datamark":
        bare = inner.replace(envelope.marker, "")
        return (
            not has_private_use(bare)
            and is_clean(inner.replace(envelope.marker, " "))
            and replace_white(bare, "", keep_newlines=envelope.keep_newlines) == bare
        )
    return envelope.marking == "none" or is_clean(inner)
