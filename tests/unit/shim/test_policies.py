"""Policies in the dataplane: every action over HTTP, one version per answer, reloads whole or not, tightening."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from sidecar_api.decision import Bound, Facts, Rules, decide, decide_by
from sidecar_api.reload import Reloader
from tcd.bundles import read
from tcd.cli.reloading import ReloadOn
from tcd.errors import ConfigError, Forbidden
from tcd.receipts import SigningKey
from tcd.reload import Grant, issue
from tcd.routing.policy import DEFAULT_POLICY
from tcd.trust import ACTIONS, SEVERITY, BadBundle, Defaults, PolicySet, Row, load
from tcd.trust.tiers import Routing

LADDER = """
[[policy]]
name = "ladder"
version = 7
[policy.match]
tenant = "acme"
[policy.routing]
tags = ["eu"]
temperature_max = 0.9
[policy.routing.strict]
top_p_max = 0.2
""" + "".join(
    f'[[policy.decision]]\nname = "{action}-row"\nwhen = {{ score = 0.{i} }}\naction = "{action}"\n'
    for i, action in enumerate(ACTIONS[1:], 1)
)
MONITOR = '[[policy]]\nname = "watch"\nversion = 1\nmode = "monitor"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "policies.toml"
    path.write_text(text)
    return path


def body_of(answer: Any) -> Any:
    return json.loads(answer["receipt_body"])


async def test_every_action_is_reached_over_http_and_explained(make_client: Any, kit: Any, tmp_path: Path) -> None:
    scorer = kit.ScriptedScorer(p=0.9)
    client = make_client(scorer, policies=write(tmp_path, LADDER))
    seen = {}
    for i, action in enumerate(ACTIONS):
        scorer.changes = {"score": i / 10 + 0.05}
        answer = await client.step(tenant="acme", session=f"s{i}", context={"temperature": 1.0})
        assert answer["action"] == answer["enforced"] == action
        assert not answer["verdict"], "the verdict is the detector's, whatever is done"
        rows = [f"rule:{name}-row" for name in reversed(ACTIONS[1 : i + 1])]
        said = [action, "policy"] if i else []
        assert answer["route"]["tags"] == [*said, "eu", *rows]
        body = body_of(answer)
        assert body["decision"]["tags"] == answer["route"]["tags"]
        assert (body["decision"]["action"], body["decision"]["cause"]) == (action, answer["cause"])
        assert answer["route"]["temperature"] <= 0.9
        seen[action] = answer["route"]["tier"], answer["route"]["top_p"]
    assert [seen[a][0] for a in ACTIONS] == ["normal", *["cautious"] * 3, *["strict"] * 2]
    assert all(top_p <= 0.2 for tier, top_p in seen.values() if tier == "strict")
    page = (await client.get("/metrics")).body.decode()
    assert 'tcd_decisions_total{action="escalate_to_human",enforced="escalate_to_human",policy="ladder"} 1.0' in page


async def test_the_answer_and_the_receipt_name_the_same_policy(make_client: Any, tmp_path: Path) -> None:
    client = make_client(policies=write(tmp_path, LADDER))
    mine, other = await client.step(tenant="acme"), await client.step(tenant="other")
    [policy] = list(client.app.runtime.policies)
    assert mine["policy_ref"] == policy.ref
    assert body_of(mine)["policy"] == policy.digest
    assert policy.digest[7:19] == policy.ref.partition("#")[2]
    assert other["policy_ref"].startswith("default@1#")
    assert body_of(other)["policy"][7:19] == other["policy_ref"].partition("#")[2]
    assert "risk" in body_of(mine)
    assert "risk" not in body_of(other)
    assert (await client.get("/healthz")).json()["trust_os"]


async def test_monitor_says_what_it_would_do_and_enforces_nothing(make_client: Any, kit: Any, tmp_path: Path) -> None:
    client = make_client(kit.ScriptedScorer(p=1e-9), policies=write(tmp_path, MONITOR))
    answer = await client.step()
    assert (answer["verdict"], answer["action"], answer["enforced"]) == (True, "block", "allow")
    assert answer["cause"] == "av"
    decision = body_of(answer)["decision"]
    assert (decision["action"], decision["enforced"]) == ("block", "allow")


async def test_failure_receipts_and_deadline_are_the_policys(make_client: Any, kit: Any, tmp_path: Path) -> None:
    text = """
[[policy]]
name = "quiet"
version = 1
[policy.match]
tenant = "quiet"
[policy.receipt]
enable = false
[[policy]]
name = "bare"
version = 1
[policy.match]
tenant = "bare"
[policy.receipt]
witness = false
[[policy]]
name = "open"
version = 1
[policy.match]
tenant = "open"
[policy.failure]
on_failure = "open"
deadline_ms = 1000
"""

    async def hang(row: Any) -> None:
        if hanging:
            await asyncio.sleep(3600)

    hanging = False
    client = make_client(kit.ScriptedScorer(before=hang), policies=write(tmp_path, text))
    assert (await client.step(tenant="quiet"))["receipt_body"] is None
    assert body_of(await client.step(tenant="bare"))["witness"] == []
    assert body_of(await client.step(tenant="other"))["witness"]
    hanging = True
    answer = await client.step(tenant="open")
    assert (answer["action"], answer["cause"]) == ("allow", "degraded")
    assert answer["route"]["tags"] == ["rule:failed"]


@pytest.mark.parametrize(
    ("rules", "defaults"),
    [
        (Rules(on_failure=f, static_action=s, hard_fail_on_floor=h), Defaults("enforce", f, s, h))
        for f in ("closed", "open", "static")
        for s in ("allow", "degrade", "block")
        for h in (False, True)
    ],
)
def test_the_settings_as_a_table_decide_what_the_settings_decide(rules: Rules, defaults: Defaults) -> None:
    bound = Bound(defaults.table(), "enforce", Routing.of({}))
    flag = (False, True)
    for tier, trigger, alarm, floor, exhausted, failed in itertools.product(range(3), flag, flag, flag, flag, flag):
        facts = Facts(tier=tier, trigger=trigger, alarm=alarm, floor=floor, exhausted=exhausted, failed=failed)
        base = (1.0, 1.0, 0.0, 0.0)
        by_settings = decide(rules, facts, policy=DEFAULT_POLICY, base=base)
        by_table = decide_by(bound, facts, policy=DEFAULT_POLICY, base=base, whose={})
        assert by_table.action == by_settings.action
        assert by_table.route == by_settings.route
        assert by_table.verdict == by_settings.verdict


def version_of(number: int) -> PolicySet:
    """A version whose every part says its number: the reference, the row, the tag, the cap."""
    return load(
        {
            "v.toml": f"""
[[policy]]
name = "v"
version = {number}
[policy.routing]
tags = ["v{number}"]
temperature_max = 0.{number}
[[policy.decision]]
name = "row{number}"
action = "throttle"
"""
        }
    )


def consistent(answer: Any, digests: dict[str, str]) -> int:
    number = int(answer["policy_ref"].partition("@")[2].partition("#")[0])
    assert answer["route"]["tags"] == ["throttle", "policy", f"v{number}", f"rule:row{number}"]
    assert answer["route"]["temperature"] == pytest.approx(number / 10)
    assert body_of(answer)["policy"] == digests[answer["policy_ref"]]
    return number


async def test_a_request_in_flight_keeps_the_version_it_began_with(make_client: Any, kit: Any, tmp_path: Path) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def wait(row: Any) -> None:
        entered.set()
        await go.wait()

    first, second = version_of(2), version_of(1)
    digests = {policy.ref: policy.digest for policies in (first, second) for policy in policies}
    client = make_client(kit.ScriptedScorer(before=wait))
    runtime = client.app.runtime
    Reloader(runtime).apply(runtime.settings, policies=first)
    old = asyncio.create_task(client.step(session="old", context={"temperature": 1.0}))
    await entered.wait()
    grant = Grant(second.digest, 0, "test")
    Reloader(runtime).apply(runtime.settings, grant, policies=second)
    go.set()
    assert consistent(await old, digests) == 2
    assert consistent(await client.step(session="new", context={"temperature": 1.0}), digests) == 1


async def test_no_window_in_which_two_versions_mix(make_client: Any, kit: Any) -> None:
    """Thousands of swaps between the awaits of overlapping requests; any answer made by two versions would show."""
    versions = [version_of(number) for number in (1, 2, 3)]
    digests = {policy.ref: policy.digest for policies in versions for policy in policies}
    client = make_client(kit.ScriptedScorer(hops=6))
    runtime = client.app.runtime
    reloader, done = Reloader(runtime), False
    reloader.apply(runtime.settings, policies=versions[0])

    async def swap() -> int:
        count = 0
        while not done:
            following = versions[count % 3]
            reloader.apply(runtime.settings, Grant(following.digest, 0, "test"), policies=following)
            count += 1
            await asyncio.sleep(0)
        return count

    swapping = asyncio.create_task(swap())
    seen = set()
    for lot in range(10):
        steps = [client.step(session=f"{lot}-{i}", context={"temperature": 1.0}) for i in range(30)]
        seen |= {consistent(answer, digests) for answer in await asyncio.gather(*steps)}
    done = True
    assert seen == {1, 2, 3}
    assert await swapping > 50


async def test_a_bad_bundle_is_refused_whole_and_the_old_one_serves(make_client: Any, tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    client = make_client(policies=path)
    before = (await client.step(tenant="acme"))["policy_ref"]
    runtime = client.app.runtime
    path.write_text(LADDER.replace("version = 7", "version = 8") + '\n[[policy]]\nname = "x"\nversion = 0\n')
    with pytest.raises(BadBundle, match=r"policies\.toml:\d+: version: "):
        Reloader(runtime).apply(runtime.settings, policies=read(path))
    for text, why in (
        (LADDER + "[policy.av]\nalpha = 0.01\n", "av.alpha: a budget is a tenant's"),
        (LADDER + "[policy.detector]\nhysteresis_on = 0.1\nhysteresis_off = 0.5\n", "hysteresis_off"),
    ):
        path.write_text(text.replace("version = 7", "version = 8"))
        with pytest.raises(ConfigError, match=why):
            Reloader(runtime).apply(runtime.settings, policies=read(path))
    assert (await client.step(tenant="acme"))["policy_ref"] == before


async def test_a_reload_tightens_freely_and_loosens_by_a_grant_only(make_client: Any, kit: Any, tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    client = make_client(kit.ScriptedScorer(p=0.9, changes={"score": 0.35}), policies=path)
    runtime = client.app.runtime
    assert (await client.step(tenant="acme"))["action"] == "ask_for_review"
    tighter = LADDER.replace("score = 0.4", "score = 0.3").replace("version = 7", "version = 8")
    path.write_text(tighter)
    Reloader(runtime).apply(runtime.settings, policies=read(path), source="test")
    answer = await client.step(tenant="acme")
    assert answer["action"] == "escalate_to_human"
    assert answer["policy_ref"].startswith("ladder@8#")
    path.write_text(LADDER.replace("version = 7", "version = 9"))
    looser = read(path)
    for grant in (None, Grant("sha256:" + "0" * 64, 0, "of another bundle")):
        with pytest.raises(Forbidden, match=f"escalate_to_human-row: less than .*grant for {looser.digest}"):
            Reloader(runtime).apply(runtime.settings, grant, policies=looser)
    assert (await client.step(tenant="acme"))["policy_ref"] == answer["policy_ref"]
    Reloader(runtime).apply(runtime.settings, Grant(looser.digest, 0, "drill"), policies=looser)
    assert (await client.step(tenant="acme"))["action"] == "ask_for_review"
    acts = []
    for head in await runtime.ledger.heads():
        stored = await runtime.ledger.get(head.hex())
        assert stored is not None
        assert stored.receipt is not None
        acts += [json.loads(stored.receipt.body).get("admin", {})]
    found = [(act["action"], act["object"]) for act in acts if act]
    assert [action for action, _ in found] == ["policy.reload", "policy.break_glass"]
    assert found[1][1] == looser.digest


async def test_a_changed_file_and_sighup_reload_the_bundle(make_client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.toml").write_text(LADDER)
    key = SigningKey(b"k" * 32)
    client = make_client(policies=folder, break_glass_key_hex=key.public.hex(), break_glass_grant=tmp_path / "grant")
    runtime = client.app.runtime
    # what is no setting of this test's environment stays as the app has it
    given = {name: getattr(runtime.settings, name) for name in type(runtime.settings).model_fields}
    on = ReloadOn(Reloader(runtime), runtime.settings, cli=given, path=None, environ={})
    (folder / "b.toml").write_text(MONITOR.replace('"monitor"', '"enforce"'))
    assert on.now("SIGHUP")
    assert (await client.step(tenant="other"))["policy_ref"].startswith("watch@1#")
    watching = asyncio.create_task(on.watch(seconds=0.01))
    await asyncio.sleep(0.05)
    (folder / "b.toml").write_text(MONITOR.replace('"monitor"', '"enforce"').replace("version = 1", "version = 22"))

    async def taken() -> None:
        while not (await client.step(tenant="other"))["policy_ref"].startswith("watch@22#"):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)

    await asyncio.wait_for(taken(), 60)
    watching.cancel()
    # a mistake, then something looser: neither is taken, the second is with a grant for exactly this bundle
    (folder / "b.toml").write_text("[[policy]]")
    assert not on.now("file")
    (folder / "b.toml").write_text(MONITOR)
    assert not on.now("file")
    assert (await client.step(tenant="other"))["policy_ref"].startswith("watch@22#")
    text = issue(key, config_hash=read(folder).digest, until=int(time.time()) + 60, reason="drill")
    (tmp_path / "grant").write_text(text)
    assert on.now("file")
    assert (await client.step(tenant="other"))["policy_ref"].startswith("watch@1#")


async def test_pressure_is_late_answers_of_late(make_client: Any, tmp_path: Path) -> None:
    text = '[[policy]]\nname = "p"\nversion = 1\n[[policy.decision]]\nname = "slow"\nwhen = { pressure = 1.0 }\n'
    path = write(tmp_path, text + 'action = "throttle"\ncause = "slo"\n')
    # every answer is late under this objective, and none under the other
    hurried, calm = make_client(policies=path, slo_ms=0.0001), make_client(policies=path, slo_ms=1e9)
    assert (await hurried.step(session="first"))["action"] == "allow"
    answer = await hurried.step(session="second")
    assert (answer["action"], answer["cause"]) == ("throttle", "slo")
    assert [(await calm.step(session=str(i)))["action"] for i in range(3)] == ["allow"] * 3


CONDITION = """
[[policy]]
name = "c"
version = 1
[policy.match]
cel = "tenant.startsWith('ac')"
[[policy.decision]]
name = "hot"
when = { score = 0.5 }
cel = "task == 'chat' && context.temperature > 1.0"
action = "throttle"
"""


async def test_an_expression_asks_the_subject_and_the_context(make_client: Any, kit: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("cel") is None:
        pytest.skip("cel: pip install tcd[cel]")
    scorer = kit.ScriptedScorer(p=0.9, changes={"score": 0.6})
    client = make_client(scorer, policies=write(tmp_path, CONDITION))

    async def action(tenant: str, **context: Any) -> str:
        answer = await client.step(tenant=tenant, session=f"{tenant}{context}", context=context)
        return str(answer["action"])

    assert await action("acme", temperature=1.5) == "throttle"
    assert await action("acme", temperature=0.5) == "allow"
    assert await action("other", temperature=1.5) == "allow"
    # where it cannot be said the row holds
    assert await action("acme") == "throttle"


LEVELS = st.floats(0, 1.5)
FACTS = st.builds(
    Facts,
    tier=st.integers(0, 2),
    **dict.fromkeys(("trigger", "alarm", "floor", "exhausted", "failed"), st.booleans()),
    **dict.fromkeys(("score", "spent", "distrust", "pressure"), LEVELS),
)
TABLES = st.lists(
    st.builds(
        Row,
        st.just("r"),
        st.dictionaries(st.sampled_from(("score", "spent", "distrust", "pressure")), LEVELS, max_size=2),
        st.sampled_from(ACTIONS),
        st.just("policy"),
    ),
    max_size=6,
)
TIERS_OF = st.lists(st.sampled_from(("normal", "cautious", "strict")), min_size=6, max_size=6)


@seed(5)
@settings(max_examples=100, deadline=None, database=None)
@given(TABLES, FACTS, FACTS, TIERS_OF, st.sampled_from(("closed", "open", "static")))
def test_more_risk_is_never_milder_in_action_or_tier(
    table: list[Row], one: Facts, other: Facts, tiers: list[str], on_failure: Any
) -> None:
    ranked = sorted(tiers, key=("normal", "cautious", "strict").index)
    routing = Routing.of({"tier_of": dict(zip(ACTIONS, ranked, strict=True))})
    bound = Bound((*Defaults(on_failure=on_failure).table(), *table), "enforce", routing)
    names = ("tier", "trigger", "alarm", "floor", "exhausted", "failed", "score", "spent", "distrust", "pressure")
    riskier = Facts(**{name: max(getattr(one, name), getattr(other, name)) for name in names})
    base = (1.0, 1.0, 0.0, 0.0)
    mild = decide_by(bound, one, policy=DEFAULT_POLICY, base=base, whose={})
    strict = decide_by(bound, riskier, policy=DEFAULT_POLICY, base=base, whose={})
    assert SEVERITY[strict.action] >= SEVERITY[mild.action]
    assert SEVERITY[strict.enforced] >= SEVERITY[mild.enforced]
    assert strict.tier >= mild.tier
    assert strict.verdict >= mild.verdict
