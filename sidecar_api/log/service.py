"""What the log answers to auditors, witnesses and holders of receipts. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar_api.log.checkpointer import Checkpointer, Published
from sidecar_api.log.heads_writer import HeadsWriter
from tcd.errors import NotFound, Unavailable, ValidationFailed
from tcd.ledger import Ledger, StoredReceipt
from tcd.receipts import KeySet, Receipt
from tcd.receipts.bundle import MAX_BUNDLE, MAX_ERASURES, write_bundle
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.erasure import ErasedBody, Left, is_named, runs_of
from tcd.receipts.errors import MalformedTile
from tcd.receipts.fast import read_json
from tcd.receipts.tiles import WIDTH, Tile, pack_entries
from tcd.receipts.verify_chain import MAX_RECORDS

#: Requests that may wait for a checkpoint at once, and for how long each.
_WAITING: Final = 256
MAX_WAIT_S: Final = 30.0
_BUNDLES: Final = 2
_HASHES_LEVELS: Final = 8


@dataclass(frozen=True, slots=True)
class Disclosed:
    """A receipt of the ledger with its place in the log.

    Attributes:
        index: of its leaf.
        receipt: as it was issued.
        proof: `tlog-proof@v1`, None until the next checkpoint.
    """

    index: int
    receipt: Receipt
    proof: str | None


class LogService:
    """The log's read-only side.

    Attributes:
        checkpointer: signs.
        keys: what verifiers should pin, as of now.
        heads: writes `heads` records; None = nobody does.
    """

    def __init__(self, ledger: Ledger, checkpointer: Checkpointer, keys: Callable[[], KeySet]) -> None:
        """Answer from `ledger` and the newest checkpoint of `checkpointer`; `keys` are what verifiers should pin."""
        self._ledger = ledger
        self.checkpointer = checkpointer
        self.keys = keys
        self.heads: HeadsWriter | None = None
        self._waiting = 0
        self._bundling = asyncio.Semaphore(_BUNDLES)

    def start(self) -> None:
        """Begin to sign, inside a running loop."""
        self.checkpointer.start()
        if self.heads is not None:
            self.heads.start()

    async def quiet(self) -> None:
        """Write no more records."""
        if self.heads is not None:
            await self.heads.stop()

    async def stop(self, *, timeout: float) -> None:
        """Sign what is there and end; whatever else writes receipts has ended."""
        await self.checkpointer.stop(timeout=timeout)

    def newest(self) -> Published:
        """The newest checkpoint.

        Raises:
            NotFound: there is none yet.
            Unavailable: the log is broken, and what it says would not be worth anything.
        """
        found = self.checkpointer.newest
        if self.checkpointer.broken:
            msg = "the log is not served: its operator has to look"
            raise Unavailable(msg)
        if found is None:
            msg = "the log has no checkpoint yet"
            raise NotFound(msg)
        return found

    async def tile(self, path: str) -> tuple[bytes, bool]:
        """Content of a tile or a bundle of entries, by its path under the log; and whether it is a full one.

        Raises:
            NotFound: no path of a tile, or one that the newest checkpoint does not have.
            Unavailable: its entries are not kept.
        """
        try:
            tile = Tile.from_path(path)
        except MalformedTile as error:
            raise NotFound(error.detail) from None
        shift = _HASHES_LEVELS * max(tile.level, 0)
        count = (self.newest().size >> shift) - tile.index * WIDTH
        if count < tile.width:
            msg = "the newest checkpoint has no such tile"
            raise NotFound(msg)
        if tile.level < 0:
            heads = await self._ledger.heads(first=tile.index * WIDTH, limit=tile.width)
            return pack_entries(heads), tile.width == WIDTH
        content = await self.checkpointer.work(lambda tree: tree.read(tile))
        return content, tile.width == WIDTH

    async def _stored(self, head: str) -> StoredReceipt:
        found = await self._ledger.get(head)
        if found is None:
            msg = "no receipt of this head"
            raise NotFound(msg)
        return found

    async def proof(self, head: str, *, wait: float = 0.0) -> bytes:
        """`tlog-proof@v1` of a receipt under the newest checkpoint.

        Args:
            head: of the receipt, 64 hex digits.
            wait: seconds to wait for a checkpoint that covers it.

        Raises:
            NotFound: no such receipt.
            Unavailable: no checkpoint covers it yet, or too many wait for one.
        """
        stored = await self._stored(head)
        return await self._proof(stored, await self._covering(stored.index, wait))

    async def _proof(self, stored: StoredReceipt, newest: Published) -> bytes:
        path = await self.checkpointer.work(lambda tree: tree.proofs(newest.size).inclusion(stored.index))
        return TlogProof(stored.index, path, newest.note, bytes.fromhex(stored.head)).write()

    async def _covering(self, index: int, wait: float) -> Published:
        checkpointer = self.checkpointer
        newest = checkpointer.newest
        if newest is not None and newest.size > index:
            return newest
        found: Published | None = None
        if wait and self._waiting < _WAITING:
            self._waiting += 1
            try:
                found = await checkpointer.after(index, timeout=wait)
            finally:
                self._waiting -= 1
        if found is None:
            msg = "no checkpoint covers this receipt yet"
            raise Unavailable(msg, retry_after=1.0)
        return found

    async def inclusion(self, index: int, size: int | None) -> tuple[int, tuple[bytes, ...]]:
        """Size of the log, and the proof that leaf `index` is in it.

        Raises:
            NotFound: the newest checkpoint has not so many leaves.
        """
        size = self._size(size)
        if not index < size:
            msg = f"no leaf {index} among {size}"
            raise NotFound(msg)
        return size, await self.checkpointer.work(lambda tree: tree.proofs(size).inclusion(index))

    async def consistency(self, old: int, size: int | None) -> tuple[int, tuple[bytes, ...]]:
        """Size of the log, and the proof that its first `old` leaves are its beginning.

        Raises:
            NotFound: the newest checkpoint has not so many leaves.
            ValidationFailed: `old` is beyond `size`.
        """
        size = self._size(size)
        if old > size:
            msg = f"{old} leaves are no beginning of {size}"
            raise ValidationFailed(msg, pointer="")
        return size, await self.checkpointer.work(lambda tree: tree.proofs(size).consistency(old))

    def _size(self, size: int | None) -> int:
        newest = self.newest()
        if size is None:
            return newest.size
        if size > newest.size:
            msg = f"the newest checkpoint has {newest.size} leaves"
            raise NotFound(msg)
        return size

    # -- receipts themselves: for those who may read them ----------------------------------------------------

    async def receipt(self, head: str) -> Disclosed:
        """A receipt with its proof, where there is one.

        Raises:
            NotFound: no such receipt, or its body was erased.
        """
        stored = await self._stored(head)
        if stored.receipt is None:
            msg = "the body of this receipt was erased"
            raise NotFound(msg)
        newest = self.checkpointer.newest
        proof: str | None = None
        if newest is not None and newest.size > stored.index:
            proof = (await self._proof(stored, newest)).decode()
        return Disclosed(stored.index, stored.receipt, proof)

    async def bundle(self, head: str, *, first: int = 0) -> bytes:
        """The chain of a receipt from record `first` on, as far as the newest checkpoint has it, as a bundle.

        Raises:
            NotFound: no such receipt, or nothing is kept of it.
            Unavailable: no checkpoint covers the records yet.
        """
        stored = await self._stored(head)
        if stored.kept is None:
            msg = "the body of this receipt is not kept"
            raise NotFound(msg)
        async with self._bundling:
            records = await self._ledger.chain_records(stored.kept.chain, first=first, limit=MAX_RECORDS)
            newest = self.checkpointer.newest
            covered = [record for record in records if newest is not None and record.index < newest.size]
            if newest is None or not covered:
                msg = "no checkpoint covers these records yet" if records else f"the chain has no record {first}"
                raise (Unavailable(msg, retry_after=1.0) if records else NotFound(msg))
            return await self._written(covered, newest)

    async def _written(self, records: Sequence[StoredReceipt], newest: Published) -> bytes:
        keys = self.keys()
        receipts = [record.receipt or _left(record, keys) for record in records]
        proofs: list[bytes] = []
        size = 0
        for record, receipt in zip(records, receipts, strict=True):
            proofs.append(await self._proof(record, newest))
            size += (0 if isinstance(receipt, Left) else len(receipt.body)) + 2 * len(receipt.sig) + len(proofs[-1])
            # quotes of the body are escaped in the file
            if size > MAX_BUNDLE * 3 // 4:
                break
        kept = records[: len(proofs)]
        erasures = await self._erasures([one.index for one in kept if one.receipt is None], newest)
        return await asyncio.to_thread(write_bundle, receipts[: len(proofs)], proofs=proofs, erasures=erasures)

    async def _erasures(self, places: Sequence[int], newest: Published) -> list[tuple[Receipt, bytes]]:
        """The `erase` records of these places that the checkpoint covers, and their proofs; at most as many as fit."""
        found: dict[int, tuple[Receipt, bytes]] = {}
        named: set[int] = set()
        for place in places:
            if place in named or len(found) == MAX_ERASURES:
                continue
            record = await self._ledger.erasure(place)
            # which record it is is only derived: what it says counts
            if record is None or record.receipt is None or record.receipt.typ != "erase" or record.index >= newest.size:
                continue
            runs = runs_of(read_json(record.receipt.body))
            if is_named(runs, place) and runs[-1][1] <= record.index:
                named.update(one for one in places if is_named(runs, one))
                found[record.index] = (record.receipt, await self._proof(record, newest))
        return list(found.values())


def _left(record: StoredReceipt, keys: KeySet) -> Left:
    """What a bundle has of a receipt whose body was erased."""
    stub = record.stub
    key = None if stub is None else keys.get(stub.kid)
    if stub is None or key is None:
        msg = "bodies of this chain are not kept, or their key is not known any more"
        raise NotFound(msg)
    body = ErasedBody(stub.kid, key.alg, key.origin, stub.tenant)
    return Left(bytes.fromhex(record.head), stub.sig, stub.seq, stub.prev, body)
