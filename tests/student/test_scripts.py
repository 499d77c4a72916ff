"""Texts in Chinese, whose words are not set apart, and in Arabic: names of languages and of territories, from Unicode's CLDR.

The package language_data has them. In Thai both are mere transcriptions, which nobody could tell apart.
"""

from __future__ import annotations

from itertools import product
from string import ascii_lowercase

import langcodes
import numpy as np
import pytest

from batchinfer.student.learn import Lesson, learn
from batchinfer.student.likeness import only


def named(written: str) -> dict[str, int]:
    """Names of languages (0) and of territories (1) in a language; what has none is named by its code."""
    codes = ["".join(letters) for letters in product(ascii_lowercase, repeat=2)]
    languages = {langcodes.Language(code).language_name(written): 0 for code in codes}
    territories = {langcodes.Language(territory=code.upper()).territory_name(written): 1 for code in codes}
    return {name: kind for name, kind in (languages | territories).items() if not name.isascii() and "[" not in name}


@pytest.mark.long
@pytest.mark.parametrize("written", ["zh", "ar"])
def test_it_beats_the_most_frequent_choice(written: str) -> None:
    """By at least 15 points, on names that were held out."""
    names = named(written)
    texts, kinds = list(names), np.array(list(names.values()))
    assert len(texts) > 300
    right, frequent = list[float](), list[float]()
    for seed in range(3):
        held = np.random.default_rng(seed).random(len(texts)) < 0.25
        lesson = Lesson(texts, only(kinds, 2) * 0.9 + 0.05, held, np.zeros(len(texts), bool))
        right.append(float((learn(lesson, 0.9, 0.9).said.argmax(1) == kinds[held]).mean()))
        frequent.append(float(np.bincount(kinds[held]).max() / held.sum()))
    assert np.mean(right) >= np.mean(frequent) + 0.15
