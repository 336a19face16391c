"""fsck of a log directory: every tile and bundle against the checkpoint, and the checkpoint against what was seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tcd.errors import ConfigError, VerificationError
from tcd.ledger.findings import Audit, open_noted
from tcd.ledger.tile_files import CHECKPOINT, TileDirectory
from tcd.receipts.errors import MalformedTile
from tcd.receipts.logcheck import OpenedLog
from tcd.receipts.merkle import leaf_hash
from tcd.receipts.report import VerifyPolicy
from tcd.receipts.seen import check_seen
from tcd.receipts.tile_proofs import TileLog
from tcd.receipts.tiles import WIDTH, Tile, split_tile, subtree_root, tiles_of, unpack_entries
from tcd.receipts.witnessing import Seen


def audit_log(
    root: Path, *, policy: VerifyPolicy, origin: str, seen: Seen | None = None, heads: Iterator[bytes] | None = None
) -> Audit:
    """Check a log directory.

    Args:
        root: the directory.
        policy: pinned checkpoint keys and witnesses.
        origin: of the log.
        seen: a checkpoint that the auditor saw before.
        heads: heads of a ledger in order, which the entries must be; None = not compared.

    Raises:
        tcd.errors.ConfigError: it is no log directory, or a file cannot be read.
    """
    directory, audit = TileDirectory(root), Audit()
    try:
        note = directory.checkpoint()
        if note is None:
            msg = f"{root} has no checkpoint"
            raise ConfigError(msg)
        opened = open_noted(audit, "checkpoint", note, origin, policy)
        if opened is None:
            return audit
        witnesses = policy.witnesses
        if witnesses is not None:
            audit.attempt("checkpoint", lambda: witnesses.check(opened.witnesses))
        _tiles(directory, opened, audit, heads)
        log = TileLog(opened.head.size, directory.read)
        audit.attempt("log", lambda: _root(log, opened))
        _stray(directory, log, audit)
        audit.attempt("log", lambda: check_seen(seen, opened.head, _path(log, seen)))
    except OSError as error:
        msg = f"{root} cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    if audit.ok:
        audit.newest = (origin, Seen(opened.head.size, opened.head.root, note))
    return audit


def _root(log: TileLog, opened: OpenedLog) -> None:
    if log.root() != opened.head.root:
        msg = "the tiles do not lead to the root of the checkpoint"
        raise MalformedTile(msg)


def _path(log: TileLog, seen: Seen | None) -> tuple[bytes, ...] | None:
    if seen is None or not 0 < seen.size < log.size:
        return () if seen is not None and seen.size == 0 else None
    return log.consistency(seen.size)


def _tiles(directory: TileDirectory, opened: OpenedLog, audit: Audit, heads: Iterator[bytes] | None) -> None:
    """Every tile is the hashes of what is below it, from the entries up."""
    size = opened.head.size
    audit.counts["leaves"] = size
    for tile in tiles_of(size):
        audit.counts["files"] += 1
        try:
            content = directory.read(tile)
            if tile.level < 0:
                entries = unpack_entries(content, tile.width)
                below = [leaf_hash(item) for item in entries]
                upper = split_tile(Tile(0, tile.index, tile.width), directory.read(Tile(0, tile.index, tile.width)))
                if heads is not None:
                    _compare(entries, heads, tile, audit)
            elif tile.level == 0:
                continue
            else:
                upper = split_tile(tile, content)
                below = [_below(directory, tile, number) for number in range(tile.width)]
        except VerificationError as error:
            audit.note(error.code, tile.path(), error.detail)
            continue
        if below != upper:
            wrong = next(at for at, pair in enumerate(zip(below, upper, strict=True)) if pair[0] != pair[1])
            audit.note("malformed_tile", tile.path(), f"hash {wrong} is not that of what is below it")
    if heads is not None and next(heads, None) is not None:
        audit.counts["ledger ahead of the log"] = 1


def _below(directory: TileDirectory, tile: Tile, number: int) -> bytes:
    lower = Tile(tile.level - 1, tile.index * WIDTH + number)
    return subtree_root(split_tile(lower, directory.read(lower)))


def _compare(entries: list[bytes], heads: Iterator[bytes], tile: Tile, audit: Audit) -> None:
    for number, item in enumerate(entries):
        if next(heads, None) != item:
            where = f"leaf {tile.index * WIDTH + number}"
            audit.note("inconsistent_log", where, "the ledger has another head there")
            return


def _stray(directory: TileDirectory, log: TileLog, audit: Audit) -> None:
    """Partial tiles of older checkpoints say what the log says; other files do not belong here."""
    # not rglob: the log may go on, and partial tiles go when theirs is full
    files = (Path(folder, name) for folder, _, names in os.walk(directory.root) for name in names)
    for path in sorted(files):
        name = path.relative_to(directory.root).as_posix()
        if name == CHECKPOINT or path.name.startswith("."):
            continue
        try:
            tile = Tile.from_path(name)
        except MalformedTile:
            audit.note("unknown_file", name)
            continue
        # a crash leaves tiles ahead of the checkpoint; the next export writes them again
        if tile.level >= 0 and (tile.index * WIDTH + tile.width) << (8 * tile.level) <= log.size:
            audit.attempt(name, lambda tile=tile: _same(directory, log, tile))  # type: ignore[misc]


def _same(directory: TileDirectory, log: TileLog, tile: Tile) -> None:
    try:
        content = (directory.root / tile.path()).read_bytes()
    except FileNotFoundError:
        return
    mine = split_tile(tile, content)
    theirs = [log.subtree(tile.level * 8, tile.index * WIDTH + number) for number in range(tile.width)]
    if mine != theirs:
        msg = "not what the log has there"
        raise MalformedTile(msg)
