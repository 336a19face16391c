"""The numbers of the plan, from figures that were measured here. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.scale.logs import proof_bytes

#: Decisions a second and subjects that the plan is for.
RATE, SUBJECTS = 1e6, 1e9
DAY = 86_400.0
#: Share of a measured capacity that is planned with: the rest is for failures, bursts and uneven cells.
USED = 0.6
#: Durable decisions a second of one PostgreSQL with four shims, 128 a batch: docs/operations.md, a machine at load 3.
COMMITS = 4_890.0
#: Bytes of a live session's windows: docs/performance.md, growth.
WINDOW = 11_700.0
#: Seconds between two steps of a session; assumed.
STEP = 2.0
#: Assumed prices, in dollars: of a core for an hour, and of a terabyte of object storage for a month.
CORE_HOUR, TB_MONTH = 0.03, 20.0
_PARTS = ("triton", "shim", "postgres", "haproxy")
_MONTH = 730.0


def plan(
    scaleout: Mapping[str, Any], *, receipt: float, answer: float, subject: float, packed: float
) -> dict[str, float]:
    """What 10^6 decisions a second and 10^9 subjects take.

    Args:
        scaleout: `docs/reports/scaleout.json`: CPU and bytes of a decision by part.
        receipt: bytes of a receipt's body.
        answer: bytes of a stored answer.
        subject: bytes of memory of a subject at rest.
        packed: bytes of compressed receipts over their bytes.
    """
    one = scaleout["single"]
    cell = COMMITS * USED
    cells = math.ceil(RATE / cell)
    cores = {part: RATE * one["cpu_us"][part] * 1e-6 / USED for part in _PARTS}
    shims = math.ceil(cores["shim"] / cells)
    per_day = RATE * DAY
    out = {
        "cell_per_second": cell,
        "cells": cells,
        **{f"{part}_cores": value for part, value in cores.items()},
        "cores": sum(cores.values()),
        "shims_per_cell": shims,
        "tritons_per_cell": math.ceil(cores["triton"] / cells),
        "receipts_tb_a_day": per_day * receipt / 1e12,
        "packed_tb_a_day": per_day * receipt * packed / 1e12,
        "heads_tb_a_day": per_day * 32 / 1e12,
        "answers_tb_for_a_day": per_day * answer / 1e12,
        "hot_tb_a_day_per_cell": per_day * one["bytes"]["database"] / cells / 1e12,
        "wal_mb_a_second_per_cell": cell * one["bytes"]["wal"] / 1e6,
        "answers_gbit_a_second": RATE * one["sent_bytes"] * 8 / 1e9,
        "subjects_per_cell": SUBJECTS / cells,
        "subject_gb_per_shim": SUBJECTS / cells * subject / 1e9,
        "window_gb_per_shim": RATE * STEP / cells / shims * WINDOW / 1e9,
        "leaves_a_year_per_cell": per_day * 365 / cells,
        "proof_hash_bytes": proof_bytes(shards=cells, leaves=per_day * 365 / cells),
        "one_cell_is": 1.0 / cells,
    }
    out["cores_dollars_a_month"] = out["cores"] * CORE_HOUR * _MONTH
    # thirty days of receipts, heads for a year
    kept = out["packed_tb_a_day"] * 30 + out["heads_tb_a_day"] * 365
    out["kept_tb"] = kept
    out["kept_dollars_a_month"] = kept * TB_MONTH
    out["dollars_per_million_decisions"] = (
        (out["cores_dollars_a_month"] + out["kept_dollars_a_month"]) / (RATE * _MONTH * 3600) * 1e6
    )
    return out
