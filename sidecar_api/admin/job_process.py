"""The process of one job: reads what to do from its standard input, says how far it is, and ends when that closes.

It ends with the shim in two ways: a thread sees that the input has closed, and the kernel kills it where that thread
does not get its turn. Its private memory has a bound, so that it fails and not the dataplane on the same machine.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
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
#: Of prctl(2): the signal that comes when the thread that made this process ends.
_PDEATHSIG: Final = 1
#: Let go when the memory is used up, so that there is enough to say so.
_RESERVE: Final = 1 << 20


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
    _bound(order)
    reserve: bytearray | None = bytearray(_RESERVE)
    threading.Thread(target=_until_alone, daemon=True).start()
    run = Run(Path(order["folder"]), out)
    try:
        result = _call(order["entry"], run, order["arguments"])
        run.say(result=result)
    except MemoryError:
        del reserve
        traceback.print_exc()
        run.say(error=f"it needs more than {order['memory'] >> 20} MiB of memory (TCD_ADMIN_JOB_MEMORY_MIB)")
        return 1
    except TcdError as error:
        run.say(error=error.detail[:1000])
        return 1
    except Exception as error:  # noqa: BLE001 - the boundary: a defect is in the log, its name is what the shim shows
        traceback.print_exc()
        run.say(error=f"{type(error).__name__}; details are in the job's process.log")
        return 1
    return 0


def _bound(order: Mapping[str, Any]) -> None:
    """Take no more than was allowed, leave no copy of memory behind, and do not outlive the shim."""
    for what, most in (("FSIZE", order["most_bytes"]), ("DATA", order["memory"]), ("CORE", 0)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != order["parent"]:
        # it had gone before that
        os._exit(1)


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
