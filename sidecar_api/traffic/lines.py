"""What is replayed, read line by line: requests of `/diagnose`, or the rows of a session log. Strict; keeps nothing.

A line that is none of them is handed on with its number and the reason, so that every line is accounted for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from sidecar_api.decode import MAX_DIAGNOSE, check_names, decode_diagnose
from sidecar_api.schemas import DiagnoseRequest
from tcd.calibration.rows import SessionRow, StepRow, kind_of
from tcd.calibration.traces import Sequence, load_traces
from tcd.errors import ConfigError, TcdError, ValidationFailed

#: A row per session holds all of its steps.
_LONGEST: Final = 64 * 2**20
_ROWS: Final = {kind: msgspec.json.Decoder(kind) for kind in (StepRow, SessionRow)}
_MODEL: Final = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Line:
    """One request, and the number of the line it is on; a row per session is several requests of one line."""

    number: int
    request: DiagnoseRequest

    @property
    def session(self) -> tuple[str, str, str]:
        """Whose step it is."""
        return (self.request.tenant, self.request.user, self.request.session)


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that is no request, and why."""

    number: int
    reason: str


Item = Line | Bad


@dataclass(frozen=True, slots=True)
class Naming:
    """Who the requests are said to be of.

    Attributes:
        tenant: instead of the recorded one; None = as recorded.
        suffix: appended to the names of sessions, so that they are none of the live ones.
        model_id: of recordings, which name no model.
    """

    tenant: str | None = None
    suffix: str = ""
    model_id: str = _MODEL

    def apply(self, request: DiagnoseRequest) -> DiagnoseRequest:
        """The request without what made it once: its ids would be answered from memory, its deadline is over.

        Raises:
            ValidationFailed: a name becomes too long.
        """
        session = request.session + self.suffix
        if len(session) > 128:  # noqa: PLR2004 - as the schema
            msg = "with the suffix the name of the session has more than 128 characters"
            raise ValidationFailed(msg, pointer="/session")
        return msgspec.structs.replace(
            request,
            tenant=self.tenant or request.tenant,
            session=session,
            request_id=None,
            idempotency_key=None,
            deadline_ms=None,
        )


def items_of(source: Path | BinaryIO, naming: Naming | None = None) -> Iterator[Item]:
    """The requests of a `.jsonl` file, of an open stream, or of a directory of recordings (`tcd record`).

    Only a directory of recordings is in memory as a whole.

    Raises:
        ConfigError: it cannot be read at all.
    """
    names = naming or Naming()
    if not isinstance(source, Path):
        yield from _stream(source, names)
    elif source.is_dir():
        yield from _recordings(source, names)
    else:
        try:
            with source.open("rb") as file:
                yield from _stream(file, names)
        except OSError as error:
            msg = f"{source}: {error.strerror}"
            raise ConfigError(msg) from None


def _stream(file: BinaryIO, naming: Naming) -> Iterator[Item]:
    number = 0
    while line := file.readline(_LONGEST + 1):
        number += 1
        if len(line) > _LONGEST:
            yield Bad(number, f"longer than {_LONGEST} bytes")
            while line and not line.endswith(b"\n"):
                line = file.readline(_LONGEST)
            continue
        # lazily: a row per session is many requests
        made = _requests(line)
        while True:
            try:
                request = next(made, None)
                if request is None:
                    break
                yield Line(number, naming.apply(request))
            except TcdError as error:
                pointer = getattr(error, "pointer", None)
                yield Bad(number, f"{pointer}: {error.detail}" if pointer else error.detail)
                break


def _requests(line: bytes) -> Iterator[DiagnoseRequest]:
    if not line.strip():
        msg = "an empty line"
        raise ValidationFailed(msg)
    if b'"log_prob"' not in line:
        if len(line) > MAX_DIAGNOSE:
            msg = f"longer than {MAX_DIAGNOSE} bytes"
            raise ValidationFailed(msg)
        yield decode_diagnose(line)[0]
        return
    try:
        kind = kind_of(line)
        row = _ROWS[kind].decode(line) if kind in _ROWS else decode_diagnose(line)[0]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationFailed(str(error)) from None
    if isinstance(row, SessionRow):
        yield from _steps(row)
    elif isinstance(row, StepRow):
        signals = {name: getattr(row, name) for name in ("entropy", "spectrum", "features")}
        yield _request(row, row.step, row.log_prob, signals)
    elif isinstance(row, DiagnoseRequest):
        yield row


def _steps(row: SessionRow) -> Iterator[DiagnoseRequest]:
    columns = {name: getattr(row, name) for name in ("entropy", "spectrum", "features")}
    for name, values in columns.items():
        if values is not None and len(values) != len(row.log_prob):
            msg = f"{len(values)} entries of {name}, {len(row.log_prob)} of log_prob"
            raise ValidationFailed(msg)
    for step, log_prob in enumerate(row.log_prob):
        yield _request(row, step, log_prob, {n: v[step] if v is not None else None for n, v in columns.items()})


def _request(row: StepRow | SessionRow, step: int | None, log_prob: float, signals: dict[str, Any]) -> DiagnoseRequest:
    made = DiagnoseRequest(
        trace_vector=[log_prob],
        entropy=signals["entropy"],
        spectrum=signals["spectrum"] or [],
        features=signals["features"] or [],
        step_id=step,
        model_id=row.model_id,
        gpu_id=row.gpu_id,
        task=row.task,
        lang=row.lang,
        session=row.session,
        context={} if row.temperature is None else {"temperature": row.temperature},
        tokens_delta=1,
    )
    check_names(made)
    return made


def _recordings(folder: Path, naming: Naming) -> Iterator[Item]:
    sequences = load_traces(folder).sequences
    yield from (Line(i + 1, naming.apply(r)) for i, r in enumerate(requests_of(sequences, model_id=naming.model_id)))


def requests_of(sequences: Iterable[Sequence], *, model_id: str) -> Iterator[DiagnoseRequest]:
    """Sequences as their requests, one generation after the other; `model_id` is of those that name no key."""
    for number, sequence in enumerate(sequences):
        key = sequence.key
        for step in range(sequence.steps):
            yield DiagnoseRequest(
                trace_vector=[float(sequence.trace[step])],
                entropy=float(sequence.entropy[step]) if sequence.entropy.size else None,
                spectrum=sequence.spectrum[step].tolist(),
                features=sequence.features[step].tolist(),
                step_id=step,
                model_id=model_id if key is None else key.model_id,
                task="chat" if key is None else key.task,
                lang="en" if key is None else key.lang,
                session=sequence.session or f"{sequence.kind}-{number}",
                tokens_delta=1,
            )
