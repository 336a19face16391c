"""How tenants and subjects spread over cells: by a hash of the tenant, and with large tenants split."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Spread:
    """Loads of cells, each as a multiple of the mean.

    Attributes:
        cells, tenants: how many.
        exponent: of the tenants' sizes, which fall as rank ** -exponent.
        largest: share of all traffic that the largest tenant has.
        most: largest load.
        split: largest load when tenants above `piece` of a cell are split over several.
        pieces: parts of tenants above one each, after the split.
        subjects: largest number of subjects of a cell after the split, of 10^9.
        lost: largest load when one cell is gone and its parts are spread over the others.
        moved: share of all traffic that moves then.
    """

    cells: int
    tenants: int
    exponent: float
    largest: float
    most: float
    split: float
    pieces: int
    subjects: float
    lost: float
    moved: float

    def to_json(self) -> dict[str, float]:
        """For the report."""
        return asdict(self)


def spread(
    cells: int, *, tenants: int, exponent: float, seed: int, piece: float = 0.25, subjects: float = 1e9
) -> Spread:
    """Place tenants by a hash, as rendezvous hashing does: each part independently and uniformly on a cell.

    Args:
        cells: how many.
        tenants: how many; their traffic and their subjects are proportional to rank ** -exponent.
        exponent: of that.
        seed: of the hash.
        piece: largest part of a cell's mean load that is placed as one.
        subjects: of all tenants.
    """
    rng = np.random.default_rng(seed)
    sizes = np.arange(1, tenants + 1, dtype=float) ** -exponent
    sizes /= sizes.sum()
    whole = _loads(sizes, rng.integers(cells, size=tenants), cells)
    parts = np.maximum(1, np.ceil(sizes * cells / piece).astype(int))
    pieces = np.repeat(sizes / parts, parts)
    places = np.concatenate([_places(rng, int(n), cells) for n in parts[parts > 1]] + [np.empty(0, int)])
    places = np.concatenate([places, rng.integers(cells, size=int((parts == 1).sum()))])
    # sizes fall, so the split ones are first
    loads = _loads(pieces, places, cells)
    gone = int(np.argmax(loads))
    moving = places == gone
    others = np.delete(np.arange(cells), gone)
    after = _loads(pieces, np.where(moving, rng.choice(others, size=len(places)), places), cells)
    return Spread(
        cells,
        tenants,
        exponent,
        float(sizes[0]),
        float(whole.max() * cells),
        float(loads.max() * cells),
        int(parts[parts > 1].sum()),
        float(loads.max() * subjects),
        float(after.max() * (cells - 1)),
        float(loads[gone]),
    )


def _places(rng: np.random.Generator, parts: int, cells: int) -> NDArray[np.int64]:
    """Cells of a split tenant: different ones while there are some."""
    turns = -(-parts // cells)
    placed: NDArray[np.int64] = np.concatenate([rng.permutation(cells) for _ in range(turns)])[:parts]
    return placed


def _loads(sizes: NDArray[np.float64], places: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
    loads: NDArray[np.float64] = np.bincount(places, weights=sizes, minlength=cells).astype(float)
    return loads
