"""input.include_misses and serve.misses in the job file."""

from __future__ import annotations

import pytest

from batchinfer.errors import SpecError
from batchinfer.job import reader

BEGIN = "name: shop\ninput:\n  path: q.parquet\n  key: [term, land]\n"
ASKING = "model: {id: org/name}\nprompt:\n  template: '{{ term }} {{ note }}'\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            BEGIN + "  include_misses: {at_least: 3}\n" + ASKING,
            [
                "line 5: input.include_misses: prompt.template uses note, and a miss has only the columns of input.key: put it there."
            ],
        ),
        (
            BEGIN
            + "  where: {good: true, of: 1, land: de}\n  include_misses: {at_least: 0}\nkeep_versions: 0\n"
            + ASKING,
            [
                "line 6: input.include_misses.at_least: input should be greater than or equal to 1 (it is 0).",
                "line 6: input.include_misses: input.where names good, of, and a miss has only the columns of input.key: put them there.",
                "line 6: input.include_misses: prompt.template uses note, and a miss has only the columns of input.key: put it there.",
                "line 7: keep_versions: input should be greater than or equal to 1 (it is 0).",
            ],
        ),
        (
            BEGIN + "  include_misses: {}\n",
            [
                "line 5: input.include_misses: the job has no prompt and no model, so nothing would answer them: leave it out."
            ],
        ),
        (
            BEGIN + "  include_misses: {least: 3}\n",
            [
                "line 5: input.include_misses.least: there is no such field; did you mean at_least?",
                "line 5: input.include_misses: the job has no prompt and no model, so nothing would answer them: leave it out.",
            ],
        ),
    ],
    ids=["template", "where, and all other faults", "no model", "typo"],
)
def test_a_job_that_misses_cannot_join_is_refused(text: str, problems: list[str]) -> None:
    """Columns that a miss does not have are reported when the file is read, with the line, among all other faults."""
    with pytest.raises(SpecError) as caught:
        reader.parse(text, "job.yaml")
    assert caught.value.problems == problems


@pytest.mark.parametrize(
    "text",
    [
        BEGIN + "  include_misses: {at_least: 3}\n  optional: [note]\n" + ASKING,
        BEGIN + "  include_misses: {}\n  where: {land: [de]}\n" + ASKING.replace("note", "land"),
        BEGIN + "  include_misses: null\n",
    ],
    ids=["optional", "key only", "null"],
)
def test_a_job_that_misses_can_join_is_taken(text: str) -> None:
    """The template may use the key's columns, and others that may be null; at_least is 1 if nothing is said."""
    spec = reader.parse(text, "job.yaml")
    assert spec.input.include_misses is None or spec.input.include_misses.at_least == (3 if "3" in text else 1)


def test_recording_is_on_unless_the_job_says_no() -> None:
    """serve.misses is true by default, and part of no key."""
    spec = reader.parse(BEGIN, "job.yaml")
    assert spec.serve.misses
    assert not reader.parse(BEGIN + "serve: {misses: false}\n", "job.yaml").serve.misses
    assert "misses" not in spec.beyond_defaults().get("serve", {})
