"""Every write and sync of the ledger fails: the error is heard of, nothing is said to be stored that is not, and when
the disk is well again a start finds all that was.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import ConfigError, Unavailable
from tcd.ledger import Batch, SqliteLedger
from tcd.ledger.sqlite import FILE
from tcd.risk_av import Controller, Reserved
from tests.conftest import ROOT
from tests.faults import recording
from tests.faults.writer import PARAMS
from tests.unit.ledger.records import records

FAULTS = (
    ("pwrite64", "error=EIO"),
    ("pwrite64", "error=ENOSPC"),
    ("fdatasync", "error=EIO"),
    ("ftruncate", "error=EIO"),
)
KILLS = (("pwrite64", "signal=KILL"), ("fdatasync", "signal=KILL"))


@dataclass
class Run:
    """What a writer said on a failing disk, and on which files it failed."""

    said: list[Any]
    status: int
    hit: Counter[str]
    warned: bool

    @property
    def heard(self) -> bool:
        return self.status != 0 or self.warned or any("failed" in line for line in self.said)


def run(directory: Path, call: str, fault: str, when: str, commits: int) -> Run:
    """Run a writer while calls on the ledger's files fail."""
    data, log = directory / "data", directory / "strace"
    data.mkdir(parents=True)
    paths = [option for name in (FILE, f"{FILE}-wal", f"{FILE}-journal") for option in ("-P", str(data / name))]
    command = ["strace", "-f", "-qq", "-y", "-o", str(log), *paths, "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:{fault}:when={when}", sys.executable, "-m", "tests.faults.writer", str(data)]
    done = subprocess.run([*command, str(commits)], cwd=ROOT, capture_output=True, check=False)
    if done.returncode not in {0, -9, 137}:
        # heard at the start: a reason, no traceback
        assert b"config" in done.stderr, done.stderr
        assert b"Traceback" not in done.stderr, done.stderr
    failed = [line for line in log.read_text().splitlines() if "INJECTED" in line]
    hit = Counter("wal" if "-wal>" in line else "journal" if "-journal>" in line else "database" for line in failed)
    # a state that was not saved is a warning: it is derived, and nobody waits for it
    return Run(recording.lines(done.stdout), done.returncode, hit, b"was not saved" in done.stderr)


async def check(directory: Path, found: Run, commits: int) -> None:
    """Start again without a fault."""
    ledger = SqliteLedger(directory / "data")
    events = (await ledger.events(limit=10**6)).events
    controller = Controller.replay(events, PARAMS)
    reserved = {event.hypothesis for event in events if isinstance(event, Reserved)}
    for line in found.said:
        if "done" in line:
            name = str(line["done"])
            assert name in reserved, "a decision that was acknowledged has no reservation"
            stored = await ledger.get(line["head"])
            assert stored is not None
            assert stored.receipt is not None
            assert await ledger.answer("t", name, now_us=0) is not None
            assert await ledger.chain(stored.receipt.chain) is not None
    if found.said and found.said[-1] == {"end": True} and not any("failed" in line for line in found.said[-2:]):
        # events of failed commits came with later ones: the log has no hole
        assert reserved == {str(i) for i in range(commits)}
    for count in await ledger.states():
        assert Controller.replay(events[:count], PARAMS).save() == (await ledger.state(count)).data
    controller.reserve(stream="s", hypothesis="after")
    size = (await ledger.stats()).events
    assert (await ledger.append(Batch(events=controller.take_events()), now_us=0)).events > size
    await ledger.close()


async def trial(directory: Path, call: str, fault: str, when: str, commits: int = 16) -> Run:
    found = run(directory, call, fault, when, commits)
    await check(directory, found, commits)
    if call == "pwrite64" and found.hit["wal"] and "error" in fault:
        assert found.heard, "a commit that could not be written was not heard of"
    return found


@pytest.mark.parametrize(("call", "fault"), FAULTS)
async def test_failures_again_and_again(tmp_path: Path, call: str, fault: str) -> None:
    recording.need_strace()
    hit: Counter[str] = Counter()
    for first in (3, 8, 20):
        found = await trial(tmp_path / str(first), call, fault, f"{first}+9")
        hit += found.hit
        assert sum("done" in line for line in found.said) or found.status
    assert hit or call == "ftruncate", "no fault was met"


@pytest.mark.parametrize(("call", "fault"), KILLS)
async def test_a_kill_at_a_call(tmp_path: Path, call: str, fault: str) -> None:
    recording.need_strace()
    for at in (6, 17):
        assert (await trial(tmp_path / str(at), call, fault, str(at))).status != 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of half a megabyte."""
    mount = tmp_path / "mnt"
    mount.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tcd", str(mount)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("power-cut: no tmpfs can be mounted here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def remount(mount: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(mount)], check=True, capture_output=True)


async def append(ledger: SqliteLedger, number: int) -> list[str]:
    """Heads of a batch that was acknowledged, none when it was refused with a reason."""
    batch = Batch(tuple(records(f"{number}", 8)))
    try:
        await ledger.append(batch, now_us=0)
    except Unavailable:
        return []
    return [receipt.head_hex for receipt in batch.receipts]


@pytest.mark.root
async def test_a_full_disk_and_one_that_turned_read_only(small_disk: Path) -> None:
    ledger = SqliteLedger(small_disk / "data")
    kept: list[str] = []
    refused = 0
    for number in range(100):
        heads = await append(ledger, number)
        kept += heads
        refused += not heads
    assert kept
    assert refused > 10
    remount(small_disk, "size=8m")
    more = await append(ledger, 1000)
    assert more, "there is room again"
    # an open file that was made for writing goes on through a remount: the ledger is opened on what cannot be written
    await ledger.close()
    remount(small_disk, "ro")
    with pytest.raises(ConfigError, match="cannot be"):
        SqliteLedger(small_disk / "data")
    remount(small_disk, "rw")
    ledger = SqliteLedger(small_disk / "data")
    for head in kept + more:
        assert await ledger.get(head) is not None
    assert (await ledger.stats()).receipts == len(kept + more)
    assert await append(ledger, 1001)
    await ledger.close()


@pytest.mark.long
@pytest.mark.parametrize(("call", "fault"), FAULTS + KILLS)
async def test_one_failure_at_every_call(
    tmp_path: Path, call: str, fault: str, record_property: Callable[[str, object], None]
) -> None:
    recording.need_strace()
    heard: Counter[str] = Counter()
    for at in range(1, 2000):
        found = await trial(tmp_path / str(at), call, fault, str(at), commits=8)
        if not found.hit and "KILL" not in fault:
            break
        if found.status == 0 and "KILL" in fault:
            break
        heard["heard" if found.heard else "swallowed"] += 1
    record_property("faults", dict(heard))
    assert heard["heard"] or call == "ftruncate"
