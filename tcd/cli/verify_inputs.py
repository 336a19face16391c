"""Files of receipts as people have them: answers of /diagnose, requests of /verify, lines of either."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tcd.errors import ConfigError
from tcd.receipts import Anchor
from tcd.receipts.erasure import ErasedBody

#: Records verified at once; a chain of any length takes no more memory than that.
WINDOW: Final = 512
_MAX_LINE: Final = 2**20
#: Names of /verify and of an answer, and the argument that they are.
_NAMES: Final = {
    "receipt_head_hex": "head",
    "receipt": "head",
    "head": "head",
    "receipt_body_json": "body",
    "receipt_body": "body",
    "body": "body",
    "receipt_sig_hex": "sig",
    "receipt_sig": "sig",
    "sig": "sig",
    "verify_key_hex": "verify_key",
    "verify_key": "verify_key",
    "req_obj": "req_obj",
    "comp_obj": "comp_obj",
    "e_obj": "e_obj",
    "witness_segments": "witness_segments",
    "previous_body_json": "previous",
    "terms": "terms",
    "proof": "proof",
    "receipt_proof": "proof",
}
#: What stands for a body that was erased.
_LEFT: Final = {"kid", "origin", "suite", "tenant"}
_TEXTS: Final = ("head", "body", "sig", "verify_key", "previous", "proof")


def one(value: Any) -> dict[str, Any]:
    """Arguments of `verify_single` in an answer or a request; members of an answer that are no evidence are left out.

    Raises:
        ConfigError: no receipt in it.
    """
    if not isinstance(value, Mapping):
        msg = "not an object with a receipt"
        raise ConfigError(msg)
    found = {_NAMES[name]: item for name, item in value.items() if name in _NAMES and item is not None}
    if not {"head", "body"} <= found.keys() or any(type(found.get(name, "")) is not str for name in _TEXTS):
        msg = "no receipt: a head, a body and a signature as strings"
        raise ConfigError(msg)
    found.setdefault("sig", None)
    return found


def _erased(value: Mapping[str, Any]) -> tuple[ErasedBody, str, str, str | None, dict[str, Any] | None]:
    """Body, head, signature, proof of what is left of a record, and the `erase` record beside it.

    Raises:
        ConfigError: it is something else.
    """
    named = {_NAMES[name]: item for name, item in value.items() if name in _NAMES and item is not None}
    gone, beside = value["erased"], value.get("erased_by")
    texts = (named.get("head"), named.get("sig"), named.get("proof", ""))
    whole = isinstance(gone, Mapping) and set(gone) == _LEFT and all(type(text) is str for text in gone.values())
    if not whole or "body" in named or any(type(text) is not str for text in texts):
        msg = "what is left of an erased receipt is a head, a signature and `erased` with kid, origin, suite and tenant"
        raise ConfigError(msg)
    by = None if beside is None else one(beside)
    if by is not None and any(type(text) is not str for text in (by["sig"], by.get("proof"), named.get("proof"))):
        msg = "a record beside which its `erase` record is, and that one, have proofs of their places in the log"
        raise ConfigError(msg)
    return ErasedBody(**gone), named["head"], named["sig"], named.get("proof"), by


@dataclass
class Window:
    """Consecutive records of a chain.

    Attributes:
        bodies, heads, sigs, proofs: of each record; an `ErasedBody` where the body was erased.
        erased_by: the `erase` record that the file has beside an erased one.
        start, end: anchors, where the file has them.
        last: no record follows.
    """

    bodies: list[str | ErasedBody] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    sigs: list[str | None] = field(default_factory=list)
    proofs: list[str | None] = field(default_factory=list)
    erased_by: list[dict[str, Any] | None] = field(default_factory=list)
    start: Anchor | None = None
    end: Anchor | None = None
    last: bool = False

    def add(self, value: Any) -> None:
        """Take a record.

        Raises:
            ConfigError: no receipt in it.
        """
        body: str | ErasedBody
        if isinstance(value, Mapping) and "erased" in value:
            body, head, sig, proof, by = _erased(value)
        else:
            found = one(value)
            body, head, sig, proof, by = found["body"], found["head"], found["sig"], found.get("proof"), None
        self.bodies.append(body)
        self.heads.append(head)
        self.sigs.append(sig)
        self.proofs.append(proof)
        self.erased_by.append(by)

    def joined(self, after: Window) -> Window:
        """This window and the one after it, with the anchors of both."""
        return Window(
            self.bodies + after.bodies,
            self.heads + after.heads,
            self.sigs + after.sigs,
            self.proofs + after.proofs,
            self.erased_by + after.erased_by,
            self.start or after.start,
            after.end,
            after.last,
        )

    def tail(self) -> Window:
        """The last record with a body, which verified, and those after it; all of them where there is none."""
        whole = [at for at, body in enumerate(self.bodies) if isinstance(body, str)]
        at, start = (whole[-1], None) if whole else (0, self.start)
        body = self.bodies[at]
        if isinstance(body, str):
            chain = json.loads(body)["chain"]
            start = Anchor(chain["seq"] - 1, chain["prev"]) if chain["seq"] else None
        columns = (self.bodies[at:], self.heads[at:], self.sigs[at:], self.proofs[at:], self.erased_by[at:])
        return Window(*columns, start)


def _anchor(value: Any) -> Anchor | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or type(value.get("seq")) is not int or type(value.get("head")) is not str:
        msg = "an anchor is {seq, head}"
        raise ConfigError(msg)
    return Anchor(value["seq"], value["head"])


def _whole(value: Any) -> Window:
    window = Window(last=True)
    if isinstance(value, list):
        for item in value:
            window.add(item)
        return window
    columns = (
        {name: value.get(name) for name in ("heads", "bodies", "sigs", "proofs")} if isinstance(value, dict) else {}
    )
    heads, bodies = columns.get("heads"), columns.get("bodies")
    rows = [item for item in columns.values() if item is not None]
    if heads is None or bodies is None or any(not isinstance(row, list) or len(row) != len(heads) for row in rows):
        msg = "a chain is an array of receipts, or {heads, bodies, sigs} of one length"
        raise ConfigError(msg)
    for number, (head, body) in enumerate(zip(heads, bodies, strict=True)):
        sigs, proofs = columns["sigs"], columns["proofs"]
        sig, proof = sigs and sigs[number], proofs and proofs[number]
        window.add({"head": head, "body": body, "sig": sig, "proof": proof})
    window.start, window.end = _anchor(value.get("start")), _anchor(value.get("end"))
    return window


def answers(path: Path) -> Iterator[dict[str, Any]]:
    """Arguments of `verify_single` of every answer in a file, an array or lines (.jsonl).

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                while line := file.readline(_MAX_LINE + 1):
                    yield one(json.loads(line))
            return
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read: {type(error).__name__}"
        raise ConfigError(msg) from None
    for item in value if isinstance(value, list) else [value]:
        yield one(item)


def windows(path: Path, value: Any) -> Iterator[Window]:
    """The records of a file, `WINDOW` at a time where it is lines (.jsonl).

    Args:
        path: of the file.
        value: its content where it is JSON, else None.

    Raises:
        ConfigError: it cannot be read, or a line is no receipt.
    """
    if path.suffix != ".jsonl":
        yield _whole(value)
        return
    try:
        with path.open("rb") as file:
            window = Window()
            while line := file.readline(_MAX_LINE + 1):
                if len(line) > _MAX_LINE:
                    msg = f"{path}: a line of over {_MAX_LINE} bytes"
                    raise ConfigError(msg)
                if len(window.bodies) == WINDOW:
                    yield window
                    window = Window()
                window.add(json.loads(line))
            window.last = True
            yield window
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read: {type(error).__name__}"
        raise ConfigError(msg) from None
