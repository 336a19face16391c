"""`tcd serve`: Triton with the ensemble, the shim before it, and a clean way down for both."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sidecar_api.admin.serving import AdminServer
    from sidecar_api.http.surface import ShimApp
    from tcd.config import Settings
    from tcd.ledger import Ledger
    from tcd.telemetry.gpu import GpuSampler
    from tcd.telemetry.otel import SpanWriter
    from tcd.triton.client import InferenceClient
    from tcd.triton.launcher import TritonServer

#: Objects that are new before the collector looks at them.
_GC_NEW = 20_000
#: Seconds after which a thread that waits for the interpreter gets it. At Python's 5 ms the ledger's thread, which lets
#: go of it for each sync, stood behind the event loop for longer than the sync itself took. docs/performance.md.
_SWITCH = 0.0005
#: Calls of a server that are under way at most.
_CALLS = 4
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
        print(f"tcd serve: {error.detail}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _listen(settings: Settings) -> Generator[socket.socket, None, None]:
    """The shim's socket, taken before anything slow is started.

    Raises:
        ConfigError: the port is taken or the address is not this machine's; says the remedy.
    """
    from tcd.errors import ConfigError

    host, port = settings.http_host, settings.http_port
    sock = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        if sock is not None:
            sock.close()
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
    from tcd.triton.batcher import MicroBatcher
    from tcd.triton.health import HealthMonitor

    stop = _Stop()
    directory = AssetDirectory(settings.assets or default_asset_dir())
    exporter = make_exporter(settings)
    # one key, so that the model and the shim know each other's marks
    key = spotlight_key(settings, os.urandom)
    async with _triton(settings, key) as triton:
        server = triton.server
        eager = _CALLS if server is None else _eager(len(os.sched_getaffinity(0)))
        batcher = MicroBatcher(
            triton.client, model=settings.triton_model, observer=exporter, in_flight=_CALLS, eager=eager
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
        gpu = _gpu(settings)
        edges = dataclasses.replace(edges, spans=_spans(settings), gpu=gpu.sample if gpu is not None else None)
        app = create_app(settings, scorer=batcher, assets=directory, edges=edges)
        # ready from the first request on; a server elsewhere may also come later
        await monitor.check()
        async with monitor.running():
            with _prometheus(settings, app), _sent_metrics(settings, app):
                async with _reloading(app, layers):
                    await _http(settings, sock, app, stop, triton)
            await batcher.drain(timeout=settings.drain_timeout_s)


def _eager(cores: int) -> int:
    """Calls that go out at once to a server on the shim's own cores."""
    return max(1, min(_CALLS, cores // 2))


@contextlib.asynccontextmanager
async def _reloading(app: ShimApp, layers: _Layers) -> AsyncIterator[None]:
    """Reload on SIGHUP, and when a file changes."""
    from sidecar_api.reload import Reloader
    from tcd.background import running
    from tcd.cli.reloading import ReloadOn

    settings, loop = app.runtime.settings, asyncio.get_running_loop()
    on = ReloadOn(Reloader(app.runtime), settings, cli=layers.cli, path=layers.path, complete=layers.complete)
    app.runtime.reread = on.read
    loop.add_signal_handler(signal.SIGHUP, on.now, "SIGHUP")
    try:
        async with running(on.watch()) if settings.config_watch else contextlib.nullcontext():
            yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _spans(settings: Settings) -> SpanWriter | None:
    """The writer of spans.

    Raises:
        ConfigError: OpenTelemetry is not installed; says the remedy.
    """
    if not settings.otel_enable:
        return None
    from tcd import __version__
    from tcd.errors import ConfigError

    try:
        from tcd.telemetry.otel import otlp
    except ImportError:
        msg = "otel_enable needs the extra otel; remedy: pip install 'tcd[otel]'"
        raise ConfigError(msg) from None
    return otlp(settings.otel_endpoint, version=__version__, ratio=settings.otel_sample_ratio)


@contextlib.contextmanager
def _sent_metrics(settings: Settings, app: ShimApp) -> Generator[None, None, None]:
    """Metrics over OTLP, where that is switched on (`_spans` has seen that it can be)."""
    if not settings.otel_enable:
        yield
        return
    from tcd import __version__
    from tcd.telemetry.otel_metrics import otlp_metrics

    runtime = app.runtime

    def collect() -> list[Any]:
        runtime.exporter.refresh(sessions=len(runtime.service.sessions), dropped=runtime.logs.dropped)
        return list(runtime.exporter.registry.collect())

    interval = settings.otel_interval_s
    sender = otlp_metrics(settings.otel_endpoint, collect, version=__version__, interval=interval)
    sender.start()
    try:
        yield
    finally:
        sender.close()


def _gpu(settings: Settings) -> GpuSampler | None:
    if not settings.gpu_enable:
        return None
    from tcd.telemetry.gpu import GpuSampler

    sampler = GpuSampler()
    sampler.start()
    return sampler


class _Stop:
    """SIGTERM and SIGINT: before serving they cancel the start, afterwards they drain."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.serving = False
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: made inside a coroutine
        self._task = task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signal)

    def _signal(self) -> None:
        if not self.serving:
            self._task.cancel()
        self.event.set()


@contextlib.contextmanager
def _prometheus(settings: Settings, app: ShimApp) -> Generator[None, None, None]:
    """The extra Prometheus server of `prom_port`.

    Raises:
        ConfigError: the port is taken.
    """
    if not settings.prom_port:
        yield
        return
    from prometheus_client import start_http_server

    from tcd.errors import ConfigError

    try:
        server, thread = start_http_server(
            settings.prom_port, settings.http_host, registry=app.runtime.exporter.registry
        )
    except OSError as error:
        msg = f"prom_port {settings.prom_port} cannot be had: {error.strerror}; remedy: choose another TCD_PROM_PORT"
        raise ConfigError(msg) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2.0)


async def _http(settings: Settings, sock: socket.socket, app: ShimApp, stop: _Stop, triton: _Triton) -> None:
    """Run uvicorn and gRPC until a signal, then drain."""
    import uvicorn

    from sidecar_api.decode import MAX_DIAGNOSE
    from sidecar_api.grpc import GrpcServer
    from sidecar_api.http.acceptor import Acceptor
    from sidecar_api.http.lean import LeanProtocol

    grpc = GrpcServer(app.runtime, host=settings.grpc_host, port=settings.grpc_port)
    if settings.grpc_enable:
        await grpc.start()
    admin = _admin(settings, app)

    class Server(uvicorn.Server):
        """Leaves the signals to `_Stop`: readiness has to go first. Accepts in bursts."""

        def protocol(self) -> asyncio.Protocol:
            return LeanProtocol(
                app.runtime, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=[])
            self.servers = [Acceptor(listener, self.protocol) for listener in sockets or []]  # type: ignore[misc]
            # what is here now stays: the collector need not look at it again and again
            gc.collect()
            gc.freeze()
            # a decision makes hundreds of objects, none in a cycle: looking after each 700 costs more than it finds
            gc.set_threshold(_GC_NEW, 20, 20)
            if admin is not None:
                await admin.start(print)
            _announce(sock, settings, triton, grpc.port)

    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_DIAGNOSE + 4096,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[sock]))
    stop.serving = True
    try:
        waiting = asyncio.ensure_future(stop.event.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not running.done():
            print("stopping: requests in flight finish, new ones get 503", flush=True)
            await app.runtime.service.drain(timeout=settings.drain_timeout_s)
    finally:
        if admin is not None:
            await admin.stop()
        await grpc.stop(grace=settings.drain_timeout_s)
        server.should_exit = True
        await running
    print("stopped", flush=True)


def _admin(settings: Settings, app: ShimApp) -> AdminServer | None:
    """The admin plane, not yet serving.

    Raises:
        ConfigError: its packages are not installed, or it cannot be had; says the remedy.
    """
    if not settings.admin_enable:
        return None
    from sidecar_api.stores import data_directory
    from tcd.errors import ConfigError

    try:
        from sidecar_api.admin.serving import AdminServer
    except ImportError:
        msg = "admin_enable needs the extra admin; remedy: pip install 'tcd[admin]'"
        raise ConfigError(msg) from None
    folder = data_directory(settings, os.environ) / "admin"
    return AdminServer(app.runtime, folder, host=settings.admin_host, port=settings.admin_port)


def _announce(sock: socket.socket, settings: Settings, triton: _Triton, grpc_port: int) -> None:
    from sidecar_api.stores import data_directory

    host, port = settings.http_host, sock.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - it is looked up
    base = f"http://{shown}:{port}"
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
