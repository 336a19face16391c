"""The body of a receipt, `tcd.receipt/2`: checked against `members`, its head, and what its signature covers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from tcd.receipts import canonical
from tcd.receipts.erasure import check_runs
from tcd.receipts.errors import LimitExceeded, SchemaMismatch, UnknownVersion
from tcd.receipts.fast import read_json
from tcd.receipts.members import BY_TYPE, DECISION_PARTS, EPROC, RISK, SUITES, VERSION, chosen, different_names
from tcd.receipts.schema import expression_of, inside, refuse

#: ML-DSA's context string of receipt signatures.
CONTEXT: Final = b"tcd/receipt/v2"
MAX_BODY: Final = 16_384
NO_PREV: Final = "0" * 64
_HEAD: Final = b"tcd/receipt/v2/head\0"
_SIG: Final = b"tcd/receipt/v2/sig\0"
_TYP: Final = '"typ":"'


def check_part(name: str, value: Any) -> None:
    """Check one member of a decision.

    Raises:
        SchemaMismatch: it is outside the schema.
    """
    try:
        (RISK if name == "risk" else DECISION_PARTS[name])(value)
    except SchemaMismatch as error:
        raise inside(name, error) from error


def check_eproc(value: Any) -> None:
    """Check a snapshot by itself.

    Raises:
        SchemaMismatch: it is none.
    """
    EPROC(value)


def check_body(value: Any) -> None:
    """Check a parsed body against the schema of its version and type.

    Raises:
        UnknownVersion: `v` or `suite` is not known to this verifier.
        SchemaMismatch: anything else; `pointer` names the member.
    """
    if type(value) is not dict:
        raise refuse(pointer="", why="not an object")
    for name, known in (("v", (VERSION,)), ("suite", SUITES)):
        if type(value.get(name)) is str and value[name] not in known:
            msg = f"{name} {value[name][:40]!r} is not {' or '.join(known)}"
            raise UnknownVersion(msg)
    chosen(BY_TYPE, value.get("typ"), "/typ")(value)
    _check_relations(value)


def _check_relations(value: Mapping[str, Any]) -> None:
    """What members say together."""
    chain = value["chain"]
    if len({chain["seq"] == 0, chain["prev"] == NO_PREV, value["typ"] == "open"}) != 1:
        raise refuse(pointer="/chain", why="seq 0, prev zeros and typ open go together")
    if value["typ"] == "close" and value["close"]["count"] != chain["seq"] + 1:
        raise refuse(pointer="/close/count", why="not the number of records of the chain")
    if value["typ"] == "gap" and value["gap"]["from"] > value["gap"]["to"]:
        raise refuse(pointer="/gap", why="from is after to")
    if value["typ"] == "erase":
        check_runs(value["erase"])


@lru_cache(maxsize=16)
def _text_of(typ: str) -> re.Pattern[str]:
    expression = expression_of(BY_TYPE[typ])
    if expression is None:
        raise AssertionError(typ)
    return re.compile(expression)


def fits(value: Mapping[str, Any], text: str) -> bool:
    """Whether `check_body` takes a value, told in one match of its text; False also where it cannot tell.

    Args:
        value: whose `typ` is a string.
        text: what `canonical.write` makes of it.
    """
    typ = value["typ"]
    return typ in BY_TYPE and _text_of(typ).fullmatch(text) is not None and _related(value)


def _related(value: Mapping[str, Any]) -> bool:
    try:
        _check_relations(value)
    except SchemaMismatch:
        return False
    return value["typ"] != "decision" or different_names(value["witness"])


def read_fitting(text: str, raw: bytes) -> dict[str, Any] | None:
    """The value of a body that is canonical and that `check_body` takes; None for others, and where it cannot tell.

    Much faster than reading and checking step by step, which is left to do only to say what is wrong.

    Args:
        text: of the body.
        raw: its UTF-8 bytes.
    """
    at = text.rfind(_TYP) + len(_TYP)
    typ = text[at : text.find('"', at)]
    if typ not in BY_TYPE or _text_of(typ).fullmatch(text) is None:
        return None
    # the text is known to be one JSON object of this type, without floats, large integers, escapes and white space
    value: dict[str, Any] = read_json(raw)
    return value if _related(value) and canonical.write(value) == raw else None


def head_of(body: bytes) -> bytes:
    r"""SHA-256("tcd/receipt/v2/head\\0" || body): the head of a receipt, its entry in the log."""
    return hashlib.sha256(_HEAD + body).digest()


def signature_input(*, suite: str, kid: str, head: bytes) -> bytes:
    r"""What the signature covers: "tcd/receipt/v2/sig\\0" || suite || 0 || kid (16 bytes) || head."""
    return _SIG + suite.encode() + b"\0" + bytes.fromhex(kid) + head


def check_issued_size(body: bytes) -> None:
    """Refuse a body over 16 KiB.

    Raises:
        LimitExceeded: it is longer.
    """
    if len(body) > MAX_BODY:
        msg = f"body of {len(body)} bytes: at most {MAX_BODY}"
        raise LimitExceeded(msg)
