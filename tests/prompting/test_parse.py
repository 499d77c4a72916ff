"""Generation → prediction or failure: scores, steps, schemas, and every way in which an answer gives no prediction."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchinfer.core.records import Failure, Prediction
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import Parser
from tests.prompting.answers import INF, KEY, LIKELIHOOD, chosen, failed, generation, json_values, likelihood, read

# Choices.

log_probability = st.floats(-40, 0) | st.just(-INF)


@given(st.lists(log_probability, min_size=2, max_size=6).map(tuple))
def test_the_prediction_is_the_likeliest_choice(logprobs: tuple[float, ...]) -> None:
    """Scores sum to one in the proportions of the probabilities, and the prediction's is the highest, first of equals."""
    assume(max(logprobs) > -INF)
    result = chosen(logprobs)
    assert isinstance(result, Prediction)
    assert result.scores is not None
    assert list(result.scores) == ["a", "b", "c", "d", "e", "f"][: len(logprobs)]
    assert math.fsum(result.scores.values()) == pytest.approx(1)
    assert result.score == result.scores[result.value] == max(result.scores.values())
    assert result.value == next(label for label, score in result.scores.items() if score == max(result.scores.values()))
    assert result.choice_mass == pytest.approx(min(1.0, math.fsum(math.exp(logprob) for logprob in logprobs)))
    for label, logprob in zip(result.scores, logprobs, strict=True):
        assert result.scores[label] == pytest.approx(
            math.exp(logprob) / math.fsum(math.exp(other) for other in logprobs)
        )


def test_scores_are_what_they_are_said_to_be() -> None:
    """Probabilities of 0.6 and 0.2 are scores of 0.75 and 0.25, with a mass of 0.8."""
    result = chosen((math.log(0.2), math.log(0.6)), choices=["Positive", "Negative"])
    assert isinstance(result, Prediction)
    assert result.value == "Negative"
    assert result.scores == pytest.approx({"Positive": 0.25, "Negative": 0.75})
    assert result.score == pytest.approx(0.75)
    assert result.choice_mass == pytest.approx(0.8)


@pytest.mark.parametrize("labels", [["no", "yes", "unknown"], ["yes", "unknown", "no"]])
def test_ties_go_by_listed_order(labels: list[str]) -> None:
    """Of equally likely choices the one that is listed first wins, not the first in the alphabet."""
    result = chosen((-2.0, -1.0, -1.0), choices=labels)
    assert isinstance(result, Prediction)
    assert result.value == labels[1]


def test_a_choice_without_any_probability_has_a_score_of_zero() -> None:
    """A logarithm of minus infinity is a probability of zero, and no obstacle to the others."""
    result = chosen((-INF, -1.0))
    assert isinstance(result, Prediction)
    assert (result.value, result.scores) == ("b", {"a": 0.0, "b": 1.0})


@pytest.mark.parametrize("logprobs", [(-INF, -INF), (-5000.0, -6000.0), (math.nan, -1.0), (math.nan, math.nan)])
def test_choices_without_a_mass_are_off_choice(logprobs: tuple[float, ...]) -> None:
    """Where the model gave the choices nothing that can be divided, there is no likeliest one."""
    result = chosen(logprobs)
    assert isinstance(result, Failure)
    assert (result.prompt_key, result.stage, result.reason) == (KEY, "parse", "off_choice")


def test_a_mass_of_a_little_more_than_one_is_one() -> None:
    """Rounding in the engine does not make a probability above 1."""
    result = chosen((math.log(0.5) + 1e-6, math.log(0.5) + 1e-6))
    assert isinstance(result, Prediction)
    assert result.choice_mass == 1.0


@pytest.mark.parametrize(
    ("least", "passes"), [(None, True), (0.0, True), (0.2499, True), (0.2501, False), (1.0, False)]
)
def test_below_min_mass_a_row_is_off_choice(least: float | None, passes: bool) -> None:
    """A row whose choices have together less than min_mass fails, which is off by default."""
    result = chosen((math.log(0.125), math.log(0.125)), min_mass=least)
    assert isinstance(result, Prediction) is passes
    if isinstance(result, Failure):
        assert result.reason == "off_choice"
        assert result.detail == f"The choices together had a probability of 0.2500, under output.min_mass {least}."


def test_exactly_min_mass_is_enough() -> None:
    """A mass that equals min_mass passes."""
    assert isinstance(chosen((0.0, -INF), min_mass=1.0), Prediction)


def test_scores_by_length_have_no_mass() -> None:
    """What was divided by a length makes scores that add up to 1, but is no probability that could be added up before."""
    result = chosen((math.log(0.9), math.log(0.6)), normalize="tokens")
    assert isinstance(result, Prediction)
    assert result.scores == pytest.approx({"a": 0.6, "b": 0.4})
    assert result.choice_mass is None


def test_a_likelihood_is_the_prediction_and_its_score() -> None:
    """The number that the engine gave, as it is; there are no scores of choices beside it."""
    assert likelihood((-3.5,)) == Prediction(-3.5, -3.5)


@pytest.mark.parametrize("logprobs", [None, (), (-1.0, -2.0), (-INF,), (math.nan,)])
def test_a_likelihood_that_is_no_number_is_no_score(logprobs: tuple[float, ...] | None) -> None:
    """A row whose text the engine gave no score, or more than one, fails."""
    result = likelihood(logprobs)
    assert isinstance(result, Failure)
    assert (result.reason, result.detail) == ("no_scores", "The engine returned no score for output.text.")


@pytest.mark.parametrize(
    ("value", "fault"), [(-3.5, None), (-3, None), ("-3.5", 'is "-3.5", not a number'), (True, "is true, not a number")]
)
def test_people_may_give_a_number_for_a_likelihood(value: Any, fault: str | None) -> None:
    """And nothing else."""
    assert Parser(LIKELIHOOD).fault_of(value, {}) == fault


@pytest.mark.parametrize("logprobs", [None, (), (-1.0,), (-1.0, -1.0, -1.0)])
def test_scores_that_do_not_fit_the_choices_are_no_scores(logprobs: tuple[float, ...] | None) -> None:
    """An engine that returned no scores, or another number of them, gives no prediction."""
    result = chosen(logprobs, choices=["a", "b"])
    assert isinstance(result, Failure)
    assert result.reason == "no_scores"


def test_a_choice_is_never_cut_off() -> None:
    """One token decides a choice, so that the engine stopped after one token is no fault."""
    assert isinstance(chosen((-1.0, -2.0), finish_reason="length"), Prediction)


# Texts.


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_text_is_the_answer_as_it_stands(text: str) -> None:
    """Without steps nothing is done to a text, spaces, emoji and combining characters included."""
    assert read(text) == text


@pytest.mark.parametrize(
    "output", [{}, {"type": "json", "schema": {}}, {"type": "regex", "pattern": ".*"}, {"steps": ["first_line"]}]
)
def test_an_answer_that_was_cut_off_is_a_failure(output: dict[str, Any]) -> None:
    """An answer that ran into max_tokens or the window's end is no prediction, even where it would parse; both are named."""
    failure = failed("12", finish_reason="length", **output)
    assert failure.reason == "cut_off"
    assert failure.detail == (
        "The answer was cut off after 17 tokens: "
        "it reached sampling.max_tokens or the end of the model's window (model.options.max_model_len)."
    )


@pytest.mark.parametrize("output", [{}, {"steps": ["strip"]}, {"steps": ["squeeze"]}, {"steps": ["first_line"]}])
@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_answer_is_a_failure(text: str, output: dict[str, Any]) -> None:
    """A text of which nothing is left is no prediction."""
    if text and not output:
        assert read(text) == text
    else:
        assert failed(text, **output).reason == "empty"


def test_a_list_of_which_nothing_is_left_is_empty() -> None:
    """Where all items were empty, there is no prediction."""
    assert failed(" , ,", steps=[{"split": ","}, "strip", "drop_empty"]).reason == "empty"


# Patterns.


@pytest.mark.parametrize(("text", "value"), [("2026", "2026"), ("0", "0")])
def test_a_whole_answer_that_matches_is_taken(text: str, value: str) -> None:
    """What the pattern describes is the prediction, as a text."""
    assert read(text, type="regex", pattern="[0-9]+") == value


@pytest.mark.parametrize("text", ["", "12a", "a12", " 12", "12\n", "1 2", "\u0661"])
def test_an_answer_that_matches_only_in_part_is_refused(text: str) -> None:
    """The pattern is of the whole answer, its last line end included."""
    failure = failed(text, type="regex", pattern="[0-9]+")
    assert failure.reason == "not_in_pattern"
    assert failure.detail == f"The answer is {text!r}, which does not match output.pattern."


def test_steps_come_before_the_pattern() -> None:
    """What is matched is what is served."""
    assert read(" 12 \n", type="regex", pattern="[0-9]+", steps=["strip"]) == "12"
    assert failed("1,2", type="regex", pattern="[0-9,]+", steps=[{"split": ","}]).reason == "not_in_pattern"


# JSON.

NAMES = {
    "type": "object",
    "properties": {
        "names": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3, "uniqueItems": True}
    },
    "required": ["names"],
}


@given(json_values, st.booleans(), st.sampled_from([None, 2]))
def test_a_json_value_comes_back_as_it_was_written(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Any JSON value is read as that value and no other, however it was spelled; only an empty text or list is no answer."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    if value in ("", []):
        assert failed(text, type="json", schema={}).reason == "empty"
    else:
        assert repr(read(text, type="json", schema={})) == repr(value)


@pytest.mark.parametrize("value", [None, 0, False, {}, [[]], [""], 0.0])
def test_values_that_are_nearly_nothing_are_answers(value: Any) -> None:
    """null, 0, false and an empty mapping are what the model said."""
    assert repr(read(json.dumps(value), type="json", schema={})) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"names": ["a"', "{'names': []}", '{"names": []} and more', "```json\n{}\n```", "undefined", '{"a": 1,}', "01",
        "[" * 100_000, "9" * 5000, "NaN", "[-Infinity]", "1e999", '"\\ud83d"', '{"\\udc00": 1}',
    ],
    ids=lambda text: text[:20] or "nothing",
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    """Broken JSON is not mended, and what Python would read beyond JSON, or could not write again, is no value."""
    failure = failed(text, type="json", schema={})
    assert failure.reason == "not_json"
    assert failure.detail.startswith("The answer is not JSON: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{}", "at the whole: 'names' is a required property."),
        ("[]", "at the whole: [] is not of type 'object'."),
        ('{"names": "a"}', "at names: 'a' is not of type 'array'."),
        ('{"names": ["a", 5]}', "at names[1]: 5 is not of type 'string'."),
        ('{"names": ["abcdef"]}', "at names[0]: 'abcdef' is too long."),
        ('{"names": ["a", "b", "c", "d"]}', "at names: "),
        ('{"names": ["a", "b", "a"]}', "at names: ['a', 'b', 'a'] has non-unique elements."),
    ],
)
def test_a_value_that_breaks_the_schema_is_refused_with_its_place(text: str, place: str) -> None:
    """The schema is checked here too, whatever the engine promised, uniqueItems included."""
    failure = failed(text, type="json", schema=NAMES)
    assert failure.reason == "not_in_schema"
    assert failure.detail.startswith(f"The answer breaks the schema {place}")


def test_a_long_complaint_is_cut_short() -> None:
    """A failure's sentence does not hold a whole answer."""
    assert len(failed(json.dumps(["x" * 10_000]), type="json", schema=NAMES).detail) < 300


def test_the_schema_is_checked_after_the_steps() -> None:
    """What is served obeys the schema: a repeated name is removed before uniqueItems and maxItems are asked for."""
    text = '{"names": [" A", "a ", "B", "", "b"]}'
    assert failed(text, type="json", schema=NAMES).reason == "not_in_schema"
    steps = ["strip", "casefold", "drop_empty", "dedupe"]
    assert read(text, type="json", schema=NAMES, steps=steps) == {"names": ["a", "b"]}
    # In another order the steps leave a repetition, which the schema then finds.
    assert (
        failed(text, type="json", schema=NAMES, steps=["dedupe", "drop_empty", "strip", "casefold"]).reason
        == "not_in_schema"
    )


def test_reading_changes_nothing() -> None:
    """A parser is pure: the same generation gives an equal prediction each time, with none of its parts shared."""
    parser = Parser(OutputSpec.model_validate({"type": "json", "schema": NAMES}))
    asked = generation('{"names": ["a"]}')
    first, second = parser(asked, {}), parser(asked, {})
    assert isinstance(first, Prediction)
    assert isinstance(second, Prediction)
    first.value["names"].append("b")
    assert second == Prediction({"names": ["a"]})
