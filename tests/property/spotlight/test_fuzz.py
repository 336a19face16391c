"""The fuzzing target on seeded mutations (always) and under coverage guidance (long)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.property.spotlight.fuzz import SEEDS, check

ROOT = Path(__file__).resolve().parents[3]
JUNK = (
    b'"',
    b"\\",
    b"\x1e",
    b"<",
    b"`",
    b"```\n",
    b"\n",
    b" ",
    b"{",
    b"}",
    b"[",
    b",",
    b"\xff",
    "\u200b".encode(),
    b"",
)


def mutated(random: Random) -> bytes:
    data = bytearray(random.choice(SEEDS))
    for _ in range(random.randrange(8)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at:at] = random.choice(JUNK)
            case 1:
                del data[at : at + random.randrange(4)]
            case 2:
                other = random.choice(SEEDS)
                start = random.randrange(len(other))
                data[at:at] = other[start : start + random.randrange(40)]
            case _:
                data[at : at + 1] = bytes([random.randrange(256)])
    return random.randbytes(2) + bytes(data)


def test_seeded_mutations() -> None:
    random = Random(20261125)  # noqa: S311 - reproducible
    rewritten = 0
    for _ in range(4000):
        outcome = check(mutated(random))
        rewritten += outcome is not None and outcome.body_rewritten
    assert rewritten > 500, "the mutations reach the marking"


@pytest.mark.long
def test_coverage_guided(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris: pip install tcd[fuzz]")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(SEEDS):
        for head in (b"\x00\x00", b"\x00\x02", b"\x10\x06", b"\x48\x02", b"\x01\x82"):
            (corpus / f"{index}-{head.hex()}").write_bytes(head + seed)
    seconds = os.environ.get("FUZZ_SECONDS", "600")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.property.spotlight.fuzz", f"-max_total_time={seconds}", "-max_len=512"),
            *(f"-artifact_prefix={tmp_path}/", "-timeout=10", str(corpus)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr
