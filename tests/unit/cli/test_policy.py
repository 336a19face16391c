"""`tcd policy` on bundles, and on a decision log and a ledger that a shim wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.cli.policy import app
from tcd.ledger.sqlite import SqliteLedger
from tcd.receipts import SigningKey
from tcd.reload import read_grant
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets

OLD = """
[[policy]]
name = "all"
version = 1
[[policy]]
name = "acme"
version = 2
extends = "all"
[policy.match]
tenant = "acme"
[[policy.decision]]
name = "high"
when = { score = 0.7 }
action = "throttle"
"""
#: Milder for acme between .7 and .8, stricter at and above .9; nothing for others.
NEW = OLD.replace("score = 0.7", "score = 0.8").replace("version = 2", "version = 3") + (
    '[[policy.decision]]\nname = "top"\nwhen = { score = 0.9 }\naction = "block"\n'
)


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, (done.exit_code, done.output, done.stderr)
    return done.output


@pytest.fixture
def bundles(tmp_path: Path) -> Callable[[str, str], Path]:
    def make(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return make


async def recorded(tmp_path: Path, bundle: Path | None) -> list[Any]:
    """Decisions of a real shim with a SQLite ledger and a decision log."""
    scorer = ScriptedScorer(p=0.9)
    given: dict[str, Any] = {"decision_log": tmp_path / "decisions.jsonl", "data_dir": tmp_path / "data"}
    if bundle is not None:
        given["policies"] = bundle
    (tmp_path / "data").mkdir()
    ledger = SqliteLedger(tmp_path / "data")
    made = create_app(
        settings_of(**given), scorer=scorer, assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger)
    )
    client, answers = Client(made), []
    async with made.router.lifespan_context(made):
        for tenant in ("acme", "other"):
            for score in (0.1, 0.75, 0.85, 0.95):
                scorer.changes = {"score": score}
                answers.append(await client.step(tenant=tenant, session=f"s{score}", user="u"))
        scorer.changes, scorer.p = {}, 1e-9
        answers.append(await client.step(tenant="other", session="bad"))
    await ledger.close()
    return answers


EXPECTED = [
    (1, "throttle", "allow", True),
    (3, "throttle", "block", False),
]


async def test_a_log_that_a_shim_wrote_shows_the_exact_diff(tmp_path: Path, bundles: Any) -> None:
    old, new = bundles("old", OLD), bundles("new", NEW)
    answers = await recorded(tmp_path, old)
    assert [a["action"] for a in answers] == ["allow", *["throttle"] * 3, *["allow"] * 4, "block"]
    for source in (("--log", tmp_path / "decisions.jsonl"), ("--ledger", tmp_path / "data")):
        # the bundle that decided decides again what was decided
        assert "9 decisions, 0 change, 0 cannot be said" in run("diff", old, *source)
        found = json.loads(run("diff", new, *source, "--against", old, "--json", code=1))
        assert [(c["index"], c["before"], c["after"], c["milder"]) for c in found["changed"]] == EXPECTED
        assert {s["subject"]["tenant"] for s in found["subjects"]} == {"acme"}
        assert all(s["changes"].keys() == {"decision.high", "decision.top"} for s in found["subjects"])
        text = run("diff", new, *source, "--against", old, code=1)
        assert "decision 1 (acme): throttle -> allow, enforced throttle -> allow, milder" in text
        assert "9 decisions, 2 change, 0 cannot be said" in text


async def test_the_first_bundle_is_tried_on_what_the_settings_decided(tmp_path: Path, bundles: Any) -> None:
    await recorded(tmp_path, None)
    found = json.loads(run("diff", bundles("new", NEW), "--log", tmp_path / "decisions.jsonl", "--json", code=1))
    assert [(c["index"], c["after"]) for c in found["changed"]] == [(2, "throttle"), (3, "block")]
    # receipts do not say what the settings saw: counted, never guessed
    found = json.loads(run("diff", bundles("new", NEW), "--ledger", tmp_path / "data", "--json", code=2))
    assert len(found["unknown"]) == found["entries"] == 9


async def test_what_a_receipt_does_not_name_cannot_be_said(tmp_path: Path, bundles: Any) -> None:
    await recorded(tmp_path, bundles("old", OLD))
    by_user = bundles("user", OLD.replace('tenant = "acme"', 'tenant = "acme"\nuser = "u*"'))
    assert "9 decisions, 0 change, 0 cannot be said" in run("diff", by_user, "--log", tmp_path / "decisions.jsonl")
    assert "cannot be said: the record has no user" in run("diff", by_user, "--ledger", tmp_path / "data", code=2)


def test_lint_show_and_a_refused_bundle(bundles: Any) -> None:
    assert "2 policies, 0 remarks" in run("lint", bundles("old", OLD))
    remarks = bundles("open", OLD + '[policy.failure]\non_failure = "open"\n')
    assert "acme: fails_open" in run("lint", remarks, code=1)
    assert json.loads(run("lint", remarks, "--json", code=1))[0]["code"] == "fails_open"
    done = CliRunner().invoke(app, ["lint", str(bundles("bad", OLD + "colour = 1\n"))])
    assert done.exit_code == 2
    assert "bad.toml:15: decision.0.colour: " in done.stderr
    shown = json.loads(run("show", bundles("old", OLD), "--tenant", "acme"))
    assert shown["policy_ref"].startswith("acme@2#")
    assert [row["name"] for row in shown["decision"]][-1] == "high"
    some = bundles("some", '[[policy]]\nname = "x"\nversion = 1\n[policy.match]\ntenant = "z"\n')
    assert json.loads(run("show", some))["policy_ref"] == "default"


def test_a_grant_is_of_exactly_this_bundle(tmp_path: Path, bundles: Any) -> None:
    key = SigningKey(b"k" * 32)
    (tmp_path / "key").write_text((b"k" * 32).hex())
    text = run("grant", bundles("old", OLD), "--key-file", tmp_path / "key", "--reason", "drill")
    found = read_grant(
        text.splitlines()[0], public_hex=key.public.hex(), now=json.loads(text.splitlines()[0])["until"] - 1
    )
    assert found.config_hash == run("lint", bundles("old", OLD)).split()[-1]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"v": "x"}', "neither tcd.decision-log/1 nor a receipt"),
        ('{"v": "tcd.decision-log/1"}', "KeyError: 'subject'"),
        ('{"v": "tcd.decision-log/1", "subject": {}, "risk": {"score": 1}}', "members of subject or risk"),
    ],
)
def test_a_broken_log_names_its_line(tmp_path: Path, bundles: Any, line: str, why: str) -> None:
    (tmp_path / "log").write_text(line + "\n")
    done = CliRunner().invoke(app, ["diff", str(bundles("old", OLD)), "--log", str(tmp_path / "log")])
    assert (done.exit_code, why in done.stderr) == (2, True), done.stderr
    assert "log:1: " in done.stderr
