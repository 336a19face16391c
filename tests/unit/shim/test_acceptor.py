"""New clients are accepted at once, however long an iteration of the loop is."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from sidecar_api.http.acceptor import Acceptor


def accepted_in(count: int) -> int:
    """Loop iterations in which `count` waiting clients get their protocols, with the loop that serves."""
    loop = uvloop.new_event_loop()
    made: list[asyncio.Protocol] = []
    iterations = 0

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)
            transport.close()

    async def serve(listener: socket.socket) -> None:
        nonlocal iterations
        acceptor = Acceptor(listener, Protocol)
        while len(made) < count and iterations < 10 * count:
            iterations += 1
            await asyncio.sleep(0)
        acceptor.close()
        await acceptor.wait_closed()

    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(count)]
        loop.run_until_complete(asyncio.wait_for(serve(listener), 30))
        loop.close()
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    assert len(made) == count
    return iterations


def test_all_waiting_clients_are_accepted_within_a_few_iterations() -> None:
    assert accepted_in(200) <= 20
