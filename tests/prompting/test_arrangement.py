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


def test_a_paragraph_moves_as_a_whole() -> None:
    """With its heading; what stands before all columns stays in front, and what the answer follows at the end."""
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


def test_lines_that_are_a_name_and_a_column_may_move() -> None:
    """An instruction right above them stays in front; a closed tag moves with what is in it."""
    found = taken_apart("You judge.\nReview: {{ text }}\nGuide: {{ guide }}\nAnswer:")
    assert found is not None
    assert found.arranged([1, 0]) == "You judge.\nGuide: {{ guide }}\nReview: {{ text }}\nAnswer:"
    found = taken_apart("<review>\n{{ text }}\n</review>\n\n<guide>\n{{ guide }}\n</guide>\n\nOne word.")
    assert found is not None
    assert found.arranged([1, 0]) == "<guide>\n{{ guide }}\n</guide>\n\n<review>\n{{ text }}\n</review>\n\nOne word."


@pytest.mark.parametrize("template", [
    "{{ text }}",
    "{{ text }} in {{ language }}",
    "{% if text %}\n{{ text }}\n{% endif %}\n{{ language }}",
    "{# a note #}\n{{ text }}\n{{ language }}",
    "{{ text\n}}\n{{ language }}",
    "{{ text }}\n{{ 'no column' }}",
    "<review>\n{{ text }}\n</review>\n<guide>\n{{ guide }}\n</guide>",
    "<all>\n{{ text }}\n\n{{ guide }}\n</all>",
    "```\n{{ text }}\n\n{{ guide }}\n```",
    "Judge whether the text\n{{ text }}\nis about\n{{ topic }}",
    "1. {{ text }}\n2. {{ guide }}",
    "Text 1: {{ text }}\nText 2: {{ other }}",
    "Answer A: {{ text }}\nAnswer B: {{ other }}\nWhich is better?",
    "{{ text }}\n\n{{ other }}\n\nIs the second one better?",
    "Review: {{ text }}\n\nRead this now.\n\nGuide: {{ guide }}",
    '{{ row["x"] }}\n{{ row }}',
    "{{ range }}\n{{ range(3) }}",
])  # fmt: skip
def test_what_may_not_move(template: str) -> None:
    """One part alone, parts of a line, statements, what stands between parts, tags and fences across them, and words of order."""
    assert taken_apart(template) is None


def test_a_row_by_its_name_is_a_column() -> None:
    """As for columns whose names are no variables."""
    found = taken_apart('{{ row["A b"] }}\n{{ text }}\n')
    assert found is not None
    assert found.columns(0) == ["A b"]
    assert found.arranged([1, 0]) == '{{ text }}\n{{ row["A b"] }}\n'


LINES = st.lists(
    st.sampled_from(["{{ a }}", "name: {{ b }}", "head", "", "  ", "{{ c }}{{ d }}"]), min_size=1, max_size=9
)


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
