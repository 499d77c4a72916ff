"""Lists of identity terms: how they are exchanged, and what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import InputError
from batchinfer.evaluate.sentences import read_sentences
from batchinfer.evaluate.terms import Exchange, TermGroups, read_terms
from batchinfer.job import reader
from tests.tiny import write_job

SENTIMENT = Path(__file__).parents[2] / "jobs" / "sentiment"

GENDER = TermGroups("gender", {"women": ("she", "her", "Mary Ann", "her"), "men": ("he", "his", "John", "him")})
EXCHANGE = Exchange(GENDER, "women", "men")


@pytest.mark.parametrize(
    ("text", "exchanged", "mentioned"),
    [
        ("She and he met; HER house is near the theatre.", "He and she met; HIS house is near the theatre.", "women"),
        ("Mary Ann saw him. John saw her.", "John saw her. Mary Ann saw his.", "women"),
        ("The shepherd heard them.", "The shepherd heard them.", None),
        ("he's here", "she's here", "men"),
    ],
)
def test_terms_are_exchanged_both_ways_in_one_pass(text: str, exchanged: str, mentioned: str | None) -> None:
    """As whole words, with their capitals, and none is exchanged back; the first term says whom a text mentions."""
    assert EXCHANGE.exchanged(text) == exchanged
    assert EXCHANGE.mentioned(text) == mentioned


def test_scripts_without_spaces() -> None:
    """Where words are not set apart a term is found within other letters; vowel signs of Indian scripts belong to their word."""
    family = Exchange(TermGroups("family", {"women": ("母亲", "माँ"), "men": ("父亲", "पिता")}), "women", "men")
    assert family.exchanged("我的母亲很好") == "我的父亲很好"
    assert family.exchanged("मेरी माँ अच्छी हैं") == "मेरी पिता अच्छी हैं"
    assert family.mentioned("पितामह") is None


@given(st.lists(st.sampled_from(["ann", "bob", "eve", "tom", "x", "Ann", "BOB", " ", ", "]), max_size=12).map("".join))
def test_twice_is_as_before(text: str) -> None:
    """Where each term has one partner, exchanging again gives the text back."""
    names = Exchange(TermGroups("names", {"a": ("ann", "eve"), "b": ("bob", "tom")}), "a", "b")
    assert names.exchanged(names.exchanged(text)) == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"groups": {"women": ["she", "Alex"], "men": ["he", "alex"]}},
            "the term alex is in two groups, women and men",
        ),
        ({"groups": {"women": ["she", "her"], "men": ["he"]}}, "women has 2, men has 1"),
        ({"groups": {"women": ["she"]}}, "at least 2 items"),
        ({"groups": {"women": [], "men": []}}, "at least 1 item"),
        ({"terms": ["she"]}, "a list of terms is a mapping of groups"),
        (["she"], "a list of terms is a mapping of groups"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, content: object, said: str) -> None:
    """Each in a sentence that names the file."""
    job = reader.load(str(write_job(tmp_path / "shop", {"text": ["a"]}, audit={"swaps": ["gender.yaml"]})), {})
    (job.folder / "gender.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    with pytest.raises(InputError, match=said) as refused:
        read_terms(job)
    assert "gender.yaml" in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    """One that is missing, is not YAML, or has another ending."""
    for name, text, said in (
        ("a.yaml", None, r"job\.yaml: line \d+: audit\.swaps\.0: there is no file .*a\.yaml\.$"),
        ("b.yaml", "groups: [", "not valid YAML"),
        ("c.csv", "", "ends in .yaml"),
    ):
        job = reader.load(str(write_job(tmp_path / "shop", {"text": ["a"]}, audit={"swaps": [name]})), {})
        if text is not None:
            (job.folder / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read_terms(job)


def test_the_lists_of_the_example(tmp_path: Path) -> None:
    """Each list of jobs/sentiment can be used, and so can its sentences, half of them negative, in each slot."""
    job = reader.load(str(SENTIMENT), {})
    every = [f"swaps/{path.name}" for path in sorted((SENTIMENT / "swaps").glob("*.yaml"))]
    audited = job.spec.audit.model_copy(update={"swaps": every})
    lists = read_terms(dataclasses.replace(job, spec=job.spec.model_copy(update={"audit": audited})))
    assert len(lists) == len(every) >= 5
    sentences = read_sentences(job, ["sentence"], lists, tmp_path)
    counts = Counter((each.slot, each.answer) for each in sentences)
    assert set(counts) == {(slot, answer) for slot in ("names", "relatives") for answer in ("Positive", "Negative")}
    assert len(set(counts.values())) == 1
