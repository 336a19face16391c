"""The power goes: what was answered is there, what was spent stays spent, nothing that is there is half there.

Two methods. A recorded run is cut at any moment and every disk that POSIX allows then is a start (sectors torn, writes
reordered). And a real ext4 is shut down under a running process, without its journal being written.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.ledger import SqliteLedger
from tcd.risk_av.events import Event
from tests.conftest import ROOT
from tests.faults import decider, recording
from tests.faults.forked import Forked
from tests.faults.test_kill import check


def record(directory: Path, *, answers: int, seed: int, pragmas: tuple[str, ...]) -> list[recording.Op]:
    """Operations of a decider that was killed after so many answers."""
    log, data = directory / "log", directory / "data"
    process = subprocess.Popen(
        [*recording.strace(log), sys.executable, "-m", "tests.faults.decider", str(data), str(seed), *pragmas],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("TCD_")},
    )
    assert process.stdout is not None
    pid = json.loads(process.stdout.readline())["pid"]
    for _ in range(answers):
        assert process.stdout.readline()
    os.kill(pid, signal.SIGKILL)
    process.stdout.read()
    process.wait()
    process.stdout.close()
    return recording.read(log, data)


async def contents(directory: Path) -> tuple[list[bytes], tuple[Event, ...]]:
    ledger = SqliteLedger(directory)
    heads, page = await ledger.heads(limit=10**6), await ledger.events(limit=10**6)
    await ledger.close()
    return list(heads), page.events


async def cuts(
    directory: Path, count: int, *, answers: int, seed: int, pragmas: tuple[str, ...] = ()
) -> dict[str, int]:
    """Cut a recorded run `count` times; how often each kind of disk was tried."""
    ops = record(directory, answers=answers, seed=seed, pragmas=("wal_autocheckpoint=60", *pragmas))
    syncs = [op.path for op in ops if op.kind == "sync"]
    assert {Path(path).suffix for path in syncs} >= {".sqlite", ".sqlite-wal"}, "the WAL was never copied back"
    heads, events = await contents(directory / "data")
    random = np.random.default_rng(seed)
    at = np.sort(random.choice(len(ops), size=count, replace=False))
    disk, done = recording.Disk(directory / "data"), 0
    tried: dict[str, int] = {}
    for number, cut in enumerate(at):
        for op in ops[done : cut + 1]:
            disk.apply(op)
        done = cut + 1
        into = directory / f"cut{number}"
        # in turn: which operations there are, and so what is drawn for them, differs between runs
        mode = recording.MODES[number % len(recording.MODES)]
        disk.cut(into, mode, random)
        tried[mode] = tried.get(mode, 0) + 1
        there = await contents(into)
        assert there[0] == heads[: len(there[0])], "a head went back or changed"
        assert there[1] == events[: len(there[1])], "the log is no prefix of what was written"
        await check(into, recording.lines(disk.said))
    return tried


async def test_thirty_cuts_of_a_recorded_run(tmp_path: Path) -> None:
    recording.need_strace()
    tried = await cuts(tmp_path, 30, answers=200, seed=5)
    assert len(tried) == 5


async def test_the_method_sees_what_less_than_full_synchronisation_loses(tmp_path: Path) -> None:
    recording.need_strace()
    with pytest.raises(AssertionError, match="an answered decision is lost"):
        await cuts(tmp_path, 30, answers=200, seed=5, pragmas=("synchronous=NORMAL",))


@pytest.mark.long
async def test_six_hundred_cuts_of_recorded_runs(tmp_path: Path) -> None:
    recording.need_strace()
    for seed in range(6):
        (tmp_path / str(seed)).mkdir()
        await cuts(tmp_path / str(seed), 100, answers=300, seed=10 + seed)


class Ext4:
    """A file system of its own on a loop device, which can be shut down as if the power went."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "mnt"
        self.mount.mkdir()
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        try:
            run("mkfs.ext4", "-q", str(image))
            self.loop = run("losetup", "-f", "--show", str(image)).strip()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("power-cut: no loop device can be had here")
        self.start(first=True)

    def start(self, *, first: bool = False) -> None:
        try:
            run("mount", self.loop, str(self.mount))
        except (OSError, subprocess.CalledProcessError):
            run("losetup", "-d", self.loop)
            if first:
                pytest.skip("power-cut: ext4 cannot be mounted here")
            raise

    def cut(self) -> None:
        """EXT4_GOING_FLAGS_NOLOGFLUSH: nothing more is written, not even the journal."""
        fd = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 2))
        os.close(fd)

    def stop(self) -> None:
        run("umount", str(self.mount))

    def end(self) -> None:
        self.stop()
        run("losetup", "-d", self.loop)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def ext4_cuts(folder: Path, count: int, *, seed: int) -> int:
    """Cut the power of a decider's file system `count` times, one life after the other; answers that were checked."""
    random = np.random.default_rng(seed)
    disk = Ext4(folder)
    said: list[Any] = []
    checked = 0
    try:
        for number in range(count):
            said += decide_until_cut(disk, seed * 1000 + number, answers=int(random.integers(1, 80)))
            checked += sum("receipt" in line for line in said)
            await check(disk.mount / "data", said)
    finally:
        disk.end()
    return checked


def decide_until_cut(disk: Ext4, seed: int, *, answers: int) -> list[Any]:
    """What a process said whose power went after so many answers."""
    process = Forked(decider.start, str(disk.mount / "data"), str(seed), "wal_autocheckpoint=60")
    said = process.lines(answers + 1)
    # stopped first: else an fsync that the shutdown interrupts may be taken for one that succeeded
    os.kill(process.pid, signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.001)
    disk.cut()
    process.kill()
    said += process.rest()
    disk.stop()
    disk.start()
    return recording.lines(said)


@pytest.mark.root
async def test_three_power_cuts_of_a_file_system(tmp_path: Path) -> None:
    assert await ext4_cuts(tmp_path, 3, seed=1)


@pytest.mark.root
@pytest.mark.long
async def test_sixty_power_cuts_of_file_systems(tmp_path: Path) -> None:
    for block in range(6):
        (tmp_path / str(block)).mkdir()
        assert await ext4_cuts(tmp_path / str(block), 10, seed=10 + block)
