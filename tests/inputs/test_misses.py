"""Misses as rows of the list: asked once, of the list's kinds, and left out where they fit no row."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core.columns import Column
from batchinfer.core.keys import lookup_hash
from batchinfer.errors import StoreError
from batchinfer.misses import log
from batchinfer.misses.counter import Miss
from tests.factories import LENIENT, World, model_job, unchecked
from tests.misses.counts import asked

NOON = datetime(2026, 1, 31, 12, 30, 0, 123456)  # noqa: DTZ001 - lists hold times without a zone
INCLUDE = {"path": "queries.parquet", "key": ["text"], "include_misses": {"at_least": 1}}


def to_ask(world: World, column: str = "text") -> list[Any]:
    """What a run would ask the model, sorted."""
    with world.prepared() as p:
        counts = p.plan.counts
        assert counts.rows == counts.bad + counts.duplicates + counts.unique
        return sorted(row[column] for _, row in p.plan.todo())


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., World]:
    """A job that takes misses in; its key is the column `text`, which its list has."""

    def job(rows: Any = ("one", "two"), include: dict[str, Any] | None = None, **sections: Any) -> World:
        columns = rows if isinstance(rows, dict) else {"text": rows if isinstance(rows, pa.Array) else list(rows)}
        return model_job(tmp_path, columns, **({"input": INCLUDE | (include or {}), "gate": LENIENT} | sections))

    return job


@pytest.mark.long
def test_a_miss_is_asked_served_and_kept(make: Callable[..., World]) -> None:
    """What clients did not find is in the next version, and in the one after it, though nobody misses it any more."""
    world = make()
    asked(world.data, [("three",), ("one",)])
    with world.prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.misses, p.plan.counts.lookups) == (3, 1, 3)
    world.answer(lambda row: row["text"].upper())
    report = world.publish()
    assert (report.version, report.entries, report.rows, report.misses) == (1, 3, 3, 1)
    hit = json.loads(world.get(text="three") or b"{}")
    assert (hit["query"], hit["prediction"], hit["source"]) == ({"text": "three"}, "THREE", "model")
    world.rows({"text": ["one", "four"]})
    world.answer(lambda row: row["text"].upper())
    report = world.publish()
    assert (report.version, report.entries, report.misses) == (2, 3, 1)
    assert world.get(text="three") is not None


def test_misses_are_taken_in_only_where_the_job_says_so(make: Callable[..., World]) -> None:
    """Without include_misses the files are there and do nothing, and the report's field is null."""
    world = make().changed(input={"path": "queries.parquet", "key": ["text"]})
    asked(world.data, [("three",)])
    assert to_ask(world) == ["one", "two"]
    world.answer(lambda row: row["text"])
    assert world.run().misses is None


def test_how_often_counts_over_files_and_spellings(make: Callable[..., World]) -> None:
    """at_least is compared with the sum over days, servers and spellings of one lookup key; the first spelling is asked."""
    world = make(["Bonn"], {"include_misses": {"at_least": 3}, "normalize": ["casefold", "trim"]})
    asked(world.data, [("Ulm",), ("Jena",), ("BONN",)], server="b")
    asked(world.data, [(" ulm",), ("ulm",), ("Jena",), ("BONN",), ("bonn",)], server="c")
    assert to_ask(world) == ["Bonn", "Ulm"]
    asked(world.data, [("ulm",)] * 50, server="c")
    assert to_ask(world) == ["Bonn", "Ulm"], "the spelling that was asked first, however often another is"


def test_a_key_of_the_list_is_no_miss(make: Callable[..., World]) -> None:
    """A key that the list has is not taken in again, though its row is bad or contradicts another."""
    rows = {"id": [1, 2, 2, 3], "text": ["one", "two", "2", ""]}
    world = make(rows, {"key": ["id"], "include_misses": None})
    names = ("id",)
    asked(world.data, [(1,), (2,), (3,), (4,)], names)
    world = world.changed(
        input={"path": "queries.parquet", "key": ["id"], "optional": ["text"], "include_misses": {}},
        prompt={"template": "{{ id }} {{ text or '' }}"},
    )
    with world.prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.bad, p.plan.counts.misses) == (5, 2, 1)
        assert sorted((row["id"], row["text"]) for _, row in p.plan.todo()) == [(1, "one"), (3, ""), (4, None)]


@pytest.mark.parametrize(
    "last",
    [(None, "two", "de"), (1, "other", "de"), (2, "two", "fr")],
    ids=["bad", "conflicting", "filtered"],
)
def test_a_miss_has_no_number_of_a_row(make: Callable[..., World], last: tuple[int | None, str, str]) -> None:
    """Whatever row the list ends with, misses are counted from behind it: they have nothing of its columns."""
    rows = [(0, "zero", "de"), (1, "one", "de"), last]
    names = ("id", "text", "language")
    keyed = {"path": "queries.parquet", "key": ["id", "language"], "optional": ["text"], "where": {"language": ["de"]}}
    world = make(
        dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)),
        keyed | {"include_misses": {}},
        prompt={"template": "{{ id }} {{ text or '' }}"},
    )
    asked(world.data, [(7, "de")], ("id", "language"))
    with world.prepared() as p:
        found = p.workspace.db.execute(f"SELECT q_id, row FROM {p.query_list.first_rows_sql}").fetchall()
    assert dict(found)[7] == 4


@pytest.mark.parametrize(
    ("listed", "values"),
    [
        pytest.param(pa.array(["a"]), ["b", "é", "1", "x\x00y", '"quoted"\\'], id="string"),
        pytest.param(pa.array([1]), [2, -7, 2**63 - 1, -(2**63)], id="integer"),
        pytest.param(pa.array([1], pa.uint64()), [2**64 - 1], id="uint64"),
        pytest.param(pa.array([1.5]), [0.1, -2.0, 1e300, 5e-324], id="number"),
        pytest.param(pa.array([True]), [False], id="boolean"),
        pytest.param(pa.array([date(2026, 1, 1)]), [date(1, 1, 1), date(9999, 12, 31)], id="date"),
        pytest.param(pa.array([NOON]), [NOON + timedelta(seconds=1), datetime(1, 1, 1)], id="timestamp"),  # noqa: DTZ001
    ],
)
def test_values_of_every_kind_come_back_as_they_were(
    make: Callable[..., World], listed: pa.Array, values: list[Any]
) -> None:
    """A miss of any kind of key becomes a row with the same value, and is found once it is published."""
    world = make(listed)
    asked(world.data, [(value,) for value in values])
    assert to_ask(world) == sorted([*values, listed[0].as_py()])
    world.answer(lambda row: f"answer to {row['text']}")
    world.publish()
    for value in values:
        assert json.loads(world.get(text=value) or b"{}")["prediction"] == f"answer to {value}"


def test_a_time_with_a_zone_is_the_same_moment(make: Callable[..., World]) -> None:
    """A timestamp that clients gave with an offset is added as that moment in UTC."""
    world = make(pa.array([NOON]))
    asked(world.data, [(datetime(2026, 2, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))),)])
    assert to_ask(world)[1] == datetime(2026, 1, 31, 23, 0)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("listed", "unfit"),
    [
        (pa.array(["a"]), [7, True, 1.5, "", "  ", None]),
        (pa.array([1]), ["7", True, 1.0, 2**63, -(2**63) - 1, 10**400, None]),
        (pa.array([1.5]), ["1.5", True, 10**400, None]),
        (pa.array([True]), [1, 0, "true", None]),
        (pa.array([date(2026, 1, 1)]), ["2026-13-01", "today", 7, "2026-01-01T00:00:00", None]),
        (pa.array([NOON]), ["noon", 7, "0001-01-01T00:00:00+14:00", None]),
    ],
    ids=["string", "integer", "number", "boolean", "date", "timestamp"],
)
def test_what_fits_no_row_is_left_out(make: Callable[..., World], listed: pa.Array, unfit: list[Any]) -> None:
    """Misses that are empty, too large, or of a kind that the column has no more are passed over without a word."""
    world = make(listed)
    queries = [json.dumps({"text": value}) for value in unfit]
    queries += ["", "7", "[]", "{}", '{"text":', '{"text": NaN}', '{"text": "\\ud800"}', '{"id": 1}', "[" * 100_000]
    queries += ['{"text": "a", "more": 1}', '{"text": ["a"]}', '{"text": {"a": 1}}']
    moment = datetime.now(UTC)
    spoken = {"x.json": [Miss(query, 5, moment, moment) for query in queries]}
    log.merge(world.data, date(2026, 1, 5), "one", spoken)
    with world.prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.bad, p.plan.counts.misses) == (1, 0, 0)


def test_the_jobs_filter_holds_for_misses_too(make: Callable[..., World]) -> None:
    """input.where on a key column keeps misses out as it does rows; all of them may be."""
    world = make({"text": ["one", "two"], "land": ["de", "fr"]}, {"key": ["text", "land"], "where": {"land": "de"}})
    asked(world.data, [("three", "de"), ("four", "fr")], ("text", "land"))
    assert to_ask(world) == ["one", "three"]
    assert to_ask(world.changed(input=INCLUDE | {"key": ["text", "land"], "where": {"land": "it"}})) == []


def test_an_imported_answer_is_not_asked(make: Callable[..., World]) -> None:
    """A miss that people have answered since needs no model."""
    world = make()
    asked(world.data, [("three",)])
    world.take_in({"text": ["three"], "prediction": ["3"]})
    assert to_ask(world) == ["one", "two"]


def test_taking_misses_in_moves_no_key(make: Callable[..., World]) -> None:
    """What is cached stays when include_misses is set or changed."""
    world = make().changed(input={"path": "queries.parquet", "key": ["text"]})
    world.answer(lambda row: row["text"])
    world = world.changed(input=INCLUDE)
    asked(world.data, [("three",)])
    assert to_ask(world) == ["three"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PAR1", b"no parquet" * 100, {"query": ["{}"], "count": ["many"]}, {"other": [1]},
        {"query": unchecked([b"\xff"], pa.string()), "count": [1], "first_seen": [NOON], "last_seen": [NOON]},
    ],
    ids=["empty", "cut off", "no Parquet", "columns missing", "other columns", "no UTF-8"],
)  # fmt: skip
def test_a_damaged_file_stops_the_run_with_a_sentence(make: Callable[..., World], content: Any) -> None:
    """A run does not quietly lose what was missed: it names the file and says what to do."""
    world = make()
    world.data.misses.mkdir()
    path = world.data.misses / "2026-01-05-host-one.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    with pytest.raises(StoreError) as caught, world.prepared():
        pass
    assert str(caught.value).startswith(f"{path} is damaged, cannot be read, or holds no misses:")
    assert "Move it away" in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    assert to_ask(world) == ["one", "two"]


def test_a_folder_that_cannot_be_read_stops_the_run_too(make: Callable[..., World]) -> None:
    """What was missed is not quietly left out because its folder is none, or may not be listed."""
    world = make()
    world.data.misses.write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="misses cannot be read: Not a directory"), world.prepared():
        pass


VALUES = {
    "string": st.text(max_size=20),
    "integer": st.integers(-(2**70), 2**70),
    "number": st.floats(),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
}
LISTED = {
    "string": "in the list", "integer": 0, "number": 0.0, "boolean": True, "date": date(2026, 1, 1), "timestamp": NOON,
}  # fmt: skip


@given(
    st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind], max_size=8)))
)
@settings(max_examples=25)
@pytest.mark.long
def test_each_usable_miss_becomes_one_row(drawn: tuple[str, list[Any]]) -> None:
    """Through spool, Parquet and plan: one row for each lookup key that the list lacks and a list could have."""
    kind, values = drawn
    with tempfile.TemporaryDirectory() as folder:
        world = model_job(Path(folder), {"text": [LISTED[kind]]}, input=INCLUDE)
        asked(world.data, [(value,) for value in values])
        column = [Column("text", kind)]  # type: ignore[arg-type]
        usable = [value for value in [LISTED[kind], *values] if is_usable(value, kind)]
        wanted = {lookup_hash([value], column, []) for value in usable}
        with world.prepared() as p:
            assert {lookup_hash([row["text"]], column, []) for _, row in p.plan.todo()} == wanted
            assert (p.plan.counts.misses, p.plan.counts.bad) == (len(wanted) - 1, 0)


def is_usable(value: Any, kind: str) -> bool:
    """Whether a list's row may have this value."""
    if kind == "string":
        return bool(value.strip()) and is_utf8(value)
    if kind == "integer":
        return bool(-(2**63) <= value < 2**63)
    return kind != "number" or math.isfinite(value)


def is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
