"""`tcd keys`, `tcd verify` and `tcd audit` as commands: exit codes, JSON, secrets that stay secret."""

from __future__ import annotations

import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tcd.cli.main import app
from tcd.errors import ConfigError
from tcd.keystore import KeyStore
from tcd.receipts import Issuer, KeySet, VerifyPolicy, canonical, verify_single
from tcd.receipts.bundle import write_bundle
from tcd.receipts.rotation import check_rotation, rotate_members
from tests.unit.receipts.conftest import REQUEST, Session
from tests.unit.receipts.simulator import LogSimulator, seed

RUN = CliRunner()


def run(*arguments: str, **env: str) -> Result:
    return RUN.invoke(app, [str(item) for item in arguments], env=env)


def json_of(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def session() -> Session:
    made = Session()
    made.open()
    made.decision()
    made.close()
    return made


@pytest.fixture
def log(session: Session) -> LogSimulator:
    made = LogSimulator(witnesses=2)
    made.add(session.receipts)
    return made


@pytest.fixture
def folder(tmp_path: Path, session: Session, log: LogSimulator) -> Path:
    keys = KeySet([session.issuer.pinned(), *log.pinned()])
    (tmp_path / "keys.json").write_text(json.dumps(keys.to_json()))
    (tmp_path / "witnesses").write_text(log.witness_policy().write())
    answers = [
        {
            "receipt": r.head_hex,
            "receipt_body": r.body_text,
            "receipt_sig": r.sig_hex,
            "proof": log.proof(n).decode(),
            "score": 1,
        }
        for n, r in enumerate(session.receipts)
    ]
    (tmp_path / "answer.json").write_text(json.dumps(answers[1]))
    (tmp_path / "chain.json").write_text(json.dumps(answers))
    (tmp_path / "chain.jsonl").write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
    (tmp_path / "proof").write_bytes(log.proof(1))
    bundle = write_bundle(session.receipts, proofs=[log.proof(n) for n in range(3)])
    (tmp_path / "bundle.json").write_bytes(bundle)
    return tmp_path


def verify(folder: Path, what: str, file: str, *more: str) -> Result:
    return run("verify", what, str(folder / file), "--keyset", str(folder / "keys.json"), *more)


def test_a_receipt_verifies_offline(folder: Path) -> None:
    for more in ((), ("--json",), ("--proof", str(folder / "proof")), ("--witnesses", str(folder / "witnesses"))):
        result = verify(folder, "receipt", "answer.json", *more)
        assert result.exit_code == 0, result.output
    assert json_of(verify(folder, "receipt", "answer.json", "--json"))["ok"] is True
    assert "ok: receipt" in verify(folder, "receipt", "answer.json").stdout


def test_a_changed_receipt_is_refused_with_exit_1(folder: Path) -> None:
    answer = json.loads((folder / "answer.json").read_text())
    for change, code in (
        ({"receipt_body": answer["receipt_body"].replace('"acme"', '"acmf"')}, "head_mismatch"),
        ({"receipt_sig": "00" * 64}, "bad_signature"),
        ({"receipt_sig": None}, "missing_signature"),
        ({"proof": answer["proof"].replace("index 1", "index 2")}, "bad_inclusion"),
        ({"req_obj": {**REQUEST, "session": "another"}}, "concordance"),
    ):
        (folder / "changed.json").write_text(json.dumps({**answer, **change}))
        result = verify(folder, "receipt", "changed.json", "--json")
        assert (result.exit_code, json_of(result)["code"]) == (1, code)
        assert verify(folder, "receipt", "changed.json").stdout.startswith("REFUSED")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"receipt": 1, "receipt_body": 2}', "[" * 100_000, "\x00"])
def test_what_cannot_be_decided_exits_2(folder: Path, text: str) -> None:
    (folder / "bad.json").write_text(text)
    assert verify(folder, "receipt", "bad.json").exit_code == 2
    assert json_of(verify(folder, "receipt", "bad.json", "--json"))["code"] == "undecidable"
    assert run("verify", "receipt", str(folder / "answer.json"), "--keyset", str(folder / "bad.json")).exit_code == 2
    policy = ("--policy", str(folder / "bad.json"))
    assert verify(folder, "receipt", "answer.json", *policy).exit_code == 2
    assert verify(folder, "receipt", "missing.json").exit_code == 2


@pytest.mark.parametrize("file", ["chain.json", "chain.jsonl"])
def test_a_chain_verifies_and_a_broken_one_names_its_record(folder: Path, file: str) -> None:
    result = verify(folder, "chain", file, "--json", "--witnesses", str(folder / "witnesses"))
    assert (result.exit_code, json_of(result)["records"]) == (0, 3)
    lines = (folder / "chain.jsonl").read_text().splitlines()
    (folder / "cut.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n")
    broken = verify(folder, "chain", "cut.jsonl", "--json")
    assert (broken.exit_code, json_of(broken)["code"], json_of(broken)["first_bad"]) == (1, "seq_gap", 1)
    (folder / "no.jsonl").write_text("nothing\n")
    assert verify(folder, "chain", "no.jsonl").exit_code == 2
    (folder / "no.json").write_text("[]")
    assert verify(folder, "chain", "no.json").exit_code == 2


def test_a_long_chain_is_verified_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    """Also the order in the log is seen across windows."""
    monkeypatch.setattr("tcd.cli.verify_inputs.WINDOW", 2)
    made = Session(name="long")
    made.open()
    for _ in range(6):
        made.decision()
    made.close()
    log = LogSimulator(witnesses=0)
    log.add([made.receipts[n] for n in (0, 2, 1, 3, 4, 5, 6, 7)])
    ordered = LogSimulator(witnesses=0)
    ordered.add(made.receipts)
    keys = KeySet([made.issuer.pinned(), *log.pinned()])
    (tmp_path / "keys.json").write_text(json.dumps(keys.to_json()))
    for shown, places, expected in ((ordered, range(8), 0), (log, (0, 2, 1, 3, 4, 5, 6, 7), 1)):
        rows = [
            {"head": r.head_hex, "body": r.body_text, "sig": r.sig_hex, "proof": shown.proof(place).decode()}
            for place, r in zip(places, made.receipts, strict=True)
        ]
        (tmp_path / "c.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        result = verify(tmp_path, "chain", "c.jsonl", "--json")
        assert result.exit_code == expected, result.output
        if expected:
            assert (json_of(result)["code"], json_of(result)["first_bad"]) == ("log_chain_mismatch", 2)
        else:
            assert json_of(result)["records"] == 8


def test_a_bundle_verifies_and_what_was_seen_is_remembered(folder: Path, log: LogSimulator, session: Session) -> None:
    state = folder / "state.json"
    more = ("--json", "--witnesses", str(folder / "witnesses"), "--state", str(state))
    result = verify(folder, "bundle", "bundle.json", *more)
    assert (result.exit_code, json_of(result)["complete"]) == (0, True)
    assert json.loads(state.read_text())["logs"][0]["size"] == 3
    assert "the whole chain" in verify(folder, "bundle", "bundle.json").stdout
    older = write_bundle(session.receipts[:1], proofs=[log.proof(0, 2)])
    (folder / "older.json").write_bytes(older)
    back = verify(folder, "bundle", "older.json", *more)
    assert (back.exit_code, json_of(back)["code"]) == (1, "rollback")
    fork = LogSimulator(witnesses=2)
    fork.add(session.receipts[::-1])
    (folder / "fork.json").write_bytes(write_bundle(session.receipts[:1], proofs=[fork.proof(2)]))
    two = verify(folder, "bundle", "fork.json", *more)
    assert (two.exit_code, json_of(two)["code"]) == (1, "equivocation")
    assert [path.read_bytes() for path in folder.glob("state.json.evidence-*")] == [(folder / "fork.json").read_bytes()]
    (folder / "broken.json").write_bytes(older + b" ")
    assert verify(folder, "bundle", "broken.json").exit_code == 1
    assert json.loads(state.read_text())["logs"][0]["size"] == 3


def test_keys_are_made_rotated_retired_and_compromised(tmp_path: Path) -> None:
    where = ("--dir", str(tmp_path / "k"))
    made = json_of(run("keys", "generate", *where, "--purpose", "receipt", "--origin", "tcd.example", "--json"))
    for alg in ("Ed25519", "ML-DSA-44"):
        log = run("keys", "generate", *where, "--purpose", "checkpoint", "--origin", "tcd.example", "--alg", alg)
        assert log.exit_code == 0, log.output
    secrets = sorted((tmp_path / "k" / "private").iterdir())
    assert len(secrets) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE((tmp_path / "k" / "private").stat().st_mode) == 0o700
    rotated = run(
        "keys", "rotate", *where, made["kid"][:8], "--overlap-minutes", "5", "--out", str(tmp_path / "r"), "--json"
    )
    old, new = (json.loads(line) for line in rotated.stdout.splitlines())
    assert old["not_after_us"] == pytest.approx(new["not_before_us"] + 300_000_000, abs=60_000_000)
    assert json.loads((tmp_path / "r").read_text())["rotate"]["kid"] == new["kid"]
    size = json_of(run("keys", "compromise", *where, made["kid"], "--size", "7", "--json"))
    assert size["compromised_after_size"] == 7
    for later in (
        ("compromise", made["kid"], "--size", "9"),
        ("rotate", made["kid"]),
        ("retire", "0" * 32),
        ("retire", "0"),
    ):
        assert run("keys", later[0], *where, *later[1:]).exit_code == 2
    retired = json_of(run("keys", "retire", *where, new["kid"], "--json"))
    assert retired["not_after_us"] >= retired["not_before_us"]
    shown = run("keys", "list", *where).stdout.splitlines()
    exported = json_of(run("keys", "export", *where))
    assert (len(shown), len(KeySet.from_json(exported))) == (4, 4)
    everything = "".join(path.read_text() for path in secrets).split()
    for output in (rotated.output, "".join(shown), json.dumps(exported)):
        assert not any(secret in output for secret in everything)


def test_a_seed_is_taken_over_from_the_environment(tmp_path: Path) -> None:
    where = ("--dir", str(tmp_path), "--purpose", "receipt", "--from-env")
    secret = seed("mine").hex()
    made = run("keys", "generate", *where, "--json", TCD_ATTEST_SK_HEX=secret.upper())
    assert secret not in made.output.lower()
    store = KeyStore(tmp_path, os.urandom, lambda: 0)
    assert store.secret(json_of(made)["kid"]).kid == json_of(made)["kid"]
    assert run("keys", "generate", *where, TCD_ATTEST_SK_HEX=secret).exit_code == 2  # pinned already
    for bad in ("", "zz" * 32, secret[:-2]):
        refused = run("keys", "generate", *where, TCD_ATTEST_SK_HEX=bad)
        assert refused.exit_code == 2
        assert not bad or bad not in refused.output
    for wrong in (("--alg", "ML-DSA-44"), ("--alg", "RSA"), ("--purpose", "all")):
        assert run("keys", "generate", *where, *wrong).exit_code == 2


def test_a_signed_key_set_is_needed_where_roots_are_pinned(folder: Path) -> None:
    where = ("--dir", str(folder / "k"))
    for threshold in ("1", "2"):
        assert run("keys", "generate", *where, "--purpose", "root", "--threshold", threshold).exit_code == 0
    (folder / "k" / "keyset.json").write_text((folder / "keys.json").read_text())
    roots = [item for path in sorted((folder / "k" / "private").iterdir()) for item in ("--root", str(path))]
    for serial in (1, 2):
        assert run("keys", "export", *where, *roots, "--out", str(folder / f"signed{serial}.json")).exit_code == 0
    assert run("keys", "export", *where, *roots[:2], "--out", str(folder / "one.json")).exit_code == 0
    state = ("--state", str(folder / "state.json"), "--roots", str(folder / "k" / "roots.json"))

    def bundle(keys: str) -> int:
        return run("verify", "bundle", str(folder / "bundle.json"), "--keyset", str(folder / keys), *state).exit_code

    assert [bundle("signed2.json"), bundle("signed1.json"), bundle("one.json"), bundle("keys.json")] == [0, 2, 2, 2]
    without = run("verify", "bundle", str(folder / "bundle.json"), "--keyset", str(folder / "signed2.json"))
    assert (without.exit_code, "--roots" in without.output) == (2, True)


def test_the_keys_of_a_directory_sign_and_hand_over(tmp_path: Path) -> None:
    """Drill: rotate, then compromise; the record that hands over is signed by both keys."""
    clock = iter(range(1_760_000_000_000_000, 1_760_000_100_000_000, 1000))
    store = KeyStore(tmp_path, os.urandom, lambda: next(clock))
    first = store.generate(purpose="receipt", origin="tcd.example")
    session = Session(issuer=Issuer(store.secret(first.kid), origin="tcd.example"))
    session.open()
    old, new = store.rotate(first.kid, overlap_us=10_000_000)
    members = rotate_members(origin="tcd.example", old=old, new=store.secret(new.kid), from_us=new.not_before_us or 0)
    handed = session.issue("rotate", members)
    assert check_rotation(canonical.parse(handed.body)).kid == new.kid
    session.issuer = Issuer(store.secret(new.kid), origin="tcd.example")
    after = session.decision()
    log = LogSimulator(witnesses=0)
    log.add([session.receipts[0], handed, after])
    store.change(old.kid, compromised_after_size=1)
    policy = VerifyPolicy(KeySet([*store.keyset(), *log.pinned()]))
    results = [
        verify_single(r.body, head=r.head_hex, sig=r.sig_hex, proof=log.proof(n), policy=policy)
        for n, r in enumerate(session.receipts)
    ]
    assert [report.code for report in results] == ["ok", "key_not_valid", "ok"]
    with pytest.raises(ConfigError, match="again"):
        store.change(old.kid, compromised_after_size=2)


@pytest.mark.parametrize("scale", [1, pytest.param(10, marks=pytest.mark.long)])
def test_a_chain_of_any_length_takes_the_same_memory(tmp_path: Path, scale: int) -> None:
    made = Session(name="long")
    (tmp_path / "keys.json").write_text(json.dumps(KeySet([made.issuer.pinned()]).to_json()))
    made.open()
    peaks = []
    for count in (1200 * scale, 3600 * scale):
        path = tmp_path / f"{count}.jsonl"
        while len(made.receipts) < count:
            made.issue("gap", {"gap": {"from": 0, "to": 0, "reason": "x" * 100}})
        with path.open("w") as file:
            for r in made.receipts:
                file.write(json.dumps({"head": r.head_hex, "body": r.body_text, "sig": r.sig_hex}) + "\n")
        tracemalloc.start()
        result = verify(tmp_path, "chain", path.name, "--json")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert json_of(result)["records"] == count
    assert peaks[1] < 1.2 * peaks[0]
