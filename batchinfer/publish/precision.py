"""How many of a version's or a candidate's predictions are right, by what reviewers said of samples.

A sample stands for the rows of its frame. What counts of it are rows that are still proposed with the same value: those
that are served, and those that would be, had people not rejected or corrected them; else the verdicts themselves would
make what was never looked at seem better than it is. For the same reason a row that is there only because people said so, since
the model does not say it or `match` leaves its score out, counts as given and stands for no other.

    frames ─┬─► drawn (with verdicts) ─► labels ─┐
            └─► standing ◄── target, withheld    ├─► inference ─► Precision
                    └─► chances ─────────────────┘

| table    | columns                                        | what it holds                                                     |
| -------- | ---------------------------------------------- | ----------------------------------------------------------------- |
| frames   | as FRAME_COLUMNS, and sample                   | what all samples stand for                                        |
| labels   | lookup_hash, value, truth                      | what people said of drawn rows, from 0 to 1                       |
| target   | lookup_hash, value, size, given                | what is judged; given: by people, in a review                     |
| standing | lookup_hash, value, size, score, served,       | its rows that samples stand for, and those that people took out   |
|          | chance, stratum                                | of it; chance: of having been drawn and judged                    |
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from batchinfer.cache import verdicts
from batchinfer.cache.verdicts import IMPORTS
from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import one
from batchinfer.core.home import JobData
from batchinfer.core.long_json import list_length_sql
from batchinfer.core.records import Source, VerdictKind
from batchinfer.core.sql import json_path, listed, literal
from batchinfer.job.parts import Part
from batchinfer.job.spec import JobSpec
from batchinfer.publish.inference import FEWEST, Estimated, JudgedRow, Precision, Whole, estimate_precision
from batchinfer.publish.samples import frames_sql, read_samples

LABELS = pa.schema({"lookup_hash": pa.binary(), "value": pa.uint64(), "truth": pa.float64()})


class SampledPrecision:
    """Measures precision by a job's samples. Owns the tables above in the workspace's database.

    withheld_sql: what the model says and people rejected or replaced: lookup_hash and prediction, with the key's columns.
    """

    def __init__(self, workspace: Workspace, data: JobData, withheld_sql: str) -> None:
        self._db, self._spec, self._store = workspace.db, workspace.spec, workspace.store
        self._withheld = withheld_sql
        self._samples = read_samples(data)
        self._drawn = self._disagreements = 0
        if self._samples:
            self._db.execute(f"CREATE OR REPLACE VIEW frames AS {frames_sql(data, self._samples)}")
            self._label()

    def measure(self, rows_sql: str) -> Precision:
        """Of the entries of a version or a candidate. rows_sql: a relation with the list's and a version's columns."""
        db = self._db
        db.execute(f"CREATE OR REPLACE TABLE target AS {self._judgeable(rows_sql)}")
        if self._samples:
            self._stand()
            judged, whole, drawn_size = (
                self._judged(),
                self._whole(),
                self._size("standing WHERE served AND chance > 0"),
            )
        else:
            judged, whole, drawn_size = [], Whole(0, 0.0, 0.0), 0.0
        given = self._given() if self._samples else self._size("target WHERE given")
        known = estimate_precision(judged, whole)
        return self._precision(known, whole, drawn_size, given)

    def _precision(self, known: Estimated | None, whole: Whole, served: float, given: float) -> Precision:
        """Puts together what samples stand for, what reviewers gave, and what nobody can tell."""
        total = self._size("target")
        rest = max(0.0, total - served - given)
        enough = total > 0 and (known is None or known.verdicts >= FEWEST or known.verdicts >= whole.rows)
        value, low, high = (0.0, 0.0, 0.0) if known is None else (known.value, known.interval.low, known.interval.high)

        def share(part: float, of_rest: float) -> float:
            right = min(part * whole.size, served)
            return (right + given + of_rest * rest) / total

        if known is None and given < total:  # what nobody judged is not wrong
            enough = False
        return Precision(
            estimate=share(value, value) if enough else None,
            low=share(low, 0.0) if enough else 0.0,
            high=share(high, 1.0) if enough else 1.0,
            verdicts=0 if known is None else known.verdicts,
            rows=round(total), covered=round(served + given), drawn=self._drawn, disagreements=self._disagreements,
            others=self._others(), samples=tuple(sample.id for sample in self._samples),
            of=unit(self._spec), known=known if enough else None,
        )  # fmt: skip

    def _judgeable(self, rows_sql: str) -> str:
        spec = self._spec
        return f"""
            SELECT * FROM (
                SELECT lookup_hash, {judged_mark(spec, "prediction")} AS value, {size_sql(spec)}::DOUBLE AS size,
                       source = '{Source.REVIEW}' AS given
                FROM {rows_sql} WHERE source <> '{Source.IMPORT}' AND {verdicts.matched(spec, listed)})
            WHERE size > 0"""

    def _label(self) -> None:
        """What people said of drawn rows: the last word of each of them, and the mean of these."""
        spec = self._spec
        self._drawn = int(
            one(self._db, "SELECT count(DISTINCT (lookup_hash, value)) FROM frames WHERE place IS NOT NULL")
        )
        with self._store.attached(self._db):
            said = self._db.execute(
                f"""SELECT d.lookup_hash, d.value, v.verdict, v.value AS judged, v.prediction, coalesce(v.author, '')
                FROM (SELECT lookup_hash, value, list(sample) AS samples, bool_or(known) AS known FROM frames
                      WHERE place IS NOT NULL GROUP BY ALL) d
                JOIN (SELECT *, {verdict_mark(spec)} AS mark FROM {IMPORTS} WHERE verdict IS NOT NULL AND sample IS NOT NULL) v
                ON d.lookup_hash = v.lookup_hash AND d.value = v.mark AND (d.known OR list_contains(d.samples, v.sample))
                ORDER BY v.import_id"""
            ).fetchall()
        right = self._right()
        rows = defaultdict[tuple[bytes, int], dict[str, float]](dict)
        for lookup_hash, value, verdict, judged, prediction, author in said:
            rows[lookup_hash, value][author] = right(verdict, judged, prediction)
        self._disagreements = sum(len(set(by.values())) > 1 for by in rows.values())
        table = pa.table(
            {
                "lookup_hash": [lookup_hash for lookup_hash, _ in rows],
                "value": [value for _, value in rows],
                "truth": [sum(by.values()) / len(by) for by in rows.values()],
            },
            LABELS,
        )
        self._db.register("said", table)
        self._db.execute("CREATE OR REPLACE TABLE labels AS FROM said")
        self._db.unregister("said")

    def _right(self) -> Callable[[str, str | None, str | None], float]:
        spec = self._spec

        def right(verdict: str, judged: str | None, prediction: str | None) -> float:
            if verdict != VerdictKind.CORRECT or judged is None or prediction is None:
                return float(verdict == VerdictKind.ACCEPT)
            terms, kept = terms_of(spec, json.loads(judged)), terms_of(spec, json.loads(prediction))
            return sum(term in kept for term in terms) / len(terms) if terms else 0.0

        return right

    def _stand(self) -> None:
        """Finds the rows that samples stand for, and how likely each was to be drawn and judged."""
        spec = self._spec
        with self._store.attached(self._db):
            self._db.execute(
                f"""CREATE OR REPLACE TABLE standing AS
            WITH rates AS (
                SELECT sample, stratum, count(place) / count(*) * coalesce(
                           count(truth) FILTER (place IS NOT NULL AND NOT known)
                           / nullif(count(*) FILTER (place IS NOT NULL AND NOT known), 0), 1) AS rate
                FROM frames LEFT JOIN labels USING (lookup_hash, value) GROUP BY ALL),
            known AS (
                SELECT lookup_hash, value, arg_max(score, sample) AS score, 1 - product(1 - rate) AS chance,
                       string_agg(sample || stratum, ' ' ORDER BY sample) AS stratum
                FROM frames JOIN rates USING (sample, stratum) GROUP BY lookup_hash, value),
            withheld AS (
                SELECT lookup_hash, {judged_mark(spec, "prediction")} AS value, {size_sql(spec)}::DOUBLE AS size
                FROM ({self._withheld}) WHERE {verdicts.matched(spec, listed)})
            SELECT lookup_hash, value, size, score, chance, stratum, true AS served FROM target JOIN known USING (lookup_hash, value)
            WHERE NOT given OR (lookup_hash, value) IN (SELECT (lookup_hash, value) FROM withheld)
            UNION ALL
            SELECT lookup_hash, value, size, score, chance, stratum, false FROM withheld JOIN known USING (lookup_hash, value)
            WHERE size > 0 AND lookup_hash NOT IN (SELECT lookup_hash FROM target WHERE NOT given)
              AND (lookup_hash, value) NOT IN (SELECT (lookup_hash, value) FROM target)"""
            )

    def _judged(self) -> list[JudgedRow]:
        rows = self._db.execute(
            "SELECT chance, truth, size, score, stratum FROM standing JOIN labels USING (lookup_hash, value) WHERE chance > 0 "
            "ORDER BY lookup_hash"
        ).fetchall()
        return [JudgedRow(*row) for row in rows]

    def _whole(self) -> Whole:
        sql = "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(size * score) / sum(size), 0) FROM standing WHERE chance > 0"
        rows, size, score = self._db.execute(sql).fetchall()[0]
        return Whole(rows, size, score)

    def _given(self) -> float:
        """What reviewers gave and no sample stands for."""
        return self._size(
            "(SELECT * FROM target ANTI JOIN (FROM standing WHERE chance > 0) USING (lookup_hash, value)) WHERE given"
        )

    def _size(self, rows: str) -> float:
        return float(one(self._db, f"SELECT coalesce(sum(size), 0) FROM {rows}"))

    def _others(self) -> int:
        """Verdicts that came of no sample."""
        with self._store.attached(self._db):
            return int(
                one(
                    self._db,
                    f"SELECT count(*) FROM {IMPORTS} WHERE verdict IS NOT NULL AND sample IS NULL AND follows IS NOT true",
                )
            )


def unit(spec: JobSpec) -> str:
    """What is right or not, in the plural."""
    lists = spec.output.splits or (spec.output.schema_ or {}).get("type") == "array"
    return "terms" if verdicts.is_checking(spec) or lists or _places(spec) else "predictions"


def judged_mark(spec: JobSpec, prediction: str) -> str:
    """SQL for a number that stands for what is judged, out of a prediction as entries hold it; of a key as a whole it is 0."""
    return "0::UBIGINT" if verdicts.is_checking(spec) else f"md5_number_lower({verdicts.same(spec, prediction)})"


def verdict_mark(spec: JobSpec) -> str:
    """The same of a verdict's value."""
    return judged_mark(spec, verdicts.plain(spec, "value"))


def _places(spec: JobSpec) -> list[Part]:
    """Where a prediction has its terms: those of the match section; none where the prediction as a whole is the list."""
    if spec.match is None or verdicts.is_checking(spec) or not spec.output.is_json:
        return []
    parts = [Part.parse(name, spec.input.key) for name in spec.match.terms]
    return [part for part in parts if part.column is None]


def size_sql(spec: JobSpec) -> str:
    """SQL for what an entry counts for: the number of its terms where it is a list, else 1."""
    if verdicts.is_checking(spec) or not spec.output.is_json:
        return "1"
    places = [json_path(*part.path) for part in _places(spec)]
    if not places:
        return f"coalesce({list_length_sql('prediction')}, 1)"
    parts = [f"json_extract(prediction, {literal(place)})" for place in places]
    return " + ".join(
        f"coalesce({list_length_sql(part)}, (json_type({part}) = 'VARCHAR')::UBIGINT, 0)" for part in parts
    )


def terms_of(spec: JobSpec, prediction: Any) -> list[Any]:
    """The terms of a prediction; none of one that is no list of them."""
    found: list[Any] = []
    places: Sequence[Sequence[str]] = [part.path for part in _places(spec)] or [()]
    for place in places:
        value = prediction
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        found += value if isinstance(value, list) else [value] if isinstance(value, str) and place else []
    return found
