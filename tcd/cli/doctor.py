"""`tcd doctor`: is everything there that `tcd serve` needs, and what to do where it is not. Exit 0, 1 or 2."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from tcd.calibration.assets import AssetSet
    from tcd.config import Settings
    from tcd.doctor import Finding
    from tcd.doctor.scoring import Carried

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def command(
    config: Annotated[Path | None, typer.Option(help="TOML file; default TCD_CONFIG_PATH.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory, as for `tcd serve`.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Calibration assets, as for `tcd serve`.")] = None,
    triton_url: Annotated[str | None, typer.Option(help="A running Triton, as for `tcd serve`.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds for each question to a server.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the machine, the server, assets, keys, store, clock, ports and settings. Changes nothing.

    Exit status: 0 nothing wrong, 1 warnings, 2 failures.
    """
    from tcd.doctor import worst

    given = {"data_dir": data_dir, "assets": assets, "triton_url": triton_url}
    findings = list(examine(given, config=config, timeout=timeout))
    status = worst(findings)
    if as_json:
        print(json.dumps({"status": status, "findings": [finding.to_json() for finding in findings]}, indent=1))
    else:
        _show(findings)
    raise typer.Exit(status)


def examine(given: Mapping[str, object], *, config: Path | None, timeout: float) -> Iterator[Finding]:
    """All findings, in the order of people's questions.

    Args:
        given: settings of the command line; None = not given.
        config: TOML file.
        timeout: seconds for each question to a server.
    """
    from tcd.config import load
    from tcd.doctor import Finding
    from tcd.doctor.machine import check_machine, this_machine
    from tcd.doctor.scoring import check_kernels
    from tcd.errors import ConfigError

    try:
        loaded = load(os.environ, cli=given, path=config)
    except ConfigError as error:
        yield Finding("settings", "fail", error.detail, "correct it; `tcd config show --origin` lists all")
        return
    settings = loaded.settings
    changed = {name: origin for name, origin in loaded.origins.items() if origin != "default"}
    detail = ", ".join(f"{name} ({origin})" for name, origin in sorted(changed.items())) or "all defaults"
    yield Finding("settings", "ok", detail)
    yield from _policies(settings)
    if settings.mode == "monitor":
        yield Finding("mode", "warn", "monitor: no decision is enforced", "TCD_MODE=enforce once you trust it")
    yield from check_machine(
        this_machine(),
        serves=settings.triton_url is None,
        max_inflight=settings.max_inflight,
        window_bytes=settings.sessions_max_bytes,
    )
    yield check_kernels()
    yield from _scoring(settings)
    yield from _kept(settings, timeout)
    yield from _servers(settings, timeout)


def _policies(settings: Settings) -> Iterator[Finding]:
    from tcd.bundles import configured
    from tcd.doctor import Finding
    from tcd.errors import ConfigError

    try:
        bundle = configured(settings.policies, settings.policies_json)
    except ConfigError as error:
        yield Finding("policies", "fail", error.detail, "correct the bundle; `tcd policy lint` shows all of it")
        return
    if bundle is not None:
        yield Finding("policies", "ok", ", ".join(policy.ref for policy in bundle))


def _scoring(settings: Settings) -> Iterator[Finding]:
    from sidecar_api.pins import Shape, resolve
    from tcd.calibration.store import default_asset_dir
    from tcd.doctor.scoring import Carried, check_assets, check_binary

    if settings.triton_url is None:
        yield check_binary(os.environ)

    def carried(assets: AssetSet) -> list[Carried]:
        bound = [*assets.bindings.values(), *([assets.default] if assets.default is not None else [])]
        found = []
        for binding in bound:
            detector = assets.detectors.get(binding.detector or "")
            if detector is None:
                continue
            for mask in detector.masks:
                pins = resolve(assets, (binding.key, 0, 0), Shape(mask, detector.features, False), alpha=settings.alpha)
                found.append(Carried(f"{binding.key:016x} signals {mask:04b}", pins.length, pins.reasons))
        return found

    yield from check_assets(settings.assets or default_asset_dir(), carried)


def _kept(settings: Settings, timeout: float) -> Iterator[Finding]:
    from sidecar_api.stores import KEY_FILE, data_directory
    from tcd.doctor import Finding
    from tcd.doctor.clock import check_clock, discipline
    from tcd.doctor.keys import check_key_directory, check_seed
    from tcd.doctor.store import check_directory, check_postgres, check_sqlite

    directory, newest = data_directory(settings, os.environ), None
    if settings.ledger == "memory":
        remedy = "TCD_LEDGER=sqlite, or a postgresql:// URL"
        yield Finding("ledger", "warn", "in memory: budgets and receipts end with the process", remedy)
    elif settings.ledger_url is not None:
        yield asyncio.run(check_postgres(settings.ledger_url.get_secret_value(), timeout=timeout))
    else:
        yield from check_directory(directory)
        store = check_sqlite(directory)
        newest = store.newest_us
        yield from store.findings
    if not settings.receipts_enable:
        yield Finding("receipts", "warn", "switched off: no decision can be verified", "TCD_RECEIPTS_ENABLE=true")
    elif settings.keys_dir is not None:
        yield from check_key_directory(
            settings.keys_dir, origin=settings.origin, log=settings.log_enable, now_us=time.time_ns() // 1000
        )
    elif settings.attest_sk_hex is not None:
        yield Finding("receipt key", "ok", "from TCD_ATTEST_SK_HEX")
    elif settings.ledger == "memory":
        remedy = "set TCD_ATTEST_SK_HEX or TCD_KEYS_DIR"
        yield Finding("receipt key", "warn", "a new one at each start: nobody can pin it", remedy)
    else:
        yield check_seed(directory / KEY_FILE)
    yield from check_clock(newest_us=newest, kernel=discipline())


def _servers(settings: Settings, timeout: float) -> Iterator[Finding]:
    from tcd.doctor.network import check_models, check_port, check_reach, check_shim
    from tcd.triton.options import DEFAULT_MODELS

    shim = check_shim(settings.http_host, settings.http_port, timeout=timeout) if settings.http_port else None
    running = shim is not None
    if shim is not None:
        yield shim
    yield check_port("http", settings.http_host, settings.http_port, flag="TCD_HTTP_PORT", serves=running)
    if settings.grpc_enable:
        yield check_port("grpc", settings.grpc_host, settings.grpc_port, flag="TCD_GRPC_PORT", serves=running)
    if settings.admin_enable:
        yield check_port("admin", settings.admin_host, settings.admin_port, flag="TCD_ADMIN_PORT", serves=running)
    if settings.prom_port:
        yield check_port("prometheus", settings.http_host, settings.prom_port, flag="TCD_PROM_PORT", serves=running)
    yield check_reach(settings.http_host, tokens=bool(settings.api_tokens))
    if settings.triton_url is None:
        for name in ("http", "grpc", "metrics"):
            port = getattr(settings, f"triton_{name}_port")
            flag = f"TCD_TRITON_{name.upper()}_PORT"
            yield check_port(f"triton {name}", "127.0.0.1", port, flag=flag, serves=running)
        return
    yield asyncio.run(_triton(settings, timeout))
    parts = urlsplit(settings.triton_url if "://" in settings.triton_url else f"http://{settings.triton_url}")
    if parts.scheme == "http" and parts.hostname is not None:
        yield from check_models(parts.hostname, parts.port or 80, DEFAULT_MODELS, timeout=timeout)


async def _triton(settings: Settings, timeout: float) -> Finding:
    from tcd.doctor import Finding
    from tcd.doctor.network import check_triton
    from tcd.triton.client import connect
    from tcd.triton.wire import find_model

    given = settings.triton_url or ""
    url = given if "://" in given else f"http://{given}"
    try:
        client = connect(url)
    except ValueError as error:
        return Finding("triton", "fail", str(error), "TCD_TRITON_URL is http://host:port or grpc://host:port")
    try:
        return await check_triton(client, url, find_model(settings.triton_model), timeout=timeout)
    finally:
        await client.close()


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "", "what was found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        said = Text(finding.detail)
        if finding.remedy:
            said.append(f"\n-> {finding.remedy}", style="italic")
        table.add_row(finding.check, Text(finding.status, style=_STYLES[finding.status]), said)
    console = Console()
    console.print(table)
    counts = {status: sum(f.status == status for f in findings) for status in ("ok", "warn", "fail", "skip")}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
