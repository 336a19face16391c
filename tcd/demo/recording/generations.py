"""The columns of a part, from the decoder that says its texts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tcd.demo.llm import LanguageModel
from tcd.demo.recording.batch import Batch
from tcd.demo.recording.columns import TYPES, Columns, draw, measure
from tcd.demo.recording.corruption import corrupt_cache, corrupted
from tcd.demo.recording.plan import TOP_P, Part


def record_part(model: LanguageModel, part: Part, matrix: NDArray[np.float64]) -> tuple[list[Columns], list[int]]:
    """Columns of every sequence of a part, and how many tokens of each were forced.

    Args:
        model: the decoder.
        part: what to record; a corruption starts at the same step in all of its sequences.
        matrix: (width, 16) projection of the features.
    """
    jobs = part.jobs
    batch = Batch(model, [model.tokenizer.encode(job.prompt).ids for job in jobs])
    rngs = [np.random.default_rng(job.seed) for job in jobs]
    forced = [model.tokenizer.encode(job.forced[1]).ids if job.forced else [] for job in jobs]
    steps: list[Columns] = []
    ended = np.zeros(len(jobs), np.bool_)
    for t in range(max(job.length for job in jobs)):
        temperature = torch.tensor([job.temperature(t) for job in jobs])
        tokens = draw(batch.predicted.logits, temperature, TOP_P, rngs)
        for i, job in enumerate(jobs):
            if job.forced and 0 <= t - job.change < len(forced[i]):
                tokens[i] = forced[i][t - job.change]
        steps.append(measure(batch.predicted, tokens, temperature, matrix, model.stop))
        ended |= steps[-1]["sampled_eos"]
        if ended.all():
            break
        if jobs[0].corruption and t + 1 == jobs[0].change:
            batch.layers = corrupted(batch.layers, jobs[0].corruption, seed=jobs[0].seed)
            corrupt_cache(batch.cache, jobs[0].corruption, seed=jobs[0].seed)
        batch.push(tokens.tolist())
    whole = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    cut = [_length(whole["sampled_eos"][:, i]) for i in range(len(jobs))]
    columns = [{name: whole[name][:n, i].astype(TYPES[name]) for name in whole} for i, n in enumerate(cut)]
    counts = [max(0, min(len(f), n - job.change)) if f else 0 for f, n, job in zip(forced, cut, jobs, strict=True)]
    return columns, counts


def _length(ends: NDArray[np.bool_]) -> int:
    """Tokens up to and with the first that ends the text."""
    at = np.flatnonzero(ends)
    return int(at[0]) + 1 if at.shape[0] else int(ends.shape[0])
