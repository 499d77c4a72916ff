"""Files that a command writes: the ending decides, others are refused, and each format has values right."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from batchinfer.core.long_texts import LongTexts
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.core.output_rows import write_output
from batchinfer.errors import StoreError, UsageError


def test_the_ending_decides(tmp_path: Path) -> None:
    """The ending says the format, in any case; a format that is named as well must be the same."""
    for name, kind in [("a.parquet", "parquet"), ("a.b.CSV", "csv"), ("a.jsonl", "jsonl")]:
        assert OutputFile.of(tmp_path / name) == OutputFile(tmp_path / name, OutputFormat(kind))
    assert OutputFile.of("-", "csv") == OutputFile(None, OutputFormat.CSV)
    assert OutputFile.of(tmp_path / "a.csv", "csv").format == OutputFormat.CSV


@pytest.mark.parametrize(
    ("name", "chosen", "fault"),
    [
        ("out.xlsx", None, "out.xlsx cannot be written: the ending .xlsx is not a format. Name a file that ends in "),
        ("out.csv.gz", None, "the ending .gz is not a format"),
        ("out", None, "it has no ending that says its format"),
        (".csv", None, "it has no ending that says its format"),
        ("out.csv", "jsonl", "--format jsonl does not fit out.csv"),
        ("o\udcff.csv", None, "has a name that is not UTF-8: rename it"),
        ("o\0.csv", None, "has the character U+0000 in it"),
        ("-", None, "- needs --format: parquet, csv or jsonl."),
    ],
)
def test_what_has_no_format_is_refused(name: str, chosen: str | None, fault: str) -> None:
    """Any other ending, or none, is refused in a sentence that says what to do."""
    with pytest.raises(UsageError) as raised:
        OutputFile.of(name, chosen)
    assert fault in str(raised.value)


def test_a_command_may_write_fewer_formats(tmp_path: Path) -> None:
    """What only some formats can hold names those alone."""
    few = (OutputFormat.CSV, OutputFormat.PARQUET)
    with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet, or - with --format"):
        OutputFile.of(tmp_path / "a.jsonl", None, few)
    with pytest.raises(UsageError, match="- needs --format: csv or parquet"):
        OutputFile.of("-", "jsonl", few)


VALUES = r'''SELECT * FROM (VALUES
    (1, 'a"b,' || chr(10) || 'c', 'x'::BLOB, TIMESTAMP '2026-01-02 03:04:05.678', DATE '2026-01-02', 0.1::DOUBLE,
     {'n': ['x', NULL]}, ['p'], '{"k": [1, null]}', true, 18446744073709551615::UBIGINT),
    (2, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (3, NULL, '\x00\xFF'::BLOB, TIMESTAMP '0001-01-01 00:00:00', DATE '9999-12-31', '-inf'::DOUBLE,
     {'n': []}, [], '"=1+1"', false, 0::UBIGINT)
    ) t(id, "a ""text""", bytes, time, day, number, nested, list, json, yes, big)'''


def written(tmp_path: Path, ending: str) -> Path:
    """The values above in a file of this ending."""
    output = OutputFile.of(tmp_path / f"out.{ending}")
    with duckdb.connect() as db, output.draft() as draft:
        write_output(db, VALUES, output, draft, LongTexts(tmp_path), ["json"])
    assert output.path is not None
    return output.path


def test_json_lines_have_values_right(tmp_path: Path) -> None:
    """Nested values nest, times are ISO 8601, bytes hexadecimal, infinity a number beyond range; null is null."""
    lines = written(tmp_path, "jsonl").read_text(encoding="utf-8").splitlines()
    first, second, third = map(json.loads, lines)
    assert first == {
        "id": 1, 'a "text"': 'a"b,\nc', "bytes": "78", "time": "2026-01-02T03:04:05.678000", "day": "2026-01-02", "number": 0.1,
        "nested": {"n": ["x", None]}, "list": ["p"], "json": {"k": [1, None]}, "yes": True, "big": 2**64 - 1,
    }  # fmt: skip
    assert second == dict.fromkeys(first) | {"id": 2, 'a "text"': ""}
    assert third["number"] == float("-inf")
    assert '"number":-1e999' in lines[2]
    assert (third["bytes"], third["time"], third["json"]) == ("00ff", "0001-01-01T00:00:00", "=1+1")


def test_csv_has_values_right(tmp_path: Path) -> None:
    """The same as cells: nested values are JSON, an empty text has quotes and null has not."""
    path = written(tmp_path, "csv")
    with path.open(encoding="utf-8", newline="") as file:
        first, _, third = csv.DictReader(file)
    assert (first['a "text"'], first["bytes"], first["time"]) == ('a"b,\nc', "78", "2026-01-02T03:04:05.678000")
    assert (json.loads(first["nested"]), json.loads(first["list"])) == ({"n": ["x", None]}, ["p"])
    assert (json.loads(first["json"]), first["yes"], first["big"]) == ({"k": [1, None]}, "true", str(2**64 - 1))
    assert third["number"] == "-inf"
    assert '\n2,"",,,,,,,,,\n' in path.read_text(encoding="utf-8")


def test_parquet_has_values_as_they_are(tmp_path: Path) -> None:
    """Parquet keeps kinds."""
    rows = pq.read_table(written(tmp_path, "parquet")).to_pylist()
    assert (rows[0]["nested"], rows[0]["bytes"], rows[1]["time"]) == ({"n": ["x", None]}, b"x", None)


@pytest.mark.parametrize("ending", OutputFormat)
def test_a_file_that_breaks_off_is_not_there(tmp_path: Path, ending: str) -> None:
    """A query that fails half-way leaves the old file, and nothing beside it."""
    output = OutputFile.of(tmp_path / f"out.{ending}")
    (tmp_path / f"out.{ending}").write_text("mine")
    sql = "SELECT CASE WHEN range = 99999 THEN error('no') ELSE 'x' END AS x FROM range(100000)"
    with duckdb.connect() as db, pytest.raises((duckdb.Error, StoreError)), output.draft() as draft:
        write_output(db, sql, output, draft, LongTexts(tmp_path))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_draft_that_cannot_be_written_names_the_output(tmp_path: Path) -> None:
    """Errors name the file that the person named, not its draft."""
    output = OutputFile.of(tmp_path / "out.csv")
    with duckdb.connect() as db, pytest.raises(StoreError, match=r"out\.csv cannot be written: No such file"):
        write_output(db, "SELECT 1", output, tmp_path / "none" / "draft", LongTexts(tmp_path))
