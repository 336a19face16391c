"""Jobs of calibrations: a fit from the shim's signal log, and what assets do on sessions of it that no fit has seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from sidecar_api.admin.candidates import FIT_FILE, USED_FILE
from sidecar_api.admin.job_process import Run
from sidecar_api.signal_log import parts
from tcd.calibration import canary
from tcd.calibration.assets import AssetSet
from tcd.calibration.fit import shipped_weights
from tcd.calibration.heldout import evaluate as measure
from tcd.calibration.heldout import judge
from tcd.calibration.keyed import fit_keys, named
from tcd.calibration.log import load_log
from tcd.calibration.options import FitOptions
from tcd.calibration.sampling import Sample
from tcd.calibration.sessions import Limits
from tcd.calibration.steps import Steps, steps_of
from tcd.calibration.store import load_assets
from tcd.calibration.traces import Sequence
from tcd.errors import AssetError
from tcd.files import write_whole

#: What a job keeps of the log in memory (FP32 numbers): of a larger one it takes a sample.
_VALUES: Final = 16_000_000
_BINS: Final = 10
#: Candidates that are kept, the newest ones, beside what is in force and on trial.
_CANDIDATES: Final = 20


def fit(job: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a candidate on the signal log and evaluate it on the sessions that are held back.

    Every whole session of the log is used but those that are excluded by name, or a sample of them where they are too
    many to be kept in memory, whatever they are like: leaving out what the present calibration alarmed on would cut off
    the tail that the new one is to measure.

    Args:
        job: of the process.
        arguments: `log`, `candidates`, `live` (folders), `options` (of `Fit`).

    Raises:
        AssetError: there is no log, or not enough in it.
    """
    options = arguments["options"]
    job.progress(0, 0, "reading the log")
    log = _Log(Path(arguments["log"]), frozenset(options["exclude"]))
    traces = log.traces
    job.progress(0, len(traces.sequences), "fitting")
    steps = [steps_of(s) for s in traces.sequences]
    out = job.folder / "candidate"
    held_out = named(traces.prompts, "", options["hold_back"])
    found = fit_keys(
        traces,
        out,
        level=options["level"],
        least=options["least"],
        default=False,
        held_out=held_out,
        options=FitOptions(weights=shipped_weights(), delta=options["conditional"]),
        steps=steps,
    )
    about: dict[str, Any] = {
        "calibration": found.manifest,
        "source": traces.source,
        "sessions": len(traces.sequences),
        "sampled": log.shares,
        "held_out": len(held_out),
        "excluded": len(options["exclude"]),
        "keys": [
            {"key": "/".join(one.key), "level": one.level, "sessions": one.sessions, "p_floor": one.p_floor}
            for one in found.fitted
        ],
        "too_few": {"/".join(key): n for key, n in found.under.items()},
        "evaluation": None,
    }
    if held_out:
        assets = load_assets(out)
        kept = _answered((one for one in steps if one.sequence.prompt_id in held_out), assets)
        about["evaluation"] = _evaluated(job, kept, assets, traces.source)
    used = [_mark(s.session) for s in traces.sequences]
    write_whole(out / USED_FILE, json.dumps(used).encode())
    write_whole(out / FIT_FILE, json.dumps(about).encode())
    place = Path(arguments["candidates"]) / found.manifest.removeprefix("sha256:")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not place.exists():
        os.replace(out, place)  # noqa: PTH105 - beside the folder of jobs, on the same disk
    _prune(place.parent, Path(arguments["live"]))
    return about


def _prune(candidates: Path, live: Path) -> None:
    """Remove old candidates; none that is in force or on trial, and none at all where that cannot be read."""
    try:
        needed = {str(digest).removeprefix("sha256:") for digest in canary.served(live)}
    except AssetError:
        return
    known = sorted(candidates.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for old in known[:-_CANDIDATES]:
        if old.name not in needed:
            shutil.rmtree(old, ignore_errors=True)


def evaluate(job: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What assets do on the sessions of the log that their fit has not used.

    Args:
        job: of the process.
        arguments: `log` and `assets` (folders), `used` (file of the fit; None: not known, then no session is left
            out and `seen_by_the_fit` is None), `exclude` (session names).

    Raises:
        AssetError: there is nothing to evaluate on.
    """
    seen: frozenset[str] = frozenset()
    if arguments["used"] is not None:
        seen = frozenset(json.loads(Path(arguments["used"]).read_bytes()))
    log = _Log(Path(arguments["log"]), frozenset(arguments["exclude"]), seen)
    assets = load_assets(Path(arguments["assets"]))
    fresh = [steps_of(s) for s in log.traces.sequences]
    kept = _answered(fresh, assets)
    about = {
        "assets": assets.manifest_digest,
        "sessions": len(kept),
        "seen_by_the_fit": None if arguments["used"] is None else log.used,
        "sampled": log.shares,
    }
    return {**about, "not_answered": len(fresh) - len(kept), **_evaluated(job, kept, assets, log.traces.source)}


class _Log:
    """What a job takes of the signal log: all of it, or a sample of what is not left out.

    Attributes:
        traces: the sessions.
        used: how many were left out because a fit has used them.
        shares: of the keys of which a sample was taken: the share that was.
    """

    def __init__(self, folder: Path, exclude: frozenset[str], used: frozenset[str] = frozenset()) -> None:
        files = parts(folder)
        if not files:
            msg = "the signal log is empty: TCD_SIGNAL_LOG keeps generations when they end"
            raise AssetError(msg)
        self.used = 0
        there: set[str] = set()

        def skip(session: str) -> bool:
            if session in exclude:
                there.add(session)
                return True
            known = bool(used) and _mark(session) in used
            self.used += known
            return known

        sample = Sample(Limits(values=_VALUES), skip=skip)
        self.traces = load_log(files, name="signal log", collector=sample)
        strange = sorted(exclude - there)
        if strange:
            msg = f"no session {strange[0]!r} to be excluded"
            raise AssetError(msg)
        self.shares = {"/".join(key): 0.5**level for key, level in sample.levels.items() if level}


def _mark(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()[:24]


def _answered(steps: Iterable[Steps], assets: AssetSet) -> list[Steps]:
    """Sessions that an asset answers for their own key and signals."""
    return [one for one in steps if _detector(one.sequence, assets)]


def _detector(sequence: Sequence, assets: AssetSet) -> bool:
    key = sequence.key
    if key is None:
        return False
    detector, match = assets.detector_match((key.value(0), key.value(1), key.value(2)))
    return detector is not None and not match.fallback and sequence.signals in detector.masks


def _evaluated(job: Run, steps: list[Steps], assets: AssetSet, source: str) -> dict[str, Any]:
    """Rates of false alarms with their intervals, the distribution of p-values, and whether it has drifted."""
    if not steps:
        msg = "no session of the log is answered by these assets and was not used in their fit"
        raise AssetError(msg)
    job.progress(0, len(steps), "evaluating")
    numbers, page = measure(steps, assets, source=source)
    write_whole(job.folder / "report.html", page.encode())
    write_whole(job.folder / "report.json", json.dumps(numbers, indent=1).encode())
    p = np.array([one.scored.hypothesis_p for one in judge(steps, assets) if np.isfinite(one.scored.maximum)])
    counts, _ = np.histogram(p, bins=_BINS, range=(0.0, 1.0))
    session = numbers["session"]
    return {
        "p_at_most": session.get("p_at_most", {}),
        "histogram": counts.tolist(),
        "ks_one_sided": session.get("ks_one_sided"),
        "ks_limit": session.get("ks_limit"),
        "drifted": bool(session.get("ks_one_sided", 0.0) > session.get("ks_limit", 1.0)),
    }
