"""Texts in Chinese and Thai, whose words are not set apart, and in Arabic.

In Chinese and Arabic they are names of languages and of territories, from Unicode's CLDR; the package language_data has them.
In Thai both are mere transcriptions, so there they are names of countries and other words (tests/fixtures/make_thai_words.py).
"""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import langcodes
import numpy as np
import pytest

from batchinfer.student.learn import Lesson, learn
from batchinfer.student.likeness import only

FIXTURES = Path(__file__).parents[1] / "fixtures"


def named(written: str) -> dict[str, int]:
    """Names of languages (0) and of territories (1) in a language; what has none is named by its code."""
    codes = ["".join(letters) for letters in product(ascii_lowercase, repeat=2)]
    languages = {langcodes.Language(code).language_name(written): 0 for code in codes}
    territories = {langcodes.Language(territory=code.upper()).territory_name(written): 1 for code in codes}
    return {name: kind for name, kind in (languages | territories).items() if not name.isascii() and "[" not in name}


def thai() -> dict[str, int]:
    """Names of countries (0), and other words (1)."""
    with (FIXTURES / "thai_words.csv").open(encoding="utf-8", newline="") as file:
        return {word: int(kind) for word, kind in csv.reader(file)}


@pytest.mark.long
@pytest.mark.parametrize("written", ["zh", "th", "ar"])
def test_it_beats_the_most_frequent_choice(written: str) -> None:
    """By at least 15 points, on names that were held out."""
    names = thai() if written == "th" else named(written)
    texts, kinds = list(names), np.array(list(names.values()))
    assert len(texts) > 300
    right, frequent = list[float](), list[float]()
    for seed in range(3):
        held = np.random.default_rng(seed).random(len(texts)) < 0.25
        lesson = Lesson(texts, only(kinds, 2) * 0.9 + 0.05, held, np.zeros(len(texts), bool))
        right.append(float((learn(lesson, 0.9, 0.9).said.argmax(1) == kinds[held]).mean()))
        frequent.append(float(np.bincount(kinds[held]).max() / held.sum()))
    assert np.mean(right) >= np.mean(frequent) + 0.15
