"""Answers and bodies of the routes that are not hot."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from sidecar_api.snapshot import Label, Name, Snapshot


class Health(Struct, kw_only=True, frozen=True):
    """Liveness and what is switched on."""

    ok: bool
    config_hash: str
    otel: bool
    prom: bool
    receipts: bool
    trust_os: bool


class Live(Struct, kw_only=True, frozen=True):
    """The loop runs."""

    ok: bool


class Ready(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Whether requests should be sent here; `checks` with `?verbose`."""

    ready: bool
    prom_http: bool
    checks: dict[str, str] | None = None


class Version(Struct, kw_only=True, frozen=True):
    """Version and core settings."""

    version: str
    config_version: str
    alpha: float
    slo_latency_ms: float
    config_hash: str
    triton: dict[str, Any] | None


class StateOut(Struct, kw_only=True, frozen=True):
    """Snapshot of a key."""

    detector: Snapshot


class StateIn(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A snapshot to load, and the key it is for."""

    detector: Snapshot
    model_id: Annotated[Name, Meta(description="of the key")] = "model0"
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"


class Loaded(Struct, kw_only=True, frozen=True):
    """A snapshot was loaded."""

    ok: bool
    sessions: int
    digest: str
