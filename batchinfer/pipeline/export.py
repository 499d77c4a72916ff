"""What the cache has for the list, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchinfer.cache.workspace import Workspace
from batchinfer.core import output_rows
from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.core.person import Nobody, Person
from batchinfer.core.sql import listed, quoted
from batchinfer.errors import NotFound
from batchinfer.inputs.other_columns import OtherColumns
from batchinfer.inputs.parquet import ROW
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, prepare
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.caution import confirm_list
from batchinfer.publish.predictions_file import are_large, narrow
from batchinfer.versions.layout import OWN_COLUMNS, VALUE_COLUMNS, free_name


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    job: its name.
    file: where, or - for standard output.
    rows: how many.
    list_differs: that the list is another one than the served version's, as a sentence.
    """

    job: str
    file: str
    rows: int
    list_differs: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"job": self.job, "file": self.file, "rows": self.rows, "list_differs": self.list_differs}


def export(
    job: Job,
    data: JobData,
    options: Options,
    target: OutputFile,
    person: Person = Nobody(),  # noqa: B008 - it has no state
) -> ExportReport:
    """Writes what the cache has for the list, and imports, with all of the list's columns and in its order.

    Of rows with one key the first is there. What people gave beyond the list comes last. Raises UsageError, or
    NotFound where the data folder has nothing of the job, or no answer for the list; the file is as it was then.
    """
    data.require()
    differs = confirm_list(job, data, options.input, person, yes=options.yes)
    with target.draft() as draft, prepare(job, data, options, person.info) as prepared:
        candidate = Candidate(prepared.workspace)
        if not candidate.contents.entries:
            raise NotFound(
                f"The cache in {data.folder} has no answer for this list, so nothing was written",
                fix="batchinfer run asks the model, batchinfer import imports answers.",
            )
        others = OtherColumns(prepared.query_list.source.files, job.spec.input)
        if others.left_out:
            person.info(f"Left out, since not every file of the list has them once: {', '.join(others.left_out)}.")
        rows = _ExportedRows(prepared.workspace, others)
        rows.fill(candidate)
        json_texts = ["scores", *rows.nested, *(["prediction"] if job.spec.output.is_json else [])]
        sql = rows.sql if target.format == OutputFormat.PARQUET else _as_texts(rows.sql)
        texts = prepared.workspace.texts
        output_rows.write_output(prepared.workspace.db, sql, target, draft, texts, json_texts, rows.zoned)
        return ExportReport(job.name, str(target), candidate.contents.entries, differs)


class _ExportedRows:
    """Answers and list side by side, in the tables `answers` and `exported` of a workspace's database, which it owns.

    What the list has beside the answers, which can be long texts, comes batch by batch: a join would hold all of it.
    """

    sql = "FROM exported"

    def __init__(self, workspace: Workspace, others: OtherColumns) -> None:
        self._db, self._list, self._others, self._texts = workspace.db, workspace.query_list, others, workspace.texts
        self._names = self._free_names([column.name for column in self._list.source.key])

    def _free_names(self, key: Sequence[str]) -> dict[str, str]:
        """The list's columns, in their order, with their names in the file."""
        taken, names = set(OWN_COLUMNS), dict[str, str]()
        for name in [*key, *self._others.names]:
            names[name] = free_name(name, taken, "key" if name in key else "list")
            taken.add(names[name].lower())
        return {name: names[name] for name in self._others.order}

    @property
    def nested(self) -> list[str]:
        """Columns whose text is JSON."""
        return [self._names[name] for name in self._others.nested]

    @property
    def zoned(self) -> list[str]:
        """Columns whose times have a zone."""
        return [self._names[name] for name in self._others.zoned.intersection(self._names)]

    def fill(self, candidate: Candidate) -> None:
        """Makes the tables. Raises InputError."""
        entries = candidate.entries_sql
        if are_large(self._db, f"FROM {entries}", "prediction", "raw_text"):
            entries = narrow(self._db, f"FROM {entries}", self._texts)
        places = f"SELECT lookup_hash, min(row) AS row FROM {self._list.every_key_sql} GROUP BY lookup_hash"
        self._db.execute(
            f"CREATE TABLE answers AS SELECT p.row, e.* FROM {entries} e "
            f"LEFT JOIN ({places}) p USING (lookup_hash) ORDER BY p.row NULLS LAST, e.lookup_hash"
        )
        last = 0
        for batch in self._others.batches() if self._others.names else ():
            first, last = last, max(last, pc.max(batch[ROW]).as_py() or 0)
            self._add(self._answers(f"row > {first} AND row <= {last}"), batch)
        beyond = self._answers(f"row IS NULL OR row > {last}")
        self._add(beyond, None)

    def _answers(self, which: str) -> str:
        """SQL for these answers with their keys, named as in the file."""
        key = [f"{listed(column.name)} AS {quoted(self._names[column.name])}" for column in self._list.source.key]
        columns = ", ".join([*key, VALUE_COLUMNS, "lookup_hash AS lookup"])
        return f"SELECT row AS {quoted(ROW)}, {columns} FROM answers WHERE {which} ORDER BY row NULLS LAST, lookup_hash"

    def _add(self, answers: str, batch: pa.Table | None) -> None:
        """Adds answers to `exported`, with what the list has beside each."""
        if batch is not None:
            found = self._db.sql(answers).to_arrow_table()
            rows = batch.take(pc.index_in(found[ROW], pc.unique(batch[ROW])))
            beside = {self._names[name]: self._texts.shortened(rows[name]) for name in self._others.names}
            columns = dict(zip(found.column_names, found.columns, strict=True)) | beside
            names = dict.fromkeys([*self._names.values(), *columns])
            self._db.register("batch", pa.table({name: columns[name] for name in names if name != ROW}))
            answers = "FROM batch"
        else:
            answers = f"SELECT * EXCLUDE ({quoted(ROW)}) FROM ({answers})"
        self._db.execute(f"CREATE TABLE IF NOT EXISTS exported AS {answers} LIMIT 0")
        self._db.execute(f"INSERT INTO exported BY NAME {answers}")
        if batch is not None:
            self._db.unregister("batch")


def _as_texts(sql: str) -> str:
    """The same with the time of an answer as look-ups give it."""
    return f"SELECT * REPLACE (strftime(generated_at, '%Y-%m-%dT%H:%M:%SZ') AS generated_at) FROM ({sql})"
