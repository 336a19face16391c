"""A body's schema told in one match of its text, against the checks member by member: the same verdict."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tcd.receipts import KeySet, SigningKey, VerifyPolicy, canonical, head_of, signature_input, verify_single
from tcd.receipts.errors import SchemaMismatch
from tcd.receipts.members import TYPES
from tcd.receipts.schema import Shape, integer, text, u64
from tests.property.receipts.targets import bodies, read_both_ways
from tests.property.receipts.test_targets import mutated
from tests.unit.receipts.conftest import issuer

VERIFIER = Path(__file__).resolve().parents[3] / "docs" / "verifier" / "verify.mjs"
NODE = shutil.which("node")

#: At the edges of what members may be, and of other types.
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 15, 16, 16_384, 16_385, 2**53 - 1, -(2**53) + 1, 9_999_999_999_999_999, True, False, None, [], {}),
    *("", "a", "A", "a" * 128, "a" * 129, "é" * 128, "\u0301", '"', "\\", "\x7f", "\U0001f602", "a\u2028b", "0", "00"),
    *(str(2**64 - 1), str(2**64), "18446744073709551609", "18399999999999999999", "9" * 19, "9" * 20, "-1"),
    *("0" * 16, "8" + "0" * 15, "7ff" + "0" * 13, "fff" + "0" * 13, "7fe" + "f" * 13, "G" * 16, "0" * 32, "0" * 64),
    *("sha256:" + "0" * 64, "sha256:" + "0" * 63, "open", "close", "decision", "uniform", "omega", "session", "epoch"),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, child in inner for place in _places(child, (*path, name)))]


def _changed(random: Random, value: Any, others: list[Any]) -> Any:
    """One member replaced, removed, renamed, doubled or added."""
    value = copy.deepcopy(value)
    *path, last = random.choice([place for place in _places(value) if place])
    parent = value
    for name in path:
        parent = parent[name]
    match random.randrange(5):
        case 0 | 1:
            parent[last] = random.choice(VALUES)
        case 2:
            other = random.choice(others)
            parent[last] = copy.deepcopy(other.get(last, other) if isinstance(last, str) else other)
        case 3:
            del parent[last]
        case _ if isinstance(parent, list):
            parent += [parent[last]] * random.choice((1, 8, 16))
        case _:
            parent[random.choice(("z", "a", "v", "eproc", "open", "k" * 32, f"{last}_"))] = parent[last]
    return value


@pytest.mark.parametrize("count", [8_000, pytest.param(400_000, marks=pytest.mark.long)])
def test_changed_members(count: int) -> None:
    random = Random(20261126)  # noqa: S311 - reproducible
    honest = [canonical.parse(body) for body in bodies()]
    seen: Counter[tuple[str, bool]] = Counter()
    for _ in range(count):
        value = _changed(random, random.choice(honest), honest)
        if random.random() < 0.2:
            value = _changed(random, value, honest)
        body = canonical.write(value)
        seen[str(value.get("typ")), read_both_ways(body) is not None] += 1
    for typ in TYPES:
        assert min(seen[typ, True], seen[typ, False]) > count / 500, seen


@pytest.mark.parametrize("count", [4_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_changed_bytes(count: int) -> None:
    random, corpus = Random(20261127), bodies()  # noqa: S311 - reproducible
    taken = Counter(read_both_ways(mutated(random, corpus)) is not None for _ in range(count))
    assert min(taken.values()) > count / 10, taken


@pytest.mark.parametrize(
    ("check", "values"),
    [(integer(0, high), range(1200)) for high in (0, 1, 9, 10, 15, 64, 99, 100, 101, 999, 1000, 1001, 1199)]
    + [(integer(1, 1000), range(1200)), (integer(-105, 105), range(-120, 121)), (text(3, 1), ["", "a", "éêë", "abcd"])]
    + [(u64, [*(str(2**64 + step) for step in range(-3000, 3000, 7)), str(2**64 - 1), "", "00", "0", "-1"])],
)
def test_numbers_and_texts_to_their_limits(check: Shape, values: Any) -> None:
    assert check.expression is not None
    expression = re.compile(check.expression)
    for value in values:
        fine = True
        try:
            check(value)
        except SchemaMismatch:
            fine = False
        assert (expression.fullmatch(canonical.write(value).decode()) is not None) is fine, value


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("count", [2_500, pytest.param(60_000, marks=pytest.mark.long)])
def test_the_second_verifier_reads_members_alike(tmp_path: Path, count: int) -> None:
    """Changed bodies, signed by the issuer's own key: verdict and code are those of ours."""
    random, made = Random(20261128), issuer()  # noqa: S311 - reproducible
    key = SigningKey(hashlib.sha256(bytes([1])).digest())
    policy = VerifyPolicy(KeySet([made.pinned()]))
    honest = [canonical.parse(body) for body in bodies()]
    expected, rows = [], []
    for _ in range(count):
        value = _changed(random, random.choice(honest), honest)
        body = canonical.write(value)
        head = head_of(body)
        sig = key.sign(signature_input(suite="Ed25519", kid=key.kid, head=head)).hex()
        report = verify_single(body, head=head.hex(), sig=sig, policy=policy)
        expected.append((report.ok, report.code))
        rows.append(json.dumps([{"receipt": head.hex(), "receipt_body": body.decode(), "receipt_sig": sig}]))
    (tmp_path / "keys.json").write_text(json.dumps(policy.keys.to_json()))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    command = [str(NODE), str(VERIFIER), "keys.json", "rows.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    theirs = [(found["ok"], found["code"]) for found in map(json.loads, done.stdout.splitlines())]
    different = [(a, b, row) for a, b, row in zip(expected, theirs, rows, strict=True) if a != b]
    assert not different, different[:3]
    verdicts = Counter(ok for ok, _ in expected)
    assert min(verdicts.values()) > count / 50, verdicts
