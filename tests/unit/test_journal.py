"""Journals: durable, whole or cut, damage refused, one process at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import ConfigError, Unavailable
from tcd.journal import Journal, read


def written(path: Path, *values: Any) -> None:
    journal = Journal(path)
    journal.append(values)
    journal.close()


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, {"a": 1}, [1.5, "ü\n"])
    written(path, "more")
    assert read(path)[0] == [{"a": 1}, [1.5, "ü\n"], "more"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert read(tmp_path / "none") == ([], 0)


def test_every_cut_of_the_end_leaves_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, "one", "two")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        journal = Journal(path)
        assert journal.values == ["one"]
        journal.append(["three"])
        journal.close()
        assert read(path)[0] == ["one", "three"]


def test_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, "one", "two")
    data = bytearray(path.read_bytes())
    for at in range(data.index(b"\n")):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ConfigError, match=r"j:1: damaged"):
            Journal(path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(ConfigError, match="another process"):
        Journal(tmp_path / "j")
    journal.close()
    with pytest.raises(ConfigError, match="No such file"):
        Journal(tmp_path / "no" / "j")


def test_replacing_keeps_the_lock_and_appends_go_to_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append(["a", "b"])
    journal.replace(["ab"])
    journal.append(["c"])
    with pytest.raises(ConfigError, match="another process"):
        Journal(path)
    assert read(path)[0] == ["ab", "c"]


@pytest.mark.parametrize("short", [False, True])
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:  # noqa: FBT001
    journal, write = Journal(tmp_path / "j"), os.write
    journal.append(["a"])

    def full(file: int, data: bytes) -> int:
        if not short:
            raise OSError(28, "No space left on device")
        return write(file, data[:5])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable, match=r"No space left|disk is full"):
        journal.append(["b"])
    monkeypatch.undo()
    journal.append(["c"])
    assert read(tmp_path / "j")[0] == ["a", "c"]
