"""C2SP signed notes: text and signature lines, signed and verified with Ed25519 (0x01).

A note proves nothing until `open_note` finds a known verifier's signature. Parsing is strict: one encoding per note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tcd.receipts.errors import BadKey, BadSignature, MalformedNote
from tcd.receipts.keys import SigningKey, check_public, verify_ed25519

MAX_NOTE: Final = 65_536
MAX_SIGNATURES: Final = 16
ED25519: Final = 0x01
_PREFIX: Final = "\u2014 "
_KEY_HASH: Final = 4
_PUBLIC: Final = 32
_NAME: Final = re.compile(r"[^\s+]+")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


def strict_base64(text: str) -> bytes:
    """Bytes of standard base64 with padding, only in its one canonical form.

    Raises:
        MalformedNote: any other form.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "not base64"
        raise MalformedNote(msg) from error
    if base64.b64encode(raw).decode() != text:
        msg = "not canonical base64"
        raise MalformedNote(msg)
    return raw


def key_hash(name: str, algorithm: int, public: bytes) -> bytes:
    r"""First 4 bytes of SHA-256(name || "\n" || algorithm || public)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:_KEY_HASH]


def check_name(name: str) -> None:
    """Refuse a key name that signed notes cannot carry.

    Raises:
        MalformedNote: empty, with white space or with a plus.
    """
    if _NAME.fullmatch(name) is None:
        msg = "a key name is not empty and has neither white space nor a plus"
        raise MalformedNote(msg)


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A trusted Ed25519 key of a note.

    Attributes:
        name: of the key.
        public: 32 bytes.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        """Refuse unsafe keys.

        Raises:
            BadKey: small order, not canonical, not on the curve.
            MalformedNote: the name.
        """
        check_name(self.name)
        check_public(self.public)

    @property
    def hash(self) -> bytes:
        """The 4 bytes that select the key; they identify, they do not authenticate."""
        return key_hash(self.name, ED25519, self.public)

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether the key signed the text."""
        return verify_ed25519(self.public, signature, text.encode())

    def vkey(self) -> str:
        """`name+hash+base64(0x01 || public)`."""
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(bytes([ED25519]) + self.public).decode()}"

    @classmethod
    def from_vkey(cls, text: str) -> NoteVerifier:
        """Inverse of `vkey`.

        Raises:
            BadKey: an unsafe key, or a hash that is not the key's.
            MalformedNote: another form or algorithm.
        """
        parts = text.split("+", 2)
        raw = strict_base64(parts[2]) if len(parts) == 3 else b""  # noqa: PLR2004 - name, hash, key
        if len(raw) != 1 + _PUBLIC or raw[0] != ED25519:
            msg = "not a verifier key of type Ed25519"
            raise MalformedNote(msg)
        verifier = cls(parts[0], raw[1:])
        if verifier.hash.hex() != parts[1]:
            msg = "the hash is not that of the verifier key"
            raise BadKey(msg)
        return verifier


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """A signature line, not verified.

    Attributes:
        name: of the key.
        hash: 4 bytes.
        signature: what follows the hash.
    """

    name: str
    hash: bytes
    signature: bytes

    def line(self) -> str:
        """The line with its line feed."""
        return f"{_PREFIX}{self.name} {base64.b64encode(self.hash + self.signature).decode()}\n"


def sign_note(text: str, name: str, key: SigningKey) -> NoteSignature:
    """Sign a text that ends in a line feed.

    Raises:
        MalformedNote: the text or the name.
    """
    check_name(name)
    if not text.endswith("\n") or _CONTROL.search(text):
        msg = "the text of a note ends in a line feed and has no other control character"
        raise MalformedNote(msg)
    return NoteSignature(name, key_hash(name, ED25519, key.public), key.sign(text.encode()))


def write_note(text: str, signatures: Iterable[NoteSignature]) -> bytes:
    """The note: the text, an empty line, the signature lines."""
    return (text + "\n" + "".join(signature.line() for signature in signatures)).encode()


def parse_note(note: bytes) -> tuple[str, tuple[NoteSignature, ...]]:
    """Text and signature lines of a note; nothing is verified.

    Raises:
        MalformedNote: over the limits or not a note.
    """
    if len(note) > MAX_NOTE:
        msg = f"a note has at most {MAX_NOTE} bytes"
        raise MalformedNote(msg)
    try:
        decoded = note.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = "a note is UTF-8"
        raise MalformedNote(msg) from error
    text, empty, rest = decoded.rpartition("\n\n")
    if not empty or not rest.endswith("\n") or _CONTROL.search(decoded):
        msg = "a note is a text, an empty line and signature lines, without other control characters"
        raise MalformedNote(msg)
    lines = rest[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        msg = f"a note has at most {MAX_SIGNATURES} signatures"
        raise MalformedNote(msg)
    return text + "\n", tuple(_parse_line(line) for line in lines)


def _parse_line(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_PREFIX).partition(" ")
    if not line.startswith(_PREFIX) or not space:
        msg = "not a signature line"
        raise MalformedNote(msg)
    check_name(name)
    raw = strict_base64(encoded)
    if len(raw) <= _KEY_HASH:
        msg = "a signature line without a signature"
        raise MalformedNote(msg)
    return NoteSignature(name, raw[:_KEY_HASH], raw[_KEY_HASH:])


def open_note(note: bytes, verifiers: Iterable[NoteVerifier]) -> tuple[str, tuple[str, ...]]:
    """Text of a note and the names of the known keys that signed it, each once, in the order of the lines.

    Lines of unknown keys are ignored. A known key's line that does not verify refuses the whole note.

    Raises:
        BadKey: two verifiers have the name and hash of a line.
        BadSignature: a known key's signature is wrong, or no known key signed.
        MalformedNote: not a note.
    """
    text, signatures = parse_note(note)
    known: dict[tuple[str, bytes], list[NoteVerifier]] = {}
    for verifier in verifiers:
        known.setdefault((verifier.name, verifier.hash), []).append(verifier)
    signed: dict[tuple[str, bytes], str] = {}
    for signature in signatures:
        candidates = known.get((signature.name, signature.hash), [])
        if len(candidates) > 1:
            msg = f"two verifiers for {signature.name}"
            raise BadKey(msg)
        if not candidates or (signature.name, signature.hash) in signed:
            continue
        if not candidates[0].verify(text, signature.signature):
            msg = f"wrong signature of {signature.name}"
            raise BadSignature(msg)
        signed[signature.name, signature.hash] = signature.name
    if not signed:
        msg = "no known key signed the note"
        raise BadSignature(msg)
    return text, tuple(signed.values())
