"""`tcd bench gpu`: what a GPU changes. Checks that it computes the same, and times from which batch on it pays.

Everything but the server's part runs on any device of torch, so that it is tested where there is no GPU.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tcd import __version__
from tcd.bench.gpu import agreement, detector, served, times
from tcd.errors import LauncherError


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run.

    Attributes:
        sessions: walked side by side in the check of agreement; `steps` of each.
        vocabulary, width: of logits and hidden states; those of SmolLM2 by default.
        batches: rows of the timings; `calls` of each.
    """

    sessions: int = 64
    steps: int = 64
    vocabulary: int = 49_152
    width: int = 576
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    calls: int = 30

    @classmethod
    def small(cls) -> Scale:
        """Seconds on a CPU."""
        return cls(sessions=8, steps=24, vocabulary=500, width=64, batches=(1, 4), calls=3)


def require() -> str:
    """The name of the GPU.

    Raises:
        LauncherError: there is none that torch can use; says what was found and the remedy.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        msg = "no GPU can be used: torch is not installed; remedy: pip install torch (a CUDA build), then tcd[server]"
        raise LauncherError(msg) from None
    if not torch.cuda.is_available():
        built = torch.version.cuda or "without CUDA"
        msg = f"no GPU: torch {torch.__version__} (built {'for CUDA ' if torch.version.cuda else ''}{built}) finds none"
        msg += "; remedy: run on a machine where `nvidia-smi` lists one, with a CUDA build of torch"
        raise LauncherError(msg)
    return str(torch.cuda.get_device_name(0))


def run(
    scale: Scale, *, device: str = "cuda", server: bool = True, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Check and time.

    Args:
        scale: how much.
        device: of torch; anything but `cuda` says so in the report.
        server: whether a Triton server is started too.
        say: told what is done next.

    Raises:
        LauncherError: no GPU where one is asked for, or the server does not start.
    """
    name = require() if device.startswith("cuda") else f"torch's {device} device, no GPU"
    # as the models do
    importlib.import_module("torch").set_num_threads(1)
    found: dict[str, Any] = {
        "version": __version__,
        "machine": f"{os.cpu_count()} cores of {platform.machine()}",
        "device": name,
        "scale": asdict(scale),
        "checks": [],
    }
    say("agreement")
    found["agreement"] = agreement.walk(device, scale.sessions, scale.steps, scale.vocabulary, scale.width)
    found["checks"] += agreement.checks(found["agreement"])
    say("bits of a row alone and in a batch")
    found["checks"] += agreement.invariance(device, scale.vocabulary, scale.width)
    found["checks"].append(detector.bits(device, scale.sessions))
    say("times")
    found["times"] = times.measure(device, scale.batches, scale.calls, scale.vocabulary, scale.width)
    found["detector_times"] = detector.times(device, scale.batches, scale.calls)
    found["break_even"] = times.break_even(found["times"], scale.vocabulary)
    if server:
        say("the server")
        found["server"] = served.measure(scale.vocabulary, scale.width, found["break_even"]["logits"])
        found["checks"] += served.checks(found["server"])
    return found
