"""Reload: validated, tighten-only without a grant, whole or not at all, seen in the next answer and the metrics."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidecar_api.reload import Reloader
from sidecar_api.stores import keeping, with_key
from tcd.cli.config import app as config_app
from tcd.cli.reloading import ReloadOn
from tcd.config import Settings, load
from tcd.errors import ConfigError, Forbidden
from tcd.receipts.keys import SigningKey
from tcd.reload import RELOADABLE, Grant, changes, check, issue, read_grant
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of
from tests.unit.surfaces.ways import app_of

KEY = SigningKey(b"k" * 32)
NOW = 1_700_000_000


def settings(**changed: Any) -> Settings:
    return settings_of(**changed)


@pytest.mark.parametrize(
    ("name", "milder", "stricter"),
    [
        ("mode", "monitor", "enforce"),
        ("on_failure", "open", "static"),
        ("on_failure", "static", "closed"),
        ("static_action", "allow", "degrade"),
        ("sanitize", "zero", "refuse"),
        ("hard_fail_on_floor", False, True),
        ("entropy_floor", None, 0.5),
        ("entropy_floor", 0.5, 1.0),
        ("hysteresis_on", 0.99, 0.95),
        ("cooldown_steps", 0, 8),
        ("log_decisions", False, True),
        ("alpha", 0.05, 0.02),
    ],
)
def test_directions(name: str, milder: Any, stricter: Any) -> None:
    mild, strict = settings(**{name: milder}), settings(**{name: stricter})
    assert [c.loosens for c in check(mild, strict, None)] == [False]
    with pytest.raises(Forbidden, match=f"loosens TCD_{name.upper()}"):
        check(strict, mild, None)
    grant = Grant(mild.config_hash, NOW, "r")
    assert [c.loosens for c in check(strict, mild, grant)] == [True]
    with pytest.raises(Forbidden):
        check(strict, mild, Grant(strict.config_hash, NOW, "r"))


def test_everything_else_needs_a_restart() -> None:
    assert set(Settings.model_fields) >= set(RELOADABLE)
    for name, value in [
        ("alpha_e", 0.04),
        ("http_port", 1),
        ("receipts_enable", False),
        ("break_glass_key_hex", "ab" * 32),
    ]:
        with pytest.raises(ConfigError, match=f"needs a restart: TCD_{name.upper()}"):
            changes(settings(), settings(**{name: value}))
    with pytest.raises(ConfigError, match="TCD_ATTEST_SK_HEX") as caught:
        changes(settings(), settings(attest_sk_hex="22" * 32))
    assert "22" * 32 not in str(caught.value)


def grant_text(**changed: Any) -> str:
    value = {"config_hash": "sha256:x", "until": NOW + 60, "reason": "incident 7", **changed}
    return issue(KEY, **value)


def test_a_grant() -> None:
    grant = read_grant(grant_text(), public_hex=KEY.public.hex(), now=NOW)
    assert (grant.config_hash, grant.reason) == ("sha256:x", "incident 7")


@pytest.mark.parametrize(
    "text",
    [
        grant_text(until=NOW),
        grant_text(until=NOW + 86401),
        grant_text(reason=""),
        issue(SigningKey(b"x" * 32), config_hash="sha256:x", until=NOW + 60, reason="r"),
        json.dumps({**json.loads(grant_text()), "config_hash": "sha256:y"}),
        json.dumps({**json.loads(grant_text()), "sig": "zz"}),
        *("", "{}", "[]", "[" * 3000, "x" * 5000),
    ],
)
def test_what_is_no_grant(text: str) -> None:
    with pytest.raises(Forbidden):
        read_grant(text, public_hex=KEY.public.hex(), now=NOW)


async def test_the_next_answer_is_of_the_new_settings() -> None:
    app = app_of(ScriptedScorer(1e-9), mode="monitor")
    client = Client(app)
    before = await client.step(session="a", step_id=0)
    assert (before["action"], before["enforced"]) == ("block", "allow")
    new = app.runtime.settings.model_copy(update={"mode": "enforce", "slo_ms": 1.0})
    found = Reloader(app.runtime).apply(Settings(**new.model_dump()))
    assert [c.name for c in found] == ["mode", "slo_ms"]
    reply = await client.post({"session": "a", "step_id": 1, "trace_vector": [-1.0]})
    after = reply.json()
    assert (after["action"], after["enforced"]) == ("block", "block")
    assert after["config_hash"] == reply.headers["x-tcd-config-hash"] == app.runtime.settings.config_hash
    assert after["config_hash"] != before["config_hash"]
    assert after["policy_ref"] != before["policy_ref"]
    assert json.loads(after["receipt_body"])["config"] == after["config_hash"]
    assert (await client.get("/healthz")).json()["config_hash"] == after["config_hash"]
    page = (await client.get("/metrics")).body.decode()
    assert f'tcd_build_info{{config_hash="{after["config_hash"]}"' in page
    assert before["config_hash"] not in page


async def test_a_refused_reload_changes_nothing() -> None:
    app = app_of(mode="enforce")
    before = app.runtime.settings
    loose = Settings(**{**before.model_dump(), "mode": "monitor", "slo_ms": 1.0})
    with pytest.raises(Forbidden):
        Reloader(app.runtime).apply(loose)
    assert app.runtime.settings is before
    assert (await Client(app).step())["config_hash"] == before.config_hash


async def test_a_file_that_changes_and_a_grant_that_comes(tmp_path: Path) -> None:
    file, grant = tmp_path / "tcd.toml", tmp_path / "grant"
    base = f'break_glass_key_hex = "{KEY.public.hex()}"\nbreak_glass_grant = "{grant}"\nlog_decisions = false\n'
    file.write_text(base + 'mode = "monitor"\n')
    loaded = load({}, path=file).settings
    app = app_of()
    app.runtime.settings = app.runtime.service.settings = loaded
    on = ReloadOn(Reloader(app.runtime), loaded, cli={}, path=file, environ={}, clock=lambda: NOW)

    async def becomes(mode: str) -> bool:
        for _ in range(6000):
            if app.runtime.settings.mode == mode:
                return True
            await asyncio.sleep(0.01)
        return False

    watch = asyncio.ensure_future(on.watch(seconds=0.005))
    await asyncio.sleep(0.02)
    file.write_text(base + 'mode = "enforce"\n')
    assert await becomes("enforce")
    file.write_text(base + 'mode = "enforce"\nnonsense = 1\n')
    await asyncio.sleep(0.05)
    file.write_text(base + 'mode = "monitor"\n# loosens\n')
    await asyncio.sleep(0.05)
    assert app.runtime.settings.mode == "enforce"
    wanted = load({}, path=file).settings.config_hash
    grant.write_text(issue(KEY, config_hash=wanted, until=NOW + 60, reason="incident"))
    assert await becomes("monitor")
    watch.cancel()


async def test_a_reload_keeps_the_key_of_the_data_directory_and_touches_no_other(tmp_path: Path) -> None:
    file, here, other = tmp_path / "tcd.toml", tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    file.write_text(f'mode = "monitor"\ndata_dir = "{here}"\n')
    app = app_of()
    whole = with_key(load({}, path=file).settings, {}, bytes)
    app.runtime.settings = app.runtime.service.settings = whole
    complete = keeping(whole.attest_sk_hex)
    on = ReloadOn(Reloader(app.runtime), whole, cli={}, path=file, environ={}, complete=complete)
    file.write_text(f'mode = "enforce"\ndata_dir = "{here}"\n')
    assert on.now("test")
    assert app.runtime.settings.mode == "enforce"
    for directory in (other, tmp_path / "nowhere"):
        file.write_text(f'mode = "enforce"\ndata_dir = "{directory}"\n')
        assert not on.now("test")
    file.write_text(f'mode = "enforce"\ndata_dir = "{here}"\nattest_sk_hex = "{"22" * 32}"\n')
    assert not on.now("test")
    assert app.runtime.settings.attest_sk_hex == whole.attest_sk_hex
    assert not list(other.iterdir())


def test_the_command_makes_a_grant_that_is_accepted(tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "tcd.toml"
    key.write_text((b"k" * 32).hex())
    file.write_text('mode = "monitor"\n')
    arguments = ["grant", "--key-file", str(key), "--reason", "r", "--config", str(file)]
    done = CliRunner().invoke(config_app, arguments, env={"TCD_CONFIG_PATH": ""})
    assert done.exit_code == 0, done.output
    grant = read_grant(done.stdout, public_hex=KEY.public.hex(), now=time.time())
    assert grant.config_hash == load({}, path=file).settings.config_hash
    assert (b"k" * 32).hex() not in done.output
    assert CliRunner().invoke(config_app, [*arguments[:2], str(tmp_path / "no"), *arguments[3:]]).exit_code == 2


async def test_a_smaller_alpha_counts_at_once_as_a_logged_event() -> None:
    from tcd.risk_av import Configured  # noqa: PLC0415

    app = app_of(ScriptedScorer(0.9))
    client = Client(app)
    before = await client.step(session="a")
    service = app.runtime.service
    Reloader(app.runtime).apply(app.runtime.settings.model_copy(update={"alpha": 0.02}))
    await service.judge.flush()
    logged = (await service.judge._committer._ledger.events(limit=1000)).events
    assert any(
        isinstance(event, Configured) and event.params.alpha == 0.02
        for event in (*logged, *service.budget.controller.events)
    )
    after = await client.step(session="b")
    assert after["alpha_alloc"] < before["alpha_alloc"]
    assert after["alpha_spent"] >= before["alpha_spent"]
    assert after["guarantee"].startswith("supfdr<=0.02|")
    # a session that had its level keeps it
    assert (await client.step(session="a"))["alpha_alloc"] == before["alpha_alloc"]
    for i in range(20):
        last = await client.step(session=f"c{i}")
    assert last["epoch"] > before["epoch"]
    assert last["alpha_alloc"] == pytest.approx(0.02 / 4)
