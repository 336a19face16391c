"""CPU of the shim alone per /diagnose, and where it goes: `tcd.bench.inprocess` with a profiler. Asserts nothing."""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import pstats
import sys
import tempfile
from pathlib import Path
from statistics import median

import uvloop

from tcd.bench import inprocess

SESSIONS = 256


async def _run(args: argparse.Namespace) -> list[float]:
    out: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) if args.durable else None
        async with inprocess.app(where, receipts_enable=args.receipts, **json.loads(args.settings)) as shim:
            if args.gc:
                gc.collect()
                gc.freeze()
                gc.set_threshold(args.gc, 20, 20)
            for turn in range(args.rounds + 1):
                profile = cProfile.Profile() if args.profile and turn == args.rounds else None
                if profile:
                    profile.enable()
                spent = await inprocess.decide(
                    shim,
                    args.requests,
                    lambda i: (f"tenant{i % 8}", f"run-{i % SESSIONS}"),
                    clients=args.clients,
                    http=args.http,
                )
                if profile:
                    profile.disable()
                    pstats.Stats(profile).sort_stats(args.sort).print_stats(args.lines)
                elif turn:
                    out.append(1e6 * spent / args.requests)
                    sys.stdout.write(f"{out[-1]:.0f} us\n")
    return out


def main() -> None:
    """Print microseconds of CPU per request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-receipts", dest="receipts", action="store_false")
    parser.add_argument("--memory", dest="durable", action="store_false")
    parser.add_argument("--http", action="store_true", help="through tcd serve's connection instead of ASGI")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gc", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--sort", default="tottime")
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--settings", default="{}")
    args = parser.parse_args()
    found = uvloop.new_event_loop().run_until_complete(_run(args))
    sys.stdout.write(f"median {median(found):.0f} us of CPU per request\n")


if __name__ == "__main__":
    main()
