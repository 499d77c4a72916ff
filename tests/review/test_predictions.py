"""Predictions made elsewhere: imported as a whole or not at all, found again by the list's keys, and undone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.cache import imports
from batchinfer.cli.main import cli
from batchinfer.core import memory
from batchinfer.core.columns import Column, Kind
from batchinfer.core.keys import row_hash
from batchinfer.errors import Busy, InputError, NotFound
from batchinfer.planning import prepare
from batchinfer.review import predictions
from batchinfer.review.allowed import Allowance
from batchinfer.review.predictions import ImportReport, UndoneImport
from tests.factories import LENIENT, World, imports_job, model_job, unchecked, write

Make = Callable[..., World]
ANY = tuple(Allowance)
JSON = {"type": "json", "schema": {}}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job without a model whose list has these keys."""

    def job(ids: Any = ("a", "b"), **sections: Any) -> World:
        return imports_job(tmp_path, {"id": ids}, **({"gate": LENIENT} | sections))

    return job


def stored(world: World) -> list[tuple[Any, ...]]:
    with world.store.open() as db:
        return db.execute("SELECT query, prediction, score, author FROM imports ORDER BY import_id, query").fetchall()


def served(world: World, **query: Any) -> Any:
    """The prediction that is served for a key."""
    body = world.get(**query)
    assert body is not None
    return json.loads(body)["prediction"]


def test_texts_are_imported(make: Make) -> None:
    """An import keeps key, prediction, score and author; a column `author` goes before the option."""
    world = make()
    columns = {
        "id": ["a", "é"],
        "prediction": ["[1]", "👩🏽‍🚀"],
        "score": [0.25, None],
        "author": ["Ada", None],
        "note": [1, 2],
    }
    assert world.take_in(columns, author="Bob") == ImportReport(1, 2, unlisted=1)
    assert stored(world) == [('{"id": "a"}', '"[1]"', 0.25, "Ada"), ('{"id": "é"}', '"👩🏽‍🚀"', None, "Bob")]
    world.publish()
    assert (served(world, id="a"), served(world, id="é")) == ("[1]", "👩🏽‍🚀")


def test_json_texts_are_imported_as_values(make: Make) -> None:
    """Where the job's output is JSON, a text is parsed, and a nested column is a value as it is."""
    world = make(output=JSON)
    world.take_in({"id": ["a", "b"], "prediction": ['{"names": ["é", null]}', '"text"']})
    world.take_in({"id": ["c"], "prediction": [{"names": ["x"], "day": date(2026, 1, 31), "price": Decimal("1.50")}]})
    world.publish()
    assert served(world, id="a") == {"names": ["é", None]}
    assert served(world, id="b") == "text"
    assert served(world, id="c") == {"names": ["x"], "day": "2026-01-31", "price": "1.50"}


def test_values_that_are_no_text_become_one(make: Make) -> None:
    """In a job of texts a prediction of another type is served as its text."""
    expected: dict[str, tuple[Any, str]] = {
        "integer": ([7], "7"),
        "number": ([1.5], "1.5"),
        "boolean": ([True], "true"),
        "decimal": ([Decimal("1.50")], "1.50"),
        "date": ([date(2026, 1, 31)], "2026-01-31"),
        "binary": ([b"caf\xc3\xa9"], "café"),
        "list": ([["x", "é"]], '["x", "é"]'),
        "dictionary": (pa.array(["yes"]).dictionary_encode(), "yes"),
    }
    world = make()
    for name, (column, _) in expected.items():
        world.take_in({"id": [name], "prediction": column})
    world.publish()
    assert {name: served(world, id=name) for name in expected} == {name: text for name, (_, text) in expected.items()}


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SAME: dict[str, tuple[Any, Any, Any]] = {  # as the list has it, as the import has it, as Python asks for it
    "large_string": (["a"], pa.array(["a"], pa.large_string()), "a"),
    "binary": (["é"], ["é".encode()], "é"),
    "dictionary": (["a"], pa.array(["a"]).dictionary_encode(), "a"),
    "decimal": ([Decimal("1.50")], [Decimal("1.500")], "1.5"),
    "int8": ([7], pa.array([7], pa.int8()), 7),
    "uint64": (pa.array([2**63], pa.uint64()), pa.array([2**63], pa.uint64()), 2**63),
    "float32": ([0.5], pa.array([0.5], pa.float32()), 0.5),
    "zero": ([0.0], [-0.0], 0.0),
    "boolean": ([True], [True], True),
    "date": ([date(2026, 1, 31)], pa.array([date(2026, 1, 31)], pa.date64()), date(2026, 1, 31)),
    "timestamp": ([NOON], pa.array([NOON], pa.timestamp("ms", "Asia/Tokyo")), NOON),
}


def test_an_import_is_found_by_the_lists_key(tmp_path: Path) -> None:
    """A key is the same key however the file stores it: the list is covered and the look-up hits."""
    columns = {name: listed for name, (listed, _, _) in SAME.items()}
    world = imports_job(tmp_path, columns, input={"path": "queries.parquet", "key": list(SAME)})
    world.take_in({name: imported for name, (_, imported, _) in SAME.items()} | {"prediction": ["x"]})
    with world.prepared() as p:
        assert (p.plan.counts.cached, p.plan.counts.to_generate) == (1, 0)
    world.publish()
    assert served(world, **{name: asked for name, (_, _, asked) in SAME.items()}) == "x"


def test_declared_types_hold_for_imports_too(make: Make) -> None:
    """input.types converts an import's keys as it converts the list's."""
    world = make(["7"], input={"path": "queries.parquet", "key": ["id"], "types": {"id": "integer"}})
    world.take_in({"id": ["7"], "prediction": ["x"]})
    world.publish()
    assert served(world, id=7) == "x"


def test_the_lists_filter_does_not_apply(make: Make) -> None:
    """An import needs only the key's columns, not those that the list is filtered by."""
    world = make(input={"path": "queries.parquet", "key": ["id"], "where": {"lang": "de"}})
    world.rows({"id": ["a", "b"], "lang": ["de", "en"]})
    assert world.take_in({"id": ["a", "b"], "prediction": ["x", "y"]}) == ImportReport(1, 2, unlisted=1)


def test_a_job_may_begin_with_imports(make: Make) -> None:
    """Predictions can be imported before there is a list."""
    world = make()
    world.list_path.unlink()
    assert world.take_in({"id": ["a"], "prediction": ["x"]}) == ImportReport(1, 1, unlisted=None)


def test_several_files_are_one_import(make: Make, tmp_path: Path) -> None:
    """A folder of files is one import, in batches."""
    world = make()
    write(tmp_path / "in" / "1.parquet", {"id": ["a"], "prediction": ["x"]})
    write(tmp_path / "in" / "2.parquet", {"prediction": ["y", "z"], "id": ["b", "c"]})
    assert predictions.import_predictions(world.job, world.data, tmp_path / "in", None, ANY) == ImportReport(
        1, 3, unlisted=1
    )
    assert [prediction for _, prediction, _, _ in stored(world)] == ['"x"', '"y"', '"z"']


BROKEN = [
    pytest.param({"id": ["a", "b", "a"], "prediction": ["x", "y", "x"]}, {},
                 "for id=a: keep one of those in row 1 and row 3\\.", id="key twice"),
    pytest.param({"id": ["a", "b"], "prediction": ["x", None]}, {}, "The prediction of id=b is null", id="null"),
    pytest.param({"id": ["a", None], "prediction": ["x", "y"]}, {}, r"row 2: The column id is null\.", id="null key"),
    pytest.param({"id": ["a", ""], "prediction": ["x", "y"]}, {}, r"row 2: The column id is an empty text\.", id="empty key"),
    pytest.param({"id": unchecked([b"a", b"\xff"], pa.string()), "prediction": ["x", "y"]}, {}, "not valid UTF-8", id="key not UTF-8"),
    pytest.param({"id": ["a", "b"], "prediction": unchecked([b"x", b"\xff"], pa.string())}, {},
                 "row 2: The prediction .* is not UTF-8", id="not UTF-8"),
    pytest.param({"id": ["a"], "prediction": [b"\xff"]}, {}, "can't decode byte 0xff", id="binary not UTF-8"),
    pytest.param({"id": [1], "prediction": ["x"]}, {}, "id holds integer values, but the job's list has string", id="key of another kind"),
    pytest.param({"id": [["a"]], "prediction": ["x"]}, {}, "a lookup key must be a plain value", id="nested key"),
    pytest.param({"name": ["a"], "prediction": ["x"]}, {}, "has no column id", id="no key"),
    pytest.param({"id": ["a"], "predicted": ["x"]}, {}, "has no column prediction: it has id, predicted", id="no prediction"),
    pytest.param({"id": pa.array([], pa.string()), "prediction": pa.array([], pa.string())}, {}, "has no rows", id="empty"),
    pytest.param({"id": ["a", "b"], "prediction": ["x", "y"], "score": ["1", "high"]}, {},
                 "row 2: The column score: .* 'high'", id="score of another type"),
    pytest.param({"id": ["a"], "prediction": ["x"], "author": [["Ada"]]}, {}, "row 1: The column author", id="author of another type"),
    pytest.param({"id": ["a"], "prediction": ["x"], "author": unchecked([b"\xff"], pa.string())}, {},
                 "author is not valid UTF-8", id="author not UTF-8"),
    pytest.param({"id": ["a", "b"], "prediction": ["[1]", "[1"]}, JSON, "of id=b should be JSON, but is '.1'", id="JSON cut off"),
    pytest.param({"id": ["a"], "prediction": ["NaN"]}, JSON, "should be JSON, but is 'NaN'", id="JSON NaN"),
    pytest.param({"id": ["a"], "prediction": ["[1e999]"]}, JSON, "should be JSON", id="JSON too large"),
    pytest.param({"id": ["a"], "prediction": ['"\\ud83d"']}, JSON, "should be JSON", id="JSON half a character"),
    pytest.param({"id": ["a"], "prediction": ["[" * 100_000]}, JSON, "should be JSON", id="JSON too deep"),
    pytest.param({"id": ["a"], "prediction": [float("nan")]}, JSON, "not JSON compliant", id="NaN"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "output", "said"), BROKEN)
def test_a_file_with_a_fault_is_not_imported_at_all(
    make: Make, columns: dict[str, Any], output: dict[str, Any], said: str
) -> None:
    """One fault anywhere refuses the whole file in one sentence, though earlier batches were fine; the next import is whole."""
    world = make(output=output) if output else make()
    path = write(world.job.folder / "imported.parquet", columns)
    with pytest.raises(InputError, match=said) as raised:
        predictions.import_predictions(world.job, world.data, path, None, rows_at_once=1)
    assert "\n" not in str(raised.value)
    assert predictions.past_imports(world.data) == []
    assert world.take_in({"id": ["a"], "prediction": ["1"]}) == ImportReport(1, 1)


def test_keys_that_normalise_alike_are_one_key(make: Make) -> None:
    """Two spellings of one key in a file are two predictions for it; the later one is named."""
    world = make(input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})
    with pytest.raises(InputError, match="two predictions for id=TEA:"):
        world.take_in({"id": ["tea", "TEA"], "prediction": ["x", "y"]})


def test_a_key_may_come_once_in_all_files(make: Make, tmp_path: Path) -> None:
    """Two predictions for a key are found across files, and each is named by its file and its row in there."""
    world = make()
    write(tmp_path / "in" / "1.parquet", {"id": ["a", "b"], "prediction": ["x", "x"]})
    write(tmp_path / "in" / "2.parquet", {"id": ["c"], "prediction": ["x"]})
    write(tmp_path / "in" / "3.parquet", {"id": ["d", "e", "b"], "prediction": ["x", "x", "x"]})
    with pytest.raises(InputError, match=r"keep one of those in 1\.parquet, row 2, and 3\.parquet, row 3\."):
        predictions.import_predictions(world.job, world.data, tmp_path / "in", None)
    assert predictions.past_imports(world.data) == []


def test_files_need_not_have_the_same_columns(make: Make, tmp_path: Path) -> None:
    """A score and an author are taken from the files that have them; a row's fault names its own file."""
    world = make()
    write(tmp_path / "in" / "1.parquet", {"id": ["a"], "prediction": ["x"], "score": [1]})
    write(tmp_path / "in" / "2.parquet", {"author": ["Ada"], "prediction": ["y"], "id": ["b"]})
    assert predictions.import_predictions(world.job, world.data, tmp_path / "in", "Bob") == ImportReport(1, 2)
    assert stored(world) == [('{"id": "a"}', '"x"', 1.0, "Bob"), ('{"id": "b"}', '"y"', None, "Ada")]
    write(tmp_path / "in" / "2.parquet", {"prediction": ["y"], "id": [""]})
    with pytest.raises(InputError, match=r"2\.parquet, row 1: The column id is an empty text"):
        predictions.import_predictions(world.job, world.data, tmp_path / "in", None)


@pytest.mark.long
def test_a_large_import_is_of_bounded_memory(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """More rows than the memory may hold go in, over the disk; the one key that comes twice among them is found."""
    world, count = make(), 60_000
    with duckdb.connect() as db:
        sql = f"SELECT sha256(i::VARCHAR) AS id, repeat('x', 1000) || i AS prediction FROM range({count}) r(i)"
        db.execute(f"COPY ({sql}) TO '{tmp_path / 'large.parquet'}'")
        db.execute(f"COPY ({sql} UNION ALL FROM ({sql}) LIMIT {count + 1}) TO '{tmp_path / 'twice.parquet'}'")
    monkeypatch.setenv(memory.VARIABLE, "48MB")
    with pytest.raises(InputError, match=rf"keep one of those in row 1 and row {count + 1}\."):
        predictions.import_predictions(world.job, world.data, tmp_path / "twice.parquet", None)
    assert predictions.past_imports(world.data) == []
    assert predictions.import_predictions(world.job, world.data, tmp_path / "large.parquet", None, ANY) == ImportReport(
        1, count, unlisted=count
    )
    with world.store.open() as db:
        assert db.sql("SELECT count(DISTINCT lookup), count(DISTINCT prediction) FROM imports").fetchall() == [
            (count, count)
        ]
    assert not list((world.data.folder / "scratch").glob("*/")), "nothing is left on the disk"


def test_json_is_stored_in_one_form(make: Make) -> None:
    """However a file writes a JSON value, it is stored as a model's answer is: equal values are equal texts."""
    world = make(output=JSON)
    texts = ['{"b":1,"a":[1.50,1e2]}', ' {"b" : 1, "a": [1.5, 100.0]}', '"\\u00e9\\/\\u000B"', '"é/\\u000b"']
    world.take_in({"id": ["1", "2", "3", "4"], "prediction": texts})
    same = '{"b": 1, "a": [1.5, 100.0]}'
    assert [prediction for _, prediction, _, _ in stored(world)] == [same, same, '"é/\\u000b"', '"é/\\u000b"']


@given(values=st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
                        st.datetimes(), st.dates(), st.booleans(),
                        st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)))  # fmt: skip
@settings(max_examples=25, deadline=None)
@pytest.mark.long
def test_a_stored_query_holds_the_keys_values(values: tuple[Any, ...]) -> None:
    """An import's query is JSON from which every kind of value comes back as it was; the look-up key is Python's."""
    names = ["text", "at", "day", "yes", "count", "size \"'"]
    with tempfile.TemporaryDirectory() as folder:
        columns = {name: [value] for name, value in zip(names, values, strict=True)}
        world = imports_job(Path(folder), columns, input={"path": "queries.parquet", "key": names})
        world.take_in(columns | {"prediction": ["x"]})
        with world.store.open() as db:
            [(query, lookup)] = db.execute("SELECT query, lookup FROM imports").fetchall()
    text, at, day, yes, count, size = values
    assert json.loads(query) == dict(zip(names, [text, at.isoformat(), day.isoformat(), yes, count, size], strict=True))
    kinds: list[Kind] = ["string", "timestamp", "date", "boolean", "integer", "number"]
    assert lookup == row_hash(b"", values, [Column(name, kind) for name, kind in zip(names, kinds, strict=True)])


def test_a_csv_is_imported_with_the_kinds_of_the_list(tmp_path: Path) -> None:
    """Cells are texts that stand for what the list's key holds; empty ones are null, and a score is a number."""
    columns = {"id": [7, 8], "day": [date(2026, 1, 31), date(2026, 2, 1)]}
    world = imports_job(tmp_path, columns, input={"path": "queries.parquet", "key": ["id", "day"]}, gate=LENIENT)
    path = tmp_path / "in.csv"
    path.write_text('\ufeffprediction;id;score;day;author\n"a;\nb";7;0.5;2026-01-31;Ada\né;8;;2026-02-01;\n', "utf-8")
    assert predictions.import_predictions(world.job, world.data, path, "Bob") == ImportReport(1, 2)
    assert stored(world) == [
        ('{"id": 7, "day": "2026-01-31"}', '"a;\\nb"', 0.5, "Ada"),
        ('{"id": 8, "day": "2026-02-01"}', '"é"', None, "Bob"),
    ]
    world.publish()
    assert served(world, id=7, day=date(2026, 1, 31)) == "a;\nb"
    path.write_text("id,day,prediction\n7,2026-01-31,x\nseven,2026-01-31,x\n", "utf-8")
    with pytest.raises(InputError, match=r"in\.csv, line 3: The column id: expected an integer"):
        predictions.import_predictions(world.job, world.data, path, None)
    path.write_text('id,day,prediction\n7,2026-01-31,"x\n\n"\n8,2026-01-31,\n', "utf-8")
    with pytest.raises(InputError, match=r"in\.csv, line 5: The prediction of .* is null"):
        predictions.import_predictions(world.job, world.data, path, None)
    path.write_text('id,day,prediction\n7,2026-01-31,"x\n\n"\n8,2026-01-31,y\n07,2026-01-31,z', "utf-8")
    with pytest.raises(InputError, match=r"keep one of those in line 2 and line 6\."):
        predictions.import_predictions(world.job, world.data, path, None)
    assert len(predictions.past_imports(world.data)) == 1


def test_a_damaged_file_is_refused(make: Make, tmp_path: Path) -> None:
    """A file of which a part cannot be read is not imported at all."""
    world = make()
    path = tmp_path / "damaged.parquet"
    texts = [f"prediction {number}" for number in range(5000)]
    table = pa.table({"id": [f"{number}" for number in range(5000)], "prediction": texts})
    pq.write_table(table, path, use_dictionary=False, compression="none")
    data = bytearray(path.read_bytes())
    start = data.index(b"prediction 0")
    data[start - 40 : start + 2000] = bytes(2040)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"damaged\.parquet is truncated or corrupt \(.*\): copy it again"):
        predictions.import_predictions(world.job, world.data, path, None)
    assert predictions.past_imports(world.data) == []


def test_a_score_that_is_no_number_is_none(make: Make) -> None:
    """A score of NaN is served as null, since JSON has no such number."""
    world = make()
    world.take_in({"id": ["a"], "prediction": ["x"], "score": [float("nan")]})
    world.publish()
    assert json.loads(world.get(id="a") or b"")["score"] is None


def test_a_key_named_prediction_is_refused(make: Make, tmp_path: Path) -> None:
    """One column cannot be both key and prediction."""
    world = imports_job(tmp_path, {"prediction": ["a"]}, input={"path": "queries.parquet", "key": ["prediction"]})
    with pytest.raises(InputError, match="key column prediction has the name of the column that is imported"):
        world.take_in({"prediction": ["a"]})


def test_imports_are_listed_and_undone(make: Make) -> None:
    """An import can be undone by its number; others stay, the newest of them for each key is served again."""
    world = make()
    assert predictions.past_imports(world.data) == []
    world.take_in({"id": ["a", "b"], "prediction": ["1", "1"]}, author="Ada")
    world.take_in({"id": ["a"], "prediction": ["2"]}, author="Bob")
    world.take_in({"id": ["a"], "prediction": ["3"]})
    world.publish()
    assert served(world, id="a") == "3"
    assert [(row.import_id, row.author, row.rows) for row in predictions.past_imports(world.data)] == [
        (1, "Ada", 2), (2, "Bob", 1), (3, None, 1),
    ]  # fmt: skip
    assert predictions.undo_import(world.job, world.data, 3) == UndoneImport(3, 1)
    world.publish()
    assert (served(world, id="a"), served(world, id="b")) == ("2", "1")
    assert [row.import_id for row in predictions.past_imports(world.data)] == [1, 2]


def test_undoing_what_is_not_there_is_refused(make: Make) -> None:
    """An unknown number is refused with those that there are."""
    world = make()
    with pytest.raises(NotFound, match=r"The job shop has no import 1 in .*: it has none\."):
        predictions.undo_import(world.job, world.data, 1)
    world.take_in({"id": ["a"], "prediction": ["1"]})
    world.take_in({"id": ["b"], "prediction": ["1"]})
    with pytest.raises(NotFound, match=r"The job shop has no import 7 in .*: it has 1, 2\."):
        predictions.undo_import(world.job, world.data, 7)


def test_the_next_import_has_the_highest_number(make: Make) -> None:
    """Numbers grow, so that a later import wins over an earlier one."""
    world = make()
    assert [world.take_in({"id": ["a"], "prediction": [str(number)]}).import_id for number in range(3)] == [1, 2, 3]
    predictions.undo_import(world.job, world.data, 1)
    assert world.take_in({"id": ["a"], "prediction": ["last"]}).import_id == 4
    world.publish()
    assert served(world, id="a") == "last"


def test_a_job_in_use_imports_nothing(make: Make) -> None:
    """While a run holds the job, imports and undoing them are refused, naming the run."""
    world = make()
    world.take_in({"id": ["a"], "prediction": ["1"]})
    with world.data.run_lock("batchinfer run shop"):
        with pytest.raises(Busy, match=r"in use by batchinfer run shop .process"):
            world.take_in({"id": ["b"], "prediction": ["1"]})
        with pytest.raises(Busy, match="in use by batchinfer run shop"):
            predictions.undo_import(world.job, world.data, 1)
    assert len(predictions.past_imports(world.data)) == 1


@pytest.mark.long
def test_what_people_said_holds_when_the_key_changes(tmp_path: Path) -> None:
    """With the key's columns in another order, other normalisation or kinds, imports and verdicts hold as before."""
    columns = {"id": ["7", "8"], "tag": ["A", "B"], "text": ["x", "y"]}
    key = {"path": "queries.parquet", "key": ["id", "tag"]}
    world = model_job(tmp_path, columns, input=key, gate=LENIENT)
    world.answer(lambda row: f"about {row['text']}")
    world.take_in({"id": ["7"], "tag": ["A"], "prediction": ["by hand"]})
    world.judge([row | {"verdict": "reject"} for row in world.review()])
    for changed, tag, number in (
        ({"key": ["tag", "id"]}, "A", "7"),
        ({"normalize": ["casefold"]}, "a", "7"),
        ({"types": {"id": "integer"}}, "A", 7),
        ({}, "A", "7"),
    ):
        world = world.changed(input=key | changed)
        world.publish()
        assert served(world, id=number, tag=tag) == "by hand"
        assert world.get(id=8 if isinstance(number, int) else "8", tag="B") is None, "it was rejected"
        assert world.review() == []


@pytest.mark.long
def test_what_is_of_another_key_waits_until_it_is_back(tmp_path: Path) -> None:
    """Rows of a key that the job had are kept, not served, and told of once with their number."""
    world = imports_job(tmp_path, {"id": ["a", "b"], "name": ["b", "c"]}, gate=LENIENT)
    world.take_in({"id": ["a", "b"], "prediction": ["x", "y"]})
    world = world.changed(input={"path": "queries.parquet", "key": ["name"]})
    said: list[str] = []
    for _ in range(2):
        with prepare.prepare(world.job, world.data, prepare.Options(), said.append) as p:
            assert p.plan.counts.cached == 0
    [sentence] = said
    assert sentence.startswith("2 rows of earlier imports and reviews do not fit the key name")
    world.take_in({"name": ["b"], "prediction": ["z"]})
    world.publish()
    assert served(world, name="b") == "z"
    assert world.get(name="c") is None
    world = world.changed(input={"path": "queries.parquet", "key": ["id"]})
    world.publish()
    assert (served(world, id="a"), served(world, id="b")) == ("x", "y")


def test_a_value_that_the_keys_kind_cannot_hold_waits_too(tmp_path: Path) -> None:
    """When the key becomes a number, imports of texts that are none are left, and the others are served."""
    world = imports_job(tmp_path, {"id": ["7", "8"]}, gate=LENIENT)
    world.take_in({"id": ["7", "x", "1.5"], "prediction": ["seven", "x", "y"]})
    world = world.changed(input={"path": "queries.parquet", "key": ["id"], "types": {"id": "integer"}})
    assert world.publish().entries == 1
    assert served(world, id=7) == "seven"


def test_imports_of_before_are_found_again(make: Make) -> None:
    """A cache of which it is not known which key its lookups are made of is brought up to date, in several batches."""
    world = make(["a", "b", "c"])
    world.take_in({"id": ["a", "b", "c"], "prediction": ["x", "y", "z"]})

    def spoil() -> None:
        with world.store.open(write=True) as db:
            db.execute("UPDATE import_keys SET made_of = NULL")
            db.execute("UPDATE imports SET lookup = 'old'::BLOB")

    spoil()
    world.publish()
    assert [served(world, id=name) for name in "abc"] == ["x", "y", "z"]
    with world.prepared() as p:
        spoil()
        found = imports.rebuild_lookups(world.store, p.workspace.db, p.query_list, [1], rows_at_once=1)
        assert (found, imports.outdated(world.store, p.query_list.source)) == (0, [])
    world = world.changed(description="new")
    world.publish()
    assert [served(world, id=name) for name in "abc"] == ["x", "y", "z"]


@pytest.mark.long
def test_many_lookups_are_made_again_in_bounded_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """More rows than the memory may hold are given the lookups of the new key."""
    world, count = make(), 50_000
    with duckdb.connect() as db:
        sql = f"SELECT sha256(i::VARCHAR) AS id, repeat('x', 1600) || i AS prediction FROM range({count}) r(i)"
        db.execute(f"COPY ({sql}) TO '{tmp_path / 'large.parquet'}'")
    predictions.import_predictions(world.job, world.data, tmp_path / "large.parquet", None, ANY)
    world = world.changed(input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})
    monkeypatch.setenv(memory.VARIABLE, "64MB")
    with world.prepared():
        pass
    with world.store.open() as db:
        assert db.sql("SELECT count(*), count(DISTINCT lookup) FROM imports").fetchall() == [(count, count)]


def test_a_file_that_is_not_there_is_said_to_be(make: Make, tmp_path: Path) -> None:
    """The sentence is about the file to import, not about the job's list."""
    with pytest.raises(
        InputError, match=r"There is no file .*no\.csv: give a Parquet or CSV file, or a folder or glob"
    ):
        predictions.import_predictions((world := make()).job, world.data, tmp_path / "no.csv", None)


def test_a_column_that_is_missing_is_named(make: Make, tmp_path: Path) -> None:
    """A CSV without a column of the key is said to have its own columns, not ours."""
    (tmp_path / "off.csv").write_text("foreign,prediction\na,x\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"has no column id: it has foreign, prediction\."):
        predictions.import_predictions((world := make()).job, world.data, tmp_path / "off.csv", None)


def test_a_folder_goes_in_by_the_command(make: Make, tmp_path: Path) -> None:
    """The command takes a folder of files."""
    world = make()
    write(tmp_path / "in" / "1.parquet", {"id": ["a"], "prediction": ["x"]})
    words = ["--home", str(world.data.root), "import", str(world.job.folder), str(tmp_path / "in")]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, result.output.split(".")[0]) == (0, "Import 1: 1 row imported")


STRANGE = [
    ({"type": "choice", "choices": ["Yes", "No"]}, "Yes", "Maybe", "is Maybe, not one of Yes, No"),
    ({"type": "choice", "choices": ["Yes", "No"]}, "Yes", "yes", "is yes, not one of Yes, No"),
    ({"type": "choice", "choices": ["1", "2"]}, 1, 3, "is 3, not one of 1, 2"),
    ({"type": "regex", "pattern": "[0-9]+"}, "12", "12a", "is '12a', which does not match output.pattern"),
    ({"type": "json", "schema": {"type": "object", "required": ["n"]}}, '{"n": 1}', "{}", "breaks the schema at the whole: 'n' is"),
    ({"type": "json", "schema": {"type": "object"}}, "{}", '"text"', "breaks the schema at the whole: 'text' is not"),
    ({"type": "text", "steps": ["strip"]}, "x", " x", 'is not as output.steps leave it: they make "x" of it'),
    ({"type": "text", "steps": [{"drop": "n/a"}]}, "x", "n/a", "is empty"),
    ({"type": "text", "steps": [{"split": ","}, "dedupe"]}, '["a"]', '["a", "a"]',
     'is not as output.steps leave it: they make ["a"] of it'),
    ({"type": "text", "steps": [{"split": ","}]}, '["a"]', '"a,b"', 'is not as output.steps leave it: they make ["a", "b"] of it'),
    ({"type": "text", "steps": [{"drop_echo": "id"}]}, "x", "B", "is empty"),
    ({"type": "text"}, "x", "", "is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("output", "fits", "strange", "said"), STRANGE)
def test_what_the_job_could_never_give_is_refused(
    tmp_path: Path, output: dict[str, Any], fits: Any, strange: Any, said: str
) -> None:
    """A value that no answer could be refuses the file, with its row, as in a review; unless values are allowed."""
    world = model_job(
        tmp_path, {"id": ["a", "b"], "text": ["x", "y"]}, output=output, prompt={"template": "{{ id }} {{ text }}"}
    )
    columns = {"id": ["a", "b"], "prediction": [fits, strange]}
    with pytest.raises(InputError) as raised:
        world.take_in(columns, allow=[Allowance.KEYS])
    assert "\n  row 2: the prediction of id=b " + said in str(raised.value)
    assert str(raised.value).endswith("\nIf all of that is meant, pass --allow values,keys.")
    assert (
        "imported.parquet is refused, and nothing was imported.\nIt has 1 value that the job could never give:\n"
        in str(raised.value)
    )
    assert predictions.past_imports(world.data) == []
    assert world.take_in(columns, allow=[Allowance.VALUES]) == ImportReport(1, 2, unfit=1)


def test_keys_that_the_list_does_not_have_are_refused(make: Make) -> None:
    """They are counted, and the first shown with their rows; allowed, they are counted in the report."""
    world = make(input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})
    columns = {"id": ["A", *"vwxyz", "b", "u"], "prediction": ["1"] * 8}
    with pytest.raises(InputError) as raised:
        world.take_in(columns, allow=[])
    assert "\nIt has 6 keys that the list does not have:\n  row 2: id=v\n  row 3: id=w\n" in str(raised.value)
    assert str(raised.value).endswith("\n  and 1 more\nIf all of that is meant, pass --allow keys.")
    assert predictions.past_imports(world.data) == []
    assert world.take_in(columns, allow=[Allowance.KEYS]) == ImportReport(1, 8, unlisted=6)


def test_both_faults_of_a_file_are_said_at_once(make: Make) -> None:
    """Values and keys are refused together, so that one --allow is enough."""
    world = make(output={"type": "choice", "choices": ["Yes", "No"]})
    with pytest.raises(
        InputError, match=r"(?s)1 value that .*: did you mean No\?\nIt has 1 key that .*pass --allow values,keys\."
    ):
        world.take_in({"id": ["a", "z"], "prediction": ["no", "Yes"]}, allow=[])


def test_bad_rows_and_misses_of_the_list_may_be_answered(tmp_path: Path) -> None:
    """A row that cannot be asked has a key all the same, which people may give an answer."""
    world = model_job(tmp_path, {"id": ["a", "b"], "text": ["x", None]})
    assert world.take_in({"id": ["b"], "prediction": ["x"]}, allow=[]) == ImportReport(1, 1)


def test_an_allowance_is_one_of_two(make: Make, tmp_path: Path) -> None:
    """--allow takes values, keys or both; the sentence after an import counts what was allowed."""
    world = make(output={"type": "choice", "choices": ["Yes", "No"]})
    path = write(tmp_path / "in.parquet", {"id": ["a", "z"], "prediction": ["Maybe", "No"]})
    words = ["--home", str(world.data.root), "import", str(world.job.folder), str(path), "--allow"]
    assert "--allow: value cannot be allowed; write values,keys" in str(
        CliRunner().invoke(cli, [*words, "value"]).exception
    )
    done = CliRunner().invoke(cli, [*words, "keys, values"])
    assert done.output.startswith(
        "Import 1: 2 rows imported, 1 value that the job could never give, 1 key that the list does not have. "
    )
