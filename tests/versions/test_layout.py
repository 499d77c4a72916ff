"""The names of key columns in files of ours."""

from __future__ import annotations

import pytest

from batchinfer.publish.diff import DIFFERENCE_COLUMNS
from batchinfer.review.sheet import REVIEW_COLUMNS, column_of
from batchinfer.versions.layout import OWN_COLUMNS, free_name, version_column


@pytest.mark.parametrize("reserved", [OWN_COLUMNS, REVIEW_COLUMNS, OWN_COLUMNS | set(DIFFERENCE_COLUMNS)])
def test_a_reserved_name_gets_key_before_it(reserved: frozenset[str]) -> None:
    """In any case, since neither SQL nor a spreadsheet's header tells cases apart; every other name stays."""
    for name in reserved:
        assert free_name(name, reserved) == f"key_{name}"
        assert free_name(name.upper(), reserved) == f"key_{name.upper()}"
    assert free_name("language", reserved) == "language"


def test_each_file_has_its_own_reserved_names() -> None:
    """A name is changed only where it would be taken for one of that file's columns."""
    assert (version_column("Score"), column_of("Score")) == ('"key_Score"', "key_Score")
    assert (version_column("verdict"), column_of("verdict")) == ('"verdict"', "key_verdict")
    assert (version_column("lookup"), column_of("lookup")) == ('"key_lookup"', "lookup")
