"""The text of a row whose likelihood is asked for."""

from __future__ import annotations

import pytest

from batchinfer.errors import SpecError
from batchinfer.prompting.likelihood import ScoredText, used_columns
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import TemplateFault


def test_a_rows_text_is_its_template_filled_in() -> None:
    """Without white space around it: the place that it is written in brings its own."""
    text = ScoredText(" {{ term }}{{ end }} ", "job.yaml")
    assert text.columns == ["term", "end"]
    assert text.of({"term": "ulta dawa", "end": ".", "other": 1}) == "ulta dawa."


@pytest.mark.parametrize("term", ["", "  "])
def test_nothing_cannot_be_scored(term: str) -> None:
    """A row without a text is a failure that names the field."""
    with pytest.raises(TemplateFault, match=r"^output\.text is empty, so there is nothing to score\.$"):
        ScoredText("{{ term }}", "job.yaml").of({"term": term})


def test_a_template_that_cannot_be_used_is_refused_by_its_field() -> None:
    """As prompt.template is, in the name of output.text."""
    with pytest.raises(SpecError, match=r"output\.text"):
        ScoredText("{{ term", "job.yaml")


def test_a_question_is_made_of_the_columns_of_both() -> None:
    """Those of the prompt come first, so that rows with one prompt lie together."""
    prompt = PromptSpec(template="{{ language }}: {{ concept }}")
    output = OutputSpec(type="likelihood", text="{{ term }} ({{ language }})")
    assert used_columns(prompt, output, "job.yaml") == ["language", "concept", "term"]
    assert used_columns(prompt, OutputSpec(), "job.yaml") == ["language", "concept"]
