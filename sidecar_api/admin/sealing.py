"""Names that the second person of an act has to read, and that are written nowhere: sealed while they wait.

AES-256-GCM under a key that follows from the one of subject digests, which all replicas have and no store does.
"""

from __future__ import annotations

import json
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar_api.subjects import Subjects

_PURPOSE: Final = b"tcd/sealed-names/v1"
NONCE: Final = 12


def sealed(subjects: Subjects, value: Any, *, about: str, nonce: bytes) -> str:
    """A JSON value as nobody without the key can read it; hex.

    Args:
        subjects: of the installation.
        value: to be sealed.
        about: what it belongs to; it opens with nothing else.
        nonce: `NONCE` random bytes.
    """
    text = json.dumps(value).encode()
    return (nonce + AESGCM(subjects.derived(_PURPOSE)).encrypt(nonce, text, about.encode())).hex()


def opened(subjects: Subjects, text: str, *, about: str) -> Any:
    """What was sealed; None where it cannot be read: under another key, about something else, or changed."""
    try:
        raw = bytes.fromhex(text)
        return json.loads(AESGCM(subjects.derived(_PURPOSE)).decrypt(raw[:NONCE], raw[NONCE:], about.encode()))
    except (InvalidTag, ValueError):
        return None
