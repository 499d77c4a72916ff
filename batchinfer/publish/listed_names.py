"""Names of every language of rows that have no entry in a version: names.parquet.

A concept's own name and its aliases hold wherever the list has the concept, also where its answers failed or were rejected.

| table        | columns                         | what it holds                                                             |
| ------------ | ------------------------------- | ------------------------------------------------------------------------- |
| listed_names | lookup_hash, q_NAME for each    | rows of the list without an entry (list), and, in a checking job, keys    |
|              | key column, source              | that people rejected (review): their terms are no names of every language |
| old_names    | lookup_hash, source, mark       | what a version has of them, with a hash of their aliases                  |
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.cache import imports, verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import TEXT_ROWS, one, one_integer
from batchinfer.core.long_rows import read_batches
from batchinfer.core.records import Source
from batchinfer.core.sql import listed
from batchinfer.job.matched import alias_columns
from batchinfer.publish.aliases import Aliases
from batchinfer.publish.predictions_file import write_predictions
from batchinfer.publish.proposed import LIST
from batchinfer.versions.layout import NAMES, aliases_column, version_column


class ListedNames:
    """Those of a job's list. Owns the tables above in the workspace's database."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._db, self._aliases = workspace, workspace.db, Aliases(workspace)
        self._key = [column.name for column in workspace.query_list.source.key]
        match = workspace.spec.match
        self._has_aliases = bool(alias_columns(match, self._key))
        self._wanted = (
            match is not None
            and match.concept in self._key
            and (self._has_aliases or bool({*match.everywhere} & {*self._key}))
        )

    def beside(self, rows: str) -> str:
        """SQL for rows of a version with their aliases beside them, where the job names any. Raises InputError."""
        return self._aliases.beside(rows)

    def differ(self, entries: str, folder: Path) -> bool:
        """Whether the names or aliases are others than those of a version, which has entries for the same keys. Raises InputError."""
        return self._aliases.differ(entries, folder) or self._others(entries, folder / NAMES)

    def write(self, entries: str, folder: Path) -> None:
        """Writes the file, where there is anything to write. Raises InputError or StoreError."""
        if self._gather(entries):
            write_predictions(
                self._db, self.beside(self._rows_sql), "lookup, source", folder / NAMES, self._workspace.texts
            )

    @property
    def _rows_sql(self) -> str:
        names = ", ".join(f"{listed(name)} AS {version_column(name)}" for name in self._key)
        nothing = "NULL::VARCHAR AS prediction, NULL::VARCHAR AS raw_text"  # parts may be asked for
        return f"SELECT {names}, {nothing}, source, lookup_hash AS lookup FROM listed_names"

    def _gather(self, entries: str) -> int:
        """Makes `listed_names`; returns how many there are."""
        if not self._wanted:
            return 0
        every = self._workspace.query_list.own_key_sql  # what a client made up is no name
        firsts = f"SELECT min(row) FROM {every} GROUP BY lookup_hash"
        self._db.execute(
            f"CREATE OR REPLACE TABLE listed_names AS SELECT * EXCLUDE (row), '{LIST}' AS source FROM {every} "
            f"ANTI JOIN {entries} USING (lookup_hash) WHERE row IN ({firsts})"
        )
        if verdicts.is_checking(self._workspace.spec):
            values = imports.values_sql(self._workspace.query_list)
            key = ", ".join(f"{sql} AS {listed(name)}" for name, sql in values.items())
            with self._workspace.store.attached(self._db):
                self._db.execute(
                    f"INSERT INTO listed_names BY NAME SELECT lookup_hash, {key}, '{Source.REVIEW}' AS source "
                    f"FROM {self._workspace.verdicts.rejected_keys_sql}"
                )
            as_listed = ", ".join(f"{name} = own.{name}" for name in map(listed, self._key))
            self._db.execute(  # as the list spells the concept now
                f"UPDATE listed_names SET {as_listed} FROM (FROM {every} WHERE row IN ({firsts})) own "
                f"WHERE listed_names.source = '{Source.REVIEW}' AND listed_names.lookup_hash = own.lookup_hash"
            )
        return one_integer(self._db, "SELECT count(*) FROM listed_names")

    def _others(self, entries: str, path: Path) -> bool:
        """Whether a version's file, or that it has none, says something else."""
        held = self._gather(entries)
        kept = pq.read_metadata(path).num_rows if path.exists() else 0  # none are left where all were forgotten
        if not held or not kept:
            return bool(held or kept)
        self._read(path)
        now, then = f"FROM ({self._aliases.marked('listed_names')})", "FROM old_names"
        there = (
            f"SELECT lookup_hash, source, mark {one_of} EXCEPT SELECT lookup_hash, source, mark {other}"
            for one_of, other in ((now, then), (then, now))
        )
        return any(one(self._db, f"SELECT count(*) FROM ({sql})") for sql in there)

    def _read(self, path: Path) -> None:
        """Makes `old_names`, of a version that was made with a section like the job's."""
        self._db.execute("CREATE OR REPLACE TABLE old_names (lookup_hash BLOB, source VARCHAR, mark UBIGINT)")
        mark = f"md5_number_lower({aliases_column(self._key)})" if self._has_aliases else "NULL::UBIGINT"
        reading = self._db.cursor()  # rows are added while others are read
        try:
            select = f"SELECT lookup AS lookup_hash, source, {mark} AS mark FROM"
            for batch in read_batches(reading, path, lambda rows: f"{select} {rows}", TEXT_ROWS):
                self._db.register("names_batch", pa.Table.from_batches([batch]))
                self._db.execute("INSERT INTO old_names BY NAME FROM names_batch")
                self._db.unregister("names_batch")
        finally:
            reading.close()
