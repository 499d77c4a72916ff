"""The verdicts of a review that is being imported, as a table, until all of them were found good."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from batchinfer.cache import imports, verdicts
from batchinfer.cache.pieces import AS_JSON
from batchinfer.cache.workspace import Workspace
from batchinfer.core.columns import query_text
from batchinfer.core.database import one_integer
from batchinfer.core.long_json import shortened_json
from batchinfer.core.records import VerdictKind
from batchinfer.errors import shortened
from batchinfer.publish.candidate import Candidate
from batchinfer.review.rows import MAX_FAULTS
from batchinfer.review.subject import Verdict

TWICE = "two verdicts for one value of {query}, here and in {others}"
CORRECTED_TWICE = "two corrected values of {query}, here and in {others}"
CONTRADICTED = "the corrected value of {query} is rejected in {others}"
KEY_CHARACTERS = 300  # of a key that is shown
VERDICTS = pa.schema(
    {
        "line": pa.int64(), "place": pa.string(), "lookup_hash": pa.binary(), "query": pa.string(), "verdict": pa.string(),
        "value": pa.string(), "prediction": pa.string(), "author": pa.string(), "sample": pa.string(), "follows": pa.bool_(),
    }
)  # fmt: skip


class MarkedRows:
    """One row a verdict. Owns the table `marked` in a workspace's database; its columns are those of VERDICTS."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._db, self._spec = workspace, workspace.db, workspace.spec
        self._texts = workspace.texts
        self._insert("CREATE OR REPLACE TABLE marked AS FROM batch", VERDICTS.empty_table())

    def add(self, rows: Sequence[Verdict]) -> None:
        """Adds verdicts to the table."""
        columns = {name: [getattr(row, name) for row in rows] for name in VERDICTS.names}
        for name, most in AS_JSON.items():
            columns[name] = [text and shortened_json(text, self._texts.keep, most) for text in columns[name]]
        self._insert("INSERT INTO marked FROM batch", pa.Table.from_pydict(columns, VERDICTS))

    def _insert(self, sql: str, batch: pa.Table) -> None:
        self._db.register("batch", batch)
        self._db.execute(sql)
        self._db.unregister("batch")

    def counts(self) -> dict[str, int]:
        """How many verdicts there are of each kind."""
        sql = "SELECT verdict, count(*) FROM marked WHERE NOT follows GROUP BY 1"
        return dict(self._db.execute(sql).fetchall())

    def clashes(self) -> list[tuple[str, str]]:
        """Verdicts that cannot hold beside each other, each with the place of the first.

        A term that several rows are corrected to is accepted once.
        """
        self._db.execute(
            f"DELETE FROM marked WHERE follows AND rowid NOT IN "
            f"(SELECT arg_min(rowid, follows) FROM marked WHERE verdict = '{VerdictKind.ACCEPT}' GROUP BY lookup_hash)"
        )
        value, answer = (self._hashed(name) for name in ("value", "prediction"))
        found = self._db.execute(
            f"""SELECT list(place ORDER BY line), any_value(query), min(line) AS first, '{TWICE}' AS fault
                FROM marked GROUP BY lookup_hash, {value} HAVING count(*) > 1
            UNION ALL
            SELECT list(place ORDER BY line), any_value(query), min(line), '{CORRECTED_TWICE}'
                FROM marked WHERE verdict = '{VerdictKind.CORRECT}' GROUP BY lookup_hash
                HAVING count(DISTINCT prediction) > 1 AND count(DISTINCT value) > 1
            UNION ALL
            SELECT [c.place, r.place], c.query, c.line, '{CONTRADICTED}'
                FROM (SELECT *, {answer} AS corrected FROM marked WHERE verdict = '{VerdictKind.CORRECT}') c
                JOIN (SELECT *, {value} AS against FROM marked WHERE verdict <> '{VerdictKind.ACCEPT}') r
                ON c.lookup_hash = r.lookup_hash AND c.corrected = r.against
            ORDER BY first"""
        ).fetchall()
        return [
            (
                first,
                fault.format(
                    query=shortened(query_text(json.loads(self._texts.whole(query))), KEY_CHARACTERS),
                    others=" and ".join(others[: MAX_FAULTS - 1]),
                ),
            )
            for (first, *others), query, _, fault in found
        ]

    def store(self) -> int:
        """Puts the verdicts into the cache; returns the import's number."""
        source = self._workspace.query_list.source
        return imports.store_import(
            self._workspace.store, self._db,
            "SELECT lookup_hash AS lookup, query, prediction, author, verdict, value, sample, follows FROM marked ORDER BY line, follows",
            imports.key_of(source.key, source.normalize, source.forms), self._texts,
        )  # fmt: skip

    def outdated(self, candidate: Candidate) -> int:
        """Verdicts on what would not be published now, even if nobody had rejected it."""
        proposed = f"""
            SELECT count(DISTINCT line)
            FROM (SELECT line, lookup_hash, {self._hashed("value")} AS value FROM marked WHERE NOT follows) m
            JOIN {candidate.proposed_sql("marked")} e USING (lookup_hash) WHERE m.value IS NULL OR m.value = e.value"""
        every = "SELECT count(*) FROM marked WHERE NOT follows"
        return one_integer(self._db, every) - one_integer(self._db, proposed)

    def _hashed(self, column: str) -> str:
        return verdicts.hashed(self._spec, verdicts.plain(self._spec, column))
