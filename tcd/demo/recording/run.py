"""Records a plan part by part into a directory that `tcd calibrate` and `tcd bench detector` read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd import __version__
from tcd.demo.labels import soft_loop, verbatim_loop
from tcd.demo.recording.columns import Columns
from tcd.demo.recording.plan import TOP_P, Job, Part
from tcd.errors import TcdError
from tcd.files import write_whole, writing

#: Columns of the sequences of a part, and how many tokens of each were forced.
Maker = Callable[[Part], tuple[list[Columns], list[int]]]
ARRAYS: Final = "traces.npz"
INDEX: Final = "index.parquet"


class RecordError(TcdError):
    """A directory cannot be recorded into."""

    code = "record"


def _row(job: Job, columns: Columns, forced: int, model: str) -> dict[str, Any]:
    """The sequence's row of the index; labels come from the text alone."""
    tokens: list[int] = columns["tok"].tolist()
    verbatim, soft = verbatim_loop(tokens), soft_loop(tokens)
    ended = bool(columns["sampled_eos"][-1])
    return {
        "split": "fresh",
        "model": model,
        "regime": job.regime,
        "corruption": job.corruption,
        "task": job.task,
        "lang": job.forced[0] if job.forced else "en",
        "T0": job.before,
        "T1": job.after,
        "top_p": TOP_P,
        "cp": job.change if job.change < len(tokens) else -1,
        "n": len(tokens),
        "eos": len(tokens) - 1 if ended else -1,
        "loop_onset": verbatim.onset if verbatim else -1,
        "loop_confirm": verbatim.confirmed if verbatim else -1,
        "loop_period": verbatim.period if verbatim else -1,
        "soft_onset": soft.onset if soft else -1,
        "soft_confirm": soft.confirmed if soft else -1,
        "n_forced": forced,
        "parent": "",
        "parent_i": -1,
        "prompt": job.prompt,
        "prompt_id": job.prompt_id,
        "file": ARRAYS,
    }


def record(
    make: Maker,
    plan: list[Part],
    out: Path,
    *,
    name: str,
    settings: dict[str, Any],
    origin: str,
    tell: Callable[[str], None] = lambda _: None,
    most: int | None = None,
) -> bool:
    """Record the parts that `out` does not have yet, then put the directory together.

    Args:
        make: makes a part, such as `record_part` of a decoder.
        plan: from `make_plan`.
        out: directory; a part that was written before is kept, an unfinished one is recorded anew.
        name: of the model, for the index.
        settings: what determines the recording; a directory of other settings is refused.
        origin: where the texts come from, a sentence for the page beside them.
        tell: hears about progress.
        most: parts to record now, None for all.

    Returns:
        Whether the recording is complete.

    Raises:
        RecordError: if `out` holds a recording made with other settings.
    """
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, indent=1, sort_keys=True)
    stamp = parts / "settings.json"
    if stamp.exists() and stamp.read_text() != text:
        msg = f"{out.name} holds a recording made with other settings; choose another directory"
        raise RecordError(msg)
    write_whole(stamp, text.encode())
    missing = [part for part in plan if not (parts / f"{part.name}.json").exists()]
    for part in missing[:most]:
        began = time.perf_counter()
        columns, forced = make(part)
        rows = [_row(job, c, f, name) for job, c, f in zip(part.jobs, columns, forced, strict=True)]
        with writing(parts / f"{part.name}.npz") as file:
            np.savez_compressed(file, **{k: np.concatenate([c[k] for c in columns]) for k in columns[0]})
        write_whole(parts / f"{part.name}.json", json.dumps(rows).encode())
        tokens, seconds = sum(row["n"] for row in rows), time.perf_counter() - began
        tell(f"{part.name}: {len(rows)} sequences, {tokens} tokens, {tokens / seconds:.0f} tokens/s")
    if most is not None and len(missing) > most:
        return False
    _assemble(plan, out, settings, origin)
    return True


def _assemble(plan: list[Part], out: Path, settings: dict[str, Any], origin: str) -> None:
    """Write the arrays, the index and the page that says where they come from."""
    import pyarrow as pa  # noqa: PLC0415 - of the extra `calibrate`
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    pieces: dict[str, list[NDArray[Any]]] = {}
    for part in plan:
        rows.extend(json.loads((out / "parts" / f"{part.name}.json").read_bytes()))
        with np.load(out / "parts" / f"{part.name}.npz", allow_pickle=False) as archive:
            for column in archive:
                pieces.setdefault(column, []).append(archive[column])
    offsets = np.cumsum([0, *(row["n"] for row in rows)]).astype(np.int64)
    with writing(out / ARRAYS) as file:
        np.savez_compressed(file, **{k: np.concatenate(v) for k, v in pieces.items()}, offsets=offsets)
    table = pa.Table.from_pylist([row | {"idx": i} for i, row in enumerate(rows)])
    with writing(out / INDEX) as file:
        pq.write_table(table, file)
    write_whole(out / "README.md", _readme(rows, settings, origin).encode())


def _readme(rows: list[dict[str, Any]], settings: dict[str, Any], origin: str) -> str:
    counts = {
        regime: sum(row["regime"] == regime for row in rows) for regime in dict.fromkeys(r["regime"] for r in rows)
    }
    lines = "\n".join(f"* {regime}: {count} sequences" for regime, count in counts.items())
    return f"""# Recorded generations
Made by tcd {__version__}. {len(rows)} sequences, {sum(row["n"] for row in rows)} tokens, of
{len({row["prompt_id"] for row in rows})} prompts. {origin}

{lines}

`{ARRAYS}`: flat arrays over all steps and `offsets`; `{INDEX}`: one row per sequence. docs/benchmarks.md explains
the columns. Settings, which give the same recording again on the same kind of machine:

```json
{json.dumps(settings, indent=1, sort_keys=True)}
```
"""
