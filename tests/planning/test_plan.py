"""The plan: what is counted, what is asked again, in which order."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core.clock import now
from batchinfer.core.records import Counts
from tests.factories import Reply, model_job
from tests.plans import REFUSED, Make, asked, counts, echo

TEXT = {"prompt": {"template": "{{ text }}"}}


def test_a_fresh_list_is_asked_once_for_each_question(make: Make) -> None:
    """Without a cache every different prompt is to be generated, once."""
    world = make({"id": [1, 2, 3, 4], "text": ["a", "b", "a", "c"]})
    assert counts(world) == Counts(
        rows=4, bad=0, duplicates=1, unique=3, cached=0, failed=0, to_generate=3, lookups=4
    )  # fmt: skip
    assert sorted(asked(world)) == ["a", "b", "c"]


LISTS = st.lists(
    st.tuples(
        st.sampled_from([None, 1, 2, 3, 4, 5, 6]), st.sampled_from([None, "", "a", "b", "c", "ç"]), st.sampled_from("xy")
    ),
    min_size=1,
    max_size=25,
)  # fmt: skip
REPLIES = st.fixed_dictionaries(
    {text: st.sampled_from(["answer", "refusal", "nothing"]) for text in ("a", "b", "c", "ç")}
)


@given(rows=LISTS, replies=REPLIES, imported=st.sets(st.integers(1, 8), max_size=4))
@settings(max_examples=8, deadline=None)
@pytest.mark.long
def test_counts_add_up(
    rows: list[tuple[int | None, str | None, str]], replies: dict[str, str], imported: set[int]
) -> None:
    """For any list and any outcome: rows = bad + duplicates + unique, and unique = hits + failed + to_generate."""
    ids, texts, notes = (list(column) for column in zip(*rows, strict=True))
    columns = {"id": pa.array(ids, pa.int64()), "text": pa.array(texts, pa.string()), "note": notes}
    contents: dict[int, set[str]] = {}  # what each lookup key asks
    for key, text in zip(ids, texts, strict=True):
        if key is not None and text:
            contents.setdefault(key, set()).add(text)
    clear = {key: next(iter(found)) for key, found in contents.items() if len(found) == 1}
    fine = [text for key, text in zip(ids, texts, strict=True) if key is not None and text and clear.get(key) == text]
    covered = {text for text in fine if all(key in imported for key, asks in clear.items() if asks == text)}

    with tempfile.TemporaryDirectory() as folder:
        world = model_job(Path(folder), columns)
        first = counts(world)
        assert (first.rows, first.bad) == (len(rows), len(rows) - len(fine))
        assert (first.unique, first.to_generate) == (len(set(fine)), len(set(fine)))

        outcomes: dict[str, Reply] = {"answer": "yes", "refusal": REFUSED, "nothing": None}
        world.answer(lambda row: outcomes[replies[row["text"]]])
        by_reply = Counter(replies[text] for text in set(fine))
        second = counts(world)
        found = (second.cached, second.failed, second.to_generate)
        assert found == (by_reply["answer"], by_reply["refusal"], by_reply["nothing"])

        if imported:
            world.take_in({"id": sorted(imported), "prediction": ["ours"] * len(imported)})
        assert sorted(asked(world)) == sorted({text for text in fine if replies[text] == "nothing"} - covered)
        assert counts(world, refresh=True).to_generate == len(set(fine) - covered)


def test_equal_template_values_are_one_prompt(make: Make) -> None:
    """Rows that ask the same are generated once though other services look them up by different keys."""
    world = make({"id": ["a", "b", "c"], "text": ["same", "same", "same"]})
    found = counts(world)
    assert (found.duplicates, found.unique, found.lookups) == (2, 1, 3)


def test_a_prompt_is_its_values_not_their_concatenation(make: Make) -> None:
    """Values that run together to one text in different columns are different prompts."""
    rows = {"id": [1, 2, 3], "a": ["x", "xy", "x"], "b": ["yz", "z", "yz"]}
    world = make(rows, prompt={"template": "{{ a }}{{ b }}"})
    assert counts(world).unique == 2
    world.answer(lambda row: "yes")
    # another template asks another thing
    assert counts(world.changed(prompt={"template": "{{ b }}{{ a }}"})).cached == 0


def test_columns_outside_the_template_never_make_a_miss(make: Make) -> None:
    """Key columns and other columns may change, come and go without any prompt being asked again."""
    world = make({"id": [1, 2], "text": ["a", "b"], "note": ["x", "y"]})
    world.answer(echo)
    world.rows({"note": [1.5, None, 2.5], "text": ["b", "a", "b"], "id": ["new", "newer", "newest"], "more": [1, 2, 3]})
    assert counts(world).to_generate == 0
    assert counts(world.changed(input={"path": "queries.parquet", "key": ["id", "note"]})).to_generate == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["a", "b"], pa.array(["a", "b"], pa.large_string()), id="large_string"),
        pytest.param(["a", "b"], pa.array(["a", "b"]).dictionary_encode(), id="dictionary"),
        pytest.param(["a", "b"], [b"a", b"b"], id="binary"),
        pytest.param([1, 2], pa.array([1, 2], pa.uint8()), id="uint8"),
        pytest.param([1, 2], pa.array([1, 2], pa.uint64()), id="uint64"),
        pytest.param([0.5, -0.0], pa.array([0.5, 0.0], pa.float32()), id="float32"),
        pytest.param([datetime(2026, 1, 1)], pa.array([datetime(2026, 1, 1)], pa.timestamp("ms")), id="timestamp"),  # noqa: DTZ001
        pytest.param([["a"], []], pa.array([["a"], []], pa.large_list(pa.large_string())), id="list"),
    ],
)  # fmt: skip
def test_how_a_value_is_stored_never_makes_a_miss(make: Make, before: Any, after: Any) -> None:
    """The same values in another Arrow type, as another writer would have them, hit the cache."""
    world = make({"id": list(range(len(before))), "text": before})
    world.answer(lambda row: "yes")
    world.rows({"id": list(range(len(before))), "text": after})
    found = counts(world)
    assert (found.cached, found.to_generate) == (len(before), 0)


def test_a_value_of_another_kind_is_another_question(make: Make) -> None:
    """The text 1 and the number 1 are not the same question."""
    world = make({"id": [1], "text": ["1"]})
    world.answer(echo)
    world.rows({"id": [1], "text": [1]})
    assert counts(world).to_generate == 1


def test_what_is_committed_is_a_hit(make: Make) -> None:
    """After a commit only the rest is to be generated, however little was committed."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]})
    world.answer(lambda row: "yes" if row["text"] == "b" else None)
    found = counts(world)
    assert (found.cached, found.to_generate) == (1, 2)
    assert asked(world) == ["a", "c"]


def test_another_question_has_another_cache(make: Make) -> None:
    """A change to what could change an answer makes everything a miss; changing it back finds it all again."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(echo)
    assert counts(world.changed(prompt={"template": "{{ text }}?"})).cached == 0
    assert counts(world.changed(sampling={"temperature": 0.5})).cached == 0
    assert counts(world.changed(**TEXT, sampling=None, engine={"replicas": 2}, gate={"coverage": 0.5})).cached == 2


def test_failures_are_remembered_until_they_are_asked_for(make: Make) -> None:
    """What failed is not tried again by itself; with --retry-failed it is, and nothing else is."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]}, output={"type": "regex", "pattern": "[0-9]+"})
    replies: dict[str, Reply] = {"a": "12", "b": "no digits", "c": REFUSED}
    world.answer(lambda row: replies[row["text"]])
    found = counts(world)
    assert (found.cached, found.failed, found.to_generate) == (1, 2, 0)
    assert asked(world, retry_failed=True) == ["b", "c"]
    world.answer(lambda row: "13", retry_failed=True)
    found = counts(world)
    assert (found.cached, found.failed, found.to_generate) == (3, 0, 0)
    assert world.store.failures() == []


def test_old_generations_are_made_again_after_max_age(make: Make) -> None:
    """cache.max_age makes what is older a miss, and only that; what it makes replaces the old."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(echo)
    with world.store.open(write=True) as db:
        db.execute("UPDATE generations SET created_at = created_at - INTERVAL 30 HOURS WHERE text = 'about a'")
    assert counts(world).cached == 2
    aging = world.changed(cache={"max_age": "1d"})
    assert asked(aging) == ["a"]
    assert asked(world.changed(cache={"max_age": "2d"})) == []
    aging = world.changed(cache={"max_age": "1d"})
    with aging.prepared() as p:
        assert p.selection.replaces


@pytest.mark.long
def test_answers_from_the_future_are_old(make: Make) -> None:
    """What was made while the clock was a year ahead is made again by max_age and by a refresh, once."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(echo)
    with world.store.open(write=True) as db:
        db.execute("UPDATE generations SET created_at = created_at + INTERVAL 1 YEAR WHERE text = 'about a'")
    assert asked(world) == []
    assert asked(world.changed(cache={"max_age": "36500d"})) == ["a"]
    world.data.remember_refresh("all", now() - timedelta(hours=1))
    assert asked(world, refresh=True) == ["a"]
    world.data.remember_refresh("all", now() + timedelta(days=365))
    assert asked(world, refresh=True) == ["a", "b"]
    world.answer(echo, refresh=True)
    assert asked(world.changed(cache={"max_age": "1d"})) == []


def test_refresh_makes_everything_again(make: Make) -> None:
    """--refresh asks all prompts again, those that failed too, and the new answers replace the old."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: "old" if row["text"] == "a" else REFUSED)
    assert asked(world, refresh=True) == ["a", "b"]
    world.answer(lambda row: "new", refresh=True)
    with world.store.open() as db:
        assert db.execute("SELECT text FROM generations").fetchall() == [("new",), ("new",)]
    assert counts(world) == Counts(rows=2, bad=0, duplicates=0, unique=2, cached=2, failed=0, to_generate=0, lookups=2)


@pytest.mark.long
def test_refresh_of_a_value_makes_those_rows_again(make: Make) -> None:
    """--refresh COLUMN=VALUE asks the rows that have the value, of any kind and with any sign in it, and no others."""
    rows = {
        "id": [1, 2, 3],
        "text": ["a", "it's", "c"],
        "day": [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)],
        "flag": [True, True, False],
    }
    world = make(rows, input={"path": "queries.parquet", "key": ["id", "day", "flag"]})
    world.answer(echo)
    expected = {
        ("text", "it's"): ["it's"],
        ("text", "nothing such"): [],
        ("text", "' OR true --"): [],
        ("id", "3"): ["c"],
        ("day", "2026-01-02"): ["it's"],
        ("flag", "true"): ["a", "it's"],
    }
    assert {where: asked(world, refresh=True, refresh_where=where) for where in expected} == expected
    with world.prepared(refresh=True, refresh_where=("id", "3")) as p:
        assert p.selection.replaces


def test_refresh_of_a_key_reaches_a_prompt_that_others_share(make: Make) -> None:
    """A row is made again by its key also where another row asked the same question first."""
    world = make({"id": [1, 2, 3], "text": ["same", "same", "other"]})
    world.answer(echo)
    assert asked(world, refresh=True, refresh_where=("id", "2")) == ["same"]


def test_prompts_that_share_a_prefix_lie_together(make: Make) -> None:
    """Prompts are ordered by the template's columns in the order of their appearance, not by the list's order."""
    rows = {
        "id": list(range(6)),
        "first": ["b", "a", "b", "a", "c", "a"],
        "second": ["2", "9", "1", "1", "0", "10"],
    }
    world = make(rows, prompt={"template": "{{ second }} after {{ first }}"})
    with world.prepared() as p:
        order = [(row["second"], row["first"]) for _, row in p.plan.todo()]
        assert order == sorted(order)
        assert [(row["second"], row["first"]) for _, row in p.plan.todo(2)] == order[:2]
        assert [(row["second"], row["first"]) for _, row in p.plan.todo(2, start=3)] == order[3:5]
    with world.changed(prompt={"template": "{{ first }} before {{ second }}"}).prepared() as p:
        order = [(row["first"], row["second"]) for _, row in p.plan.todo()]
        assert order == sorted(order)


def test_imports_spare_the_model_where_they_cover_a_prompt(make: Make) -> None:
    """A prompt is left out if every row that asks it has an imported prediction, not if only some have."""
    world = make({"id": [1, 2, 3, 4], "text": ["one", "both", "both", "none"]})
    world.take_in({"id": [1, 2], "prediction": ["x", "y"]})
    assert asked(world) == ["both", "none"]
    world.take_in({"id": [3], "prediction": ["z"]})
    assert asked(world) == ["none"]
    found = counts(world, refresh=True)
    assert (found.cached, found.to_generate) == (2, 1)


def test_imports_cover_prompts_that_failed(make: Make) -> None:
    """A failure that people have put right by an import is neither a failure any more nor tried again."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED)
    world.take_in({"id": [1], "prediction": ["mended"]})
    found = counts(world)
    assert (found.cached, found.failed) == (1, 1)
    assert asked(world, retry_failed=True) == ["b"]


def test_normalised_keys_find_their_imports(make: Make) -> None:
    """An import's key is normalised as the list's is."""
    world = make(
        {"id": ["Tea"], "text": ["a"]}, input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]}
    )
    world.take_in({"id": ["TEA"], "prediction": ["x"]})
    assert asked(world) == []
