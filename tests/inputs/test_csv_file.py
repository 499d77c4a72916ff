"""CSV files that people hand in: read as spreadsheets write them, or refused with the line."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchinfer.core.memory import VARIABLE
from batchinfer.errors import InputError
from batchinfer.inputs import csv_file
from batchinfer.inputs.csv_file import as_parquet
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ListSource
from batchinfer.job.spec import InputSpec
from tests.factories import write

READ = [
    pytest.param(b"a,b\n1,x\n", [("1", "x")], id="plain"),
    pytest.param(b"\xef\xbb\xbfa,b\r\n1,\xc3\xa9\r\n", [("1", "é")], id="as spreadsheets write it"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfa,b\n1,x\n", [("1", "x")], id="two marks"),
    pytest.param(b"a;b\n1,5;x\n", [("1,5", "x")], id="semicolons"),
    pytest.param(b'a,b\n"1\n\n2","say ""x"", y"\n', [("1\n\n2", 'say "x", y')], id="lines and quotes in cells"),
    pytest.param(b'a,b\n,""\n1,x\n,y\n', [("1", "x"), (None, "y")], id="empty cells, and rows of them"),
    pytest.param(b"a,b\n1\n2,x\n", [("1", None), ("2", "x")], id="empty cells at the end left out"),
    pytest.param(b"a,b\n\n1,x\n\n", [("1", "x")], id="empty lines"),
    pytest.param(b"a,b\n007, x \n", [("007", " x ")], id="texts as they are"),
    pytest.param(b'a,b\n1,5 inch (5")\n', [("1", '5 inch (5")')], id="a quote within a cell"),
    pytest.param(b"a,b\n1,NULL", [("1", "NULL")], id="no line end"),
    pytest.param(b"a,b\n", [], id="no rows"),
    pytest.param("a\tb\n1,5\té;\n".encode("utf-16"), [("1,5", "é;")], id="UTF-16 with tabs"),
    pytest.param("a,b\n1,é\n".encode("utf-16-le"), [("1", "é")], id="UTF-16 without a mark"),
    pytest.param("a,b\n1,é\n".encode("utf-16-be"), [("1", "é")], id="UTF-16 without a mark, the other way round"),
    pytest.param(b"\xfe\xff" + "a,b\n1,x\n".encode("utf-16-be"), [("1", "x")], id="UTF-16, the other way round"),
    pytest.param(b"\xef\xbb\xbfa\tb\r\n1,5\tx\r\n", [("1,5", "x")], id="tabs"),
    pytest.param(b"sep=;\r\na;b\r\n1,5;x\r\n", [("1,5", "x")], id="a line that says the separator"),
    pytest.param(b"a,b,,\n1,x,,\n2,y,,,,\n", [("1", "x"), ("2", "y")], id="empty columns at the end"),
    pytest.param(b" a ,b\t\n1,x\n", [("1", "x")], id="spaces in the header"),
    pytest.param(b'"a","b"\n1,"x;;\t\t"\n', [("1", "x;;\t\t")], id="other separators in cells"),
]  # fmt: skip
REFUSED = [
    pytest.param(b"", "is empty: its first line should name the columns", id="empty"),
    pytest.param(b"\xef\xbb\xbf\n\n", "is empty", id="empty lines alone"),
    pytest.param(b"a,b\n1,x\n\n2,x,3\n", "line 4: the row has 3 cells, but the header has 2", id="a cell too many"),
    pytest.param(b'a,b\n"1\n2",x\n3,4,5\n', "line 4: the row has 3 cells", id="a cell too many after a cell of two lines"),
    pytest.param(b'a,b\n1,"x\n2,x\n', "line 3: this is not valid CSV: unexpected end", id="quote never closed"),
    pytest.param(b'a,b\n1,"x\n2,"y"\n', "line 3: this is not valid CSV", id="quote closed by another"),
    pytest.param(b'a,b\n1,"' + b"x" * 2000 + b'"\n', "line 2: a cell has more than .* or a quote", id="endless cell"),
    pytest.param(b"a,b\n1,x\n2,\xff\n", "line 3 is not UTF-8: save the file", id="not UTF-8"),
    pytest.param("a,b\n1,x\n".encode("utf-16")[:-1], "is not UTF-8", id="UTF-16 that breaks off"),
    pytest.param(b"a,b,\n1,x,y\n", "line 2: the row has 3 cells, but the header has 2", id="a cell in a column without a name"),
    pytest.param(b"a\0,b\n1,2\n", "line 1: the name of column 1 has a NUL character", id="NUL in a name"),
    pytest.param(
        ("a," * 200_000)[:-1].encode(), "line 1: the header has 200,000 columns", id="a very long header"
    ),
    pytest.param(",".join(f"c{n}" for n in range(20_000)).encode(), "line 1: the header has 20,000 columns", id="too wide"),
    pytest.param(b"a,a\n1,2\n", "line 1: the header has the column a more than once", id="name twice"),
    pytest.param(b"Table 1\na,b\n1,2\n", "line 2: .* the header has 1: put quotes .* title, as Numbers", id="a title"),
    pytest.param(b"a,b\n1,x\n" + b"x" * 100 + b"\xc3", "line 3 is not UTF-8", id="a character that breaks off"),
    pytest.param(b"a,,b\n1,2,3\n", "line 1: column 2 of the header has no name", id="no name"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), READ)
@pytest.mark.parametrize("rows_at_once", [1, 1000])
def test_a_csv_becomes_columns_of_texts(
    tmp_path: Path, content: bytes, expected: list[tuple[str | None, ...]], rows_at_once: int
) -> None:
    """Cells come as they stand there, however many are read at once; only the empty ones are null."""
    path = tmp_path / "words.CSV"
    path.write_bytes(content)
    parquet = as_parquet(path, tmp_path, rows_at_once=rows_at_once)
    assert parquet.name == path.name, "sentences about the file name what was handed in"
    table = pq.read_table(parquet)
    assert table.column_names == ["a", "b"]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected


@pytest.mark.parametrize(("content", "said"), REFUSED)
def test_what_is_no_csv_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str) -> None:
    """Rows are never merged or lost in silence: the sentence names the file, the line, and what to do."""
    monkeypatch.setattr(csv_file, "MOST_CELL", 1000)
    path = tmp_path / "words.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        as_parquet(path, tmp_path)
    assert str(raised.value).startswith(str(path))


def test_a_file_without_line_ends_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line has an end somewhere, also the first one."""
    monkeypatch.setattr(csv_file, "MOST_LINE", 1000)
    for number, text in enumerate(("x" * 5000, "a,b\n" + "1," * 5000), 1):
        path = tmp_path / "q.csv"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"line {number} has .* MB or more"):
            as_parquet(path, tmp_path)


def test_other_files_are_left_as_they_are(tmp_path: Path) -> None:
    """A Parquet file is used where it lies."""
    path = write(tmp_path / "words.parquet", {"a": [1]})
    assert as_parquet(path, tmp_path / "nowhere") == path


def test_a_csv_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A file that is not there is one sentence."""
    with pytest.raises(InputError, match=r"words\.csv cannot be read: No such file or directory"):
        as_parquet(tmp_path / "words.csv", tmp_path)


@pytest.mark.parametrize("suffix", [".xlsx", ".XLS", ".ods"])
def test_other_spreadsheets_are_told_what_to_do(tmp_path: Path, suffix: str) -> None:
    """Files that only a spreadsheet reads are refused with the way out."""
    (tmp_path / f"a{suffix}").write_bytes(b"PK")
    with pytest.raises(InputError, match="neither CSV nor Parquet: save the spreadsheet as CSV"):
        as_parquet(tmp_path / f"a{suffix}", tmp_path)


def test_a_spreadsheet_that_is_named_as_csv_is_told_what_to_do(tmp_path: Path) -> None:
    """Its first bytes say what it is."""
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04" + b"0" * 100)
    with pytest.raises(
        InputError, match=r"a\.csv is no CSV, but a spreadsheet or another zip file: save the spreadsheet as CSV"
    ):
        as_parquet(tmp_path / "a.csv", tmp_path)


def test_known_columns_are_called_so_in_any_case(tmp_path: Path) -> None:
    """The header's case is forgiven where it leaves no doubt."""
    (tmp_path / "a.csv").write_text("ID,Prediction,other,Two,two\n1,x,y,z,w\n", encoding="utf-8")
    path = as_parquet(tmp_path / "a.csv", tmp_path, None, ["id", "prediction", "TWO"])
    assert pq.read_schema(path).names == ["id", "prediction", "other", "Two", "two"]


def test_long_cells_are_held_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of long cells are written in several parts, however many rows may be held at once."""
    monkeypatch.setenv(VARIABLE, "32MB")
    path = tmp_path / "long.csv"
    path.write_text("a,b\n" + "".join(f"{number},{'x' * 300_000}\n" for number in range(20)), encoding="utf-8")
    made = pq.ParquetFile(as_parquet(path, tmp_path))
    assert (made.num_row_groups > 2, made.metadata.num_rows) == (True, 20)


def test_a_title_that_passes_for_a_header(tmp_path: Path) -> None:
    """Where a CSV has none of the columns that are wanted, what may be the matter is said."""
    path = tmp_path / "words.csv"
    path.write_bytes(b"Table 1\nid;text\n1;x\n")
    file = ListFile(as_parquet(path, tmp_path))
    with pytest.raises(InputError, match=r"no column id: it has Table 1\. If the file begins with a title, as Numbers"):
        ListSource([file], InputSpec(path="words.csv", key=["id"]), [])
