"""Which prompts to generate, in which order: the list against the cache, in bounded memory.

    prompts ─► state ─► todo

| table     | columns                                                 | what it holds                                 |
| --------- | ------------------------------------------------------- | --------------------------------------------- |
| state     | prompt_key, first, covered, made, refreshed, failed,    | what is known of each prompt of the list      |
|           | tried and answered (in this run)                        |                                               |
| todo      | prompt_key, row, q_NAME for each column of the template | prompts to generate, shared prefixes together |
| reordered | the same columns                                        | the same in another order                     |
| lengths   | the same columns, and output_tokens                     | answers of prompts of the list, some of them  |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from batchinfer.cache.workspace import Workspace
from batchinfer.core.clock import latest, now
from batchinfer.core.database import one_integer, record_batches
from batchinfer.core.records import Counts
from batchinfer.core.sql import listed

MOST_KNOWN = 20_000  # answers that tell how long others will be
FEWEST_KNOWN = 30  # with fewer nothing is said by them
FEWEST_ALIKE = 5  # answers of a group, on average, where groups tell anything
TELLING = 0.1  # least share of the variance that groups must explain
EVER, NEVER = datetime.min, datetime.max  # noqa: DTZ901 - stored times are UTC and have no zone


class TodoReader(Protocol):
    """Gives (prompt_key, row) of so many prompts, from a place on."""

    def __call__(self, limit: int | None = None, start: int = 0) -> Iterator[tuple[bytes, dict[str, Any]]]: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What to make again although the cache has it.

    retry_failed: prompts that failed before.
    refresh_since: what was made before that time; None to refresh nothing.
    refresh_where: (column, value) of the rows to refresh; None for all.
    max_age: what is older, or from the future.
    """

    retry_failed: bool = False
    refresh_since: datetime | None = None
    refresh_where: tuple[str, str] | None = None
    max_age: timedelta | None = None

    @property
    def replaces(self) -> bool:
        """Whether keys that are in the cache may be generated."""
        return self.retry_failed or self.refresh_since is not None or self.max_age is not None


@dataclass(frozen=True, slots=True)
class AnswerLengths:
    """How long answers will be.

    tokens: of all of them together.
    off: by how many that may be off, as a standard deviation.
    """

    tokens: float
    off: float


class Plan:
    """What is to be generated, and what the list comes to. Owns the tables above in the workspace's database.

    counts: of the list, by what the cache has.
    answered: how many of the prompts were answered by the run that it was compared for last.
    """

    def __init__(self, workspace: Workspace, parser: str, selection: Selection) -> None:
        """parser: how answers are read; failures of another parser are none."""
        self._workspace, self._db, self._list = workspace, workspace.db, workspace.query_list
        self._parser, self._selection = parser, selection
        self.counts: Counts
        self.answered = 0
        self.compare()

    def compare(self, run_id: int | None = None, within: str = "") -> None:
        """Compares the list with the cache, again where its rows ask other prompts now.

        run_id: of the run that goes on; what it asked is not asked again. within: SQL for the keys of the prompts that may be
        asked; all unless given.
        """
        self._compare(self._parser, self._selection, run_id)
        self._order(self._selection, within)
        self.counts = self._counted()
        self.answered = (
            0 if run_id is None else one_integer(self._db, "SELECT count(*) FROM state WHERE answered AND NOT covered")
        )

    def _compare(self, parser: str, selection: Selection, run_id: int | None) -> None:
        """Makes `state`."""
        oldest = None if selection.max_age is None else now() - selection.max_age
        tried = answered = "false"
        if run_id is not None:
            made_now = f"SELECT key FROM cache.generations WHERE run_id = {run_id}"
            answered = f"prompt_key IN ({made_now} AND prediction IS NOT NULL)"
            lost_now = f"SELECT key FROM cache.failures WHERE run_id = {run_id} AND key IS NOT NULL"
            tried = f"prompt_key IN ({made_now} UNION ALL {lost_now})"
        with self._workspace.store.attached(self._db):
            self._db.execute(
                f"""CREATE OR REPLACE TABLE state AS
                SELECT prompt_key, first,
                       prompt_key IN (SELECT prompt_key FROM {self._workspace.verdicts.covered_sql}) AS covered,
                       prompt_key IN (SELECT key FROM cache.generations WHERE created_at BETWEEN $oldest AND $newest) AS made,
                       prompt_key IN (SELECT key FROM cache.generations WHERE created_at BETWEEN $refreshed AND $latest) AS refreshed,
                       prompt_key IN (SELECT key FROM cache.failures
                               WHERE key IS NOT NULL AND (stage = 'engine' OR parser = $parser)) AS failed,
                       {tried} AS tried, {answered} AS answered
                FROM {self._list.prompts_sql}""",
                {
                    "oldest": oldest or EVER,
                    "newest": NEVER if oldest is None else latest(),
                    "latest": latest(),
                    "refreshed": selection.refresh_since or NEVER,
                    "parser": parser,
                },
            )

    def _order(self, selection: Selection, within: str) -> None:
        """Makes `todo`."""
        columns = self._list.columns
        again, values = self._again(selection)
        chosen = f" AND s.prompt_key IN {within}" if within else ""
        self._db.execute(
            f"""CREATE OR REPLACE TABLE todo AS SELECT s.prompt_key, l.* EXCLUDE (prompt_key, lookup_hash)
            FROM state s JOIN {self._list.rows_sql} l ON l.row = s.first
            WHERE NOT covered AND NOT tried AND ((NOT made AND NOT failed) OR {again}){chosen}
            ORDER BY {", ".join([f"l.{listed(name)}" for name in columns] or ["s.first"])}""",
            values,
        )

    def _again(self, selection: Selection) -> tuple[str, list[str]]:
        """SQL for what is made again although it is there, and its values."""
        tests, values = [], list[str]()
        if selection.retry_failed:
            tests.append("failed")
        if selection.refresh_since is not None:
            rows = ""
            if selection.refresh_where is not None:
                name, value = selection.refresh_where
                chosen = f"SELECT prompt_key FROM {self._list.rows_sql} WHERE {listed(name)}::VARCHAR = ?"
                rows = f" AND s.prompt_key IN ({chosen})"
                values.append(value)
            tests.append(f"(NOT refreshed{rows})")
        return " OR ".join(tests) or "false", values

    def _counted(self) -> Counts:
        good, bad, unique = self._list.good, self._list.bad, self._list.unique
        to_generate = one_integer(self._db, "SELECT count(*) FROM todo")
        failed = one_integer(
            self._db,
            "SELECT count(*) FROM state WHERE failed AND NOT covered AND prompt_key NOT IN (SELECT prompt_key FROM todo)",
        )
        return Counts(
            rows=good + bad, bad=bad, duplicates=good - unique, unique=unique, cached=unique - failed - to_generate,
            failed=failed, to_generate=to_generate, lookups=self._list.lookups, misses=self._list.misses,
        )  # fmt: skip

    def answer_lengths(self, fingerprint: bytes) -> AnswerLengths | None:
        """Of the answers to all that is to be generated, by those that the question has already; None where it has few.

        A prompt's answer is as long as those of its group, where a column of the template groups them well: those to prompts
        that the list has tell it. Otherwise it is as long as all are.
        """
        self._gather_lengths(fingerprint)
        with self._workspace.store.attached(self._db):
            known, tokens, variance = self._db.execute(
                "SELECT count(*), avg(output_tokens), var_pop(output_tokens) FROM cache.generations WHERE fingerprint = ?",
                [fingerprint],
            ).fetchall()[0]
        asked = self.counts.to_generate
        if known < FEWEST_KNOWN:
            return None
        if column := self._telling_column():
            return self._lengths_of_groups(column)
        return AnswerLengths(tokens * asked, math.sqrt(variance * asked * (1 + asked / known)))

    def longest_first(self, fingerprint: bytes) -> None:
        """Has groups whose answers were long so far come first in `todo`, so that none is left alone at a run's end.

        Only where the column by which prompts are ordered first tells how long answers are: what begins alike stays together.
        """
        self._gather_lengths(fingerprint)
        first, *_ = columns = [listed(name) for name in self._list.columns] or [""]
        if self._telling_column() != first:
            return
        self._db.execute(
            f"""CREATE OR REPLACE TABLE todo AS SELECT t.* FROM todo t
            LEFT JOIN (SELECT {first} AS name, avg(output_tokens) AS tokens FROM lengths GROUP BY ALL) k ON k.name = t.{first}
            ORDER BY coalesce(k.tokens, (SELECT avg(output_tokens) FROM lengths)) DESC, {", ".join(f"t.{name}" for name in columns)}"""
        )

    def _gather_lengths(self, fingerprint: bytes) -> None:
        """Makes `lengths`."""
        with self._workspace.store.attached(self._db):
            self._db.execute(
                f"""CREATE OR REPLACE TABLE lengths AS SELECT l.*, g.output_tokens FROM
                (SELECT key, output_tokens FROM cache.generations WHERE fingerprint = ? ORDER BY created_at DESC LIMIT {MOST_KNOWN}) g
                JOIN state s ON s.prompt_key = g.key JOIN {self._list.rows_sql} l ON l.row = s.first""",
                [fingerprint],
            )

    def _lengths_of_groups(self, column: str) -> AnswerLengths:
        """What has no group of its own may be as far from the mean as groups are."""
        tokens, within, alone, between, asked, known = self._db.execute(
            f"""WITH known AS (SELECT {column} AS name, avg(output_tokens) AS tokens, var_pop(output_tokens) * count(*) AS squares,
                count(*) AS n FROM lengths GROUP BY ALL),
            whole AS (SELECT sum(tokens * n) / sum(n) AS tokens, sum(squares) / sum(n) AS within, var_pop(tokens) AS between, sum(n) AS n
                FROM known)
            SELECT sum(coalesce(k.tokens, w.tokens)), any_value(w.within), count(*) FILTER (k.name IS NULL), any_value(w.between),
                count(*), any_value(w.n)
            FROM todo LEFT JOIN known k ON k.name = {column} CROSS JOIN whole w"""
        ).fetchall()[0]
        noise = float(within) * asked * (1 + asked / float(known)) + float(between) * alone**2
        return AnswerLengths(float(tokens), math.sqrt(noise))

    def _telling_column(self) -> str | None:
        """The column of the template whose groups explain most of how long answers are, if enough are known and any tells."""
        if one_integer(self._db, "SELECT count(*) FROM lengths") < FEWEST_KNOWN:
            return None
        explained = dict[str, float]()
        for name in map(listed, self._list.columns):
            rows, groups, within, whole = self._db.execute(
                f"""SELECT sum(n), count(*), sum(n * v), (SELECT var_pop(output_tokens) * count(*) FROM lengths)
                FROM (SELECT count(*) AS n, var_pop(output_tokens) AS v FROM lengths GROUP BY {name})"""
            ).fetchall()[0]
            if whole and rows >= FEWEST_ALIKE * groups:
                explained[name] = 1 - (within / float(rows - groups)) / (whole / float(rows - 1))
        best = max(explained, key=explained.__getitem__, default=None)
        return best if best is not None and explained[best] >= TELLING else None

    def todo(self, limit: int | None = None, start: int = 0) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """(prompt_key, row) of what is to be generated, in the order in which shared prefixes lie together."""
        return self._read("todo", limit, start)

    def spread(self, count: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The same of so many prompts from all over it."""
        whole = max(self.counts.to_generate, 1)
        return self._read("todo", where=f" WHERE (rowid + 1) * {count} // {whole} > rowid * {count} // {whole}")

    def reordered(self, columns: Sequence[str]) -> TodoReader:
        """What is to be generated, as `todo` gives it, in the order of these columns."""
        order = ", ".join(map(listed, columns))
        self._db.execute(f"CREATE OR REPLACE TABLE reordered AS FROM todo ORDER BY {order}")
        return lambda limit=None, start=0: self._read("reordered", limit, start)

    def variety(self, columns: Sequence[str]) -> int:
        """How many different values these columns have together in what is to be generated, about."""
        return one_integer(self._db, f"SELECT approx_count_distinct(hash({', '.join(map(listed, columns))})) FROM todo")

    def _read(
        self, table: str, limit: int | None = None, start: int = 0, where: str = ""
    ) -> Iterator[tuple[bytes, dict[str, Any]]]:
        clause = where + ("" if limit is None else f" LIMIT {limit}") + (f" OFFSET {start}" if start else "")
        with record_batches(self._db, f"SELECT * FROM {table}{clause}", 1024) as reader:
            for batch in reader:
                for record in batch.to_pylist():
                    yield record["prompt_key"], self._list.own_columns(record)
