"""What a verifier remembers of a log, so that an older or another history is noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import Equivocation, InconsistentLog, MalformedNote, Rollback, SchemaMismatch
from tcd.receipts.merkle import check_consistency
from tcd.receipts.schema import hexadecimal, integer, listing, one_of, record, text
from tcd.receipts.witnessing import Seen

VERSION: Final = "tcd.seen/1"
MAX_LOGS: Final = 256
_LOG: Final = record(
    {"origin": text(255, 1), "size": integer(), "root": hexadecimal(32), "note": text(65_536)},
)
_FILE: Final = record({"v": one_of(VERSION), "logs": listing(_LOG, MAX_LOGS)}, {"serial": integer()})


def check_seen(seen: Seen | None, head: LogHead, path: Sequence[bytes] | None) -> None:
    """Refuse a log that is not an extension of what was seen.

    Args:
        seen: the newest checkpoint seen of this log, None = none.
        head: of the checkpoint at hand, verified.
        path: proof of consistency from `seen` to it, None = none was given.

    Raises:
        Equivocation: the same size with another root; both notes are evidence.
        InconsistentLog: a larger log without a proof, or with one that does not show it.
        Rollback: a smaller log.
    """
    if seen is None:
        return
    if head.size < seen.size:
        msg = f"a log of {head.size} leaves after one of {seen.size}"
        raise Rollback(msg)
    if head.size == seen.size:
        if head.root != seen.root:
            msg = f"two logs of {head.size} leaves"
            raise Equivocation(msg)
        return
    if path is None:
        msg = f"no proof that the log of {head.size} leaves extends that of {seen.size}"
        raise InconsistentLog(msg)
    check_consistency(seen.size, head.size, seen.root, head.root, path)


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a verifier remembers.

    Attributes:
        logs: origin to the newest checkpoint seen.
        serial: largest serial of a signed key set seen.
    """

    logs: Mapping[str, Seen]
    serial: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        items = [
            {"origin": origin, "size": seen.size, "root": seen.root.hex(), "note": seen.note.decode("utf-8", "replace")}
            for origin, seen in sorted(self.logs.items())
        ]
        return {"v": VERSION, "serial": self.serial, "logs": items}

    @classmethod
    def from_json(cls, obj: Any) -> Memory:
        """Inverse of `to_json`.

        Raises:
            MalformedNote: anything else.
        """
        try:
            _FILE(obj)
            logs: list[dict[str, Any]] = obj["logs"]
            seen = {log["origin"]: Seen(log["size"], bytes.fromhex(log["root"]), log["note"].encode()) for log in logs}
        except (SchemaMismatch, UnicodeEncodeError) as error:
            msg = f"not a {VERSION}: {error}"
            raise MalformedNote(msg) from error
        return cls(seen, obj.get("serial", 0))
