"""`tcd proxy`: a reverse proxy before an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.config import Settings
    from tcd.proxy import Policies, ProxyMetrics, ProxyMiddleware, Rewriting, Watching

_REQUESTS, _DIAGNOSIS, _CONNECTIONS = "Requests", "Diagnosis", "Connections"


@dataclass(frozen=True, slots=True)
class _Given:
    """The command line."""

    upstream: str
    host: str
    port: int
    tenant: str
    tenant_header: str | None
    shim: str | None
    enforce: bool
    every: int
    deadline_ms: int
    on_shim_failure: Literal["open", "closed"]
    entropies: bool
    metrics_port: int | None
    connect_timeout: float
    read_timeout: float
    max_body_mib: int
    max_connections: int
    ca_file: Path | None
    keep_host: bool
    via: str


def command(
    upstream: str = typer.Option(..., help="The server behind: http://host:port or https://host/base."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(8090, help="Port to listen on; 0 picks a free one."),
    active: bool = typer.Option(
        False,
        "--active",
        help="Forward marked requests; without it, or a policy that says so, bytes stay as they are.",
        rich_help_panel=_REQUESTS,
    ),
    policies: Path | None = typer.Option(
        None,
        help="Bundle of policies: a TOML file or a directory of them; read again on SIGHUP. Default TCD_POLICIES.",
        rich_help_panel=_REQUESTS,
    ),
    tenant: str = typer.Option("tenant0", help="Tenant of requests.", rich_help_panel=_REQUESTS),
    tenant_header: str | None = typer.Option(
        None, help="Header that names the tenant; only where clients cannot set it.", rich_help_panel=_REQUESTS
    ),
    max_body_mib: int = typer.Option(
        64, min=1, help="MiB of a body to a rewritten route at most.", rich_help_panel=_REQUESTS
    ),
    shim: str | None = typer.Option(
        None, help="A tcd shim that diagnoses the log-probabilities in answers.", rich_help_panel=_DIAGNOSIS
    ),
    enforce: bool = typer.Option(
        False, "--enforce", help="Hold tokens until they are judged; end what is stopped.", rich_help_panel=_DIAGNOSIS
    ),
    every: int = typer.Option(16, min=1, max=4096, help="Tokens per diagnosis.", rich_help_panel=_DIAGNOSIS),
    deadline_ms: int = typer.Option(
        1000, min=1, help="Milliseconds that a diagnosis may take.", rich_help_panel=_DIAGNOSIS
    ),
    on_shim_failure: str = typer.Option(
        "open",
        help="open or closed: whether tokens pass with --enforce when nobody judges them.",
        rich_help_panel=_DIAGNOSIS,
    ),
    entropies: bool = typer.Option(
        False,
        "--entropies",
        help="Send entropies of top_logprobs too; calibrate on them first.",
        rich_help_panel=_DIAGNOSIS,
    ),
    metrics_port: int | None = typer.Option(
        None, help="Port of /metrics; 0 picks a free one.", rich_help_panel=_CONNECTIONS
    ),
    connect_timeout: float = typer.Option(
        5.0, min=0.01, help="Seconds to connect to the upstream.", rich_help_panel=_CONNECTIONS
    ),
    read_timeout: float = typer.Option(
        600.0, min=0.01, help="Seconds between two pieces of an answer.", rich_help_panel=_CONNECTIONS
    ),
    max_connections: int = typer.Option(
        1000, min=1, help="Connections to the upstream at once.", rich_help_panel=_CONNECTIONS
    ),
    ca_file: Path | None = typer.Option(
        None, help="Certificate authorities for https, instead of the system's.", rich_help_panel=_CONNECTIONS
    ),
    keep_host: bool = typer.Option(
        False, "--keep-host", help="Forward the client's Host instead of the upstream's.", rich_help_panel=_CONNECTIONS
    ),
    via: str = typer.Option(
        "tcd", help="Name in the Via field of requests; empty adds none.", rich_help_panel=_CONNECTIONS
    ),
    config: Path | None = typer.Option(None, help="TOML file of settings; default TCD_CONFIG_PATH."),
) -> None:
    """Stand before an OpenAI-compatible server: mark untrusted text in requests, have answers diagnosed.

    Clients use it as their base URL and keep their credentials, which pass through. /v1/chat/completions and
    /v1/completions are rewritten as the TCD_SPOTLIGHT_* settings and the policies say, in shadow mode by default;
    every other path passes. With --shim the log-probabilities of answers that have them (logprobs in the
    request) are judged: beside the answer, or with --enforce before it is let through.

    Example: tcd proxy --upstream http://127.0.0.1:8000 --shim http://127.0.0.1:8080 --active
    """
    from tcd.config import load
    from tcd.errors import ConfigError

    given = _Given(
        upstream=upstream, host=host, port=port, tenant=tenant, tenant_header=tenant_header,
        shim=shim, enforce=enforce, every=every, deadline_ms=deadline_ms, entropies=entropies,
        on_shim_failure="closed" if on_shim_failure == "closed" else "open", metrics_port=metrics_port,
        connect_timeout=connect_timeout, read_timeout=read_timeout, max_body_mib=max_body_mib,
        max_connections=max_connections, ca_file=ca_file, keep_host=keep_host, via=via,
    )  # fmt: skip
    try:
        _check(given, on_shim_failure)
        cli: dict[str, Any] = {"spotlight_shadow": False} if active else {}
        cli["policies"] = policies
        settings = load(os.environ, cli=cli, path=config).settings
        _run(given, settings)
    except ConfigError as error:
        fail("proxy", error, code=1)


def _check(given: _Given, on_shim_failure: str) -> None:
    """Refuse what cannot be meant.

    Raises:
        ConfigError: says what.
    """
    from tcd.errors import ConfigError

    if on_shim_failure not in {"open", "closed"}:
        msg = "--on-shim-failure is open or closed"
        raise ConfigError(msg)
    if given.enforce and given.shim is None:
        msg = "--enforce needs a --shim that judges"
        raise ConfigError(msg)


def _run(given: _Given, settings: Settings) -> None:
    from tcd.errors import ConfigError

    try:
        import httpcore2
        import stamina
    except ImportError:
        msg = "the proxy needs the extra proxy; remedy: pip install 'tcd[proxy]'"
        raise ConfigError(msg) from None
    del httpcore2, stamina
    import uvloop

    uvloop.run(_serve(given, settings))


def _policies(given: _Given, settings: Settings) -> Policies:
    """The policies as the files say now.

    Raises:
        ConfigError: a file cannot be read, or a bundle is bad.
    """
    from sidecar_api.policing import default_ref, policy_digest
    from sidecar_api.rewriting import rewrite_policy
    from tcd.bundles import configured
    from tcd.proxy import Policies

    return Policies(
        rewrite_policy(settings),
        ref=default_ref(policy_digest(settings)),
        on_failure=given.on_shim_failure,
        bundle=configured(settings.policies, settings.policies_json),
    )


async def _serve(given: _Given, settings: Settings) -> None:
    from prometheus_client import CollectorRegistry

    from sidecar_api.rewriting import spotlight_key
    from tcd.proxy import Limits, Options, ProxyMetrics, ProxyMiddleware, Rewriting, Upstream
    from tcd.telemetry import LogWriter

    metrics = ProxyMetrics(CollectorRegistry())
    logs = LogWriter(level=settings.log_level)
    rewriting = Rewriting(
        _policies(given, settings),
        key=spotlight_key(settings, os.urandom),
        random=os.urandom,
        metrics=metrics,
        logs=logs,
    )
    upstream = Upstream(
        given.upstream,
        metrics=metrics,
        limits=Limits(connect=given.connect_timeout, read=given.read_timeout, connections=given.max_connections),
        tls=_tls(given),
        keep_host=given.keep_host,
        via=given.via or None,
    )
    options = Options(tenant=given.tenant, tenant_header=given.tenant_header, max_body=given.max_body_mib << 20)
    logs.start()
    try:
        async with _watching(given, metrics) as watching:
            app = ProxyMiddleware(upstream, rewriting=rewriting, metrics=metrics, watching=watching, options=options)
            with _socket(given) as sock, _metrics(given, metrics), _reloading(given, settings, rewriting):
                await _http(app, sock, given)
            await app.close()
    finally:
        await upstream.close()
        logs.stop()


def _tls(given: _Given) -> ssl.SSLContext | None:
    from tcd.errors import ConfigError

    if given.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=given.ca_file)
    except OSError as error:
        msg = f"{given.ca_file} has no certificates that can be read: {error}"
        raise ConfigError(msg) from None


@contextlib.asynccontextmanager
async def _watching(given: _Given, metrics: ProxyMetrics) -> AsyncIterator[Watching | None]:
    if given.shim is None:
        yield None
        return
    from tcd.client import AsyncClient
    from tcd.proxy import Judge, Watching

    async with AsyncClient(given.shim) as client:
        judge = Judge(client, metrics=metrics, deadline=given.deadline_ms / 1000, entropies=given.entropies)
        yield Watching(judge, every=given.every, enforce=given.enforce)


@contextlib.contextmanager
def _socket(given: _Given) -> Generator[socket.socket, None, None]:
    """The listening socket.

    Raises:
        ConfigError: the port is taken or the address is not this machine's.
    """
    from tcd.errors import ConfigError
    from tcd.listening import listen

    try:
        sock = listen(given.host, given.port, backlog=2048)
    except OSError as error:
        msg = f"port {given.port} on {given.host} cannot be had: {error.strerror or error}; remedy: choose another "
        msg += "with --port (0 picks a free one)"
        raise ConfigError(msg) from None
    with sock:
        yield sock


@contextlib.contextmanager
def _metrics(given: _Given, metrics: ProxyMetrics) -> Generator[None, None, None]:
    """Prometheus' own server: no path of the proxy's is taken for it.

    Raises:
        ConfigError: the port is taken.
    """
    if given.metrics_port is None:
        yield
        return
    from tcd.cli.prometheus import serving

    with serving(metrics.registry, host=given.host, port=given.metrics_port, name="metrics port") as port:
        print(f"metrics   http://{given.host}:{port}/metrics")
        yield


@contextlib.contextmanager
def _reloading(given: _Given, settings: Settings, rewriting: Rewriting) -> Generator[None, None, None]:
    """Read the policies again on SIGHUP; a bad bundle is refused whole and the old ones stay."""
    from tcd.errors import ConfigError

    def reload() -> None:
        try:
            rewriting.policies = _policies(given, settings)
        except ConfigError as error:
            print(f"policies not reloaded: {error.detail}", file=sys.stderr, flush=True)
        else:
            print("policies reloaded", flush=True)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _http(app: ProxyMiddleware, sock: socket.socket, given: _Given) -> None:
    import uvicorn

    from tcd.listening import in_url

    class Server(uvicorn.Server):
        """Says where it listens once it does; leaves the signals to this command, so that it exits with 0."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

        async def startup(self, sockets: list[Any] | None = None) -> None:
            await super().startup(sockets=sockets)
            print(f"proxy     http://{in_url(given.host)}:{sock.getsockname()[1]}  ->  {given.upstream}", flush=True)

    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        # what the upstream says of itself is forwarded
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
    )
    server = Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    await server.serve(sockets=[sock])
    print("stopped", flush=True)
