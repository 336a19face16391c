"""`tcd doctor`: every finding in each of its states, that each says what to do, and the command's exit status."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tcd.calibration.store import default_asset_dir
from tcd.contract import DIAGNOSE
from tcd.doctor import Finding, worst
from tcd.doctor.clock import Discipline, check_clock, discipline
from tcd.doctor.keys import check_key_directory, check_seed
from tcd.doctor.machine import Machine, check_machine, this_machine
from tcd.doctor.network import check_models, check_port, check_reach, check_shim, check_triton
from tcd.doctor.scoring import Carried, check_assets, check_binary, check_kernels
from tcd.doctor.store import check_directory, check_postgres, check_sqlite
from tcd.errors import LauncherError, ScoringError
from tcd.keystore import KeyStore
from tcd.ledger import SqliteLedger
from tcd.ledger.sqlite import FILE
from tcd.native import library
from tests.postgres import PostgresServer

GOOD = Machine(
    processor="x86_64",
    flags=frozenset({"avx2"}),
    cores=4,
    python=(3, 11),
    glibc=(2, 36),
    libpython=Path("/usr/lib"),
    shm_free=1 << 30,
    files=65536,
    memory=8 << 30,
)
NOW_US = 1_800_000_000_000_000
DAY_US = 86_400_000_000


def found(findings: Any) -> dict[str, str]:
    return {finding.check: finding.status for finding in findings}


def examined(machine: Machine, *, serves: bool = True) -> dict[str, str]:
    return found(check_machine(machine, serves=serves, max_inflight=256, window_bytes=1 << 30))


def test_a_finding_that_is_wrong_says_what_to_do_and_the_worst_one_is_the_status() -> None:
    with pytest.raises(ValueError, match="remedy"):
        Finding("x", "fail", "broken")
    fine, bad, broken = Finding("a", "ok", ""), Finding("b", "warn", "", "do"), Finding("c", "fail", "", "do")
    assert [worst([fine, Finding("d", "skip", "")]), worst([fine, bad]), worst([broken, bad])] == [0, 1, 2]


def test_a_good_machine() -> None:
    assert set(examined(GOOD).values()) == {"ok"}
    assert "cpu" in examined(this_machine())


@pytest.mark.parametrize(
    ("change", "check", "status"),
    [
        ({"processor": "aarch64"}, "cpu", "warn"),
        ({"flags": frozenset()}, "cpu", "ok"),
        ({"cores": 1}, "cores", "warn"),
        ({"python": (3, 13)}, "python", "warn"),
        ({"glibc": (2, 31)}, "glibc", "fail"),
        ({"glibc": None}, "glibc", "fail"),
        ({"libpython": None}, "libpython", "fail"),
        ({"shm_free": None}, "shared memory", "fail"),
        ({"shm_free": 1 << 20}, "shared memory", "fail"),
        ({"shm_free": 40 << 20}, "shared memory", "warn"),
        ({"files": 300}, "open files", "warn"),
        ({"memory": 1 << 20}, "memory", "warn"),
    ],
)
def test_a_machine_that_lacks_something(change: dict[str, Any], check: str, status: str) -> None:
    seen = examined(dataclasses.replace(GOOD, **change))
    assert seen.pop(check) == status
    assert set(seen.values()) == {"ok"}


def test_what_only_a_server_here_needs_is_not_asked_for_one_elsewhere() -> None:
    assert set(examined(GOOD, serves=False)) == {"cores", "open files", "memory"}


def test_the_servers_binary() -> None:
    def missing(_: Any) -> Any:
        msg = "no Triton server found; remedy: pip install 'tcd[server]'"
        raise LauncherError(msg)

    finding = check_binary({}, missing)
    assert (finding.status, finding.remedy) == ("fail", "pip install 'tcd[server]'")
    assert check_binary(os.environ).status == "ok"


def test_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def states(loaded: library.Loaded) -> str:
        return check_kernels(lambda: loaded).status

    def refused() -> library.Loaded:
        msg = "TCD_NATIVE=1, but there are none; remedy: x"
        raise library.NativeMissing(msg)

    there: Any = object()
    assert states(library.Loaded(there, "/x.so")) == "ok"
    assert states(library.Loaded(None, "TCD_NATIVE=0")) == "ok"
    assert states(library.Loaded(None, "x.so was not built")) == "warn"
    assert check_kernels(refused).status == "fail"


def test_the_assets(tmp_path: Path) -> None:
    def carries(*carried: Carried) -> list[Finding]:
        return list(check_assets(default_asset_dir(), lambda _: list(carried)))

    assert found(carries(Carried("k", 10, ()))) == {"assets": "ok", "guarantee": "ok"}
    assert found(carries(Carried("k", 10, ("demo calibration",))))["guarantee"] == "warn"
    assert found(carries(Carried("k", 0, ())))["guarantee"] == "warn"
    assert found(carries())["guarantee"] == "warn"
    copy = tmp_path / "assets"
    shutil.copytree(default_asset_dir(), copy)
    for path in copy.glob("*.npz"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert found(check_assets(copy, lambda _: [])) == {"assets": "fail"}
    assert found(check_assets(tmp_path, lambda _: [])) == {"assets": "fail"}


def test_the_data_directory(tmp_path: Path) -> None:
    def looked(path: Path, room: int = 10 << 30) -> dict[str, str]:
        return found(check_directory(path, free=lambda _: room))

    assert looked(tmp_path / "new" / "er") == {"data directory": "ok", "disk": "ok"}
    assert looked(tmp_path, 1 << 29)["disk"] == "warn"
    assert looked(tmp_path, 1 << 20)["disk"] == "fail"
    tmp_path.chmod(0o777)
    assert looked(tmp_path)["data directory"] == "warn"
    (tmp_path / "file").write_text("")
    assert looked(tmp_path / "file")["data directory"] == "fail"
    assert found(check_directory(tmp_path))["disk"] in {"ok", "warn", "fail"}


def status_of(directory: Path) -> str:
    (finding,) = check_sqlite(directory).findings
    return finding.status


async def test_the_ledger(tmp_path: Path) -> None:
    assert status_of(tmp_path) == "ok"
    ledger = SqliteLedger(tmp_path)
    # while a shim uses it
    assert status_of(tmp_path) == "ok"
    await ledger.close()
    assert check_sqlite(tmp_path).newest_us is None
    file = tmp_path / FILE
    kept = file.read_bytes()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert status_of(tmp_path) == "fail"
    file.write_bytes(kept[:4096] + b"\xff" * (len(kept) - 4096))
    assert status_of(tmp_path) == "fail"
    file.write_bytes(b"no database at all" * 400)
    assert status_of(tmp_path) == "fail"


def test_a_database_that_is_no_ledger(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert status_of(tmp_path) == "fail"


async def test_postgres(postgres: PostgresServer) -> None:
    assert (await check_postgres(postgres.url(), timeout=20)).status == "ok"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        finding = await check_postgres(f"postgresql://u:secret@127.0.0.1:{free.getsockname()[1]}/d", timeout=5)
    assert finding.status == "fail"
    assert "secret" not in str(finding)


def test_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "attest.key"
    assert check_seed(path).status == "ok"
    path.write_text("11" * 32)
    path.chmod(0o600)
    assert check_seed(path).status == "ok"
    path.chmod(0o644)
    assert check_seed(path).status == "fail"
    path.chmod(0o600)
    path.write_text("short")
    assert check_seed(path).status == "fail"
    path.write_bytes(b"\xff\xfe")
    assert check_seed(path).status == "fail"


def test_the_key_directory(tmp_path: Path) -> None:
    def looked(origin: str = "o", *, now_us: int = NOW_US, log: bool = True) -> dict[str, str]:
        return found(check_key_directory(tmp_path, origin=origin, log=log, now_us=now_us))

    store = KeyStore(tmp_path, os.urandom, lambda: NOW_US)
    assert "fail" in looked().values()
    store.generate(purpose="receipt", origin="o", not_after_us=NOW_US + 90 * DAY_US)
    assert looked() == {"receipt key": "ok", "checkpoint key": "fail", "seeds": "ok"}
    store.generate(purpose="checkpoint", origin="o")
    assert set(looked().values()) == {"ok"}
    assert looked(now_us=NOW_US + 80 * DAY_US)["receipt key"] == "warn"
    assert looked(now_us=NOW_US + 91 * DAY_US)["receipt key"] == "fail"
    assert looked("other")["receipt key"] == "fail"
    next((tmp_path / "private").glob("*")).chmod(0o640)
    assert looked()["seeds"] == "fail"
    (tmp_path / "keyset.json").write_text("{")
    assert "fail" in looked().values()


def test_the_clock() -> None:
    times = iter(range(10**18, 10**18 + 10**6))
    fine = check_clock(newest_us=10**15 - 5_000_000, kernel=Discipline(True, 900), clock=lambda: next(times))
    assert set(found(fine).values()) == {"ok"}
    back = iter([*range(10**18, 10**18 + 999), 10**18 - 1])
    seen = found(check_clock(newest_us=10**15 + 60_000_000, kernel=Discipline(False, 0), clock=lambda: next(back)))
    assert seen == {"clock": "warn", "clock and ledger": "fail", "time synchronisation": "warn"}
    assert found(check_clock(newest_us=None, kernel=None))["time synchronisation"] == "skip"
    assert isinstance(discipline(), Discipline | None)


class _Server(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, Any]]] = {}

    def do_GET(self) -> None:
        status, value = self.answers.get(self.path, (404, {"error": "no"}))
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def listening() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    _Server.answers = {}


def test_ports_and_reach(listening: int) -> None:
    assert check_port("http", "127.0.0.1", listening, flag="--port").status == "fail"
    assert check_port("http", "127.0.0.1", listening, flag="--port", serves=True).status == "ok"
    assert check_port("http", "127.0.0.1", 0, flag="--port").status == "ok"
    assert check_port("http", "203.0.113.7", 0, flag="--port").status == "fail"
    assert check_reach("127.0.0.1", tokens=False).status == check_reach("localhost", tokens=False).status == "ok"
    assert check_reach("0.0.0.0", tokens=True).status == check_reach("a.example", tokens=False).status == "warn"  # noqa: S104


def test_a_shim_that_runs_already(listening: int) -> None:
    assert check_shim("127.0.0.1", listening, timeout=20) is None
    _Server.answers = {"/readyz?verbose": (200, {"ready": True, "checks": {"triton": "ok"}})}
    ready = check_shim("127.0.0.1", listening, timeout=20)
    assert ready is not None
    assert ready.status == "ok"
    _Server.answers = {"/readyz?verbose": (503, {"ready": False, "checks": {"triton": "away", "ledger": "ok"}})}
    away = check_shim("127.0.0.1", listening, timeout=20)
    assert away is not None
    assert (away.status, "triton: away" in away.detail, "ledger" in away.detail) == ("fail", True, False)


def test_models_of_triton(listening: int) -> None:
    _Server.answers = {"/v2/models/a/ready": (200, None), "/v2/models/b/ready": (400, None)}
    seen = found(check_models("127.0.0.1", listening, ("a", "b"), timeout=20))
    assert seen == {"model a": "ok", "model b": "warn"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        seen = found(check_models("127.0.0.1", free.getsockname()[1], ("a", "b"), timeout=20))
    assert seen == {"model a": "skip"}


@pytest.mark.parametrize("status", ["away", "broken", "ok"])
async def test_triton(status: str) -> None:
    class Client:
        async def ready(self, *, timeout: float = 1.0) -> bool:
            return status != "away"

        async def infer(self, tensors: Any, *, model: Any = None, timeout: float) -> Any:
            if status == "broken":
                msg = "tcd_diagnose answered 500"
                raise ScoringError(msg)
            return {}

        async def close(self) -> None:
            pass

    finding = await check_triton(Client(), "http://t:1", DIAGNOSE, timeout=60.0)
    assert finding.status == ("ok" if status == "ok" else "fail")


def run(folder: Path, *arguments: str, **env: str) -> tuple[int, dict[str, Any]]:
    ports = {f"TCD_{name}_PORT": "0" for name in ("HTTP", "GRPC", "TRITON_HTTP", "TRITON_GRPC", "TRITON_METRICS")}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
    done = subprocess.run(
        [sys.executable, "-m", "tcd.cli.main", "doctor", *arguments],
        env=clean | ports | {"TCD_DATA_DIR": str(folder)} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    if "--json" not in arguments:
        return done.returncode, {"text": done.stdout}
    value = json.loads(done.stdout)
    return done.returncode, {"status": value["status"], **{f["check"]: f for f in value["findings"]}}


def test_the_command(tmp_path: Path) -> None:
    code, said = run(tmp_path / "data", "--json")
    # the demonstration calibration carries no claim
    assert (code, said["status"], said["guarantee"]["status"]) == (1, 1, "warn")
    assert said["assets"]["status"] == said["ledger"]["status"] == said["triton server"]["status"] == "ok"
    assert not (tmp_path / "data").exists(), "it changes nothing"
    code, said = run(tmp_path, "--json", TCD_MODEE="x")
    assert (code, said["settings"]["status"]) == (2, "fail")
    assert "TCD_MODE" in said["settings"]["detail"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        code, said = run(tmp_path, "--json", "--triton-url", url, TCD_LEDGER="memory", TCD_MODE="monitor")
    assert code == 2
    assert said["triton"]["status"] == "fail"
    for check in ("ledger", "receipt key", "mode"):
        assert said[check]["status"] == "warn", said[check]


def test_policies_and_the_admin_port(tmp_path: Path) -> None:
    bundle = tmp_path / "policies.toml"
    bundle.write_text('[[policy]]\nname = "a"\nversion = 1\n')
    env = {"TCD_POLICIES": str(bundle), "TCD_ADMIN_ENABLE": "true", "TCD_ADMIN_PORT": "0"}
    _, said = run(tmp_path / "data", "--json", **env)
    assert (said["policies"]["status"], said["admin port"]["status"]) == ("ok", "ok")
    assert said["policies"]["detail"].startswith("a@1#")
    bundle.write_text('[[policy]]\nname = "a"\nversion = "x"\n')
    code, said = run(tmp_path / "data", "--json", **env)
    assert (code, said["policies"]["status"]) == (2, "fail")


def test_people_see_the_remedies(tmp_path: Path) -> None:
    code, said = run(tmp_path, TCD_RECEIPTS_ENABLE="false", COLUMNS="200")
    assert code == 1
    assert "-> TCD_RECEIPTS_ENABLE=true" in said["text"]
    assert "warn" in said["text"]


def test_the_doctor_asks_a_server_that_is_away_for_no_longer_than_it_may() -> None:
    assert asyncio.run(check_postgres("postgresql:///?bad", timeout=0.1)).status == "fail"
