"""The process in which a list's query runs: it can be ended at any time, and its memory is bounded, whatever it asks for.

Started as `python -m batchinfer.inputs.sql_process`, with an AskedQuery as JSON on standard input. It writes null to standard
output, or what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from batchinfer.core.own_process import end_with_parent

OUT_OF_MEMORY = "Out of Memory"
BEYOND = 2 << 30  # bytes for the values under way, which DuckDB does not count: some thousands of rows at a time
OF_THREAD = 64 << 20  # bytes
VECTOR = 2048  # rows that are fetched at once, and then gathered
KINDS = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "float", "double",
    "decimal", "varchar", "blob", "uuid", "enum", "date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns",
    "timestamp with time zone", "list", "array", "struct", "map",
}  # fmt: skip
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # what Python calls rows is no table
}


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A query, and where it may work.

    sql: one SELECT.
    target: the Parquet file to write.
    rows: False for no more than its columns.
    folders: below which it may read, each with a slash at its end.
    spill: a folder for what finds no room in memory, which need not be there.
    memory: bytes that its tables may take.
    """

    sql: str
    target: str
    rows: bool
    folders: list[str]
    spill: str
    memory: int


def main() -> None:
    """Runs the query on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this hears it, too
    end_with_parent()
    asked = AskedQuery(**json.load(sys.stdin))
    _bound_memory(asked.memory + BEYOND + OF_THREAD * len(os.sched_getaffinity(0)))
    json.dump(_fault_of(asked), sys.stdout)


def _bound_memory(more: int) -> None:
    """Lets this process have so many bytes beyond what it has."""
    found = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = more + (int(found[1]) << 10 if found else 0)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _fault_of(asked: AskedQuery) -> str | None:
    """Does it; returns what is wrong with it, as the rest of a sentence."""
    from batchinfer.core.spared import spare_pandas

    spare_pandas()
    import duckdb
    import pyarrow as pa

    from batchinfer.core.database import first_line

    try:
        _write(asked)
    except MemoryError:
        return OUT_OF_MEMORY
    except (duckdb.Error, pa.ArrowException, OSError) as exc:  # Arrow's reader passes DuckDB's errors on as its own
        return first_line(exc)
    return None


def _write(asked: AskedQuery) -> None:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from batchinfer.core.database import TEXT_ROWS
    from batchinfer.core.parquet_batches import gathered
    from batchinfer.core.sql import literal, quoted

    with contextlib.closing(duckdb.connect(config=SETTINGS)) as db:
        db.execute(f"SET temp_directory = {literal(asked.spill)}")
        db.execute(f"SET memory_limit = '{asked.memory}B'")
        db.execute(f"SET threads = {len(os.sched_getaffinity(0))}")
        db.execute(f"SET allowed_directories = [{', '.join(map(literal, asked.folders))}]")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        found = db.sql(asked.sql)
        others = [name for name, kind in zip(found.columns, found.types, strict=True) if kind.id not in KINDS]
        if others:  # as texts: Arrow has no such type, or none that keeps all of its values
            casts = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in others)
            found = found.project(f"* REPLACE ({casts})")
        reader = (found if asked.rows else found.limit(0)).to_arrow_reader(VECTOR)
        schema = pa.schema([field.with_nullable(nullable=True) for field in reader.schema])
        with pq.ParquetWriter(asked.target, schema) as writer:
            for batch in gathered(reader, TEXT_ROWS):
                writer.write_batch(batch.cast(schema))


if __name__ == "__main__":
    main()
