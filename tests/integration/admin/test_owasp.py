"""The OWASP API Security Top 10 (2023), item by item, over a plane that is served: docs/admin-security.md has the map.

What one item needs at length has tests of its own; each is named where it belongs.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from sidecar_api.admin import tls
from sidecar_api.admin.app import MOST, requirements
from sidecar_api.admin.dashboard.gates import Viewing
from sidecar_api.admin.openapi import KEPT, document
from sidecar_api.admin.plane import Limits, Requires
from sidecar_api.admin.principals import SCOPES
from sidecar_api.app import create_app
from sidecar_api.pins import FixedAssets
from tcd.client.admin import OperatorKey
from tcd.rate_limit import Limit, TokenBuckets
from tcd.telemetry import LogWriter
from tests.integration.admin.live import WIDE, Live, live
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets

BASE = "/admin/v1"
DOCUMENT = document()
OPERATIONS = [(m.upper(), p, one) for p, item in DOCUMENT["paths"].items() for m, one in item.items()]
OF = {(method, path): one for method, path, one in OPERATIONS}
ROUTES = list(OF)
NOTHING = "0" * 64
POLICY = {"files": {"policies.toml": '[[policy]]\nname = "all"\nversion = 2\n[policy.rewrite]\nshadow = true\n'}}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("admin")) as made:
        yield made


def filled(path: str, value: str = NOTHING) -> str:
    return re.sub(r"\{\w+\}", value, path)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def signs(operation: dict[str, Any]) -> bool:
    return "signature" in operation["security"][0]


def same(first: Any, second: Any) -> bool:
    """Whether two answers differ in nothing but their time and their span."""
    skipped = {"date", "traceparent"}
    headers = [[(k, v) for k, v in r.headers.multi_items() if k.lower() not in skipped] for r in (first, second)]
    return first.status_code == second.status_code and first.content == second.content and headers[0] == headers[1]


# ---------------------------------------------------------------- API1


class Foreign:
    """Ids of things that are not Carol's, by the path and the name of the parameter."""

    def __init__(self, plane: Live) -> None:
        proposal = plane.send("PUT", f"{BASE}/policies", plane.alice, POLICY)
        assert proposal.status_code == 202, proposal.text
        job = plane.send("POST", f"{BASE}/replays", plane.alice, {"synthetic": {"count": 1}})
        assert job.status_code == 200, job.text
        self.ids = {
            (f"{BASE}/receipts/{{head}}", "head"): plane.heads[1],
            (f"{BASE}/approvals/{{identifier}}", "identifier"): proposal.json()["id"],
            (f"{BASE}/jobs/{{identifier}}", "identifier"): job.json()["result"]["id"],
        }

    def of(self, path: str, name: str) -> str:
        known = [value for (prefix, own), value in self.ids.items() if own == name and path.startswith(prefix)]
        assert known, f"{path}: what would another tenant's {name} be? Say it in Foreign"
        return str(known[0])


#: Parameters of a query, or members of a body, that name somebody's things.
NAMING = ("tenant", "user", "session", "subject")


@pytest.fixture(scope="module")
def foreign(plane: Live) -> Foreign:
    return Foreign(plane)


@pytest.mark.parametrize(("method", "path"), [key for key in ROUTES if "{" in key[1]])
def test_api1_what_is_anothers_is_as_if_it_were_not_there(
    plane: Live, foreign: Foreign, method: str, path: str
) -> None:
    name = re.findall(r"\{(\w+)\}", path)[0]
    own = OF[method, path]["x-tcd-tenants"] == "own"
    known = foreign.of(path, name) if own else "a" * 32
    theirs, missing = (filled(path.replace(f"{{{name}}}", value), "result.json") for value in (known, "0" * len(known)))
    first, second = (plane.send(method, one, plane.carol) for one in (theirs, missing))
    assert first.status_code == (404 if own else 403), first.text
    assert same(first, second)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        (method, path, parameter["name"])
        for method, path, one in OPERATIONS
        for parameter in one["parameters"]
        if parameter["in"] == "query" and parameter["name"] in NAMING
    ],
)
def test_api1_naming_anothers_things_says_no_more_than_naming_nobodys(
    plane: Live, method: str, path: str, name: str
) -> None:
    subject = json.loads(plane.send("GET", f"{BASE}/receipts/{plane.heads[1]}", plane.alice).json()["body"])["subject"]
    if name == "subject":
        pairs = [f"subject={subject}", "subject=sha256:" + "0" * 64]
    elif name == "tenant":
        pairs = ["tenant=other", "tenant=nobody"]
    else:
        pairs = ["tenant=other&user=u&session=s", "tenant=nobody&user=u&session=s"]
    first, second = (plane.send(method, f"{filled(path)}?{pair}", plane.carol) for pair in pairs)
    assert first.status_code < 500
    assert plane.heads[1] not in first.text
    assert same(first, second)


PAGES = [
    f"/ui/receipts/{{}}{rest}" for rest in ("", "/receipt.json", "/bundle.json")
] + ["/ui/sessions/{}", "/ui/jobs/{}", "/ui/jobs/{}/files/report.html"]  # fmt: skip


def test_api1_pages_of_anothers_things_are_those_of_nothing(plane: Live, foreign: Foreign) -> None:
    gates = requirements(plane.admin.server._server.config.loaded_app)
    known = {path for _, path in gates if path.startswith("/ui/") and re.search(r"{(?!rest|name})", path)}
    assert {re.sub(r"{[^}]+}", "{}", path, count=1).replace("{name}", "report.html") for path in known} == set(PAGES)
    subject = json.loads(plane.send("GET", f"{BASE}/receipts/{plane.heads[1]}", plane.alice).json()["body"])["subject"]
    carol = plane.browser(plane.carol)
    for path in PAGES:
        theirs = plane.heads[1] if "receipts" in path else subject if "sessions" in path else foreign.of(
            f"{BASE}/jobs/{{identifier}}", "identifier"
        )  # fmt: skip
        missing = re.sub(r"[0-9a-f]{32,}", lambda found: "0" * len(found[0]), theirs)
        first, second = (plane.send("GET", path.format(one), headers=carol) for one in (theirs, missing))
        assert first.status_code == 404, path
        # the address that was asked for may stand in the page, and the time does
        bare = [re.sub(r"<time.*?</time>", "", one.text.replace(theirs, missing)) for one in (first, second)]
        assert bare[0] == bare[1], path


def test_api2_no_page_is_open_but_the_one_to_sign_in(plane: Live) -> None:
    gates = requirements(plane.admin.server._server.config.loaded_app)
    pages = {key: gate for key, gate in gates.items() if key[1].startswith("/ui/")}
    assert {key for key, gate in pages.items() if not isinstance(gate, Viewing)} == {
        ("GET", "/ui/login"), ("POST", "/ui/login"), ("GET", "/ui/static/{name}")
    }  # fmt: skip
    for (method, path), gate in pages.items():
        if isinstance(gate, Viewing):
            for headers in ({}, {"cookie": "tcd-admin=x"}, {"authorization": f"Bearer {plane.alice.token(SCOPES)}"}):
                reply = plane.send(method, re.sub(r"{[^}]+}", "x", path), headers=headers)
                assert reply.status_code == 401, path
                assert "acme" not in reply.text


def test_api1_everybody_sees_their_own(plane: Live) -> None:
    for by, own, theirs in ((plane.carol, 0, 1), (plane.dave, 1, 0)):
        assert plane.send("GET", f"{BASE}/receipts/{plane.heads[own]}", by).status_code == 200
        assert plane.send("GET", f"{BASE}/receipts/{plane.heads[theirs]}", by).status_code == 404
        found = plane.send("GET", f"{BASE}/receipts", by).json()["receipts"]
        assert {receipt["tenant"] for receipt in found} == {"acme" if by is plane.carol else "other"}


# ---------------------------------------------------------------- API2 (each refusal: tests/unit/admin/test_tokens.py)


#: Routes that are asked with every token: read, changed by two, first start.
EVERY = {f"{BASE}/whoami", f"{BASE}/policies", f"{BASE}/enrol"}


def _tokens(key: OperatorKey, other: OperatorKey) -> dict[str, str]:
    good = key.token(SCOPES)
    header, claims, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"tcd-admin+jwt"}').rstrip(b"=").decode()
    public = key.private.public_key().public_bytes_raw()
    return {
        "none": "",
        "basic": "Basic YTpi",
        "not signed": f"Bearer {none}.{claims}.{signature}",
        "symmetric": "Bearer " + jwt.encode({"sub": "alice"}, public * 2, "HS256", headers={"kid": key.kid}),
        "another's key": f"Bearer {OperatorKey(key.principal, key.kid, other.private).token(SCOPES)}",
        "another's name": f"Bearer {OperatorKey('alice', other.kid, other.private).token(SCOPES)}",
        "expired": f"Bearer {key.token(SCOPES, now=time.time() - 1000)}",
        "not yet": f"Bearer {key.token(SCOPES, now=time.time() + 1000)}",
        "bound": f"Bearer {key.token(SCOPES, certificate=b'another')}",
        "cut": f"Bearer {header}.{claims}.{signature[:-2]}",
        "bootstrap": "Bearer tcd-bootstrap-" + NOTHING,
    }


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_api2_no_route_is_open_and_all_refusals_are_one(plane: Live, method: str, path: str) -> None:
    given = _tokens(plane.alice, plane.bob)
    if path not in EVERY:
        # all of them where the routes' kinds are; each route is asked by nobody, and by somebody else
        given = {name: given[name] for name in ("none", "another's key", "bootstrap")}
    replies = {
        name: plane.send(method, filled(path), headers={"authorization": value} if value else {})
        for name, value in given.items()
    }
    assert {name: reply.status_code for name, reply in replies.items()} == dict.fromkeys(replies, 401)
    assert all(same(replies["none"], reply) for reply in replies.values())
    assert replies["none"].headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), [key for key, one in OF.items() if signs(one) and "enrol" not in key[1]])
def test_api2_a_token_alone_changes_nothing(plane: Live, method: str, path: str) -> None:
    unsigned = plane.send(method, filled(path), plane.alice, {}, signs=False)
    forged = plane.send(method, filled(path), plane.alice, {}, signs=False, headers={"signature": "sig=:AAAA:"})
    by_another = plane.send(method, filled(path), plane.bob, {}, headers=bearer(plane.alice.token(SCOPES)))
    assert unsigned.status_code == 401
    assert same(unsigned, forged)
    assert same(unsigned, by_another)


# ---------------------------------------------------------------- API3


def _objects(schema: Any, seen: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for one in schema:
            yield from _objects(one, seen)
    elif isinstance(schema, dict):
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name and name not in seen:
            yield from _objects(DOCUMENT["components"]["schemas"][name], seen | {name})
        if schema.get("type") == "object":
            yield schema
        for inner in schema.values():
            yield from _objects(inner, seen)


#: A snapshot is checked elsewhere, by its own types and its digest.
OPEN = {f"{BASE}/state:load": "Detector"}
BODIES = [key for key, one in OF.items() if "requestBody" in one]


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_api3_members_that_are_not_the_callers_to_set_are_refused(plane: Live, method: str, path: str) -> None:
    found = list(_objects(OF[method, path]["requestBody"]["content"]["application/json"]["schema"]))
    assert found
    for schema in found:
        # closed, or a map whose values have a schema
        assert schema.get("title") == OPEN.get(path, "") or schema.get("additionalProperties", True) is not True, schema
    if "enrol" in path:
        return
    if "/approvals/" in path:
        # of what is not there a body is not looked at
        path = path.replace("{identifier}", plane.send("PUT", f"{BASE}/policies", plane.alice, POLICY).json()["id"])
    for member in ("scope", "__proto__"):
        reply = plane.send(method, filled(path), plane.alice, {member: "x"})
        assert reply.status_code == 422, reply.text


def test_api3_a_tenants_principal_is_not_shown_what_is_everybodys(plane: Live) -> None:
    for (method, path), one in OF.items():
        if one["x-tcd-tenants"] == "all" and "enrol" not in path:
            reply = plane.send(method, filled(path), plane.carol, {} if "requestBody" in one else None)
            assert (reply.status_code, reply.json()["detail"]) == (403, "this is not for principals of one tenant")


# ---------------------------------------------------------------- API4


def test_api4_what_is_too_much_is_refused(plane: Live) -> None:
    long = plane.send("PUT", f"{BASE}/policies", plane.alice, content=b" " * (MOST + 1))
    assert long.status_code == 413
    for deep in (b"[" * 100_000, b'{"files":' * 50_000, b'{"files":{"a":' + b"1" * 1_000_000 + b"}}"):
        reply = plane.send("POST", f"{BASE}/policies:validate", plane.alice, content=deep)
        assert reply.status_code == 422
    for query in ("limit=1001", "limit=-1", "limit=1e9", "limit=" + "9" * 5000):
        assert plane.send("GET", f"{BASE}/receipts?{query}", plane.alice).status_code in {400, 422}


def test_api4_rates_are_limited_for_each_address_and_principal(tmp_path: Path) -> None:
    with live(tmp_path) as plane:
        buckets = plane.admin.server.plane._buckets
        for name, path in (("principal", "whoami"), ("signed", "approvals/x"), ("address", "whoami")):
            buckets[name] = TokenBuckets(Limit(2.0, 1e-6), max_keys=100)
            method = "POST" if name == "signed" else "GET"
            replies = [plane.send(method, f"{BASE}/{path}", plane.alice) for _ in range(3)]
            assert [r.status_code == 429 for r in replies] == [False, False, True], name
            assert int(replies[-1].headers["retry-after"]) >= 1
            buckets[name] = TokenBuckets(WIDE, max_keys=100)
        strict = Limits()
        assert (strict.address.refill, strict.principal.refill, strict.signed.refill) == (3.0, 5.0, 0.5)


def test_api4_a_connection_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live(tmp_path) as plane:
        # from here on: nobody else connects
        monkeypatch.setattr(tls, "_FIRST_S", 0.2)
        for said in (b"", b"GET /admin/v1/whoami HTTP/1.1\r\nHost: x\r\n"):
            with (
                socket.create_connection(("127.0.0.1", plane.admin.server.port), timeout=60) as connection,
                # where the machine stood still it was closed before all of it was sent
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(said)
                assert connection.recv(1) == b""


# ---------------------------------------------------------------- API5


@pytest.mark.parametrize(("method", "path"), [key for key, one in OF.items() if one["x-tcd-scope"] in SCOPES])
def test_api5_every_other_scope_together_is_not_the_right_one(plane: Live, method: str, path: str) -> None:
    one = OF[method, path]
    others = [scope for scope in SCOPES if scope != one["x-tcd-scope"]]
    reply = plane.send(method, filled(path), plane.alice, {}, scopes=others)
    assert (reply.status_code, reply.json()["detail"]) == (403, f"the scope {one['x-tcd-scope']} is needed")


def test_api5_what_takes_two_people_is_not_done_by_one(plane: Live) -> None:
    two = [key for key, one in OF.items() if one["x-tcd-people"] == 2]
    assert {("PUT", f"{BASE}/policies"), ("PUT", f"{BASE}/principals")} <= set(two)
    proposed = plane.send("PUT", f"{BASE}/policies", plane.alice, POLICY).json()
    own = plane.send("POST", f"{BASE}/approvals/{proposed['id']}", plane.alice)
    assert own.status_code == 403


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "DELETE", "GETT"])
def test_api5_other_methods_lead_nowhere(plane: Live, method: str) -> None:
    # two methods everywhere, the others at one route of each kind
    paths = {path for _, path in ROUTES if (method, path) not in OF}
    for path in sorted(paths if method in {"DELETE", "OPTIONS"} else paths & EVERY):
        reply = plane.send(method, filled(path), plane.alice)
        assert reply.status_code == 405, (path, reply.status_code)
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "path", ["/ADMIN/v1/whoami", "/admin/v1//whoami", "/admin/v1/whoami/", "/admin/v1/./whoami", "/admin/v2/whoami"]
)
def test_api5_other_spellings_lead_nowhere(plane: Live, path: str) -> None:
    with socket.create_connection(("127.0.0.1", plane.admin.server.port), timeout=60) as connection:
        token = plane.alice.token(SCOPES)
        host = f"127.0.0.1:{plane.admin.server.port}"
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")


# ---------------------------------------------------------------- API6 (replays: test_signatures.py, test_replicas.py)


def test_api6_a_proposal_is_done_once_however_many_approve_at_once(plane: Live) -> None:
    proposed = plane.send("PUT", f"{BASE}/policies", plane.alice, POLICY).json()["id"]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: plane.send("POST", f"{BASE}/approvals/{proposed}", plane.bob), range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] + [404] * 7
    acts = plane.run(plane.admin.acts())
    assert acts.count(("policy.put", "alice + bob")) == 1


def test_api6_a_recorded_request_is_good_once_and_only_as_it_was(plane: Live) -> None:
    from tcd.client.admin import sign  # noqa: PLC0415

    url, body = f"{plane.url}{BASE}/policies", json.dumps(POLICY).encode()
    headers = {"authorization": f"Bearer {plane.alice.token(SCOPES)}", "idempotency-key": "recorded"}
    first, second = (sign(plane.alice, "PUT", url, dict(headers), body) for _ in range(2))

    def sent(recorded: dict[str, str], path: str = f"{BASE}/policies", content: bytes = body) -> int:
        return int(plane.send("PUT", path, content=content, headers=recorded).status_code)

    # in another order than they were made, with another body, for another route, and again
    assert sent(second) == 202
    assert sent(first, content=body + b" ") == 401
    assert sent(first, path=f"{BASE}/principals") == 401
    assert sent(first) == 202
    assert [sent(first), sent(second)] == [401, 401]


def test_api6_the_first_credential_is_worth_nothing_after_the_first_use(plane: Live) -> None:
    secret = next(line for line in plane.admin.said if line.startswith("bootstrap ")).split()[1]
    mallory = OperatorKey.generate("mallory")
    keys = {"keys": [mallory.public(SCOPES), OperatorKey.generate("eve").public(SCOPES)]}
    assert plane.send("POST", f"{BASE}/enrol", mallory, keys, headers=bearer(secret)).status_code == 401


# ---------------------------------------------------------------- API7


def test_api7_no_request_makes_the_server_call_anywhere(plane: Live) -> None:
    reached = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        for name in ("jku", "x5u"):
            header = {"typ": "at+jwt", "kid": plane.alice.kid, name: url}
            token = jwt.encode({"iss": url, "sub": "alice"}, plane.alice.private, "EdDSA", headers=header)
            assert plane.send("GET", f"{BASE}/whoami", headers=bearer(token)).status_code == 401
        for method, path in BODIES:
            plane.send(method, filled(path), plane.alice, {"files": {"a.toml": url}, "source": url, "url": url})
        plane.send("GET", f"{BASE}/receipts?model={url}", plane.alice, headers={"referer": url, "forwarded": url})
        try:
            listener.accept()
            reached.set()
        except TimeoutError:
            pass
    assert not reached.is_set()
    # and nothing asks for an address
    for method, path, one in OPERATIONS:
        schemas = [parameter["schema"] for parameter in one["parameters"]] + [one.get("requestBody", {})]
        names = {p["name"] for p in one["parameters"]} | {
            name for schema in _objects(schemas) for name in schema.get("properties", {})
        }
        assert not {n for n in names if re.search(r"(?i)ur[il]$|host|callback|webhook|endpoint", n)}, (method, path)


# ---------------------------------------------------------------- API8


@pytest.mark.parametrize("path", [f"{BASE}/whoami", f"{BASE}/receipts/x", "/", "/nothing", f"{BASE}/receipts?limit=x"])
def test_api8_every_answer_is_safe_for_a_browser_and_says_nothing_of_the_server(plane: Live, path: str) -> None:
    for by in (None, plane.alice):
        reply = plane.send("GET", path, by)
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert not {"server", "x-powered-by", "access-control-allow-origin"} & reply.headers.keys()
        assert reply.headers["content-type"].startswith("application/")


def test_api8_a_name_that_is_not_ours_and_a_tunnel_of_others_are_refused(plane: Live) -> None:
    for host in ("evil.example", "127.0.0.1", f"127.0.0.1:{plane.admin.server.port + 1}", "localhost.evil:8081"):
        assert plane.send("GET", f"{BASE}/whoami", plane.alice, headers={"host": host}).status_code == 400
    for name in ("x-forwarded-host", "x-forwarded-proto", "forwarded", "x-original-url", "x-http-method-override"):
        assert plane.send("GET", f"{BASE}/whoami", plane.alice, headers={name: "evil.example"}).status_code == 200


def test_api8_a_defect_is_answered_without_its_text(plane: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "canary-of-a-defect"
        raise ZeroDivisionError(msg)

    assert plane.admin.server.plane.approvals is not None
    monkeypatch.setattr(plane.admin.server.plane.approvals, "seen_by", broken)
    reply = plane.send("GET", f"{BASE}/approvals", plane.alice)
    assert reply.status_code == 500
    assert "canary" not in reply.text
    assert "Traceback" not in reply.text
    assert reply.json()["request_id"] == "the-same"


# ---------------------------------------------------------------- API9


def shim_of(scorer: ScriptedScorer) -> Client:
    return Client(create_app(settings_of(), scorer=scorer, assets=FixedAssets(synthetic_assets())))


def test_api9_what_is_served_is_what_is_written_down(plane: Live) -> None:
    app = plane.admin.server._server.config.loaded_app
    found = {key for key, gate in requirements(app).items() if isinstance(gate, Requires)}
    kept = json.loads(KEPT.read_text())
    assert {(m.upper(), p) for p, item in kept["paths"].items() for m in item} - {("POST", f"{BASE}/enrol")} == found
    assert all(path.startswith(f"{BASE}/") for _, path in found)


async def test_api9_the_shims_own_port_has_none_of_it() -> None:
    shim = shim_of(ScriptedScorer())
    for _, path in ROUTES:
        assert (await shim.get(filled(path))).status == 404
    assert (await shim.get("/openapi.json")).json()["paths"].keys().isdisjoint(path for _, path in ROUTES)


# ---------------------------------------------------------------- API10


@pytest.mark.parametrize("p", [float("nan"), float("inf"), -1.0, 2.0])
async def test_api10_what_the_model_server_answers_is_not_believed(p: float) -> None:
    shim = shim_of(ScriptedScorer(p))
    answer = await shim.step(session="s", tenant="acme", user="u", trace_vector=[-1.0] * 8)
    assert answer["cause"] == "degraded"
    assert any(check["status"] == "failed" for check in answer["checks"])


def test_api10_principals_that_somebody_spoiled_let_nobody_in(plane: Live) -> None:
    path = plane.admin.server.plane.people._path  # type: ignore[attr-defined]
    kept = path.read_bytes()
    try:
        for spoiled in (b"{}", b"", kept[: len(kept) // 2], kept.replace(b'"OKP"', b'"oct"')):
            path.write_bytes(spoiled)
            assert plane.send("GET", f"{BASE}/whoami", plane.alice).status_code == 503
    finally:
        path.write_bytes(kept)
    assert plane.send("GET", f"{BASE}/whoami", plane.alice).status_code == 200


# ---------------------------------------------------------------- secrets

CANARY = "c0ffee" * 10 + "abcd"
TOKEN = "canary-token-of-the-state-routes"


def test_no_secret_is_in_an_answer_a_log_line_a_metric_or_a_file_of_the_plane(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        "attest_sk_hex": CANARY,
        "subject_key_hex": CANARY[::-1],
        "spotlight_key_hex": CANARY[2:] + "00",
        "api_tokens": ({"token": TOKEN, "scopes": ["state:read"]},),
    }
    seen: list[str] = []
    with live(tmp_path, **settings) as plane:
        log = io.StringIO()
        plane.admin.server.plane.logs = LogWriter(level="debug", stream=log)
        plane.admin.server.plane.logs.start()
        tokens = [plane.alice.token(SCOPES) for _ in range(2)]
        secrets = [CANARY, CANARY[::-1], CANARY[2:] + "00", TOKEN, plane.alice.private.private_bytes_raw().hex()]
        secrets += [token.rpartition(".")[2] for token in tokens]
        for method, path, one in OPERATIONS:
            for body in (POLICY, {"synthetic": {"count": 1}}) if "requestBody" in one else (None,):
                for target in (filled(path, plane.heads[0]), f"{filled(path)}?tenant=acme&limit=x"):
                    for by in (plane.alice, None):
                        headers = {} if by else {"authorization": f"Bearer {tokens[0]}x"}
                        reply = plane.send(method, target, by, body, headers=headers)
                        seen.append(reply.text + str(reply.headers.multi_items()))
        browser = plane.browser(plane.alice)
        pages = ("", "approvals", "budgets", "health", "jobs", f"receipts/{plane.heads[0]}", "keyset.json", "nothing")
        for page in pages:
            reply = plane.send("GET", f"/ui/{page}", headers=browser)
            seen.append(reply.text + str(reply.headers.multi_items()))
        secrets.append(browser["cookie"].partition("=")[2])
        shim = Client(plane.admin.app)
        seen.append(plane.run(shim.get("/metrics")).body.decode())
        plane.admin.server.plane.logs.stop()
        secrets.append(next(line for line in plane.admin.said if line.startswith("bootstrap ")).split()[1])
        seen.append(log.getvalue())
        assert "admin act" in log.getvalue()
    seen += [path.read_bytes().decode("latin-1") for path in (tmp_path / "admin").rglob("*") if path.is_file()]
    out = capsys.readouterr()
    seen += [out.out, out.err, caplog.text]
    assert len(seen) > 2 * len(OPERATIONS)
    for text in seen:
        for secret in secrets:
            assert secret.lower() not in text.lower()
