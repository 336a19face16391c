"""Sockets that listen, and how others reach them."""

from __future__ import annotations

import socket


def listen(host: str, port: int, *, backlog: int) -> socket.socket:
    """A listening TCP socket.

    Args:
        host: name or address, of either family.
        port: 0 picks a free one.
        backlog: connections that wait to be accepted, at most.

    Raises:
        OSError: the port is taken, or the host is no address of this machine.
    """
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def reachable(host: str) -> str:
    """Where a client on this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - it is looked up


def in_url(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
