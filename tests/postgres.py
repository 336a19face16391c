"""A PostgreSQL of the tests' own: made with `initdb` in a temporary directory, on a free port of loopback, fsync on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt")
PASSWORD = "s3cret-of-the-tests"


def binaries() -> Path | None:
    """Directory with `initdb` and `postgres`, the newest version first; None where there is none."""
    found = [path.parent for place in _PLACES for path in Path(place).glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    whole = [path for path in found if (path / "initdb").exists()]
    return max(whole, key=lambda path: [int(n) for n in path.parent.name.split(".") if n.isdigit()], default=None)


class PostgresServer:
    """A server that can be killed and started again."""

    def __init__(self, bin_dir: Path) -> None:
        self._bin = bin_dir
        self.directory = Path(tempfile.mkdtemp(prefix="tcd-pg-"))
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._places = 0
        # PostgreSQL refuses to run as root
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self.directory, "postgres")
        pwfile = self.directory / "password"
        pwfile.write_text(PASSWORD)
        pwfile.chmod(0o644)
        options = ["-U", "tcd", "-A", "scram-sha-256", f"--pwfile={pwfile}", "-E", "UTF8", "--locale=C", "-N"]
        self._run([str(self._bin / "initdb"), "-D", str(self.directory / "data"), *options])

    def _run(self, command: list[str]) -> None:
        done = subprocess.run([*self._as, *command], cwd=self.directory, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        return int((self.directory / "data" / "postmaster.pid").read_text().split("\n")[0])

    def start(self) -> None:
        """Start, and wait until it takes connections; recovers from a crash by itself."""
        command = [str(self._bin / "postgres"), "-D", str(self.directory / "data"), "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-k", str(self.directory), "-c", "fsync=on", "-c", "max_connections=60"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([*self._as, *command], cwd=self.directory, stdout=log, stderr=log)
        until = time.monotonic() + 60
        ready = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < until, (self.directory / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9 of the postmaster and of all its children, as a machine that dies would."""
        assert self._process is not None
        postmaster = self.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        pids = [postmaster, *map(int, children.read_text().split())] if children.exists() else [postmaster]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Stop for good and remove everything."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """Of a database."""
        return f"postgresql://tcd:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def place(self) -> str:
        """The URL of a new, empty schema: a database each would take a second."""
        self._places += 1
        name = f"t{self._places}"
        psql = ["psql", self.url(), "-q", "-v", "ON_ERROR_STOP=1", "-c", f"CREATE SCHEMA {name}"]
        subprocess.run([str(self._bin / psql[0]), *psql[1:]], capture_output=True, check=True)
        return f"{self.url()}?search_path={name}"


def server() -> PostgresServer:
    """A running server; skips where PostgreSQL or its driver is not installed."""
    pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")
    found = binaries()
    if found is None:
        pytest.skip("postgres: initdb and postgres are not installed (Debian: apt-get install postgresql)")
    made = PostgresServer(found)
    made.start()
    return made
