"""Whether a device of torch gives the decisions that numpy gives, and each row the bits that it has alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tcd.bench.controller.rate import clopper_pearson
from tcd.calibration.conformal import quantise
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import detector_key
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import diagnose_raw
from tcd.signals import start
from tcd.signals.device import hidden_signals, to_device, token_signals
from tcd.signals.projection import derived

#: Outputs that a caller acts on.
DECISIONS = ("TRIGGER", "VERDICT", "TIER", "STATUS")
#: Most that a running maximum may differ by: FP32 signals differ by rounding.
SUP_LIMIT = 1e-3
#: Check, whether it holds, what was found.
Check = tuple[str, bool, str]


def _step(rng: np.random.Generator, rows: int, vocabulary: int, width: int, depth: int) -> Tensors:
    scale = np.where(np.arange(rows) % 4 == 3, 8.0, 2.0)[:, None]  # noqa: PLR2004 - every fourth is nearly certain
    logits = (rng.normal(size=(rows, vocabulary)) * scale).astype(np.float32)
    return {
        "LOGITS": logits,
        "TOKEN": logits.argmax(axis=1).astype(np.int32)[:, None],
        "HIDDEN": rng.normal(size=(rows, depth, width)).astype(np.float32),
    }


def walk(device: str, sessions: int, steps: int, vocabulary: int, width: int, *, seed: int = 0) -> dict[str, Any]:
    """Sessions walked by `diagnose_raw` from arrays and from tensors on the device, each with its own windows."""
    assets, rng = load_assets(default_asset_dir()), np.random.default_rng(seed)
    row = ScoreRow(key=detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00"), alpha=0.05, controller=True)
    rest = {n: a for n, a in pack([row] * sessions).items() if n in {"KEY", "POLICY", "ALPHA", "BASE"}}
    previous = [start(sessions, flags=1) for _ in range(2)]
    sup = [np.full((sessions, 2), -1e300) for _ in range(2)]
    differ = dict.fromkeys((*DECISIONS, "P_VALUE", "P_STEP", "SUP_OUT"), 0)
    largest = 0.0
    for at in range(steps):
        step = _step(rng, sessions, vocabulary, width, min(at + 1, 32))
        outs = []
        for way in range(2):
            moved: dict[str, Any] = dict(step)
            if way:
                moved |= {name: to_device(step[name], device) for name in ("LOGITS", "HIDDEN")}
            out = diagnose_raw({**moved, **rest, **previous[way], "SUP": sup[way]}, assets)
            previous[way] = {f"PREV_{n}": out[f"NEXT_{n}"] for n in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
            sup[way] = out["SUP_OUT"]
            outs.append(out)
        host, other = outs
        for name in differ:
            differ[name] += int((host[name] != other[name]).any(axis=1).sum())
        both = quantise(host["SUP_OUT"]), quantise(other["SUP_OUT"])
        largest = max(largest, float(np.abs(both[0] - both[1])[np.abs(both[0]) < 1e6].max(initial=0.0)))  # noqa: PLR2004 - not the start
    return {"rows": sessions * steps, "differ": differ, "largest_sup_difference": largest}


def checks(found: dict[str, Any]) -> list[Check]:
    """What has to hold of `walk`: the same decisions in every row, statistics equal to rounding."""
    rows = found["rows"]
    out: list[Check] = []
    for name in DECISIONS:
        differ = found["differ"][name]
        high = clopper_pearson(differ, rows, 0.95)[1]
        out.append(
            (f"{name} as on the host", differ == 0, f"{differ} of {rows} rows differ (95 %: at most {high:.2g})")
        )
    largest = found["largest_sup_difference"]
    out.append(("running maxima as on the host", largest <= SUP_LIMIT, f"differ by at most {largest:.2g}"))
    return out


def invariance(device: str, vocabulary: int, width: int, *, rows: int = 9) -> list[Check]:
    """Whether rows have alone the bits that they have in a batch, by part."""
    rng = np.random.default_rng(1)
    step = _step(rng, rows, vocabulary, width, 32)
    logits, hidden = (to_device(step[name], device) for name in ("LOGITS", "HIDDEN"))
    token, matrix = step["TOKEN"][:, 0], derived(width)

    def tokens(part: slice) -> list[bytes]:
        found = token_signals(logits[part], token[part])
        return [
            np.stack([found.log_probability, found.entropy, found.log_nucleus], axis=1)[i].tobytes()
            for i in range(len(token[part]))
        ]

    def states(part: slice, *, there: bool) -> list[bytes]:
        sigma, row = hidden_signals(hidden[part], matrix, solve_there=there)
        return [sigma[i].tobytes() + row[i].tobytes() for i in range(sigma.shape[0])]

    out: list[Check] = []
    parts: dict[str, Callable[[slice], list[bytes]]] = {
        "logits": tokens,
        "hidden states, eigenvalues on the host": partial(states, there=False),
        "hidden states, eigenvalues on the device": partial(states, there=True),
    }
    for name, signals in parts.items():
        whole = signals(slice(None))
        alone = [signals(slice(i, i + 1))[0] for i in range(rows)]
        same = sum(a == b for a, b in zip(whole, alone, strict=True))
        out.append((f"bits of a row alone and in a batch: {name}", same == rows, f"{same} of {rows} rows the same"))
    return out
