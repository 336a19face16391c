"""The admin plane of a running shim: what operators do is in the shim's own log, and policies are really swapped."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from sidecar_api.admin.serving import check_host
from tcd.errors import ConfigError
from tests.integration.admin.kit import running
from tests.unit.shim.conftest import SEED_HEX, Client

BUNDLE = '[[policy]]\nname = "all"\nversion = {version}\n[policy.rewrite]\nshadow = {shadow}\n'


async def test_enrolment_and_a_change_of_policies_end_to_end(tmp_path: Path) -> None:
    place = tmp_path / "policies.toml"
    place.write_text(BUNDLE.format(version=1, shadow="true"))
    async with running(tmp_path, policies=place) as admin:
        assert (await admin.enrol()).status_code == 200
        before = (await admin.call(admin.alice, "GET", "/policies")).json()
        assert [p["ref"].partition("#")[0] for p in before["policies"]] == ["all@1"]

        new = {"files": {"policies.toml": BUNDLE.format(version=2, shadow="false")}}
        checked = await admin.call(admin.alice, "POST", "/policies:validate", new)
        assert checked.json()["policies"][0]["ref"].startswith("all@2#")
        proposed = await admin.call(admin.alice, "PUT", "/policies", new)
        assert proposed.status_code == 202
        assert place.read_text() == BUNDLE.format(version=1, shadow="true")
        done = await admin.call(admin.bob, "POST", f"/approvals/{proposed.json()['id']}")
        assert done.status_code == 200, done.text
        assert place.read_text() == BUNDLE.format(version=2, shadow="false")
        assert admin.app.runtime.policies is not None
        assert [p.version for p in admin.app.runtime.policies] == [2]

        acts = await admin.acts()
        assert ("principals.enrol", "bootstrap") in acts
        assert ("policy.put", "alice + bob") in acts
        assert acts.index(("policy.put", "alice + bob")) < acts.index(("policy.reload", "state token"))
        assert await admin.app.runtime.ledger.get(done.json()["receipt"]) is not None


async def test_the_log_says_who_refused_what_and_why(tmp_path: Path) -> None:
    place = tmp_path / "policies.toml"
    place.write_text(BUNDLE.format(version=1, shadow="true"))
    body = {"files": {"policies.toml": BUNDLE.format(version=2, shadow="true")}}
    async with running(tmp_path, policies=place) as admin:
        await admin.enrol()
        shim, said = Client(admin.app), []
        step = await shim.step(session="s", tenant="acme", trace_vector=[-1.0] * 64)
        for by, why in ((admin.bob, "not before Monday"), (admin.alice, 'ein Versehen: ¼ "\\')):
            proposed = (await admin.call(admin.alice, "PUT", "/policies", body)).json()
            done = await admin.post(f"/approvals/{proposed['id']}:refuse", {"reason": why}, by=by)
            said.append({"object": proposed["object"], "reason": why})
            found = await admin.get(f"/receipts/{done['receipt']}")
            members = {
                "receipt_head_hex": found["head"], "receipt_body_json": found["body"], "receipt_sig_hex": found["sig"],
                "verify_key_hex": step["verify_key"],
            }  # fmt: skip
            assert (await shim.post(members, "/verify")).json()["ok"] is True
        acts = [one["admin"] for one in await admin.bodies("admin")]
        assert [act for act in acts if act["action"].startswith("policy.put")] == [
            {"action": "policy.put.refused", "actor": "alice + bob", **said[0]},
            {"action": "policy.put.withdrawn", "actor": "alice", **said[1]},
        ]
        assert place.read_text() == BUNDLE.format(version=1, shadow="true")


async def test_a_bad_bundle_is_refused_with_file_line_and_reason(tmp_path: Path) -> None:
    place = tmp_path / "policies.toml"
    place.write_text(BUNDLE.format(version=1, shadow="true"))
    async with running(tmp_path, policies=place) as admin:
        await admin.enrol()
        bad = {"files": {"policies.toml": '[[policy]]\nname = "a"\nversion = "x"\n'}}
        for method, path in (("POST", "/policies:validate"), ("PUT", "/policies")):
            reply = await admin.call(admin.alice, method, path, bad)
            assert reply.status_code == 422
            assert reply.json()["detail"].startswith("policies.toml:3: ")
        two = {"files": {"a.toml": BUNDLE.format(version=2, shadow="true"), "b.toml": "x = 1"}}
        assert (await admin.call(admin.alice, "PUT", "/policies", two)).status_code == 409
        assert place.read_text() == BUNDLE.format(version=1, shadow="true")


MODE = '[[policy]]\nname = "all"\nversion = {version}\nmode = "{mode}"\n{more}'


async def test_a_bundle_that_loosens_is_refused_when_it_is_proposed(tmp_path: Path) -> None:
    place = tmp_path / "policies.toml"
    place.write_text(MODE.format(version=1, mode="enforce", more=""))
    async with running(tmp_path, policies=place) as admin:
        await admin.enrol()
        loose = {"files": {"policies.toml": MODE.format(version=2, mode="monitor", more="")}}
        checked = (await admin.call(admin.alice, "POST", "/policies:validate", loose)).json()
        (rule,) = checked["loosens"]
        assert rule.startswith("all@2#")
        assert rule.endswith("mode: enforce -> monitor")
        refused = await admin.call(admin.alice, "PUT", "/policies", loose)
        assert refused.status_code == 403
        assert rule in refused.json()["detail"]
        assert (await admin.call(admin.alice, "GET", "/approvals")).json() == {"approvals": []}

        tight = {"files": {"policies.toml": MODE.format(version=2, mode="enforce", more="")}}
        assert (await admin.call(admin.alice, "POST", "/policies:validate", tight)).json()["loosens"] == []
        first = (await admin.call(admin.alice, "PUT", "/policies", tight)).json()
        # what is no looser when it is proposed may be when it is approved: then it is refused, and recorded as failed
        stricter = "[policy.receipt]\nrewrite = true\n"
        second = {"files": {"policies.toml": MODE.format(version=3, mode="enforce", more=stricter)}}
        later = (await admin.call(admin.alice, "PUT", "/policies", second)).json()
        assert (await admin.call(admin.bob, "POST", f"/approvals/{later['id']}")).status_code == 200
        late = await admin.call(admin.bob, "POST", f"/approvals/{first['id']}")
        assert late.status_code == 403, late.text
        assert place.read_text() == second["files"]["policies.toml"]
        assert (await admin.acts())[-1] == ("policy.put.failed", "alice + bob")


async def test_a_bundle_that_cannot_be_kept_is_not_put_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "policies.toml"
    old, new = (MODE.format(version=version, mode="enforce", more="") for version in (1, 2))
    place.write_text(old)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refused(*_: object, **__: object) -> None:
        assert place.read_text() == new
        msg = "refused"
        raise ConfigError(msg)

    async with running(tmp_path, policies=place) as admin:
        await admin.enrol()
        for spoiled, says in (
            ("outside.write_whole", "No space left on device"),
            ("outside.Reloader.apply", "refused"),
        ):
            proposed = (await admin.call(admin.alice, "PUT", "/policies", {"files": {"policies.toml": new}})).json()
            with monkeypatch.context() as patch:
                patch.setattr(f"sidecar_api.admin.{spoiled}", full if "write" in spoiled else refused)
                failed = await admin.call(admin.bob, "POST", f"/approvals/{proposed['id']}")
            assert says in failed.json()["detail"]
            assert (await admin.acts())[-1] == ("policy.put.failed", "alice + bob")
            assert place.read_text() == old
            assert [policy.version for policy in admin.runtime.policies] == [1]
        assert failed.status_code == 500


async def test_a_blocked_session_is_found_by_its_names_and_the_receipt_verifies(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        shim = Client(admin.app)
        await shim.step(session="calm", tenant="acme", user="u")
        admin.scorer.p = 1e-9
        blocked = await shim.step(session="bad", tenant="acme", user="u", trace_vector=[-1.0] * 64)
        assert blocked["enforced"] == "block"
        by_names = await admin.call(admin.alice, "GET", "/receipts?tenant=acme&user=u&session=bad&action=block")
        (found,) = by_names.json()["receipts"]
        assert (found["head"], found["verdict"], found["model"]) == (blocked["receipt"], True, "model0")
        every = await admin.call(admin.alice, "GET", "/receipts?enforced=block")
        assert [r["head"] for r in every.json()["receipts"]] == [blocked["receipt"]]
        whole = (await admin.call(admin.alice, "GET", f"/receipts/{found['head']}")).json()
        assert whole["body"] == blocked["receipt_body"]
        members = {
            "receipt_head_hex": whole["head"], "receipt_body_json": whole["body"], "receipt_sig_hex": whole["sig"],
            "verify_key_hex": blocked["verify_key"],
        }  # fmt: skip
        assert (await shim.post(members, "/verify")).json()["ok"] is True
        # what the operators did is found in the same way
        acts = await admin.call(admin.alice, "GET", "/receipts?typ=admin")
        assert len(acts.json()["receipts"]) == 1


async def test_budgets_and_the_ledger_are_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        shim = Client(admin.app)
        step = await shim.step(session="s", tenant="acme", trace_vector=[-1.0] * 64)
        said = (await admin.call(admin.alice, "GET", "/alpha?tenant=acme")).json()
        assert (said["epoch"], said["reservations"], said["unit"]) == (1, 1, "session")
        assert said["spent"] == step["alpha_spent"]
        assert said["budget_remaining"] == step["budget_remaining"]
        for query in ("?tenant=other", "?tenant=acme&user=u"):
            assert (await admin.call(admin.alice, "GET", f"/alpha{query}")).status_code == 404
        assert (await admin.call(admin.alice, "GET", "/alpha")).status_code == 422
        kept = (await admin.call(admin.alice, "GET", "/ledger")).json()
        # the enrolment (open, act), the epoch, the session's opening and its step
        assert kept["receipts"] >= 4
        assert kept["heads_evicted"] == 0


async def test_secrets_of_the_settings_are_hidden(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        reply = await admin.call(admin.alice, "GET", "/config")
        assert reply.json()["settings"]["attest_sk_hex"] == "(hidden)"
        assert SEED_HEX not in reply.text
        # without a file there is no place for policies
        new = {"files": {"p.toml": BUNDLE.format(version=1, shadow="true")}}
        assert (await admin.call(admin.alice, "PUT", "/policies", new)).status_code == 404


async def test_a_restart_keeps_the_principals_and_prints_no_credential(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        alice = admin.alice
    async with running(tmp_path) as again:
        assert [line.split()[0] for line in again.said] == ["admin"]
        assert (await again.call(alice, "GET", "/whoami")).json()["principal"] == "alice"
        assert (tmp_path / "admin").stat().st_mode & 0o777 == 0o700


async def test_it_is_not_made_without_receipts_or_with_keys_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="receipts"):
        async with running(tmp_path, receipts_enable=False, attest_sk_hex=None):
            pass
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "principals.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"principals\.json"):
        async with running(tmp_path):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104 - refused
def test_it_is_on_loopback_or_not_at_all(host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        check_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_has_several_names(host: str) -> None:
    check_host(host)


async def test_requests_that_a_shutdown_cut_off_end_before_the_store_is_closed(tmp_path: Path) -> None:
    ended = []
    async with running(tmp_path) as admin:
        server = admin.server._server

        async def request() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                ended.append(await admin.server.plane.store.principals())

        server.config.timeout_graceful_shutdown = 0
        task = asyncio.ensure_future(request())
        server.server_state.tasks.add(task)
        task.add_done_callback(server.server_state.tasks.discard)
        await asyncio.sleep(0)
    assert ended == [None]
