"""The query list of a job in a scratch database: read, keyed and deduplicated, in bounded memory.

    rows of the files ──┬─► list ─────────┬─► prompts      unique prompts, each with the first row that asks it
    missed ─────────────┘    │            └─► repeats      lookup keys of several rows, each with the first of them
    (what clients asked for) ├─► conflicts                 lookup keys whose rows ask different things
                        ├─► bad_rows                       rows that cannot be asked, and why
                        └─► bad_keys                       lookup keys of such rows, where they have one

| table       | columns                                                                         |
| ----------- | ------------------------------------------------------------------------------- |
| list        | row, q_NAME for each column that is used, lookup_hash and prompt_key (16 bytes) |
|             | and where two models may be asked the key of each: small_key and large_key      |
| prompts     | prompt_key, first (row)                                                         |
| pairs       | small_key, large_key, first: of prompts that two models may be asked            |
| repeats     | lookup_hash, first (row)                                                        |
| missed      | as list, and count                                                              |
| bad_rows    | row, query (JSON), reason, detail                                               |
| bad_keys    | row, q_NAME for each key column, lookup_hash                                    |
| conflicts   | as bad_keys: the first row of each such key                                     |
| all_lookups | lookup_hash: of list, conflicts and bad_keys                                    |

Long texts stand in them as tokens (`core.long_texts`). Others join these tables through the SQL that `QueryList` gives;
none of them knows a table by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.core import keys
from batchinfer.core.columns import Column
from batchinfer.core.database import one_integer
from batchinfer.core.long_json import LONG_KEY, shortened_json
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.sql import LISTED, listed, query_json, quoted
from batchinfer.inputs.misses import COUNT
from batchinfer.inputs.parquet import ROW, BadRow, ListSource

BAD_ROWS = pa.schema({"row": pa.int64(), "query": pa.string(), "reason": pa.string(), "detail": pa.string()})


class QueryList:
    """The planned list. Owns the tables above in the scratch database that it is given.

    source: the files, opened.
    columns: those of the template, in order of appearance.
    texts: the long texts of its tables, and of those of others in the same database.
    misses: rows that clients asked for and the list does not have; None if the job does not include misses.
    """

    rows_sql = "list"
    prompts_sql = "prompts"
    lookups_sql = "all_lookups"
    first_rows_sql = (
        "(FROM list ANTI JOIN (SELECT row FROM list JOIN repeats USING (lookup_hash) WHERE row > first) USING (row))"
    )
    """Of the rows that share a lookup key only the first."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        source: ListSource,
        columns: Sequence[str],
        texts: LongTexts,
        *,
        narrowed: bool = False,
    ) -> None:
        """narrowed: whether it is meant to be only a part of what the job is about."""
        self._db, self.texts, self._narrowed = db, texts, narrowed
        self.source = source
        self.columns = list(columns)
        self.misses: int | None = None
        self._has_large = False

    def load(
        self, fingerprint: bytes, missed: Iterable[pa.Table] | None = None, at_least: int = 1, large: bytes = b""
    ) -> None:
        """Reads the list and makes every row's keys.

        fingerprint: empty for a job that asks no model; its keys cannot conflict. missed: the rows of `misses.rows`;
        those asked for at least so often, and not in the list, are added to it. large: the fingerprint of the question to a large
        model, which may be asked in place of the one that all rows ask at first.
        """
        lookup_hash = keys.lookup_hash_sql(self.source.key, self.source.normalize)
        template = [Column(name, self.source.kinds[name]) for name in sorted(self.columns)]
        prompt_key = keys.row_hash_sql(fingerprint, template) if fingerprint else lookup_hash
        kept = ", ".join(f"{quoted(_short(name))} AS {listed(name)}" for name in self._kept())
        keyed = f"{quoted(ROW)} AS row, {kept}, {lookup_hash} AS lookup_hash, {prompt_key} AS prompt_key"
        if large:
            self._has_large = True
            keyed += f", {prompt_key} AS small_key, {keys.row_hash_sql(large, template)} AS large_key"
        self._read(keyed, lookup_hash)
        self._set_conflicts_aside()
        self._db.execute(
            "CREATE VIEW all_lookups AS "
            "SELECT lookup_hash FROM list UNION ALL SELECT lookup_hash FROM conflicts UNION ALL SELECT lookup_hash FROM bad_keys"
        )
        if missed is not None:
            self.misses = self._add_missed(missed, at_least, keyed)
        self._number_prompts()

    def _number_prompts(self) -> None:
        if not self._has_large:
            self._db.execute(
                "CREATE TABLE prompts AS SELECT prompt_key, min(row) AS first FROM list GROUP BY prompt_key"
            )
            return
        self._db.execute(
            "CREATE TABLE pairs AS SELECT small_key, any_value(large_key) AS large_key, min(row) AS first FROM list GROUP BY small_key"
        )
        self._db.execute("CREATE TABLE prompts AS SELECT small_key AS prompt_key, first FROM pairs")

    def ask_large(self, small_keys: str) -> None:
        """Lets the rows of these prompts ask the large model, and all others the small one. small_keys: SQL for the prompts' keys."""
        asked = f"CASE WHEN small_key IN ({small_keys}) THEN large_key ELSE small_key END"
        self._db.execute(f"UPDATE list SET prompt_key = {asked}")
        self._db.execute(f"CREATE OR REPLACE TABLE prompts AS SELECT {asked} AS prompt_key, first FROM pairs")

    pairs_sql = "pairs"
    """Of each prompt its key for the small model and for the large one, where there are two: small_key, large_key."""

    @property
    def all_prompts_sql(self) -> str:
        """The keys of all prompts that may be asked, each with the first row that asks it, for both models where there are two."""
        if not self._has_large:
            return "(SELECT prompt_key, first FROM prompts)"
        each = (f"SELECT {name} AS prompt_key, first FROM pairs" for name in ("small_key", "large_key"))
        return f"({' UNION ALL '.join(each)})"

    def _read(self, keyed: str, lookup_hash: str) -> None:
        """Makes `list`, `bad_rows` and `bad_keys`. keyed: the columns of `list`; lookup_hash: SQL for the hash of the lookup key."""
        own = ", ".join(f"{quoted(_short(column.name))} AS {listed(column.name)}" for column in self.source.key)
        whole = " AND ".join(f"{quoted(column.name)} IS NOT NULL" for column in self.source.key)
        bad_keys = f"SELECT {quoted(ROW)} AS row, {own}, {lookup_hash} AS lookup_hash FROM batch WHERE {whole}"
        self._append("bad_rows", "FROM batch", BAD_ROWS.empty_table(), first=True)
        for number, batch in enumerate(self.source.batches()):
            self._append("list", f"SELECT {keyed} FROM batch", self._with_short(batch.good), first=number == 0)
            self._append("bad_keys", bad_keys, self._with_short(batch.lost), first=number == 0)
            if batch.bad:
                records = [self._record(row) for row in batch.bad]
                self._append("bad_rows", "FROM batch", pa.Table.from_pylist(records, BAD_ROWS))

    def _with_short(self, batch: pa.Table) -> pa.Table:
        """A batch with the columns beside its own that tables hold in their place: keys are hashed of whole texts."""
        for name in self._kept():
            batch = batch.append_column(_short(name), self.texts.shortened(batch[name]))
        return batch

    def _record(self, row: BadRow) -> dict[str, Any]:
        query = shortened_json(json.dumps(row.query, ensure_ascii=False), self.texts.keep, LONG_KEY)
        return {
            "row": row.row,
            "query": query,
            "reason": row.reason,
            "detail": f"{row.file}, row {row.row}: {row.detail}",
        }

    def _append(self, table: str, select: str, batch: pa.Table, *, first: bool = False) -> None:
        self._db.register("batch", batch)
        self._db.execute(f"CREATE TABLE {table} AS {select}" if first else f"INSERT INTO {table} BY NAME {select}")
        self._db.unregister("batch")

    def _add_missed(self, missed: Iterable[pa.Table], at_least: int, keyed: str) -> int:
        """Adds misses to the list, one row for each lookup key that the list does not have; returns how many.

        Of several spellings the one that was asked first stays, so that its answer is found again next time.
        """
        self._db.execute("CREATE TABLE missed AS SELECT *, 0::BIGINT AS count FROM list LIMIT 0")
        for batch in missed:
            self._append("missed", f"SELECT {keyed}, {quoted(COUNT)} AS count FROM batch", self._with_short(batch))
        [(added,)] = self._db.execute(
            """INSERT INTO list BY NAME
            SELECT * EXCLUDE (count) REPLACE (row + $last AS row) FROM missed ANTI JOIN all_lookups USING (lookup_hash)
            WHERE row IN (SELECT min(row) FROM missed GROUP BY lookup_hash HAVING sum(count) >= $at_least)""",
            {"last": self._own_rows, "at_least": at_least},
        ).fetchall()
        return int(added)

    @property
    def _own_rows(self) -> int:
        """The number of the list's last row; bad and filtered rows have numbers, too. Those of misses come after it."""
        return sum(file.num_rows for file in self.source.files)

    def _kept(self) -> list[str]:
        return list(dict.fromkeys([*(column.name for column in self.source.key), *self.columns]))

    def _set_conflicts_aside(self) -> None:
        """Rows that share a lookup key but ask different things: no answer would be right for the key."""
        self._db.execute(  # few, as a rule: what is done with them need not be done with the whole list
            "CREATE TABLE repeats AS SELECT lookup_hash, min(row) AS first FROM list GROUP BY lookup_hash HAVING count(*) > 1"
        )
        names = ", ".join(["lookup_hash", "row", *self._key_columns])
        self._db.execute(
            f"CREATE TABLE conflicts AS SELECT {names} FROM list WHERE row IN "
            "(SELECT min(row) FROM list SEMI JOIN repeats USING (lookup_hash) "
            "GROUP BY lookup_hash HAVING min(prompt_key) <> max(prompt_key))"
        )
        if not one_integer(self._db, "SELECT count(*) FROM conflicts"):
            return
        self._db.execute(
            f"""INSERT INTO bad_rows BY NAME
            SELECT row, {self.query_sql()} AS query, 'conflicting_rows' AS reason,
                   'Rows ' || numbers || ' have the same lookup key but different content.' AS detail
            FROM list JOIN (
                SELECT lookup_hash, list_aggregate((list_sort(list(row)))[:5], 'string_agg', ', ') AS numbers
                FROM list SEMI JOIN conflicts USING (lookup_hash) GROUP BY lookup_hash) USING (lookup_hash)"""
        )
        self._db.execute("DELETE FROM list WHERE lookup_hash IN (SELECT lookup_hash FROM conflicts)")

    @property
    def expected_sql(self) -> str:
        """A condition on a lookup_hash: whether an answer is expected. Of a narrowed list that is so for its own keys alone."""
        return f"lookup_hash IN (SELECT lookup_hash FROM {self.lookups_sql})" if self._narrowed else "true"

    @property
    def _key_columns(self) -> list[str]:
        return [listed(column.name) for column in self.source.key]

    @property
    def every_key_sql(self) -> str:
        """Lookup hash, row and key columns of all rows that have a lookup key, those that cannot be asked too."""
        names = ", ".join(["lookup_hash", "row", *self._key_columns])
        return (
            "(" + " UNION ALL ".join(f"SELECT {names} FROM {name}" for name in ("list", "conflicts", "bad_keys")) + ")"
        )

    @property
    def own_key_sql(self) -> str:
        """The same without what clients asked for."""
        return f"(FROM {self.every_key_sql} WHERE row <= {self._own_rows})"

    def query_sql(self) -> str:
        """SQL for a row's lookup key as JSON text, where its key columns are."""
        return f"{query_json(self.source.key, listed)}::VARCHAR"

    def key_types(self) -> dict[str, str]:
        """The SQL type that each key column has here."""
        types = dict(self._db.execute("SELECT column_name, column_type FROM (DESCRIBE list)").fetchall())
        return {column.name: types[LISTED + column.name] for column in self.source.key}

    @property
    def good(self) -> int:
        """How many rows can be asked, misses included."""
        return one_integer(self._db, "SELECT count(*) FROM list")

    @property
    def bad(self) -> int:
        """How many rows cannot."""
        return one_integer(self._db, "SELECT count(*) FROM bad_rows")

    @property
    def unique(self) -> int:
        """How many different prompts the good rows ask."""
        return one_integer(self._db, "SELECT count(*) FROM prompts")

    @property
    def lookups(self) -> int:
        """How many different lookup keys there are, those of bad rows included as far as they have one."""
        return one_integer(self._db, "SELECT count(DISTINCT lookup_hash) FROM all_lookups")

    def bad_rows(self, limit: int | None = None) -> pa.Table:
        """The bad rows, or the first of them, as BAD_ROWS has them; a long query has tokens."""
        most = "" if limit is None else f" LIMIT {limit}"
        return self._db.sql(f"FROM bad_rows ORDER BY row, query{most}").to_arrow_table()

    def bad_reasons(self) -> dict[str, int]:
        """Why rows are bad, and how many of them."""
        return dict(self._db.execute("SELECT reason, count(*) FROM bad_rows GROUP BY reason").fetchall())

    def rows(self, prompt_keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """For each of these prompts that the list has, the first row that asks it."""
        self._db.register("wanted", pa.table({"prompt_key": pa.array(prompt_keys, pa.binary())}))
        sql = (
            "SELECT l.* REPLACE (w.prompt_key AS prompt_key) FROM wanted w "
            f"JOIN {self.all_prompts_sql} p USING (prompt_key) JOIN list l ON l.row = p.first"
        )
        rows = self._db.sql(sql).to_arrow_table()
        self._db.unregister("wanted")
        return {record["prompt_key"]: self.own_columns(record) for record in rows.to_pylist()}

    def first_row(self) -> dict[str, Any] | None:
        """The first row that can be asked, if there is one."""
        rows = self._db.sql("FROM list ORDER BY row LIMIT 1").to_arrow_table().to_pylist()
        return self.own_columns(rows[0]) if rows else None

    def queries(self, prompt_keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """The same, but of each row only its lookup key, for people."""
        return {prompt_key: self.query_of(row) for prompt_key, row in self.rows(prompt_keys).items()}

    def own_columns(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The list's own columns of a record of its tables, whole, under their own names."""
        own = {name.removeprefix(LISTED): value for name, value in record.items() if name.startswith(LISTED)}
        return self.texts.whole_record(own)

    def query_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The lookup key of a row, for people."""
        values = self.source.template_values(row)
        return {column.name: values[column.name] for column in self.source.key}


def _short(name: str) -> str:
    """The name of the column that holds a column with tokens in place of long texts."""
    return f"{name}\x1fshort"
