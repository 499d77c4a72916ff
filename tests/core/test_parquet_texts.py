"""What a Parquet file says of its texts is no less than what they take."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.long_rows import most_text

TEXTS = {"all the same": ["word " * 40] * 5000, "all different": [f"{number:08d} word" for number in range(5000)]}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "encoding", ["by DuckDB", "dictionary", "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]
)
def test_texts_take_no_more_than_the_file_says(tmp_path: Path, name: str, encoding: str) -> None:
    """However they are encoded; where the file has each of them, it says hardly more."""
    path, texts = tmp_path / "it's [a] *.parquet", TEXTS[name]
    table = pa.table({"before": [{"a": 1, "b": 2}] * len(texts), "text": texts})
    with duckdb.connect() as db:
        if encoding == "by DuckDB":
            db.register("rows", table)
            db.execute(
                f"COPY rows TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, ROW_GROUP_SIZE 2048)"
            )
        elif encoding == "dictionary":
            pq.write_table(table, path)
        else:
            pq.write_table(table, path, use_dictionary=False, column_encoding={"text": encoding}, row_group_size=2000)
        size, most = sum(map(len, texts)), most_text(db, path, "text")
    assert size <= most
    if encoding in ("PLAIN", "DELTA_LENGTH_BYTE_ARRAY"):
        assert most < 2 * size
