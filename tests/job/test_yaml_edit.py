"""Job files changed in some fields: the rest stays as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.job import yaml_file
from batchinfer.job.yaml_edit import REMOVED, CannotEdit, edited

JOB = """\
# the job
name: shop
prompt:  # what is asked
  # kindly
  system: |
    Be # kind.

  template: "{{ text }}"   # a row
  examples:
    - {input: {text: a}, output: b}
    # one more
    - input: {text: c}
      output: d

  # how many
  shots: 1
model: {id: one, revision: main}  # small

# the end
"""


def test_only_the_field_changes() -> None:
    """Comments, blank lines and the order of fields stay."""
    assert edited(JOB, "prompt", {"shots": "all"}) == JOB.replace("shots: 1", "shots: all")
    text = edited(JOB, "prompt", {"system": "Be brief."})
    assert text == JOB.replace("  system: |\n    Be # kind.\n", "  system: Be brief.\n")
    text = edited(JOB, "prompt", {"examples": []})
    before, _, after = JOB.partition("  examples:\n")
    assert text == before + "  examples: []\n" + after[after.index("\n  # how many") :]


def test_a_new_field_comes_last() -> None:
    """A field that is not there yet is written after the others of its section."""
    assert edited(JOB, "prompt", {"format": "chat"}) == JOB.replace("  shots: 1\n", "  shots: 1\n  format: chat\n")


NESTED = """\
model:
  id: one  # small
  options:
    # memory
    max_model_len: 512  # enough
    seed: 7
output: {type: text}
"""


def test_a_section_within_another_is_changed_alone() -> None:
    """Its comments stay, too; where one of the sections around it is on one line, that is written again as a whole."""
    place = ("model", "options")
    text = edited(NESTED, place, {"max_num_seqs": 64, "seed": 8})
    assert text == NESTED.replace("    seed: 7\n", "    seed: 8\n    max_num_seqs: 64\n")
    flat = edited(NESTED.replace("  options:\n", "  options: {a: 1}\n").partition("    #")[0], place, {"b": [1, 2]})
    assert flat == "model:\n  id: one  # small\n  options:\n    a: 1\n    b:\n    - 1\n    - 2\n"
    line = edited("model: {id: one, options: {a: 1}}  # all\nname: x\n", place, {"b": True})
    assert yaml_file.read(line)[1] == {"model": {"id": "one", "options": {"a": 1, "b": True}}, "name": "x"}
    with pytest.raises(CannotEdit):
        edited("model:\n  id: one\n  options: {}\n", place, {"b": True})


def test_a_section_on_one_line_is_written_again() -> None:
    """Also without a field that goes."""
    text = edited(JOB, "model", {"id": "two", "revision": REMOVED})
    assert text == JOB.replace("model: {id: one, revision: main}  # small\n", "model:\n  id: two\n")


def test_a_file_without_an_end_of_line() -> None:
    """The last line need not end."""
    assert edited("prompt:\n  template: a", "prompt", {"shots": 2}) == "prompt:\n  template: a\n  shots: 2\n"


def test_what_cannot_be_changed() -> None:
    """A section that is an alias's, or that merges another, would change elsewhere, too."""
    with pytest.raises(CannotEdit):
        edited("base: &b {template: a}\nprompt: *b\n", "prompt", {"shots": 2})
    with pytest.raises(CannotEdit):
        edited("prompt: []\n", "prompt", {"shots": 2})


texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t:#-'\"{}[]|>&*!%@`"), max_size=30
)
plain = st.sampled_from(
    ["Yes", "no", "0123", "1e5", "1_000", "~", "null", "2026-01-31", "10:30", "0x1F", " a", "a ", "- a", "", "…"]
)
values = texts | plain | st.booleans() | st.integers(-1000, 1000) | st.none()


@given(
    st.lists(
        st.fixed_dictionaries(
            {"input": st.dictionaries(st.sampled_from(["text", "a b"]), values), "output": texts | plain}
        )
    )
)
@pytest.mark.long
def test_any_value_is_read_as_it_was_meant(examples: list[dict[str, object]]) -> None:
    """What looks like a number, a truth or YAML itself comes back as the text that it is."""
    text = edited(JOB, "prompt", {"examples": examples, "system": "x"})
    _, content = yaml_file.read(text)
    assert content["prompt"]["examples"] == examples
    assert content["prompt"]["shots"] == 1
    assert "# how many" in text
