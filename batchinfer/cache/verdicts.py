"""What people's verdicts come to: which answer of theirs stands for a key, which values are rejected, which accepted.

A verdict is a row of the cache's table `imports` with a verdict (accept, reject, correct) on a value, as JSON text. In a
checking job it is on the key itself, and value is NULL. import_id gives the order in time: the last word on a value holds.

    imports ─► verdicts ─► answers_given ─► rejected ─► retracted
                  └─► accepted         answered = imports without retracted ─► covered

| table         | columns                                        | what it holds                                                        |
| ------------- | ---------------------------------------------- | -------------------------------------------------------------------- |
| verdicts      | import_id, lookup_hash, verdict, value, answer | each verdict, with the answer that it carries                        |
| answers_given | import_id, lookup_hash, value                  | what people gave for the keys that verdicts are about                |
| rejected      | lookup_hash, value                             | must not be served, wherever it comes from; NULL: the key as a whole |
| accepted      | lookup_hash, value                             | what a person accepted, or gave as a correction                      |
| retracted     | lookup_hash                                    | keys whose last answer by people was rejected since                  |
| covered       | prompt_key                                     | prompts of which every row has an answer by people                   |

Values stand as `hashed` makes them, so that the tables of millions of verdicts are small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache.store import Store
from batchinfer.core.database import add_text_function
from batchinfer.core.keys import canonical_json
from batchinfer.core.records import Source, VerdictKind
from batchinfer.core.sql import literal
from batchinfer.inputs.query_list import QueryList
from batchinfer.job.matched import matched_sql
from batchinfer.job.parts import Part
from batchinfer.job.spec import JobSpec

PEOPLE = f"('{Source.IMPORT}', '{Source.REVIEW}')"  # the sources of entries whose value people gave
CANONICAL = "canonical_json"
IMPORTS = "(SELECT * EXCLUDE (lookup), lookup AS lookup_hash FROM cache.imports WHERE lookup IS NOT NULL)"
"""The rows of `imports` that are of the job's key, where the cache is attached."""


class Verdicts:
    """The verdicts of a job's cache. Owns the tables above in the scratch database that it is given.

    What gives SQL gives it for that database, where the tables are once `resolve` has been called.
    """

    def __init__(self, db: duckdb.DuckDBPyConnection, spec: JobSpec) -> None:
        self._db, self._spec = db, spec

    def resolve(self, store: Store, query_list: QueryList) -> None:
        """Makes the tables."""
        self._add_canonical()
        with store.attached(self._db):
            self._read()
            self._judge()
            self._cover(query_list)

    def ignore(self) -> None:
        """Makes `covered` alone, without rows: for who asks the model, whatever people said."""
        self._db.execute("CREATE OR REPLACE TABLE covered (prompt_key BLOB)")

    def cover_pairs(self, pairs: str) -> None:
        """Takes prompts that need no model for such whichever of two models they are for. pairs: SQL for small_key and large_key."""
        self._db.execute(
            f"INSERT INTO covered SELECT large_key FROM {pairs} WHERE small_key IN (SELECT prompt_key FROM covered)"
        )

    def _add_canonical(self) -> None:
        if self._spec.output.is_json:
            add_text_function(self._db, CANONICAL, _canonical)

    def _read(self) -> None:
        spec = self._spec
        answer, value = (hashed(spec, plain(spec, text)) for text in (answer_of(spec), "value"))
        self._db.execute(
            f"""CREATE OR REPLACE TABLE verdicts AS
            SELECT import_id, lookup_hash, verdict, {value} AS value, {answer} AS answer
            FROM {IMPORTS} WHERE verdict IS NOT NULL"""
        )
        self._db.execute(  # for the keys that verdicts are about: for those alone its order in time matters
            f"""CREATE OR REPLACE TABLE answers_given AS
            SELECT import_id, lookup_hash, {answer} AS value FROM {IMPORTS} SEMI JOIN verdicts USING (lookup_hash)
            WHERE {answer_of(spec)} IS NOT NULL"""
        )

    def _judge(self) -> None:
        self._db.execute(
            f"""CREATE OR REPLACE TABLE rejected AS
            SELECT lookup_hash, value FROM (
                SELECT lookup_hash, value, import_id, verdict <> '{VerdictKind.ACCEPT}' AS against FROM verdicts
                UNION ALL SELECT lookup_hash, value, import_id, false FROM answers_given
                UNION ALL SELECT lookup_hash, NULL, import_id, false FROM answers_given)
            GROUP BY lookup_hash, value HAVING arg_max(against, import_id)"""
        )
        self._db.execute(
            f"""CREATE OR REPLACE TABLE accepted AS
            SELECT lookup_hash, value FROM verdicts WHERE verdict = '{VerdictKind.ACCEPT}'
            UNION SELECT lookup_hash, answer FROM verdicts WHERE verdict = '{VerdictKind.CORRECT}' AND answer IS NOT NULL"""
        )
        self._db.execute(
            """CREATE OR REPLACE TABLE retracted AS
            SELECT DISTINCT lookup_hash
            FROM (SELECT lookup_hash, arg_max(value, import_id) AS value FROM answers_given GROUP BY lookup_hash) g
            JOIN rejected r USING (lookup_hash) WHERE r.value IS NULL OR r.value = g.value"""
        )

    def _cover(self, query_list: QueryList) -> None:
        rows = query_list.rows_sql
        self._db.execute(
            f"""CREATE OR REPLACE TABLE covered AS
            WITH imported AS MATERIALIZED (SELECT row, prompt_key FROM {rows} SEMI JOIN {self._answered_sql} USING (lookup_hash)),
                 partly AS (SELECT prompt_key FROM {rows} SEMI JOIN imported USING (prompt_key) ANTI JOIN imported USING (row))
            SELECT DISTINCT prompt_key FROM imported ANTI JOIN partly USING (prompt_key)"""
        )

    @property
    def _answered_sql(self) -> str:
        """The rows of `imports` whose answers are not rejected; several of a key, if it was answered several times."""
        return f"(FROM {IMPORTS} ANTI JOIN retracted USING (lookup_hash) WHERE {answer_of(self._spec)} IS NOT NULL)"

    @property
    def answers_sql(self) -> str:
        """The answer by people that stands for each key, where the cache is attached.

        Columns: lookup_hash, query, prediction, score, source, created_at.
        """
        return f"""
            SELECT lookup_hash, query, {plain(self._spec, answer_of(self._spec))} AS prediction, score,
                   CASE WHEN verdict IS NULL THEN '{Source.IMPORT}' ELSE '{Source.REVIEW}' END AS source, created_at
            FROM {self._answered_sql} QUALIFY row_number() OVER (PARTITION BY lookup_hash ORDER BY import_id DESC) = 1"""

    @property
    def said_sql(self) -> str:
        """All that people said of keys, in order of time, where the cache is attached.

        Columns: lookup_hash, verdict (NULL of a plain import), value (that was judged; NULL: the key as a whole) and answer,
        both as entries hold them.
        """
        value, answer = plain(self._spec, "value"), plain(self._spec, answer_of(self._spec))
        return f"SELECT lookup_hash, verdict, {value} AS value, {answer} AS answer FROM {IMPORTS} ORDER BY import_id, follows NULLS FIRST"

    rejected_keys_sql = f"""(
        SELECT lookup_hash, arg_max(query, import_id) AS query FROM {IMPORTS}
        SEMI JOIN (SELECT lookup_hash FROM rejected WHERE value IS NULL) USING (lookup_hash) GROUP BY lookup_hash)"""
    """Keys that people rejected as a whole, where the cache is attached: lookup_hash, query."""

    covered_sql = "covered"
    """Prompts that need no model: every row that asks them has an answer by people."""

    judged_sql = "(SELECT lookup_hash FROM verdicts)"
    """Keys that people said something of."""

    judgements_sql = f"""(
        SELECT lookup_hash, value, arg_max(verdict = '{VerdictKind.ACCEPT}', import_id) AS is_right FROM verdicts GROUP BY ALL)"""
    """The last word on each value: lookup_hash, the hashed value (NULL: the key as a whole), and whether it is right."""

    def rejected_sql(self, entries: str) -> str:
        """The lookup hash and hashed value of those entries that people rejected."""
        return self._hits(entries, "rejected")

    def accepted_sql(self, entries: str) -> str:
        """The same of those that people accepted."""
        return self._hits(entries, "accepted")

    def _hits(self, entries: str, values: str) -> str:
        """Entries whose value is in a table of values, or whose key is as a whole."""
        own = f"SELECT lookup_hash, {hashed(self._spec, 'prediction')} AS value FROM {entries} SEMI JOIN {values} USING (lookup_hash)"
        return (
            f"SELECT e.* FROM ({own}) e JOIN {values} v USING (lookup_hash) WHERE v.value IS NULL OR v.value = e.value"
        )


def _canonical(texts: pa.ChunkedArray) -> pa.Array:
    made = [None if text is None else canonical_json(json.loads(text)) for text in texts.to_pylist()]
    return pa.array(made, pa.string())


def corrections(spec: JobSpec) -> str:
    """The sources of entries that people meant to change; in a job without a model, imports are the predictions."""
    return PEOPLE if spec.prompt else f"('{Source.REVIEW}')"


def is_checking(spec: JobSpec) -> bool:
    """Whether the job's rows are terms that its predictions judge: people then judge the term, not the Yes or No."""
    return spec.match is not None and {*spec.match.terms, spec.match.concept} <= set(spec.input.key)


def expected_parts(spec: JobSpec) -> dict[str, Any]:
    """What a term's prediction, or places in it, must be in a checking job for it to be matched; the first of several."""
    if spec.match is None or not is_checking(spec):
        return {}
    return {
        part: value[0] if isinstance(value, list) else value
        for part, value in spec.match.where.items()
        if value != [] and (part == "prediction" or (part not in spec.input.key and spec.output.is_json))
    }


def named_answer(spec: JobSpec) -> str | None:
    """The prediction that a checking job's match section names for its terms, as JSON text; None where it names none."""
    value = expected_parts(spec).get("prediction")
    if value is None:
        return None
    text = value if isinstance(value, str) or spec.output.is_json else json.dumps(value)
    return json.dumps(text, ensure_ascii=False)


def answer_of(spec: JobSpec) -> str:
    """The answer that a row of `imports` carries, as JSON text; NULL where it carries none.

    A term that people accepted has the prediction that the match section wants now, whatever that was at the time; once it
    wants none, the one that it wanted then.
    """
    expected, named = expected_parts(spec), named_answer(spec)
    answer = "prediction" if named is None else literal(named)
    # a place in the model's own value, the rest of which stays
    for name in [name for name in expected if name != "prediction"]:
        patch = reduce(lambda inner, field: {field: inner}, reversed(Part.parse(name).path), expected[name])
        answer = f"json_merge_patch(coalesce({answer}, '{{}}'), {literal(json.dumps(patch, ensure_ascii=False))})"
    if not expected and is_checking(spec) and spec.output.choices:  # it was not always written down what it wanted
        answer = f"coalesce(prediction, {literal(json.dumps(spec.output.choices[0], ensure_ascii=False))})"
    if answer == "prediction":
        return answer
    return f"CASE WHEN verdict = '{VerdictKind.ACCEPT}' AND value IS NULL THEN {answer}::VARCHAR ELSE prediction END"


def matched(spec: JobSpec, column: Callable[[str], str]) -> str:
    """In a checking job, whether an entry would be matched; elsewhere true."""
    if spec.match is None or not is_checking(spec):
        return "true"
    return matched_sql(spec.match, spec.input.key, column, is_json=spec.output.is_json)


def part(spec: JobSpec, name: str, column: Callable[[str], str]) -> str:
    """A part of an entry, as text."""
    found = Part.parse(name, spec.input.key)
    return f"json_extract_string({found.sql(column, is_json=spec.output.is_json)}, '$')"


def plain(spec: JobSpec, text: str) -> str:
    """A prediction as entries hold it, out of the JSON text that the cache holds."""
    return text if spec.output.is_json else f"json_extract_string({text}, '$')"


def same(spec: JobSpec, value: str) -> str:
    """One text for values that people would take for the same, out of a prediction as entries hold it.

    JSON values may differ in the order of names, texts in their line ends.
    """
    return f"{CANONICAL}({value})" if spec.output.is_json else unix_lines(value)


def unix_lines(text: str) -> str:
    """A text with line ends of one kind: spreadsheets change them."""
    return rf"regexp_replace({text}, '\r\n?', chr(10), 'g')"


def hashed(spec: JobSpec, value: str) -> str:
    """The same, as a hash: all that is needed to tell values apart."""
    return f"md5_number({same(spec, value)})"
