"""The job of a replay: what is in force as the baseline, and the candidate, both decided in the job's process."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from sidecar_api.admin.job_process import Run
from sidecar_api.traffic import Replay, replayed
from sidecar_api.traffic.inprocess import in_process
from sidecar_api.traffic.lines import Item, items_of
from tcd.config import Settings

#: Members of the result; the file has all of it.
_SHORT: Final = ("status", "requests", "bad_lines", "bad")


def run(job: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Replay; writes `replay.json`.

    Args:
        job: of the process.
        arguments: see `Replays.order`.

    Raises:
        ConfigError, AssetError: the candidate cannot be used.
    """
    found = asyncio.run(_replayed(job, arguments)).to_json()
    (job.folder / "replay.json").write_text(json.dumps(found, indent=1))
    short = {name: found[name] for name in _SHORT}
    if found["diff"] is not None:
        short |= {name: found["diff"][name] for name in ("same", "changed", "moved", "actions", "verdicts")}
    return short


async def _replayed(job: Run, arguments: Mapping[str, Any]) -> Replay:
    settings = Settings(**arguments["settings"])
    seed = int(arguments["seed"])
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(in_process("in force", settings, seed=seed))]
        files, assets = arguments.get("policies"), arguments.get("assets")
        if files or assets:
            changed = settings if not files else _with(settings, job.folder, files)
            place = None if assets is None else Path(assets)
            candidate = in_process("candidate", changed, assets=place, seed=seed, beside=sides[0])
            sides.append(await stack.enter_async_context(candidate))
        return await replayed(_items(arguments), sides, progress=lambda done: job.progress(done, note="requests"))


def _with(settings: Settings, folder: Path, files: Mapping[str, str]) -> Settings:
    """The settings with another bundle, which is kept with the job."""
    place = folder / "bundle"
    place.mkdir()
    for name, text in files.items():
        (place / (name if name.endswith(".toml") else f"{name}.toml")).write_text(text)
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return Settings(**{**values, "policies": place, "policies_json": None})


def _items(arguments: Mapping[str, Any]) -> Iterable[Item]:
    if arguments.get("synthetic"):
        from sidecar_api.traffic.synthetic import synthetic  # noqa: PLC0415 - scipy

        return synthetic(arguments["synthetic"]["count"], seed=arguments["synthetic"]["seed"])
    if "text" in arguments:
        return items_of(io.BytesIO(arguments["text"].encode()))
    return items_of(Path(arguments["path"]))
