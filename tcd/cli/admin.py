"""`tcd admin`: keys of operators, the first enrolment, and signed calls of the admin plane."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.client.admin import OperatorKey

app = typer.Typer(no_args_is_help=True)
_URL = typer.Option("http://127.0.0.1:8081", help="Of the admin plane.")
_BASE = "/admin/v1"


@app.callback()
def options(
    context: typer.Context,
    ca: Path | None = typer.Option(None, envvar="ADMIN_CA", help="PEM: who signed the server's certificate."),
    cert: Path | None = typer.Option(None, envvar="ADMIN_CERT", help="PEM: your certificate; tokens are bound to it."),
    cert_key: Path | None = typer.Option(None, envvar="ADMIN_CERT_KEY", help="PEM: its key; default in --cert."),
) -> None:
    """Keys of operators, and signed calls of the admin plane."""
    from tcd.client.admin import ClientTls

    # for `_call`: every command that calls the plane has the context
    context.obj = None if ca is None and cert is None else ClientTls(ca, cert, cert_key)


@app.command()
def keygen(
    name: str = typer.Argument(help="Name of the principal: a-z, 0-9, dot, dash, underscore; 32 at most."),
    out: Path = typer.Option(..., help="File of the key; it is made with mode 0600."),
) -> None:
    """Make a key. The private part stays in the file; the server only ever gets the public one."""
    from tcd.client.admin import OperatorKey

    if out.exists():
        _fail(f"{out} is there already")
    try:
        OperatorKey.generate(name).save(out)
    except OSError as error:
        _fail(f"{out}: {error.strerror}")
    print(f"{out}: key of {name}")


@app.command()
def enrol(
    context: typer.Context,
    keys: list[Path] = typer.Argument(help="Files of two or more keys; the first one signs."),
    bootstrap: str = typer.Option(..., envvar="ADMIN_BOOTSTRAP", help="The credential that the first start printed."),
    url: str = _URL,
) -> None:
    """Enrol the first principals, with every scope. It takes two: changes need two people from then on."""
    from sidecar_api.admin.principals import SCOPES

    found = [_key(path) for path in keys]
    body = {"keys": [key.public(SCOPES) for key in found]}
    _call(context, url, found[0], SCOPES, "POST", "/enrol", body, bearer=bootstrap)


@app.command()
def call(
    context: typer.Context,
    method: str = typer.Argument(help="GET, PUT, POST."),
    path: str = typer.Argument(help="After /admin/v1, as /whoami or /approvals/ID."),
    key: Path = typer.Option(..., help="File of your key."),
    body: Path | None = typer.Option(None, help="File of the JSON body; - reads standard input."),
    scope: list[str] = typer.Option([], help="Scopes of the token; default all that you have."),
    url: str = _URL,
) -> None:
    """Call a route with a fresh token; what is no GET is signed. Exit 0 for an answer, 1 for a problem."""
    from sidecar_api.admin.principals import SCOPES

    try:
        text = None if body is None else sys.stdin.read() if str(body) == "-" else body.read_text()
        members = None if text is None else json.loads(text)
    except (OSError, ValueError) as error:
        _fail(f"the body cannot be read: {error}")
    _call(context, url, _key(key), scope or SCOPES, method.upper(), path, members)


@app.command()
def approve(
    context: typer.Context,
    identifier: str | None = typer.Argument(None, help="Of the proposal; without, those that you may approve."),
    key: Path = typer.Option(..., help="File of your key."),
    url: str = _URL,
) -> None:
    """Show what waits for a second person, or approve one of them."""
    from sidecar_api.admin.principals import SCOPES

    if identifier is None:
        _call(context, url, _key(key), SCOPES, "GET", "/approvals", None)
    else:
        _call(context, url, _key(key), SCOPES, "POST", f"/approvals/{identifier}", None)


@app.command()
def refuse(
    context: typer.Context,
    identifier: str = typer.Argument(help="Of the proposal."),
    reason: str = typer.Option(..., help="Why, 128 characters at most; the log keeps it for good."),
    key: Path = typer.Option(..., help="File of your key."),
    url: str = _URL,
) -> None:
    """Refuse what waits for a second person, or withdraw what you proposed yourself."""
    from sidecar_api.admin.principals import SCOPES

    _call(context, url, _key(key), SCOPES, "POST", f"/approvals/{identifier}:refuse", {"reason": reason})


@app.command()
def login(
    context: typer.Context,
    key: Path = typer.Option(..., help="File of your key."),
    scope: list[str] = typer.Option([], help="Scopes of the session; default all that you have. It only reads."),
    open_: bool = typer.Option(False, "--open", help="Open the address in this machine's browser."),
    url: str = _URL,
) -> None:
    """Let a browser into the dashboard: prints an address that is good once, for two minutes. Recorded in the log."""
    from sidecar_api.admin.principals import SCOPES

    if unknown := sorted(set(scope) - set(SCOPES)):
        _fail(f"there is no scope {', '.join(unknown)}")
    reply = _reply(context, url, _key(key), scope or SCOPES, "POST", "/logins", None)
    if not reply.is_success:
        _fail(str(reply.json().get("detail", reply.status_code)))
    address = reply.json()["result"]["url"]
    print(address)
    if open_:
        import webbrowser

        webbrowser.open(address)


def _key(path: Path) -> OperatorKey:
    from tcd.client.admin import OperatorKey

    try:
        return OperatorKey.load(path)
    except (OSError, ValueError) as error:
        _fail(f"{path} is no key: {error}")


def _reply(
    context: typer.Context,
    url: str,
    key: OperatorKey,
    scopes: Any,
    method: str,
    path: str,
    body: Any,
    *,
    bearer: str | None = None,
) -> Any:
    import httpx2

    from tcd.client.admin import AdminClient

    try:
        client = AdminClient(url, key, scopes=scopes, tls=context.obj)
    except (OSError, ValueError) as error:
        _fail(f"the certificates cannot be used: {error}")
    try:
        return client.call(method, _BASE + path, body, bearer=bearer)
    except httpx2.TransportError as error:
        _fail(f"{url} does not answer: {error}")
    finally:
        client.close()


def _call(
    context: typer.Context,
    url: str,
    key: OperatorKey,
    scopes: Any,
    method: str,
    path: str,
    body: Any,
    *,
    bearer: str | None = None,
) -> None:
    reply = _reply(context, url, key, scopes, method, path, body, bearer=bearer)
    print(json.dumps(reply.json(), indent=2))
    if not reply.is_success:
        raise typer.Exit(1)


def _fail(why: str) -> NoReturn:
    fail("admin", why, code=1)
