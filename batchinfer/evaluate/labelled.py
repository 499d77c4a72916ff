"""Rows whose right answers are known, from people: golden rows, and pools of examples, with what a template needs of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core import keys
from batchinfer.core.columns import query_text
from batchinfer.core.database import LIST_ROWS, query_engine
from batchinfer.core.home import JobData
from batchinfer.errors import InputError
from batchinfer.inputs.files import list_columns, list_files
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.reader import Job
from batchinfer.publish.golden import read_answers

T = TypeVar("T")
POOL = "eval.pool"  # the field of the job file that names one
SHOWN = 5  # rows that a sentence names


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows with right answers, in the order of their file.

    path: of the file.
    hashes: of the lookup keys.
    queries: the lookup keys.
    answers: the right answers, as JSON values.
    values: what a template is filled with.
    table: key and template columns, as the job's list has them.
    """

    path: Path
    hashes: tuple[bytes, ...]
    queries: tuple[Mapping[str, Any], ...]
    answers: tuple[Any, ...]
    values: tuple[Mapping[str, Any], ...]
    table: pa.Table

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, places: Sequence[int]) -> LabelledRows:
        """Some of the rows, by their places."""
        return LabelledRows(
            self.path, _taken(self.hashes, places), _taken(self.queries, places), _taken(self.answers, places),
            _taken(self.values, places), self.table.take(pa.array(places, pa.int64())),
        )  # fmt: skip

    def write(self, path: Path) -> Path:
        """Writes the rows as a list."""
        pq.write_table(self.table, path)
        return path


def _taken(column: Sequence[T], places: Sequence[int]) -> tuple[T, ...]:
    return tuple(column[place] for place in places)


def read_labelled(
    job: Job, data: JobData, field: str, name: str, compare: str, columns: Sequence[str], scratch: Path
) -> LabelledRows:
    """The rows of a file of right answers. Columns of the template that it lacks are taken from the job's list.

    field: of the job file, which names it. columns: of all templates. scratch: a folder for temporary files. Raises
    InputError, SpecError or NotFound.
    """
    listed, _ = list_columns(job, data, used=columns)
    what = "pool" if field == POOL else "golden file"
    answers = read_answers(job, field, name, compare, listed.key, what).rows
    hashes, path = answers["lookup_hash"].to_pylist(), job.inside(field, name)
    there = pq.read_schema(path).names
    own = list(dict.fromkeys([*job.spec.input.key, *(column for column in columns if column in there)]))
    with pq.ParquetFile(path) as file:
        table = file.read(own)
    if lacking := [column for column in columns if column not in there]:
        table = _completed(table, _from_list(job, data, lacking, hashes, scratch), lacking, answers, path)
    source = ListSource([_written(table, scratch / f"{field}.parquet")], _input(job), columns)
    for column in columns:
        if source.kinds[column] != listed.kinds[column]:
            raise InputError(
                f"The column {column} of {path} holds {source.kinds[column]} values, but the job's list has "
                f"{listed.kinds[column]}: convert it."
            )
    queries = tuple(json.loads(query) for query in answers["query"].to_pylist())
    return LabelledRows(
        path,
        tuple(hashes),
        queries,
        tuple(map(json.loads, answers["answer"].to_pylist())),
        _values(source, path),
        table,
    )


def check_apart(
    golden: LabelledRows, pool: Sequence[Mapping[str, Any]], where: str, hashes: Sequence[bytes] = ()
) -> None:
    """Raises InputError if examples are golden rows, by the key or by all that a prompt would show of them.

    pool: the examples' values. where: their place, for people. hashes: of their lookup keys, where they have one.
    """
    known, shown = set(hashes), {keys.canonical_json(example) for example in pool}
    met = [
        query
        for lookup_hash, query, values in zip(golden.hashes, golden.queries, golden.values, strict=True)
        if lookup_hash in known or keys.canonical_json(values) in shown
    ]
    if met:
        rows = "; ".join(query_text(query) for query in met[:SHOWN])
        more = f"; and {len(met) - SHOWN:,} more" if len(met) > SHOWN else ""
        raise InputError(
            f"{where} has rows that are golden rows of {golden.path}, so that prompts would be judged by what they show: {rows}{more}",
            fix="remove them from one of the two.",
        )


def _input(job: Job) -> Any:
    """The input section, without what chooses rows."""
    return job.spec.input.model_copy(update={"where": {}, "include_misses": None})


def _written(table: pa.Table, path: Path) -> Path:
    pq.write_table(table, path)
    return path


def _values(source: ListSource, path: Path) -> tuple[Mapping[str, Any], ...]:
    """The template's values of each row. Raises InputError for a row that could not be asked."""
    found: list[Mapping[str, Any]] = []
    for batch in source.batches():
        if batch.bad:
            raise InputError(
                f"{path}, row {batch.bad[0].row}: {batch.bad[0].detail}", fix="fill it, or leave the row out."
            )
        found += [source.template_values(row) for row in batch.good.to_pylist()]
    return tuple(found)


def _from_list(
    job: Job, data: JobData, columns: Sequence[str], hashes: Sequence[bytes], scratch: Path
) -> dict[bytes, Mapping[str, pa.Scalar]]:
    """These columns of the rows of the job's list with these lookup keys, as they stand in its files."""
    files, _ = list_files(job, data, None, scratch)
    source, number = ListSource(files, _input(job), columns), 0
    names = list(dict.fromkeys([*job.spec.input.key, *columns]))
    wanted = pa.table({"lookup_hash": pa.array(hashes, pa.binary())})
    found: dict[bytes, Mapping[str, pa.Scalar]] = {}
    with query_engine() as db:
        db.register("wanted_rows", wanted)
        for file in source.files:
            for raw in file.batches(names, LIST_ROWS):
                db.register("batch", source.check(raw, number, file.path).good)
                hashed = f'SELECT "{ROW}" AS row, {keys.lookup_hash_sql(source.key, source.normalize)} AS lookup_hash FROM batch'
                for row, lookup_hash in db.sql(f"FROM ({hashed}) SEMI JOIN wanted_rows USING (lookup_hash)").fetchall():
                    place = row - number - 1
                    found.setdefault(bytes(lookup_hash), {name: raw.column(name)[place] for name in columns})
                number += raw.num_rows
        db.unregister("batch")
        db.unregister("wanted_rows")
    return found


def _completed(
    table: pa.Table,
    found: Mapping[bytes, Mapping[str, pa.Scalar]],
    lacking: Sequence[str],
    answers: pa.Table,
    path: Path,
) -> pa.Table:
    """The table with the columns that it lacks. Raises InputError for rows that the list does not have."""
    hashes = answers["lookup_hash"].to_pylist()
    if missing := [
        query
        for lookup_hash, query in zip(hashes, answers["query"].to_pylist(), strict=True)
        if lookup_hash not in found
    ]:
        rows = "; ".join(query_text(json.loads(query)) for query in missing[:SHOWN])
        raise InputError(
            f"{path} has no column {', '.join(lacking)}, which the prompt shows, and the job's list does not have {rows}",
            fix="add the column, or leave these rows out.",
        )
    for name in lacking:
        scalars = [found[lookup_hash][name] for lookup_hash in hashes]
        table = table.append_column(name, pa.array([scalar.as_py() for scalar in scalars], scalars[0].type))
    return table
