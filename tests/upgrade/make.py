"""Make the stores of `tests/data/stores`: `python -m tests.upgrade.make COMMIT NAME [--postgres]`.

`tcd serve` of the commit decides some steps, is killed with open sessions, and its store is kept: `store.sqlite.xz`, or
`store.sql.xz` by pg_dump, beside `answers.json.xz`.
"""

from __future__ import annotations

import argparse
import json
import lzma
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path

from tests.conftest import ROOT
from tests.postgres import PostgresServer, binaries
from tests.upgrade.old import Serving, ask_all, checkout, git, requests

STORES = ROOT / "tests" / "data" / "stores"


def decided(server: Serving) -> tuple[list[dict[str, object]], str]:
    """Steps and their answers, and the log's keys; a log that signs has a checkpoint by then."""
    answered = ask_all(server, requests())
    status, keys = server.ask("/v1/log/keys")
    if status != HTTPStatus.OK:
        return answered, ""
    until = time.monotonic() + 60
    while server.ask("/v1/log/checkpoint")[0] != HTTPStatus.OK and time.monotonic() < until:
        time.sleep(0.1)
    return answered, keys


def sqlite_store(commit: str, folder: Path) -> tuple[bytes, str, list[dict[str, object]]]:
    """The database as one file, the log's keys (empty: that version shows none), what was answered."""
    with checkout(commit) as tree:
        server = Serving(tree, folder)
        try:
            answered, keys = decided(server)
        finally:
            server.stop(signal.SIGKILL)
    with sqlite3.connect(folder / "ledger.sqlite") as source, sqlite3.connect(folder / "copy") as copy:
        source.backup(copy)
    copy.close()
    return (folder / "copy").read_bytes(), keys, answered


def postgres_store(commit: str, folder: Path) -> tuple[bytes, str, list[dict[str, object]]]:
    """The same, as SQL."""
    found = binaries()
    if found is None:
        sys.exit("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    postgres = PostgresServer(found)
    postgres.start()
    try:
        with checkout(commit) as tree:
            server = Serving(tree, folder, TCD_LEDGER=postgres.url())
            try:
                answered, keys = decided(server)
            finally:
                server.stop(signal.SIGKILL)
        dump = [str(found / "pg_dump"), postgres.url(), "--no-owner", "--no-privileges"]
        text = subprocess.run(dump, capture_output=True, check=True).stdout
    finally:
        postgres.stop()
    return text, keys, answered


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("name")
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcd-store-") as place:
        store, keys, answered = (postgres_store if given.postgres else sqlite_store)(given.commit, Path(place))
    into = STORES / given.name
    into.mkdir(parents=True, exist_ok=True)
    (into / f"store.{'sql' if given.postgres else 'sqlite'}.xz").write_bytes(lzma.compress(store, preset=9))
    about = {"commit": git("rev-parse", given.commit), "keys": json.loads(keys) if keys else None, "answered": answered}
    (into / "answers.json.xz").write_bytes(lzma.compress(json.dumps(about, indent=1).encode(), preset=9))


if __name__ == "__main__":
    main()
