"""The process of one job: reads what to do from its standard input, says how far it is, and ends when that closes."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from tcd.errors import TcdError

#: Progress is said at most so often, in seconds.
_EVERY: Final = 0.2
_NICE: Final = 10


@dataclass(slots=True)
class Run:
    """What a job's function gets.

    Attributes:
        folder: files that it writes here are the job's; names as `report.html`.
    """

    folder: Path
    _out: IO[str]
    _said: float = field(default=0.0)

    def progress(self, done: int, total: int = 0, note: str = "") -> None:
        """Say how far it is; cheap, so it may be called often."""
        now = time.monotonic()
        if now - self._said >= _EVERY:
            self._said = now
            self.say(done=done, total=total, note=note[:200])

    def say(self, **members: Any) -> None:
        """Send members of the job to the shim."""
        self._out.write(json.dumps(members, allow_nan=False) + "\n")
        self._out.flush()


def main() -> int:
    """Do one job.

    Returns:
        0 when there is a result.
    """
    # what the function prints goes to the log, not among the messages
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.nice(_NICE)
    order = json.loads(sys.stdin.buffer.readline())
    most = order["most_bytes"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    threading.Thread(target=_until_alone, daemon=True).start()
    run = Run(Path(order["folder"]), out)
    try:
        result = _call(order["entry"], run, order["arguments"])
        run.say(result=result)
    except TcdError as error:
        run.say(error=error.detail[:1000])
        return 1
    except Exception as error:  # noqa: BLE001 - the boundary: a defect is in the log, its name is what the shim shows
        traceback.print_exc()
        run.say(error=f"{type(error).__name__}; details are in the job's process.log")
        return 1
    return 0


def _call(entry: str, run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    module, _, name = entry.partition(":")
    return dict(getattr(importlib.import_module(module), name)(run, arguments))


def _until_alone() -> None:
    """End the process when the shim has gone."""
    # the descriptor itself: a buffered reader's lock would be held at exit
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
