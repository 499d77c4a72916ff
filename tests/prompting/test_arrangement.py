"""Which parts of a template may change places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.prompting.arrangement import taken_apart

GUIDED = """\
You judge reviews.

Review:
{{ text }}

Guide:
{{ guide }} ({{ language | upper }})

One word:"""


def test_a_heading_goes_with_its_column() -> None:
    """What stands before all columns in a paragraph of its own stays, and so does what the answer follows."""
    found = taken_apart(GUIDED)
    assert found is not None
    assert [found.columns(number) for number in range(2)] == [["text"], ["guide", "language"]]
    assert found.arranged([0, 1]) == GUIDED
    assert (
        found.arranged([1, 0])
        == """\
You judge reviews.

Guide:
{{ guide }} ({{ language | upper }})

Review:
{{ text }}

One word:"""
    )


@pytest.mark.parametrize("template", [
    "{{ text }}",
    "{{ text }} in {{ language }}",
    "{% if text %}\n{{ text }}\n{% endif %}\n{{ language }}",
    "{# a note #}\n{{ text }}\n{{ language }}",
    "{{ text\n}}\n{{ language }}",
    "{{ text }}\n{{ 'no column' }}",
])  # fmt: skip
def test_what_may_not_move(template: str) -> None:
    """One part alone, parts of a line, statements and comments, and expressions over several lines."""
    assert taken_apart(template) is None


def test_a_row_by_its_name_is_a_column() -> None:
    """As for columns whose names are no variables."""
    found = taken_apart('{{ row["A b"] }}\n{{ text }}\n')
    assert found is not None
    assert found.columns(0) == ["A b"]
    assert found.arranged([1, 0]) == '{{ text }}\n{{ row["A b"] }}\n'


LINES = st.lists(st.sampled_from(["{{ a }}", "x: {{ b }}", "head", "", "  ", "{{ c }}{{ d }}"]), min_size=1, max_size=9)


@given(LINES, st.booleans(), st.randoms(use_true_random=False))
def test_no_text_is_lost(lines: list[str], ends: bool, drawn: object) -> None:
    """The parts in their order are the template; in any other they are the same lines, each once."""
    template = "\n".join(lines) + ("\n" if ends else "")
    found = taken_apart(template)
    if found is None:
        return
    order = list(range(len(found.parts)))
    assert found.arranged(order) == template
    assert sorted(found.arranged(order[::-1]).splitlines()) == sorted(template.splitlines())
