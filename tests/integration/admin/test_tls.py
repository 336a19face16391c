"""The admin plane over real TLS: who gets a connection, and tokens bound to a certificate (RFC 8705)."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sidecar_api.admin.principals import SCOPES
from sidecar_api.admin.serving import check_host
from sidecar_api.admin.tls import Files, Tls
from tcd.client.admin import ClientTls
from tcd.errors import ConfigError
from tests.integration.admin.certificates import Authority
from tests.integration.admin.kit import Running, running
from tests.unit.shim.conftest import settings_of

WHOAMI = "/admin/v1/whoami"


class Places:
    """A CA, a server's certificate, two clients', and one of another CA."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.server = self.authority.issue("server", server=True)
        self.alice, self.bob = (ClientTls(self.authority.path, self.authority.issue(n)) for n in ("alice", "bob"))
        self.expired = ClientTls(self.authority.path, self.authority.issue("expired", days=-1))
        self.stranger = ClientTls(self.authority.path, Authority(folder, "other").issue("stranger"))
        self.nobody = ClientTls(self.authority.path)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def serving(tmp_path: Path, places: Places, *, clients: bool = True) -> AsyncIterator[Running]:
    ca = places.authority.path if clients else None
    options: dict[str, Any] = {"admin_tls_cert": places.server, "admin_tls_key": places.server, "admin_tls_ca": ca}
    async with running(tmp_path, **options) as admin:
        admin.tls = places.alice if clients else places.nobody
        yield admin


async def get(admin: Running, tls: ClientTls, token: str) -> Any:
    """`GET /whoami` with a token over a client's connection."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(verify=await asyncio.to_thread(tls.context), timeout=60.0) as client:
        return await client.get(admin.server.url + WHOAMI, headers=headers)


async def test_the_client_enrols_signs_and_is_bound_to_its_certificate(tmp_path: Path, places: Places) -> None:
    async with serving(tmp_path, places) as admin:
        assert admin.server.url.startswith("https://")
        assert (await admin.enrol()).status_code == 200
        assert (await admin.call(admin.alice, "GET", "/whoami")).json()["principal"] == "alice"
        body = {"keys": [admin.alice.public(SCOPES), admin.bob.public(SCOPES)]}
        proposed = await admin.call(admin.alice, "PUT", "/principals", body)
        assert proposed.status_code == 202, proposed.text
        done = await admin.call(admin.bob, "POST", f"/approvals/{proposed.json()['id']}", tls=places.bob)
        assert done.status_code == 200


async def test_a_bound_token_is_refused_over_another_certificate_and_an_unbound_one_over_any(
    tmp_path: Path, places: Places
) -> None:
    async with serving(tmp_path, places) as admin:
        await admin.enrol()
        bound = admin.alice.token(SCOPES, certificate=places.alice.certificate())
        assert (await get(admin, places.alice, bound)).status_code == 200
        assert (await get(admin, places.bob, bound)).status_code == 401
        assert (await get(admin, places.alice, admin.alice.token(SCOPES))).status_code == 401
        # a header is no certificate
        headers = {"authorization": f"Bearer {bound}", "x-client-cert": "x", "x-forwarded-client-cert": "x"}
        async with httpx2.AsyncClient(verify=await asyncio.to_thread(places.bob.context), timeout=60.0) as client:
            assert (await client.get(admin.server.url + WHOAMI, headers=headers)).status_code == 401


async def test_a_bound_token_is_refused_where_nobody_shows_a_certificate(tmp_path: Path, places: Places) -> None:
    bound_to = places.alice.certificate()
    async with serving(tmp_path, places, clients=False) as admin:
        await admin.enrol()
        assert (await get(admin, places.nobody, admin.alice.token(SCOPES))).status_code == 200
        assert (await get(admin, places.nobody, admin.alice.token(SCOPES, certificate=bound_to))).status_code == 401
    async with running(tmp_path) as plain:
        token = plain.alice.token(SCOPES, certificate=bound_to)
        assert (await plain.call(plain.alice, "GET", "/whoami", bearer=token)).status_code == 401


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
async def test_without_a_good_certificate_there_is_no_connection(tmp_path: Path, places: Places, who: str) -> None:
    async with serving(tmp_path, places) as admin:
        with pytest.raises(httpx2.TransportError):
            await get(admin, getattr(places, who), "x")
        # the others are served as before
        assert (await get(admin, places.alice, "x")).status_code == 401


async def test_old_tls_and_plain_http_are_refused(tmp_path: Path, places: Places) -> None:
    old = ssl.create_default_context(cafile=places.authority.path)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(tmp_path, places, clients=False) as admin:
        async with httpx2.AsyncClient(verify=old, timeout=60.0) as client:
            with pytest.raises(httpx2.TransportError):
                await client.get(admin.server.url + WHOAMI)
        async with httpx2.AsyncClient(timeout=60.0) as client:
            with pytest.raises(httpx2.TransportError):
                await client.get(admin.server.url.replace("https", "http") + WHOAMI)


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", server=True)
    tls = Tls(Files(server, server, None))
    assert not tls.refresh()
    authority.issue("server", server=True)
    os.utime(server, ns=(1, 1))
    assert tls.refresh()
    assert not tls.refresh()
    server.write_text("nothing")
    with pytest.raises(ConfigError, match="admin_tls_cert"):
        tls.refresh()


def test_files_that_cannot_be_used_are_named_with_a_remedy(tmp_path: Path, places: Places) -> None:
    missing = tmp_path / "none.pem"
    (tmp_path / "bad.pem").write_text("no certificate")
    for files in (
        Files(missing, missing, None),
        Files(tmp_path / "bad.pem", places.server, None),
        Files(places.server, places.authority.path, None),
        Files(places.server, places.server, missing),
        Files(places.server, places.server, tmp_path / "bad.pem"),
    ):
        with pytest.raises(ConfigError, match="remedy"):
            Tls(files)


def test_others_are_let_in_only_with_certificates() -> None:
    check_host("0.0.0.0", certified=True)  # noqa: S104 - what is tested
    with pytest.raises(ConfigError, match="admin_tls_ca"):
        check_host("0.0.0.0")  # noqa: S104 - what is tested
    with pytest.raises(ConfigError):
        check_host("", certified=True)
    for half in (
        {"admin_tls_cert": "x"},
        {"admin_tls_key": "x"},
        {"admin_tls_ca": "x"},
    ):
        with pytest.raises(ValueError, match="admin_tls"):
            settings_of(**{name: Path(value) for name, value in half.items()})


async def test_the_command(tmp_path: Path, places: Places) -> None:
    async with serving(tmp_path, places) as admin:
        await admin.enrol()
        admin.alice.save(tmp_path / "alice.key")

        async def run(*options: str) -> tuple[int, str, str]:
            call = ["call", "GET", "/whoami", "--key", str(tmp_path / "alice.key"), "--url", admin.server.url]
            command = [sys.executable, "-m", "tcd.cli.main", "admin", *options, *call]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr

        ca, cert = str(places.authority.path), str(places.alice.cert)
        code, out, err = await run("--ca", ca, "--cert", cert)
        assert (code, err) == (0, "")
        assert json.loads(out)["principal"] == "alice"
        for options in ((), ("--ca", ca), ("--ca", ca, "--cert", ca), ("--ca", cert + "x", "--cert", cert)):
            code, out, err = await run(*options)
            assert (code, out) == (1, ""), options
            assert err.startswith("tcd admin: ")
