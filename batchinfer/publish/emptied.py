"""How many predictions say that there is nothing: lists of which the job's steps dropped every item."""

from __future__ import annotations

import duckdb

from batchinfer.core.database import one
from batchinfer.core.long_json import list_length_sql
from batchinfer.job.spec import JobSpec


def count_emptied(db: duckdb.DuckDBPyConnection, entries: str, spec: JobSpec) -> int:
    """Entries of a table that have lists, all of them empty; 0 for a job whose steps drop nothing."""
    if spec.output.only_tidies or not spec.output.is_json:
        return 0
    value = "TRY_CAST(prediction AS JSON)"
    parts = f"CASE json_type({value}) WHEN 'ARRAY' THEN [{value}] ELSE json_extract({value}, '$.*') END"
    lengths = f"list_transform({parts}, lambda part: {list_length_sql('part')})"
    found: int = one(db, f"SELECT count(*) FROM {entries} WHERE prediction LIKE '%[]%' AND list_sum({lengths}) = 0")
    return found
