"""Generation → prediction or failure: scores, steps, schemas, and every way in which an answer gives no prediction."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchinfer.core.records import Failure, Generation, Prediction
from batchinfer.errors import MissingExtra
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import Parser

KEY = b"k" * 16
INF = math.inf


def generation(text: str = "", logprobs: tuple[float, ...] | None = None, finish_reason: str = "stop") -> Generation:
    """What an engine hands back."""
    return Generation(KEY, text, finish_reason, prompt_tokens=9, cached_tokens=0, output_tokens=17, logprobs=logprobs)


def read(text: str, **output: Any) -> Any:
    """The value that is read from a text; the test fails if there is none."""
    result = Parser(OutputSpec.model_validate(output))(generation(text), {})
    assert isinstance(result, Prediction), result
    assert (result.score, result.scores, result.mass) == (None, None, None)
    return result.value


def failed(text: str, finish_reason: str = "stop", **output: Any) -> Failure:
    """Why a text gives no prediction; the test fails if it gives one."""
    result = Parser(OutputSpec.model_validate(output))(generation(text, finish_reason=finish_reason), {})
    assert isinstance(result, Failure), result
    assert (result.key, result.stage) == (KEY, "parse")
    return result


def chosen(logprobs: tuple[float, ...] | None, finish_reason: str = "stop", **output: Any) -> Prediction | Failure:
    """What is read from the scores of as many choices as the labels a, b, c and so on."""
    labels = output.pop("choices", None) or ["a", "b", "c", "d", "e", "f"][: max(2, len(logprobs or ()))]
    parser = Parser(OutputSpec.model_validate({"type": "choice", "choices": labels, **output}))
    return parser(generation("whatever the token spells", logprobs, finish_reason), {})


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
    assert result.mass == pytest.approx(min(1.0, math.fsum(math.exp(logprob) for logprob in logprobs)))
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
    assert result.mass == pytest.approx(0.8)


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
    assert (result.key, result.stage, result.reason) == (KEY, "parse", "off_choice")


def test_a_mass_of_a_little_more_than_one_is_one() -> None:
    """Rounding in the engine does not make a probability above 1."""
    result = chosen((math.log(0.5) + 1e-6, math.log(0.5) + 1e-6))
    assert isinstance(result, Prediction)
    assert result.mass == 1.0


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


@pytest.mark.parametrize(
    ("steps", "text", "value"),
    [
        (["strip"], " \n Apple \t", "Apple"),
        (["casefold"], "Stra\u00dfe", "strasse"),
        (["squeeze"], " a  b\n\nc\u00a0d ", "a b c d"),
        (["first_line"], "\n one \ntwo", "one "),
        (["first_line", "strip"], "\n one \ntwo", "one"),
        (["first_line", "strip"], "one\r\ntwo", "one"),
        ([{"split": ","}], "a,b,,a", ["a", "b", "", "a"]),
        ([{"split": ", "}], "a,b", ["a,b"]),
        ([{"split": "\n"}, "strip", "drop_empty", "dedupe"], "b \n\n a\nb\n", ["b", "a"]),
        ([{"split": ","}, "dedupe", "strip"], "a, a", ["a", "a"]),
        ([{"split": ","}, "strip", "dedupe"], "a, a", ["a"]),
        ([{"split": ","}, "dedupe", "casefold"], "A,a", ["a", "a"]),
        ([{"split": ","}, "casefold", "dedupe"], "A,a", ["a"]),
        (["dedupe", "drop_empty"], "aa", "aa"),
        ([], " as it is ", " as it is "),
    ],
)
def test_steps_do_what_they_say_in_their_order(steps: list[Any], text: str, value: Any) -> None:
    """Each step works on the text, or on all items of the list that a split has made of it, one after the other."""
    assert read(text, steps=steps) == value


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
    assert failure.detail == f"The answer {text!r} does not match output.pattern."


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
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


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


def test_steps_reach_all_texts_of_a_value_and_no_names() -> None:
    """Texts at any depth are worked on; names of fields, numbers and null are left alone."""
    text = '{" A ": [" X ", {" b ": " Y "}], "n": 1, "z": null}'
    assert read(text, type="json", schema={}, steps=["strip", "casefold"]) == {
        " A ": ["x", {" b ": "y"}],
        "n": 1,
        "z": None,
    }


@pytest.mark.parametrize(
    ("step", "text", "value"),
    [
        ("dedupe", '[1, 1.0, true, "1", 1, {"a": 1, "b": 2}, {"b": 2, "a": 1}]', [1, 1.0, True, "1", {"a": 1, "b": 2}]),
        ("dedupe", '{"a": ["x", "x"], "b": ["x"]}', {"a": ["x"], "b": ["x"]}),
        ("dedupe", '[["x", "x"], ["x"]]', [["x"]]),
        ("drop_empty", '["", null, 0, false, " ", [], "x"]', [0, False, " ", [], "x"]),
        ("drop_empty", '{"a": "", "b": [""]}', {"a": "", "b": []}),
        ({"split": ","}, '"a,b"', ["a", "b"]),
        ({"split": ","}, '["a,b"]', ["a,b"]),
    ],
)
def test_steps_on_lists_keep_what_differs(step: Any, text: str, value: Any) -> None:
    """Dedupe keeps the first of equal values, 1, 1.0 and true being three; drop_empty takes empty texts and nulls only."""
    assert repr(read(text, type="json", schema={}, steps=[step])) == repr(value)


@given(st.lists(json_values, min_size=1, max_size=6))
def test_dedupe_keeps_each_value_once_in_its_order(items: list[Any]) -> None:
    """Nothing is lost, nothing stays twice, nothing changes place, and a second time changes nothing."""
    text = json.dumps(items + items)
    once = read(text, type="json", schema={}, steps=["dedupe"])
    assert repr(once) == repr(read(text, type="json", schema={}, steps=["dedupe", "dedupe"]))
    flat = [item for item in items if not isinstance(item, list | dict)]
    kept = [item for item in once if not isinstance(item, list | dict)]
    assert [repr(item) for item in kept] == list(dict.fromkeys(repr(item) for item in flat))


def test_reading_changes_nothing() -> None:
    """A parser is pure: the same generation gives an equal prediction each time, with none of its parts shared."""
    parser = Parser(OutputSpec.model_validate({"type": "json", "schema": NAMES}))
    asked = generation('{"names": ["a"]}')
    first, second = parser(asked, {}), parser(asked, {})
    assert isinstance(first, Prediction)
    assert isinstance(second, Prediction)
    first.value["names"].append("b")
    assert second == Prediction({"names": ["a"]})


# Steps that drop.


def dropped(items: list[Any], step: Any, **row: Any) -> Any:
    """What a step leaves of a list."""
    spec = OutputSpec.model_validate({"type": "json", "schema": {}, "steps": [step]})
    result = Parser(spec)(generation(json.dumps(items)), row)
    return result.value if isinstance(result, Prediction) else result.reason


@pytest.mark.parametrize(
    ("pattern", "items", "left"),
    [
        ("N/A", ["N/A", "N/A.", "n/a", "x"], ["N/A.", "n/a", "x"]),
        (r"(?i)n/?a|i cannot .*", ["NA", "I cannot help with that", "I can", "Ana"], ["I can", "Ana"]),
        (".*", ["a\nb", "a"], ["a\nb"]),
        ("x", ["x", ["x", "y"], {"a": "x", "b": ["x"]}, 1, None], [["y"], {"a": "", "b": []}, 1, None]),
        (".*", ["a", "b"], "empty"),
    ],
)
def test_what_a_pattern_matches_as_a_whole_is_dropped(pattern: str, items: list[Any], left: Any) -> None:
    """Items that match only in part stay; a text outside of lists becomes empty; numbers and null are no texts."""
    assert dropped(items, {"drop": pattern}) == left


def test_a_refusal_that_is_the_whole_answer_is_empty() -> None:
    """A text that the pattern matches leaves nothing, which is no prediction."""
    steps = ["strip", {"drop": "I cannot .*"}]
    assert failed(" I cannot say. ", steps=steps).reason == "empty"
    assert read("I can", steps=steps) == "I can"


@pytest.mark.parametrize(
    ("value", "items", "left"),
    [
        (
            "Sputnik V",
            ["Sputnik V", "sputnik v ", "\uff33putnik V", "Sputnik", "Sputnik  V"],
            ["Sputnik", "Sputnik  V"],
        ),
        ("Straße", ["STRASSE", "strasse", "Strase"], ["Strase"]),
        ("e\u0301", ["\u00e9", "e"], ["e"]),
        (7, ["7", 7, "07"], [7, "07"]),
        (None, ["None", ""], ["None", ""]),
    ],
)
def test_an_echo_of_the_row_is_dropped(value: Any, items: list[Any], left: list[Any]) -> None:
    """Equal after normal form, case folding and trimming is an echo; anything else is an answer."""
    assert dropped(items, {"drop_echo": "name"}, name=value) == left


@pytest.mark.parametrize(
    ("tag", "own", "foreign"),
    [
        ("ru", ["Спутник", "Спутник V", "V-вакцина"], ["Sputnik", "疫苗", "Σπούτνικ"]),
        ("de", ["Straße", "Über"], ["Спутник", "لقاح"]),
        ("ja", ["ワクチン", "わくちん", "疫苗", "mRNAワクチン"], ["vaccine", "백신"]),
        ("ko", ["백신", "疫苗", "mRNA 백신"], ["ワクチン", "vaccine"]),
        ("zh-Hans", ["疫苗", "mRNA疫苗"], ["vaccine", "ワクチン"]),
        ("zh-TW", ["疫苗", "ㄧㄇㄧㄠ"], ["vaccine"]),
        ("hi", ["टीका", "कोविशील्ड"], ["vaccine", "টিকা"]),
        ("fa", ["واکسن"], ["vaccine"]),
        ("sr-Latn", ["vakcina"], ["вакцина"]),
        ("el", ["εμβόλιο"], ["vaccine"]),
        ("am", ["ክትባት"], ["vaccine"]),
        ("sr", ["Спутњик В", "Sputnjik V"], ["스푸트니크"]),
        ("sr-Cyrl", ["Спутњик В"], ["Sputnjik V"]),
    ],
)
def test_a_name_in_the_wrong_script_is_dropped(tag: str, own: list[str], foreign: list[str]) -> None:
    """One letter of the language's script is enough to stay; without any, a name with letters goes."""
    assert dropped([*own, *foreign], {"drop_wrong_script": "language"}, language=tag) == own


@pytest.mark.parametrize("tag", ["ru", "ja", "de"])
def test_what_has_no_letters_is_in_no_wrong_script(tag: str) -> None:
    """Numbers, signs and emoji belong to every language."""
    items = ["19", "💉", "+/-", "\u0301", ""]
    assert dropped(items, {"drop_wrong_script": "language"}, language=tag) == items


@pytest.mark.parametrize("tag", ["und", "xx", "not a tag!", "", "ru_RU_", "123", None])
def test_without_a_language_no_script_is_wrong(tag: str | None) -> None:
    """A tag that is none, or of no language, tells nothing about scripts."""
    items = ["Sputnik", "Спутник"]
    assert dropped(items, {"drop_wrong_script": "language"}, language=tag) == items


def test_a_parser_says_which_columns_it_looks_at() -> None:
    """Each column once, in the order of the steps; without such steps, none."""
    steps = [{"drop_wrong_script": "language"}, "strip", {"drop_echo": "name"}, {"drop_echo": "name"}]
    assert Parser(OutputSpec.model_validate({"steps": steps})).columns == ["name", "language"]
    assert Parser(OutputSpec(steps=["strip"])).columns == []


def test_the_row_is_read_anew_for_each_answer() -> None:
    """One parser drops what echoes each row, not what echoed the first."""
    parser = Parser(OutputSpec.model_validate({"steps": [{"split": ","}, {"drop_echo": "name"}]}))
    results = [parser(generation("a,b"), {"name": name}) for name in ("a", "b", "c")]
    assert [result.value for result in results if isinstance(result, Prediction)] == [["b"], ["a"], ["a", "b"]]


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        ({"properties": {"names": {"minItems": 1}}}, '{"names": ["x"]}', "empty"),
        ({"properties": {"names": {"minItems": 1}}}, '{"names": ["x"], "note": "y"}', "empty"),
        ({"properties": {"names": {"minItems": 1}}}, '{"names": ["x"], "more": ["y"]}', "not_in_schema"),
        ({"properties": {"names": {"minItems": 2}}}, '{"names": ["x", "y"]}', "not_in_schema"),
        ({"minItems": 1}, '["x"]', "empty"),
    ],
)
def test_an_answer_whose_steps_leave_nothing_is_empty(schema: dict[str, Any], text: str, reason: str) -> None:
    """Where the schema wants items and no list has any left, the reason is that, not the schema."""
    assert failed(text, type="json", schema=schema, steps=[{"drop": "x"}]).reason == reason


def test_an_empty_list_that_the_schema_allows_is_an_answer() -> None:
    """A model may say that there are no names."""
    assert read('{"names": ["x"]}', type="json", schema={}, steps=[{"drop": "x"}]) == {"names": []}


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser is not even made: hours of generation would come before the first answer is read."""
    monkeypatch.setitem(sys.modules, "langcodes", None)
    with pytest.raises(MissingExtra, match=r"pip install 'batchinfer-cache\[match\]'"):
        Parser(OutputSpec.model_validate({"steps": [{"drop_wrong_script": "language"}]}))
