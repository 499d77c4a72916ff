"""The steps of a training: which rows each takes, and how far it goes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from batchinfer.training.records import LearnedRow

SORTED = 8  # batches whose rows are sorted by length, so that little is filled up
WARM = 0.1  # share of the steps in which the learning rate rises


def steps_of(rows: Sequence[LearnedRow], size: int, epochs: int, seed: int) -> Iterator[list[LearnedRow]]:
    """The rows of each step: each row once in each epoch, in an order by chance that is always the same.

    Rows of a batch are about as long as one another.
    """
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    for _ in range(epochs):
        order = chance.sample(rows, len(rows))
        found = []
        for start in range(0, len(order), size * SORTED):
            alike = sorted(order[start : start + size * SORTED], key=lambda row: len(row.prompt) + len(row.answer))
            found += [alike[at : at + size] for at in range(0, len(alike), size)]
        yield from chance.sample(found, len(found))


def rate_at(number: int, count: int) -> float:
    """The share of the learning rate at a step, from 1: it rises in the first tenth, then falls in a line."""
    warm = max(1, round(WARM * count))
    return min(number / warm, (count - number + 1) / max(1, count - warm + 1))
