"""The signals of tensors that are on a GPU (or anywhere torch has them): what leaves it is a few numbers per row.

The same operations as in numpy. Elementwise work is done for the whole batch; every sum and product is one of fixed
shape per row, so that a row's bits do not depend on its neighbours (triton.md §6). They agree with numpy's to rounding,
not bit for bit: exponentials differ in the last place. Eigenvalues are taken on the host, from Gram matrices, or on the
device; `make bench-gpu` measures which is faster, and whether a row's bits stay its own there.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcd.contract import SPECTRUM_RANK
from tcd.signals.hidden import HIDDEN_WINDOW, singular_values
from tcd.signals.logits import IMPOSSIBLE, NUCLEUS_CAP, TokenSignals, nucleus_size

F64 = NDArray[np.float64]


def is_tensor(values: Any) -> bool:
    """Whether these are torch's, without importing torch."""
    return not isinstance(values, np.ndarray)


def token_signals(logits: Any, token: NDArray[np.generic]) -> TokenSignals:
    """`tcd.signals.logits.token_signals` of an (N, V) tensor on its device."""
    torch = importlib.import_module("torch")
    rows, vocabulary = logits.shape
    wanted = token.astype(np.int64)
    inside = (wanted >= 0) & (wanted < vocabulary)
    if rows == 0 or vocabulary == 0:
        return TokenSignals(np.zeros(rows), np.zeros(rows), np.zeros(rows), np.zeros(rows, np.bool_))
    picked = torch.from_numpy(np.where(inside, wanted, 0)).to(logits.device)
    with torch.inference_mode():
        table = logits.float()
        top = table.amax(dim=1, keepdim=True)
        shifted = table - top
        chosen = shifted.gather(1, picked[:, None])[:, 0].double()
        weight = shifted.exp()
        possible = shifted.clamp(min=float(IMPOSSIBLE))
        total = torch.stack([weight[i].sum(dtype=torch.float64) for i in range(rows)])
        moment = torch.stack([(weight[i].double() * possible[i].double()).sum() for i in range(rows)])
        likely = weight.topk(min(NUCLEUS_CAP, vocabulary), dim=1).values.cpu().numpy()
        numbers = torch.stack([top[:, 0].double(), chosen, total, moment]).cpu().numpy()
    with np.errstate(all="ignore"):
        log_total = np.log(numbers[2])
        lp = np.minimum(numbers[1] - log_total, 0.0)
        entropy = np.maximum(log_total - numbers[3] / numbers[2], 0.0)
    good = inside & np.isfinite(numbers[:2]).all(axis=0) & np.isfinite(entropy) & np.isfinite(lp)
    size = [nucleus_size(likely[i], numbers[2, i]) if good[i] else 1 for i in range(rows)]
    return TokenSignals(np.where(good, lp, 0.0), np.where(good, entropy, 0.0), np.log(size), good)


def to_device(array: NDArray[np.generic], device: str) -> Any:
    """An array as a tensor on a device."""
    torch = importlib.import_module("torch")
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def eigenvalues(gram: Any) -> Any:
    """Ascending eigenvalues (N, S) of (N, S, S) symmetric tensors on their device, all at once.

    A single matrix goes with a second one: the solver of one is another than that of many, with other last bits.
    """
    torch = importlib.import_module("torch")
    if gram.shape[0] == 1:
        return torch.linalg.eigvalsh(torch.cat([gram, gram]))[:1]
    return torch.linalg.eigvalsh(gram)


def hidden_signals(hidden: Any, matrix: F64, *, solve_there: bool = False) -> tuple[F64, F64]:
    """Spectrum and features of an (N, W, D) tensor with W, D >= 1 on its device.

    Args:
        hidden: hidden states, oldest first.
        matrix: (D, K) projection.
        solve_there: take the eigenvalues on the device, batched, and not on the host.

    Returns:
        (N, min(16, W, D)) singular values of the newest 32 states and the projection (N, K) of the newest; a row with a
        NaN or infinity answers NaN in both.
    """
    torch = importlib.import_module("torch")
    with torch.inference_mode():
        recent = hidden[:, -HIDDEN_WINDOW:].double()
        _, depth, width = recent.shape
        projection = torch.tensor(matrix, device=recent.device)
        tables = [state if depth <= width else state.T.contiguous() for state in recent]
        gram = torch.stack([table @ table.T for table in tables])
        newest = torch.stack([state[-1:] @ projection for state in recent])[:, 0].cpu().numpy()
        keep = min(SPECTRUM_RANK, depth, width)
        if solve_there:
            finite = torch.isfinite(gram).all(dim=2).all(dim=1)
            safe = torch.where(finite[:, None, None], gram, torch.zeros_like(gram))
            largest = eigenvalues(safe).flip(1)[:, :keep]
            good, sigma = finite.cpu().numpy(), np.sqrt(np.maximum(largest.cpu().numpy(), 0.0))
        else:
            host = gram.cpu().numpy()
            good = np.isfinite(host).all(axis=(1, 2))
            sigma = singular_values(np.where(good[:, None, None], host, 0.0), keep)
    good &= np.isfinite(newest).all(axis=1)
    return np.where(good[:, None], sigma, np.nan), np.where(good[:, None], newest, np.nan)


def finite_rows(hidden: Any) -> NDArray[np.bool_]:
    """Which rows of an (N, W, D) tensor are finite throughout."""
    torch = importlib.import_module("torch")
    return np.asarray(torch.isfinite(hidden).all(dim=2).all(dim=1).cpu().numpy())
