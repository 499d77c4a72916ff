"""The list for people, and what they marked: round trips through spreadsheets, and files that are refused whole."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.core import database
from batchinfer.core.output import OutputFile
from batchinfer.errors import InputError, UsageError
from batchinfer.planning.prepare import Options
from batchinfer.review import export, ingest, predictions
from batchinfer.review.subject import SubjectKind
from tests.factories import LENIENT, World, model_job, write

Make = Callable[..., World]
LIST = {"id": ["a", "b", "c"], "text": ["x", "y", "z"]}
CHECK: dict[str, Any] = {
    "input": {"path": "queries.parquet", "key": ["thing", "term"]},
    "prompt": {"template": "{{ thing }} {{ term }}"},
    "output": {"type": "choice", "choices": ["Yes", "No"]},
    "match": {"terms": ["term"], "concept": "thing", "where": {"prediction": "Yes"}},
}
CHOICE = {"type": "choice", "choices": ["Yes", "No"]}
NAMES = {
    "type": "json",
    "schema": {"type": "object", "properties": {"names": {"type": "array", "items": {"type": "string"}}}, "required": ["names"]},
}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows."""

    def job(rows: Mapping[str, Any] = LIST, **sections: Any) -> World:
        return model_job(tmp_path, rows, **({"gate": LENIENT} | sections))

    return job


def scores(yes: float) -> list[float]:
    return [math.log(yes), math.log(1 - yes)]


def echo(row: dict[str, Any]) -> str:
    return f"about {row['text']}"


def stored(world: World) -> list[tuple[Any, ...]]:
    with world.store.open() as db:
        return db.execute(
            "SELECT query, verdict, value, prediction, author FROM imports ORDER BY import_id, query, verdict"
        ).fetchall()


def shown(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


# The list


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


def test_what_changed_comes_before_what_is_new(make: Make) -> None:
    """Without scores, a new value in place of one that people accepted is looked at first."""
    world = make()
    world.answer(echo)
    world.judge([row | {"verdict": "accept"} for row in world.review() if row["id"] == "c"])
    world.answer(lambda row: "news", refresh=True)
    assert shown(world.review(), "id", "state") == [("c", "changed"), ("a", "new"), ("b", "new")]


def test_a_checking_job_lists_terms(make: Make) -> None:
    """There the term is judged; its prediction and how many things it names stand beside it."""
    world = make({"thing": ["mRNA", "mRNA", "Covaxin"], "term": ["jab", "shot", "Jab"]}, **CHECK)
    world.answer(lambda row: scores(0.3 if row["term"] == "shot" else 0.9))
    rows = world.review()
    assert list(rows[0])[2:13] == [
        "thing", "term", "value", "state", "before", "prediction", "score", "source", "model", "generated_at", "concepts",
    ]  # fmt: skip
    assert shown(rows, "thing", "value", "prediction", "concepts", "state") == [
        ("mRNA", "shot", "No", "0", "new"), ("Covaxin", "Jab", "Yes", "2", "new"), ("mRNA", "jab", "Yes", "2", "new"),
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


# The round trip

HOSTILE = [
    "plain", 'say "hi"', "a,b;c", "line\nbreak", "line\r\nbreak", "=1+1", "+49", "-5", "@cmd", "\ttab", "'=quoted", "''-x",
    "'tis", "שלום", "مرحبا \u202eabc", "👩🏽‍🚀", "\ufeffbom", " space ", "007", "1-2", "TRUE", "日本語", "e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("sign", [",", ";"])
@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""], ids=["BOM", "no BOM"])
def test_hostile_values_survive_a_spreadsheet(make: Make, sign: str, mark: bytes) -> None:
    """Key and value come back as they were, through quotes, line breaks, formulas, semicolons, marks and any script."""
    world = make({"id": HOSTILE, "text": HOSTILE})
    world.answer(lambda row: row["text"])
    rows = world.review()
    assert [row for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []
    with world.review_path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark.decode())
        writer = csv.DictWriter(file, list(rows[0]), delimiter=sign, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(row | {"verdict": "Accept"} for row in rows)
    assert ingest.is_review(world.review_path, world.job.spec)
    taken = ingest.import_review(world.job, world.data, world.review_path, None, Options())
    assert (taken.accepted, taken.no_longer_proposed) == (len(HOSTILE), 0)
    assert sorted(json.loads(query)["id"] for query, *_ in stored(world)) == sorted(HOSTILE)
    assert sorted(json.loads(value) for _, _, value, *_ in stored(world)) == sorted(HOSTILE)
    assert world.review() == []


def test_line_ends_that_a_spreadsheet_changed_are_no_change(make: Make) -> None:
    """A value with carriage returns is rejected although the spreadsheet saved them as line feeds."""
    world = make({"id": ["a"], "text": ["x"]})
    world.answer(lambda row: "one\r\ntwo\rthree")
    [row] = world.review()
    world.judge([row | {"value": "one\ntwo\nthree", "verdict": "reject"}])
    assert world.review() == []
    world.take_in({"id": ["b"], "prediction": ["by hand"]})
    world.publish()
    assert world.get(id="a") is None


def test_a_review_is_utf8_with_a_mark(make: Make) -> None:
    """The file begins with a byte-order mark, and its lines end as spreadsheets want."""
    world = make()
    world.answer(echo)
    world.review()
    data = world.review_path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbfjob,")
    assert data.count(b"\r\n") == data.count(b"\n") == 4


def test_every_verdict_has_its_author(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row's author goes before the option, and that before the user's name."""
    monkeypatch.setenv("LOGNAME", "carla")
    world = make()
    world.answer(echo)
    rows = [row | {"verdict": "accept"} for row in world.review()]
    world.judge([rows[0] | {"author": "Ann"}, rows[1]], author="Bob")
    world.judge([rows[2]])
    assert [author for *_, author in stored(world)] == ["Ann", "Bob", "carla"]


def test_rows_that_are_not_judged_are_counted(make: Make) -> None:
    """Blank verdicts are skipped; a corrected value alone counts as correct; any case will do."""
    world = make()
    world.answer(echo)
    rows = world.review()
    taken = world.judge([rows[0] | {"corrected": "by Ann"}, rows[1] | {"verdict": " Reject "}, rows[2]])
    assert taken == ingest.Ingested(1, 0, 1, 1, 1, 0)
    assert world.judge(rows) == ingest.Ingested(None, 0, 0, 0, 3, 0)
    assert len(stored(world)) == 2


@pytest.mark.parametrize(
    ("output", "said", "corrected"),
    [
        pytest.param({}, "one\r\ntwo", "one\ntwo", id="line ends"),
        pytest.param(NAMES, '{"names": ["x"], "sure": true}', '{"sure":true, "names":["x"]}', id="order of names"),
    ],
)
def test_a_correction_to_the_same_value_is_an_accept(
    make: Make, output: dict[str, Any], said: str, corrected: str
) -> None:
    """Who gives the value itself as the corrected one has accepted it."""
    world = make(output=output)
    world.answer(lambda row: said)
    taken = world.judge([world.review()[0] | {"verdict": "correct", "corrected": corrected}])
    assert (taken.accepted, taken.corrected) == (1, 0)
    assert len(world.review()) == 2


def test_a_correction_to_the_same_key_is_an_accept(make: Make) -> None:
    """Where keys are compared without case, a term that is corrected in its case alone is the same key."""
    world = make(
        {"thing": ["mRNA"], "term": ["Jab"]}, **(CHECK | {"input": CHECK["input"] | {"normalize": ["casefold"]}})
    )
    world.answer(lambda row: scores(0.9))
    taken = world.judge([world.review()[0] | {"corrected": "jab"}])
    assert (taken.accepted, taken.corrected) == (1, 0)


def test_no_check_looks_like_a_number(make: Make) -> None:
    """A check has letters only, since spreadsheets write what looks like a number in another way."""
    world = make({"id": [f"{n}" for n in range(300)], "text": ["x"] * 300})
    world.answer(echo)
    assert all(row["check"].isalpha() and len(row["check"]) == 16 for row in world.review())


def test_terms_that_are_corrected_alike_are_one(make: Make) -> None:
    """Several terms that are corrected to one, or to one that is accepted in the same file, make one accept of it."""
    world = make({"thing": ["mRNA"] * 3, "term": ["jabs", "jabz", "jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    rows = world.review()
    said = {"jabs": ("correct", "jab"), "jabz": ("correct", "jab"), "jab": ("accept", "")}
    taken = world.judge([row | dict(zip(("verdict", "corrected"), said[row["term"]], strict=True)) for row in rows])
    assert (taken.accepted, taken.corrected) == (1, 2)
    assert [(json.loads(query)["term"], verdict) for query, verdict, *_ in stored(world)] == [
        ("jab", "accept"), ("jabs", "correct"), ("jabz", "correct"),
    ]  # fmt: skip
    world.publish()
    with world.served() as snapshot:
        assert [match.text for match in snapshot.matcher.find("jab jabs jabz")] == ["jab"]


def test_key_columns_may_bear_our_names(make: Make) -> None:
    """Key columns that are called as ours are come back under another name, and are found again."""
    world = make(
        {"value": ["a"], "check": ["b"], "text": ["x"]}, input={"path": "queries.parquet", "key": ["value", "check"]}
    )
    world.answer(echo)
    [row] = world.review()
    assert (row["key_value"], row["key_check"], row["value"]) == ("a", "b", "about x")
    assert world.judge([row | {"verdict": "accept"}]).no_longer_proposed == 0
    assert world.review() == []


@pytest.mark.parametrize("name", ["lookup", "Lookup_hash", "prompt_key"])
def test_key_columns_may_bear_the_names_of_scratch_columns(make: Make, name: str) -> None:
    """What the plan calls its own columns is free for the list's: a person sees the key, and it is found again."""
    world = make({name: ["a"], "text": ["x"]}, input={"path": "queries.parquet", "key": [name]})
    world.answer(echo)
    [row] = world.review()
    assert row[name] == "a"
    assert world.judge([row | {"verdict": "accept"}]).no_longer_proposed == 0
    assert world.review() == []


# What is refused, or imported although it is old


def refused(world: World, rows: list[dict[str, str]]) -> str:
    with pytest.raises(InputError) as raised:
        world.judge(rows)
    assert stored(world) == []
    assert str(raised.value).startswith(f"{world.review_path} is refused: ")
    assert str(raised.value).endswith(". Nothing was imported.")
    return str(raised.value).removeprefix(f"{world.review_path} is refused: ").removesuffix(". Nothing was imported.")


CHANGED = (
    "the key or the value was changed since the review was made: put these cells back as batchinfer review wrote them"
)


@pytest.mark.parametrize("column", ["id", "value", "check"])
def test_a_row_that_was_altered_is_refused(make: Make, column: str) -> None:
    """A key, value or check that is not what was written is noticed, with its line: the header is line 1."""
    world = make()
    world.answer(echo)
    rows = [row | {"verdict": "accept"} for row in world.review()]
    rows[1][column] = "zzz"
    assert refused(world, rows) == f"line 3: {CHANGED}"


def test_two_verdicts_for_one_value_are_refused(make: Make) -> None:
    """One value cannot be judged twice in a file, not even alike."""
    world = make()
    world.answer(echo)
    rows = [row | {"verdict": "accept"} for row in world.review()]
    assert refused(world, [*rows, rows[0] | {"verdict": "reject"}]) == (
        'line 2 and line 5: two verdicts for one value of {"id": "a"}'
    )


def test_a_term_that_is_rejected_and_corrected_to_is_refused(make: Make) -> None:
    """In a checking job a correction accepts the new term, which another row may not reject."""
    world = make({"thing": ["mRNA"] * 2, "term": ["jabs", "jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    rows = {row["term"]: row for row in world.review()}
    said = refused(world, [rows["jabs"] | {"corrected": "jab"}, rows["jab"] | {"verdict": "reject"}])
    assert said == 'line 2 and line 3: two verdicts for one value of {"thing": "mRNA", "term": "jab"}'


def test_two_corrections_of_a_key_are_refused(make: Make) -> None:
    """Rows of two reviews put together may judge two values of a key, but not give it two others, nor what they reject."""
    world = make({"id": ["a"], "text": ["x"]})
    world.answer(echo)
    [first] = world.review()
    world.answer(lambda row: "news", refresh=True)
    [second] = world.review()
    assert refused(world, [first | {"corrected": "one"}, second | {"corrected": "two"}]) == (
        'line 2 and line 3: two corrected values of {"id": "a"}'
    )
    assert refused(world, [first | {"verdict": "reject"}, second | {"corrected": "about x"}]) == (
        'line 3 and line 2: one row gives the value that the other rejects of {"id": "a"}'
    )
    assert world.judge([first | {"verdict": "reject"}, second | {"verdict": "reject"}]).rejected == 2


def test_a_review_of_another_job_is_refused(make: Make) -> None:
    """A file that was made for another job is refused, though nothing in it is judged."""
    world = make()
    world.answer(echo)
    rows = [row | {"job": "store"} for row in world.review()]
    assert refused(world, rows) == "; ".join(
        f"line {n}: it was made for the job store, not for shop" for n in (2, 3, 4)
    )
    elsewhere = [{("sku" if name == "id" else name): cell for name, cell in row.items()} for row in rows]
    assert refused(world, elsewhere).startswith("line 2: it was made for the job store")  # and not that a column lacks


WRONG = [
    pytest.param({}, {"verdict": "ok"}, "the verdict is ok, but should be accept, reject or correct", id="unknown word"),
    pytest.param({}, {"verdict": "correct"}, "the verdict is correct, but there is no corrected value", id="no value"),
    pytest.param(
        {}, {"verdict": "reject", "corrected": "x"},
        "the verdict is reject, but there is a corrected value: say correct, or clear it", id="reject with a value",
    ),
    pytest.param({"output": CHOICE}, {"corrected": "Maybe"}, "the corrected value is Maybe, not one of Yes, No", id="choice"),
    pytest.param(
        {"output": {"type": "regex", "pattern": "[ay].*"}}, {"corrected": "7"},
        "the corrected value is '7', which does not match output.pattern", id="pattern",
    ),
    pytest.param(
        {"output": {"type": "text", "steps": ["casefold"]}}, {"corrected": "Tea"},
        'the corrected value is not as output.steps leave it: they make "tea" of it', id="steps",
    ),
    pytest.param({"output": NAMES}, {"corrected": "x"}, "the corrected value should be JSON, but is 'x'", id="no JSON"),
    pytest.param(
        {"output": NAMES}, {"corrected": '{"name": []}'},
        "the corrected value breaks the schema at the whole: 'names' is a required property", id="schema",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "marked", "said"), WRONG)
def test_a_verdict_that_cannot_be_is_refused(
    make: Make, sections: dict[str, Any], marked: dict[str, str], said: str
) -> None:
    """Unknown words, and corrected values that the job could not have given, are refused with their line."""
    world = make(**sections)
    kind = world.job.spec.output.type
    replies: dict[str, Any] = {"choice": scores(0.9), "json": '{"names": ["x"]}', "text": "about", "regex": "about"}
    world.answer(lambda row: replies[kind])
    rows = world.review()
    assert refused(world, [rows[0], rows[1] | marked]).startswith(f"line 3: {said}")


def test_an_empty_term_is_no_correction(make: Make) -> None:
    """In a checking job a corrected term is a text that is not empty."""
    world = make({"thing": ["mRNA"], "term": ["jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    [row] = world.review()
    assert "there is no corrected value" in refused(world, [row | {"verdict": "correct", "corrected": "  "}])


def test_many_faults_are_counted(make: Make) -> None:
    """The first several faults are named, and how many more there are."""
    world = make({"id": [f"{n:02}" for n in range(12)], "text": ["x"] * 12})
    world.answer(echo)
    said = refused(world, [row | {"verdict": "ok"} for row in world.review()])
    assert (said.count("line "), said.endswith("; and 7 more")) == (5, True)


def test_lines_are_those_of_the_file(make: Make) -> None:
    """A row begins at the line that an editor shows, also behind values of several lines and empty lines."""
    world = make({"id": ["a", "b"], "text": ["one\ntwo\nthree", "y"]})
    world.answer(echo)
    rows = world.review()
    with world.review_path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerow(rows[0])
        file.write("\r\n")
        writer.writerow(rows[1] | {"verdict": "ok"})
    with pytest.raises(InputError, match="line 8: the verdict is ok"):
        ingest.import_review(world.job, world.data, world.review_path, None, Options())


def test_a_file_without_its_columns_is_refused(make: Make) -> None:
    """A review that lost a column is refused with the column's name."""
    world = make()
    world.answer(echo)
    rows = [{name: cell for name, cell in row.items() if name != "value"} for row in world.review()]
    with pytest.raises(InputError, match="has no column value: make it again with batchinfer review"):
        world.judge(rows)


def test_an_older_review_is_accepted(make: Make) -> None:
    """Verdicts on what is no longer proposed are stored and counted, and hold should it ever be proposed again."""
    world = make()
    world.answer(echo)
    old = [row | {"verdict": "reject"} for row in world.review()]
    world.publish()
    world.rows({"id": ["a", "b"], "text": ["x", "y"]})
    world.answer(lambda row: "news" if row["id"] == "a" else echo(row), refresh=True)
    taken = world.judge(old)
    assert (taken.rejected, taken.no_longer_proposed) == (3, 2)
    world.answer(echo, refresh=True)
    world.rows(LIST)
    assert world.review() == []


def test_a_review_may_be_imported_again(make: Make) -> None:
    """The same file once more says the same; what it rejected is still what the model proposes."""
    world = make()
    world.answer(echo)
    rows = [row | {"verdict": "reject" if row["id"] == "a" else "accept"} for row in world.review()]
    assert world.judge(rows).no_longer_proposed == world.judge(rows).no_longer_proposed == 0


def test_a_review_is_known_by_its_columns(make: Make, tmp_path: Path) -> None:
    """Only a CSV or Parquet file with a column verdict, check or corrected is a review; what cannot be read is none."""
    plain = write(tmp_path / "plain.parquet", {"id": ["a"], "prediction": ["x"]})
    (tmp_path / "plain.csv").write_text("id;prediction\na;verdict,check\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    world = make()
    for path in (
        plain,
        tmp_path / "plain.csv",
        tmp_path / "bad.csv",
        tmp_path / "bad.parquet",
        tmp_path,
        tmp_path / "no.csv",
    ):
        assert not ingest.is_review(path, world.job.spec)
    world.review()
    assert ingest.is_review(world.review_path, world.job.spec)


def test_many_rows_fit_into_little_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of many long values is written and imported within a small limit of memory."""
    monkeypatch.setattr(database, "SCRATCH_MEMORY", "64MB")
    count = 40_000
    world = make({"id": pa.array(range(count)), "text": ["x"] * count}, prompt={"template": "{{ id }}"})
    world.answer(lambda row: f"{row['id']} " + "long " * 200)
    rows = world.review()
    assert len(rows) == count
    assert world.judge([row | {"verdict": "accept"} for row in rows]).accepted == count
    assert world.review() == []


# The command line


def call(world: World, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["--home", str(world.data.root), *words], catch_exceptions=True)
    return result.exit_code, " ".join(result.output.split())


def test_the_commands(make: Make) -> None:
    """Review, mark, import and publish, as a person goes through them; --json says the same for machines."""
    world = make()
    world.answer(echo)
    job, file = str(world.job.folder), str(world.review_path)
    code, said = call(world, "review", job, "--out", file)
    assert (code, said.split(": ")[0]) == (0, f"Wrote 3 rows to {file}")
    assert call(world, "import", job, file) == (0, "No row has a verdict (3 not judged): nothing was imported.")
    rows = world.review()
    with world.review_path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0] | {"verdict": "accept"}, rows[1] | {"corrected": "by Ann"}, rows[2]])
    code, said = call(world, "import", job, file, "--author", "Ann")
    counts = "1 accepted, 0 rejected, 1 corrected, 1 not judged, 0 no longer proposed"
    assert (code, said) == (0, f"Import 1: {counts}. batchinfer publish {job} makes a version with it.")
    code, said = call(world, "import", job, "--list", "--json")
    [listed] = json.loads(said)
    assert {name: listed[name] for name in ("kind", "rows", "accepted", "corrected", "author")} == {
        "kind": "review", "rows": 2, "accepted": 1, "corrected": 1, "author": "Ann",
    }  # fmt: skip
    code, said = call(world, "review", job, "--out", file, "--where", "id=c", "--json")
    assert json.loads(said) == {"job": "shop", "file": file, "rows": 1, "new": 1, "changed": 0}
    _, said = call(world, "review", job, "--out", file, "--where", "id=a")
    assert said == f"There is nothing to review; {file} holds the header only."
    assert "plain" not in call(world, "import", job, "--list")[1]


def test_another_list_goes_with_imports(make: Make, tmp_path: Path) -> None:
    """--input names the list that a review was made with, or that the keys of predictions are compared with."""
    world = make()
    other = write(tmp_path / "other.parquet", {"id": ["q"], "text": ["w"]})
    world.answer(echo, input=other)
    job, file = str(world.job.folder), str(world.review_path)
    assert call(world, "review", job, "--out", file, "--input", str(other))[1].startswith("Wrote 1 row to")
    rows = list(csv.DictReader(world.review_path.read_text(encoding="utf-8-sig").splitlines()))
    with world.review_path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0] | {"verdict": "accept"}])
    _, said = call(world, "import", job, file, "--input", str(other), "--json")
    assert (json.loads(said)["accepted"], json.loads(said)["no_longer_proposed"]) == (1, 0)
    plain = write(tmp_path / "plain.parquet", {"id": ["q"], "prediction": ["x"]})
    words = ["--home", str(world.data.root), "import", job]
    result = CliRunner().invoke(cli, [*words, str(plain)])
    assert "1 key that the list does not have" in str(result.exception)
    assert CliRunner().invoke(cli, [*words, str(plain), "--input", str(other)]).exit_code == 0
    result = CliRunner().invoke(cli, [*words, file, "--allow", "keys"])
    assert "--allow goes with predictions" in str(result.exception)


def test_a_review_is_never_taken_for_predictions(make: Make, tmp_path: Path) -> None:
    """A marked review of a checking job has a column prediction, but is no import: not without a column, nor among others."""
    world = make({"thing": ["mRNA"], "term": ["jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    [row] = world.review()
    folder = tmp_path / "marked"
    folder.mkdir()
    for column in ("check", "verdict"):
        left = {name: cell for name, cell in (row | {"verdict": "reject"}).items() if name != column}
        path = folder / "marked.csv"
        path.write_text(f"{','.join(left)}\n{','.join(left.values())}\n", encoding="utf-8")
        result = CliRunner().invoke(cli, ["--home", str(world.data.root), "import", str(world.job.folder), str(path)])
        assert isinstance(result.exception, InputError)
        assert f"so it is a review, but it has no column {column}" in str(result.exception)
        with pytest.raises(InputError, match="reviews are imported one file at a time"):
            predictions.import_predictions(world.job, world.data, folder / "*.csv", None)
    assert stored(world) == []


def test_headers_may_be_in_another_case(make: Make) -> None:
    """What a person made of the headers' case does not matter; the same column twice does."""
    world = make()
    world.answer(echo)
    rows = [{name.title(): cell for name, cell in row.items()} for row in world.review()]
    assert world.judge([row | {"Verdict": "reject"} for row in rows]).rejected == 3
    with pytest.raises(InputError, match="has the column verdict more than once"):
        world.judge([row | {"verdict": "accept"} for row in rows])


def test_cells_that_a_spreadsheet_leaves_out_are_blank(make: Make) -> None:
    """The check is the last column, so that no cell before it is lost; rows that are not judged may lack even that."""
    world = make()
    world.answer(echo)
    rows = world.review()
    assert list(rows[0])[-1] == "check"
    lines = [",".join(rows[0]), ",".join((rows[0] | {"verdict": "accept"}).values()), "shop,0,b", "," * 3]
    world.review_path.write_text("\n".join(lines), encoding="utf-8")
    taken = ingest.import_review(world.job, world.data, world.review_path, None, Options())
    assert (taken.accepted, taken.not_judged) == (1, 1)


@pytest.mark.parametrize("cell", ["value", "corrected"])
def test_a_cell_that_nests_too_deeply_is_refused(make: Make, cell: str) -> None:
    """A hundred thousand brackets are a fault of the row, not of the program."""
    world = make(output=NAMES)
    world.answer(lambda row: '{"names": ["x"]}')
    rows = [row | {"verdict": "correct", cell: "[" * 100_000} for row in world.review()[:1]]
    assert refused(world, rows).startswith("line 2: the ")


def test_a_foreign_jobs_name_is_shortened(make: Make) -> None:
    """Whatever stands in the column job, the sentence that refuses it stays one."""
    world = make()
    world.answer(echo)
    assert len(refused(world, [world.review()[0] | {"job": "x" * 10_000}])) < 200


def test_a_job_whose_concept_is_predicted_is_no_checking_job(make: Make) -> None:
    """A job that says what a term names has its predictions judged, not its terms."""
    world = make({"term": ["jab"]}, input={"path": "queries.parquet", "key": ["term"]}, prompt={"template": "{{ term }}"},
                 match={"terms": ["term"], "concept": "prediction"})  # fmt: skip
    world.answer(lambda row: "mRNA")
    [row] = world.review()
    assert row["value"] == "mRNA"
    assert "prediction" not in row


def test_terms_that_match_alike_are_counted_together(make: Make) -> None:
    """How many things a term names is counted over all spellings that matching takes for one."""
    world = make({"thing": ["mRNA", "Covaxin"], "term": ["Strasse\u2010jab", "straße-JAB"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    assert [row["concepts"] for row in world.review()] == ["2", "2"]


def test_a_review_of_terms_says_what_accept_means(make: Make) -> None:
    """In a checking job the command says that it is the term that is judged; elsewhere it does not."""
    world = make({"thing": ["mRNA"], "term": ["jab"]}, **CHECK)
    world.answer(lambda row: scores(0.3))
    job, file = str(world.job.folder), str(world.review_path)
    assert (
        "accept means that the term is right, also where the prediction is No"
        in call(world, "review", job, "--out", file)[1]
    )
    world = world.changed(match=None)
    assert "accept means" not in call(world, "review", job, "--out", file)[1]
