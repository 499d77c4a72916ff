"""Keys: what changes them, what does not, and that SQL and Python make the same ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core import keys
from batchinfer.core.columns import Column, Kind
from batchinfer.core.database import scratch_database
from batchinfer.core.long_texts import LongTexts
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.inputs.query_list import QueryList
from batchinfer.job.spec import InputSpec
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import PromptTemplate
from tests.core.values import VALUES, texts

typed_values = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.none() | VALUES[kind]),
)


def decoded(data: bytes) -> list[tuple[str, Any]]:
    """What the canonical bytes say: a reader that needs nothing but the bytes, so no two rows can share theirs."""
    found: list[tuple[str, Any]] = []
    while data:
        tag, data = data[:1], data[1:]
        if tag == b"n":
            found.append(("null", None))
        elif tag == b"b":
            found.append(("boolean", data[:1] == b"1"))
            data = data[1:]
        elif tag in (b"s", b"j"):
            length, _, data = data.partition(b":")
            text, data = data[: int(length)], data[int(length) :]
            found.append(("string" if tag == b"s" else "json", text.decode()))
        else:
            text, _, data = data.partition(b";")
            read: dict[bytes, tuple[str, Callable[[str], Any]]] = {
                b"i": ("integer", int),
                b"f": ("number", lambda bits: struct.unpack("<d", struct.pack("<q", int(bits)))[0]),
                b"d": ("date", date.fromisoformat),
                b"t": ("timestamp", lambda since: datetime(1970, 1, 1) + timedelta(microseconds=int(since))),  # noqa: DTZ001
            }
            kind, of = read[tag]
            found.append((kind, of(text.decode())))
    return found


@given(st.lists(typed_values, max_size=6))
def test_two_different_rows_never_share_canonical_bytes(row: list[tuple[Kind, Any]]) -> None:
    """A row's canonical bytes can be read back to exactly its kinds and values."""
    data = b"".join(keys.encode(value, kind) for kind, value in row)
    expected = [("null", None) if value is None else (kind, value) for kind, value in row]
    assert repr(decoded(data)) == repr(
        [(kind, 0.0 if value == 0 and kind == "number" else value) for kind, value in expected]
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a", ""], ["", "a"]),
        (["s1:b", "c"], ["s1", "bc"]),
        (["as1:b", "c"], ["a", "bs1:c"]),
        (["a\0", "b"], ["a", "\0b"]),
        (["n", None], [None, "n"]),
        (["", None], [None, ""]),
        (["\u00e9", "x"], ["e\u0301", "x"]),
        (["1", "11"], ["11", "1"]),
    ],
)
def test_rows_made_to_collide_do_not(one: list[str | None], two: list[str | None]) -> None:
    """Texts that would run together if they were merely joined have keys of their own."""
    columns = [Column("a", "string"), Column("b", "string")]
    assert keys.row_hash(b"", one, columns) != keys.row_hash(b"", two, columns)


def test_the_same_digits_of_another_kind_are_another_key() -> None:
    """1, 1.0, true, and the text 1 are four values."""
    values: list[tuple[Any, Kind]] = [
        (1, "integer"),
        (1.0, "number"),
        (True, "boolean"),
        ("1", "string"),
        ("1", "json"),
    ]
    assert len({keys.row_hash(b"", [value], [Column("a", kind)]) for value, kind in values}) == len(values)


def test_minus_zero_is_zero() -> None:
    """The two zeros are equal, so they have one key."""
    assert keys.encode(-0.0, "number") == keys.encode(0.0, "number") != keys.encode(5e-324, "number")


def test_a_moment_has_one_key_in_every_time_zone() -> None:
    """A timestamp with a zone has the key of the same moment in UTC, with a zone or without."""
    local = datetime(2026, 1, 31, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert keys.encode(local, "timestamp") == keys.encode(local.astimezone(UTC), "timestamp")
    assert keys.encode(local, "timestamp") == keys.encode(datetime(2026, 1, 31, 7), "timestamp")  # noqa: DTZ001


def test_keys_stay_what_they_were() -> None:
    """The canonical bytes and the hash are pinned: a change here makes every cache and every version useless."""
    columns = [Column(kind, kind) for kind in get_args(Kind)] + [Column("nothing", "string")]
    moment = datetime(2026, 1, 31, 7, tzinfo=UTC)
    row = ["\u00e9", -7, 1.5, True, date(2026, 1, 31), moment, '{"a":1}', None]
    encoded = b"".join(keys.encode(value, column.kind) for value, column in zip(row, columns, strict=True))
    assert encoded == b's2:\xc3\xa9i-7;f4609434218613702656;b1d2026-01-31;t1769842800000000;j7:{"a":1}n'
    assert keys.row_hash(b"\x01" * 16, row, columns).hex() == "31cd059ebab0e5126b916d743a893c61"
    assert keys.row_hash(b"", ["a"], [Column("a", "string")]).hex() == "e34d1fb77f49bbb61fc021a215de81cf"


def test_the_fingerprint_is_part_of_a_row_key() -> None:
    """The same row under another question has another key."""
    column = [Column("a", "string")]
    assert len({keys.row_hash(prefix, ["x"], column) for prefix in (b"", b"\0" * 16, b"\1" * 16)}) == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of a property's files."""
    return tmp_path_factory.mktemp("keys")


ARROW = {
    "string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(), "date": pa.date32(),
    "timestamp": pa.timestamp("us"), "big": pa.uint64(), "nested": pa.list_(pa.struct({"a": pa.string(), "b": pa.int64()})),
    'we"ird': pa.string(), "it's": pa.float64(),
}  # fmt: skip
nested = st.lists(
    st.none() | st.fixed_dictionaries({"a": st.none() | texts, "b": st.none() | st.integers(-9, 9)}), max_size=3
)
cells: dict[str, st.SearchStrategy[Any]] = {
    "string": texts, "integer": VALUES["integer"], "number": VALUES["number"], "boolean": st.booleans(), "date": st.dates(),
    "timestamp": VALUES["timestamp"], "big": st.integers(0, 2**64 - 1), "nested": nested, 'we"ird': texts, "it's": st.floats(),
}  # fmt: skip
records = st.lists(
    st.fixed_dictionaries({name: st.none() | cell for name, cell in cells.items()}), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=60)
@given(records, st.sampled_from([b"", bytes(range(16))]))
@pytest.mark.long
def test_sql_makes_the_same_keys_as_python(folder: Path, rows: list[dict[str, Any]], prefix: bytes) -> None:
    """For every kind of value, null among them, the key made in bulk is the key made of the single row."""
    numbered = [{"id": number, **row} for number, row in enumerate(rows)]
    path = folder / "queries.parquet"
    pq.write_table(pa.Table.from_pylist(numbered, pa.schema({"id": pa.int64(), **ARROW})), path)
    spec = InputSpec(path="queries.parquet", key=["id"], optional=list(ARROW))
    source = ListSource([path], spec, list(ARROW))
    columns = [Column(name, source.kinds[name]) for name in ARROW]
    assert {column.kind for column in columns} == set(get_args(Kind))
    [batch] = source.batches()
    assert not batch.bad
    in_sql = sql_keys(batch.good, keys.row_hash_sql(prefix, columns))
    assert in_sql == [
        keys.row_hash(prefix, [_as_source_has_it(row[column.name], column.kind) for column in columns], columns)
        for row in numbered
    ]


def _as_source_has_it(value: Any, kind: Kind) -> Any:
    return keys.canonical_json(value) if kind == "json" and value is not None else value


def sql_keys(table: pa.Table, expression: str) -> list[bytes]:
    """The value of a SQL expression for each row of a table, in order."""
    with duckdb.connect() as db:
        db.register("batch", table)
        return [key for (key,) in db.execute(f'SELECT {expression} FROM batch ORDER BY "{ROW}"').fetchall()]


key_texts = st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: f" {text}\u00c9x ")


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.tuples(key_texts, VALUES["integer"]), min_size=1, max_size=20),
    normalize=st.sets(st.sampled_from(["nfkc", "casefold", "trim"])).map(sorted),
)
@pytest.mark.long
def test_what_is_published_is_what_is_looked_up(
    folder: Path, rows: list[tuple[str, int]], normalize: list[str]
) -> None:
    """The lookup key that the plan makes in bulk is the one that a live query gets, whatever is normalized."""
    path = folder / "lookups.parquet"
    pq.write_table(pa.table({"term": [term for term, _ in rows], "number": [number for _, number in rows]}), path)
    spec = InputSpec.model_validate({"path": "lookups.parquet", "key": ["term", "number"], "normalize": normalize})
    source = ListSource([path], spec, [])
    with scratch_database(fresh(folder)) as db:
        query_list = QueryList(db, source, [], LongTexts(folder))
        query_list.load(b"\0" * 16)
        planned = [lookup for (lookup,) in db.execute(f"SELECT lookup_hash FROM {query_list.rows_sql}").fetchall()]
    assert sorted(planned) == sorted(keys.lookup_hash(row, source.key, normalize) for row in rows)


def fresh(folder: Path) -> Path:
    """A new folder below this one."""
    made = folder / f"plan-{len(list(folder.iterdir()))}"
    made.mkdir()
    return made


def test_columns_that_the_template_does_not_use_change_no_key(tmp_path: Path) -> None:
    """Rows that differ only in columns outside the template, the lookup key's among them, are one prompt."""
    table = {"id": [1, 2, 3], "fruit": ["peach", "peach", "pear"], "note": ["sweet", "sour", None]}
    pq.write_table(pa.table(table), tmp_path / "queries.parquet")
    template = PromptTemplate(PromptSpec(template="{{ fruit }}:"), [], "job.yaml")
    source = ListSource([tmp_path / "queries.parquet"], InputSpec(path="queries.parquet", key=["id"]), template.columns)
    with scratch_database(fresh(tmp_path)) as db:
        query_list = QueryList(db, source, template.columns, LongTexts(tmp_path))
        query_list.load(b"\0" * 16)
        found = [key for (key,) in db.execute(f"SELECT prompt_key FROM {query_list.rows_sql}").fetchall()]
    column = [Column("fruit", "string")]
    peach, pear = (keys.row_hash(b"\0" * 16, [fruit], column) for fruit in ("peach", "pear"))
    assert sorted(found) == sorted([peach, peach, pear])


@given(st.text(st.characters(codec="utf-8")), st.sets(st.sampled_from(["nfkc", "casefold", "trim"])))
def test_normalizing_twice_is_normalizing_once(text: str, steps: set[str]) -> None:
    """A key that was normalized when it was published stays as it is when it is looked up."""
    once = keys.normalized(text, sorted(steps))
    assert keys.normalized(once, sorted(steps)) == once


@pytest.mark.parametrize(
    ("text", "steps", "normal"),
    [
        (" A\u0301\uff21 ", [], " A\u0301\uff21 "),
        (" A\u0301\uff21 ", ["nfkc"], " \u00c1A "),
        (" A\u0301\uff21 ", ["trim"], "A\u0301\uff21"),
        (" A\u0301\uff21 ", ["trim", "casefold", "nfkc"], "\u00e1a"),
        ("STRASSE", ["casefold"], "strasse"),
        ("Stra\u00dfe", ["casefold"], "strasse"),
        ("\u0390", ["nfkc", "casefold"], "\u0390"),  # case folding takes it apart, the normal form puts it together
    ],
)
def test_normalizing_does_what_its_steps_say(text: str, steps: list[str], normal: str) -> None:
    """Each step does its own thing, in a fixed order, and none that was not asked for."""
    assert keys.normalized(text, steps) == normal


def test_only_texts_are_normalized() -> None:
    """A key of another kind passes through the steps untouched."""
    columns = [Column("term", "string"), Column("number", "integer")]
    assert keys.lookup_hash([" A ", 7], columns, ["trim", "casefold"]) == keys.lookup_hash(["a", 7], columns, [])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_canonical_json_loses_nothing(value: Any) -> None:
    """What was written can be read again as it was, so two different settings never share a text."""
    assert repr(_sorted(json.loads(keys.canonical_json(value)))) == repr(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
