"""What a query gives, as a file for people: Parquet, CSV or JSON Lines, some rows at a time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import COPY_OPTIONS, FULL, ROW_GROUP, TEXT_ROWS, first_line, record_batches
from batchinfer.core.files import DISK_FULL
from batchinfer.core.long_texts import LongTexts, in_json
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.core.set_aside import SetAside
from batchinfer.core.sql import literal, quoted, time_text
from batchinfer.errors import StoreError


def write_output(
    db: duckdb.DuckDBPyConnection,
    sql: str,
    output: OutputFile,
    draft: Path,
    texts: LongTexts,
    json_texts: Container[str] = (),
    zoned: Container[str] = (),
) -> None:
    """Writes what a query gives to the draft of an output file, some rows at a time. Raises StoreError.

    texts: those that it gives tokens of.
    json_texts: columns whose text is JSON, which JSON Lines hold as the values that they are.
    zoned: columns whose times have a zone, which texts say.
    """
    try:
        if output.format == OutputFormat.PARQUET and texts.any:
            _write_parquet(db, sql, draft, texts)
        elif output.format == OutputFormat.PARQUET:
            db.execute(f"COPY ({sql}) TO {literal(str(draft))} {COPY_OPTIONS}")
        else:
            described = db.execute(f"DESCRIBE {sql}").fetchall()
            header, line = _text_line(described, output.format, json_texts, zoned)
            with draft.open("w", encoding="utf-8", newline="") as file:
                file.write(header)
                file.writelines(
                    _lines(db, sql, line, texts, json_texts if output.format == OutputFormat.JSONL else None)
                )
    except (duckdb.IOException, OSError) as exc:
        if any(sign in str(exc) for sign in FULL):
            raise StoreError(f"{output} cannot be written: {DISK_FULL}") from exc
        # Without a number it is DuckDB's, or Arrow's, which had it from DuckDB.
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else first_line(exc)
        raise StoreError(f"{output} cannot be written: {why}.") from exc


def _write_parquet(db: duckdb.DuckDBPyConnection, sql: str, draft: Path, texts: LongTexts) -> None:
    with (
        record_batches(db, sql, ROW_GROUP) as reader,
        pq.ParquetWriter(draft, reader.schema, compression="zstd") as file,
    ):
        for batch in texts.all_whole(reader):
            file.write_table(pa.Table.from_batches([batch]))


def _lines(
    db: duckdb.DuckDBPyConnection, sql: str, line: str, texts: LongTexts, json_texts: Container[str] | None
) -> Iterator[str]:
    """What a query gives, each row as a line. DuckDB's own COPY would hold 100,000 rows for each thread.

    line: SQL for a row's line. json_texts: columns of JSON texts in lines of JSON; None for lines of a CSV.
    """
    aside, written = SetAside(), _csv_cell if json_texts is None else in_json
    with record_batches(db, sql if texts.any else f"SELECT {line} FROM ({sql})", TEXT_ROWS) as reader:
        for batch in reader:
            if not texts.any:
                yield from (f"{text}\n" for text in batch.column(0).to_pylist())
                continue
            for whole in texts.whole_batches(batch):
                db.register("batch", aside.shortened(whole, json_texts or ()))
                rows = db.execute(f"SELECT {line} FROM batch").fetchall()
                db.unregister("batch")
                yield from (f"{aside.whole(text, written)}\n" for (text,) in rows)


def _csv_cell(text: str) -> str:
    """What `_cell_sql` makes of a text."""
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text


def _text_line(
    described: Sequence[tuple[Any, ...]], wanted: OutputFormat, json_texts: Container[str], zoned: Container[str]
) -> tuple[str, str]:
    """The header, and SQL for a row as a line. described: the columns, with their kinds."""
    columns = {name: _plain_sql(name, kind, wanted, json_texts, zoned) for name, kind, *_ in described}
    if wanted == OutputFormat.JSONL:
        return "", f"json_object({', '.join(f'{literal(name)}, {value}' for name, value in columns.items())})::VARCHAR"
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns)
    return header.getvalue(), " || ',' || ".join(_cell_sql(value) for value in columns.values())


def _cell_sql(value: str) -> str:
    """SQL for a cell of a CSV: null is empty, an empty text has quotes."""
    text = f"({value})::VARCHAR"
    return (
        f"CASE WHEN {text} IS NULL THEN '' WHEN {text} = '' OR regexp_matches({text}, '[\",\\r\\n]') "
        f"THEN '\"' || replace({text}, '\"', '\"\"') || '\"' ELSE {text} END"
    )


def _plain_sql(name: str, kind: str, wanted: OutputFormat, json_texts: Container[str], zoned: Container[str]) -> str:
    """SQL for a column as text files hold it: times as in RFC 3339, bytes as hexadecimal digits, nested values as JSON."""
    value = quoted(name)
    if kind == "BLOB":
        return f"lower(hex({value}))"
    if kind.startswith("TIMESTAMP"):
        return time_text(value, zoned=name in zoned)
    if wanted == OutputFormat.JSONL and kind in ("DOUBLE", "FLOAT"):  # JSON has no word for what is beyond
        return (
            f"CASE WHEN isinf({value}) THEN (CASE WHEN {value} < 0 THEN '-' ELSE '' END || '1e999')::JSON "
            f"WHEN NOT isnan({value}) THEN to_json({value}) END"
        )
    if wanted == OutputFormat.JSONL and name in json_texts:
        return f"{value}::JSON"
    if wanted == OutputFormat.CSV and (kind.endswith("]") or kind.startswith(("STRUCT", "MAP"))):
        return f"to_json({value})"
    return value
