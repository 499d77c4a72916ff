"""The list for people: what is on it, in which order, in which columns."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.output import OutputFile
from batchinfer.errors import InputError, UsageError
from batchinfer.planning.prepare import Options
from batchinfer.review import export, ingest
from batchinfer.review.subject import SubjectKind
from tests.review.lists import CHECK, CHOICE, Make, echo, scores, stored


def shown(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_a_review_lists_what_nobody_has_judged(make: Make) -> None:
    """All of the model's entries are listed at first, with their context, and blank columns for the person."""
    world = make()
    world.answer(echo)
    rows = world.review()
    assert list(rows[0]) == [
        "job", "version", "id", "text", "value", "state", "before", "score", "source", "model", "generated_at",
        "verdict", "corrected", "author", "comment", "check",
    ]  # fmt: skip
    assert shown(rows, "job", "version", "id", "value", "state", "before", "source") == [
        ("shop", "0", "a", "about x", "new", "", "model"),
        ("shop", "0", "b", "about y", "new", "", "model"),
        ("shop", "0", "c", "about z", "new", "", "model"),
    ]
    assert {(row["verdict"], row["corrected"], row["author"], row["comment"]) for row in rows} == {("", "", "", "")}
    assert all(datetime.fromisoformat(row["generated_at"]) and row["model"] for row in rows)


@pytest.mark.long
def test_only_what_is_new_or_changed_is_listed(make: Make) -> None:
    """What was judged, and what people gave, is left out; a new value of a judged key is listed as changed."""
    world = make({"id": list("abcd"), "text": list("xyzw")})
    world.answer(echo)
    world.publish()
    rows = world.review()
    said = {"a": ("accept", ""), "b": ("reject", ""), "c": ("correct", "by Ann")}
    world.judge([row | dict(zip(("verdict", "corrected"), said.get(row["id"], ("", "")), strict=True)) for row in rows])
    world.take_in({"id": ["e"], "prediction": ["by hand"]})
    assert shown(world.review(), "id", "value", "state", "before") == [("d", "about w", "new", "")]
    world.answer(lambda row: "news", refresh=True)
    assert shown(world.review(), "version", "id", "value", "state", "before") == [
        ("1", "a", "news", "changed", "about x"),
        ("1", "b", "news", "new", "about y"),
        ("1", "d", "news", "new", "about w"),
    ]


def test_what_is_kept_from_the_served_version_is_listed(make: Make) -> None:
    """A row that keeps what is served would be published too, so people can judge it."""
    world = make()
    world.answer(echo)
    world.publish()
    world = world.changed(prompt={"template": "{{ text }}!"})
    assert shown(world.review(), "id", "value") == [("a", "about x"), ("b", "about y"), ("c", "about z")]


def test_the_worst_come_first(make: Make) -> None:
    """The lowest score is first; without scores what changed is before what is new."""
    world = make(output=CHOICE)
    world.answer(lambda row: scores({"x": 0.9, "y": 0.55, "z": 0.2}[row["text"]]))
    assert shown(world.review(), "id", "value", "score") == [
        ("b", "Yes", "0.55"),
        ("c", "No", "0.8"),
        ("a", "Yes", "0.9"),
    ]


@pytest.mark.long
def test_what_changed_comes_before_what_is_new(make: Make) -> None:
    """Without scores, a new value in place of one that people accepted is looked at first."""
    world = make()
    world.answer(echo)
    world.judge([row | {"verdict": "accept"} for row in world.review() if row["id"] == "c"])
    world.answer(lambda row: "news", refresh=True)
    assert shown(world.review(), "id", "state") == [("c", "changed"), ("a", "new"), ("b", "new")]


@pytest.mark.long
def test_a_checking_job_lists_terms(make: Make) -> None:
    """There the term is judged; its prediction and how many things it names stand beside it.

    Terms that are not served come last, with the number of things that they were proposed for.
    """
    world = make({"thing": ["mRNA", "mRNA", "Covaxin"], "term": ["jab", "shot", "Jab"]}, **CHECK)
    world.answer(lambda row: scores(0.3 if row["term"] == "shot" else 0.9))
    rows = world.review()
    assert list(rows[0])[2:13] == [
        "thing", "term", "value", "state", "before", "prediction", "score", "source", "model", "generated_at", "concepts",
    ]  # fmt: skip
    assert shown(rows, "thing", "value", "prediction", "concepts", "state") == [
        ("Covaxin", "Jab", "Yes", "2", "new"), ("mRNA", "jab", "Yes", "2", "new"), ("mRNA", "shot", "No", "1", "new"),
    ]  # fmt: skip
    world.publish()
    world.answer(lambda row: scores(0.9), refresh=True)
    assert shown(world.review(prediction="Yes", state="changed"), "term", "before") == [("shot", "No")]


def test_where_splits_the_work(make: Make) -> None:
    """Only rows with the values that were asked for are listed; a column that is not there is refused."""
    world = make()
    world.answer(echo)
    assert shown(world.review(id="b", source="model"), "id") == [("b",)]
    with pytest.raises(
        UsageError, match="--where: a review has no column language: it has job, version, id, text, value"
    ):
        world.review(language="de")


def test_nothing_to_review_is_a_header(make: Make) -> None:
    """Where nothing is to be judged, the file has its header only."""
    world = make()
    assert world.review() == []
    text = world.review_path.read_bytes().decode("utf-8-sig")
    assert (text.count("\r\n"), text[:14]) == (1, "job,version,id")


def test_parquet_keeps_kinds(make: Make) -> None:
    """As Parquet the key has its kinds, and a review comes back as it went out."""
    rows = {"id": pa.array([1, 2], pa.int64()), "day": [date(2026, 1, 31), date(2026, 2, 1)], "text": ["x", "y"]}
    world = make(rows, input={"path": "queries.parquet", "key": ["id", "day"]})
    world.answer(echo)
    target = world.job.folder / "review.parquet"
    assert export.export_review(world.job, world.data, Options(), OutputFile.of(target), {}) == export.ExportedReview(
        world.job.name, str(target), 2, 2, SubjectKind.VALUE
    )
    table = pq.read_table(target)
    assert table.column("id").to_pylist() == [1, 2]
    table = table.set_column(table.schema.get_field_index("verdict"), "verdict", pa.array(["ACCEPT", " reject"]))
    pq.write_table(table, target)
    assert ingest.is_review(target, world.job.spec)
    taken = ingest.import_review(world.job, world.data, target, "Ann", Options())
    assert (taken.accepted, taken.rejected, taken.no_longer_proposed) == (1, 1, 0)
    assert stored(world) == [
        ('{"id": 1, "day": "2026-01-31"}', "accept", '"about x"', None, "Ann"),
        ('{"id": 2, "day": "2026-02-01"}', "reject", '"about y"', None, "Ann"),
    ]


def test_a_failed_review_leaves_the_old_file(make: Make) -> None:
    """A review is put in place as a whole: one that fails leaves what was there."""
    world = make()
    world.review_path.write_text("mine", encoding="utf-8")
    world.list_path.unlink()
    with pytest.raises(InputError):
        world.review()
    assert world.review_path.read_text(encoding="utf-8") == "mine"
    assert not list(world.job.folder.glob(".batchinfer-*"))
