"""The dashboard over HTTP: who gets in, what a page may hold, tenants, hostile names, tampering, downloads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from sidecar_api.admin.app import requirements
from sidecar_api.admin.dashboard import sources
from sidecar_api.admin.dashboard.browsers import READING
from sidecar_api.admin.dashboard.gates import Open, Viewing
from sidecar_api.admin.principals import SCOPES
from tcd.client.admin import OperatorKey
from tcd.rate_limit import Limit, TokenBuckets
from tcd.receipts.bundle import verify_bundle
from tests.integration.admin.page_rules import breaches, read
from tests.integration.admin.stage import BLOCKED, HOSTILE, Threaded, threaded
from tests.unit.shim.conftest import SEED_HEX

#: The inventory of pages: a new one is written down here, with what it requires.
PAGES: dict[tuple[str, str], Viewing | Open] = {
    ("GET", "/"): Viewing(None),
    ("GET", "/budgets"): Viewing("alpha:read"),
    ("GET", "/triggers"): Viewing("receipts:read"),
    ("GET", "/scores"): Viewing("receipts:read"),
    ("GET", "/receipts"): Viewing("receipts:read"),
    ("GET", "/receipts/{head}"): Viewing("receipts:read"),
    ("GET", "/receipts/{head}/receipt.json"): Viewing("receipts:read"),
    ("GET", "/receipts/{head}/bundle.json"): Viewing("receipts:read"),
    ("GET", "/keyset.json"): Viewing(None),
    ("GET", "/sessions"): Viewing("receipts:read"),
    ("GET", "/sessions/{subject}"): Viewing("receipts:read"),
    ("GET", "/jobs"): Viewing(None),
    ("GET", "/jobs/{identifier}"): Viewing(None),
    ("GET", "/jobs/{identifier}/files/{name}"): Viewing(None),
    ("GET", "/approvals"): Viewing(None),
    ("GET", "/health"): Viewing("receipts:audit", everywhere=True),
    ("GET", "/static/{name}"): Open("the style sheet and the icon are in every copy of the software"),
    ("GET", "/login"): Open("it takes a code, and shows nothing"),
    ("POST", "/login"): Open("it takes a code, and shows nothing"),
    ("POST", "/logout"): Viewing(None, posts=True),
    ("GET", "/{rest:path}"): Viewing(None),
}
HTML = "text/html; charset=utf-8"


class Browser:
    """A browser as far as HTTP goes: it keeps cookies and says where forms come from."""

    def __init__(self, stage: Threaded) -> None:
        self.stage = stage
        # no TLS here: making its context takes most of a test
        # and connections of one request each: none is closed by the server while the next one begins
        limits = httpx2.Limits(max_keepalive_connections=0)
        self.http = httpx2.Client(base_url=stage.url, timeout=60.0, verify=False, limits=limits)

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **options: Any) -> Any:
        return self.http.get(f"/ui{path}", **options)

    def page(self, path: str) -> str:
        """A page that is answered, and keeps the rules."""
        reply = self.get(path)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == HTML
        assert breaches(reply.text) == []
        return str(reply.text)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Any:
        return self.http.post(f"/ui{path}", data=fields, headers={"sec-fetch-site": "same-origin", **headers})

    def enter(self, by: OperatorKey | None = None) -> Any:
        return self.post("/login", {"code": code_of(self.stage.do(self.stage.stage.login(by)))})


def code_of(url: str) -> str:
    found = re.search(r"/ui/login\?code=([0-9a-f]{32})$", url)
    assert found is not None
    return found[1]


@pytest.fixture
def anybody(stage: Threaded) -> Iterator[Browser]:
    with closing(Browser(stage)) as made:
        yield made


@pytest.fixture
def alice(anybody: Browser) -> Browser:
    assert anybody.enter().status_code == 303
    return anybody


@pytest.fixture
def carol(stage: Threaded, anybody: Browser) -> Browser:
    assert anybody.enter(stage.stage.carol).status_code == 303
    return anybody


def heads(page: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r'href="/ui/receipts/([0-9a-f]{64})"', page)))


# -- who gets in ----------------------------------------------------------------------------------------------


def test_every_page_says_what_it_requires_and_only_two_posts_are_there(stage: Threaded) -> None:
    app = stage.stage.admin
    found = {
        (method, path.removeprefix("/ui")): gate
        for (method, path), gate in requirements(app).items()
        if isinstance(gate, Viewing | Open)
    }
    assert found == PAGES
    assert all(
        route.path.startswith("/ui/")
        for route in app.routes
        if isinstance(route, APIRoute) and any(isinstance(d.call, Viewing | Open) for d in route.dependant.dependencies)
    )


@pytest.mark.parametrize(
    "path", sorted({p for (m, p), gate in PAGES.items() if isinstance(gate, Viewing) and m == "GET"})
)
def test_without_a_session_there_is_the_form_and_nothing_else(anybody: Browser, path: str) -> None:
    reply = anybody.get(re.sub(r"\{\w+(:path)?\}", "0" * 64, path), follow_redirects=False)
    assert reply.status_code == 401
    assert breaches(reply.text) == []
    assert "One-time code" in reply.text
    assert "acme" not in reply.text


def test_the_cookie_is_for_this_server_and_no_script(anybody: Browser) -> None:
    reply = anybody.enter()
    assert (reply.status_code, reply.headers["location"]) == (303, "/ui/")
    name, *flags = [part.strip().lower() for part in reply.headers["set-cookie"].split(";")]
    assert name.startswith("tcd-admin=")
    assert {"httponly", "samesite=strict", "path=/", "max-age=3600"} <= set(flags)
    assert not any(flag.startswith("domain") for flag in flags)


def test_over_tls_the_cookie_is_kept_to_this_host(stage: Threaded) -> None:
    async def walk() -> tuple[Any, Any]:
        host = f"https://127.0.0.1:{stage.stage.server.port}/ui"
        own = {"sec-fetch-site": "same-origin"}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=stage.stage.admin)) as client:
            code = code_of(await stage.stage.login())
            entered = await client.post(f"{host}/login", data={"code": code}, headers=own)
            form = re.search(r'name="form" value="([0-9a-f]+)"', (await client.get(f"{host}/")).text)
            assert form is not None
            return entered, await client.post(f"{host}/logout", data={"form": form[1]}, headers=own)

    for reply in stage.do(walk()):
        assert reply.status_code == 303
        cookie = reply.headers["set-cookie"].lower()
        assert cookie.startswith("__host-tcd-admin=")
        assert {"httponly", "samesite=strict", "path=/", "secure"} <= {part.strip() for part in cookie.split(";")}


def test_a_code_is_good_once(stage: Threaded, anybody: Browser) -> None:
    code = code_of(stage.do(stage.stage.login()))
    form = anybody.get(f"/login?code={code}")
    # looking at the form, as a mail scanner or a preview would, does not use the code
    assert f'value="{code}"' in form.text
    assert breaches(form.text) == []
    assert anybody.post("/login", {"code": code}).status_code == 303
    with closing(Browser(stage)) as other:
        again = other.post("/login", {"code": code})
    assert again.status_code == 401
    assert "set-cookie" not in again.headers
    assert breaches(again.text) == []


@pytest.mark.parametrize("code", ["", "0" * 32, HOSTILE, "x" * 5000, "\udcff"])
def test_what_is_no_code_is_refused(anybody: Browser, code: str) -> None:
    reply = anybody.post("/login", {"code": code.encode("utf-8", "surrogateescape").decode("latin-1")})
    assert reply.status_code == 401
    assert anybody.get("/").status_code == 401
    assert "<script" not in anybody.get("/login", params={"code": code.encode(errors="replace").decode()}).text


def test_letting_a_browser_in_takes_a_signed_request_and_is_in_the_log(stage: Threaded) -> None:
    key = stage.stage.alice
    with closing(Browser(stage)) as other:
        unsigned = other.http.post("/admin/v1/logins", headers={"authorization": f"Bearer {key.token(SCOPES)}"})
    assert unsigned.status_code == 401
    answer = stage.do(stage.stage.call(key, "POST", "/logins")).json()
    assert set(answer["result"]["scopes"]) == READING
    head = answer["receipt"]
    stored = stage.do(stage.stage.app.runtime.ledger.get(head))
    assert stored is not None
    assert stored.receipt is not None
    act = json.loads(stored.receipt.body)["admin"]
    assert (act["action"], act["actor"]) == ("dashboard.login", "alice")


def test_a_code_is_kept_nowhere(stage: Threaded) -> None:
    code = code_of(stage.do(stage.stage.login()))
    folder = stage.stage.folder
    assert [path for path in folder.rglob("*") if path.is_file() and code.encode() in path.read_bytes()] == []


def test_a_session_changes_nothing_over_the_api(alice: Browser) -> None:
    for method, path in (("GET", "/whoami"), ("POST", "/logins"), ("PUT", "/policies"), ("GET", "/receipts")):
        assert alice.http.request(method, f"/admin/v1{path}", json={}).status_code == 401


def test_signing_out_ends_the_session(stage: Threaded, alice: Browser) -> None:
    cookies = dict(alice.http.cookies)
    form = re.search(r'name="form" value="([0-9a-f]+)"', alice.page("/"))
    assert form is not None
    reply = alice.post("/logout", {"form": form[1]})
    assert (reply.status_code, reply.headers["location"]) == (303, "/ui/login")
    kept = httpx2.get(f"{stage.url}/ui/", cookies=cookies, timeout=60.0)
    assert kept.status_code == 401


FOREIGN: list[dict[str, str]] = [
    {"sec-fetch-site": "cross-site", "origin": "http://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "", "origin": "null"},
    {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_forms_of_other_sites_are_refused(stage: Threaded, alice: Browser, path: str, headers: dict[str, str]) -> None:
    form = re.search(r'name="form" value="([0-9a-f]+)"', alice.page("/"))
    assert form is not None
    fields = {"form": form[1], "code": code_of(stage.do(stage.stage.login()))}
    reply = alice.post(path, fields, **headers)
    assert reply.status_code == 403
    assert "set-cookie" not in reply.headers
    assert alice.get("/").status_code == 200


def test_a_browser_that_says_nothing_of_where_a_form_is_from_says_its_origin(stage: Threaded, anybody: Browser) -> None:
    for origin, status in (("http://evil.example", 403), ("null", 403), (None, 403), (stage.url, 303)):
        fields = {"code": code_of(stage.do(stage.stage.login()))}
        headers = {"origin": origin} if origin is not None else {}
        assert anybody.http.post("/ui/login", data=fields, headers=headers).status_code == status


@pytest.mark.parametrize("fields", [{}, {"form": ""}, {"form": "0" * 32}, {"form": HOSTILE}])
def test_a_form_without_the_sessions_secret_does_nothing(alice: Browser, fields: dict[str, str]) -> None:
    reply = alice.post("/logout", fields)
    assert reply.status_code in {400, 403}
    assert alice.get("/").status_code == 200


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"form=a&form=b", "application/x-www-form-urlencoded"),
        (b'{"form": "a"}', "application/json"),
        (b"form=a", "text/plain"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(100)), "application/x-www-form-urlencoded"),
    ],
)
def test_what_is_no_form_is_refused(alice: Browser, content: bytes, kind: str) -> None:
    headers = {"sec-fetch-site": "same-origin", "content-type": kind}
    for path in ("/ui/login", "/ui/logout"):
        assert alice.http.post(path, content=content, headers=headers).status_code == 400


def test_another_host_is_refused_and_a_session_is_for_one(stage: Threaded, alice: Browser) -> None:
    reply = alice.get("/", headers={"host": "evil.example"})
    assert (reply.status_code, reply.headers["content-type"]) == (400, HTML)
    assert "acme" not in reply.text
    port = stage.stage.server.port
    assert alice.get("/", headers={"host": f"localhost:{port}"}).status_code == 401


# -- what a page holds ----------------------------------------------------------------------------------------


def places(stage: Threaded) -> list[str]:
    subject = stage.stage.app.runtime.service.subjects.subject(*BLOCKED.values())
    head = stage.stage.blocked["receipt"]
    return [
        *("/", "/budgets", "/budgets?tenant=acme", "/triggers", "/triggers?window=30d&tenant=acme", "/scores"),
        *("/scores?model=model0", "/receipts", "/receipts?enforced=block&tenant=acme", "/receipts?typ=admin"),
        *(f"/receipts/{head}", f"/sessions/{subject}", "/jobs", "/approvals", "/health", "/login"),
    ]


def test_every_page_keeps_the_rules_and_its_headers(stage: Threaded, alice: Browser) -> None:
    for path in places(stage):
        alice.page(path)
        headers = alice.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'")
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"


def test_hostile_names_are_text_everywhere(stage: Threaded, alice: Browser) -> None:
    name = HOSTILE[:100]
    shown = 0
    found = alice.get("/receipts", params={"tenant": name})
    assert breaches(found.text) == []
    subjects = re.findall(r'href="/ui/sessions/(sha256:[0-9a-f]{64})"', found.text)
    paths = [f"/receipts/{head}" for head in heads(found.text)[:2]] + [f"/sessions/{subjects[0]}", "/", "/budgets"]
    for path in paths:
        text = alice.page(path)
        tree, _ = read(text)
        shown += name in tree.text
    budget = alice.get("/budgets", params={"tenant": name})
    assert budget.status_code == 200
    assert breaches(budget.text) == []
    assert shown >= 4
    for path in ("/triggers", "/scores", "/receipts"):
        reply = alice.get(path, params={"tenant": name})
        assert breaches(reply.text) == []
        assert "{{7*7}}" in reply.text
        assert breaches(alice.get(path, params={name: name}).text) == []
    missing = alice.get("/" + HOSTILE)
    assert missing.status_code == 404
    assert breaches(missing.text) == []


def test_no_secret_is_on_any_page(stage: Threaded, alice: Browser) -> None:
    cookie = alice.http.cookies["tcd-admin"]
    private = stage.stage.alice.private.private_bytes_raw().hex()
    users = [BLOCKED["user"], BLOCKED["session"]]
    for path in [*places(stage), "/keyset.json"]:
        text = alice.get(path).text
        assert not any(secret in text for secret in (SEED_HEX, private, cookie, *users)), path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/receipts?limit=100000", 422), ("/receipts?cursor=AAAA", 422), ("/receipts?since=yesterday", 422),
        ("/receipts?nothing=1", 422), ("/receipts?tenant=a&tenant=b", 422), ("/triggers?window=9y", 422),
        ("/triggers?tenant=" + "x" * 129, 422), ("/sessions?tenant=a", 422), ("/sessions/nothing", 404),
        ("/sessions/sha256:" + "0" * 64, 404), ("/receipts/" + "0" * 64, 404), ("/receipts/..%2f..", 404),
        ("/budgets?tenant=nobody", 404), ("/jobs/" + "0" * 32, 404), ("/jobs/x/files/y", 404), ("/nothing/at/all", 404),
        ("/static/..%2fbase.html", 404), ("/receipts/" + "0" * 64 + "/bundle.json", 404),
    ],
)  # fmt: skip
def test_wrong_input_is_a_page_that_says_so(alice: Browser, path: str, status: int) -> None:
    reply = alice.get(path)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == HTML
    assert breaches(reply.text) == []


def test_the_style_sheet_is_ours_and_may_be_kept(anybody: Browser) -> None:
    reply = anybody.get("/static/dash.css")
    assert reply.status_code == 200
    assert "immutable" in reply.headers["cache-control"]
    assert "http" not in re.sub(r"/\*.*?\*/", "", reply.text)
    for wanted in ("prefers-color-scheme: dark", "prefers-reduced-motion", ":focus-visible", "forced-colors"):
        assert wanted in reply.text


def test_too_many_requests_are_refused_with_a_page(stage: Threaded, anybody: Browser, monkeypatch: Any) -> None:
    buckets = {name: TokenBuckets(Limit(2.0, 1e-6), max_keys=10) for name in ("address", "principal", "signed")}
    monkeypatch.setattr(stage.stage.server.plane, "_buckets", buckets)
    replies = [anybody.get("/login") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 429, 429]
    assert replies[-1].headers["content-type"] == HTML
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert replies[-1].headers["cache-control"] == "no-store"
    assert breaches(replies[-1].text) == []


# -- tenants --------------------------------------------------------------------------------------------------


def test_a_tenant_sees_its_own_and_the_rest_is_as_if_missing(stage: Threaded, carol: Browser) -> None:
    subjects = stage.stage.app.runtime.service.subjects
    foreign = subjects.subject("blue", "u-1", "chat-1")
    with closing(Browser(stage)) as other:
        assert other.enter().status_code == 303
        theirs = heads(other.page("/receipts?tenant=blue"))[0]
    for path in ("/", "/receipts", "/triggers", "/scores", "/budgets"):
        text = carol.page(path)
        assert "blue" not in text, path
        assert "onerror" not in text, path
    assert heads(carol.page("/receipts?tenant=acme"))
    assert heads(carol.page("/receipts?tenant=blue")) == []
    pairs = [
        (f"/receipts/{theirs}", f"/receipts/{'0' * 64}"),
        (f"/receipts/{theirs}/bundle.json", f"/receipts/{'0' * 64}/bundle.json"),
        (f"/receipts/{theirs}/receipt.json", f"/receipts/{'0' * 64}/receipt.json"),
        (f"/sessions/{foreign}", f"/sessions/sha256:{'0' * 64}"),
        ("/budgets?tenant=blue", "/budgets?tenant=nobody"),
    ]
    for one, none in pairs:
        there, missing = carol.get(one), carol.get(none)
        assert there.status_code == missing.status_code == 404, one
        assert _without_noise(there.text) == _without_noise(missing.text), one
    # names of another tenant are not turned into digests either
    reply = carol.get(
        "/sessions", params={"tenant": "blue", "user": "u-1", "session": "chat-1"}, follow_redirects=False
    )
    assert reply.status_code == 404


def _without_noise(text: str) -> str:
    return re.sub(r"request <code>\w+</code>|<time.*?</time>", "", text)


def test_what_a_session_lacks_the_scope_for_is_refused_and_not_offered(carol: Browser) -> None:
    assert carol.get("/health").status_code == 403
    text = carol.page("/")
    assert "/ui/health" not in text
    assert "/ui/receipts" in text


# -- what it explains, and proves -----------------------------------------------------------------------------


def test_why_a_session_was_blocked(stage: Threaded, alice: Browser) -> None:
    reply = alice.get("/sessions", params=BLOCKED, follow_redirects=True)
    assert breaches(reply.text) == []
    blocked = stage.stage.blocked
    tree, _ = read(reply.text)
    said = tree.text
    assert "Why was this session blocked?" in said
    assert "the anytime-valid test rejected the hypothesis" in said
    assert blocked["policy_ref"] in said
    assert blocked["guarantee"] in said
    assert f"Step {blocked['step']} was blocked" in said
    assert f"e-value {blocked['e_value']:.4g}" in said
    assert f"level {blocked['alpha_alloc']:.4g}" in said
    assert blocked["receipt"] in heads(reply.text)
    assert reply.text.count("<svg") == 2


def test_a_receipt_is_verified_live(stage: Threaded, alice: Browser) -> None:
    text = alice.page(f"/receipts/{stage.stage.blocked['receipt']}")
    tree, _ = read(text)
    for name in ("signature", "inclusion", "checkpoint", "links", "head"):
        assert name in tree.text
    assert ">verified<" in text
    assert ">failed<" not in text
    assert "could not be checked" not in text


def test_a_tampered_receipt_is_refused_on_its_page(stage: Threaded, alice: Browser, monkeypatch: Any) -> None:
    head = stage.stage.blocked["receipt"]
    ledger = stage.stage.app.runtime.ledger
    stored = stage.do(ledger.get(head))
    assert stored is not None
    assert stored.receipt is not None
    genuine = ledger.get

    def put(change: Callable[[bytes], bytes]) -> None:
        async def get(asked: str) -> Any:
            found = await genuine(asked)
            if asked == head and found is not None and found.receipt is not None:
                return replace(found, receipt=replace(found.receipt, body=change(found.receipt.body)))
            return found

        monkeypatch.setattr(ledger, "get", get)

    put(lambda body: body.replace(b'"block"', b'"allow"'))
    text = alice.page(f"/receipts/{head}")
    assert ">refused<" in text
    assert "head_mismatch" in text
    for rubbish in (b"", b"[]", b"{}", b'{"typ":"decision"}', b"\xff", b"[" * 10_000, HOSTILE.encode()):
        put(lambda _, rubbish=rubbish: rubbish)  # type: ignore[misc]
        assert ">refused<" in alice.page(f"/receipts/{head}")
        subject = stage.stage.app.runtime.service.subjects.subject(*BLOCKED.values())
        assert "cannot be read" in alice.page(f"/sessions/{subject}")
        alice.page("/scores")


def test_the_bundle_verifies_with_the_keys_of_the_log(stage: Threaded, alice: Browser) -> None:
    head = stage.stage.blocked["receipt"]
    reply = alice.get(f"/receipts/{head}/bundle.json")
    assert reply.status_code == 200
    assert reply.headers["content-disposition"] == f'attachment; filename="bundle-{head[:16]}.json"'
    runtime = stage.stage.app.runtime
    assert runtime.verifier is not None
    report = verify_bundle(reply.content, policy=runtime.verifier.policy)
    assert report.ok, report
    assert len(report.receipts) >= 3
    changed = reply.content.replace(b"block", b"allow", 1)
    assert not verify_bundle(changed, policy=runtime.verifier.policy).ok
    keys = alice.get("/keyset.json").json()
    assert keys["v"] == "tcd.keyset/1"


def test_of_a_long_chain_the_records_that_lead_to_it_are_bundled(
    stage: Threaded, alice: Browser, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sources, "MAX_RECORDS", 3)
    head = stage.stage.blocked["receipt"]
    runtime = stage.stage.app.runtime
    assert runtime.verifier is not None
    report = verify_bundle(alice.get(f"/receipts/{head}/bundle.json").content, policy=runtime.verifier.policy)
    assert (report.ok, report.complete, len(report.receipts)) == (True, False, 3)


def test_pages_of_a_search_follow_each_other(stage: Threaded, alice: Browser) -> None:
    seen: list[str] = []
    path = "/receipts?typ=decision&limit=20"
    while True:
        text = alice.page(path)
        seen += [head for head in heads(text) if head not in seen]
        following = re.search(r'rel="next" href="/ui(/receipts\?[^"]+)"', text)
        if following is None:
            break
        path = following[1].replace("&amp;", "&")
    every = stage.do(_decisions(stage))
    assert seen == every


async def _decisions(stage: Threaded) -> list[str]:
    index = stage.stage.server._index
    return [found.head for found in await index.search({"typ": "decision"}, limit=10_000)]


def test_a_proposal_that_waits_is_shown_to_whoever_may_approve_it(stage: Threaded, alice: Browser) -> None:
    people = {"keys": [key.public(SCOPES) for key in (stage.stage.alice, stage.stage.bob)]}
    reply = stage.do(stage.stage.call(stage.stage.bob, "PUT", "/principals", people))
    assert reply.status_code == 202, reply.text
    text = alice.page("/approvals")
    assert reply.json()["id"] in text
    assert "proposed by bob" in text
    assert "tcd admin refuse ID" in text
    # there is nothing to click: approving is a signed request
    assert [form.attrs["action"] for form in read(text)[0].every("form")] == ["/ui/logout"]
    ended = stage.stage.call(stage.stage.bob, "POST", f"/approvals/{reply.json()['id']}:refuse", {"reason": "later"})
    assert stage.do(ended).status_code == 200
    assert reply.json()["id"] not in alice.page("/approvals")


def test_of_an_erased_receipt_its_place_is_shown_and_what_follows_verifies(tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("erasing")
    with threaded(folder, sessions=2, hostile=False) as stage, closing(Browser(stage)) as browser:
        assert browser.enter().status_code == 303
        names = {"tenant": "acme", "user": "u-0", "session": "chat-0"}
        page = browser.get("/sessions", params=names, follow_redirects=True).text
        gone = heads(page)
        order = {"sessions": [names]}
        proposed = stage.do(stage.stage.call(stage.stage.alice, "POST", "/receipts:erase", order))
        assert proposed.status_code == 202, proposed.text
        done = stage.do(stage.stage.call(stage.stage.bob, "POST", f"/approvals/{proposed.json()['id']}"))
        assert done.status_code == 200, done.text
        for head in gone:
            text = browser.page(f"/receipts/{head}")
            assert "was erased" in text
            assert "u-0" not in text
            assert browser.get(f"/receipts/{head}/receipt.json").status_code == 404
            assert browser.get(f"/receipts/{head}/bundle.json").status_code == 404
        assert ", erased" in browser.page("/receipts?limit=1000&tenant=acme")
        assert heads(browser.page("/receipts?typ=erase"))
        assert browser.get("/sessions", params=names, follow_redirects=True).status_code == 404
        # the other sessions are as they were
        assert ">verified<" in browser.page(f"/receipts/{stage.stage.blocked['receipt']}")
