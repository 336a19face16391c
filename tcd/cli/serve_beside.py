"""What `tcd serve` runs beside the shim where the settings ask for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar_api.admin.serving import AdminServer
    from sidecar_api.http.surface import ShimApp
    from tcd.config import Settings
    from tcd.telemetry.gpu import GpuSampler
    from tcd.telemetry.otel import SpanWriter


def spans(settings: Settings) -> SpanWriter | None:
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
def sent_metrics(settings: Settings, app: ShimApp) -> Generator[None, None, None]:
    """Metrics over OTLP, where that is switched on (`spans` has seen that it can be)."""
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


def gpu(settings: Settings) -> GpuSampler | None:
    """The sampler of the GPU, running."""
    if not settings.gpu_enable:
        return None
    from tcd.telemetry.gpu import GpuSampler

    sampler = GpuSampler()
    sampler.start()
    return sampler


@contextlib.contextmanager
def prometheus(settings: Settings, app: ShimApp) -> Generator[None, None, None]:
    """The extra Prometheus server of `prom_port`.

    Raises:
        ConfigError: the port is taken.
    """
    if not settings.prom_port:
        yield
        return
    from tcd.cli.prometheus import serving

    remedy = "choose another TCD_PROM_PORT"
    registry, host = app.runtime.exporter.registry, settings.http_host
    with serving(registry, host=host, port=settings.prom_port, name="prom_port", remedy=remedy):
        yield


def admin_plane(settings: Settings, app: ShimApp) -> AdminServer | None:
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
