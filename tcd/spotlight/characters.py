"""The characters that marking replaces and those that it removes from untrusted text.

White space is Unicode's White_Space property plus the zero-width characters that separate; what is removed hides text
from people (tag characters, invisible operators, variation selectors) or reorders it (bidi controls), or could be
taken for a marker (private use).
"""

from __future__ import annotations

import re
from typing import Final

NEWLINES: Final = "\n\r"
_ASCII_WHITE: Final = "\t\n\v\f\r "
_OTHER_WHITE: Final = (
    "\x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
    # zero-width space, non-joiner, joiner, word joiner, byte order mark
    "\u200b\u200c\u200d\u2060\ufeff"
)
#: Every character that becomes the marker.
WHITE: Final = _ASCII_WHITE + _OTHER_WHITE

#: A variation selector stays where it follows one of these: they have an emoji and a text presentation.
_EMOJI_BASE: Final = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
# One character each, no repetition: linear. The selectors come first: the others' removal must not join one to a base.
_REMOVED: Final = {
    "variation_selector": re.compile(
        "[\ufe00-\ufe0d\U000e0100-\U000e01ef]"
        f"|(?<![{_EMOJI_BASE}0-9#*])[\ufe0e\ufe0f]|(?<=[0-9#*])[\ufe0e\ufe0f](?!\u20e3)"
    ),
    "private_use": re.compile("[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]"),
    "bidi": re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]"),
    "invisible": re.compile("[\xad\u180e\u2061-\u2064]"),
    "tag": re.compile("[\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"),
}
#: Classes of removed characters, as they are counted.
REMOVED_CLASSES: Final = tuple(_REMOVED)
_SUSPECT: Final = re.compile(
    "[\xad\u061c\u180e\u200e\u200f\u202a-\u202e\u2061-\u2064\u2066-\u206f\ufe00-\ufe0f\ue000-\uf8ff"
    "\U000e0000-\U000e0fff\U000f0000-\U0010fffd]"
)
_PRIVATE: Final = _REMOVED["private_use"]


def has_private_use(text: str) -> bool:
    """Whether a private-use character is in the text."""
    return not text.isascii() and _PRIVATE.search(text) is not None


def private_use(text: str) -> set[str]:
    """The private-use characters of a text."""
    return set() if text.isascii() else set(_PRIVATE.findall(text))


def clean(text: str) -> tuple[str, dict[str, int]]:
    """The text without the characters that are removed, and how many of each class went."""
    if text.isascii():
        return text, {}
    suspects = "".join(set(_SUSPECT.findall(text)))
    if not suspects:
        return text, {}
    counts: dict[str, int] = {}
    for name, pattern in _REMOVED.items():
        # alone, a variation selector follows no base
        if pattern.search(suspects) is None:
            continue
        text, hits = pattern.subn("", text)
        if hits:
            counts[name] = hits
    return text, counts


def replace_white(text: str, marker: str, *, keep_newlines: bool = False) -> str:
    """The text with `marker` for every white-space character; with `keep_newlines` but CR and LF."""
    # one C-speed replace per character: an absent one costs next to nothing
    for character in _ASCII_WHITE if text.isascii() else WHITE:
        if not (keep_newlines and character in NEWLINES):
            text = text.replace(character, marker)
    return text


def is_clean(text: str) -> bool:
    """Whether `clean` would change nothing."""
    return clean(text)[0] == text
