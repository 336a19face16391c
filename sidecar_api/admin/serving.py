"""The admin plane beside a running shim: a private folder, a port of its own on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import uvicorn

from sidecar_api.admin.acts import LogActs
from sidecar_api.admin.app import create_admin
from sidecar_api.admin.outside import outside_of
from sidecar_api.admin.plane import Limits, Plane
from sidecar_api.admin.store import open_store
from sidecar_api.admin.tls import Files, Protocol, Tls
from sidecar_api.http.runtime import Runtime
from tcd.errors import ConfigError, TcdError
from tcd.ledger.search import ReceiptIndex

#: Seconds between looks for interrupted acts and renewed certificates.
_LOOK_S: Final = 30.0
#: Seconds that cancelled requests get to end.
_ENDING_S: Final = 10.0
_LOG: Final = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Leaves the signals to the shim."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def check_host(host: str, *, certified: bool = False) -> None:
    """Refuse an address that others can reach, unless they need a certificate: tokens would travel in the clear.

    Raises:
        ConfigError: it is not loopback; says the remedy.
    """
    if certified and host:
        return
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        msg = f"admin_host {host} is not loopback; remedy: keep 127.0.0.1 and reach it through a tunnel, or give it "
        msg += "TLS and a CA of clients (admin_tls_ca)"
        raise ConfigError(msg)


class AdminServer:
    """Serves the admin plane of a runtime."""

    def __init__(self, runtime: Runtime, folder: Path, *, host: str, port: int, limits: Limits | None = None) -> None:
        """Take the port; keep principals in `folder`; `limits` other than the plane's own are for tests.

        Raises:
            ConfigError: the port, the address, the folder or a certificate cannot be used, or receipts are off.
        """
        settings = runtime.settings
        files = Files.of(settings)
        self._tls = None if files is None else Tls(files)
        certified = self._tls is not None and self._tls.clients
        check_host(host, certified=certified)
        acts = LogActs(runtime)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            store = open_store(settings, folder)
            self.plane = Plane(
                folder,
                acts=acts,
                store=store,
                random=os.urandom,
                limits=limits,
                logs=runtime.logs,
                certified=certified,
                job_memory=settings.admin_job_memory_mib << 20,
            )
            self._sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            msg = f"the admin plane cannot use {host}:{port} and {folder}: {error.strerror}; remedy: another "
            msg += "TCD_ADMIN_PORT (0 picks a free one)"
            raise ConfigError(msg) from None
        self.port: int = self._sock.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if self._tls is None else 'https'}://{shown}:{self.port}"
        self._index = ReceiptIndex(folder / "search.sqlite", runtime.ledger)
        outside = outside_of(runtime, self._index, folder)
        hosts = [f"{shown}:{self.port}", f"localhost:{self.port}", *settings.admin_names]
        app = create_admin(self.plane, outside, hosts=hosts)
        config = uvicorn.Config(
            app,
            http=Protocol,
            loop="none",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=5,
        )
        config.load()
        config.ssl = None if self._tls is None else self._tls.context
        self._server = _Server(config)
        self._running: list[asyncio.Future[None]] = []

    async def start(self, say: Callable[[str], None]) -> None:
        """Serve, and say where; at the first start also the credential, which is said nowhere else."""
        await self.plane.doing.recover(starting=True)
        self._running.append(asyncio.ensure_future(self._server.serve(sockets=[self._sock])))
        self._running.append(asyncio.ensure_future(self._tend()))
        say(f"admin     {self.url}/admin/v1")
        secret = await self.plane.first_start()
        if secret is not None:
            say(f"bootstrap {secret}  (once, for an hour: tcd admin enrol)")
        elif await self.plane.people.current() is None:
            say("bootstrap the credential that was printed before is still good")

    async def _tend(self) -> None:
        """Look now and then for acts of replicas that ended, and for a renewed certificate."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.plane.doing.recover()
                if self._tls is not None:
                    self._tls.refresh()
            except TcdError as error:
                _LOG.warning("the admin plane: %s", error.detail)
            except Exception:  # noqa: BLE001 - a loop in the background that goes on, and says what went wrong
                _LOG.exception("the admin plane cannot look after itself")

    async def stop(self) -> None:
        """Finish what is running."""
        self._server.should_exit = True
        if self._running:
            serving, recovering = self._running
            recovering.cancel()
            await asyncio.wait([serving, recovering])
            # requests that were cancelled still use what is closed below
            left = set(self._server.server_state.tasks)
            if left:
                await asyncio.wait(left, timeout=_ENDING_S)
        self._sock.close()
        await self.plane.jobs.close()
        await self._index.close()
        await self.plane.store.close()
