"""Sockets that listen, and the address that a client uses."""

from __future__ import annotations

import pytest

from tcd.listening import in_url, listen, reachable


def test_a_free_port_is_taken_and_a_taken_one_refused() -> None:
    with listen("127.0.0.1", 0, backlog=1) as sock:
        port = sock.getsockname()[1]
        assert port > 0
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port, backlog=1)
    with pytest.raises(OSError, match="assign"):
        listen("203.0.113.7", 0, backlog=1)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("", "127.0.0.1"), ("::1", "[::1]"), ("a.example", "a.example")],  # noqa: S104
)
def test_what_a_url_has_of_a_host(host: str, shown: str) -> None:
    assert in_url(reachable(host)) == shown
