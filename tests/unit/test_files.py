"""A file is written whole or not at all, with its mode, and a failure leaves no rubbish."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tcd.files import SECRET, write_whole, writing


def test_a_file_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")
    write_whole(path, b"new", mode=SECRET)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_secret_is_never_readable_by_others_while_it_is_written(tmp_path: Path) -> None:
    with writing(tmp_path / "key", mode=SECRET) as file:
        file.write(b"seed")
        file.flush()
        (temporary,) = tmp_path.iterdir()
        assert temporary.stat().st_mode & 0o077 == 0


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")
    with pytest.raises(TypeError), writing(tmp_path / "a") as file:
        file.writelines([b"half", "not bytes"])  # type: ignore[list-item]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a", b"")


def test_what_a_killed_process_of_the_same_numbers_left_is_in_nobodys_way(tmp_path: Path) -> None:
    left = tmp_path / f".a.{os.getpid()}.{threading.get_ident()}.tmp"
    left.write_bytes(b"torn, and longer than what is written now")
    write_whole(tmp_path / "a", b"new", mode=SECRET)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not left.exists()


def test_the_data_is_synced_before_the_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        done.append("sync of the directory" if Path(f"/proc/self/fd/{fd}").is_dir() else "sync of the file")
        sync(fd)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_whole(tmp_path / "a", b"x")
    assert done == ["sync of the file", "rename", "sync of the directory"]
