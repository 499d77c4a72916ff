"""Steps: what is done to the texts and lists of an answer."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.records import Prediction
from batchinfer.errors import MissingExtra
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import Parser
from tests.prompting.answers import failed, generation, json_values, read


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
@pytest.mark.long
def test_dedupe_keeps_each_value_once_in_its_order(items: list[Any]) -> None:
    """Nothing is lost, nothing stays twice, nothing changes place, and a second time changes nothing."""
    text = json.dumps(items + items)
    once = read(text, type="json", schema={}, steps=["dedupe"])
    assert repr(once) == repr(read(text, type="json", schema={}, steps=["dedupe", "dedupe"]))
    flat = [item for item in items if not isinstance(item, list | dict)]
    kept = [item for item in once if not isinstance(item, list | dict)]
    assert [repr(item) for item in kept] == list(dict.fromkeys(repr(item) for item in flat))


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
        (".*", ["a", "b"], []),
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


@pytest.mark.parametrize(
    ("tag", "own", "mixed"),
    [
        ("en", ["mRNA vaccine", "Comirnaty®", "Ⅱ vaccine", "naïve"], ["mRNA疫苗", "Vаccine", "疫苗"]),
        ("bn", ["আস্ত্রাজেনেকা", "mRNA টিকা", "কোভিশিল্ড-V"], ["আস্ত্রেনиক", "टीকা"]),
        (
            "ru",
            ["Спутник V", "мРНК-вакцина", "вакцина Pfizer", "mRNA-вакцина"],
            ["Спyтник", "вакцинаV", "вакцина疫苗", "Sputnik"],
        ),
        ("el", ["εμβόλιο mRNA"], ["εμβόλιo"]),
        ("sr", ["Спутњик В", "Sputnjik V", "вакцина Pfizer"], ["Sputњik"]),
        ("ja", ["mRNAワクチン", "ファイザー", "疫苗"], ["ワクチン백신", "mRNA"]),
        ("zh-Hans", ["mRNA疫苗"], ["疫苗ワ"]),
        ("ko", ["mRNA백신"], ["백신ワ"]),
        ("th", ["วัคซีนmRNA"], ["วัคซีนс"]),
        ("he", ["הPfizer"], ["חיסוןа"]),
        ("hi", ["Pfizerवाला"], ["টিকা", "टीकाа"]),
        ("xx", ["Vаccine"], []),
    ],
)
def test_a_name_in_mixed_scripts_is_dropped(tag: str, own: list[str], mixed: list[str]) -> None:
    """Latin letters may stand beside others, but not within a word that looks alike; without `mixed` all of that stays."""
    step = {"drop_wrong_script": {"language": "language", "mixed": "drop"}}
    assert dropped([*own, *mixed], step, language=tag) == own
    kept = {"drop_wrong_script": {"language": "language"}}
    assert dropped([*own, *mixed], kept, language=tag) == dropped(
        [*own, *mixed], {"drop_wrong_script": "language"}, language=tag
    )


def test_what_matching_takes_for_equal_is_there_once() -> None:
    """The first of them stays, in each list; what folding leaves nothing of is compared as it is."""
    items = [
        "Vaksin",
        "vaksin",
        "VAKSIN",
        "mRNA-vaksin",
        "mRNA–vaksin",
        "...",
        "…",
        1,
        1,
        ["x", "X"],
        {"a": ["É", "é"]},
    ]
    left = ["Vaksin", "mRNA-vaksin", "...", "…", 1, 1, ["x"], {"a": ["É"]}]
    assert dropped(items, {"dedupe": "folded"}) == left


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
        ({"properties": {"names": {"minItems": 1}}}, '{"names": []}', "empty"),
        ({"properties": {"names": {"minItems": 1}}}, '{"names": [""], "note": "y"}', "empty"),
        ({"properties": {"names": {"minItems": 1}}}, '{"names": ["x"], "more": ["y"]}', "not_in_schema"),
        ({"properties": {"names": {"minItems": 2}}}, '{"names": ["x", "y"]}', "not_in_schema"),
        ({"minItems": 1}, "[]", "empty"),
        ({"required": ["n"], "properties": {"names": {"minItems": 1}}}, '{"names": ["x"]}', "not_in_schema"),
    ],
)
def test_a_list_that_the_model_left_empty_is_a_failure(schema: dict[str, Any], text: str, reason: str) -> None:
    """Where the schema wants items and the model gave none, the reason is that, not the schema; what else is wrong stays so."""
    assert failed(text, type="json", schema=schema, steps=[{"drop": "x"}, "drop_empty"]).reason == reason


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"properties": {"names": {"minItems": 1}}}, '{"names": ["x"]}', {"names": []}),
        ({"properties": {"names": {"minItems": 1}}}, '{"names": ["x"], "note": "y"}', {"names": [], "note": "y"}),
        ({"minItems": 2}, '["x", "x"]', []),
        ({}, '["x"]', []),
    ],
)
def test_a_list_that_the_steps_emptied_is_an_empty_prediction(schema: dict[str, Any], text: str, value: Any) -> None:
    """The model did answer, and nothing of it is wanted: so says the prediction, which people may give, too."""
    steps = [{"drop": "x"}, "drop_empty"]
    assert read(text, type="json", schema=schema, steps=steps) == value
    parser = Parser(OutputSpec.model_validate({"type": "json", "schema": schema, "steps": steps}))
    assert parser.fault_of(value, {}) is None
    assert Parser(OutputSpec.model_validate({"type": "json", "schema": {"minItems": 1}})).fault_of([], {}) is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["Moderna", "a "]', []),
        ('["N/A", "x "]', []),
        ('["x "]', []),
        ('["Moderna", "  "]', []),
        ('["  "]', "empty"),
        ('["Moderna", "a ", 1]', "not_in_schema"),
        ('["Moderna", "Moderna", "a ", "Moderna", "N/A", "b "]', "not_in_schema"),
        ('["Moderna", "a ", "Spikevax"]', ["Spikevax"]),
    ],
)
def test_what_tidying_shortens_may_be_dropped(text: str, value: Any) -> None:
    """An item that is too short once its spaces are gone, and is dropped, is no fault of a list that is empty then.

    Too many items are, and an item that no step drops.
    """
    steps: list[Any] = ["squeeze", {"drop": ".?"}, {"drop": "N/A"}, {"drop_echo": "name"}, "drop_empty"]
    schema = {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 1, "maxItems": 5}
    parser = Parser(OutputSpec.model_validate({"type": "json", "schema": schema, "steps": steps}))
    found = parser(generation(text), {"name": "Moderna"})
    assert (found.value if isinstance(found, Prediction) else found.reason) == value


def test_a_split_text_may_be_emptied_too() -> None:
    """What a split made of a text counts as a list; a text without anything between its commas is empty as before."""
    steps: list[Any] = [{"split": ","}, "strip", "drop_empty", {"drop": "n/a"}]
    assert read("n/a, n/a", steps=steps) == []
    assert failed(" , ,", steps=steps).reason == "empty"


def test_an_empty_list_that_the_schema_allows_is_an_answer() -> None:
    """A model may say that there are no names."""
    assert read('{"names": ["x"]}', type="json", schema={}, steps=[{"drop": "x"}]) == {"names": []}


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser is not even made: hours of generation would come before the first answer is read."""
    monkeypatch.setitem(sys.modules, "langcodes", None)
    with pytest.raises(MissingExtra, match=r"pip install 'batchinfer-cache\[match\]'"):
        Parser(OutputSpec.model_validate({"steps": [{"drop_wrong_script": "language"}]}))
    monkeypatch.setitem(sys.modules, "regex", None)
    with pytest.raises(MissingExtra, match=r"dedupe: folded needs \(regex\)"):
        Parser(OutputSpec.model_validate({"steps": [{"dedupe": "folded"}]}))
