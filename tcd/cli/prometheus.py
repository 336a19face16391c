"""Prometheus' own server, on a port beside the command's."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


@contextlib.contextmanager
def serving(
    registry: CollectorRegistry, *, host: str, port: int, name: str, remedy: str = ""
) -> Generator[int, None, None]:
    """Serve metrics; yields the port.

    Args:
        registry: what is shown.
        host: address to listen on.
        port: 0 picks a free one.
        name: of the port, for the message that it cannot be had.
        remedy: what that message says can be done.

    Raises:
        ConfigError: the port is taken.
    """
    from prometheus_client import start_http_server

    from tcd.errors import ConfigError

    try:
        server, thread = start_http_server(port, host, registry=registry)
    except OSError as error:
        msg = f"{name} {port} cannot be had: {error.strerror}{remedy and '; remedy: '}{remedy}"
        raise ConfigError(msg) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2.0)
