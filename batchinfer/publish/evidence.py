"""A few rows for each check that failed: what a person wants to see of a candidate first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batchinfer.cache.store import Store
from batchinfer.cache.verdicts import corrections
from batchinfer.core.sql import literal
from batchinfer.inputs.query_list import Plan, listed
from batchinfer.job.spec import JobSpec
from batchinfer.publish.gate import Check
from batchinfer.publish.golden import Wrong
from batchinfer.versions.layout import version_column
from batchinfer.versions.manifest import Manifest

MOST = 5
LONGEST = 60  # characters of a value


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where examples are found: the job, the planned list with the tables of the candidate, the cache, the version served now.

    wrong: golden rows that the candidate answers otherwise.
    """

    spec: JobSpec
    plan: Plan
    store: Store
    before: Path | None
    wrong: Sequence[Wrong]


def attach(checks: Sequence[Check], candidate: Candidate) -> list[Check]:
    """The checks, those that failed with examples."""
    return [
        replace(check, examples=tuple(FINDERS[check.name](candidate)))
        if not check.passed and check.name in FINDERS
        else check
        for check in checks
    ]


def _uncovered(candidate: Candidate) -> list[str]:
    """Keys of the list without a prediction, those of bad rows too."""
    plan = candidate.plan
    names = ", ".join(["lookup", "row", *(listed(column.name) for column in plan.source.key)])
    every = " UNION ALL ".join(f"SELECT {names} FROM {table}" for table in ("list", "conflicts", "lost"))
    rows = _rows(
        plan,
        f"WITH every AS ({every}) SELECT {_listed_query(plan)} FROM every SEMI JOIN ("
        "SELECT lookup, min(row) AS row FROM every ANTI JOIN entries USING (lookup) ANTI JOIN refused USING (lookup) "
        f"GROUP BY lookup ORDER BY 2 LIMIT {MOST}) "
        "USING (lookup, row) ORDER BY row",
    )
    return [_key(query) for (query,) in rows]


def _failed(candidate: Candidate) -> list[str]:
    """Bad rows first, then prompts that failed in this run or before."""
    plan = candidate.plan
    with candidate.store.attached(plan.db):
        rows = _rows(
            plan,
            "SELECT query, reason FROM (SELECT row, query, reason FROM bad UNION SELECT row, query, reason FROM cache.failures "
            f"WHERE key IN (SELECT key FROM prompts) AND key NOT IN (SELECT key FROM covered)) ORDER BY row, query LIMIT {MOST}",
        )
    return [f"{_key(query)}: {reason}" for query, reason in rows]


def _gone(candidate: Candidate) -> list[str]:
    query = _served_query(candidate)
    sql = f"SELECT {query} FROM before b ANTI JOIN entries USING (lookup) ANTI JOIN refused USING (lookup) ORDER BY lookup LIMIT {MOST}"
    return [_key(query) for (query,) in _rows(candidate.plan, sql)]


def _changed(candidate: Candidate) -> list[str]:
    rows = _rows(
        candidate.plan,
        f"SELECT {_served_query(candidate)}, b.prediction, e.prediction FROM before b JOIN entries e USING (lookup) "
        f"WHERE b.prediction <> e.prediction AND e.source NOT IN {corrections(candidate.spec)} ORDER BY lookup LIMIT {MOST}",
    )
    return [f"{_key(query)}: {_short(old)} → {_short(new)}" for query, old, new in rows]


def _carried(candidate: Candidate) -> list[str]:
    query = _listed_query(candidate.plan)
    sql = f"SELECT {query} FROM entries WHERE carried ORDER BY lookup LIMIT {MOST}"
    return [_key(query) for (query,) in _rows(candidate.plan, sql)]


def _unreviewed(candidate: Candidate) -> list[str]:
    query = _listed_query(candidate.plan)
    sql = f"SELECT {query}, prediction FROM awaiting ORDER BY score NULLS LAST, lookup LIMIT {MOST}"
    return [f"{_key(query)}: {_short(value)}" for query, value in _rows(candidate.plan, sql)]


def _wrong(candidate: Candidate) -> list[str]:
    return [
        f"{_key(row.query)}: wanted {_short(row.wanted)}, got {'no prediction' if row.got is None else _short(row.got)}"
        for row in candidate.wrong
    ]


FINDERS: dict[str, Callable[[Candidate], list[str]]] = {
    "coverage": _uncovered, "failures": _failed, "shrink": _gone, "changed": _changed, "carried": _carried,
    "reviewed": _unreviewed, "golden": _wrong,
}  # fmt: skip


def _rows(plan: Plan, sql: str) -> list[tuple[str, ...]]:
    return plan.db.execute(sql).fetchall()


def _listed_query(plan: Plan) -> str:
    return _object([(column.name, listed(column.name)) for column in plan.source.key])


def _served_query(candidate: Candidate) -> str:
    """The key as the version served now has it, which may be of other columns."""
    assert candidate.before is not None
    return _object(
        [(column.name, f"b.{version_column(column.name)}") for column in Manifest.read(candidate.before).key]
    )


def _object(parts: Sequence[tuple[str, str]]) -> str:
    return f"json_object({', '.join(f'{literal(name)}, {sql}' for name, sql in parts)})::VARCHAR"


def _key(query: str) -> str:
    """A lookup key as it is written on the command line."""
    return ", ".join(f"{name}={_short(_text(value))}" for name, value in json.loads(query).items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    """A value in one line, without what a terminal would take for a command."""
    line = "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
