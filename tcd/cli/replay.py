"""`tcd replay`: recorded or synthetic requests against a shim, or against a baseline and a candidate.

Exit 0: every request was answered, and decisions are the same; 1: decisions differ; 2: a line, a request or a receipt
was bad, or nothing could be said.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcd.cli.endings import fail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar_api.traffic import Replay, Side
    from sidecar_api.traffic.lines import Item
    from tcd.receipts import VerifyPolicy

_Place = Annotated[Path | None, typer.Option(exists=True)]


@dataclass(frozen=True, slots=True)
class _Where:
    """A side: a URL, or what a shim in this process is made of."""

    name: str
    url: str | None
    config: Path | None
    policies: Path | None
    assets: Path | None


def command(
    url: Annotated[str | None, typer.Option(help="shim to send to; TCD_REPLAY_URL")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="decide in this process, without a server")] = False,
    jsonl: Annotated[
        Path | None,
        typer.Option(help="requests of /diagnose or a session log, one JSON per line; - is the input; or recordings"),
    ] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="made-up generations, a tenth of them faulty")] = False,
    count: Annotated[int, typer.Option(min=1, help="requests of --synthetic")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="of everything random")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="requests in flight; sessions keep their order")] = 8,
    verify: Annotated[
        bool, typer.Option("--verify", help="verify each receipt as it comes; --keyset has the keys")
    ] = False,
    keyset: Annotated[
        Path | None, typer.Option(help="pinned keys of the receipts of --url: tcd.keyset/1", exists=True)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="settings of --in-process; TCD_CONFIG_PATH", exists=True)] = None,
    policies: _Place = None,
    assets: _Place = None,
    candidate_url: Annotated[str | None, typer.Option(help="another shim, whose decisions are compared")] = None,
    candidate_config: _Place = None,
    candidate_policies: _Place = None,
    candidate_assets: _Place = None,
    tenant: Annotated[str | None, typer.Option(help="send everything as this tenant's")] = None,
    suffix: Annotated[str, typer.Option(help="append this to the names of sessions")] = "",
    model_id: Annotated[str, typer.Option(help="model of recordings and of --synthetic")] = "smollm2-135m",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Replay requests; with a candidate, compare its decisions. Exit 0: the same, 1: different, 2: an error."""
    import asyncio

    from sidecar_api.traffic.lines import Naming
    from tcd.errors import TcdError

    baseline = _Where(
        "baseline", None if in_process else url or os.environ.get("TCD_REPLAY_URL"), config, policies, assets
    )
    made = (candidate_config, candidate_policies, candidate_assets)
    candidate = None
    if candidate_url is not None or any(made):
        rest = [new or old for new, old in zip(made, (config, policies, assets), strict=True)]
        candidate = _Where("candidate", candidate_url, *rest)
    _check(baseline, candidate, made, in_process=in_process, url=url, jsonl=jsonl, synthetic=synthetic)
    naming = Naming(tenant, suffix, model_id)
    try:
        found = asyncio.run(
            _replay(
                _items(jsonl, count, seed, naming),
                [side for side in (baseline, candidate) if side is not None],
                policy=_pinned(baseline, candidate, keyset) if verify else None,
                verify=verify,
                seed=seed,
                concurrency=concurrency,
            )
        )
    except (TcdError, OSError, ValueError) as error:
        fail("replay", error)
    print(json.dumps(found.to_json()) if as_json else "\n".join(found.lines()))
    raise typer.Exit(found.status)


def _check(
    baseline: _Where,
    candidate: _Where | None,
    made: tuple[Path | None, ...],
    *,
    in_process: bool,
    url: str | None,
    jsonl: Path | None,
    synthetic: bool,
) -> None:
    """Refuse options that contradict each other."""
    if (jsonl is None) is not synthetic:
        fail("replay", "one of --jsonl and --synthetic")
    if in_process and url is not None:
        fail("replay", "one of --url and --in-process")
    if not in_process and baseline.url is None:
        fail("replay", "--url, TCD_REPLAY_URL or --in-process says where to")
    if candidate is not None and candidate.url is not None and any(made):
        fail(
            "replay",
            "a candidate is --candidate-url, or --candidate-config, --candidate-policies and --candidate-assets",
        )
    here = [side for side in (baseline, candidate) if side is not None and side.url is None]
    if not here and (baseline.config or baseline.policies or baseline.assets):
        fail("replay", "--config, --policies and --assets are of what decides in this process; a shim has its own")


def _items(jsonl: Path | None, count: int, seed: int, naming: Any) -> Iterable[Item]:
    from sidecar_api.traffic.lines import items_of

    if jsonl is None:
        from sidecar_api.traffic.synthetic import synthetic

        return synthetic(count, seed=seed, naming=naming)
    return items_of(sys.stdin.buffer if str(jsonl) == "-" else jsonl, naming)


def _pinned(baseline: _Where, candidate: _Where | None, keyset: Path | None) -> VerifyPolicy | None:
    """What receipts of a URL have to show."""
    from tcd.keystore import read_json
    from tcd.receipts import KeySet, VerifyPolicy

    if keyset is not None:
        return VerifyPolicy(KeySet.from_json(read_json(keyset)))
    if baseline.url is not None or (candidate is not None and candidate.url is not None):
        fail("replay", "--verify needs --keyset: a key that comes with a receipt proves nothing")
    return None


async def _replay(
    items: Iterable[Item],
    places: list[_Where],
    *,
    policy: VerifyPolicy | None,
    verify: bool,
    seed: int,
    concurrency: int,
) -> Replay:
    from sidecar_api.traffic import replayed
    from sidecar_api.traffic.inprocess import InProcess, in_process
    from sidecar_api.traffic.live import Live
    from sidecar_api.traffic.receipts import Receipts
    from tcd.config import load

    async with AsyncExitStack() as stack:
        sides: list[Side] = []
        for place in places:
            if place.url is None:
                drop = {"TCD_REPLAY_URL"} | ({"TCD_POLICIES_JSON", "TCD_POLICIES"} if place.policies else set())
                environ = {name: value for name, value in os.environ.items() if name not in drop}
                given = {"policies": place.policies, "assets": place.assets}
                settings = load(environ, cli=given, path=place.config).settings
                first = sides[0] if sides and isinstance(sides[0], InProcess) else None
                side = in_process(place.name, settings, verify=verify, seed=seed, beside=first)
                sides.append(await stack.enter_async_context(side))
                continue
            receipts = Receipts(policy) if policy is not None else None
            live = await stack.enter_async_context(
                Live(f"{place.name} {place.url}", place.url, connections=concurrency, receipts=receipts)
            )
            await live.reachable()
            sides.append(live)
        return await replayed(items, sides, concurrency=concurrency)
