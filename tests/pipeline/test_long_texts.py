"""Lists and answers of long texts through every command, with little memory for tables."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.cache import pieces
from batchinfer.core import long_rows
from batchinfer.core.home import JobData
from batchinfer.core.long_rows import has_long_texts
from batchinfer.core.long_texts import MOST_TEXT
from batchinfer.core.memory import VARIABLE
from batchinfer.core.output import OutputFile
from batchinfer.errors import InputError
from batchinfer.maintenance import erase
from batchinfer.pipeline import export
from batchinfer.planning.prepare import Options
from batchinfer.publish import diff
from batchinfer.versions.folders import folder_of
from tests.factories import LENIENT, World, imports_job, model_job

ROWS, SIZE = 20, 20_000


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tables."""
    monkeypatch.setenv(VARIABLE, "32MB")


def long_text(number: int, letter: str = "x") -> str:
    """A text that no other number has, and words that are no words."""
    return f'"{number}" ' + letter * SIZE


def body(world: World, **query: Any) -> Any:
    """The prediction that is served for a key."""
    found = world.get(**query)
    return None if found is None else json.loads(found)["prediction"]


@pytest.mark.parametrize("key", ["id", "text"])
@pytest.mark.long
def test_long_texts_in_list_and_answers(tmp_path: Path, key: str) -> None:
    """They are planned, asked, published, reviewed, exported, compared and forgotten, as a key or in the template alone."""
    rows: dict[str, Any] = {"id": list(range(ROWS)), "text": [long_text(number) for number in range(ROWS)]}
    world = model_job(tmp_path, rows, input={"path": "queries.parquet", "key": [key]}, gate=LENIENT)
    world.answer(lambda row: row["text"].upper())
    with world.prepared() as prepared:
        assert (prepared.plan.counts.cached, prepared.plan.counts.to_generate) == (ROWS, 0)
    assert world.publish().version == 1
    assert body(world, **{key: rows[key][7]}) == long_text(7).upper()
    reviewed = world.review()
    assert sorted(row["value"] for row in reviewed) == sorted(text.upper() for text in rows["text"])
    ours, other = (next(row for row in reviewed if row["value"] == long_text(number).upper()) for number in (7, 9))
    ingested = world.judge(
        [ours | {"verdict": "reject"}, other | {"verdict": "correct", "corrected": long_text(9, "z")}]
    )
    assert (ingested.rejected, ingested.corrected, ingested.no_longer_proposed) == (1, 1, 0)
    assert world.publish().version == 2
    assert (body(world, **{key: rows[key][7]}), body(world, **{key: rows[key][9]})) == (None, long_text(9, "z"))
    for ending in ("parquet", "jsonl"):
        out = OutputFile.of(tmp_path / f"out.{ending}")
        export.export(world.job, world.data, Options(), out)
        compared = diff.compare(world.data, ["1", "2"], OutputFile.of(tmp_path / f"diff.{ending}"), 5)
        assert (compared.removed, compared.changed) == (1, 1)
    exported = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in exported] == [text for text in rows["text"] if text != long_text(7)]
    first = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(first)["prediction"] == long_text(0).upper()
    changes = [json.loads(line) for line in (tmp_path / "diff.jsonl").read_text().splitlines()]
    assert {change["old"] for change in changes} == {long_text(7).upper(), long_text(9).upper()}
    erase.erase_entry(world.job, world.data, {key: str(rows[key][9])})
    with world.store.open() as db:
        [(left,)] = db.execute("SELECT count(*) FROM long_texts WHERE text LIKE '%zzz%'").fetchall()
    assert left == 0
    assert body(world, **{key: rows[key][9]}) is None
    assert body(world, **{key: rows[key][11]}) == long_text(11).upper()


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.long
def test_long_predictions_of_people(tmp_path: Path, output: str) -> None:
    """They are imported, published, reviewed and changed, be they texts or JSON."""
    world = imports_job(
        tmp_path,
        {"id": list(range(ROWS))},
        gate=LENIENT,
        **({"output": {"type": "json", "schema": {}}} if output == "json" else {}),
    )
    values = [long_text(number) for number in range(ROWS)]
    written = values if output == "text" else [json.dumps({"names": [value], "n": 1}) for value in values]
    world.take_in({"id": list(range(ROWS)), "prediction": written})
    world.publish()
    expected = values[5] if output == "text" else {"names": [values[5]], "n": 1}
    assert body(world, id=5) == expected
    world.take_in({"id": [5], "prediction": ["short" if output == "text" else '"short"']})
    assert world.publish().version == 2
    assert diff.compare(world.data, [], None, 1).changed == 1
    assert world.publish().version is None  # nothing is new


@pytest.mark.long
def test_long_json_of_short_strings_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables hold it whole, so that SQL finds what is in it, but it is sorted by tokens: many such rows would be too much."""
    monkeypatch.setattr(long_rows, "LARGE_GROUP", 1 << 16)
    schema = {"output": {"type": "json", "schema": {}}}
    world = imports_job(tmp_path, {"id": list(range(ROWS))}, gate=LENIENT, **schema)
    values = [{"names": [f"{number} {place}" for place in range(2000)], "also": "é"} for number in range(ROWS)]
    values[3]["also"] = long_text(3)
    world.take_in({"id": list(range(ROWS)), "prediction": [json.dumps(value) for value in values]})
    assert world.publish().version == 1
    assert [body(world, id=number) for number in range(ROWS)] == values
    assert has_long_texts(folder_of(world.data, 1) / "predictions.parquet")
    assert world.publish().same_as == 1
    out = OutputFile.of(tmp_path / "out.jsonl")
    export.export(world.job, world.data, Options(), out)
    assert [
        json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ] == values


@pytest.mark.long
def test_rows_of_long_json_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them lie together among short ones: they are published, compared, reviewed, exported, and chained."""
    monkeypatch.setenv(VARIABLE, "40MB")
    count, first, last = 900, 300, 600
    values: list[dict[str, Any]] = [
        {
            "names": [f"{number} {place} {'y' * 80}" for place in range(600 if first <= number < last else 1)],
            "sure": True,
        }
        for number in range(count)
    ]
    keys = [f"k{number}" for number in range(count)]
    schema = {"output": {"type": "json", "schema": {}}}
    world = model_job(tmp_path, {"id": keys, "text": keys}, gate=LENIENT, **schema)
    world.answer(lambda row: json.dumps(values[int(row["id"][1:])]))
    assert world.publish().version == 1
    assert body(world, id=f"k{first}") == values[first]
    for number in range(first, last):
        values[number]["names"][-1] = "another"
    world.answer(lambda row: json.dumps(values[int(row["id"][1:])]), refresh=True)
    assert sum(json.loads(row["value"]) == values[int(row["id"][1:])] for row in world.review()) == count
    assert world.publish().version == 2
    compared = diff.compare(world.data, ["1", "2"], OutputFile.of(tmp_path / "diff.parquet"), 5)
    assert (compared.added, compared.removed, compared.changed) == (0, 0, last - first)
    export.export(world.job, world.data, Options(), OutputFile.of(tmp_path / "out.parquet"))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert all(json.loads(row["prediction"]) == values[int(row["id"][1:])] for row in rows)
    chained = {"job": "shop", "key": ["id"]}
    second = model_job(
        tmp_path / "next", {"id": ["unused"]}, name="second", input=chained, prompt={"template": "{{ prediction }}"}
    )
    second = dataclasses.replace(second, data=JobData(world.data.root, "second"))
    with second.prepared() as prepared:
        assert prepared.plan.counts.to_generate == count


@pytest.mark.long
def test_long_json_of_short_strings_is_reviewed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is joined and sorted by tokens, too, a review has it whole and reads it back, and only other values differ."""
    monkeypatch.setattr(long_rows, "LARGE_GROUP", 1 << 16)
    schema = {"output": {"type": "json", "schema": {}}}
    world = model_job(tmp_path, {"id": [1, 2, 3], "text": ["a", "b", "c"]}, gate=LENIENT, **schema)
    values = {number: {"names": [f"{number} {place}" for place in range(2000)], "also": "é"} for number in (1, 2, 3)}
    world.answer(lambda row: json.dumps(values[row["id"]]))
    world.publish()
    rows = world.review()
    assert [json.loads(row["value"]) for row in rows] == list(values.values())
    assert {row["before"] for row in rows} == {""}
    changed = json.dumps(dict(reversed(values[2].items())) | {"also": "e"})
    judged = [rows[0] | {"verdict": "accept"}, rows[1] | {"verdict": "correct", "corrected": changed}, rows[2]]
    ingested = world.judge(judged)
    assert (ingested.accepted, ingested.corrected) == (1, 1)
    world.publish()
    world.answer(lambda row: json.dumps(values[row["id"]] | ({"also": "new"} if row["id"] == 3 else {})), refresh=True)
    [left] = world.review()
    assert (json.loads(left["value"])["also"], json.loads(left["before"])["also"]) == ("new", "é")
    compared = diff.compare(world.data, [], OutputFile.of(tmp_path / "diff.jsonl"), 5)
    assert compared.count == compared.changed == 1
    [difference] = map(json.loads, (tmp_path / "diff.jsonl").read_text(encoding="utf-8").splitlines())
    assert (difference["old"], difference["new"]) == (values[2], json.loads(changed))


def test_a_key_that_changes_finds_long_imports_again(tmp_path: Path) -> None:
    """Lookups of imports are made of whole texts, also when the job's key becomes another one."""
    rows = {"id": [1, 2], "text": [long_text(1), long_text(2).upper()]}
    world = imports_job(tmp_path, rows, input={"path": "queries.parquet", "key": ["text"]}, gate=LENIENT)
    world.take_in({"text": rows["text"], "prediction": ["one", "two"]})
    changed = world.changed(input={"path": "queries.parquet", "key": ["text"], "normalize": ["casefold"]})
    changed.publish()
    assert body(changed, text=long_text(2)) == "two"


@pytest.mark.long
def test_a_text_beyond_what_can_be_used_is_a_bad_row(tmp_path: Path) -> None:
    """Sixteen megabytes are taken, and one byte more is a bad row with a sentence."""
    world = model_job(tmp_path, {"id": [1, 2, 3], "text": ["a", "b" * MOST_TEXT, "c" * (MOST_TEXT + 1)]})
    with world.prepared() as prepared:
        [bad] = prepared.query_list.bad_rows().to_pylist()
        assert (bad["row"], bad["reason"]) == (3, "too_long")
        assert bad["detail"].endswith("The column text holds 16.0 MB of text, and at most 16 MB can be used.")
        assert [len(row["text"]) for _, row in prepared.plan.todo()] == [1, MOST_TEXT]


@pytest.mark.long
def test_one_cell_of_sixteen_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import and golden rows hold one; an import beyond it is refused with a sentence."""
    monkeypatch.setenv(VARIABLE, "256MB")  # it is held several times
    text = "v" * (MOST_TEXT - 2)
    world = imports_job(
        tmp_path, {"id": [1, 2]}, gate={**LENIENT, "golden": {"path": "golden.parquet", "accuracy": 1.0}}
    )
    pq.write_table(
        pq.read_table(world.list_path).append_column("answer", [[text, "short"]]), world.job.folder / "golden.parquet"
    )
    world.take_in({"id": [1, 2], "prediction": [text, "short"]})
    report = world.publish()
    assert report.version == 1
    assert body(world, id=1) == text
    with pytest.raises(
        InputError, match=r"row 1: The prediction holds 16\.0 MB of text, and at most 16 MB can be used"
    ):
        world.take_in({"id": [1], "prediction": ["v" * (MOST_TEXT + 9)]})


@pytest.mark.parametrize("form", ["text", "one string", "many strings"])
@pytest.mark.long
def test_an_entry_of_an_eighth_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """As one of 16 MB beside 256 MB: it is published, matched, exported, compared, forgotten, and chained with a long column."""
    monkeypatch.setenv(VARIABLE, "40MB")
    size = MOST_TEXT // 8
    many = [f"{number} name {'x' * 80}" for number in range(size // 100)]
    value: Any = {"text": "v" * size, "one string": {"names": ["v" * size, "short"]}, "many strings": {"names": many}}[
        form
    ]
    is_json = form != "text"
    sections: dict[str, Any] = {"gate": LENIENT}
    if is_json:
        sections |= {
            "output": {"type": "json", "schema": {}},
            "match": {"terms": ["prediction.names"], "concept": "id"},
        }
    note = "n" * size
    world = imports_job(tmp_path, {"id": ["1", "2"], "note": [note, "b"]}, **sections)
    written = [json.dumps(value), json.dumps({"names": ["other"]})] if is_json else [value, "x"]
    world.take_in({"id": ["1", "2"], "prediction": written})
    assert world.publish().version == 1
    assert body(world, id="1") == value
    with world.served() as served:
        found = len(served.matcher) if is_json else 0
    assert found == {"text": 0, "one string": 2, "many strings": len(many) + 1}[form]
    for ending in ("jsonl", "csv"):
        export.export(world.job, world.data, Options(), OutputFile.of(tmp_path / f"out.{ending}"))
    row = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (row["prediction"], row["note"]) == (value, note)
    csv.field_size_limit(2 * MOST_TEXT)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        [cell, _] = [row["prediction"] for row in csv.DictReader(file)]
    assert (json.loads(cell) if is_json else cell) == value
    world.take_in({"id": ["1"], "prediction": written[1:]})
    assert world.publish().version == 2
    assert diff.compare(world.data, ["1", "2"], OutputFile.of(tmp_path / "diff.jsonl"), 5).changed == 1
    erase.erase_entry(world.job, world.data, {"id": "2"})
    carrying = {"job": "shop", "key": ["id"], "carry": ["note"]}
    carrying |= {"explode": "prediction.names", "as": "name", "key": ["id", "name"]} if is_json else {}
    template = {"template": "{{ note }}"}
    second = model_job(tmp_path / "next", {"id": ["unused"]}, name="second", input=carrying, prompt=template)
    second = dataclasses.replace(second, data=JobData(world.data.root, "second"))
    with second.prepared() as prepared:
        assert [row["note"] for _, row in prepared.plan.todo()] == [note]


@pytest.mark.long
def test_a_chained_list_and_a_review_of_the_longest_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction of 16 MB is a row of the next job's list, whole or item by item; a review holds it, and takes it in again."""
    monkeypatch.setenv(VARIABLE, "256MB")  # it is held several times
    longest = "v" * (MOST_TEXT - 100)
    first = imports_job(tmp_path, {"id": ["1", "2"]}, name="first", gate=LENIENT, output={"type": "json", "schema": {}})
    first.take_in(
        {"id": ["1", "2"], "prediction": [json.dumps({"names": [longest, "w"]}), json.dumps({"names": ["x"]})]}
    )
    first.publish()
    chained = {"job": "first", "explode": "prediction.names", "as": "name", "key": ["id", "name"]}
    second = model_job(
        tmp_path / "next", {"id": ["unused"]}, name="second", input=chained, prompt={"template": "{{ name }}"}
    )
    second = dataclasses.replace(second, data=JobData(first.data.root, "second"))
    with second.prepared() as prepared:
        assert sorted(len(row["name"]) for _, row in prepared.plan.todo()) == [1, 1, len(longest)]
    asked = model_job(tmp_path / "asked", {"id": ["1"], "text": ["a"]}, name="asked", gate=LENIENT)
    asked.answer(lambda _row: longest)
    csv.field_size_limit(2 * MOST_TEXT)
    [row] = asked.review()
    assert row["value"] == longest
    assert asked.judge([row | {"verdict": "accept"}]).accepted == 1


@pytest.mark.long
def test_a_list_that_is_larger_than_memory(tmp_path: Path) -> None:
    """A plan of texts that all lie in one vector of DuckDB's needs no memory for them."""
    world = model_job(tmp_path, {"id": list(range(200)), "text": [long_text(number) * 12 for number in range(200)]})
    with world.prepared() as prepared:
        assert prepared.plan.counts.to_generate == 200
        assert sum(len(row["text"]) for _, row in prepared.plan.todo()) > 45_000_000


def test_what_an_older_program_stored_whole(tmp_path: Path) -> None:
    """Long texts of an older cache get tokens when it is brought up to date, and equal those of an older version."""
    world = model_job(tmp_path, {"id": [1, 2], "text": ["a", "b"]}, gate=LENIENT)
    world.answer(lambda row: long_text(row["id"]))
    world.publish()
    predictions = folder_of(world.data, 1) / "predictions.parquet"
    assert has_long_texts(predictions)
    pq.write_table(pq.read_table(predictions).replace_schema_metadata(), tmp_path / "unmarked.parquet")
    assert has_long_texts(tmp_path / "unmarked.parquet")
    with world.store.open(write=True) as db:
        db.execute(
            "UPDATE generations SET text = ?, prediction = to_json(?) WHERE text LIKE '%'", [long_text(1), long_text(1)]
        )
        db.execute("DELETE FROM long_texts")
        pieces.shorten_stored(db, "long_texts")
        assert db.execute("SELECT max(strlen(text)) < 1000, count(DISTINCT text) FROM generations").fetchall() == [
            (True, 1)
        ]
    assert world.publish().version == 2
    assert body(world, id=2) == long_text(1)
