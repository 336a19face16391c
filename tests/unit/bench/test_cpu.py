"""What a bench says of CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tcd.bench.cpu import Cpu, Meter, of_children
from tcd.triton.process import usage

#: Until this process has had .2 s of CPU, whatever else the machine does.
_SPIN = "import time\nwhile time.process_time() < .2: pass"


def test_cores_are_cpu_over_time() -> None:
    load, clock = iter([1.0, 2.0, 2.5]), iter([10.0, 12.0, 17.0])
    meter = Meter({}, load=lambda: next(load), clock=lambda: next(clock))
    for _ in range(3):
        meter.mark()
    assert [meter.between(0), meter.between(1)] == [Cpu(0.0, 0.0, 0.5), Cpu(0.0, 0.0, 0.1)]


def test_parts_are_told_apart_and_of_this_process_what_it_spent() -> None:
    ticks = iter([0.0, 1.0])
    meter = Meter({"shim": {os.getpid()}, "triton": {2**30}}, clock=lambda: next(ticks))
    meter.mark()
    until = usage({os.getpid()}).cpu_seconds + 0.2
    while usage({os.getpid()}).cpu_seconds < until:
        pass
    meter.mark()
    found = meter.between(0)
    assert found.shim == pytest.approx(found.load, abs=0.05)
    assert found.load > 0.15
    assert found.triton == 0.0


def test_ended_children_are_counted() -> None:
    before = of_children()
    subprocess.run([sys.executable, "-c", _SPIN], check=True)
    assert of_children() - before >= 0.2
