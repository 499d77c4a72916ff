"""The query list: keys, duplicates, conflicts and bad rows, whatever its columns are called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Counts
from batchinfer.inputs.parquet import ListSource
from batchinfer.planning import prepare
from batchinfer.planning.prepare import Prepared
from tests.factories import World, imports_job, model_job, write
from tests.plans import asked, counts

Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows."""

    def job(rows: dict[str, Any], **sections: Any) -> World:
        return model_job(tmp_path, rows, **sections)

    return job


def bad_rows(p: Prepared) -> list[tuple[int, str]]:
    table = p.query_list.bad_rows().to_pydict()
    return sorted(zip(table["row"], table["reason"], strict=True))


def test_rows_of_one_key_with_different_content_are_bad(make: Make) -> None:
    """Where a lookup key stands for two questions no answer would be right: all its rows are bad and name each other."""
    world = make({"it's a key": ["a", "b", "a", "c", "a", "b"], "text": ["1", "2", "3", "4", "1", "2"]},
                 input={"path": "queries.parquet", "key": ["it's a key"]})  # fmt: skip
    with world.prepared() as p:
        assert bad_rows(p) == [(1, "conflicting_rows"), (3, "conflicting_rows"), (5, "conflicting_rows")]
        (detail,) = set(p.query_list.bad_rows()["detail"].to_pylist())
        assert detail == "Rows 1, 3, 5 have the same lookup key but different content."
        assert set(p.query_list.bad_rows()["query"].to_pylist()) == {'{"it\'s a key":"a"}'}
        assert p.plan.counts == Counts(
            rows=6, bad=3, duplicates=1, unique=2, cached=0, failed=0, to_generate=2, lookups=3
        )  # fmt: skip


def test_conflicts_are_found_across_batches_and_files(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's second meaning is found wherever in the list it stands; of many rows the first five are named."""
    monkeypatch.setattr(prepare, "ListSource", functools.partial(ListSource, rows_at_once=2))
    world = make({"id": [1, 2, 1], "text": ["a", "b", "a"]}, input={"path": "*.parquet", "key": ["id"]})
    write(world.job.folder / "r.parquet", {"id": [3, 1, 1, 1, 1], "text": ["c", "other", "a", "a", "a"]})
    with world.prepared() as p:
        assert [row for row, _ in bad_rows(p)] == [1, 3, 5, 6, 7, 8]
        assert p.query_list.bad_rows()["detail"][0].as_py().startswith("Rows 1, 3, 5, 6, 7 have the same lookup key")


def test_a_conflict_is_about_what_the_template_uses(make: Make) -> None:
    """Rows of one key that differ only in columns that the template does not use are duplicates, not conflicts."""
    found = counts(make({"id": [1, 1], "text": ["a", "a"], "note": ["x", "y"]}))
    assert (found.bad, found.duplicates, found.unique) == (0, 1, 1)


def test_bad_rows_are_told_with_file_row_and_query(make: Make) -> None:
    """Bad rows carry their place and the key that they would have had."""
    world = make({"id": ["é", None], "text": ["", "x"]})
    with world.prepared() as p:
        bad = p.query_list.bad_rows().to_pylist()
    assert sorted(bad, key=lambda row: int(row["row"])) == [
        {"row": 1, "query": '{"id": "é"}', "reason": "empty_value",
         "detail": "queries.parquet, row 1: The column text is an empty text."},
        {"row": 2, "query": '{"id": null}', "reason": "null_key",
         "detail": "queries.parquet, row 2: The column id is null."},
    ]  # fmt: skip


def test_normalised_keys_are_one_key(make: Make) -> None:
    """Under input.normalize, keys that differ only in form are one lookup key; what is asked stays as written."""
    normal = {"path": "queries.parquet", "key": ["id"], "normalize": ["nfkc", "casefold", "trim"]}
    world = make({"id": ["Café", "CAFE\u0301 ", "tea"], "text": ["a", "a", "b"]}, input=normal)
    found = counts(world)
    assert (found.bad, found.duplicates, found.lookups) == (0, 1, 2)
    assert counts(world.changed(input={"path": "queries.parquet", "key": ["id"]})).lookups == 3
    world.rows({"id": ["Café", "cafe\u0301"], "text": ["a", "b"]})
    with world.changed(input=normal).prepared() as p:
        assert bad_rows(p) == [(1, "conflicting_rows"), (2, "conflicting_rows")]


@pytest.mark.parametrize("name", ["key", "prompt_key", "Lookup", "lookup_hash", "row", 'a"b', "größe"])
@pytest.mark.long
def test_any_name_of_a_column_will_do(make: Make, name: str) -> None:
    """A list's columns may bear the names that the plan uses for itself, and signs that mean something in SQL."""
    world = make({name: ["x", "y"], "text": ["a", "b"]}, input={"path": "queries.parquet", "key": [name]})
    world.answer(lambda row: f"about {row['text']}" if row[name] == "x" else None)
    assert asked(world) == ["b"]
    assert asked(world, refresh=True, refresh_where=(name, "x")) == ["a", "b"]


def test_a_column_named_key_may_be_asked_about(make: Make) -> None:
    """A template may use columns that bear the plan's own names."""
    world = make({"id": [1, 2], "key": ["a", "b"], "Lookup": ["x", "y"]}, prompt={"template": "{{ Lookup }} {{ key }}"})
    assert asked(world, "key") == ["a", "b"]
    world.answer(lambda row: row["key"])
    assert counts(world).cached == 2


def test_a_bad_row_does_not_count_its_key_twice(make: Make) -> None:
    """A key that also has a good row is one key of the list; a bad row without a key is none."""
    world = make({"id": [1, 1, 2, None, 3, 3], "text": ["a", None, None, "x", "a", "b"]})
    found = counts(world)
    assert (found.rows, found.bad, found.lookups) == (6, 5, 3)


def test_an_imports_job_has_no_conflicts(tmp_path: Path) -> None:
    """Where nothing is asked, two spellings of one normalised key are one key, not two questions."""
    keyed = {"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]}
    found = counts(imports_job(tmp_path, {"id": ["Tea", "TEA", "milk"]}, input=keyed))
    assert (found.bad, found.duplicates, found.unique, found.lookups) == (0, 1, 2, 2)


def test_a_filtered_list_counts_only_what_it_keeps(make: Make) -> None:
    """Rows that input.where drops are no part of the list; a list of which none is left is empty, not an error."""
    where = {"path": "queries.parquet", "key": ["id"], "where": {"lang": "de"}}
    world = make({"id": [1, 2, None], "text": ["a", "b", "c"], "lang": ["de", "en", "en"]}, input=where)
    assert counts(world) == Counts(rows=1, bad=0, duplicates=0, unique=1, cached=0, failed=0, to_generate=1, lookups=1)
    assert counts(world.changed(input={**where, "where": {"lang": "fr"}})).rows == 0
