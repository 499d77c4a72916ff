"""What people's verdicts come to, in SQL: which answer of theirs stands for a key, which values are rejected, which seen.

A verdict is a row of the cache's table `imports` with a verdict (accept, reject, correct) on a value, as JSON text. In a
checking job it is on the key itself, and value is NULL. import_id gives the order in time: the last word on a value holds.
Every function but `settle` returns SQL for a scratch database in which `settle` has been called.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.core.keys import canonical_json
from batchinfer.core.sql import literal
from batchinfer.job.matched import matched_sql
from batchinfer.job.parts import Part
from batchinfer.job.spec import JobSpec

ACCEPT, REJECT, CORRECT = "accept", "reject", "correct"
PEOPLE = "('import', 'review')"  # the sources of entries whose value people gave
CANONICAL = "canonical_json"


def corrections(spec: JobSpec) -> str:
    """The sources of entries that people meant to change; in a job without a model, imports are the predictions."""
    return PEOPLE if spec.prompt else "('review')"


def is_checking(spec: JobSpec) -> bool:
    """Whether the job's rows are terms that its predictions judge: people then judge the term, not the Yes or No."""
    return spec.match is not None and {*spec.match.terms, spec.match.concept} <= set(spec.input.key)


def wanted(spec: JobSpec) -> dict[str, Any]:
    """What a term's prediction, or places in it, must be in a checking job for it to be matched; the first of several."""
    if spec.match is None or not is_checking(spec):
        return {}
    return {
        part: value[0] if isinstance(value, list) else value
        for part, value in spec.match.where.items()
        if value != [] and (part == "prediction" or (part not in spec.input.key and spec.output.is_json))
    }


def settle(db: duckdb.DuckDBPyConnection, spec: JobSpec) -> None:
    """Makes tables of what verdicts come to, from the cache that is attached.

    rejected (lookup, value): must not be served, wherever it comes from; value is NULL for a key as a whole.
    seen (lookup, value): what a person accepted, or gave as a correction. fallen (lookup): keys whose last answer by
    people was rejected since. Values stand as `hashed` makes them, so that the tables of millions of verdicts are small.
    """
    known = "SELECT 1 FROM duckdb_functions() WHERE function_name = ?"
    if spec.output.is_json and not db.execute(known, [CANONICAL]).fetchall():
        db.create_function(CANONICAL, _canonical, ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special")  # type: ignore[call-overload]
    answer, value = (hashed(spec, plain(spec, text)) for text in (answer_of(spec), "value"))
    db.execute(
        f"""CREATE OR REPLACE TABLE judged AS
        SELECT import_id, lookup, verdict, {value} AS value, {answer} AS answer
        FROM cache.imports WHERE verdict IS NOT NULL AND lookup IS NOT NULL"""
    )
    db.execute(  # what people gave for the keys that verdicts are about: for those alone its order in time matters
        f"""CREATE OR REPLACE TABLE given AS
        SELECT import_id, lookup, {answer} AS value FROM cache.imports SEMI JOIN judged USING (lookup)
        WHERE {answer_of(spec)} IS NOT NULL"""
    )
    db.execute(
        f"""CREATE OR REPLACE TABLE rejected AS
        SELECT lookup, value FROM (
            SELECT lookup, value, import_id, verdict <> '{ACCEPT}' AS against FROM judged
            UNION ALL SELECT lookup, value, import_id, false FROM given
            UNION ALL SELECT lookup, NULL, import_id, false FROM given)
        GROUP BY lookup, value HAVING arg_max(against, import_id)"""
    )
    db.execute(
        f"""CREATE OR REPLACE TABLE seen AS
        SELECT lookup, value FROM judged WHERE verdict = '{ACCEPT}'
        UNION SELECT lookup, answer FROM judged WHERE verdict = '{CORRECT}' AND answer IS NOT NULL"""
    )
    db.execute(
        """CREATE OR REPLACE TABLE fallen AS
        SELECT DISTINCT lookup FROM (SELECT lookup, arg_max(value, import_id) AS value FROM given GROUP BY lookup) g
        JOIN rejected r USING (lookup) WHERE r.value IS NULL OR r.value = g.value"""
    )


def _canonical(texts: pa.ChunkedArray) -> pa.Array:
    made = [None if text is None else canonical_json(json.loads(text)) for text in texts.to_pylist()]
    return pa.array(made, pa.string())


def answer_of(spec: JobSpec) -> str:
    """The answer that a row of `imports` carries, as JSON text; NULL where it carries none.

    A term that people accepted has the prediction that the match section wants now, whatever it wanted then.
    """
    asked = wanted(spec)
    if not asked:
        return "prediction"
    answer = "prediction"
    if "prediction" in asked:
        value = asked.pop("prediction")
        given = value if isinstance(value, str) or spec.output.is_json else json.dumps(value)
        answer = literal(json.dumps(given, ensure_ascii=False))
    for name, value in asked.items():  # a place in the model's own value, the rest of which stays
        patch = reduce(lambda inner, field: {field: inner}, reversed(Part.parse(name).path), value)
        answer = f"json_merge_patch(coalesce({answer}, '{{}}'), {literal(json.dumps(patch, ensure_ascii=False))})"
    return f"CASE WHEN verdict = '{ACCEPT}' AND value IS NULL THEN {answer}::VARCHAR ELSE prediction END"


def answered(spec: JobSpec) -> str:
    """The rows of `imports` whose answers are not rejected; several of a key, if it was answered several times."""
    return (
        "(FROM cache.imports ANTI JOIN fallen USING (lookup) "
        f"WHERE lookup IS NOT NULL AND {answer_of(spec)} IS NOT NULL)"
    )


def answers(spec: JobSpec) -> str:
    """The answer by people that stands for each key: lookup, query, prediction, score, source, created_at."""
    return f"""
        SELECT lookup, query, {plain(spec, answer_of(spec))} AS prediction, score,
               CASE WHEN verdict IS NULL THEN 'import' ELSE 'review' END AS source, created_at
        FROM {answered(spec)} QUALIFY row_number() OVER (PARTITION BY lookup ORDER BY import_id DESC) = 1"""


def hits(spec: JobSpec, entries: str, verdicts: str) -> str:
    """The lookup and hashed value of those entries whose value is in a table of values, or whose key is as a whole."""
    hashes = f"SELECT lookup, {hashed(spec, 'prediction')} AS value FROM {entries} SEMI JOIN {verdicts} USING (lookup)"
    return f"SELECT e.* FROM ({hashes}) e JOIN {verdicts} v USING (lookup) WHERE v.value IS NULL OR v.value = e.value"


def unseen(spec: JobSpec) -> str:
    """The entries that no person gave or accepted."""
    return (
        f"(SELECT * FROM entries WHERE source NOT IN {PEOPLE} "
        f"AND lookup NOT IN (SELECT lookup FROM ({hits(spec, 'entries', 'seen')})))"
    )


def to_review(spec: JobSpec, column: Callable[[str], str], served: Callable[[str], str] | None) -> str:
    """Those entries of the model that `gate.reviewed` is about.

    column, served: SQL for a key column in `entries`, and in `before`; None where nothing is served yet.
    """
    made = f"SELECT * FROM entries WHERE source NOT IN {PEOPLE} AND {matched(spec, column)}"
    if spec.gate.reviewed == "all" or served is None:
        return f"({made})"
    return (  # hashes: a join that holds all texts would not fit into the memory that it may have
        f"(SELECT m.* FROM ({made}) m "
        f"ANTI JOIN (SELECT lookup, md5_number(prediction) AS hash FROM before WHERE {matched(spec, served)}) b "
        "ON m.lookup = b.lookup AND md5_number(m.prediction) = b.hash)"
    )


def matched(spec: JobSpec, column: Callable[[str], str]) -> str:
    """In a checking job, whether an entry would be matched; elsewhere true."""
    if spec.match is None or not is_checking(spec):
        return "true"
    return matched_sql(spec.match, spec.input.key, spec.output.kind, column)


def part(spec: JobSpec, name: str, column: Callable[[str], str]) -> str:
    """A part of an entry, as text."""
    found = Part.parse(name, spec.input.key)
    return f"json_extract_string({found.sql(spec.output.kind, column)}, '$')"


def plain(spec: JobSpec, text: str) -> str:
    """A prediction as entries hold it, out of the JSON text that the cache holds."""
    return text if spec.output.is_json else f"json_extract_string({text}, '$')"


def same(spec: JobSpec, value: str) -> str:
    """One text for values that people would take for the same, out of a prediction as entries hold it.

    JSON values may differ in the order of names; texts in their line ends, which spreadsheets change.
    """
    return f"{CANONICAL}({value})" if spec.output.is_json else rf"regexp_replace({value}, '\r\n?', chr(10), 'g')"


def hashed(spec: JobSpec, value: str) -> str:
    """The same, as a hash: all that is needed to tell values apart."""
    return f"md5_number({same(spec, value)})"
