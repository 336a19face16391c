"""Admin planes that die at each point of an act: python -m tests.unit.admin.crash_child FOLDER.

Each point has a folder with the principals, the keys (`keys.json`) and a proposal (`proposal`) in its store; what is
recorded is appended to `acts`, what is done to `done`. A process for each, so that nothing of it is tidied up.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar_api.admin.store import sqlite_store
from tests.unit.admin.kit import Acts, Admin

DEAD = 9
KEY = "the-approval"


class FileActs(Acts):
    """Acts that outlive the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "acts"

    async def record(self, action: str, actor: str, digest: str, *, reason: str = "") -> str:
        with self._path.open("a") as out:
            out.write(f"{action} {actor}\n")
            out.flush()
            os.fsync(out.fileno())
        return await super().record(action, actor, digest, reason=reason)


def dying(inner: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """A coroutine function that ends the process before or after what it does."""

    async def outer(*arguments: Any, **named: Any) -> Any:
        if after:
            await inner(*arguments, **named)
        os._exit(DEAD)

    return outer


def arm(admin: Admin, point: str) -> None:
    """Let it die there."""
    store, acts = admin.plane.store, admin.acts
    if point == "begun":
        store.begin = dying(store.begin, after=True)  # type: ignore[method-assign]
    elif point == "described":
        store.describe = dying(store.describe, after=True)  # type: ignore[method-assign]
    elif point == "recorded":
        acts.record = dying(acts.record, after=True)  # type: ignore[method-assign]
    elif point == "done":
        store.finish = dying(store.finish, after=False)  # type: ignore[method-assign]


POINTS = ("begun", "described", "recorded", "done")


async def run(folder: Path, point: str) -> None:
    """Approve the proposal, up to the point."""
    admin = Admin.at(folder, store=sqlite_store(folder), acts=FileActs(folder))
    arm(admin, point)
    await admin.call("POST", f"/approvals/{(folder / 'proposal').read_text()}", admin.bob, key=KEY)


def main() -> int:
    """Let one process die at each point; 0 when all of them did."""
    died = 0
    for point in POINTS:
        pid = os.fork()
        if pid == 0:
            asyncio.run(run(Path(sys.argv[1]) / point, point))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        died += os.waitstatus_to_exitcode(status) == DEAD
    return int(died != len(POINTS))


if __name__ == "__main__":
    sys.exit(main())
