"""Session logs: the same sequences from every form of a row, and a named refusal of everything that is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidecar_api.schemas import DiagnoseRequest
from tcd.calibration.log import load
from tcd.calibration.rows import RequestRow
from tcd.calibration.sessions import HORIZON, Limits
from tcd.calibration.traces import Key, Sequence, replay
from tcd.contract import Length, Signal
from tcd.errors import AssetError

Rows = list[dict[str, Any]]
SIGNALS = ("trace", "entropy", "spectrum", "features")


def session_rows(count: int = 3, steps: int = 20, *, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    out: Rows = []
    for i in range(count):
        out.append(
            {
                "session": f"s{i}",
                "group": f"p{i // 2}",
                "model_id": "m",
                "task": "code",
                "temperature": 0.9,
                "log_prob": (-rng.exponential(size=steps)).tolist(),
                "entropy": rng.exponential(size=steps).tolist(),
                "spectrum": rng.exponential(size=(steps, 16)).tolist(),
                "features": rng.normal(size=(steps, 4)).tolist(),
            }
        )
    return out


def step_rows(rows: Rows, *, interleaved: bool = False) -> Rows:
    """The same sessions step by step."""
    names = ("log_prob", "entropy", "spectrum", "features")
    out = [
        {k: v for k, v in row.items() if k not in names} | {"step": t} | {name: row[name][t] for name in names}
        for row in rows
        for t in range(len(row["log_prob"]))
    ]
    return sorted(out, key=lambda row: int(row["step"])) if interleaved else out


def request_rows(rows: Rows) -> Rows:
    """The same sessions as the requests of `/diagnose` that a client would have sent."""
    return [
        {
            "session": row["session"],
            "model_id": row["model_id"],
            "task": row["task"],
            "context": {"temperature": row["temperature"]},
            "step_id": row["step"],
            "trace_vector": [row["log_prob"]],
            "entropy": row["entropy"],
            "spectrum": row["spectrum"],
            "features": row["features"],
            "request_id": f"{row['session']}-{row['step']}",
        }
        for row in step_rows(rows)
    ]


def jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def same(one: Sequence, other: Sequence) -> None:
    for name in SIGNALS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.kind, one.healthy, one.onset, one.complete) == (other.kind, other.healthy, other.onset, other.complete)
    assert one.key == other.key


@pytest.mark.parametrize("form", ["steps", "interleaved", "parquet", "parquet-steps", "requests", "shards"])
def test_every_form_of_a_log_gives_the_same_sequences(tmp_path: Path, form: str) -> None:
    rows = session_rows()
    expected = load(jsonl(tmp_path / "whole.jsonl", rows)).sequences
    assert [s.prompt_id for s in expected] == ["p0", "p0", "p1"]
    assert expected[0].key == Key("m", "gpu0", "code", "en", "1.00")
    assert expected[0].trace.tolist() == np.float32(rows[0]["log_prob"]).tolist()
    assert expected[0].features.shape == (20, 4)
    if form == "shards":
        folder = tmp_path / "shards"
        folder.mkdir()
        jsonl(folder / "b.jsonl", step_rows(rows)[30:])
        parquet(folder / "a.parquet", step_rows(rows)[:30])
        found = load(folder)
    else:
        found = load(
            {
                "steps": lambda: jsonl(tmp_path / "a.jsonl", step_rows(rows)),
                "interleaved": lambda: jsonl(tmp_path / "a.jsonl", step_rows(rows, interleaved=True)),
                "parquet": lambda: parquet(tmp_path / "a.parquet", rows),
                "parquet-steps": lambda: parquet(tmp_path / "a.parquet", step_rows(rows)),
                "requests": lambda: jsonl(tmp_path / "a.jsonl", request_rows(rows)),
            }[form]()
        )
    assert len(found.sequences) == 3
    for one, other in zip(expected, found.sequences, strict=True):
        same(one, other)
    assert found.source.split()[0] in {"a.jsonl", "a.parquet", "shards"}
    assert "sha256:" in found.source


def test_the_members_of_a_request_row_are_those_of_diagnose() -> None:
    assert set(RequestRow.__struct_fields__) == set(DiagnoseRequest.__struct_fields__)
    by_name = {field.name: field.default for field in msgspec.structs.fields(DiagnoseRequest)}
    mine = {field.name: field.default for field in msgspec.structs.fields(RequestRow)}
    for name in ("model_id", "gpu_id", "task", "lang", "tenant", "user", "session", "window"):
        assert mine[name] == by_name[name]


def test_requests_are_read_as_the_shim_reads_them(tmp_path: Path) -> None:
    """A retry counts once, step 0 begins another generation, a spectrum that is left out is the last one."""
    rows = request_rows(session_rows(1, 20))
    second = [{**row, "trace_vector": [row["trace_vector"][0] / 2]} for row in rows]
    second[3].pop("spectrum")
    log = [*rows[:5], rows[4], *rows[5:], *second]
    one, other = load(jsonl(tmp_path / "a.jsonl", log)).sequences
    assert (one.session, other.session) == ("tenant0/user0/s0#0", "tenant0/user0/s0#1")
    assert (one.steps, other.steps) == (20, 20)
    assert other.spectrum[3].tolist() == other.spectrum[2].tolist()
    assert other.trace.tolist() == (one.trace / 2).tolist()


def test_signals_that_were_not_logged_are_absent_as_a_caller_would_send_them(tmp_path: Path) -> None:
    rows = session_rows(2)
    for row in rows:
        for name in ("entropy", "spectrum", "features"):
            del row[name]
    sequence = load(jsonl(tmp_path / "a.jsonl", rows)).sequences[0]
    assert sequence.signals == Signal.TRACE
    out = replay(sequence, 3, 6)
    assert out["LENGTHS"][:, Length.TRACE].tolist() == [4, 5, 6]
    assert not out["LENGTHS"][:, Length.ENTROPY :].any()
    assert [out[name].shape[1] for name in ("ENTROPY", "SPECTRUM", "FEATURES")] == [0, 0, 0]


def test_labels_of_sessions_and_of_steps(tmp_path: Path) -> None:
    rows = session_rows(4)
    rows[0] |= {"label": "loop", "onset": 7}
    rows[1] |= {"label": "control"}
    rows[2] |= {"temperature": 0.0}
    rows[3] |= {"complete": False}
    loop, control, greedy, cut = load(jsonl(tmp_path / "a.jsonl", rows)).sequences
    assert (loop.kind, loop.healthy, loop.onset, loop.complete) == ("loop", 7, 7, False)
    assert (control.kind, control.healthy, control.complete) == ("control", 0, False)
    assert (greedy.kind, greedy.healthy, greedy.complete) == ("greedy", 20, True)
    assert (cut.kind, cut.healthy, cut.complete) == ("healthy", 20, False)
    steps = step_rows(session_rows(1))
    for row in steps[7:]:
        row["label"] = "loop"
    same(load(jsonl(tmp_path / "b.jsonl", [{**row, "session": "x"} for row in steps])).sequences[0], loop)


def test_steps_after_the_horizon_are_not_used(tmp_path: Path) -> None:
    row = {"session": "s", "model_id": "m", "log_prob": [-0.5 - i / 10_000 for i in range(HORIZON + 9)]}
    sequence = load(jsonl(tmp_path / "a.jsonl", [row])).sequences[0]
    assert (sequence.steps, sequence.healthy) == (HORIZON, HORIZON)


def change(**members: Any) -> Callable[[Rows], Rows]:
    def spoil(rows: Rows) -> Rows:
        rows[1] |= members
        return rows

    return spoil


def without(name: str) -> Callable[[Rows], Rows]:
    def spoil(rows: Rows) -> Rows:
        del rows[1][name]
        return rows

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _: [], "no sessions"),
        (lambda rows: [*rows, rows[0]], "line 4: session 's0' is there twice"),
        (lambda rows: [*rows, {**rows[0], "session": "copy"}], "'s0' and 'copy' are the same"),
        (change(entropi=[1.0]), "line 2: Object contains unknown field `entropi`"),
        (without("session"), "line 2: Object missing required field `session`"),
        (without("model_id"), "line 2: Object missing required field `model_id`"),
        (change(session="a\x00b"), r"line 2: .*\$\.session"),
        (change(log_prob=[-1.0] * 19), "entropy, 19 of log_prob"),
        (change(log_prob=[]), r"length >= 1 - at `\$\.log_prob`"),
        (change(log_prob=[0.5] * 20), r"<= 0.001 - at `\$\.log_prob"),
        (change(log_prob=["-1"] * 20), r"Expected `float`, got `str` - at `\$\.log_prob"),
        (change(entropy=[-1.0] * 20), r">= 0.0 - at `\$\.entropy"),
        (change(entropy=[math.nan] * 20), "line 2: a NaN or infinity"),
        (change(entropy=[math.inf] * 20), "line 2: a NaN or infinity"),
        (change(entropy=[1e39] * 20), r"line 2: Expected `float` <= .* - at `\$\.entropy"),
        (change(spectrum=[[1.0] * 3] * 20), r"length >= 16 - at `\$\.spectrum"),
        (change(features=[[1.0] * 3001] * 20), r"length <= 2048 - at `\$\.features"),
        (change(features=[[1.0] * 4] * 19 + [[1.0] * 5]), "features has 5 values at step 19 and had 4 before"),
        (change(temperature=-1), r">= 0.* - at `\$\.temperature"),
        (change(weight=0), r"> 0.* - at `\$\.weight"),
        (change(label="odd"), r"Invalid enum value 'odd' - at `\$\.label"),
        (change(label="loop"), "'loop' needs an onset inside its 20 steps"),
        (change(label="loop", onset=20), "'loop' needs an onset inside its 20 steps"),
        (change(onset=3), "an onset, but the label is 'healthy'"),
        (change(label="control", complete=True), "a control cannot be"),
    ],
)
def test_a_bad_log_of_sessions_is_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[Rows], Rows], reason: str
) -> None:
    with pytest.raises(AssetError, match=reason):
        load(jsonl(tmp_path / "a.jsonl", spoil(session_rows())))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rows: [*rows[:5], *rows[6:]], "line 6: session 's0': step 6 where step 5 is next"),
        (lambda rows: [*rows[:5], rows[4], *rows[5:]], "step 4 where step 5 is next"),
        (change(model_id="other"), "line 2: session 's0': its group, key, temperature or weight changes"),
        (change(temperature=0.1), "key, temperature or weight changes"),
        (without("entropy"), "entropy has 0 values at step 1 and had 1 before"),
        (lambda rows: [*rows, session_rows()[0]], r"line 61: .*\$\.log_prob"),
    ],
)
def test_a_bad_log_of_steps_is_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[Rows], Rows], reason: str
) -> None:
    with pytest.raises(AssetError, match=reason):
        load(jsonl(tmp_path / "a.jsonl", spoil(step_rows(session_rows()))))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change(window="full"), r"\$\.window"),
        (change(trace_vector=[-1.0, -1.0]), r"length <= 1 - at `\$\.trace_vector"),
        (change(step_id=5), "step 5 follows step 0"),
        (lambda rows: rows[3:], "begins with step 3"),
        (lambda rows: [*rows[:2], {**rows[1], "entropy": 9.0}, *rows[2:]], "step 1 follows step 1"),
        (change(extra=1), "unknown field `extra`"),
    ],
)
def test_a_bad_log_of_requests_is_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[Rows], Rows], reason: str
) -> None:
    with pytest.raises(AssetError, match=reason):
        load(jsonl(tmp_path / "a.jsonl", spoil(request_rows(session_rows(1)))))


def test_a_cut_or_corrupt_file_is_refused(tmp_path: Path) -> None:
    whole = jsonl(tmp_path / "a.jsonl", session_rows()).read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[:-40])
    with pytest.raises(AssetError, match=r"cut.jsonl line 3: no JSON object, or a cut one"):
        load(tmp_path / "cut.jsonl")
    (tmp_path / "list.jsonl").write_bytes(b"[1]\n")
    with pytest.raises(AssetError, match="Expected `object`"):
        load(tmp_path / "list.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(bytes(range(256)))
    with pytest.raises(AssetError, match="line 1"):
        load(tmp_path / "bytes.jsonl")
    table = parquet(tmp_path / "a.parquet", session_rows()).read_bytes()
    for name, data in {"cut": table[: len(table) // 2], "none": b"", "noise": b"PAR1" + bytes(100) + b"PAR1"}.items():
        (tmp_path / f"{name}.parquet").write_bytes(data)
        with pytest.raises(AssetError, match=f"{name}.parquet: cannot be read"):
            load(tmp_path / f"{name}.parquet")
    flipped = bytearray(table)
    flipped[60:90] = bytes(30)
    (tmp_path / "flipped.parquet").write_bytes(flipped)
    with pytest.raises(AssetError):
        load(tmp_path / "flipped.parquet")
    for path in (tmp_path / "missing.jsonl", tmp_path / "a.csv"):
        with pytest.raises(AssetError, match=path.name):
            load(path)


def test_a_file_that_ends_the_reader_is_refused(tmp_path: Path) -> None:
    """One changed byte of the footer: pyarrow 23 throws in C++ where nothing catches, and the process is gone."""
    hostile = Path(__file__).parents[2] / "assets" / "calibration" / "reader_abort.parquet"
    jsonl(tmp_path / "a.jsonl", session_rows())
    (tmp_path / "b.parquet").write_bytes(hostile.read_bytes())
    with pytest.raises(AssetError, match=r"b\.parquet: cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("form", ["sessions", "steps", "requests"])
def test_any_damage_to_a_log_is_refused_or_read(tmp_path: Path, form: str) -> None:
    """N = 300 logs with 1 to 20 bytes changed, cut out or put in: nothing but an AssetError comes out."""
    rows = {"sessions": session_rows, "steps": lambda: step_rows(session_rows())}
    whole = jsonl(tmp_path / "a.jsonl", rows.get(form, lambda: request_rows(session_rows()))()).read_bytes()
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 21))):
            at = int(rng.integers(len(data)))
            data[at : at + int(rng.integers(3))] = rng.bytes(int(rng.integers(3)))
        (tmp_path / "b.jsonl").write_bytes(data)
        try:
            load(tmp_path / "b.jsonl")
        except AssetError:
            refused += 1
    assert refused > 150


def test_parquet_columns_that_are_not_known_or_not_there_are_refused(tmp_path: Path) -> None:
    rows = session_rows()
    with pytest.raises(AssetError, match="unknown columns: loss, step_time"):
        load(parquet(tmp_path / "a.parquet", [{**row, "loss": 1.0, "step_time": 2} for row in rows]))
    with pytest.raises(AssetError, match="no column log_prob"):
        load(parquet(tmp_path / "b.parquet", [{"session": "s"}]))
    with pytest.raises(AssetError, match="row 1: a NaN or infinity"):
        load(parquet(tmp_path / "c.parquet", [rows[0] | {"entropy": [math.nan] * 20}]))
    with pytest.raises(AssetError, match=r"row 1: .*\$\.session"):
        load(parquet(tmp_path / "d.parquet", [rows[0] | {"session": 5}]))


def test_absurd_sizes_are_refused_before_they_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "a.jsonl", session_rows())
    with pytest.raises(AssetError, match="more than 100 values"):
        load(path, limits=Limits(values=100))
    with pytest.raises(AssetError, match="or 2 sessions"):
        load(path, limits=Limits(sessions=2))
    monkeypatch.setattr("tcd.calibration.log._MAX_LINE", 500)
    with pytest.raises(AssetError, match="line 1: longer than 500 bytes"):
        load(path)
    # ten million equal values in a file of a few kilobytes
    lists = pa.ListArray.from_arrays(pa.array([0, 10**7], pa.int32()), pa.array(np.zeros(10**7)))
    table = pa.table({"session": ["s"], "model_id": ["m"], "log_prob": lists})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 50_000
    with pytest.raises(AssetError, match=r"bomb.parquet: cannot be read: 1000000\d values"):
        load(tmp_path / "bomb.parquet", limits=Limits(values=1_000_000))
