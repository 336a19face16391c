"""Erasure over the plane: bodies go, by subject and by age; the log, its proofs and the chains stay what they were."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from sidecar_api.admin.erasing import Erase
from sidecar_api.admin.principals import SCOPES
from tcd.cli.main import app
from tcd.client.admin import OperatorKey
from tcd.errors import Conflict
from tcd.ledger import SqliteLedger
from tcd.ledger.sqlite import FILE
from tcd.receipts import VerifyPolicy, verify_chain
from tcd.receipts.bundle import verify_bundle
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.erasure import heads_digest, runs_of
from tcd.receipts.merkle import check_inclusion, leaf_hash
from tcd.receipts.note import parse_note
from tests.integration.admin.kit import Running, running
from tests.unit.shim.test_loop_lag import Beats, turning


async def proof(admin: Running, head: str) -> TlogProof:
    """A receipt's proof, checked against the newest checkpoint's root."""
    for _ in range(600):
        reply = await admin.call(admin.alice, "GET", f"/ledger/proofs/{head}")
        if reply.status_code == 200:
            break
        await asyncio.sleep(0.1)
    found = TlogProof.parse(reply.json()["proof"].encode())
    root = LogHead.from_text(parse_note(found.checkpoint)[0])
    check_inclusion(found.index, root.size, leaf_hash(bytes.fromhex(head)), found.path, root.root)
    return found


async def steps(admin: Running, user: str, count: int = 3) -> list[Any]:
    """Steps of a user's session, each with a key for retries."""
    keys = [f"{user}{n}" for n in range(count)]
    return [await admin.shim.step(**names(user), request_id=key, idempotency_key=key) for key in keys]


def contents(folder: Path) -> bytes:
    """Every byte of every file."""
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def names(user: str) -> dict[str, str]:
    return {"tenant": "acme", "user": user, "session": f"of-{user}"}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_subjects_bodies_go_and_everything_still_verifies(tmp_path: Path, kind: str) -> None:
    ledger: dict[str, Any] = {"ledger": SqliteLedger(tmp_path / "data")} if kind == "sqlite" else {}
    async with running(tmp_path, log_interval_s=0.02, **ledger) as admin:
        await admin.enrol()
        mine, other = await steps(admin, "gone"), await steps(admin, "stays")
        before = [await proof(admin, answer["receipt"]) for answer in mine]
        heads = list(await admin.runtime.ledger.heads())
        subject = json.loads(mine[0]["receipt_body"])["subject"]
        chain = json.loads(mine[0]["receipt_body"])["chain"]["id"]

        proposal = await admin.post("/receipts:erase", {"sessions": [names("gone")]}, status=202)
        assert (proposal["shown"]["bodies"], proposal["shown"]["all_counted"]) == (4, True)
        assert (await admin.get(f"/receipts/{mine[0]['receipt']}"))["body"] == mine[0]["receipt_body"]
        done = await admin.post(f"/approvals/{proposal['id']}", by=admin.bob)
        assert done["result"]["erased"] == 4

        # the log is the same, and so are the proofs of what is gone
        assert list(await admin.runtime.ledger.heads())[: len(heads)] == heads
        assert [(await proof(admin, a["receipt"])).index for a in mine] == [p.index for p in before]
        for answer in mine:
            left = await admin.get(f"/receipts/{answer['receipt']}")
            assert (left["erased"], left["body"], left["sig"]) == (True, None, answer["receipt_sig"])
        for answer in other:
            assert (await admin.get(f"/receipts/{answer['receipt']}"))["body"] == answer["receipt_body"]

        # the record names exactly these leaves, by the heads that the log still has
        (record,) = await admin.bodies("erase")
        named = [at for first, end in runs_of(record) for at in range(first, end)]
        assert {heads[at].hex() for at in named} >= {a["receipt"] for a in mine}
        assert record["erase"]["heads"] == heads_digest([heads[at] for at in named])
        assert (record["erase"]["reason"], record["erase"]["actor"], record["erase"]["count"]) == (
            "subject",
            "alice + bob",
            4,
        )

        # so does the bundle of what is left, to whoever has no connection to this log
        assert admin.runtime.log is not None
        raw = await admin.runtime.log.bundle(mine[0]["receipt"])
        report = verify_bundle(raw, policy=VerifyPolicy(admin.runtime.log.keys()))
        assert (report.code, report.log, sorted(report.erased_by)) == ("erased", "ok", [0, 1, 2, 3])
        (by,) = set(report.erased_by.values())
        assert (by.actor, by.reason, by.ts_us) == ("alice + bob", "subject", record["ts_us"])
        whole = await admin.runtime.log.bundle(other[0]["receipt"])
        assert "erasures" not in json.loads(whole)

        # the index has forgotten who it was
        assert (await admin.get(f"/receipts?subject={subject}"))["receipts"] == []
        rows = (await admin.get("/receipts?tenant=acme&limit=1000"))["receipts"]
        assert {r["head"] for r in rows if r["erased"]} == {heads[at].hex() for at in named}
        # and no file has anything of it
        if kind == "sqlite":
            files = contents(tmp_path)
            assert subject.encode() not in files
            for answer in mine:
                assert json.loads(answer["receipt_body"])["nonce"].encode() not in files
            assert json.loads(other[0]["receipt_body"])["nonce"].encode() in files

        # an answer that was kept for retries is gone too, the other one's is not
        for user, answers, same in (("gone", mine, False), ("stays", other, True)):
            retry = await admin.shim.step(
                session=f"of-{user}", tenant="acme", user=user, request_id=f"{user}0", idempotency_key=f"{user}0"
            )
            assert (retry["receipt"] == answers[0]["receipt"]) is same

        # the chain goes on, says what is erased, and what follows verifies
        checked = await admin.get(f"/ledger/chain?chain={chain}")
        assert (checked["erased"], checked["missing"]) == ([0, 1, 2, 3], [])
        gaps = await admin.get("/ledger/gaps")
        assert (gaps["bodies_erased"], gaps["erasures_recorded"], gaps["bodies_unexplained"]) == (4, 4, 0)
        await admin.post("/receipts:erase", {"subjects": ["sha256:" + "0" * 64]}, status=409)


async def test_files_say_who_erased_to_whoever_has_no_connection_to_the_log(tmp_path: Path) -> None:
    """`tcd verify chain` on records with the `erase` record beside them, and `tcd export store --erasures`."""
    ledger = SqliteLedger(tmp_path / "data")
    async with running(tmp_path, log_interval_s=0.02, ledger=ledger) as admin:
        await admin.enrol()
        mine = await steps(admin, "gone")
        proposal = await admin.post("/receipts:erase", {"sessions": [names("gone")]}, status=202)
        done = await admin.post(f"/approvals/{proposal['id']}", by=admin.bob)
        (record,) = await admin.bodies("erase")
        # an answer has the proof of the newest checkpoint
        await proof(admin, done["receipt"])
        for head in done["result"]["records"]:
            await proof(admin, head)
        assert admin.runtime.log is not None
        shown = json.loads(await admin.runtime.log.bundle(mine[0]["receipt"]))
        keys = admin.runtime.log.keys()
    await ledger.close()
    (beside,) = shown["erasures"]
    files = {name: tmp_path / f"{name}.json" for name in ("keys", "chain")}
    files["keys"].write_text(json.dumps(keys.to_json()))
    files["chain"].write_text(json.dumps([{**item, "erased_by": beside} for item in shown["receipts"]]))
    keyset = ["--keyset", str(files["keys"])]

    command = ["verify", "chain", str(files["chain"]), "--json", *keyset]
    said = json.loads(CliRunner().invoke(app, command).stdout)
    assert (said["code"], said["erased"]) == ("erased", [0, 1, 2, 3])
    assert {one["actor"] for one in said["erased_by"]} == {"alice + bob"}
    (by,) = {one["index"] for one in said["erased_by"]}

    command = ["export", "store", str(tmp_path / "data"), "--erasures", "--origin", record["origin"], *keyset]
    exported = CliRunner().invoke(app, command)
    assert exported.exit_code == 0, exported.output
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [line["by"] for line in lines if line["t"] == "erased"] == [by] * 4
    assert [json.loads(line["body"]) for line in lines if line["t"] == "erase"] == [record]


async def test_what_is_older_than_a_time_goes_in_pages_and_of_one_tenant_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_api.admin.erasing._AT_ONCE", 7)
    monkeypatch.setattr("sidecar_api.admin.erasing.MAX_RUNS", 3)
    async with running(tmp_path) as admin:
        await admin.enrol()
        old = [await admin.shim.step(session=f"s{n}", tenant=("acme", "other")[n % 2]) for n in range(20)]
        limit = json.loads(old[-1]["receipt_body"])["ts_us"] + 1
        new = [await admin.shim.step(session=f"n{n}", tenant="acme") for n in range(3)]
        done = await admin.two("/receipts:erase", {"before_us": limit, "tenant": "acme"})
        # ten sessions of the tenant: an opening and a step each
        assert done["result"]["erased"] == 20
        records = await admin.bodies("erase")
        assert sum(record["erase"]["count"] for record in records) == 20
        assert len(records) > 3
        assert {record["erase"]["reason"] for record in records} == {"age"}
        for answers, gone in ((old[::2], True), (old[1::2], False), (new, False)):
            for answer in answers:
                assert (await admin.get(f"/receipts/{answer['receipt']}"))["erased"] is gone
        # what names no subject stays: epochs, acts, the records of erasure themselves
        done = await admin.two("/receipts:erase", {"before_us": 2**52})
        kinds = {body["typ"] for body in await admin.bodies()}
        assert kinds >= {"open", "admin", "erase", "close"}
        assert "decision" not in kinds
        opened = [body["open"] for body in await admin.bodies("open")]
        assert {o["scope"] for o in opened if o.get("model", {}).get("id") != "-"} == {"epoch"}
        assert await admin.acts()


async def test_files_that_cannot_be_overwritten_now_are_told_and_overwritten_later(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "data")
    async with running(tmp_path, ledger=ledger) as admin:
        await admin.enrol()
        nonces = [json.loads((await steps(admin, user))[0]["receipt_body"])["nonce"].encode() for user in ("a", "b")]
        await admin.get("/receipts")
        # readers of what was: no WAL can be emptied meanwhile
        readers = [
            sqlite3.connect(place, isolation_level=None)
            for place in (tmp_path / "data" / FILE, tmp_path / "admin" / "search.sqlite")
        ]
        for reader in readers:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM receipt").fetchone()
        told = (await admin.two("/receipts:erase", {"sessions": [names("a")]}))["result"]
        assert (told["erased"], told["scrubbed"], len(told["why"])) == (4, False, 2)
        assert (await admin.acts())[-1] == ("receipts.erase", "alice + bob")
        assert nonces[0] in contents(tmp_path)
        for reader in readers:
            reader.close()
        told = (await admin.two("/receipts:erase", {"sessions": [names("b")]}))["result"]
        assert (told["erased"], told["scrubbed"], told.get("why")) == (4, True, None)
        files = contents(tmp_path)
        assert [nonce in files for nonce in nonces] == [False, False]


async def test_whom_an_erasure_is_about_is_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        subject = json.loads((await steps(admin, "uniquely"))[0]["receipt_body"])["subject"]
        proposal = await admin.post("/receipts:erase", {"sessions": [names("uniquely")]}, status=202)
        assert (proposal["shown"]["sessions"], proposal["shown"]["subjects"]) == (1, [])
        driver = admin.server.plane.store._driver
        for waits in (True, False):
            async with driver.transaction() as tx:
                kept = [
                    await tx.run(f"SELECT * FROM {table}")  # noqa: S608 - constants
                    for table in ("tcd_admin_act", "tcd_admin_proposal")
                ]
            assert (subject in str(kept), len(kept[1])) == (waits, int(waits))
            assert "uniquely" not in str(kept)
            # the answer that is kept for a day has no digest either, waiting or not
            assert subject not in str(kept[0])
            if waits:
                done = await admin.post(f"/approvals/{proposal['id']}", by=admin.bob)
        assert done["result"]["erased"] == 4


async def test_the_second_person_sees_whom_an_erasure_is_about_and_nobody_else_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, log_decisions=False) as admin:
        carol, dave = OperatorKey.generate("carol"), OperatorKey.generate("dave")
        secret = next(line for line in admin.said if line.startswith("bootstrap ")).split()[1]
        keys = [
            admin.alice.public(SCOPES),
            admin.bob.public(SCOPES),
            carol.public([scope for scope in SCOPES if scope != "receipts:erase"]),
            dave.public(SCOPES, tenant="acme"),
        ]
        assert (await admin.call(admin.alice, "POST", "/enrol", {"keys": keys}, bearer=secret)).status_code == 200
        mine = [await admin.shim.step(**names(user)) for user in ("uniquely-ü", "b")]
        subjects = [json.loads(one["receipt_body"])["subject"] for one in mine]
        wanted = {"sessions": [names("uniquely-ü")], "subjects": [subjects[1]]}
        proposal = await admin.post("/receipts:erase", wanted, status=202)
        assert proposal["shown"]["subjects"] == [subjects[1]]
        path = f"/approvals/{proposal['id']}"
        found = (await admin.call(admin.bob, "GET", path)).json()
        assert found["revealed"]["named"] == [{**names("uniquely-ü"), "subject": subjects[0]}]
        assert sorted(found["revealed"]["subjects"]) == sorted(subjects)
        (listed,) = (await admin.call(admin.bob, "GET", "/approvals")).json()["approvals"]
        assert listed == {name: value for name, value in found.items() if name != "revealed"}
        assert sorted(listed["shown"]["subjects"]) == sorted(subjects)
        # who could not approve it is told what they are told of nothing at all
        missing = await admin.call(carol, "GET", "/approvals/" + "0" * 32)
        reader = ["receipts:read"]
        for other in (
            await admin.call(carol, "GET", path),
            await admin.call(dave, "GET", path),
            await admin.call(admin.bob, "GET", path, scopes=reader),
        ):
            assert (other.status_code, other.json()["detail"]) == (404, missing.json()["detail"])
            assert "uniquely" not in other.text
        url = (await admin.post("/logins", by=admin.bob))["result"]["url"]
        async with httpx2.AsyncClient(follow_redirects=True, timeout=60.0) as browser:
            code, origin = url.partition("code=")[2], {"origin": admin.server.url, "sec-fetch-site": "same-origin"}
            await browser.post(f"{admin.server.url}/ui/login", data={"code": code}, headers=origin)
            page = (await browser.get(f"{admin.server.url}/ui/approvals")).text
        assert subjects[0] in page
        assert "uniquely" not in page
        # neither what it keeps nor what it says anywhere has the name
        assert b"uniquely" not in contents(tmp_path)
        assert (await admin.post(path, by=admin.bob))["result"]["erased"] == 4
        said = "".join(capfd.readouterr()) + (await admin.shim.get("/metrics")).body.decode()
        assert "admin act" in said
        assert "uniquely" not in said
        assert (await admin.call(admin.bob, "GET", path)).status_code == 404


async def test_names_that_are_not_those_of_the_erasure_are_not_shown_as_such(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        await steps(admin, "a")
        area = admin.server.plane._revealers["receipts.erase"].__self__  # type: ignore[attr-defined] # a method
        wanted = Erase.model_validate({"sessions": [names("a")]})
        other = area.with_names(area.without_names(wanted), Erase.model_validate({"sessions": [names("b")]}), bytes(12))
        # whoever can write the store cannot make them, and would be found out
        with pytest.raises(Conflict, match="not those"):
            area.whom(other)
        good = area.with_names(area.without_names(wanted), wanted, bytes(12))
        assert area.whom(good)["named"][0]["user"] == "a"
        altered = [{**good, "names": text} for text in ("", "00", good["names"][:-2] + "00", "x")]
        elsewhere = {**good, "subjects": [*good["subjects"], "sha256:" + "0" * 64]}
        for args in (*altered, elsewhere):
            assert (area.whom(args)["named"], area.whom(args)["readable"]) == ([], False)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"sessions": [{"tenant": "a"}]}, {"subjects": ["x"]}, {"before_us": 0},
        {"before_us": 1, "subjects": ["sha256:" + "0" * 64]},
        {"tenant": "a"}, {"sessions": [names("a")], "tenant": "a"}, {"before_us": True}, {"more": 1},
    ],
)  # fmt: skip
async def test_what_is_no_erasure_is_refused(tmp_path: Path, body: Any) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        await admin.post("/receipts:erase", body, status=422)


async def test_a_shim_starts_again_on_a_ledger_whose_bodies_were_erased(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "data")
    async with running(tmp_path, ledger=ledger) as admin:
        await admin.enrol()
        mine = await steps(admin, "gone")
        await admin.two("/receipts:erase", {"before_us": 2**52})
        spent = (await admin.get("/alpha?tenant=acme"))["spent"]
        alice, bob = admin.alice, admin.bob
    await ledger.close()
    async with running(tmp_path, ledger=SqliteLedger(tmp_path / "data")) as admin:
        admin.alice, admin.bob = alice, bob
        assert (await admin.get(f"/receipts/{mine[0]['receipt']}"))["erased"]
        again = await admin.shim.step(session="of-gone", tenant="acme", user="gone")
        assert again["alpha_spent"] > spent
        (found,) = (await admin.get("/receipts?tenant=acme&typ=decision&action=allow"))["receipts"]
        assert found["head"] == again["receipt"]


# -- what is missing ----------------------------------------------------------------------------------------


async def test_lost_records_are_found_and_admitted_in_signed_gaps_by_two(tmp_path: Path) -> None:
    place = tmp_path / "data"
    async with running(tmp_path, ledger=SqliteLedger(place)) as admin:
        await admin.enrol()
        mine = await steps(admin, "x", 5)
        chain = json.loads(mine[0]["receipt_body"])["chain"]["id"]
        assert (await admin.get(f"/ledger/chain?chain={chain}"))["report"]["code"] == "ok"
        # its session is live: it writes on
        await admin.post("/ledger:repair", {"chain": chain, "reason": "x"}, status=409)
        await admin.post("/ledger:repair", {"chain": "sha256:" + "0" * 64, "reason": "x"}, status=404)
        await admin.get(f"/ledger/chain?chain=sha256:{'0' * 64}", 404)
        await admin.get("/ledger/chain?chain=x", 422)
        store = admin.runtime.ledger._store

        # a restore that lost two records, and a session that is forgotten here
        def lose() -> None:
            store._connection.executescript("DROP TRIGGER receipt_no_DELETE")
            store._connection.execute(
                "DELETE FROM receipt WHERE chain = ? AND seq IN (2, 3)", (bytes.fromhex(chain[7:]),)
            )

        await admin.runtime.ledger._run(lose)
        for session in list(admin.runtime.service.sessions):
            session.chain = None
        told = await admin.get(f"/ledger/chain?chain={chain}")
        assert told["missing"] == [[2, 3]]
        done = await admin.two("/ledger:repair", {"chain": chain, "reason": "restored from a backup"})
        assert done["result"]["missing"] == [[2, 3]]
        (gap,) = await admin.bodies("gap")
        assert gap["gap"] == {"from": 2, "to": 3, "reason": "restored from a backup"}
        assert gap["chain"]["id"] == chain
        told = await admin.get(f"/ledger/chain?chain={chain}")
        assert (told["closed"], told["report"]["code"]) == (True, "ok")
        (shown,) = (await admin.get("/ledger/gaps"))["gaps"]
        assert (shown["from"], shown["to"], shown["chain"]) == (2, 3, chain)
        await admin.post("/ledger:repair", {"chain": chain, "reason": "x"}, status=409)


async def test_a_chain_is_verified_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = Beats()
    monkeypatch.setattr("sidecar_api.admin.log_routes.verify_chain", turning(beats, verify_chain))
    async with running(tmp_path) as admin:
        await admin.enrol()
        chain = json.loads((await steps(admin, "x"))[0]["receipt_body"])["chain"]["id"]
        async with beats.running():
            told = await admin.get(f"/ledger/chain?chain={chain}")
    assert (told["checked"], told["report"]["code"]) == (4, "ok")


async def test_lost_numbers_cost_what_is_there_not_what_is_said_to_be(tmp_path: Path) -> None:
    """A chain that its state says is long, of which little is left."""
    ledger = SqliteLedger(tmp_path / "data")
    async with running(tmp_path, ledger=ledger) as admin:
        await admin.enrol()
        chain = json.loads((await steps(admin, "x", 6))[0]["receipt_body"])["chain"]["id"]
        store, key = ledger._store, bytes.fromhex(chain[7:])

        def lose() -> None:
            store._connection.executescript("DROP TRIGGER receipt_no_DELETE")
            store._connection.execute("DELETE FROM receipt WHERE chain = ? AND seq IN (0, 3, 4)", (key,))
            store._connection.execute("UPDATE chain SET seq = ? WHERE id = ?", (1 << 50, key))
            store._chains.clear()

        await ledger._run(lose)
        for session in list(admin.runtime.service.sessions):
            session.chain = None
        lost = [[0, 0], [3, 4], [7, (1 << 50) - 1]]
        assert (await admin.get(f"/ledger/chain?chain={chain}"))["missing"] == lost
        proposal = await admin.post("/ledger:repair", {"chain": chain, "reason": "x"}, status=202)
        assert proposal["shown"]["missing"] == lost


async def test_a_body_that_went_without_a_record_is_unexplained(tmp_path: Path) -> None:
    async with running(tmp_path, ledger=SqliteLedger(tmp_path / "data")) as admin:
        await admin.enrol()
        await steps(admin, "x")
        store = admin.runtime.ledger._store
        await admin.runtime.ledger._run(lambda: store._connection.execute("DELETE FROM body WHERE idx = 3"))
        assert (await admin.get("/ledger/gaps"))["bodies_unexplained"] == 1
    with sqlite3.connect(tmp_path / "data" / FILE) as plain:
        assert plain.execute("SELECT count(*) FROM body WHERE idx = 3").fetchone() == (0,)


async def test_a_leaf_that_two_records_name_counts_once(tmp_path: Path) -> None:
    """As two shims on one ledger may write them."""
    async with running(tmp_path, ledger=SqliteLedger(tmp_path / "data")) as admin:
        await admin.enrol()
        mine = await steps(admin, "x")
        ledger, judge = admin.runtime.ledger, admin.runtime.service.judge
        found = [await ledger.get(answer["receipt"]) for answer in mine]
        places = sorted(one.index for one in found if one is not None)
        heads = [(await ledger.heads(first=place, limit=1))[0] for place in places]
        for part in (slice(0, 2), slice(0, 3)):
            named = {"actor": "a", "reason": "subject", "places": places[part], "heads": heads[part]}
            await judge.put(judge.receipts.erased(**named), erase=tuple(places[part]))
        store = admin.runtime.ledger._store
        # and one went without a record
        await admin.runtime.ledger._run(
            lambda: store._connection.execute("DELETE FROM body WHERE idx = ?", (places[0] - 1,))
        )
        gaps = await admin.get("/ledger/gaps")
        assert (gaps["bodies_erased"], gaps["erasures_recorded"], gaps["bodies_unexplained"]) == (4, 3, 1)


async def test_erasures_of_one_shim_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar_api.admin.erasing._AT_ONCE", 2)
    async with running(tmp_path) as admin:
        await admin.enrol()
        await steps(admin, "x", 7)
        erase = admin.server.plane._performers["receipts.erase"]
        wanted = {"sessions": [], "subjects": [], "before_us": 2**52, "tenant": None}
        done = await asyncio.gather(*(erase(wanted, actors) for actors in ("a + b", "c + d")))
        named = [at for body in await admin.bodies("erase") for a, b in runs_of(body) for at in range(a, b)]
        assert len(named) == len(set(named)) == sum(one["erased"] for one in done) == 8


async def test_one_size_of_the_log_follows_from_another(tmp_path: Path) -> None:
    async with running(tmp_path, log_interval_s=0.02) as admin:
        await admin.enrol()
        answer = (await steps(admin, "x"))[-1]
        size = LogHead.from_text(parse_note((await proof(admin, answer["receipt"])).checkpoint)[0]).size
        told = await admin.get(f"/ledger/consistency?old=2&size={size}")
        assert (told["old"], told["size"]) == (2, size)
        assert told["path"]
        await admin.get("/ledger/consistency?old=2&size=100000", 404)
        await admin.get("/ledger/consistency?old=9&size=5", 422)
        await admin.get("/ledger/consistency", 422)
        await admin.get(f"/ledger/proofs/{'0' * 64}", 404)
        await admin.get("/ledger/proofs/xyz", 404)
