"""What is judged, in both forms: what SQL says of it while a review is written, and Python while it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchinfer.cache.verdicts import Verdicts
from batchinfer.core.columns import Column
from batchinfer.core.records import VerdictKind
from batchinfer.job.spec import JobSpec
from batchinfer.review.subject import ReviewRow, Subject, SubjectKind, Verdict
from tests.factories import model_job

KEY = [Column("thing", "string"), Column("term", "string")]
FORMS: dict[str, dict[str, Any]] = {
    "text": {},
    "json": {"output": {"type": "json", "schema": {}}},
    "term": {"match": {"terms": ["term"], "concept": "thing", "where": {"prediction": "Yes"}}},
    "term of json": {
        "output": {"type": "json", "schema": {}},
        "match": {"terms": ["term"], "concept": "thing", "where": {"prediction.ok": True}},
    },
}


@pytest.fixture(params=list(FORMS))
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> JobSpec:
    """A job of each form."""
    rows = {"thing": ["mRNA"], "term": ["jab"]}
    sections = {"input": {"path": "queries.parquet", "key": ["thing", "term"]}, "prompt": {"template": "{{ term }}"}}
    return model_job(tmp_path, rows, **(sections | FORMS[request.param])).job.spec


def subject(spec: JobSpec, *normalize: str) -> Subject:
    return Subject.of(spec, KEY, normalize)


def row(value: str, prediction: str | None = None) -> ReviewRow:
    return ReviewRow(7, "line 8", "Ann", {"thing": "mRNA", "term": "jab"}, b"key", value, prediction)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    mixed=st.lists(st.sampled_from("\r\na")),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.long
def test_sql_and_python_agree(spec: JobSpec, text: str, mixed: list[str]) -> None:
    """The text by which values are compared, and the check of a row, are the same on both ways."""
    judged, value = subject(spec), text + "".join(mixed)
    if judged.kind == SubjectKind.VALUE and spec.output.is_json:
        value = json.dumps({"b": value, "a": [1.5, None]})
    with duckdb.connect() as db:
        Verdicts(db, spec)._add_canonical()
        sql = f"SELECT {judged.comparable_sql('v')}, {judged.digest_sql('k', 'v')} FROM (SELECT ? AS v, ?::BLOB AS k)"
        found = db.execute(sql, [value, b"\x00key"]).fetchall()
    assert found == [(judged.comparable(value), judged.digest(b"\x00key", value))]


def test_a_review_has_the_columns_that_its_subject_needs(spec: JobSpec) -> None:
    """What a verdict is read from was written, and only a review of terms shows what the model said beside them."""
    judged = subject(spec)
    assert set(judged.read_columns) | judged.extra_sql.keys() <= set(judged.columns)
    assert ("concepts" in judged.columns) == (judged.kind == SubjectKind.TERM) == (spec.match is not None)


def test_what_was_judged_is_no_correction(spec: JobSpec) -> None:
    """Who gives what stands there, however it is spelled, corrects nothing."""
    judged = subject(spec, "casefold")
    value, same = ("jab", "JAB") if judged.kind == SubjectKind.TERM else ("one\r\ntwo", "one\ntwo")
    if judged.kind == SubjectKind.VALUE and spec.output.is_json:
        value, same = '{"a": 1, "b": 2}', '{"b":2, "a":1}'
    query = {"thing": "mRNA", "term": "jab"}
    read = ReviewRow(7, "line 8", "Ann", query, judged.lookup_hash(query), value, None)
    assert judged.correct(read, same) is None
    assert judged.correct(read, '"another"') is not None


def test_a_verdict_on_a_value_keeps_the_value(tmp_path: Path) -> None:
    """A verdict is on the value of a key; a correction is an answer beside it."""
    judged = subject(model_job(tmp_path, {"thing": ["mRNA"], "term": ["jab"]},
                               input={"path": "queries.parquet", "key": ["thing", "term"]}).job.spec)  # fmt: skip
    read = row("about")
    assert judged.verdicts(read, VerdictKind.CORRECT, judged.correct(read, "of")) == [
        Verdict(7, "line 8", b"key", '{"thing": "mRNA", "term": "jab"}', VerdictKind.CORRECT, '"about"', '"of"', "Ann")
    ]
    [rejected] = judged.verdicts(read, VerdictKind.REJECT, None)
    assert (rejected.value, rejected.prediction) == ('"about"', None)
