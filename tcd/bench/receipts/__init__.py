"""`tcd bench receipts`: what receipts cost beside raw signing, and how that grows with a chain and a log."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import Any

from cryptography import __version__ as cryptography_version
from cryptography.hazmat.backends.openssl import backend

from tcd import __version__
from tcd.bench.receipts import log, memory, rates
from tcd.receipts import fast


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run.

    Attributes:
        turns: of all rows, one after the other; `seconds` about how long a row takes in one turn.
        batches: receipts that one signature of a subtree covers.
        tree: leaves of the log in which inclusion is checked.
        chains: records of the chains whose verification is watched.
        sizes: of the log; `proofs` at each of them.
        tile_sizes: those of the sizes at which it is also written as files.
    """

    turns: int = 9
    seconds: float = 0.25
    batches: tuple[int, ...] = rates.BATCHES
    tree: int = rates.TREE
    chains: tuple[int, ...] = (1_000, 10_000, 100_000)
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    proofs: int = 1_000
    tile_sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)

    @classmethod
    def small(cls) -> Scale:
        """Seconds instead of minutes: what CI runs."""
        return cls(
            turns=1,
            seconds=0.005,
            batches=(8, 128),
            tree=1 << 10,
            chains=(20, 1_100),
            sizes=(300, 1_000),
            proofs=20,
            tile_sizes=(300, 1_000),
        )


def run(scale: Scale) -> dict[str, Any]:
    """Run everything; the report as JSON values."""
    began = time.perf_counter()
    # before the large tree is there
    watched = memory.measure(scale.chains)
    measured = rates.measure(turns=scale.turns, seconds=scale.seconds, batches=scale.batches, tree=scale.tree)
    grown = log.measure(scale.sizes, proofs=scale.proofs, tile_sizes=scale.tile_sizes)
    json_by = "orjson" if fast.sorted_json is not fast.stdlib_sorted else "the standard library"
    return {
        "version": __version__,
        "machine": (
            f"{platform.machine()}, Python {platform.python_version()}, cryptography {cryptography_version}, "
            f"{backend.openssl_version_text()}, JSON by {json_by}"
        ),
        "tree": scale.tree,
        "rates": measured,
        "memory": watched,
        "log": grown,
        "load": round(os.getloadavg()[0], 1),
        "seconds": round(time.perf_counter() - began, 1),
    }
