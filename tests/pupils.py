"""Jobs whose answers have scores that a student can learn, for tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.factories import LENIENT, World, model_job

CHOICES = ["fruit", "tool"]
WORDS = [["apple", "pear", "plum", "peach", "fig"], ["hammer", "saw", "drill", "chisel", "file"]]
ROWS = 600
Says = Callable[[dict[str, Any]], list[float]]


def four_words(count: int, seed: int = 0) -> list[str]:
    """Texts of four words each, of which the first two are of one kind; each once."""
    rng, found = np.random.default_rng(seed), dict[str, None]()
    while len(found) < count:
        kind, *others = rng.integers(2, size=3)
        found[" ".join(WORDS[number][rng.integers(5)] for number in (kind, kind, *others))] = None
    return list(found)


def by_words(row: Mapping[str, Any]) -> list[float]:
    """Log-probabilities: the more words of a kind, the surer."""
    fruit = sum(word in WORDS[0] for word in row["text"].split()) / 4
    odds = 6 * (fruit - 0.5)
    return [-math.log1p(math.exp(-odds)), -math.log1p(math.exp(odds))]


def by_chance(row: Mapping[str, Any]) -> list[float]:
    """Nothing that the text would tell."""
    one = np.random.default_rng(list(row["text"].encode())).random()
    return [math.log(one), math.log1p(-one)]


def student_job(folder: Path, rows: int = ROWS, says: Says = by_words, **sections: Any) -> World:
    """A job with a student, whose model has answered."""
    world = model_job(
        folder, {"text": four_words(rows)}, **{
            "input": {"path": "queries.parquet", "key": ["text"]}, "output": {"type": "choice", "choices": CHOICES},
            "student": {"text": "text"}, "gate": LENIENT, **sections,
        },
    )  # fmt: skip
    world.answer(says)
    return world


def published(folder: Path, *arguments: Any, **sections: Any) -> World:
    """The same, with a version."""
    world = student_job(folder, *arguments, **sections)
    world.publish()
    return world
