"""Lists of JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.errors import InputError
from batchinfer.inputs import json_lines
from batchinfer.inputs.json_lines import lines_as_parquet

READ: list[tuple[str, list[dict[str, Any]]]] = [
    ('{"a": 1, "b": "x"}\n{"b": "y"}\n', [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]),
    ('\ufeff{"a": null}\r\n\n{"a": 1}\n{"a": 2.5}', [{"a": None}, {"a": 1.0}, {"a": 2.5}]),
    ('{"a": 9223372036854775807}\n{"a": -9223372036854775808}\n', [{"a": (1 << 63) - 1}, {"a": -1 << 63}]),
    ('{"a": "2026-01-01T00:00:00Z", "b": "007", "c": true}\n', [{"a": "2026-01-01T00:00:00Z", "b": "007", "c": True}]),
    ('{"a": {"x": 1}}\n{"a": {"y": [2]}}\n', [{"a": {"x": 1, "y": None}}, {"a": {"x": None, "y": [2]}}]),
    ('{"a": "\\u00fc\\ud83d\\ude00"}\n{"z": 1}\n', [{"a": "ü😀", "z": None}, {"a": None, "z": 1}]),
    ('{"": 1}\n', [{"": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rows"), READ)
@pytest.mark.parametrize("rows_at_once", [1, 1000])
def test_values_keep_their_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, rows: list[dict[str, Any]], rows_at_once: int
) -> None:
    """Texts stay texts, also those that look like dates or numbers; what an object lacks is null."""
    monkeypatch.setattr(json_lines, "TEXT_ROWS", rows_at_once)
    path, target = tmp_path / "q.jsonl", tmp_path / "q.parquet"
    path.write_bytes(text.encode())
    lines_as_parquet(path, target)
    assert pq.read_table(target).to_pylist() == rows


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            b'{"a": 1}\n\n{"a": "x"}\n',
            r'line 3: a holds "x", and what is above it there is int64: a column has values of one kind',
        ),
        (b'{"a": [1, {"b": 2}]}\n', r'line 1: a holds \[1, {"b": 2}\], with values of several kinds'),
        (b'{"a": true}\n{"a": 1}\n', "line 2: a holds 1, and what is above it there is bool"),
        (
            b'{"a": 9223372036854775808}\n',
            "line 1: the integer 9223372036854775808 is beyond 63 bits and a sign: write it as a text",
        ),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "is beyond 63 bits"),
        (b'{"a": 9007199254740993}\n{"a": 1.5}\n', "line 1: a has integers beyond 2.53 beside numbers with a point"),
        (b'{"a": {}}\n', r"the column a holds objects without a name in them \(\{\}\) alone: leave it out"),
        (b'{"a": [{"b": {}}]}\n', "the column a holds objects without a name"),
        (b'{"b": 1}\n{"a": "\\ud800"}\n', "line 2: a holds half of a character"),
        (b'{"a": ' + b"[" * 100 + b"1" + b"]" * 100 + b"}\n", "the column a is nested more than 32 levels deep"),
        (b'{"a": NaN}\n', "line 1: NaN is no number: write null"),
        (b'{"a": 1e999}\n', "line 1: 1e999 is no number"),
        (b'{"a": 1}\n{"a": 1', r"line 2 is not JSON \(Expecting ',' delimiter, column 8\): write an object a line"),
        (b'[{"a": 1},\n', "line 1 is not JSON"),
        (b'[{"a": 1}]\n', "line 1 is a list and not an object"),
        (b"null\n", "line 1 is null and not an object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is not UTF-8"),
        (b'{"a": 1, "a": 2}\n', "line 1: a is there more than once"),
        (
            b"".join(b'{"a%d": 1}\n' % number for number in range(1_200)),
            "its objects have more than 1,000 names, those of objects in them too, up to line 1200: leave out",
        ),
        (
            b"".join(b'{"a": {"b%d": {"c%d": 1}}}\n' % (number % 200, number) for number in range(40_000)),
            "its objects have more than 1,000 names, .* as lists",
        ),
        (b'{"b": 1}\n{"\\ud800": 1}\n', "line 2: a name holds half of a character"),
        (b'{"b": 1}\n{"b": null, "a": {"\\ud800": 1}}\n', "line 2: a holds half of a character"),
        (b"\n \n", "is empty: write an object a line"),
        (b"", "is empty"),
        (b"[" * 100_000, "line 1 is nested too deeply"),
    ],
)
def test_what_is_no_list_is_refused_with_its_line(tmp_path: Path, text: bytes, sentence: str) -> None:
    """And with what to do."""
    path = tmp_path / "q.jsonl"
    path.write_bytes(text)
    with pytest.raises(InputError, match=sentence):
        lines_as_parquet(path, tmp_path / "q.parquet")


def test_digits_are_not_lost_to_what_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows lie between an integer beyond 2^53 and the first number with a point."""
    monkeypatch.setattr(json_lines, "TEXT_ROWS", 1)
    path = tmp_path / "q.jsonl"
    path.write_text('{"a": 1}\n{"a": 9007199254740993}\n{"a": 1.5}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: a has integers beyond 2\^53"):
        lines_as_parquet(path, tmp_path / "q.parquet")


def test_a_file_without_line_ends_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line has an end somewhere."""
    monkeypatch.setattr(json_lines, "MOST_LINE", 1000)
    path = tmp_path / "q.jsonl"
    path.write_text('{"a": "' + "x" * 5000 + '"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1 has .* MB or more"):
        lines_as_parquet(path, tmp_path / "q.parquet")
