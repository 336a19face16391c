"""Templates to answers: everything is escaped, nothing is fetched from elsewhere, no script runs."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from sidecar_api.admin.dashboard import explain, plots

BASE: Final = "/ui"
_HERE: Final = Path(__file__).parent
_SECOND: Final = 1_000_000
#: Latest time that is written as a date.
_LAST_US: Final = 253_402_300_799 * _SECOND
_POLICY: Final = "; ".join(
    (
        *("default-src 'none'", "style-src 'self'", "img-src 'self'", "form-action 'self'"),
        *("base-uri 'none'", "frame-ancestors 'none'"),
    )
)
HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-frame-options": "DENY",
    # `no-referrer` would make browsers hide the origin of our own forms
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
STATIC: Final = {"dash.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}


def moment(ts_us: int) -> Markup:
    """A time in UTC as `<time>`."""
    if not 0 <= ts_us <= _LAST_US:
        return Markup("<span>unknown</span>")
    at = dt.datetime.fromtimestamp(ts_us // _SECOND, dt.timezone.utc)
    millis = ts_us % _SECOND // 1000
    return Markup('<time datetime="{}.{:03d}Z">{}</time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%S"), millis, at.strftime("%Y-%m-%d %H:%M:%S")
    )


def svg(plot: plots.Plot, name: str) -> Markup:
    """A plot; `plots.draw` escapes every text."""
    return Markup(plots.draw(plot, name))  # noqa: S704 - see above


class Renderer:
    """The templates and the static files, read once."""

    def __init__(self) -> None:
        """Read them."""
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._static = {name: (_HERE / "static" / name).read_bytes() for name in STATIC}
        self._templates.filters.update(
            moment=moment, number=explain.number, power=explain.power, words=lambda text: str(text).replace("_", " ")
        )
        self._templates.globals.update(
            base=BASE, svg=svg, versions={name: _version(content) for name, content in self._static.items()}
        )

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        text = self._templates.get_template(template).render(**values)
        return Response(text, status, HEADERS, media_type="text/html; charset=utf-8")

    def static(self, name: str) -> Response | None:
        """A static file; its address has its version, so it may be kept."""
        if name not in self._static:
            return None
        headers = {**HEADERS, "cache-control": "private, max-age=31536000, immutable"}
        return Response(self._static[name], 200, headers, media_type=STATIC[name])


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def download(content: bytes, name: str) -> Response:
    """A file to keep; `name` is ours."""
    disposition = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, 200, {**HEADERS, **disposition}, media_type="application/json")
