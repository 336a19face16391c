"""A witness: every answer of tlog-witness, no rollback whatever happens, over HTTP and as a command."""

from __future__ import annotations

import hashlib
import http.client
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import ConfigError, Unavailable
from tcd.receipts import MlDsaKey, Signer, SigningKey
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.cosign import Cosigner, MlDsaVerifier
from tcd.receipts.errors import BadSignature, MalformedNote
from tcd.receipts.logcheck import log_verifier
from tcd.receipts.note import NoteVerifier, parse_note, verify_lines, write_note
from tcd.receipts.tlog_policy import WitnessPolicy, parse_policy
from tcd.receipts.witnessing import SIZE_TYPE, AddCheckpoint, Seen, Verdict, Witness, add_cosignatures
from tcd.witness import WitnessServer, WitnessStore, collect, submit
from tests.unit.receipts.simulator import TIME, LogSimulator, seed

NAME = "witness.example/w"
KEYS: list[Signer] = [SigningKey(seed("w/ed")), MlDsaKey(seed("w/ml"))]
OWN: list[Cosigner | MlDsaVerifier] = [Cosigner(NAME, KEYS[0].public), MlDsaVerifier(NAME, KEYS[1].public)]


def make_log(size: int = 40, name: str = "log") -> LogSimulator:
    log = LogSimulator(witnesses=0, name=name)
    for number in range(size):
        log.tree.append(hashlib.sha256(b"%d" % number).digest())
    return log


def forked(log: LogSimulator, size: int) -> LogSimulator:
    """The same log's keys over another history."""
    other = LogSimulator(witnesses=0, name=log.name)
    for number in range(size):
        other.tree.append(hashlib.sha256(b"fork%d" % number).digest())
    return other


@pytest.fixture
def log() -> LogSimulator:
    return make_log()


@pytest.fixture
def witness(log: LogSimulator) -> Witness:
    return Witness(NAME, KEYS, [log_verifier(key) for key in log.pinned()])


def request(log: LogSimulator, old: int, size: int) -> bytes:
    path = log.tree.consistency(old, size) if old <= size else ()
    return AddCheckpoint(old, path, log.checkpoint(size)).write()


def judge(witness: Witness, raw: bytes, seen: Seen | None = None) -> Verdict:
    return witness.judge(raw, seen=lambda _: seen, time=TIME)


def seen(log: LogSimulator, size: int) -> Seen:
    return Seen(size, log.tree.root(size), log.checkpoint(size))


def test_a_consistent_checkpoint_is_cosigned_with_every_key(log: LogSimulator, witness: Witness) -> None:
    for old, size in ((0, 5), (5, 5), (5, 40), (0, 0)):
        verdict = judge(witness, request(log, old, size), seen(log, old) if old else None)
        assert (verdict.status, verdict.reason, verdict.evidence) == (200, "", ())
        assert verdict.new is not None
        assert (verdict.new.size, verdict.new.root) == (size, log.tree.root(size))
        text, _ = parse_note(log.checkpoint(size))
        note, names = add_cosignatures(log.checkpoint(size), verdict.body, {"a": OWN[0], "b": OWN[1]})
        assert names == ("a", "b")
        assert len(verify_lines(text, parse_note(note)[1], [*OWN])) == 2


def test_the_answers_of_the_specification(log: LogSimulator, witness: Witness) -> None:
    known = seen(log, 7)
    other, fork = make_log(name="other"), forked(log, 40)
    unknown = LogSimulator(origin="unknown.example", witnesses=0)
    cases = {
        "unknown origin": (404, AddCheckpoint(0, (), unknown.checkpoint()).write()),
        "no signature of the log": (403, request(other, 7, 9)),
        "a wrong signature": (403, request(log, 7, 9).replace(b"\n9\n", b"\n8\n", 1)),
        "old beyond the checkpoint": (400, AddCheckpoint(9, (), log.checkpoint(8)).write()),
        "not a request": (400, b"new 7\n\n" + log.checkpoint(9)),
        "not a note": (400, b"old 7\n\nnothing"),
        "not a checkpoint": (400, b"old 7\n\n" + write_note("a\n", parse_note(log.checkpoint(9))[1])),
        "another old size": (409, request(log, 5, 9)),
        "a smaller log": (409, request(log, 5, 6)),
        "no proof": (422, AddCheckpoint(7, (), log.checkpoint(9)).write()),
        "the proof of a fork": (422, request(fork, 7, 9)),
        "an unneeded proof": (422, AddCheckpoint(7, (bytes(32),), log.checkpoint(7)).write()),
    }
    for name, (status, raw) in cases.items():
        verdict = judge(witness, raw, known)
        assert (name, verdict.status, verdict.new) == (name, status, None)
        if status == 409:
            assert (verdict.body, verdict.content_type) == (b"7\n", SIZE_TYPE)
        else:
            assert verdict.body == b""
    first = AddCheckpoint(0, (bytes(32),), log.checkpoint(5)).write()
    assert judge(witness, first).status == 422


def test_two_histories_of_one_size_are_kept_as_evidence(log: LogSimulator, witness: Witness) -> None:
    known, fork = seen(log, 7), forked(log, 7)
    for old in (0, 3, 7):
        verdict = judge(witness, AddCheckpoint(old, (), fork.checkpoint(7)).write(), known)
        assert (verdict.status, verdict.new) == (409, None)
        first, second = (LogHead.from_text(parse_note(note)[0]) for note in verdict.evidence)
        assert first.size == second.size == 7
        assert first.root != second.root


@pytest.mark.parametrize(
    "top",
    [
        b"", b"old 01", b"old -1", b"old +1", b"old", b"old 1 ", b"old 1\nAAAA", b"old 1\n" + b"A" * 44,
        b"old 1\n" + b"\n".join([b"A" * 43 + b"="] * 64), b"old 10000000000000000000", b"\xc3\xa9",
    ],
)  # fmt: skip
def test_malformed_requests_are_refused(top: bytes) -> None:
    with pytest.raises(MalformedNote):
        AddCheckpoint.parse(top + b"\n\ncheckpoint\n")


def test_requests_round_trip(log: LogSimulator) -> None:
    raw = request(log, 7, 40)
    assert AddCheckpoint.parse(raw).write() == raw
    assert AddCheckpoint.parse(raw).path == log.tree.consistency(7, 40)
    with pytest.raises(MalformedNote):
        AddCheckpoint.parse(b"old 0\n\n" + b"x" * 100_000)


def test_the_answer_of_a_stranger_or_a_forger_is_not_taken(log: LogSimulator, witness: Witness) -> None:
    note = log.checkpoint(7)
    answer = judge(witness, request(log, 0, 7)).body
    stranger = Cosigner(NAME, SigningKey(seed("x")).public)
    assert add_cosignatures(note, answer, {"x": stranger}) == (note, ())
    moved = judge(witness, request(log, 0, 8)).body
    with pytest.raises(BadSignature):
        add_cosignatures(note, moved, {"a": OWN[0]})
    twice, names = add_cosignatures(note, answer + answer, {"a": OWN[0]})
    assert (len(parse_note(twice)[1]), names) == (3, ("a",))
    assert add_cosignatures(twice, answer, {"a": OWN[0]}) == (twice, ())
    for bad in (b"", b"no line\n", b"\xff\n", answer[:-1]):
        with pytest.raises(MalformedNote):
            add_cosignatures(note, bad, {"a": OWN[0]})


def test_the_state_survives_and_never_goes_back(tmp_path: Path, log: LogSimulator, witness: Witness) -> None:
    path = tmp_path / "state.sqlite"
    store = WitnessStore(path)

    def ask(raw: bytes) -> int:
        return store.decide(lambda known: witness.judge(raw, seen=known, time=TIME)).status

    assert [ask(request(log, 0, 7)), ask(request(log, 7, 9)), ask(request(log, 7, 9))] == [200, 200, 409]
    contradiction = AddCheckpoint(9, (), forked(log, 9).checkpoint(9)).write()
    assert [ask(contradiction), ask(contradiction)] == [409, 409]
    with pytest.raises(ConfigError):
        WitnessStore(path)
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = WitnessStore(path)
    found = again.seen(log.origin)
    assert found is not None
    assert (found.size, found.root, parse_note(found.note)[0]) == (
        9,
        log.tree.root(9),
        parse_note(log.checkpoint(9))[0],
    )
    assert len(again.evidence()) == 1
    with pytest.raises(sqlite3.IntegrityError, match="only grows"):
        again._db.execute("UPDATE log SET size = 3")
    with pytest.raises(sqlite3.IntegrityError, match="never forgotten"):
        again._db.execute("DELETE FROM log")
    again.close()
    (tmp_path / "other").write_bytes(b"not a database, " * 100)
    with pytest.raises(ConfigError):
        WitnessStore(tmp_path / "other")
    with closing(sqlite3.connect(tmp_path / "foreign")) as foreign:
        foreign.execute("CREATE TABLE t (x)")
        foreign.commit()
    with pytest.raises(ConfigError, match="not the state"):
        WitnessStore(tmp_path / "foreign")


def test_an_error_while_deciding_stores_nothing(tmp_path: Path, log: LogSimulator, witness: Witness) -> None:
    store = WitnessStore(tmp_path / "s")

    def failing(known: Any) -> Verdict:
        witness.judge(request(log, 0, 7), seen=known, time=TIME)
        msg = "stop"
        raise KeyError(msg)

    with pytest.raises(KeyError):
        store.decide(failing)
    assert store.seen(log.origin) is None
    assert store.decide(lambda known: witness.judge(request(log, 0, 7), seen=known, time=TIME)).status == 200
    store.close()


@pytest.fixture
def server(tmp_path: Path, witness: Witness) -> Iterator[WitnessServer]:
    store = WitnessStore(tmp_path / "state.sqlite")
    made = WitnessServer(("127.0.0.1", 0), witness, store, clock=lambda: TIME + 0.5)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()
    store.close()


def url(server: WitnessServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def ask(server: WitnessServer | str, shown: LogSimulator, size: int, old: int) -> bytes:
    address = server if isinstance(server, str) else url(server)
    return submit(
        address,
        shown.checkpoint(size),
        size=size,
        old=old,
        prove=lambda old: shown.tree.consistency(old, size),
        timeout=60,
    )


def policy(server: WitnessServer, *, more: str = "") -> WitnessPolicy:
    lines = f"witness ed {OWN[0].vkey()} {url(server)}\nwitness ml {OWN[1].vkey()} {url(server)}/\n{more}"
    return parse_policy(f"{lines}group q all ed ml\nquorum q\n".encode())


def test_a_log_collects_cosignatures_and_catches_up(server: WitnessServer, log: LogSimulator) -> None:
    gone = f"witness gone {Cosigner('w.gone', SigningKey(seed('g')).public).vkey()} http://127.0.0.1:1\n"
    trusted = policy(server, more=gone)
    known: dict[str, int] = {}
    for size in (5, 9, 9, 40):
        prove = partial(log.tree.consistency, size=size)
        got = collect(trusted, log.checkpoint(size), size=size, prove=prove, sizes=known, timeout=60)
        assert set(got.cosigned) == {"ed", "ml"}
        assert set(got.failed) == {"gone"}
        trusted.check(got.cosigned)
        text, lines = parse_note(got.note)
        assert len(verify_lines(text, lines, [*OWN, NoteVerifier(log.origin, log.key.public)])) == 3
        known = got.sizes
    # a log that forgot what the witness knows asks again from there
    prove = partial(log.tree.consistency, size=40)
    answer = submit(url(server), log.checkpoint(40), size=40, old=3, prove=prove, timeout=60)
    assert answer.count("\u2014".encode()) == 2


def test_a_rolled_back_or_forked_log_gets_no_cosignature(server: WitnessServer, log: LogSimulator) -> None:
    ask(server, log, 20, 0)
    fork = forked(log, 40)
    for shown, size, old in ((log, 10, 0), (log, 10, 5), (fork, 30, 20), (fork, 20, 20), (fork, 40, 0)):
        with pytest.raises(Unavailable, match="refused"):
            ask(server, shown, size, old)
    assert len(server.store.evidence()) == 1
    assert ask(server, log, 40, 20)


def test_racing_requests_end_in_one_line_of_history(server: WitnessServer, log: LogSimulator) -> None:
    """One witness, 16 requests at once, half of them of a fork: every 200 is consistent with every other."""
    fork = forked(log, 40)
    given: list[tuple[LogSimulator, int]] = [(shown, size) for size in range(1, 9) for shown in (log, fork)]

    def one(item: tuple[LogSimulator, int]) -> tuple[bytes, int] | None:
        try:
            ask(server, *item, 0)
        except (Unavailable, ValueError):
            return None
        return item[0].tree.root(1), item[1]

    with ThreadPoolExecutor(16) as pool:
        good = [item for item in pool.map(one, given) if item is not None]
    assert good
    assert len({root for root, _ in good}) == 1
    final = server.store.seen(log.origin)
    assert final is not None
    assert final.size == max(size for _, size in good)


def test_hostile_http(server: WitnessServer, log: LogSimulator) -> None:
    def send(method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)) as connection:
            connection.request(method, path, body, headers)
            return connection.getresponse().status

    assert send("POST", "/other", b"x") == 404
    assert send("GET", "/add-checkpoint") == 501
    assert send("POST", "/add-checkpoint", b"x" * 80_000) == 413
    assert send("POST", "/add-checkpoint", None, **{"Content-Length": "9" * 30}) == 413
    assert send("POST", "/add-checkpoint", None, **{"Content-Length": "+5"}) == 411
    assert send("POST", "/add-checkpoint", None, **{"Transfer-Encoding": "chunked"}) == 411
    assert send("POST", "/add-checkpoint", b"\xff" * 500) == 400
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)) as kept:
        for _ in range(2):
            kept.request("POST", "/add-checkpoint", request(log, 0, 0))
            assert kept.getresponse().read().startswith("\u2014".encode())


def test_an_address_that_is_none_and_a_witness_that_is_gone(log: LogSimulator) -> None:
    for bad in ("ftp://a/", "nothing", "http://127.0.0.1:1"):
        with pytest.raises(Unavailable):
            submit(bad, log.checkpoint(5), size=5, old=0, prove=lambda _: ())
    none = parse_policy(b"quorum none\n")
    assert collect(none, b"note", size=5, prove=lambda _: ()).note == b"note"


def _start(folder: Path, log: LogSimulator, *more: str) -> subprocess.Popen[str]:
    vkey = NoteVerifier(log.origin, log.key.public).vkey()
    command = [sys.executable, "-m", "tcd.cli.main", "witness", "--name", NAME, "--key", "w.seed", "--log", vkey]
    return subprocess.Popen(
        [*command, "--state", "state.sqlite", "--port", "0", *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_remembers_across_kill_9(tmp_path: Path, log: LogSimulator) -> None:
    (tmp_path / "w.seed").write_text(seed("w/ed").hex())
    (tmp_path / "w.seed").chmod(0o600)
    sizes = (5, 12, 30)
    for number, size in enumerate(sizes):
        process = _start(tmp_path, log)
        assert process.stdout is not None
        assert process.stdout.readline() == f"key {OWN[0].vkey()}\n"
        address = process.stdout.readline().removeprefix("listening ").strip()
        if number:
            with pytest.raises(Unavailable):
                ask(address, forked(log, 40), size, 0)
        assert ask(address, log, size, 0)
        process.send_signal(signal.SIGKILL if number < 2 else signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
        assert f"200 {log.origin!r} {size}" in errors
    assert process.returncode == 0


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path, log: LogSimulator) -> None:
    (tmp_path / "w.seed").write_text(seed("w/ed").hex())
    for mode, more, said in (
        (0o644, (), "can be read by others"),
        (0o600, ("--alg", "RSA"), "--alg"),
        (0o600, ("--log", "nothing"), "not a verifier key"),
        (0o600, ("--logs", "missing"), "cannot be read"),
        (0o600, ("--host", "192.0.2.1"), "cannot listen"),
    ):
        (tmp_path / "w.seed").chmod(mode)
        process = _start(tmp_path, log, *more)
        _, errors = process.communicate(timeout=180)
        assert (process.returncode, said in errors) == (2, True), errors
        assert seed("w/ed").hex() not in errors
