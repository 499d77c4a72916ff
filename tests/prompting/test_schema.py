"""Patterns of a job file: those that mean something else in Python are refused."""

from __future__ import annotations

import pytest

from batchinfer.prompting.schema import compiles


@pytest.mark.parametrize("pattern", ["[[:alpha:]]+", "x[^[:digit:]]", "[[:^space:]a]"])
def test_posix_classes_are_refused_in_a_sentence(pattern: str) -> None:
    """Python takes them for sets of their letters, which nobody means."""
    with pytest.raises(ValueError, match=r"\[:\^?[a-z]+:\] is not known, write letters as a-z"):
        compiles(pattern)


@pytest.mark.parametrize("pattern", ["[[a]", "[:a:]", "[a-z&&b]"])
def test_sets_that_python_warns_of_are_taken_quietly(pattern: str) -> None:
    """A warning with a line of our source helps nobody; here warnings are errors."""
    assert compiles(pattern) == pattern
