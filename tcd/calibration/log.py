"""Session logs: JSONL and Parquet files read row by row into sequences. Strict and bounded; the I/O of `sessions`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tcd.calibration.probe import probe
from tcd.calibration.rows import AnyRow, SessionRow, StepRow, kind_of
from tcd.calibration.sessions import Collector, Limits
from tcd.calibration.traces import Traces, load_traces
from tcd.errors import AssetError

SUFFIXES: Final = (".jsonl", ".parquet")
#: A line of a log, a whole session at most.
_MAX_LINE: Final = 64 * 2**20
_MAX_FILES: Final = 4096
_BATCH: Final = 64


def load(path: Path, *, limits: Limits | None = None) -> Traces:
    """Sequences of a log, of a directory of logs, or of a directory of recordings (`tcd.calibration.traces`).

    Raises:
        AssetError: it is none of them, or what it holds would spoil a calibration.
    """
    if path.is_dir():
        if (path / "index.parquet").exists() or not _logs(path):
            return load_traces(path)
        return load_log(_logs(path), name=path.name, limits=limits)
    return load_log([path], name=path.name, limits=limits)


def load_log(
    paths: list[Path], *, name: str, limits: Limits | None = None, collector: Collector | None = None
) -> Traces:
    """Sequences of log files, read in the order given; steps of one session may be in several.

    A log that is over its `limits` is refused, unless a `collector` of its own takes the rows (`sampling.Sample`).

    Raises:
        AssetError: with the file and the line or row.
    """
    if len(paths) > _MAX_FILES:
        msg = f"{name}: more than {_MAX_FILES} files"
        raise AssetError(msg)
    bounds = limits or Limits()
    tables = [path for path in paths if path.suffix == ".parquet"]
    if tables:
        probe(tables, values=2 * bounds.values)
    collector = collector or Collector(bounds)
    digests = [_read(path, collector) for path in paths]
    try:
        sequences = collector.sequences()
    except AssetError as error:
        msg = f"{name}: {error.detail}"
        raise AssetError(msg) from None
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return Traces(sequences, f"{name} sha256:{digest}")


def _read(path: Path, collector: Collector) -> str:
    """Take a file's rows; returns its digest in hex."""
    try:
        digest = _digest(path)
        for place, row in _rows(path):
            _take(collector, row, f"{path.name} {place}")
    except (OSError, ValueError, pa.ArrowException) as error:
        msg = f"{path.name}: cannot be read: {type(error).__name__}: {error}"
        raise AssetError(msg) from error
    return digest


def _logs(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _take(collector: Collector, row: AnyRow, place: str) -> None:
    try:
        collector.add(row)
    except AssetError as error:
        msg = f"{place}: {error.detail}"
        raise AssetError(msg) from None


def _rows(path: Path) -> Iterator[tuple[str, AnyRow]]:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return _jsonl(path)
    msg = f"{path.name}: neither .jsonl nor .parquet"
    raise AssetError(msg)


def _jsonl(path: Path) -> Iterator[tuple[str, AnyRow]]:
    """Rows of a file whose rows are all of the kind of the first."""
    decoder: msgspec.json.Decoder[AnyRow] | None = None
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE + 1):
            number += 1
            if len(line) > _MAX_LINE:
                msg = f"{path.name} line {number}: longer than {_MAX_LINE} bytes"
                raise AssetError(msg)
            try:
                if decoder is None:
                    decoder = msgspec.json.Decoder(kind_of(line))
                yield f"line {number}", decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                msg = f"{path.name} line {number}: {_reason(line, error)}"
                raise AssetError(msg) from None


def _reason(line: bytes, error: msgspec.DecodeError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    if any(word in line for word in (b"NaN", b"Infinity", b"nan")):
        return "a NaN or infinity, which JSON has no number for"
    return f"no JSON object, or a cut one ({error})"


def _parquet(path: Path) -> Iterator[tuple[str, AnyRow]]:
    with pq.ParquetFile(path) as file:
        kind = _parquet_kind(path.name, file.schema_arrow)
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH):
            for record in batch.to_pylist():
                number += 1
                known: dict[str, Any] = {name: value for name, value in record.items() if value is not None}
                try:
                    yield f"row {number}", msgspec.convert(known, kind)
                except msgspec.ValidationError as error:
                    msg = f"{path.name} row {number}: {_not_finite(known) or error}"
                    raise AssetError(msg) from None


def _not_finite(record: dict[str, Any]) -> str:
    """Says that a record has a NaN or infinity; empty where it has none."""
    try:
        json.dumps(record, allow_nan=False, default=str)
    except ValueError:
        return "a NaN or infinity"
    return ""


def _parquet_kind(name: str, schema: pa.Schema) -> type[StepRow | SessionRow]:
    """Which rows a file has, by the type of `log_prob`."""
    if "log_prob" not in schema.names:
        msg = f"{name}: no column log_prob"
        raise AssetError(msg)
    kind = SessionRow if pa.types.is_nested(schema.field("log_prob").type) else StepRow
    unknown = sorted(set(schema.names) - set(kind.__struct_fields__))
    if unknown:
        msg = f"{name}: unknown columns: {', '.join(unknown[:8])}"
        raise AssetError(msg)
    return kind
