"""The query list: which columns and rows are taken as they are, which become bad rows, which lists are refused."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core.database import LIST_ROWS
from batchinfer.errors import InputError
from batchinfer.inputs.parquet import ROW, BadRow, ListSource
from batchinfer.job.spec import InputSpec
from tests.factories import unchecked, write

OpenList = Callable[..., ListSource]


@pytest.fixture
def opened(tmp_path: Path) -> OpenList:
    """Opens a list of these columns: key `id`; further columns are the template's."""

    def make(
        *files: dict[str, Any], columns: list[str] | None = None, rows_at_once: int = LIST_ROWS, **fields: Any
    ) -> ListSource:
        paths = [write(tmp_path / f"{number}.parquet", rows) for number, rows in enumerate(files)]
        spec = InputSpec(path="list.parquet", **({"key": ["id"]} | fields))
        used = [name for name in files[0] if name not in spec.key and name not in spec.where]
        return ListSource(paths, spec, used if columns is None else columns, rows_at_once=rows_at_once)

    return make


def good(list_: ListSource) -> dict[str, list[Any]]:
    """The good rows' columns, less what only makes keys."""
    tables = [batch.good for batch in list_.batches()]
    joined: dict[str, list[Any]] = pa.concat_tables(tables).to_pydict()
    return {name: values for name, values in joined.items() if name == ROW or "\x1f" not in name}


def bad(list_: ListSource) -> list[BadRow]:
    return [row for batch in list_.batches() for row in batch.bad]


def faults(list_: ListSource) -> list[tuple[int, str]]:
    """(row, reason) of the bad rows."""
    return [(row.row, row.reason) for row in bad(list_)]


NOON = datetime(2026, 1, 31, 12, 30, 0, 123456)  # noqa: DTZ001 - lists hold times without a zone, too


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        pytest.param(pa.array(["a", "é"]), "string", ["a", "é"], id="string"),
        pytest.param(pa.array(["a", "é"], pa.large_string()), "string", ["a", "é"], id="large_string"),
        pytest.param(pa.array(["a", "é"], pa.string_view()), "string", ["a", "é"], id="string_view"),
        pytest.param(pa.array([b"a", "é".encode()]), "string", ["a", "é"], id="binary"),
        pytest.param(pa.array([b"a"], pa.large_binary()), "string", ["a"], id="large_binary"),
        pytest.param(pa.array(["a", "b", "a"]).dictionary_encode(), "string", ["a", "b", "a"], id="dictionary"),
        pytest.param(pa.array([7, 9]).dictionary_encode(), "integer", [7, 9], id="dictionary of integers"),
        pytest.param(
            pa.array([Decimal("1.50"), Decimal(-2)], pa.decimal128(10, 2)), "string", ["1.5", "-2"], id="decimal"
        ),
        pytest.param(pa.array([-5, 7], pa.int8()), "integer", [-5, 7], id="int8"),
        pytest.param(pa.array([2**64 - 1, 1], pa.uint64()), "integer", [2**64 - 1, 1], id="uint64"),
        pytest.param(pa.array([0.5, 2], pa.float32()), "number", [0.5, 2.0], id="float32"),
        pytest.param(pa.array([0.5, float("inf")], pa.float64()), "number", [0.5, float("inf")], id="float64"),
        pytest.param(pa.array([0.5], pa.float16()), "number", [0.5], id="float16"),
        pytest.param(pa.array([True, False]), "boolean", [True, False], id="boolean"),
        pytest.param(pa.array([date(1, 1, 1), date(9999, 12, 31)]), "date", [date(1, 1, 1), date(9999, 12, 31)], id="date"),
        pytest.param(pa.array([86_400_000], pa.date64()), "date", [date(1970, 1, 2)], id="date64"),
        pytest.param(pa.array([NOON]), "timestamp", [NOON], id="timestamp"),
        pytest.param(pa.array([NOON], pa.timestamp("ns")), "timestamp", [NOON], id="timestamp in ns"),
        pytest.param(
            pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("us", "Asia/Tokyo")), "timestamp", [NOON], id="timestamp with a zone"
        ),
    ],
)  # fmt: skip
def test_every_plain_kind_of_column_can_be_a_key(
    opened: OpenList, column: pa.Array, kind: str, values: list[Any]
) -> None:
    """A key column of any plain type is read as its kind, value for value."""
    list_ = opened({"id": column})
    assert list_.kinds == {"id": kind}
    assert good(list_)["id"] == values
    assert [(part.name, part.kind) for part in list_.key] == [("id", kind)]
    assert bad(list_) == []


@pytest.mark.parametrize(
    ("column", "values"),
    [
        pytest.param(pa.array([{"b": 1, "a": "é"}]), [{"b": 1, "a": "é"}], id="struct"),
        pytest.param(pa.array([["x", "y"], []]), [["x", "y"], []], id="list"),
        pytest.param(pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [[["k", 1]]], id="map"),
    ],
)
def test_a_nested_column_reaches_the_template_as_lists_and_mappings(
    opened: OpenList, column: pa.Array, values: list[Any]
) -> None:
    """A nested column is kept as JSON and unpacked again for the template."""
    list_ = opened({"id": list(range(len(values))), "n": column})
    columns = good(list_)
    rows = [{"id": 0, "n": text} for text in columns["n"]]
    assert [list_.template_values(row)["n"] for row in rows] == values


@pytest.mark.parametrize(
    ("column", "said"),
    [
        pytest.param(pa.array([["x"]]), "a lookup key must be a plain value", id="nested key"),
        pytest.param(pa.array([1], pa.time64("us")), "cannot be used: convert it", id="time"),
        pytest.param(pa.array([1], pa.duration("us")), "cannot be used: convert it", id="duration"),
        pytest.param(pa.array([b"ab"], pa.binary(2)), "cannot be used: convert it", id="fixed-size binary"),
        pytest.param(pa.nulls(1), "cannot be used: convert it", id="nothing but nulls"),
    ],
)
def test_a_column_that_can_be_no_key_is_refused(opened: OpenList, column: pa.Array, said: str) -> None:
    """A key column of a type that has no canonical form is refused with what to do."""
    with pytest.raises(InputError, match=said):
        opened({"id": column})


NOTHING = pa.array([], pa.float64())  # as some programs type a column of no rows
LATER = [
    pytest.param([pa.nulls(2), pa.array(["x", "y"])], "string", [None, None, "x", "y"], id="nulls first"),
    pytest.param([pa.array(["x"]), pa.nulls(1)], "string", ["x", None], id="nulls last"),
    pytest.param([pa.nulls(1), pa.nulls(1), pa.array([True])], "boolean", [None, None, True], id="nulls twice"),
    pytest.param([pa.nulls(0), pa.array([7])], "integer", [7], id="no rows first"),
    pytest.param([NOTHING, pa.array(["x"])], "string", ["x"], id="no rows of another type first"),
    pytest.param([pa.nulls(1), NOTHING, pa.array(["x"])], "string", [None, "x"], id="neither nulls nor no rows tell"),
    pytest.param([NOTHING, pa.nulls(1)], "number", [None], id="no rows tell more than nulls"),
    pytest.param([pa.nulls(1), pa.array([2**64 - 1], pa.uint64())], "integer", [None, 2**64 - 1], id="unsigned later"),
    pytest.param([pa.nulls(1), pa.array([["x"]])], "json", [None, '["x"]'], id="nested later"),
    pytest.param([pa.nulls(1), pa.nulls(1)], "string", [None, None], id="nulls alone"),
    pytest.param([pa.array([1]), pa.array(["2"])], "integer", [1, 2], id="of two that tell, the first"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "kind", "values"), LATER)
def test_a_columns_kind_comes_from_all_files(
    opened: OpenList, columns: list[pa.Array], kind: str, values: list[Any]
) -> None:
    """A file whose column holds nulls alone, or that has no rows, does not say what the column is where another does."""
    files = [{"id": pa.array(range(len(column))), "note": column} for column in columns]
    list_ = opened(*files, optional=["note"])
    assert (list_.kinds["note"], good(list_)["note"]) == (kind, values)


def test_what_cannot_be_used_names_types(opened: OpenList) -> None:
    """The sentence says how to have such a column read as text, and that works."""
    times = {"id": [1], "at": pa.array([1], pa.time64("us"))}
    with pytest.raises(InputError, match=r"The column at is time64\[us\], .*input\.types .*at: string"):
        opened(times)
    assert good(opened(times, types={"at": "string"}))["at"] == ["00:00:00.000001"]


BOOL8 = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8()))
UUIDS = ["9f1b6f0a-2c3e-4a55-8f0e-0a1b2c3d4e5f", None, "00000000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        pytest.param(pa.array([text and uuid.UUID(text).bytes for text in UUIDS], pa.uuid()), "string", UUIDS, id="uuid"),
        pytest.param(pa.array(['{"a": 1}', None], pa.json_()), "string", ['{"a": 1}', None], id="json"),
        pytest.param(BOOL8, "boolean", [True, None, False], id="bool8"),
        pytest.param(pa.array(["a", None, "a"]).dictionary_encode(), "string", ["a", None, "a"], id="categorical"),
        pytest.param(pa.array(["a"], pa.string_view()), "string", ["a"], id="view"),
        pytest.param(pa.array([2**63], pa.uint64()).dictionary_encode(), "integer", [2**63], id="categorical of unsigned"),
    ],
)  # fmt: skip
def test_columns_are_read_as_what_they_are_stored_as(
    opened: OpenList, column: pa.Array, kind: str, values: list[Any]
) -> None:
    """Extension types and categoricals are the plain values behind them, in a key's column too."""
    list_ = opened({"id": pa.array(range(len(column))), "x": column}, optional=["x"])
    assert (list_.kinds["x"], good(list_)["x"]) == (kind, values)
    if kind != "json":
        assert good(opened({"id": column}, columns=[]))["id"] == [value for value in values if value is not None]


def test_null_and_empty_keys_are_bad_rows(opened: OpenList) -> None:
    """A key that is null, NaN, or has no visible character makes a bad row that says so."""
    texts = opened({"id": ["a", None, "", " \t", "\u00a0", "b"]})
    assert faults(texts) == [(2, "null_key"), (3, "empty_key"), (4, "empty_key"), (5, "empty_key")]
    assert good(texts)["id"] == ["a", "b"]
    assert faults(opened({"id": [1.0, float("nan"), None]})) == [(2, "null_key"), (3, "null_key")]


def test_null_and_empty_template_values_are_bad_rows(opened: OpenList) -> None:
    """A template column that is null or empty makes a bad row; the detail names the column."""
    list_ = opened({"id": [1, 2, 3, 4], "t": ["x", None, "  ", "y"], "n": [1.5, 2, 3, float("nan")]})
    assert [(row.row, row.reason, row.detail) for row in bad(list_)] == [
        (2, "null_value", "The column t is null."),
        (3, "empty_value", "The column t is an empty text."),
        (4, "null_value", "The column n is null."),
    ]
    assert good(list_)["id"] == [1]


def test_optional_columns_may_be_null_or_empty(opened: OpenList) -> None:
    """A column named in input.optional may lack a value, but a key column may not."""
    list_ = opened({"id": ["a", "b", None], "t": [None, "", "x"]}, optional=["t", "id"])
    assert good(list_) == {ROW: [1, 2], "id": ["a", "b"], "t": [None, ""]}
    assert faults(list_) == [(3, "null_key")]


def test_a_bad_row_carries_its_number_file_and_key(opened: OpenList) -> None:
    """A bad row names its place and what of its key can be shown."""
    list_ = opened({"id": [date(2026, 1, 31)], "n": [7], "t": [""]}, key=["id", "n"])
    assert bad(list_) == [
        BadRow(1, "0.parquet", {"id": "2026-01-31", "n": 7}, "empty_value", "The column t is an empty text.")
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_text_that_is_not_utf8_is_a_bad_row(opened: OpenList, kind: pa.DataType) -> None:
    """A row whose bytes are no UTF-8 fails alone, in a text and in a binary column, as key and as value."""
    data = [b"fine", b"caf\xe9 ole", "café".encode(), None, b"\xf0\x9f\x92"]
    list_ = opened({"id": [1, 2, 3, 4, 5], "t": unchecked(data, kind)}, optional=["t"])
    assert faults(list_) == [(2, "not_utf8"), (5, "not_utf8")]
    assert bad(list_)[0].detail == "The column t is not valid UTF-8 at byte 3."
    assert good(list_)["t"] == ["fine", "café", None]
    keys = opened({"id": unchecked([b"\xff", b"a"], kind)})
    assert (faults(keys), good(keys)["id"]) == ([(1, "not_utf8")], ["a"])
    assert bad(keys)[0].query == {"id": "\ufffd"}


def test_nested_text_that_is_not_utf8_is_a_bad_row(opened: OpenList) -> None:
    """Broken bytes inside a list fail their row alone."""
    inner = unchecked([b"ok", b"\xff", b"fine"], pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), inner)
    list_ = opened({"id": [1, 2, 3], "n": lists})
    assert faults(list_) == [(2, "not_utf8")]
    assert good(list_)["n"] == ['["ok"]', '["fine"]']


def test_a_dictionary_that_is_not_utf8_is_refused_in_a_sentence(opened: OpenList) -> None:
    """Parquet's reader checks dictionaries itself, so such a list is refused as a whole, as an input error."""
    dictionary = unchecked([b"ok", b"\xff"], pa.string())
    list_ = opened({"id": pa.DictionaryArray.from_arrays(pa.array([0, 1]), dictionary)})
    with pytest.raises(InputError, match="UTF8"):
        bad(list_)


@pytest.mark.parametrize(
    ("kind", "column", "values"),
    [
        ("integer", ["7", "x", "8"], [7, 8]),
        ("integer", [1.0, 1.5, 2.0], [1, 2]),
        ("number", ["1.5", "x", "2"], [1.5, 2.0]),
        ("boolean", ["true", "x", "false"], [True, False]),
        ("date", ["2026-01-31", "31.1.2026", "0001-01-01"], [date(2026, 1, 31), date(1, 1, 1)]),
        ("timestamp", ["2026-01-31 12:30:00.123456", "noon", "2026-01-31 12:30:00.123456"], [NOON, NOON]),
        ("string", [b"a", b"\xff", b"b"], ["a", "b"]),
    ],
)
def test_values_of_another_type_than_declared_are_bad_rows(
    opened: OpenList, kind: str, column: list[Any], values: list[Any]
) -> None:
    """Under input.types a value that cannot be of the type is a bad row, and the others are converted."""
    list_ = opened({"id": [1, 2, 3], "v": column}, types={"v": kind})
    assert list_.kinds["v"] == kind
    assert good(list_)["v"] == values
    assert faults(list_) == [(2, "not_utf8" if kind == "string" else "wrong_type")]


def test_a_wrong_value_is_shown(opened: OpenList) -> None:
    """The detail of a wrong type shows the value that is there."""
    (row,) = bad(opened({"id": ["x"]}, types={"id": "integer"}))
    assert row.detail == "The column id: expected an integer, got 'x'."


def test_a_nested_column_declared_as_text_is_wrong(opened: OpenList) -> None:
    """A list is not a text, whatever input.types says."""
    assert faults(opened({"id": [1], "v": [["x"]]}, types={"v": "string"})) == [(1, "wrong_type")]


def test_nothing_but_nulls_can_be_declared(opened: OpenList) -> None:
    """A column of nulls only is read where input.types says what it should be; its rows are bad."""
    assert faults(opened({"id": pa.nulls(2)}, types={"id": "integer"})) == [(1, "null_key"), (2, "null_key")]


def test_times_that_cannot_be_told_apart_are_bad_rows(opened: OpenList) -> None:
    """A time finer than a microsecond, or beyond the year 9999, is a bad row, never a crash."""
    fine = opened({"id": pa.array([1000, 1001], pa.timestamp("ns"))})
    assert faults(fine) == [(2, "wrong_type")]
    said = "The column id holds 1970-01-01 00:00:00.000001001, a time finer than a microsecond: round it."
    assert bad(fine)[0].detail == said
    far = opened({"id": pa.array([0, 5 * 10**17, -(10**18)], pa.timestamp("us"))})
    assert faults(far) == [(2, "wrong_type"), (3, "wrong_type")]
    assert faults(opened({"id": pa.array([0, 10**7], pa.date32())})) == [(2, "wrong_type")]


def test_a_second_file_of_another_type_is_converted_or_bad(opened: OpenList) -> None:
    """The first file says of which kind a column is; values of later files that are not are bad rows."""
    list_ = opened({"id": [1, 2]}, {"id": ["3", "four"]}, {"id": [5.0, 5.5]})
    assert good(list_) == {ROW: [1, 2, 3, 5], "id": [1, 2, 3, 5]}
    assert [(row.row, row.file, row.reason) for row in bad(list_)] == [
        (4, "1.parquet", "wrong_type"),
        (6, "2.parquet", "wrong_type"),
    ]


def test_later_files_hold_what_the_first_can(opened: OpenList) -> None:
    """Integers that the first file's column cannot hold are bad rows, so that a list has one type throughout."""
    signed = opened({"id": [-1]}, {"id": pa.array([7, 2**63], pa.uint64())})
    assert (good(signed)["id"], faults(signed)) == ([-1, 7], [(3, "wrong_type")])
    unsigned = opened({"id": pa.array([2**63], pa.uint64())}, {"id": [-1, 7]})
    assert (good(unsigned)["id"], faults(unsigned)) == ([2**63, 7], [(2, "wrong_type")])


def test_rows_are_counted_over_all_files_and_batches(opened: OpenList) -> None:
    """Row numbers go on from one batch, row group and file to the next."""
    files = [{"id": list("abcde")}, {"id": pa.array([], pa.string())}, {"id": ["f", "", "h"]}]
    list_ = opened(*files, rows_at_once=3)
    assert good(list_) == {ROW: [1, 2, 3, 4, 5, 6, 8], "id": list("abcdefh")}
    assert [(row.row, row.file) for row in bad(list_)] == [(7, "2.parquet")]


def test_where_keeps_the_rows_that_have_the_values(opened: OpenList) -> None:
    """input.where keeps rows by one value or several, of any kind; rows that it drops are neither good nor bad."""
    rows = {
        "id": [1, 2, 3, 4, 5],
        "lang": ["de", "en", None, "fr", "de"],
        "t": ["a", "", "c", "d", ""],
        "ok": [True, True, True, False, True],
        "n": [1.0, 2.0, 3.0, 4.0, 5.0],
        "day": [date(2026, 1, day) for day in range(1, 6)],
    }
    assert good(opened(rows, columns=["t"], where={"lang": "de"})) | {"lang": 0, "t": 0} == {
        ROW: [1],
        "id": [1],
        "lang": 0,
        "t": 0,
    }
    assert faults(opened(rows, columns=["t"], where={"lang": "de"})) == [(5, "empty_value")]
    assert good(opened(rows, columns=["t"], where={"lang": ["de", "fr"], "ok": False}))["id"] == [4]
    assert good(opened(rows, columns=[], where={"n": [2, 3]}))["id"] == [2, 3]
    assert good(opened(rows, columns=[], where={"day": "2026-01-04"}))["id"] == [4]
    assert good(opened(rows, columns=[], where={"id": 5}))["id"] == [5]


def test_a_faulty_filter_value_is_reported(opened: OpenList) -> None:
    """A row whose filter column cannot be read is a bad row rather than silently dropped."""
    list_ = opened({"id": [1, 2, 3], "lang": unchecked([b"de", b"\xff", b"en"], pa.string())}, where={"lang": "de"})
    assert good(list_)["id"] == [1]
    assert faults(list_) == [(2, "not_utf8")]


@pytest.mark.parametrize("wanted", ["x", 1.5, ["1", "x"]])
def test_a_filter_of_another_type_is_refused(opened: OpenList, wanted: Any) -> None:
    """A filter value that the column could never hold is refused, naming both."""
    with pytest.raises(
        InputError, match=r"^The column id holds integer values, and the filter wants .*: correct it\.$"
    ):
        opened({"id": [1]}, where={"id": wanted})


@given(st.lists(st.text(min_size=1), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_text_comes_back_byte_for_byte(texts: list[str]) -> None:
    """Whatever UTF-8 a list holds is handed on as it is, not normalised and not trimmed; only blank texts are bad."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "list.parquet", {"id": texts})
        list_ = ListSource([path], InputSpec(path="list.parquet", key=["id"]), [])
        handed = dict(zip(*good(list_).values(), strict=True)) | {row.row: row.query["id"] for row in bad(list_)}
        assert [handed[number].encode() for number in range(1, len(texts) + 1)] == [text.encode() for text in texts]
        assert all(not row.query["id"].strip() for row in bad(list_))


WORLD = [
    "👩🏽‍🚀 family 👨‍👩‍👧‍👦 flag 🏴󠁧󠁢󠁳󠁣󠁴󠁿",  # joined and skin-toned emoji
    "\u200fשלום \u202bمرحبا بالعالم\u202c",
    "e\u0301 is not \u00e9, \u1100\u1161\u11a8 is not \uac01",  # combining characters, composed and not
    "ZWNJ \u200c, BOM \ufeff, NUL \x00, newline\r\n",
    "क्षि ไทย 漢字 𠮷",
]


def test_emoji_right_to_left_and_combining_characters_are_kept(opened: OpenList) -> None:
    """Scripts and signs that are easily mangled are handed on as the same bytes, as key and as value."""
    list_ = opened({"id": WORLD, "t": [text.encode() for text in WORLD]})
    columns = good(list_)
    assert [text.encode() for text in columns["id"]] == [text.encode() for text in WORLD]
    assert columns["t"] == columns["id"]


def test_normalised_keys_lie_beside_the_texts(opened: OpenList) -> None:
    """input.normalize makes comparable texts for keys and leaves the column itself as it is."""
    list_ = opened({"id": ["  ＣＡＦÉ ", "cafe\u0301"]}, normalize=["nfkc", "casefold", "trim"])
    (batch,) = list_.batches()
    assert batch.good["id"].to_pylist() == ["  ＣＡＦÉ ", "cafe\u0301"]
    assert batch.good["id\x1fnormal"].to_pylist() == ["café", "café"]


def test_a_missing_column_is_named_with_the_nearest(opened: OpenList) -> None:
    """A column that the list lacks is refused with the nearest name that it has, or with all of them."""
    with pytest.raises(InputError, match=r"^0\.parquet has no column langauge: did you mean language\?$"):
        opened({"id": [1], "language": ["de"]}, columns=["langauge"])
    with pytest.raises(InputError, match=r"has no column zzz: it has id, language\.$"):
        opened({"id": [1], "language": ["de"]}, columns=[], where={"zzz": 1})


def test_a_column_missing_from_a_later_file_is_refused(opened: OpenList) -> None:
    """Every file must have every column; the message names the file."""
    with pytest.raises(InputError, match=r"1\.parquet has no column t"):
        opened({"id": [1], "t": ["x"]}, {"id": [2]})


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Two columns of one name leave open which is meant."""
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["id", "id"])
    with pytest.raises(InputError, match="has the column id more than once"):
        ListSource([write(tmp_path / "x.parquet", table)], InputSpec(path="x", key=["id"]), [])


def test_columns_that_differ_only_in_case_are_refused(opened: OpenList) -> None:
    """The database does not tell such columns apart, so a job must not use both; an unused one does no harm."""
    with pytest.raises(InputError, match="The columns id and ID differ only in case"):
        opened({"id": [1], "ID": [2]})
    assert good(opened({"id": [1], "ID": [2]}, columns=[]))["id"] == [1]


def test_an_empty_list_is_refused(opened: OpenList) -> None:
    """A list without rows would remove everything that is served, so it is refused."""
    list_ = opened({"id": pa.array([], pa.string())}, {"id": pa.array([], pa.string())})
    with pytest.raises(InputError, match="has no rows: an empty list would remove everything that is served"):
        bad(list_)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    """Text under a Parquet name is refused in a sentence that names the file."""
    path = tmp_path / "list.parquet"
    path.write_text("id,text\n1,a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"list\.parquet is not Parquet: write it as Parquet, or as CSV or JSON lines"):
        ListSource([path], InputSpec(path="x", key=["id"]), [])
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"list\.parquet is not Parquet"):
        ListSource([path], InputSpec(path="x", key=["id"]), [])


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A download that broke off is refused, wherever it did."""
    path = write(tmp_path / "list.parquet", {"id": [f"row {number}" for number in range(5000)]})
    whole = path.read_bytes()
    for length in (3, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        said = "is not Parquet" if length < 4 else r"is truncated or corrupt \(.*\): copy it again"
        with pytest.raises(InputError, match=rf"list\.parquet {said}"):
            ListSource([path], InputSpec(path="x", key=["id"]), [])


@pytest.mark.parametrize("name", ["it's.csv", "a.tsv", "a.json", "a.jsonl", "a.ndjson"])
def test_what_can_be_converted_says_how(tmp_path: Path, name: str) -> None:
    """For a file that DuckDB can read, the refusal has the statement that makes Parquet of it; it works as it stands."""
    path = tmp_path / name
    text = (
        '{"id": "a"}\n{"id": "b"}\n'
        if "json" in name
        else "id\tn\na\t1\nb\t2\n"
        if "tsv" in name
        else "id,n\na,1\nb,2\n"
    )
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="is not Parquet: convert it, for example with DuckDB: ") as raised:
        ListSource([path], InputSpec(path="x", key=["id"]), [])
    duckdb.sql(raised.value.fix.partition("DuckDB: ")[2].removesuffix("."))
    assert pq.read_table(path.with_suffix(".parquet"))["id"].to_pylist() == ["a", "b"]


def test_a_file_damaged_inside_is_refused(tmp_path: Path) -> None:
    """Damaged pages behind a whole footer are refused when they are reached."""
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"id": [f"row {number}" for number in range(5000)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(bytes(data))
    list_ = ListSource([path], InputSpec(path="x", key=["id"]), [])
    with pytest.raises(InputError, match=r"list\.parquet is truncated or corrupt"):
        bad(list_)


def test_texts_of_times_may_have_a_zone(opened: OpenList) -> None:
    """A text in a column of times is the moment that it means, with a zone or without one, as in a look-up."""
    texts = [
        "2026-01-31T12:30:00Z",
        "2026-01-31 13:30:00+01:00",
        "2026-01-31T12:30:00",
        "2026-01-31T07:30:00-0500",
        "noon",
    ]
    list_ = opened({"id": texts}, types={"id": "timestamp"}, columns=[])
    assert good(list_)["id"] == [datetime(2026, 1, 31, 12, 30)] * 4  # noqa: DTZ001 - as lists hold them
    assert faults(list_) == [(5, "wrong_type")]
