"""Ports, a shim that runs already, and the Triton server that is used."""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

from tcd.contract import Model
from tcd.doctor.finding import Finding
from tcd.errors import ScoringError
from tcd.triton.client import InferenceClient
from tcd.triton.probe import canary_inputs

_OK: Final = 200


def _get(host: str, port: int, path: str, timeout: float) -> tuple[int, Any]:
    """Status and JSON of an answer.

    Raises:
        OSError, HTTPException, ValueError: there is none.
    """
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read(1 << 20)
    finally:
        connection.close()
    return reply.status, json.loads(body) if body else None


def check_port(name: str, host: str, port: int, *, flag: str, serves: bool = False) -> Finding:
    """Whether a port can be had. `serves`: it is as well when what listens there is what belongs there."""
    what = f"{name} port"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and serves:
            return Finding(what, "ok", f"{port} is in use, by a server of tcd")
        return Finding(what, "fail", f"{host}:{port}: {error.strerror or error}", f"stop what listens there, or {flag}")
    return Finding(what, "ok", f"{host}:{port} is free" if port else "a free one is taken")


def check_reach(host: str, *, tokens: bool) -> Finding:
    """Whether the shim can be reached from elsewhere."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local:
        return Finding("reach", "ok", "loopback only")
    detail = f"listens on {host}, without TLS{'' if tokens else ' and without tokens'}"
    return Finding("reach", "warn", detail, "put a proxy with TLS and authentication before it, or use 127.0.0.1")


def check_shim(host: str, port: int, *, timeout: float) -> Finding | None:
    """A shim that runs on the port already; None when there is none."""
    try:
        status, value = _get(host, port, "/readyz?verbose", timeout)
    except (OSError, HTTPException, ValueError):
        return None
    if not isinstance(value, dict) or "ready" not in value:
        return None
    if status == _OK:
        return Finding("shim", "ok", f"runs on {host}:{port} and is ready")
    away = {name: why for name, why in (value.get("checks") or {}).items() if why != "ok"}
    detail = "; ".join(f"{name}: {why}" for name, why in away.items()) or "not ready"
    return Finding("shim", "fail", f"runs on {host}:{port}, {detail}"[:400], "its log says more")


async def check_triton(client: InferenceClient, url: str, model: Model, *, timeout: float) -> Finding:
    """Whether a Triton server answers, and the ensemble a canary."""
    if not await client.ready(timeout=timeout):
        remedy = "start it (`tcd triton`, or Triton with model_repository/), or correct TCD_TRITON_URL"
        return Finding("triton", "fail", f"{url} does not say that it is ready", remedy)
    try:
        await client.infer(canary_inputs(model), model=model, timeout=timeout)
    except ScoringError as error:
        remedy = "Triton's log says why; its Python needs this version of tcd installed"
        return Finding("triton", "fail", f"{model.name}: {error.detail}"[:400], remedy)
    return Finding("triton", "ok", f"{url}: {model.name} answers")


def check_models(host: str, port: int, models: tuple[str, ...], *, timeout: float) -> Iterator[Finding]:
    """State of each model of a Triton server, over HTTP."""
    for name in models:
        try:
            status, _ = _get(host, port, f"/v2/models/{name}/ready", timeout)
        except (OSError, HTTPException, ValueError) as error:
            yield Finding(f"model {name}", "skip", f"no answer: {type(error).__name__}")
            return
        if status == _OK:
            yield Finding(f"model {name}", "ok", "ready")
        else:
            yield Finding(f"model {name}", "warn", "not ready", "load it; Triton's log says why it is not")
