"""The receipts' report: what was asked for, what was measured, its limits, as Markdown and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tcd.bench.detector.lines import Chart, Line, document

#: What is asked, per second and core, and of hybrid signatures as a ratio.
CANONICAL: Final = 30_000
ISSUE: Final = 12_000
VERIFY: Final = 6_000
INCLUSION: Final = 50_000
RATIO: Final = 25.0
BATCH: Final = 128
#: Largest over smallest memory of a verification that still counts as constant.
FLAT: Final = 1.1
#: Records from which on a chain is longer than the window in which it is verified.
_WINDOWED: Final = 1_000


def _rate(found: Mapping[str, Any], name: str) -> int:
    return int(found["rates"]["rows"][name]["per_second"])


def _us(found: Mapping[str, Any], name: str) -> float:
    return float(found["rates"]["rows"][name]["us"])


def _inclusion(found: Mapping[str, Any]) -> str:
    return next(str(name) for name in found["rates"]["rows"] if name.startswith("inclusion, "))


def ratio(found: Mapping[str, Any], name: str) -> float:
    """How many times as fast a row is as a hybrid signature of each receipt."""
    return _us(found, "issue, hybrid") / _us(found, name)


def bound(found: Mapping[str, Any], batch: int) -> float:
    """What the ratio would be by layer if nothing but raw signing took time."""
    classic, quantum = _us(found, "raw Ed25519 sign"), _us(found, "raw ML-DSA-44 sign")
    return (classic + quantum) / (classic + (classic + quantum) / batch)


def targets(found: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What, asked, measured, held."""
    rows = [
        ("canonical encoding", "canonical: encode", CANONICAL),
        ("issue, per core", "issue, Ed25519", ISSUE),
        ("verify one receipt, per core", "verify, Ed25519", VERIFY),
        ("verify a record of a chain, per core", "verify a chain, a record of it", VERIFY),
        (f"check of inclusion in {found['tree']:,} leaves", _inclusion(found), INCLUSION),
    ]
    out = []
    for what, name, asked in rows:
        got = _rate(found, name)
        out.append((what, f">= {asked:,}/s", f"{got:,}/s", got >= asked))
    once = f"hybrid of the batch alone, batch of {BATCH}"
    got_ratio = ratio(found, once)
    what = f"hybrid signature of a batch of {BATCH} over one of each receipt"
    out.append((what, f">= {RATIO:g}", f"{got_ratio:.1f}", got_ratio >= RATIO))
    peaks = [row["peak_mb"] for row in found["memory"] if row["records"] >= _WINDOWED]
    if len(peaks) > 1:
        growth = max(peaks) / min(peaks)
        what = "memory of verifying the longest over the shortest chain"
        out.append((what, f"<= {FLAT:g}", f"{growth:.2f}", growth <= FLAT))
    return out


def _table(found: Mapping[str, Any]) -> list[str]:
    raw_sign, raw_verify = _us(found, "raw Ed25519 sign"), _us(found, "raw Ed25519 verify")
    out = ["| what | CPU us | best | per second | in raw Ed25519 |", "|---|---|---|---|---|"]
    for name, row in found["rates"]["rows"].items():
        if "batch" in name:
            continue
        signing = name.startswith("issue") or name.endswith("sign")
        base, word = (raw_sign, "signing") if signing else (raw_verify, "verify")
        beside = f"{row['us'] / base:.2f} {word}" if name.startswith(("issue", "verify", "raw")) else ""
        out.append(f"| {name} | {row['us']:.1f} | {row['best_us']:.1f} | {row['per_second']:,} | {beside} |")
    return out


def _batches(found: Mapping[str, Any]) -> list[str]:
    out = ["| batch | hybrid by layer, per second | over a hybrid signature of each | raw signing allows "]
    out[0] += "| of the batch alone, per second | over a hybrid signature of each |"
    out.append("|---|---|---|---|---|---|")
    for name in found["rates"]["rows"]:
        if not name.startswith("hybrid by layer"):
            continue
        alone = name.replace("by layer", "of the batch alone")
        label = name.removeprefix("hybrid by layer, batch of ")
        size = int(label.split(",")[0])
        out.append(
            f"| {label} | {_rate(found, name):,} | {ratio(found, name):.1f} | {bound(found, size):.1f} "
            f"| {_rate(found, alone):,} | {ratio(found, alone):.1f} |"
        )
    return out


def _log(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    out = [
        (
            "| leaves | append us | roots only: us | root us | inclusion us | its check | consistency us | its check "
            "| hashes | tiles: us a leaf | tiles: inclusion us |"
        ),
        "|---" * 11 + "|",
    ]
    for row in rows:
        tiles = row.get("tiles")
        files = f"{tiles['export_us']:.2f} | {tiles['inclusion_us']:,.0f}" if tiles else "- | -"
        out.append(
            f"| {row['size']:,} | {row['append_us']:.2f} | {row['compact_append_us']:.2f} | {row['root_us']:.1f} "
            f"| {row['inclusion_us']:.1f} | {row['check_inclusion_us']:.1f} | {row['consistency_us']:.1f} "
            f"| {row['check_consistency_us']:.1f} | {row['path']} | {files} |"
        )
    return out


def markdown(found: Mapping[str, Any], images: str = "") -> str:
    """The report; `images` is the prefix of the plots' paths, empty = none."""
    measured = found["rates"]
    how = (
        f"CPU time of one thread per call, the median of {measured['turns']} turns in which every row runs once; the "
        f"body is a decision of {measured['body_bytes']:,} bytes, with every witness segment "
        f"{measured['full_body_bytes']:,}. Compare the columns on the right: they are ratios to raw signing in the "
        "same turns. What a row takes by itself grows by its neighbours on a busy machine, which share its caches."
    )
    reading = (
        "*By layer*: each receipt has an Ed25519 signature, as the shim gives it, and each batch's subtree of the log "
        "one of Ed25519 and one of ML-DSA-44. *Of the batch alone* leaves out the receipts' own: bodies are written, "
        "checked, hashed and linked, and the subtree is signed with both; it serves verifiers whose policy takes "
        "inclusion in the log for a signature. That is the comparison of the design's table, and the target's. A "
        "signature of its own for each receipt bounds what any implementation can reach by layer: the fourth column "
        "is what is left when everything but raw signing is free. *Anywhere* is a batch that begins at leaf 5: two "
        "subtrees are signed instead of one. The shim signs checkpoints rather than subtrees, one of each algorithm "
        "for all leaves since the last one, so its batches are as large as its checkpoints are apart."
    )
    lines = [
        "# Receipts: what they cost beside raw signing",
        "",
        f"`tcd bench receipts`, tcd {found['version']}, {found['machine']}, load average {found['load']:g} at the end.",
        "",
        *([found["note"], ""] if found.get("note") else []),
        "| what | asked | measured | |",
        "|---|---|---|---|",
        *(f"| {name} | {asked} | {got} | {'held' if ok else 'missed'} |" for name, asked, got, ok in targets(found)),
        "",
        *([f"![Batches, logs, chains]({images}growth.svg)", ""] if images else []),
        "## Rates",
        "",
        how,
        "",
        *_table(found),
        "",
        "## Hybrid signatures",
        "",
        reading,
        "",
        *_batches(found),
        "",
        "## Memory of a verification",
        "",
        "`tcd verify chain` on lines of receipts, which it reads in windows; most of the memory is the program.",
        "",
        "| records | file MB | peak MB | seconds |",
        "|---|---|---|---|",
        *(f"| {r['records']:,} | {r['file_mb']:g} | {r['peak_mb']:g} | {r['seconds']:g} |" for r in found["memory"]),
        "",
        "## The log by its length",
        "",
        (
            "CPU time. Appends are per leaf since the size before. Proofs are of random leaves, from a tree in memory, "
            "and from files of tiles, which are read anew for each proof."
        ),
        "",
        *_log(found["log"]),
    ]
    return "\n".join(lines) + "\n"


_LINES: Final = {
    "append": "append_us",
    "root": "root_us",
    "inclusion": "inclusion_us",
    "check of inclusion": "check_inclusion_us",
    "check of consistency": "check_consistency_us",
}


def _log_chart(rows: Sequence[Mapping[str, Any]]) -> Chart:
    lines = [
        Line(label, style, [(row["size"], row[name]) for row in rows])
        for style, (label, name) in enumerate(_LINES.items())
    ]
    return _chart("The log in memory", "leaves", "CPU us", lines, (1.0, 100.0))


def _batch_chart(found: Mapping[str, Any]) -> Chart:
    prefix = "hybrid by layer, batch of "
    names = [name for name in found["rates"]["rows"] if name.startswith(prefix) and "anywhere" not in name]
    sizes = {int(name.removeprefix(prefix)): name for name in names}
    lines = [
        Line("by layer", 5, [(size, ratio(found, name)) for size, name in sizes.items()]),
        Line("raw signing allows by layer", 6, [(size, bound(found, size)) for size in sizes]),
        Line(
            "of the batch alone",
            7,
            [(size, ratio(found, name.replace("by layer", "of the batch alone"))) for size, name in sizes.items()],
        ),
    ]
    return _chart("Hybrid: over a signature of each receipt", "batch", "times as fast", lines, (1.0, 100.0))


def _memory_chart(rows: Sequence[Mapping[str, Any]]) -> Chart:
    lines = [Line("peak MB of verifying", 8, [(row["records"], row["peak_mb"]) for row in rows])]
    return _chart("Memory of verifying a chain", "records", "MB", lines, (10.0, 1000.0))


def _chart(title: str, x: str, y: str, lines: Sequence[Line], y_range: tuple[float, float]) -> Chart:
    across = [point[0] for line in lines for point in line.points]
    ends = (min(across), max(across))
    return Chart(title=title, x=x, y=y, lines=lines, x_range=ends, y_range=y_range, log_x=True, log_y=True)


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """SVG documents by name."""
    charts = [_batch_chart(found), _log_chart(found["log"]), _memory_chart(found["memory"])]
    return {"growth": document("Receipts: batches, logs, chains", charts)}
