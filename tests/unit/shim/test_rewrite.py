"""`POST /v1/rewrite` and the route for nonces: the body's bytes, the policy, failures, metrics, the receipt."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.rewriting import rewrite_policy, spotlight_key
from tcd.config import ApiToken, Settings, load
from tcd.errors import ConfigError, Unavailable
from tcd.spotlight import Policy

TOKEN = "0123456789abcdef"
BODY = '{"n":1.50,"messages":[{"role":"user","content":"Sum up."},{"role":"tool","content":"a b","x":1e2}]}'


async def rewrite(client: Any, value: Any, **headers: str) -> Any:
    raw = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode()
    )
    return await client.call("POST", "/v1/rewrite", raw, {"Content-Type": "application/json", **headers})


async def test_shadow_mode_is_the_default_and_hands_back_the_bytes(make_client: Any) -> None:
    reply = await rewrite(make_client(), f'{{"body":{BODY}}}')
    assert reply.status == 200
    assert f'"body":{BODY},' in reply.body.decode()
    answer = reply.json()
    assert (answer["shadow_mode"], answer["body_rewritten"], answer["zones_marked"]) == (True, False, 1)
    assert answer["findings"][0]["name"] == "spotlighting_applied"


async def test_active_by_policy_or_on_request(make_client: Any) -> None:
    for client, request in (
        (make_client(spotlight_shadow=False), f'{{"body":{BODY}}}'),
        (make_client(), f'{{"body":{BODY},"active":true}}'),
    ):
        reply = await rewrite(client, request)
        answer = reply.json()
        assert answer["body_rewritten"]
        assert answer["body"]["messages"][2]["content"] == (
            f"<tcd-untrusted:{answer['nonce']}>a{answer['marker']}b</tcd-untrusted:{answer['nonce']}>"
        )
        text = reply.body.decode()
        assert '"n":1.50,' in text
        assert '"x":1e2}' in text
        again = await rewrite(client, json.dumps({"body": answer["body"], "active": True}))
        assert not again.json()["body_rewritten"]


async def test_the_request_may_choose_the_marking(make_client: Any) -> None:
    client = make_client(spotlight_shadow=False)
    answer = (await rewrite(client, f'{{"body":{BODY},"marking":"encode"}}')).json()
    assert answer["marking"] == "encode"
    assert "YSBi" in answer["body"]["messages"][2]["content"]
    lines = json.dumps({"body": {"prompt": "```\na b\n```"}, "keep_newlines": True})
    prompt = (await rewrite(client, lines)).json()["body"]["prompt"]
    assert "```\na" in prompt


@pytest.mark.parametrize("header", ["X-TCD-Data-Boundary", "X-LLMTrace-Data-Boundary", None])
async def test_boundaries_by_header_and_member(make_client: Any, header: str | None) -> None:
    client = make_client(spotlight_shadow=False)
    request = {"body": {"messages": [{"role": "user", "content": "one two three"}]}}
    if header is None:
        reply = await rewrite(client, {**request, "boundary": "0:4-7"})
    else:
        reply = await rewrite(client, request, **{header: "0:4-7"})
    answer = reply.json()
    assert answer["zone_byte_ranges_per_message"] == [{"message": 0, "part": 0, "ranges": [[4, 7]]}]
    assert ">two<" in answer["body"]["messages"][1]["content"]


REFUSED = [
    ({"body": {"messages": 1}}, 422, "body_missing_messages"),
    ({"body": []}, 422, "unsupported_body"),
    ({"body": json.loads(BODY), "boundary": "x"}, 422, "header_parse_failed"),
    ({"body": {"prompt": "a" * (1 << 20)}}, 413, "body_too_large"),
]


@pytest.mark.parametrize(("request_", "status", "reason"), REFUSED, ids=[r for _, _, r in REFUSED])
async def test_the_failure_policy(make_client: Any, request_: Any, status: int, reason: str) -> None:
    reply = await rewrite(make_client(spotlight_shadow=False), request_)
    assert reply.status == 200
    assert reply.json()["failures"] == [reason]
    closed = await rewrite(make_client(spotlight_on_failure="closed"), request_)
    assert closed.status == status
    problem = closed.json()
    assert problem["code"] == ("too_large" if status == 413 else "rewrite_refused")
    assert reason in problem["detail"]


async def test_a_deadline_that_passed(make_client: Any) -> None:
    value = {"body": {"messages": [{"role": "tool", "content": "a b " * 8}] * 15_000}}
    reply = await rewrite(make_client(spotlight_on_failure="closed"), value, **{"X-Deadline-Ms": "1"})
    assert (reply.status, reply.json()["code"]) == (504, "deadline_exceeded")
    reply = await rewrite(make_client(), value, **{"X-Deadline-Ms": "1"})
    assert reply.json()["failures"] == ["deadline_exceeded"]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"", 400, None),
        (b'{"body": {', 400, None),
        (b'{"body": "\xff"}', 400, None),
        (b'{"body":' + b"[" * 100_000, 400, None),
        (b"{}", 422, ""),
        (b'{"body": {}, "colour": 1}', 422, "/colour"),
        (b'{"body": {}, "active": 1}', 422, "/active"),
        (b'{"body": {}, "marking": "bold"}', 422, "/marking"),
        (b'{"body": {}, "marking": "none"}', 422, "/marking"),
        (b'{"body": {}, "boundary": "' + b"0" * 8193 + b'"}', 422, "/boundary"),
        (b'{"body": "' + b"0" * ((1 << 20) + (16 << 10)) + b'"}', 413, None),
    ],
)
async def test_strict(make_client: Any, body: bytes, status: int, pointer: str | None) -> None:
    reply = await rewrite(make_client(), body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    if pointer:
        assert reply.json()["pointer"] == pointer


async def test_metrics_count_and_never_carry_text(make_client: Any) -> None:
    client = make_client(spotlight_shadow=False)
    value = {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "secret text\u202e"}]}
    await rewrite(client, {"body": value})
    await rewrite(client, {"body": value, "boundary": "junk"})
    page = (await client.call("GET", "/metrics")).body.decode()
    for line in (
        'tcd_spotlighting_zones_total{kind="data",origin="role",shadow="false"} 2.0',
        'tcd_spotlighting_zones_total{kind="instruction",origin="role",shadow="false"} 2.0',
        'tcd_spotlighting_failures_total{reason="header_parse_failed"} 1.0',
        'tcd_spotlighting_removed_characters_total{class="bidi"} 2.0',
        "tcd_spotlighting_marker_collision_total 0.0",
        'tcd_requests_total{outcome="ok",surface="rewrite"} 2.0',
    ):
        assert line in page
    assert "secret" not in page
    delta = next(line for line in page.splitlines() if line.startswith("tcd_spotlighting_byte_delta_total{"))
    assert float(delta.split()[1]) > 0


async def test_nonces_are_for_those_who_may(make_client: Any) -> None:
    token = ApiToken(token=TOKEN, scopes=frozenset({"spotlight:nonce"}))  # type: ignore[arg-type] # pydantic makes the secret
    client = make_client(spotlight_shadow=False, api_tokens=(token,))
    assert (await client.call("POST", "/v1/spotlight/nonce")).status == 403
    reply = await client.call("POST", "/v1/spotlight/nonce", headers={"Authorization": f"Bearer {TOKEN}"})
    nonce = reply.json()["nonce"]
    text = f"q <tcd-data:{nonce}>a b</tcd-data:{nonce}>"
    answer = (await rewrite(client, {"body": {"messages": [{"role": "user", "content": text}]}})).json()
    assert answer["zones"][0]["origin"] == "operator_inline"
    assert "tcd-data" not in json.dumps(answer["body"])


async def test_the_outcome_is_bound_into_the_receipt_by_its_digest(make_client: Any) -> None:
    client = make_client()
    digests = [(await rewrite(client, {"body": json.loads(b)})).json()["digest"] for b in (BODY, '{"prompt":"x"}')]
    assert digests[0] != digests[1]
    requests = []
    for session, digest in (("a", digests[0]), ("a", digests[0]), ("a", digests[1])):
        reply = await make_client().post({"session": session, "context": {"rewrite": digest}})
        requests.append(json.loads(reply.json()["receipt_body"])["req"])
    assert requests[0] == requests[1] != requests[2]


def settings(**values: Any) -> Settings:
    return load({}, cli=values).settings


def test_the_key_follows_from_the_settings() -> None:
    def never(_: int) -> bytes:
        raise AssertionError

    assert spotlight_key(settings(spotlight_key_hex="22" * 32), never) == b"\x22" * 32
    derived = settings(attest_sk_hex="11" * 32)
    assert spotlight_key(derived, never) == spotlight_key(derived, never) != b"\x11" * 32
    assert spotlight_key(settings(), lambda n: b"r" * n) == b"r" * 32


def test_the_settings_are_the_policy() -> None:
    policy = rewrite_policy(
        settings(spotlight_zones="operator", spotlight_data_roles=("x",), spotlight_plain_tags=True)
    )
    assert policy == Policy(zones="operator", data_roles=frozenset({"x"}), plain_tags=True)
    with pytest.raises(ConfigError, match="fixed_marker"):
        settings(spotlight_fixed_marker="x")


BUNDLE = """
[[policy]]
name = "base"
version = 1
[policy.rewrite]
marking = "delimit"

[[policy]]
name = "acme"
version = 3
extends = "base"
[policy.match]
tenant = "acme"
[policy.rewrite]
shadow = false
"""


async def test_each_tenant_is_rewritten_under_its_own_policy(make_client: Any, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(BUNDLE)
    for settings_ in ({"policies": tmp_path / "p.toml"}, {"policies": tmp_path}):
        client = make_client(spotlight_keep_newlines=True, **settings_)
        for tenant, ref, active in (("acme", "acme@3#", True), ("other", "base@1#", False)):
            answer = (await rewrite(client, f'{{"body":{BODY},"tenant":"{tenant}","model_id":"m"}}')).json()
            assert (answer["body_rewritten"], answer["shadow_mode"]) == (active, not active)
            assert answer["marking"] == "delimit"
            assert answer["policy_ref"].startswith(ref)
        # what no policy says is as the settings say
        rules = client.app.runtime.rewriter.rules
        assert rules.of({"tenant": "acme"}).policy.keep_newlines


async def test_without_a_bundle_the_reference_is_of_the_settings(make_client: Any) -> None:
    client = make_client()
    step = await client.step()
    assert (await rewrite(client, f'{{"body":{BODY}}}')).json()["policy_ref"] == step["policy_ref"]


def test_a_bundle_in_the_variable_itself(make_client: Any) -> None:
    text = json.dumps({"policy": [{"name": "a", "version": 1, "rewrite": {"shadow": False}}]})
    for inline in (text, json.dumps(json.loads(text)["policy"])):
        rules = make_client(policies_json=inline).app.runtime.rewriter.rules
        assert not rules.of({}).policy.shadow
    for bad, why in (
        ("{", "TCD_POLICIES_JSON:1: not JSON"),
        ('{"policy": [{"name": "a"}]}', "TCD_POLICIES_JSON:1: ver"),
    ):
        with pytest.raises(ConfigError, match=why):
            make_client(policies_json=bad)
    with pytest.raises(ConfigError, match="one of them"):
        settings(policies="x", policies_json="{}")


def test_a_bundle_that_is_not_there_is_refused(make_client: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml:1: No such file"):
        make_client(policies=tmp_path / "no.toml")
    with pytest.raises(ConfigError, match=r"0 are here"):
        make_client(policies=tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"a\.toml:1: not UTF-8"):
        make_client(policies=tmp_path)


RECEIPTED = BUNDLE + "[policy.receipt]\nrewrite = true\n"


async def test_a_rewriting_has_a_receipt_where_the_policy_says_so(make_client: Any, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(RECEIPTED)
    client = make_client(policies=tmp_path / "p.toml")
    bodies, heads = [], []
    for _ in range(2):
        answer = (await rewrite(client, f'{{"body":{BODY},"tenant":"acme","model_id":"m"}}')).json()
        check = await client.post(
            {
                "receipt_head_hex": answer["receipt"],
                "receipt_body_json": answer["receipt_body"],
                "receipt_sig_hex": answer["receipt_sig"],
            },
            "/verify",
        )
        assert check.json()["ok"], check.body
        body = json.loads(answer["receipt_body"])
        assert (body["typ"], body["tenant"], body["model"]["id"]) == ("rewrite", "acme", "m")
        assert body["policy"][7:19] == answer["policy_ref"].partition("#")[2]
        done = body["rewrite"]
        assert done["outcome"] == answer["digest"]
        assert done["before"] == "sha256:" + hashlib.sha256(BODY.encode()).hexdigest()
        raw = client_body(answer)
        assert done["after"] == "sha256:" + hashlib.sha256(raw).hexdigest()
        assert (done["rewritten"], done["shadow"], done["zones"]) == (True, False, 1)
        bodies.append(body)
        heads.append(answer["receipt"])
    assert bodies[1]["chain"] == {**bodies[0]["chain"], "seq": 2, "prev": heads[0]}
    assert (await rewrite(client, f'{{"body":{BODY},"tenant":"other"}}')).json()["receipt"] is None


def client_body(answer: Any) -> bytes:
    """The forwarded body's bytes: the shim writes it back as it was, with the marked text in place."""
    marked = json.dumps(answer["body"]["messages"][-1]["content"], ensure_ascii=False)
    system = json.dumps(answer["body"]["messages"][0]["content"], ensure_ascii=False)
    first = f'{{"role":"system","content":{system}}},' if answer["body"]["messages"][0]["role"] == "system" else ""
    return BODY.replace('"messages":[', f'"messages":[{first}').replace('"a b"', marked).encode()


async def test_shadow_mode_is_receipted_too(make_client: Any) -> None:
    client = make_client(spotlight_receipts=True)
    answer = (await rewrite(client, f'{{"body":{BODY}}}')).json()
    done = json.loads(answer["receipt_body"])["rewrite"]
    assert (done["rewritten"], done["shadow"], done["before"]) == (False, True, done["after"])
    assert done["delta"] > 0
    assert (await rewrite(make_client(spotlight_receipts=True, receipts_enable=False), f'{{"body":{BODY}}}')).json()[
        "receipt"
    ] is None


async def test_a_rewriting_that_cannot_be_kept_is_refused_where_failures_close(
    make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for on_failure, status in (("open", 200), ("closed", 503)):
        client = make_client(spotlight_receipts=True, spotlight_on_failure=on_failure)

        async def full(*_: Any, **__: Any) -> Any:
            msg = "no room"
            raise Unavailable(msg)

        with monkeypatch.context() as context:
            context.setattr(client.app.runtime.ledger, "append", full)
            reply = await rewrite(client, f'{{"body":{BODY}}}')
        assert reply.status == status
        if status == 200:
            assert reply.json()["receipt"] is None
        # the next one begins a new chain
        assert json.loads((await rewrite(client, f'{{"body":{BODY}}}')).json()["receipt_body"])["chain"]["seq"] == 1
