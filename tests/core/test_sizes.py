"""Sizes in words."""

from __future__ import annotations

import pytest

from batchinfer.core.sizes import size_text


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (3_449, "3.4 KB"),
        (9_949, "9.9 KB"),
        (9_960, "10 KB"),
        (12_345, "12 KB"),
        (999_499, "999 KB"),
        (999_500, "1.0 MB"),
        (1_299_999_999, "1.3 GB"),
        (4_200 * 10**12, "4,200 TB"),
    ],
)
def test_a_size_is_told_in_a_unit_that_fits(size: int, said: str) -> None:
    """Nothing that is there is told as 0.0, and no unit has four digits but the largest."""
    assert size_text(size) == said
