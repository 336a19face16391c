"""TLS of the admin plane: TLS 1.3, client certificates where a CA is configured, and the certificate of each request.

A token may be bound to its holder's certificate (RFC 8705, `cnf` `x5t#S256`). The certificate is taken from the
connection, never from a header. uvicorn does not hand it on, so the protocol does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from tcd.config import Settings
from tcd.errors import ConfigError

_STATE: Final = "tcd_peer_certificate"
#: Seconds until a connection has to have sent the header of its first request.
_FIRST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Files:
    """Where the certificates are.

    Attributes:
        cert: chain of the server, PEM.
        key: its key.
        ca: who signs clients' certificates; None = clients need none.
    """

    cert: Path
    key: Path
    ca: Path | None

    @classmethod
    def of(cls, settings: Settings) -> Files | None:
        """As the settings say; None where there is no TLS."""
        cert, key, ca = settings.admin_tls_cert, settings.admin_tls_key, settings.admin_tls_ca
        return None if cert is None or key is None else cls(cert, key, ca)

    def seen(self) -> tuple[int, ...]:
        """What changes when the server's certificate is renewed."""
        return tuple(n for path in (self.cert, self.key) for n in (path.stat().st_mtime_ns, path.stat().st_ino))


class Tls:
    """The context of the server; a renewed certificate is used from the next connection on."""

    def __init__(self, files: Files) -> None:
        """Read the files.

        Raises:
            ConfigError: one cannot be used.
        """
        self._files = files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        # a resumed session would be of a certificate that was looked at earlier
        self.context.num_tickets = 0
        self._load(self.context)
        if files.ca is not None:
            try:
                self.context.load_verify_locations(files.ca)
            except (OSError, ssl.SSLError):
                raise _unusable(files.ca, "admin_tls_ca") from None
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._seen = files.seen()

    @property
    def clients(self) -> bool:
        """Whether clients need a certificate."""
        return self._files.ca is not None

    def refresh(self) -> bool:
        """Use the server's certificate as it is now; whether it was read anew.

        Raises:
            ConfigError: it cannot be used; the old one stays.
        """
        try:
            seen = self._files.seen()
        except OSError:
            raise _unusable(self._files.cert, "admin_tls_cert") from None
        if seen == self._seen:
            return False
        # into another context first: half of a renewal must not be in force
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)
        self._seen = seen
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._files.cert, self._files.key, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError):
            raise _unusable(self._files.cert, "admin_tls_cert, admin_tls_key") from None


def _unusable(path: Path, names: str) -> ConfigError:
    return ConfigError(f"{path} cannot be used for TLS ({names}); remedy: PEM files of a certificate and its own key")


class Protocol(H11Protocol):
    """HTTP/1.1 whose requests carry the peer's certificate; a connection that says nothing is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        self.app_state: dict[str, Any] = {**self.app_state, _STATE: certificate}
        self.loop.call_later(_FIRST_S, self._hurry)

    def _hurry(self) -> None:
        begun: Any = self.cycle
        if begun is None and not self.transport.is_closing():
            self.transport.close()


def certificate_of(request: Request) -> bytes | None:
    """DER of the certificate that the peer of this connection showed; None for none."""
    found: bytes | None = request.scope.get("state", {}).get(_STATE)
    return found


def thumbprint(certificate: bytes) -> str:
    """`x5t#S256` of a certificate in DER (RFC 8705 §3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()
