"""Further names of what rows are about, from columns of the list that `match.everywhere` names, on their way into a version.

| table       | columns                    | what it holds                                                                      |
| ----------- | -------------------------- | ---------------------------------------------------------------------------------- |
| row_aliases | lookup_hash, row, aliases, | a JSON list of texts, and its hash: of rows that share a lookup key the first that |
|             | mark                       | has some                                                                           |
| old_aliases | lookup_hash, mark          | the same of a version                                                              |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchinfer.cache.workspace import Workspace
from batchinfer.core import keys
from batchinfer.core.database import TEXT_ROWS, one
from batchinfer.core.long_rows import read_batches
from batchinfer.core.sql import quoted
from batchinfer.errors import InputError, shortened
from batchinfer.inputs.carried import holds_json
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.matched import alias_columns
from batchinfer.job.reader import Job, placing
from batchinfer.job.spec import InputSpec, MatchSpec
from batchinfer.versions.layout import PREDICTIONS, aliases_column
from batchinfer.versions.manifest import Manifest

WHOLE, SHORT = "\x1faliases", "\x1fshort"


def check_aliases(job: Job, source: ListSource) -> None:
    """Raises SpecError or InputError for a column of the list that is not there, or holds anything but texts.

    source: the job's list.
    """
    # The columns alone: what else is wrong with a row is told elsewhere.
    spec = job.spec.input.model_copy(update={"key": [], "where": {}})
    with placing(job):
        for name in alias_columns(job.spec.match, job.spec.input.key):
            _check_column(source.files, spec, name, job.spec.match)


def _check_column(files: Sequence[ListFile], spec: InputSpec, name: str, match: MatchSpec | None) -> None:
    try:
        opened = _opened(files, spec, [name])
    except InputError as exc:
        exc.field = _field(match, name)
        raise
    reader = _Reader(opened, [name], match)
    for batch in opened.batches():
        for row in batch.bad:
            said = row.detail.replace("The column", "the column", 1)
            raise InputError(f"{row.file}, row {row.row}: {said}", field=_field(match, name))
        reader.merged(batch.good)


class Aliases:
    """Those of the list's rows. Owns the tables above in the workspace's database, and makes them when they are first needed."""

    def __init__(self, workspace: Workspace) -> None:
        self._db, self._list, self._spec = workspace.db, workspace.query_list, workspace.spec
        self._columns = alias_columns(self._spec.match, self._spec.input.key)
        self._loaded = False

    def beside(self, rows: str) -> str:
        """SQL for rows of a version with their aliases beside them, where the job names any. Raises InputError."""
        if not self._columns:
            return rows
        self._load()
        name = aliases_column([column.name for column in self._list.source.key])
        return f"SELECT r.*, a.aliases AS {name} FROM ({rows}) r LEFT JOIN row_aliases a ON r.lookup = a.lookup_hash"

    def marked(self, rows: str) -> str:
        """SQL for rows with a lookup_hash, each with the mark of its aliases, NULL where it has none. Raises InputError."""
        if not self._columns:
            return f"SELECT *, NULL::UBIGINT AS mark FROM {rows}"
        self._load()
        return f"SELECT r.*, a.mark FROM {rows} r LEFT JOIN row_aliases a USING (lookup_hash)"

    def differ(self, entries: str, folder: Path) -> bool:
        """Whether those of entries are others than those of a version, which has entries for the same keys. Raises InputError."""
        if not self._columns:
            return False
        self._load()
        self._read_version(folder)
        return bool(
            one(
                self._db,
                f"SELECT count(*) FROM (SELECT lookup_hash, mark FROM {entries} LEFT JOIN row_aliases USING (lookup_hash)) e "
                "LEFT JOIN old_aliases o USING (lookup_hash) WHERE e.mark IS DISTINCT FROM o.mark",
            )
        )

    def _read_version(self, folder: Path) -> None:
        """Makes `old_aliases`, of a version that was made with a section like the job's."""
        self._db.execute("CREATE OR REPLACE TABLE old_aliases (lookup_hash BLOB, mark UBIGINT)")
        name = aliases_column([column.name for column in Manifest.read(folder).key])
        select = f"SELECT lookup AS lookup_hash, md5_number_lower({name}) AS mark FROM"
        reading = self._db.cursor()  # rows are added while others are read
        try:
            for batch in read_batches(reading, folder / PREDICTIONS, lambda rows: f"{select} {rows}", TEXT_ROWS):
                self._append("old_aliases", "FROM alias_batch", pa.Table.from_batches([batch]))
        finally:
            reading.close()

    def _load(self) -> None:
        """Makes `row_aliases`."""
        if self._loaded:
            return
        self._db.execute("CREATE TABLE row_aliases (lookup_hash BLOB, row BIGINT, aliases VARCHAR, mark UBIGINT)")
        opened = _opened(self._list.source.files, self._spec.input, self._columns)
        reader = _Reader(opened, self._columns, self._spec.match)
        whole = " AND ".join(f"{quoted(column.name)} IS NOT NULL" for column in opened.key)
        select = (
            f"SELECT {keys.lookup_hash_sql(opened.key, opened.normalize)} AS lookup_hash, {quoted(ROW)} AS row, "
            f"{quoted(SHORT)} AS aliases, md5_number_lower({quoted(WHOLE)}) AS mark FROM alias_batch "
            f"WHERE {quoted(WHOLE)} IS NOT NULL AND {whole}"
        )
        for batch in opened.batches():
            rows = pa.concat_tables([batch.good, batch.lost])
            found = reader.merged(rows)
            rows = rows.append_column(WHOLE, found).append_column(SHORT, self._list.texts.shortened(found))
            self._append("row_aliases", select, rows)
        self._db.execute(
            "DELETE FROM row_aliases WHERE row NOT IN (SELECT min(row) FROM row_aliases GROUP BY lookup_hash)"
        )
        self._loaded = True

    def _append(self, table: str, select: str, batch: pa.Table) -> None:
        self._db.register("alias_batch", batch)
        self._db.execute(f"INSERT INTO {table} BY NAME {select}")
        self._db.unregister("alias_batch")


def _opened(files: Sequence[ListFile], spec: InputSpec, columns: Sequence[str]) -> ListSource:
    """The list with these columns, which may be null or empty. Raises InputError."""
    own = spec.model_copy(update={"optional": [*spec.optional, *columns]})
    return ListSource(files, own, columns, rows_at_once=TEXT_ROWS)


def _field(spec: MatchSpec | None, column: str) -> tuple[str | int, ...]:
    """The place of a column in the job file."""
    assert spec is not None
    return ("match", "everywhere", spec.everywhere.index(column))


class _Reader:
    """Makes one list of the aliases in each row of a list."""

    def __init__(self, source: ListSource, columns: Sequence[str], spec: MatchSpec | None) -> None:
        self._files, self._columns, self._spec = source.files, columns, spec
        schemas = [file.schema() for file in source.files]
        marked = {name for name in columns if any(holds_json(schema.field(name)) for schema in schemas)}
        self._as_json = {name for name in columns if source.kinds[name] == "json"} | marked

    def merged(self, rows: pa.Table) -> pa.Array:
        """JSON lists of texts, each text once; null for rows without any. Raises InputError."""
        found: list[dict[str, None]] = [{} for _ in range(rows.num_rows)]
        for name in self._columns:
            as_json = name in self._as_json
            for place, cell in enumerate(rows[name].to_pylist()):
                try:
                    found[place].update(dict.fromkeys(_texts_of(cell, as_json=as_json)))
                except ValueError as exc:
                    raise self._unfit(name, rows[ROW][place].as_py(), cell) from exc
        return pa.array([keys.canonical_json([*texts]) if texts else None for texts in found], pa.string())

    def _unfit(self, name: str, row: int, cell: Any) -> InputError:
        """The error for a cell that holds anything but texts. row: its number over all files."""
        before, names = 0, list[str]()
        for file in self._files:
            before += file.num_rows
            names += [file.name] if row <= before else []
        said = f"{names[0]}, row {row}: the column {name} holds {shortened(str(cell))}, which is neither a text nor a list of texts"
        return InputError(
            said, fix="give it such, or leave it out of match.everywhere.", field=_field(self._spec, name)
        )


def _texts_of(cell: Any, *, as_json: bool) -> list[str]:
    """The texts of a cell, but for empty ones. as_json: whether a text is JSON. Raises ValueError for what holds anything else."""
    value = json.loads(cell) if as_json and cell is not None else cell
    items = [item for item in (value if isinstance(value, list) else [value]) if item is not None]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("no text")
    return [item for item in items if item.strip()]
