"""tlog-tiles: paths and contents by the definition, proofs from tiles, atomic export that goes on after a crash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tcd.ledger.tile_files import TileDirectory
from tcd.receipts.errors import InconsistentLog, MalformedNote, MalformedTile
from tcd.receipts.merkle import EMPTY_ROOT, MerkleTree, leaf_hash
from tcd.receipts.tile_proofs import TileLog
from tcd.receipts.tiles import (
    WIDTH,
    Tile,
    TileBuilder,
    pack_entries,
    split_tile,
    tile_for,
    tiles_of,
    unpack_entries,
)
from tests.unit.receipts.simulator import LogSimulator

ENTRIES = [hashlib.sha256(b"%d" % number).digest() for number in range(70_000)]
SIZES = (0, 1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 70_000)


@pytest.fixture(scope="module")
def tree() -> MerkleTree:
    return MerkleTree(ENTRIES)


@pytest.fixture(scope="module")
def files(tree: MerkleTree) -> dict[Tile, bytes]:
    """Every tile that some size of SIZES has, by the definition."""
    made = {}
    for size in SIZES:
        for tile in tiles_of(size):
            span = WIDTH * tile.index, WIDTH * tile.index + tile.width
            if tile.level < 0:
                made[tile] = pack_entries(ENTRIES[slice(*span)])
            else:
                width = 256**tile.level
                hashes = [tree.range_root(n * width, (n + 1) * width) for n in range(*span)]
                made[tile] = b"".join(hashes)
    return made


def test_the_paths_are_those_of_the_specification() -> None:
    assert Tile(0, 1234067).path() == "tile/0/x001/x234/067"
    assert Tile(0, 0, 112).path() == "tile/0/000.p/112"
    assert Tile(-1, 273, 5).path() == "tile/entries/273.p/5"
    for tile in (Tile(0, 0), Tile(7, 999_999_999, 1), Tile(-1, 1000, 255)):
        assert Tile.from_path(tile.path()) == tile
    bad = (
        "tile/00/000",
        "tile/0/0",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/64/000",
        "tile/0/001/000",
        "/tile/0/000",
    )
    for path in (*bad, "tile/0/x000/001", "tile/0/000.p/01", "tile/0/000/", "tile/0/000\n", "tile/../000", ""):
        with pytest.raises(MalformedTile):
            Tile.from_path(path)


def test_the_example_of_the_specification() -> None:
    """A tree of 70,000: 273 full and one partial (112) at level 0, one full and one of 17 at 1, one of 1 at 2."""
    found = [tile for tile in tiles_of(70_000) if tile.level >= 0]
    by_level = [[tile.width for tile in found if tile.level == level] for level in range(4)]
    assert by_level == [[256] * 273 + [112], [256, 17], [1], []]
    assert [(t.level, t.width) for t in tiles_of(256) if t.level >= 0] == [(0, 256), (1, 1)]


def test_what_a_larger_log_adds_is_what_the_smaller_one_had_not() -> None:
    for old in SIZES:
        for new in SIZES:
            if old <= new:
                assert set(tiles_of(new, since=old)) == set(tiles_of(new)) - set(tiles_of(old))
    with pytest.raises(ValueError, match="grows"):
        tiles_of(1, since=2)


def test_the_builder_writes_the_tiles_of_the_definition(files: dict[Tile, bytes], tree: MerkleTree) -> None:
    builder = TileBuilder()
    made: dict[Tile, bytes] = {}
    assert builder.root() == EMPTY_ROOT
    for before, after in pairwise(SIZES):
        made.update(builder.extend(ENTRIES[before:after]))
        made.update(builder.partials())
        assert (len(builder), builder.root()) == (after, tree.root(after))
        builder = TileBuilder.resume(after, made.__getitem__)
    assert made == files


def test_proofs_from_tiles_are_those_of_the_tree(files: dict[Tile, bytes], tree: MerkleTree) -> None:
    for size in SIZES[1:]:
        log = TileLog(size, files.__getitem__)
        assert log.root() == tree.root(size)
        for index in {0, size // 3, size // 2, size - 1}:
            assert log.inclusion(index) == tree.inclusion(index, size)
            assert log.leaf(index) == leaf_hash(ENTRIES[index])
        for old in {0, 1, size // 3, size - 1, size}:
            assert log.consistency(old) == tree.consistency(old, size)
            assert log.root(old) == tree.root(old)
    for wrong in ((-1,), (5,)):
        with pytest.raises(ValueError, match="leaf"):
            TileLog(5, files.__getitem__).inclusion(*wrong)


def test_a_proof_reads_few_tiles(files: dict[Tile, bytes]) -> None:
    read: list[Tile] = []

    def counting(tile: Tile) -> bytes:
        read.append(tile)
        return files[tile]

    TileLog(70_000, counting).inclusion(12_345)
    assert len(read) <= 5


def test_tiles_of_a_wrong_width_and_bundles_with_a_wrong_count_are_refused() -> None:
    with pytest.raises(MalformedTile):
        split_tile(Tile(0, 0, 2), bytes(65))
    with pytest.raises(MalformedTile):
        tile_for(0, 5, 5)
    bundle = pack_entries([b"a", b"", b"bc"])
    assert unpack_entries(bundle, 3) == [b"a", b"", b"bc"]
    for bad, width in ((bundle, 2), (bundle, 4), (bundle[:-1], 3), (bundle + b"\0", 3), (b"\0", 1), (b"", 1)):
        with pytest.raises(MalformedTile):
            unpack_entries(bad, width)
    with pytest.raises(ValueError, match="65535"):
        pack_entries([bytes(65_536)])


def _log(size: int) -> LogSimulator:
    log = LogSimulator(witnesses=0)
    for item in ENTRIES[:size]:
        log.tree.append(item)
    return log


def test_export_in_steps_gives_a_directory_that_proves_everything(tmp_path: Path) -> None:
    log, directory = _log(1000), TileDirectory(tmp_path / "log")
    assert directory.checkpoint() is None
    size = 0
    for upto in (1, 5, 256, 300, 1000):
        written = directory.export(ENTRIES[size:upto], log.checkpoint(upto))
        assert written >= len(tiles_of(upto, since=size)) + 1
        size = upto
        found = directory.log()
        assert (found.size, found.root()) == (upto, log.tree.root(upto))
        assert found.inclusion(upto // 2) == log.tree.inclusion(upto // 2, upto)
    assert not list(tmp_path.rglob("*.tmp"))
    # partial tiles go when the full one is out, and are read from it
    partials = {Tile.from_path(path.relative_to(directory.root).as_posix()) for path in tmp_path.rglob("*.p/*")}
    assert {tile for tile in tiles_of(1000) if tile.width < 256} <= partials
    assert not any((directory.root / Tile(tile.level, tile.index).path()).exists() for tile in partials)
    assert directory.read(Tile(0, 0, 5)) == b"".join(map(leaf_hash, ENTRIES[:5]))
    assert unpack_entries(directory.read(Tile(-1, 0, 5)), 5) == ENTRIES[:5]
    for missing in (Tile(0, 9), Tile(-1, 9, 3), Tile(-1, 3, 233)):
        with pytest.raises(MalformedTile):
            directory.read(missing)


def test_entries_that_do_not_lead_to_the_checkpoint_leave_the_old_one(tmp_path: Path) -> None:
    log, directory = _log(600), TileDirectory(tmp_path)
    directory.export(ENTRIES[:300], log.checkpoint(300))
    before = directory.checkpoint()
    for wrong in (ENTRIES[300:599], ENTRIES[301:601], [*ENTRIES[300:599], b"x" * 32]):
        with pytest.raises(InconsistentLog):
            directory.export(wrong, log.checkpoint(600))
        assert directory.checkpoint() == before
        assert directory.log().root() == log.tree.root(300)
    directory.export(ENTRIES[300:600], log.checkpoint(600))
    assert directory.log().root() == log.tree.root(600)


class _Crash(OSError):
    pass


def _crashing(calls: int) -> Iterator[None]:
    yield from [None] * calls
    raise _Crash


@pytest.mark.parametrize("point", range(12))
def test_a_crash_at_any_file_leaves_a_log_and_the_next_export_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    log, directory = _log(700), TileDirectory(tmp_path)
    directory.export(ENTRIES[:250], log.checkpoint(250))
    steps, replace = _crashing(point), Path.replace

    def failing(self: Path, target: Any) -> Any:
        next(steps)
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        try:
            directory.export(ENTRIES[250:700], log.checkpoint(700))
        except _Crash:
            assert directory.size() == 250
    assert directory.log().root() == log.tree.root(directory.size())
    assert not list(tmp_path.rglob("*.tmp"))
    directory.export(ENTRIES[directory.size() : 700], log.checkpoint(700))
    assert directory.log().root() == log.tree.root(700)


def test_files_that_are_no_log_are_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"x" * 70_000)
    with pytest.raises(MalformedTile):
        TileDirectory(tmp_path).size()
    (tmp_path / "checkpoint").write_bytes(b"nothing")
    with pytest.raises(MalformedNote):
        TileDirectory(tmp_path).size()
