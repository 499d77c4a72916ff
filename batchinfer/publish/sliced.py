"""The keys of a list in groups, by the values of its columns: what is counted of each group.

    rows of the files ─► slice_values ─┐
    list, cache, entries ──────────────┴─► sliced

| table        | columns                                                       | what it holds                  |
| ------------ | ------------------------------------------------------------- | ------------------------------ |
| slice_values | row, q_NAME for each column beside the key that is looked at  | the list's values, as texts    |
| sliced       | lookup_hash, q_NAME, covered, prediction, score, reason, tokens | each key of the list, once   |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchinfer.cache.workspace import Workspace
from batchinfer.core.long_texts import LONG
from batchinfer.core.sql import listed, quoted
from batchinfer.errors import InputError
from batchinfer.inputs.other_columns import OtherColumns
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.reader import Job, faulty
from batchinfer.publish.golden import Golden, is_right
from batchinfer.publish.slices import AuditedSlice, SliceFigures, judge_slices

MOST_VALUES = 200  # groups of a column
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
SLICE_VALUES = "slice_values"
"""The values of columns that `read_slice_values` read, beside their rows."""
Slice = tuple[str, str | None, SliceFigures]


def check_slices(job: Job, source: ListSource) -> None:
    """Raises SpecError, with its line, for a slice that is no column of the list."""
    there = [*job.spec.input.key, *OtherColumns(source.files, job.spec.input).names]
    faults = [
        (("audit", "slices", number), f"the list has no column {name}: it has {', '.join(there)}.")
        for number, name in enumerate(job.spec.audit.slices)
        if name not in there
    ]
    if faults:
        raise faulty(job, faults)


@dataclass(frozen=True, slots=True)
class AuditedList:
    """The list's keys, all together and in groups.

    whole: figures of all.
    slices: a verdict on each group of audit.slices.
    """

    whole: SliceFigures
    slices: tuple[AuditedSlice, ...]


def audit_list(workspace: Workspace, entries: str, golden: Golden | None) -> AuditedList:
    """Counts the list and its groups. entries: SQL for lookup hash, prediction and score of what is served.

    Raises InputError for a column that makes no groups.
    """
    columns = workspace.spec.audit.slices
    table = SlicedKeys(workspace, columns)
    table.fill(entries, golden)
    slices = [each for column in columns for each in table.groups(column)]
    whole = table.whole()
    return AuditedList(whole, judge_slices(slices, whole, workspace.spec.audit.limits))


def read_slice_values(workspace: Workspace, columns: Sequence[str]) -> None:
    """Makes `slice_values`. columns: of the list, beside its key; a long text has a token. Raises InputError."""
    db, query_list = workspace.db, workspace.query_list
    names = "".join(f", {listed(name)} VARCHAR" for name in columns)
    db.execute(f"CREATE OR REPLACE TABLE slice_values (row BIGINT{names})")
    if not columns:
        return
    values = ", ".join(f"{quoted(name)}::VARCHAR" for name in columns)
    for batch in OtherColumns(query_list.source.files, workspace.spec.input).batches():
        short = {name: query_list.texts.shortened(batch[name]) for name in columns}
        db.register("slice_batch", pa.table({ROW: batch[ROW], **short}))
        db.execute(f"INSERT INTO slice_values SELECT {quoted(ROW)}, {values} FROM slice_batch")
        db.unregister("slice_batch")


class SlicedKeys:
    """Owns the tables above in the workspace's database."""

    def __init__(self, workspace: Workspace, columns: Sequence[str]) -> None:
        self._workspace, self._db, self._list = workspace, workspace.db, workspace.query_list
        self._columns, self._spec = columns, workspace.spec
        self._others = [name for name in columns if name not in self._spec.input.key]

    def fill(self, entries: str, golden: Golden | None) -> None:
        """Makes the tables. Raises InputError."""
        read_slice_values(self._workspace, self._others)
        self._gather(entries)
        self._judge_golden(golden)

    def _gather(self, entries: str) -> None:
        own = "".join(f"{listed(name)}::VARCHAR AS {listed(name)}, " for name in self._columns)
        self._db.register("slice_faults", self._list.bad_rows().select(["row", "reason"]))
        with self._workspace.store.attached(self._db):
            self._db.execute(
                f"""CREATE OR REPLACE TABLE sliced AS
                WITH keyed AS (FROM {self._list.every_key_sql} QUALIFY row_number() OVER (PARTITION BY lookup_hash ORDER BY row) = 1),
                asked AS (SELECT lookup_hash, any_value(prompt_key) AS prompt_key FROM {self._list.rows_sql} GROUP BY lookup_hash),
                served AS (SELECT lookup_hash, prediction, score FROM {entries}),
                faults AS (SELECT row, any_value(reason) AS reason FROM slice_faults GROUP BY row),
                failed AS (SELECT key AS prompt_key, any_value(reason) AS reason FROM cache.failures WHERE key IS NOT NULL GROUP BY key),
                made AS (SELECT key AS prompt_key, any_value(prompt_tokens + output_tokens) AS tokens FROM cache.generations GROUP BY key)
                SELECT keyed.lookup_hash, {own}e.lookup_hash IS NOT NULL AS covered, e.prediction, e.score,
                       CASE WHEN e.lookup_hash IS NULL THEN coalesce(faults.reason, failed.reason) END AS reason, made.tokens,
                       NULL::BOOLEAN AS is_right
                FROM keyed LEFT JOIN slice_values USING (row) LEFT JOIN asked USING (lookup_hash)
                LEFT JOIN served e ON e.lookup_hash = keyed.lookup_hash LEFT JOIN faults ON faults.row = keyed.row
                LEFT JOIN failed ON failed.prompt_key = asked.prompt_key LEFT JOIN made ON made.prompt_key = asked.prompt_key"""
            )
        self._db.unregister("slice_faults")

    def _judge_golden(self, golden: Golden | None) -> None:
        if golden is None:
            return
        self._db.register("slice_golden", golden.rows)
        rows = self._db.execute(
            "SELECT lookup_hash, g.answer, s.prediction FROM slice_golden g JOIN sliced s USING (lookup_hash)"
        ).fetchall()
        self._db.unregister("slice_golden")
        as_json = self._spec.output.is_json
        judged = [
            {"lookup_hash": lookup_hash, "is_right": got is not None and is_right(
                json.loads(got) if as_json else got, json.loads(answer), golden.compare)}
            for lookup_hash, answer, got in self._workspace.texts.whole_rows(rows)
        ]  # fmt: skip
        schema = pa.schema({"lookup_hash": pa.binary(), "is_right": pa.bool_()})
        self._db.register("slice_judged", pa.Table.from_pylist(judged, schema))
        self._db.execute(
            "UPDATE sliced SET is_right = j.is_right FROM slice_judged j WHERE sliced.lookup_hash = j.lookup_hash"
        )
        self._db.unregister("slice_judged")

    def whole(self) -> SliceFigures:
        """The figures of all keys together."""
        return self._figures("1")[0][1]

    def groups(self, column: str) -> list[Slice]:
        """The groups of one column, the largest first. Raises InputError for a column that makes none."""
        found = self._figures(listed(column))
        if all(value is None for value, _ in found):
            said = f"The column {column} of audit.slices is null in every row of the list"
            raise InputError(said, fix="fill it, or leave it out of audit.slices.", field=self._field(column))
        if len(found) > MOST_VALUES:
            raise InputError(
                f"The column {column} of audit.slices has {len(found):,} different values, so that it makes no groups: "
                f"name one with at most {MOST_VALUES}.",
                field=self._field(column),
            )
        whole = self._workspace.texts.whole
        values = [None if value is None else whole(value) for value, _ in found]
        if any(value is not None and len(value.encode()) > LONG for value in values):
            said = (
                f"The column {column} of audit.slices has texts of more than {LONG:,} bytes, so that it makes no groups"
            )
            raise InputError(said, fix="leave it out, or name one with short values.", field=self._field(column))
        return [(column, value, figures) for value, (_, figures) in zip(values, found, strict=True)]

    def tally(self, column: str, judged: pa.Table) -> list[tuple[str | None, int, int, int]]:
        """The groups of a column among some keys: how many there are, how many are answered, and how many are agreed on.

        judged: columns lookup_hash, answered and agreed. Raises InputError for a column that makes no groups.
        """
        self.groups(column)
        self._db.register("slice_tally", judged)
        rows = self._db.execute(
            f"SELECT {listed(column)}, count(*), count(*) FILTER (t.answered), count(*) FILTER (t.agreed) "
            "FROM slice_tally t JOIN sliced USING (lookup_hash) GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        self._db.unregister("slice_tally")
        return self._workspace.texts.whole_rows(rows)

    def sums(self, column: str, table: str, sums: str, least: int) -> list[tuple[Any, ...]]:
        """The groups of a column of so many keys of a table at least, the largest first, each with aggregates of its rows."""
        return self._db.execute(
            f"SELECT {listed(column)}, {sums} FROM {table} "
            f"JOIN (SELECT lookup_hash, {listed(column)} FROM sliced) USING (lookup_hash) "
            f"GROUP BY 1 HAVING count(*) >= {least} ORDER BY count(*) DESC, 1 LIMIT {MOST_VALUES}"
        ).fetchall()

    def _field(self, column: str) -> tuple[str | int, ...]:
        """The place of a column in the job file."""
        return ("audit", "slices", self._columns.index(column))

    def _figures(self, group: str) -> list[tuple[str | None, SliceFigures]]:
        values = "histogram(prediction)" if self._spec.output.choices else "NULL"
        rows = self._db.execute(
            f"""SELECT {group} AS value, count(*), count(*) FILTER (covered), count(reason), histogram(reason), count(is_right),
            count(*) FILTER (is_right), median(tokens), quantile_cont(score, {list(QUANTILES)}), {values}
            FROM sliced GROUP BY 1 ORDER BY 2 DESC, 1"""
        ).fetchall()
        return [(row[0], _of_row(row[1:])) for row in rows]


def _of_row(row: Sequence[Any]) -> SliceFigures:
    rows, covered, failed, reasons, golden, right, tokens, score, values = row
    return SliceFigures(
        rows, covered, failed, reasons or {}, golden, right, tokens, tuple(score or ()), values or {}
    )  # fmt: skip
