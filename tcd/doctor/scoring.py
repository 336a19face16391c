"""What scores: the server's binary, the compiled kernels, the calibration and the claim that it carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tcd.calibration.assets import AssetSet
from tcd.calibration.store import load_assets
from tcd.doctor.finding import Finding
from tcd.errors import AssetError, LauncherError
from tcd.native import library
from tcd.triton.install import Install, find_install


def check_binary(environ: Mapping[str, str], find: Callable[[Mapping[str, str]], Install] = find_install) -> Finding:
    """The Triton server that would be started."""
    try:
        found = find(environ)
    except LauncherError as error:
        detail, _, remedy = error.detail.partition("remedy: ")
        return Finding("triton server", "fail", detail.rstrip("; "), remedy or "set TRITONSERVER to the binary")
    return Finding("triton server", "ok", f"{found.binary} ({found.origin})")


def check_kernels(load: Callable[[], library.Loaded] = library.loaded) -> Finding:
    """The compiled kernels."""
    try:
        found = load()
    except library.NativeMissing as error:
        return Finding("kernels", "fail", str(error).partition("; remedy")[0], library.REMEDY)
    if found.library is not None:
        return Finding("kernels", "ok", found.reason)
    if found.reason == "TCD_NATIVE=0":
        return Finding("kernels", "ok", "switched off by TCD_NATIVE=0: numpy scores")
    return Finding("kernels", "warn", f"numpy scores, several times slower: {found.reason}", library.REMEDY)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a key's calibration carries: epochs of `length` hypotheses, and why there is no claim, if so."""

    name: str
    length: int
    reasons: tuple[str, ...]


def check_assets(directory: Path, carried: Callable[[AssetSet], list[Carried]]) -> Iterator[Finding]:
    """The calibration directory: digests (which every load checks), bindings, and the guarantee."""
    refit = "tcd calibrate fit, see docs/calibration.md"
    try:
        assets = load_assets(directory)
    except AssetError as error:
        yield Finding("assets", "fail", error.detail, f"restore the directory, or {refit}")
        return
    kinds = len(assets.detectors), len(assets.multivariates)
    yield Finding("assets", "ok", f"{directory}: {kinds[0]} detectors, {kinds[1]} monitors, every digest right")
    found = carried(assets)
    without = [one for one in found if one.reasons or not one.length]
    if not found:
        yield Finding("guarantee", "warn", "none: no calibration is bound to a key", refit)
    elif without:
        worst = without[0]
        reasons = ", ".join(worst.reasons) or "calibration too small"
        detail = f"none for {len(without)} of {len(found)} keys ({worst.name}: {reasons})"
        yield Finding("guarantee", "warn", detail, f"{refit}: calibrate on your own model's sessions")
    else:
        shortest = min(one.length for one in found)
        yield Finding("guarantee", "ok", f"{len(found)} keys, epochs of {shortest} hypotheses at least")
