"""What a log costs by its length: appends, roots, proofs made and checked, tiles as files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from tcd.bench.receipts.sample import ORIGIN, seed
from tcd.ledger.tile_files import TileDirectory
from tcd.receipts import SigningKey
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import CompactRange, MerkleTree, ProvableLog, check_consistency, check_inclusion, leaf_hash

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system, the names in it are random


def _entry(number: int) -> bytes:
    """In place of a head: any 32 bytes cost the same."""
    return number.to_bytes(32, "big")


def _cpu(work: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _each(work: Callable[[int], object], places: Sequence[int]) -> float:
    """CPU microseconds per place."""

    def every() -> None:
        for place in places:
            work(place)

    return round(_cpu(every) / len(places) * 1e6, 2)


def _grow(tree: MerkleTree, size: int) -> None:
    for number in range(len(tree), size):
        tree.append(_entry(number))


def _proofs(log: ProvableLog, places: Sequence[int]) -> dict[str, float]:
    """Microseconds to make proofs of a log and to check them; each is checked."""
    size, root = len(log), log.root()
    paths = {place: log.inclusion(place) for place in places}
    older = {place: (log.root(place + 1), log.consistency(place + 1)) for place in places}
    return {
        "inclusion_us": _each(log.inclusion, places),
        "check_inclusion_us": _each(
            lambda at: check_inclusion(at, size, leaf_hash(_entry(at)), paths[at], root), places
        ),
        "consistency_us": _each(lambda at: log.consistency(at + 1), places),
        "check_consistency_us": _each(
            lambda at: check_consistency(at + 1, size, older[at][0], root, older[at][1]), places
        ),
        "path": max(map(len, paths.values())),
    }


def measure(sizes: Sequence[int], *, proofs: int, tile_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Costs at each size of one log that grows.

    Args:
        sizes: leaves, ascending.
        proofs: places per size, drawn with a fixed seed.
        tile_sizes: those of the sizes at which the log is also written as files.
    """
    random, tree, compact = Random(20261126), MerkleTree(), CompactRange()
    rows: list[dict[str, Any]] = []
    signer = LogSigner(ORIGIN, [SigningKey(seed("log"))])
    # the files are synced one by one: in memory that takes no time, and what is measured is the CPU's
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as text:
        directory = TileDirectory(Path(text) / "log")
        for size in sizes:
            before = len(tree)
            append = _cpu(lambda size=size: _grow(tree, size)) / (size - before)  # type: ignore[misc]
            ranged = _cpu(
                lambda size=size, before=before: compact.extend(map(_entry, range(before, size)))  # type: ignore[misc]
            )
            if compact.root() != tree.root():
                raise AssertionError(size)
            places = [random.randrange(size) for _ in range(proofs)]
            row: dict[str, Any] = {
                "size": size,
                "append_us": round(append * 1e6, 3),
                "compact_append_us": round(ranged / (size - before) * 1e6, 3),
                "root_us": _each(lambda _: compact.root(), places),
                **_proofs(tree, places),
            }
            if size in tile_sizes:
                row["tiles"] = _tiles(directory, tree, signer, places)
            rows.append(row)
    return rows


def _tiles(directory: TileDirectory, tree: MerkleTree, signer: LogSigner, places: Sequence[int]) -> dict[str, Any]:
    """Costs of the same log as files; every proof reads its tiles anew."""
    old, size = directory.size(), len(tree)
    note = signer.checkpoint(size, tree.root())
    spent = _cpu(lambda: directory.export(map(_entry, range(old, size)), note))
    if directory.log().inclusion(places[0]) != tree.inclusion(places[0]):
        raise AssertionError(size)
    return {
        "export_us": round(spent / (size - old) * 1e6, 3),
        "inclusion_us": _each(lambda at: directory.log().inclusion(at), places[:200]),
    }
