"""What a page requires: a browser's session with a scope; or, by name, nothing. And that a form is our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from sidecar_api.admin.dashboard.browsers import Browsers, Viewer, same
from sidecar_api.admin.principals import EVERY_TENANT, AdminScope
from sidecar_api.admin.tls import certificate_of, thumbprint
from tcd.errors import Forbidden, InvalidRequest

COOKIE: Final = "tcd-admin"
_MOST_FIELDS: Final = 8
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Viewing:
    """A signed-in browser.

    Attributes:
        scope: that the session has to have; None = any.
        everywhere: only for principals that are bound to no tenant.
        posts: the request is a form of ours, with the session's secret.
    """

    scope: AdminScope | None
    everywhere: bool = False
    posts: bool = False

    async def __call__(self, request: Request) -> None:
        """Let nobody else in.

        Raises:
            NotSignedIn, Forbidden, QuotaExceeded: as they say.
        """
        plane, browsers = request.app.state.plane, browsers_of(request)
        people = await plane.people.current()
        viewer = browsers.find(cookie_of(request), authority(request), people, shown(request))
        request.state.viewer = viewer
        plane.charge("principal", viewer.principal.name)
        if self.posts:
            own_form(request)
            if not same((await form_of(request)).get("form", ""), viewer.form):
                msg = "this form is none of this session's: go back, load the page again and send it again"
                raise Forbidden(msg)
        if self.scope is not None and self.scope not in viewer.scopes:
            msg = f"the scope {self.scope} is needed"
            raise Forbidden(msg)
        if self.everywhere and viewer.tenant != EVERY_TENANT:
            msg = "this is not for principals of one tenant"
            raise Forbidden(msg)


@dataclass(frozen=True, slots=True)
class Open:
    """Nobody has to be signed in: `why` says why that is right."""

    why: str

    async def __call__(self, request: Request) -> None:
        """Let everybody in."""


def browsers_of(request: Request) -> Browsers:
    """Of the app."""
    found: Browsers = request.app.state.browsers
    return found


def viewer_of(request: Request) -> Viewer:
    """Who looks, after a `Viewing`."""
    found: Viewer = request.state.viewer
    return found


def authority(request: Request) -> str:
    """`Host`, which the app checked."""
    return request.headers["host"].lower()


def shown(request: Request) -> str:
    """Thumbprint of the certificate that the browser showed; empty for none."""
    certificate = certificate_of(request)
    return "" if certificate is None else thumbprint(certificate)


def cookie_of(request: Request) -> str | None:
    """The session's cookie."""
    return request.cookies.get(cookie_name(request))


def cookie_name(request: Request) -> str:
    """Its name; over TLS browsers keep it to this host alone."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


def own_form(request: Request) -> None:
    """A request that a page of this server sent, not one of another site.

    Raises:
        Forbidden: it is from elsewhere, or does not say where it is from.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # no page can set either of them; a browser too old for the first one says the second one
    own = urlsplit(origin or "").netloc.lower() == authority(request) if site is None else site == "same-origin"
    if not own:
        msg = "this form was not sent by a page of this server"
        raise Forbidden(msg)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, each once.

    Raises:
        InvalidRequest: it is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        pairs: list[tuple[str, Any]] = parse_qsl(
            (await request.body()).decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        pairs = []
        kind = ""
    fields = dict(pairs)
    if kind != _FORM or len(fields) != len(pairs):
        msg = "no form"
        raise InvalidRequest(msg)
    return fields
