"""Blocks of the pages that work on a ledger, with a witness or a signal log: run as they stand.

`tests/unit/docs/test_blocks.py` demands that every block with commands is run by a test, or named with a reason.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tcd.calibration.promote import promote
from tcd.calibration.store import default_asset_dir
from tests.conftest import ROOT
from tests.e2e import shell, test_admin
from tests.e2e.stack import serving
from tests.postgres import PostgresServer
from tests.upgrade.make import STORES

pytestmark = pytest.mark.triton
ORIGIN = "tcd.example"
POLICY = '[[policy]]\nname = "base"\nversion = 1\n'


def blocks(page: str, kind: str) -> list[str]:
    """Scripts of a page."""
    found = re.findall(rf"(?ms)^```console-{kind}\n(.*?)^```$", (ROOT / "docs" / page).read_text())
    assert found, (page, kind)
    return [re.sub(r"(?m)^\$ ", "", text) for text in found]


def run(script: str, place: Path, **env: str) -> str:
    """What a script prints; `tcd` is this environment's."""
    done = shell.run(script, place, timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Left:
    """What a shim left, with what its operator has beside it, in `place`."""

    place: Path
    data: Path
    log: Path

    def run(self, script: str) -> str:
        return run(script.replace("DATA_DIR", str(self.data)).replace("LOG_DIR", str(self.log)), self.place)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("left")
    place = folder / "work"
    place.mkdir()
    generate = f"tcd keys generate --dir keys --origin {ORIGIN} --purpose"
    run(f"{generate} receipt; {generate} checkpoint", place)
    (place / "policies.toml").write_text(POLICY)
    (place / "assets").symlink_to(default_asset_dir())
    made = Left(place, folder / "data", folder / "log")
    settings = {
        "TCD_KEYS_DIR": str(place / "keys"),
        "TCD_ORIGIN": ORIGIN,
        "TCD_LOG_DIR": str(made.log),
        "TCD_LOG_INTERVAL_S": "0.2",
        "TCD_POLICIES": str(place / "policies.toml"),
    }
    with serving(folder, env=settings) as stack, httpx2.Client(base_url=stack.shim, timeout=120) as client:
        for step in range(3):
            body = {"tenant": "acme", "session": "s", "step_id": step, "trace_vector": [-0.5]}
            answer = client.post("/diagnose", json=body).raise_for_status().json()
        proof = client.get(f"/v1/log/proof/{answer['receipt']}?wait=30").raise_for_status().text
        (place / "answer.json").write_text(json.dumps({**answer, "proof": proof}))
        (place / "keyset.json").write_text(client.get("/v1/log/keys").raise_for_status().text)
    return made


def test_audits(left: Left) -> None:
    (script,) = blocks("audits.md", "store")
    left.run(script)
    assert json.loads((left.place / "report" / "report.json").read_text())["ok"] is True
    assert (left.place / "seen.json").is_file()


def test_log_export(left: Left) -> None:
    exports, parquet, cose = blocks("log-export.md", "store")
    left.run(exports)
    stored, tiles = ((left.place / name).read_text().splitlines() for name in ("log.jsonl", "tiles.jsonl"))
    # the ledger has every checkpoint, the files the newest one
    heads = [line for line in stored if '"t":"head"' in line]
    assert heads == [line for line in tiles if '"t":"head"' in line]
    assert (stored[0], stored[-1]) == (tiles[0], tiles[-1])
    assert len(heads) >= 3
    assert "allow" in left.run(parquet)
    assert "ok" in left.run(cose)


@pytest.mark.long
@pytest.mark.parametrize("page", ["audits.md", "log-export.md"])
def test_a_ledger_in_postgresql(page: str, tmp_path: Path, postgres: PostgresServer) -> None:
    """The kept one, restored: its checkpoint is the witness's."""
    pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")
    kept = STORES / "postgres-1"
    name = page.removesuffix(".md").replace("-", "_")
    psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1"]
    subprocess.run([*psql, postgres.url(), "-c", f"CREATE DATABASE {name}"], check=True, capture_output=True)
    dump = lzma.decompress((kept / "store.sql.xz").read_bytes())
    subprocess.run([*psql, postgres.url(name)], input=dump, check=True, capture_output=True)
    about = json.loads(lzma.decompress((kept / "answers.json.xz").read_bytes()))
    (tmp_path / "keyset.json").write_text(json.dumps(about["keys"]))
    query = "SELECT encode(note, 'hex') FROM tcd_checkpoint ORDER BY size LIMIT 1"
    asked = subprocess.run([*psql, "-At", postgres.url(name), "-c", query], check=True, capture_output=True, text=True)
    (tmp_path / "from-a-witness.txt").write_bytes(bytes.fromhex(asked.stdout.strip()))
    for script in blocks(page, "postgres"):
        text = script.replace("postgresql://…", postgres.url(name)).replace(ORIGIN, "tcd.localhost")
        run(text.replace("acme", "t0"), tmp_path)


@pytest.mark.long
def test_a_witness_of_the_log(tmp_path: Path) -> None:
    (script,) = blocks("operations.md", "witness")
    generate = f"tcd keys generate --dir keys --origin {ORIGIN} --purpose"
    run(f"{generate} receipt; {generate} checkpoint", tmp_path)
    run(script.replace("--port 8090", "--port 0") + "\necho $! > witness.pid", tmp_path)
    try:
        settings = {
            "TCD_LOG_WITNESSES": str(tmp_path / "witnesses.policy"),
            "TCD_LOG_NO_QUORUM": "hold",
            "TCD_KEYS_DIR": str(tmp_path / "keys"),
            "TCD_ORIGIN": ORIGIN,
            "TCD_LOG_INTERVAL_S": "0.2",
        }
        with serving(tmp_path, env=settings) as stack, httpx2.Client(base_url=stack.shim, timeout=120) as client:
            answer = client.post("/diagnose", json={"session": "s", "trace_vector": [-0.5]}).raise_for_status().json()
            client.get(f"/v1/log/proof/{answer['receipt']}?wait=30").raise_for_status()
            assert "\u2014 witness.example/w1 " in client.get("/v1/log/checkpoint").raise_for_status().text
    finally:
        os.kill(int((tmp_path / "witness.pid").read_text()), signal.SIGTERM)


@pytest.mark.long
def test_a_calibration_by_the_admin_plane(tmp_path: Path) -> None:
    from tests.unit.traffic.kit import fitted, record  # noqa: PLC0415 - a shim in process, for this test only

    async def logged() -> None:
        await record(tmp_path / "log", default_asset_dir(), 70, seed=1, steps=20)
        await record(tmp_path / "old", default_asset_dir(), 50, seed=2, steps=20)

    asyncio.run(logged())
    fitted(tmp_path / "old", tmp_path / "before")
    promote(tmp_path / "before", tmp_path / "live")
    settings = {"TCD_ADMIN_ENABLE": "true", "TCD_ADMIN_PORT": "0", "TCD_SIGNAL_LOG": str(tmp_path / "log")}
    (script,) = blocks("admin-calibration.md", "calibration")
    with serving(tmp_path, "--assets", str(tmp_path / "live"), env=settings) as stack:
        log = stack.log.read_text()
        secret, url = (
            re.search(pattern, log) for pattern in (r"bootstrap (tcd-bootstrap-\w+)", r"admin +(http://[^/]+)/admin")
        )
        assert secret is not None
        assert url is not None
        at = {"bootstrap": secret[1], "url": url[1]}
        test_admin.run(test_admin.blocks("admin.md")[0], tmp_path, **at)
        said = json.loads(test_admin.run(script, tmp_path, **at))
    assert said["action"] == "calibration.promote"
    assert said["actors"] == ["alice", "bob"]
    assert said["result"]["share"] == 0.1
