"""The choice whose score says all."""

from __future__ import annotations

import pytest

from batchinfer.job import reader
from tests.job.files import ASKING, SMALLEST


@pytest.mark.parametrize(
    ("lines", "choice"),
    [
        ("output: {type: choice, choices: [good, bad]}\n", "good"),
        ("output: {type: choice, choices: [good, bad]}\neval: {positive: bad}\n", "bad"),
        ("output: {type: choice, choices: [good, bad, neither]}\n", None),
        ("output: {type: choice, choices: [good, bad, neither]}\neval: {positive: neither}\n", "neither"),
        ("", None),
    ],
)
def test_it_is_named_or_the_first_of_two(lines: str, choice: str | None) -> None:
    """Of more choices none says all unless eval.positive names it; texts have none."""
    assert reader.parse(SMALLEST + ASKING + lines, "job.yaml").deciding_choice == choice
