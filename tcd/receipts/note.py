"""C2SP signed notes: text and signature lines, signed and verified with Ed25519 (0x01); `cosign` has other types.

A note proves nothing until `open_note` finds a known verifier's signature. Parsing is strict: one encoding per note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from tcd.receipts.errors import BadKey, BadSignature, MalformedNote
from tcd.receipts.keys import ALG, Public, Signer

MAX_NOTE: Final = 65_536
MAX_SIGNATURES: Final = 16
ED25519: Final = 0x01
_PREFIX: Final = "\u2014 "
_KEY_HASH: Final = 4
_NAME: Final = re.compile(r"[^\s+\ud800-\udfff]+")
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
        MalformedNote: empty, with white space or with a plus, or not to be written as UTF-8.
    """
    if _NAME.fullmatch(name) is None:
        msg = "a key name is UTF-8, is not empty and has neither white space nor a plus"
        raise MalformedNote(msg)


class LineVerifier(Protocol):
    """A trusted key of one type of signature line.

    Attributes:
        name: of the key.
        hash: the 4 bytes that select the key; they identify, they do not authenticate.
        algorithm: the byte of the type.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - above

    @property
    def hash(self) -> bytes: ...  # noqa: D102 - above

    @property
    def algorithm(self) -> int: ...  # noqa: D102 - above

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether the key signed the text."""
        ...


def vkey(name: str, algorithm: int, public: bytes) -> str:
    """`name+hash+base64(algorithm || public)`."""
    encoded = base64.b64encode(bytes([algorithm]) + public).decode()
    return f"{name}+{key_hash(name, algorithm, public).hex()}+{encoded}"


def parse_vkey(text: str) -> tuple[str, int, bytes]:
    """Name, algorithm and public key of a `vkey`; the key is not checked.

    Raises:
        BadKey: a hash that is not the key's.
        MalformedNote: another form.
    """
    parts = text.split("+", 2)
    raw = strict_base64(parts[2]) if len(parts) == 3 else b""  # noqa: PLR2004 - name, hash, key
    if not raw:
        msg = "not a verifier key"
        raise MalformedNote(msg)
    check_name(parts[0])
    if key_hash(parts[0], raw[0], raw[1:]).hex() != parts[1]:
        msg = "the hash is not that of the verifier key"
        raise BadKey(msg)
    return parts[0], raw[0], raw[1:]


@dataclass(frozen=True, slots=True)
class KeyVerifier(ABC):
    """A trusted key of one type of line: `LineVerifier` but for what it signs.

    Attributes:
        name: of the key.
        public: as long as the algorithm of the type wants.
        algorithm: the byte of the type.
        alg: name of its algorithm.
    """

    algorithm: ClassVar[int]
    alg: ClassVar[str] = ALG
    name: str
    public: bytes
    key: Public = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse unsafe keys.

        Raises:
            BadKey: small order, not canonical, not on the curve, or of another length.
            MalformedNote: the name.
        """
        check_name(self.name)
        object.__setattr__(self, "key", Public(self.alg, self.public))

    @property
    def hash(self) -> bytes:
        """The 4 bytes that select the key; they identify, they do not authenticate."""
        return key_hash(self.name, self.algorithm, self.public)

    @abstractmethod
    def verify(self, text: str, signature: bytes) -> bool:
        """Whether the key signed the text."""

    def vkey(self) -> str:
        """`name+hash+base64(algorithm || public)`."""
        return vkey(self.name, self.algorithm, self.public)


class NoteVerifier(KeyVerifier):
    """A trusted Ed25519 key of a note (0x01)."""

    __slots__ = ()
    algorithm = ED25519

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether the key signed the text."""
        return self.key.verify(signature, text.encode())

    @classmethod
    def from_vkey(cls, text: str) -> NoteVerifier:
        """Inverse of `vkey`.

        Raises:
            BadKey: an unsafe key, or a hash that is not the key's.
            MalformedNote: another form or algorithm.
        """
        name, algorithm, public = parse_vkey(text)
        if algorithm != ED25519:
            msg = "not a verifier key of type Ed25519"
            raise MalformedNote(msg)
        return cls(name, public)


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


def check_text(text: str) -> None:
    """Refuse a text that no note can carry.

    Raises:
        MalformedNote: it does not end in a line feed, or has another control character.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        msg = "the text of a note ends in a line feed and has no other control character"
        raise MalformedNote(msg)


def sign_note(text: str, name: str, key: Signer) -> NoteSignature:
    """Sign a text that ends in a line feed with an Ed25519 key (0x01).

    Raises:
        BadKey: a key of another algorithm.
        MalformedNote: the text or the name.
    """
    if key.alg != ALG:
        msg = f"a line of type 0x01 is not signed with {key.alg}"
        raise BadKey(msg)
    check_name(name)
    check_text(text)
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


def parse_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Signature lines by themselves, as a witness answers them; nothing is verified.

    Raises:
        MalformedNote: none, too many, or another form.
    """
    if len(lines) > MAX_NOTE or not lines.endswith("\n") or lines.count("\n") > MAX_SIGNATURES:
        msg = f"not 1..{MAX_SIGNATURES} signature lines"
        raise MalformedNote(msg)
    return tuple(_parse_line(line) for line in lines[:-1].split("\n"))


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature line that a known key made.

    Attributes:
        verifier: the key.
        signature: the line.
    """

    verifier: LineVerifier
    signature: NoteSignature


def verify_lines(
    text: str, signatures: Iterable[NoteSignature], verifiers: Iterable[LineVerifier]
) -> tuple[Verified, ...]:
    """The lines of known keys, each key once, in the order of the lines; lines of unknown keys are ignored.

    Raises:
        BadKey: two verifiers have the name and hash of a line.
        BadSignature: a known key's signature is wrong.
    """
    known: dict[tuple[str, bytes], list[LineVerifier]] = {}
    for verifier in verifiers:
        known.setdefault((verifier.name, verifier.hash), []).append(verifier)
    signed: dict[tuple[str, bytes], Verified] = {}
    for signature in signatures:
        selector = (signature.name, signature.hash)
        candidates = known.get(selector, [])
        if len(candidates) > 1:
            msg = f"two verifiers for {signature.name}"
            raise BadKey(msg)
        if not candidates:
            continue
        if not candidates[0].verify(text, signature.signature):
            msg = f"wrong signature of {signature.name}"
            raise BadSignature(msg)
        signed.setdefault(selector, Verified(candidates[0], signature))
    return tuple(signed.values())


def open_note(note: bytes, verifiers: Iterable[LineVerifier]) -> tuple[str, tuple[str, ...]]:
    """Text of a note and the names of the known keys that signed it, each once, in the order of the lines.

    Lines of unknown keys are ignored. A known key's line that does not verify refuses the whole note.

    Raises:
        BadKey: two verifiers have the name and hash of a line.
        BadSignature: a known key's signature is wrong, or no known key signed.
        MalformedNote: not a note.
    """
    text, signatures = parse_note(note)
    signed = verify_lines(text, signatures, verifiers)
    if not signed:
        msg = "no known key signed the note"
        raise BadSignature(msg)
    return text, tuple(found.verifier.name for found in signed)
