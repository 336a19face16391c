"""`tcd replay`: the same twice is the same, a candidate's differences are found, exit statuses are for CI."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from typer.testing import CliRunner

from sidecar_api.app import create_app
from sidecar_api.http.surface import ShimApp
from sidecar_api.pins import FixedAssets
from sidecar_api.traffic import Line, items_of, replayed
from sidecar_api.traffic.inprocess import in_process
from sidecar_api.traffic.live import Live
from sidecar_api.traffic.receipts import Receipts
from sidecar_api.traffic.synthetic import synthetic
from tcd import deadlines
from tcd.calibration.store import default_asset_dir, load_assets, write_asset, write_manifest
from tcd.cli.main import app
from tcd.config import Settings
from tcd.receipts import PinnedKey, SigningKey
from tcd.routing.policy import DEFAULT_POLICY
from tcd.rows import ScoreResult, ScoreRow
from tcd.scoring import LibraryScorer
from tests.conftest import ROOT

BLOCKS = '[[policy]]\nname = "strict"\nversion = 1\n[[policy.decision]]\nname = "sure"\nwhen = {score = 0.99}\n'
BLOCKS += 'action = "block"\n'
SEED = "22" * 32
#: Of a dictionary, whose members the type checker does not ask for.
PLAIN: dict[str, Any] = {}


@pytest.fixture(scope="module")
def recorded() -> list[Line]:
    """Three recorded generations, two of which are caught."""
    found = [i for i in items_of(ROOT / "tests" / "data" / "traces_small") if isinstance(i, Line)]
    names = sorted({line.request.session for line in found})
    wanted = {next(n for n in names if n.startswith(kind)) for kind in ("healthy", "temperature", "loop")}
    return [line for line in found if line.request.session in wanted]


@pytest.fixture
def jsonl(tmp_path: Path, recorded: list[Line]) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(line.request) + b"\n" for line in recorded[:400]))
    return path


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    path = tmp_path / "candidate.toml"
    path.write_text(BLOCKS)
    return path


def tcd(*arguments: Any, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)], env=env)


async def test_the_same_settings_decide_the_same(recorded: list[Line]) -> None:
    async with in_process("a", Settings(**PLAIN), seed=1) as a, in_process("b", Settings(**PLAIN), seed=2) as b:
        found = await replayed(recorded, [a, b])
    assert found.status == 0
    assert found.diff is not None
    assert (found.diff.changed, found.diff.moved, found.diff.same) == (0, 0, len(recorded))
    # it would be no test if nothing was ever decided but allow
    assert set(found.sides[0].actions) == {"allow", "degrade"}


async def test_sides_of_the_same_assets_score_a_row_once(recorded: list[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    scored = 0
    score_rows = LibraryScorer.score_rows

    def counted(self: LibraryScorer, rows: list[ScoreRow]) -> list[ScoreResult]:
        nonlocal scored
        scored += len(rows)
        return score_rows(self, rows)

    monkeypatch.setattr(LibraryScorer, "score_rows", counted)
    lines = recorded[:200]
    found = []
    for beside in (False, True):
        scored = 0
        async with (
            in_process("a", Settings(**PLAIN), seed=1) as a,
            in_process("b", Settings(**PLAIN), seed=2, beside=a if beside else None) as b,
        ):
            found.append((await replayed(lines, [a, b])).to_json())
        for side in found[-1]["sides"]:
            del side["latency"]
        assert scored == len(lines) * (1 if beside else 2)
    assert found[0] == found[1]


async def test_a_side_takes_the_time_that_it_would_take_alone(
    recorded: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    score_rows = LibraryScorer.score_rows

    def slow(self: LibraryScorer, rows: list[ScoreRow]) -> list[ScoreResult]:
        time.sleep(0.1)
        return score_rows(self, rows)

    monkeypatch.setattr(LibraryScorer, "score_rows", slow)
    async with (
        in_process("a", Settings(**PLAIN), seed=1) as a,
        in_process("b", Settings(**PLAIN), seed=2, beside=a) as b,
    ):
        for line in recorded[:3]:
            assert min([(await side.decide(line)).seconds for side in (a, b)]) >= 0.1


async def test_no_request_is_remembered_after_its_answer() -> None:
    """What had a deadline was kept until it had passed: 600 bytes a request, for a minute."""
    kept = deadlines.of(asyncio.get_running_loop())
    async with in_process("a", Settings(**PLAIN)) as side:
        began = len(kept)
        found = await replayed(synthetic(200, seed=0), [side])
    assert (found.requests, found.status) == (200, 0)
    assert len(kept) == began


def test_a_candidate_policy_is_compared(jsonl: Path, candidate: Path) -> None:
    same = tcd("--in-process", "--jsonl", jsonl, "--candidate-config", _config(candidate.parent), "--json")
    assert same.exit_code == 0, same.output
    done = tcd("--in-process", "--jsonl", jsonl, "--candidate-policies", candidate, "--json")
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    assert found["status"] == "different"
    diff = found["diff"]
    assert {b for a, b, _ in diff["actions"] if a != b} == {"block"}
    assert sum(n for _, _, n in diff["actions"]) == diff["same"] + diff["changed"] == found["requests"]
    assert all(a == b for a, b, _ in diff["verdicts"])
    first = diff["first_differing"][0]
    assert diff["examples"][0]["line"] == first["line"]
    assert diff["examples"][0]["candidate"]["policy_ref"].startswith("strict@1#")
    text = tcd("--in-process", "--jsonl", jsonl, "--candidate-policies", candidate)
    assert text.exit_code == 1
    assert f"{diff['changed']} decisions differ, {diff['same']} are the same" in text.stdout
    assert f"first in {first['session']}: line {first['line']}, step {first['step']}: action" in text.stdout


def _config(folder: Path) -> Path:
    path = folder / "same.toml"
    path.write_text('log_level = "warning"\n')
    return path


def test_a_candidate_calibration_is_compared(jsonl: Path, tmp_path: Path) -> None:
    """Without any asset of the key nothing is found any more."""
    empty = tmp_path / "empty"
    write_manifest(empty, bindings=[], default=None, policies={0: write_asset(empty, DEFAULT_POLICY)})
    done = tcd("--in-process", "--jsonl", jsonl, "--candidate-assets", empty, "--json")
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    assert ["degrade", "allow"] in [[a, b] for a, b, _ in found["diff"]["actions"]]
    assert found["sides"][1]["actions"] == {"allow": found["requests"]}
    assert any("no calibration" in name for name in found["sides"][1]["guarantees"])


def test_a_bad_line_is_an_error_and_the_others_are_replayed(jsonl: Path) -> None:
    lines = jsonl.read_bytes().splitlines(keepends=True)
    jsonl.write_bytes(b"".join([*lines[:7], b'{"trace_vector": ["x"]}\n', *lines[7:]]))
    done = tcd("--in-process", "--jsonl", jsonl, "--json")
    assert done.exit_code == 2
    found = json.loads(done.stdout)
    assert (found["requests"], found["bad_lines"]) == (len(lines), 1)
    assert found["bad"] == [{"line": 8, "reason": "/trace_vector/0: Expected float, got str"}]


def test_receipts_are_verified_as_they_come() -> None:
    done = tcd("--in-process", "--synthetic", "--count", 100, "--seed", 3, "--verify", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sides"][0]["receipts"] == {"ok": 100}


WRONG: dict[str, tuple[list[str], str]] = {
    "nothing to replay": (["--in-process"], "one of --jsonl and --synthetic"),
    "two of them": (["--in-process", "--synthetic", "--jsonl", "x"], "one of --jsonl and --synthetic"),
    "nowhere to": (["--synthetic"], "--url, TCD_REPLAY_URL or --in-process"),
    "two places": (["--synthetic", "--in-process", "--url", "http://127.0.0.1:1"], "one of --url and --in-process"),
    "a shim has its own": (["--synthetic", "--url", "http://127.0.0.1:1", "--assets", "."], "a shim has its own"),
    "no keys": (["--synthetic", "--url", "http://127.0.0.1:1", "--verify"], "--verify needs --keyset"),
    "nobody there": (["--synthetic", "--url", "http://127.0.0.1:1"], "ConnectError"),
    "no URL": (["--synthetic", "--url", "nonsense"], "baseline nonsense"),
    "no such file": (["--in-process", "--jsonl", "/nowhere.jsonl"], "No such file"),
    "no assets": (["--in-process", "--synthetic", "--candidate-assets", str(ROOT / "docs")], "manifest"),
    "a bad bundle": (["--in-process", "--synthetic", "--policies", str(ROOT / "pyproject.toml")], "pyproject.toml"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_with_2(name: str) -> None:
    arguments, why = WRONG[name]
    done = tcd(*arguments)
    assert done.exit_code == 2, done.output
    assert why in done.stderr


def shim(**changes: Any) -> ShimApp:
    values: dict[str, Any] = {"attest_sk_hex": SEED, "ledger": "memory", "http_rate_cap": 1e9, "slo_ms": 1e9}
    # a stalled machine must not make a step a degraded one
    settings = Settings(**{**values, "deadline_ms": 6e5, "deadline_max_ms": 6e5, **changes})
    assets = load_assets(default_asset_dir())
    return create_app(settings, scorer=LibraryScorer(assets), assets=FixedAssets(assets))


def pinned(served: ShimApp) -> Any:
    receipts = served.runtime.service.judge.receipts
    assert receipts is not None
    return receipts.issuer.pinned()


async def test_a_live_shim_with_the_same_settings_is_no_other() -> None:
    """Over HTTP, with several sessions at once, verified, against the same in process."""

    served = shim()
    receipts = Receipts.of_issuer(pinned(served))
    async with (
        Live("live", "http://test", connections=8, receipts=receipts, transport=httpx2.ASGITransport(served)) as live,
        in_process("here", Settings(**PLAIN)) as here,
    ):
        await live.reachable()
        found = await replayed(synthetic(600, seed=4), [live, here], concurrency=8)
    assert found.status == 0, found.lines()
    assert found.sides[0].receipts == {"ok": 600}
    assert found.diff is not None
    assert (found.diff.same, found.diff.moved) == (600, 0)


async def test_receipts_of_another_key_are_an_error() -> None:
    served = shim()
    other = Receipts.of_issuer(PinnedKey(SigningKey(bytes(32)).public, "receipt", "tcd.localhost"))
    async with Live("x", "http://test", connections=1, receipts=other, transport=httpx2.ASGITransport(served)) as live:
        found = await replayed(synthetic(3, seed=0), [live])
    assert found.status == 2
    assert set(found.sides[0].receipts) == {"unknown_key"}


async def test_a_rate_limit_is_waited_for_and_nothing_is_lost() -> None:
    served = shim(http_rate_cap=2.0, http_rate_refill=50.0)
    request = b'{"trace_vector":[-1.0],"session":"s","tokens_delta":50}\n'

    async with Live("x", "http://test", connections=4, transport=httpx2.ASGITransport(served)) as live:
        found = await replayed(items_of(io.BytesIO(request * 8)), [live], concurrency=4)
    assert found.status == 0, found.lines()
    assert found.sides[0].actions == {"allow": 8}
    assert found.sides[0].retries > 0


async def test_a_refused_request_is_an_error_with_its_code() -> None:
    served = shim(on_failure="closed")

    lines = b'{"trace_vector":[-1.0],"session":"s","step_id":3}\n{"trace_vector":[-1.0],"session":"s","step_id":3}\n'
    async with Live("x", "http://test", connections=1, transport=httpx2.ASGITransport(served)) as live:
        found = await replayed(items_of(io.BytesIO(lines)), [live])
    assert found.status == 2
    assert found.sides[0].problems == {"conflict": 1}
    assert found.sides[0].first_problem.startswith("line 2: conflict: step 3 is not above 3")
