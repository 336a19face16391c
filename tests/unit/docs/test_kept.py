"""Files that are made from code: written, found equal, found stale, found missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcd.kept import keep


def test_a_kept_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "folder" / "page"
    assert keep("m", {path: lambda: "é"}, ["--check"]) == 1
    assert not path.exists()
    assert keep("m", {path: lambda: "é"}, []) == 0
    assert path.read_bytes() == "é".encode()
    assert keep("m", {path: lambda: "é"}, ["--check"]) == 0
    assert keep("m", {path: lambda: "e"}, ["--check"]) == 1
    assert path.read_bytes() == "é".encode()
    assert capsys.readouterr().err == f"{path} is out of date: run python -m m\n" * 2
