"""A TCP proxy that can be told to misbehave: delay, reset, blackhole, half-close; also connections under way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Literal

Fault = Literal["none", "delay", "reset", "blackhole", "half_close", "refuse"]
_LINGER = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards to one address; `fault` may be set at any time."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()
        self.fault: Fault = "none"
        self.delay = 0.0
        self.connections = 0
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def set(self, fault: Fault, *, delay: float = 0.0) -> None:
        self.fault, self.delay = fault, delay
        if fault == "reset":
            for writer in tuple(self._writers):
                _reset(writer)
        if fault == "half_close":
            for writer in tuple(self._writers):
                with contextlib.suppress(OSError, RuntimeError):
                    writer.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.fault in {"reset", "refuse"}:
            _reset(writer)
            return
        try:
            upstream = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, upstream[1]}
        pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, upstream[1]), (upstream[0], writer))]
        self._tasks |= set(pumps)
        await asyncio.wait(pumps)
        self._tasks -= set(pumps)
        for end in (writer, upstream[1]):
            self._writers.discard(end)
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.fault == "delay":
                    await asyncio.sleep(self.delay)
                if self.fault == "blackhole":
                    # what came is lost, and nobody is told
                    continue
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            _reset(writer)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def faulty(target: str) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
