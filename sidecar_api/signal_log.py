"""The signal log: whole generations as rows of a session log, for fitting calibrations and for replays.

Receipts hold commitments to signals, not the signals, so a calibration cannot be fitted from the ledger alone. This
keeps what it needs and no more: numbers, the key, and the keyed digest of the subject; no names, no tokens, no text.
A generation is written when it ends, whole or not at all; what is written does not depend on what was decided.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import queue
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.sessions import Session
from sidecar_api.staging import context
from tcd.contract import MAX_WINDOW, SPECTRUM_RANK, temperature_bucket
from tcd.files import SECRET
from tcd.inbox import Inbox

_LOG: Final = logging.getLogger(__name__)
_WAITING: Final = 1000
#: Files that the log is in; the oldest goes when there is another one.
PARTS: Final = 8
#: Bytes of all generations under way; another one is not begun then.
_BUFFER: Final = 128 << 20
_SIGNALS: Final = ("log_prob", "entropy", "spectrum", "features")
_BLOCK: Final = 1 << 16
PATTERN: Final = "sessions-*.jsonl"


@dataclass(slots=True)
class Recording:
    """A generation under way: FP32 values by signal, and how wide a step of each is.

    Attributes:
        why: it cannot be one row of a session log; nothing more is kept then.
    """

    temperature: float | None
    values: dict[str, array[float]] = field(default_factory=lambda: {name: array("f") for name in _SIGNALS})
    width: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    nbytes: int = 0
    why: str = ""

    def add(self, request: DiagnoseRequest) -> None:
        """Append a step."""
        width = self.width.get("spectrum", 0)
        # as the detector does: a step without a spectrum has the last one
        spectrum = request.spectrum or (self.values["spectrum"][-width:].tolist() if width else [])
        step: dict[str, list[float]] = {
            "log_prob": request.trace_vector,
            "entropy": [] if request.entropy is None else [request.entropy],
            "spectrum": spectrum,
            "features": request.features,
        }
        widths = {name: len(values) for name, values in step.items()}
        if self.steps and widths != self.width:
            self.why = "signals come and go"
        elif 0 < widths["spectrum"] < SPECTRUM_RANK:
            self.why = "a short spectrum"
        elif temperature_bucket(context(request, "temperature")) != temperature_bucket(self.temperature):
            self.why = "its temperature changes"
        else:
            self.width = widths
            self.steps += 1
            if self.steps <= MAX_WINDOW:
                for name, values in step.items():
                    self.values[name].extend(values)
                self.nbytes += 4 * sum(widths.values())

    def row(self, name: str, names: tuple[str, str, str, str]) -> dict[str, Any]:
        """A row of a session log."""
        n = min(self.steps, MAX_WINDOW)
        model, gpu, task, lang = names
        made: dict[str, Any] = {"session": name, "model_id": model, "gpu_id": gpu, "task": task, "lang": lang}
        made["complete"] = True
        if self.temperature is not None:
            made["temperature"] = self.temperature
        for signal, values in self.values.items():
            width = self.width[signal]
            if not width:
                continue
            flat = [float(f"{v:.9g}") for v in values.tolist()]
            one = signal in {"log_prob", "entropy"}
            made[signal] = flat if one else [flat[i * width : (i + 1) * width] for i in range(n)]
        return made


class SignalLog:
    """Keeps generations under way and appends those that ended, from its own thread."""

    def __init__(self, folder: Path, *, most: int, share: float, boot: int) -> None:
        """Write into `folder`, at most `most` bytes, `share` of the sessions; `boot` tells processes apart."""
        self._folder, self._most, self._share, self._boot = folder, most, share, boot
        self._inbox: Inbox[Callable[[], dict[str, Any]]] = Inbox("tcd-signals", self._run, limit=_WAITING)
        self._bytes = 0
        self._number = 0
        #: How many generations were written, or why they were not.
        self.counts: Counter[str] = Counter()

    # -- from the event loop -------------------------------------------------------------------------------

    def covers(self, digest: str) -> bool:
        """Whether a subject's generations are kept: a fixed share of the subjects."""
        draw = hashlib.sha256(f"signals:{digest}".encode()).digest()
        return int.from_bytes(draw[:8], "big") < self._share * 2**64

    def step(self, session: Session, request: DiagnoseRequest) -> None:
        """Take a step that was settled; `session` has not counted it yet."""
        made = session.recorded
        if made is None:
            if session.steps or session.notes or not self.covers(session.digest):
                return
            if self._bytes > _BUFFER:
                self.counts["no room"] += 1
                return
            made = session.recorded = Recording(context(request, "temperature"))
        if made.why:
            return
        before = made.nbytes
        if request.window != "step" or len(request.trace_vector) != 1:
            made.why = "not one token per step"
        else:
            made.add(request)
        if made.why:
            made.values = {}
            made.nbytes = 0
        self._bytes += made.nbytes - before

    def ended(self, session: Session, *, whole: bool) -> None:
        """A generation ended; it is kept when it is `whole`."""
        made, session.recorded = session.recorded, None
        if made is None:
            return
        self._bytes -= made.nbytes
        why = made.why or ("" if whole else "cut off")
        if why:
            self.counts[why] += 1
            return
        self._number += 1
        name = f"{session.digest[7:39]}.{self._boot + self._number}"
        try:
            self._inbox.put(partial(made.row, name, session.names))
        except queue.Full:
            self.counts["the disk is behind"] += 1

    # -- its thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write."""
        self._inbox.start()

    def stop(self, *, timeout: float = 10.0) -> None:
        """Write what waits and end."""
        self._inbox.stop(timeout=timeout)

    def _run(self) -> None:
        for row in self._inbox:
            self._write(json.dumps(row(), separators=(",", ":")).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            self._append(line)
            self.counts["written"] += 1
        except OSError as error:
            self.counts["the disk refuses"] += 1
            _LOG.error("the signal log %s cannot be written: %s", self._folder, error.strerror)

    def _append(self, line: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = parts(self._folder)
        newest = files[-1] if files else self._folder / _name(1)
        if files and newest.stat().st_size + len(line) > self._most // PARTS:
            newest = self._folder / _name(int(newest.stem.partition("-")[2]) + 1)
            files.append(newest)
        for old in files[: max(len(files) - PARTS, 0)]:
            old.unlink(missing_ok=True)
        descriptor = os.open(newest, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, SECRET)
        try:
            size = _trimmed(descriptor)
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def parts(folder: Path) -> list[Path]:
    """Files of a signal log, oldest first."""
    return sorted(folder.glob(PATTERN))


def _name(number: int) -> str:
    return f"sessions-{number:08d}.jsonl"


def _trimmed(descriptor: int) -> int:
    """Cut off what a crash left of a line; the size then."""
    size = os.fstat(descriptor).st_size
    end = size
    while end and os.pread(descriptor, 1, end - 1) != b"\n":
        block = os.pread(descriptor, min(end, _BLOCK), end - min(end, _BLOCK))
        end = end - len(block) + block.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(descriptor, end)
    return end
