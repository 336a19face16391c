"""CPU of the shim per request on the wire, of several checkouts in turns beside the floors; asserts nothing.

On a busy machine rates and latencies say nothing, and the CPU of two runs an hour apart little: what is compared here
took its turns within seconds. `python tests/benchmarks/bench_shim_turns.py BEFORE AFTER` (each with its own .venv).
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from pathlib import Path
from statistics import median

from tcd.bench import shim
from tcd.bench.load import wrk
from tcd.triton.process import tree


def _checkout(stack: contextlib.ExitStack, folder: Path, name: str, where: str, receipts: str) -> shim.Server:
    command = ["env", "-C", where, f"{where}/.venv/bin/python", "-m", "tcd.cli.main", "serve", "--port", "0"]
    command += ["--triton-port", "0", "--data-dir", str(folder / name)]
    log = folder / f"{name}.log"
    with shim._environment({"TCD_LOG_LEVEL": "warning", "TCD_RECEIPTS_ENABLE": receipts}):
        process = stack.enter_context(shim._process(command, log))
    found = re.search(r"(?m)^shim +(\S+)", shim._wait(process, log, r"(?m)^ready "))
    assert found is not None
    return shim.Server(found[1], {"shim": {process.pid}, "triton": tree(process.pid) - {process.pid}})


def main() -> None:
    """Print a line per server: CPU us (lowest to highest), ratio to the Starlette no-op, Triton's CPU us, rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkouts", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--receipts", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        folder = Path(directory)
        known = {
            where: _checkout(stack, folder, str(number), str(Path(where).resolve()), str(int(args.receipts)))
            for number, where in enumerate(args.checkouts)
        }
        answer = shim.one_answer(known[args.checkouts[0]].url)
        known[shim.FLOOR] = stack.enter_context(shim.noop(folder, answer))
        known[shim.ROUTE] = stack.enter_context(shim.noop(folder, answer, "route"))
        runs: dict[str, list[shim.Run]] = {name: [] for name in known}
        for server in known.values():
            wrk(server.url, concurrency=args.concurrency, seconds=1.0, run="warm")
        for number in range(args.rounds):
            for name, server in known.items():
                run = shim.drive(
                    name, server, concurrency=args.concurrency, seconds=args.seconds, label=f"turn{number}"
                )
                runs[name].append(run)
        base = [run.cpu_us["shim"] for run in runs[shim.ROUTE]]
        for name, mine in runs.items():
            cpu = [run.cpu_us["shim"] for run in mine]
            ratio = median(own / floor for own, floor in zip(cpu, base, strict=True))
            triton = median(run.cpu_us.get("triton", 0.0) for run in mine)
            rate, errors = median(run.load.rate for run in mine), sum(run.load.errors for run in mine)
            sys.stdout.write(
                f"{name}: {median(cpu):.0f} us ({min(cpu):.0f} to {max(cpu):.0f}), {ratio:.2f} x the Starlette no-op, "
                f"Triton {triton:.0f} us, {rate:.0f}/s, {errors} errors\n"
            )


if __name__ == "__main__":
    main()
