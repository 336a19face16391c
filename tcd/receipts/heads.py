r"""The newest record of every chain under one root: what a `heads` record commits to.

Whoever holds a chain and a later `heads` record can tell whether records were cut off its end. Entries are sorted by
chain; an entry is "tcd/heads/v1\0" || chain id (32 bytes) || u64be seq || head (32 bytes), hashed as RFC 9162 does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tcd.receipts.chain import ChainState
from tcd.receipts.checks import Anchor
from tcd.receipts.errors import Fork, SchemaMismatch, Truncated
from tcd.receipts.merkle import MerkleTree, check_inclusion, leaf_hash

_PREFIX: Final = b"tcd/heads/v1\0"


def entry(chain: str, seq: int, head: str) -> bytes:
    """The entry of a chain whose newest record has this number and head.

    Args:
        chain: `sha256:` and 64 hex digits.
        seq: of the newest record.
        head: 64 hex digits.
    """
    return _PREFIX + bytes.fromhex(chain.removeprefix("sha256:")) + seq.to_bytes(8, "big") + bytes.fromhex(head)


class Heads:
    """The newest records of many chains."""

    __slots__ = ("_places", "_tree")

    def __init__(self, chains: Iterable[ChainState]) -> None:
        """Commit to chains that have at least one record each, each once.

        Raises:
            ValueError: a chain without records, or twice.
        """
        ordered = sorted(chains, key=lambda state: state.id)
        self._places = {state.id: place for place, state in enumerate(ordered)}
        if len(self._places) != len(ordered) or any(state.seq < 1 for state in ordered):
            msg = "a chain is there twice or has no record"
            raise ValueError(msg)
        self._tree = MerkleTree(entry(state.id, state.seq - 1, state.prev) for state in ordered)

    def members(self) -> dict[str, Any]:
        """Members of a `heads` record."""
        return {"heads": {"count": len(self._tree), "root": self._tree.root().hex()}}

    def prove(self, chain: str) -> HeadsProof:
        """Where a chain is.

        Raises:
            KeyError: it is not there.
        """
        place = self._places[chain]
        return HeadsProof(place, self._tree.inclusion(place))


@dataclass(frozen=True, slots=True)
class HeadsProof:
    """Proof that a chain's newest record is under the root of a `heads` record.

    Attributes:
        index: place of the chain.
        path: hashes, nearest sibling first.
    """

    index: int
    path: Sequence[bytes]


def check_tail(body: Mapping[str, Any], proof: HeadsProof, *, chain: str, newest: Anchor, held: Anchor) -> None:
    """Check that the records a verifier holds of a chain reach its newest record at the time of a `heads` record.

    Args:
        body: the verified `heads` record.
        proof: of the chain in it.
        chain: id of the chain.
        newest: the record that the proof claims to be the newest one.
        held: the last record that the verifier holds.

    Raises:
        BadInclusion: the proof does not show `newest`.
        Fork: another record of that number.
        SchemaMismatch: no `heads` record.
        Truncated: records are missing at the end.
    """
    if body.get("typ") != "heads":
        msg = "not a heads record"
        raise SchemaMismatch(msg, pointer="/typ")
    committed = body["heads"]
    leaf = leaf_hash(entry(chain, newest.seq, newest.head))
    check_inclusion(proof.index, committed["count"], leaf, proof.path, bytes.fromhex(committed["root"]))
    if held.seq < newest.seq:
        msg = f"the last record held is {held.seq}, the log knows {newest.seq}"
        raise Truncated(msg)
    if held.seq == newest.seq and held.head != newest.head:
        msg = f"another record {held.seq}"
        raise Fork(msg)
