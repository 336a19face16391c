"""`tcd serve`: Triton with the ensemble, the shim before it, and a clean way down for both."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from tcd.config import Settings
    from tcd.ledger import Ledger
    from tcd.triton.client import InferenceClient
    from tcd.triton.launcher import TritonServer

#: Seconds after which a thread that waits for the interpreter gets it. At Python's 5 ms the ledger's thread, which lets
#: go of it for each sync, stood behind the event loop for longer than the sync itself took. docs/performance.md.
_SWITCH = 0.0005
#: Calls of a server that are under way at most.
_CALLS = 4
#: Rows that wait for a commit under way until there are so many, where a server is asked once at a time.
_TOGETHER = 8
#: A request with which anybody can see the shim answer.
_EXAMPLE = '{"trace_vector": [-1.2], "entropy": 1.5, "step_id": 0}'


def command(
    port: int | None = typer.Option(None, help="Port of the shim; 0 picks a free one. [default: 8080]"),
    host: str | None = typer.Option(None, help="Address of the shim. [default: 127.0.0.1]"),
    grpc_port: int | None = typer.Option(None, help="gRPC port of the shim; 0 picks a free one. [default: 8082]"),
    triton_url: str | None = typer.Option(
        None, help="Use a running server at http://host:port or grpc://host:port instead of starting one."
    ),
    triton_port: int | None = typer.Option(
        None, help="HTTP port of the server that is started, gRPC and metrics next to it; 0 picks free ones."
    ),
    assets: Path | None = typer.Option(None, help="Directory of calibration assets; default: the demo assets."),
    data_dir: Path | None = typer.Option(
        None, help="Directory of the ledger and the generated receipt key. [default: ~/.local/state/tcd]"
    ),
    config: Path | None = typer.Option(None, help="TOML file; default TCD_CONFIG_PATH."),
) -> None:
    """Start Triton and the shim on loopback, print their URLs, and drain both on SIGTERM."""
    from tcd.config import load
    from tcd.errors import AssetError, ConfigError, LauncherError

    ports: dict[str, Any] = {}
    if triton_port is not None:
        ports = {
            "triton_http_port": triton_port,
            "triton_grpc_port": triton_port and triton_port + 1,
            "triton_metrics_port": triton_port and triton_port + 2,
        }
    if grpc_port is not None:
        ports["grpc_port"] = grpc_port
    elif port == 0:
        ports["grpc_port"] = 0
    given = {
        "http_port": port,
        "http_host": host,
        "grpc_host": host,
        "triton_url": triton_url,
        "assets": assets,
        "data_dir": data_dir,
        **ports,
    }
    try:
        settings = load(os.environ, cli=given, path=config).settings
        with _listen(settings) as sock:
            _run(settings, sock, _Layers(given, config))
    except (ConfigError, AssetError, LauncherError) as error:
        fail("serve", error, code=1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _listen(settings: Settings) -> Generator[socket.socket, None, None]:
    """The shim's socket, taken before anything slow is started.

    Raises:
        ConfigError: the port is taken or the address is not this machine's; says the remedy.
    """
    from tcd.errors import ConfigError
    from tcd.listening import listen

    host, port = settings.http_host, settings.http_port
    try:
        sock = listen(host, port, backlog=2048)
    except OSError as error:
        msg = f"port {port} on {host} cannot be had: {error.strerror or error}; remedy: stop what listens there, "
        msg += "or choose another with --port (0 picks a free one)"
        raise ConfigError(msg) from None
    with sock:
        yield sock


@dataclass(frozen=True, slots=True)
class _Layers:
    """What a reload reads again, the command line and the file it named, and what the start added to them."""

    cli: dict[str, Any]
    path: Path | None
    complete: Callable[[Settings], Settings] = lambda settings: settings


def _run(settings: Settings, sock: socket.socket, layers: _Layers) -> None:
    import uvloop

    sys.setswitchinterval(_SWITCH)
    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, sock, layers))
    else:
        uvloop.install()
        asyncio.run(_serve(settings, sock, layers))


@dataclass(frozen=True, slots=True)
class _Triton:
    """The server that is used, and how."""

    client: InferenceClient
    server: TritonServer | None
    url: str


@contextlib.asynccontextmanager
async def _triton(settings: Settings, spotlight_key: bytes) -> AsyncIterator[_Triton]:
    """A running server: the given one, or one that is started here and stopped in the end."""
    from tcd.errors import ConfigError
    from tcd.triton.client import connect
    from tcd.triton.launcher import DEFAULT_MODELS, LaunchOptions, TritonServer

    async with contextlib.AsyncExitStack() as stack:
        server: TritonServer | None = None
        if settings.triton_url is not None:
            url = settings.triton_url if "://" in settings.triton_url else f"http://{settings.triton_url}"
        else:
            print("triton    starting ...", flush=True)
            options = LaunchOptions(
                http_port=settings.triton_http_port,
                grpc_port=settings.triton_grpc_port,
                metrics_port=settings.triton_metrics_port,
                models=tuple(dict.fromkeys((*DEFAULT_MODELS, settings.triton_model))),
                assets=settings.assets,
                gpu_break_even=settings.gpu_break_even,
                spotlight_key=spotlight_key,
            )
            server = await stack.enter_async_context(TritonServer(options))
            url = server.http_url if settings.triton_transport == "http" else f"grpc://{server.grpc_url}"
        try:
            client = connect(url)
        except ValueError as error:
            msg = f"triton_url: {error}"
            raise ConfigError(msg) from None
        stack.push_async_callback(client.close)
        yield _Triton(client, server, url)


@contextlib.asynccontextmanager
async def _ledger(settings: Settings) -> AsyncIterator[tuple[Ledger, Settings]]:
    """The ledger of the settings, for as long as the shim runs, and the settings with the receipt key."""
    from sidecar_api.stores import open_ledger, open_shared, with_key

    ledger: Ledger
    if settings.ledger == "postgresql":
        whole = with_key(settings, os.environ, os.urandom)
        ledger = await open_shared(whole)
    else:
        # taken first: a second process on the directory stops here
        ledger = open_ledger(settings, os.environ)
    try:
        yield ledger, with_key(settings, os.environ, os.urandom)
    finally:
        await ledger.close()


async def _serve(settings: Settings, sock: socket.socket, layers: _Layers) -> None:
    from sidecar_api.stores import keeping

    # taken before anything slow is started
    async with _ledger(settings) as (ledger, whole):
        complete = keeping(whole.attest_sk_hex if settings.attest_sk_hex is None else None)
        await _serve_from(whole, sock, ledger, dataclasses.replace(layers, complete=complete))


async def _serve_from(settings: Settings, sock: socket.socket, ledger: Ledger, layers: _Layers) -> None:
    from sidecar_api.app import Edges, create_app, make_exporter
    from sidecar_api.rewriting import spotlight_key
    from sidecar_api.stores import own_directory
    from tcd.calibration.store import AssetDirectory, default_asset_dir
    from tcd.cli.reloading import reloading
    from tcd.cli.serve_beside import gpu, prometheus, sent_metrics, spans
    from tcd.cli.serve_stop import Stop
    from tcd.triton.batcher import MicroBatcher
    from tcd.triton.health import HealthMonitor

    stop = Stop()
    directory = AssetDirectory(settings.assets or default_asset_dir())
    exporter = make_exporter(settings)
    # one key, so that the model and the shim know each other's marks
    key = spotlight_key(settings, os.urandom)
    async with _triton(settings, key) as triton:
        server = triton.server
        eager = _CALLS if server is None else _eager(len(os.sched_getaffinity(0)))
        batcher = MicroBatcher(
            triton.client,
            model=settings.triton_model,
            observer=exporter,
            in_flight=_CALLS,
            eager=eager,
            together=_TOGETHER if eager == 1 else 0,
        )
        heal = None if server is None else lambda: asyncio.to_thread(server.heal)
        monitor = HealthMonitor(triton.client, model=settings.triton_model, heal=heal)
        edges = Edges(
            ledger=ledger,
            exporter=exporter,
            checks={
                "triton": lambda: "" if monitor.ready else monitor.state.error or "not ready",
                "assets": lambda: directory.refused or "",
            },
            triton={"url": triton.url, "started": server is not None},
            spotlight_key=key,
            folder=own_directory(settings, os.environ),
        )
        sampler = gpu(settings)
        sample = sampler.sample if sampler is not None else None
        edges = dataclasses.replace(edges, spans=spans(settings), gpu=sample)
        app = create_app(settings, scorer=batcher, assets=directory, edges=edges)
        # ready from the first request on; a server elsewhere may also come later
        await monitor.check()
        # not before Triton is there: gRPC does not like forks
        from tcd.cli.serve_http import run

        async with monitor.running():
            with prometheus(settings, app), sent_metrics(settings, app):
                async with reloading(app, cli=layers.cli, path=layers.path, complete=layers.complete):
                    await run(settings, sock, app, stop, lambda port: _announce(sock, settings, triton, port))
            await batcher.drain(timeout=settings.drain_timeout_s)


def _eager(cores: int) -> int:
    """Calls that go out at once to a server on the shim's own cores."""
    return max(1, min(_CALLS, cores // 2))


def _announce(sock: socket.socket, settings: Settings, triton: _Triton, grpc_port: int) -> None:
    from sidecar_api.stores import data_directory
    from tcd.listening import in_url, reachable

    host, port = settings.http_host, sock.getsockname()[1]
    base = f"http://{in_url(reachable(host))}:{port}"
    print(f"shim      {base}  (metrics {base}/metrics, schema {base}/openapi.json)")
    if settings.grpc_enable:
        print(f"grpc      {settings.grpc_host}:{grpc_port}  (tcd.v1.TcdService, health, reflection)")
    places = {
        "sqlite": str(data_directory(settings, os.environ)),
        "postgresql": "PostgreSQL, shared with the other shims on it",
        "memory": "in memory: it ends with the process",
    }
    print(f"ledger    {places[settings.ledger]}")
    server = triton.server
    if server is None:
        print(f"triton    {triton.url}  (not started here)")
    else:
        print(f"triton    {server.http_url}  (gRPC {server.grpc_url}, metrics {server.metrics_url})")
    print(f"ready     curl -s {base}/diagnose -H 'content-type: application/json' -d '{_EXAMPLE}'", flush=True)
