"""GPU samples off the request path: a thread reads NVML once a second, requests find the newest values.

`nvidia-ml-py` is imported when the sampler starts; a machine without a GPU gives no values and says why once.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

_LOG: Final = logging.getLogger(__name__)
_NONE: Final[Mapping[str, float]] = {}
Reader = Callable[[], Mapping[str, float]]


def nvml_reader() -> Reader:
    """Reads the busiest GPU: `gpu_util`, `gpu_mem_util` (0..1), `gpu_temp` (degrees Celsius).

    Raises:
        OSError: there is no NVML, or no GPU.
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        msg = "nvidia-ml-py is not installed: pip install 'tcd[gpu]'"
        raise OSError(msg) from error
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        msg = f"NVML: {error}"
        raise OSError(msg) from error
    if not handles:
        msg = "NVML knows no GPU"
        raise OSError(msg)

    def read() -> Mapping[str, float]:
        try:
            found = [(nvml.nvmlDeviceGetUtilizationRates(h).gpu / 100.0, h) for h in handles]
            util, handle = max(found, key=lambda pair: pair[0])
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            temperature = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        except nvml.NVMLError as error:
            msg = f"NVML: {error}"
            raise OSError(msg) from error
        return {"gpu_util": util, "gpu_mem_util": memory.used / memory.total, "gpu_temp": float(temperature)}

    return read


class GpuSampler:
    """Keeps the newest sample."""

    def __init__(self, *, interval: float = 1.0, reader: Callable[[], Reader] = nvml_reader) -> None:
        """Sample every `interval` seconds with what `reader` makes, in a thread of its own."""
        self._interval, self._make = interval, reader
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._newest: Mapping[str, float] = _NONE
        self.error = ""

    def sample(self) -> Mapping[str, float]:
        """The newest values; empty when there are none."""
        return self._newest

    def start(self) -> None:
        """Start the thread; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tcd-gpu", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None

    def _run(self) -> None:
        read: Reader | None = None
        while True:
            try:
                read = read or self._make()
                self._newest, self.error = dict(read()), ""
            except OSError as error:
                if str(error) != self.error:
                    _LOG.warning("no GPU samples: %s", error)
                self._newest, self.error, read = _NONE, str(error), None
            if self._stop.wait(self._interval if not self.error else self._interval * 10):
                return
