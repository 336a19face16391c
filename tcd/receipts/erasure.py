r"""What an `erase` record says: whose bodies are gone, by their places in the log, and the heads that stay there.

`leaves` are runs: first place, number of leaves, first place, ... in ascending order. `heads` is `sha256:` of
SHA-256("tcd/erase/v1\0" || the heads of these leaves, 32 bytes each, in order), so that the record holds whichever
copy of the log it is read beside.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final

from tcd.receipts.errors import SchemaMismatch

#: What the digest of heads begins with.
_PREFIX: Final = b"tcd/erase/v1\0"
#: Runs in one record; the profile allows 512 members and elements in all.
MAX_RUNS: Final = 200
REASONS: Final = ("subject", "age")


@dataclass(frozen=True, slots=True)
class ErasedBody:
    """Stands for a body that was erased: what a verifier needs to check the signature of its head.

    Nobody signed these but the head itself: that they fit is shown by the signature.
    """

    kid: str
    suite: str
    origin: str
    tenant: str

    def members(self) -> dict[str, str]:
        """The members of the same names that the body had."""
        return {"kid": self.kid, "suite": self.suite, "origin": self.origin, "tenant": self.tenant}


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a receipt whose body was erased.

    Attributes:
        head, sig: as they were.
        seq, prev: its place in its chain, as the ledger has it; shown by its neighbours.
        body: in the place of the body.
    """

    head: bytes
    sig: bytes
    seq: int
    prev: str
    body: ErasedBody


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """First place and number of leaves of each run of ascending places."""
    out: list[tuple[int, int]] = []
    for place in places:
        if out and place == sum(out[-1]):
            out[-1] = (out[-1][0], out[-1][1] + 1)
        else:
            out.append((place, 1))
    return out


def runs_of(body: Mapping[str, Any]) -> list[tuple[int, int]]:
    """First place and end (excluded) of each run that an `erase` record names."""
    flat = body["erase"]["leaves"]
    return [(first, first + count) for first, count in zip(flat[::2], flat[1::2], strict=True)]


def is_named(runs: Sequence[tuple[int, int]], place: int) -> bool:
    """Whether a place is in one of the runs that `runs_of` gives."""
    at = bisect_right(runs, place, key=itemgetter(0)) - 1
    return at >= 0 and place < runs[at][1]


def heads_digest(heads: Iterable[bytes]) -> str:
    """Member `heads` for these heads, in the order of the log; they are read one after the other."""
    digest = hashlib.sha256(_PREFIX)
    for head in heads:
        digest.update(head)
    return "sha256:" + digest.hexdigest()


def erase_members(*, actor: str, reason: str, places: Sequence[int], heads: Sequence[bytes]) -> dict[str, Any]:
    """Members of an `erase` record.

    Args:
        actor: who erases.
        reason: of `REASONS`.
        places: in the log, ascending, in at most `MAX_RUNS` runs.
        heads: at these places.
    """
    flat = [number for run in runs(places) for number in run]
    return {
        "erase": {
            "actor": actor,
            "reason": reason,
            "count": len(places),
            "leaves": flat,
            "heads": heads_digest(heads),
        }
    }


def check_runs(erase: Mapping[str, Any]) -> None:
    """What the members of `erase` say together.

    Raises:
        SchemaMismatch: runs that are empty or out of order, or another number of leaves.
    """
    flat = erase["leaves"]
    whole = list(zip(flat[::2], flat[1::2], strict=False))
    ordered = all(a + n < b for (a, n), (b, _) in pairwise(whole))
    if len(flat) % 2 or not all(n for _, n in whole) or not ordered or sum(n for _, n in whole) != erase["count"]:
        msg = "runs of leaves in order, and their number"
        raise SchemaMismatch(msg, pointer="/erase/leaves")
