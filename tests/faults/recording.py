"""What a process wrote, as strace saw it, and what a disk may hold of it after a power cut.

A write is sure to be there after an fsync of its file that began later and ended; before that any part of it may be,
in any order, sector by sector. A new or removed name is sure after an fsync of its directory. That is all POSIX gives.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SECTOR = 512
#: What of the writes that are not sure is on the disk.
MODES = ("nothing", "everything", "some", "torn", "late")
_CALLS = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink"
_LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\) += (-?\d+)(<[^>]*>)?(?: .*)? <(\d+\.\d+)>$")
_HEX = r'"((?:\\x[0-9a-f]{2})*)"'
_FD = r"(\d+)<((?:\\x[0-9a-f]{2})*)>"


def need_strace() -> None:
    """Skip by name where strace is not there or may not trace."""
    program = shutil.which("strace")
    if program is None or subprocess.run([program, "-qq", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("power-cut: no strace that may trace")


def strace(log: Path) -> list[str]:
    """The command that records."""
    options = ["-ff", "--seccomp-bpf", "-qq", "-ttt", "-T", "-y", "-xx", "-s", "10000000"]
    return ["strace", *options, "-e", f"trace={_CALLS}", "-o", str(log)]


@dataclass(frozen=True)
class Op:
    """Something that happened: `write`, `truncate`, `sync`, `create`, `remove` or `said`."""

    at: float
    kind: str
    path: str
    offset: int = 0
    data: bytes = b""
    began: float = 0.0


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _op(line: str, folder: str) -> Op | None:
    found = _LINE.match(line)
    if found is None or int(found.group(4)) < 0:
        return None
    start, call, args, status = float(found.group(1)), found.group(2), found.group(3), int(found.group(4))
    number, path = _target(args)
    if call == "write" and number == "1":
        return Op(start, "said", "", data=_data(args)[:status])
    if not path.startswith(folder):
        return None
    if call in {"fsync", "fdatasync"}:
        return Op(start + float(found.group(6)), "sync", path, began=start)
    if call == "openat":
        return Op(start, "create", path) if "O_CREAT" in args else None
    if call == "unlink":
        return Op(start, "remove", path)
    last = int(args.rsplit(",", 1)[1])
    if call == "ftruncate":
        return Op(start, "truncate", path, last)
    assert call == "pwrite64", "only writes with an offset are modelled"
    return Op(start, "write", path, last, _data(args)[:status])


def _target(args: str) -> tuple[str, str]:
    """Number and path of the file that a call is about; openat and unlink name it."""
    opened = re.match(_FD, args)
    if opened is not None:
        return opened.group(1), _bytes(opened.group(2)).decode()
    return "", _data(args).decode(errors="replace")


def _data(args: str) -> bytes:
    """The first string of the arguments."""
    found = re.search(_HEX, args)
    assert found is not None, args
    return _bytes(found.group(1))


def read(log: Path, folder: Path) -> list[Op]:
    """What all threads of a recorded process did in a folder, and said, in order."""
    ops: list[Op] = []
    for part in log.parent.glob(log.name + ".*"):
        with part.open() as lines:
            ops += [op for line in lines if (op := _op(line, str(folder))) is not None]
    return sorted(ops, key=lambda op: op.at)


@dataclass
class _File:
    """Content that is sure, and what came later."""

    sure: bytearray = field(default_factory=bytearray)
    later: list[Op] = field(default_factory=list)
    named: bool = False
    removed: bool = False


class Disk:
    """What is sure and what may be after some of the operations."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.files: dict[str, _File] = {}
        self.said = b""

    def apply(self, op: Op) -> None:
        if op.kind == "said":
            self.said += op.data
        elif op.kind == "create":
            known = self.files.get(op.path)
            if known is None or known.removed:
                self.files[op.path] = _File()
        elif op.kind == "remove":
            self.files[op.path].removed = True
        elif op.kind in {"write", "truncate"}:
            self.files[op.path].later.append(op)
        elif op.path == self.folder:
            for path, file in list(self.files.items()):
                file.named = True
                if file.removed:
                    del self.files[path]
        else:
            file = self.files[op.path]
            for sure in [late for late in file.later if late.at <= op.began]:
                _put(file.sure, sure)
            file.later = [late for late in file.later if late.at > op.began]

    def cut(self, into: Path, mode: str, random: np.random.Generator) -> None:
        """One state, by one of `MODES`, that the disk may be in when the power is cut now."""
        into.mkdir(mode=0o700)
        for path, file in self.files.items():
            if (not file.named or file.removed) and random.random() < 0.5:
                continue
            content = bytearray(file.sure)
            for number, op in enumerate(file.later):
                if mode == "torn":
                    _tear(content, op, random)
                elif {
                    "nothing": False,
                    "everything": True,
                    "some": random.random() < 0.5,
                    "late": number >= len(file.later) // 2,
                }[mode]:
                    _put(content, op)
            (into / Path(path).name).write_bytes(content)


def _put(content: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
        return
    content.extend(bytes(max(0, op.offset + len(op.data) - len(content))))
    content[op.offset : op.offset + len(op.data)] = op.data


def _tear(content: bytearray, op: Op, random: np.random.Generator) -> None:
    if op.kind == "truncate":
        if random.random() < 0.5:
            _put(content, op)
        return
    at = op.offset
    while at < op.offset + len(op.data):
        end = min(op.offset + len(op.data), (at // SECTOR + 1) * SECTOR)
        if random.random() < 0.5:
            _put(content, Op(op.at, "write", op.path, at, op.data[at - op.offset : end - op.offset]))
        at = end


def lines(said: bytes) -> list[Any]:
    """Whole lines of JSON."""
    return [json.loads(line) for line in said[: said.rfind(b"\n") + 1].splitlines()]
