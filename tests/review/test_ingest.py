"""A review that people marked comes back: through spreadsheets, with its authors, corrections and odd names."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.core import memory
from batchinfer.errors import InputError
from batchinfer.planning.prepare import Options
from batchinfer.review import ingest
from tests.factories import write
from tests.review.lists import CHECK, LIST, NAMES, Make, echo, scores, stored

HOSTILE = [
    "plain", 'say "hi"', "a,b;c", "line\nbreak", "line\r\nbreak", "=1+1", "+49", "-5", "@cmd", "\ttab", "'=quoted", "''-x",
    "'tis", "שלום", "مرحبا \u202eabc", "👩🏽‍🚀", "\ufeffbom", " space ", "007", "1-2", "TRUE", "日本語", "e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("sign", [",", ";"])
@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""], ids=["BOM", "no BOM"])
@pytest.mark.long
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


@pytest.mark.long
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
@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_many_rows_fit_into_little_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of many long values is written and imported within a small limit of memory."""
    monkeypatch.setenv(memory.VARIABLE, "48MB")
    count = 5_000
    world = make({"id": pa.array(range(count)), "text": ["x"] * count}, prompt={"template": "{{ id }}"})
    world.answer(lambda row: f"{row['id']} " + "long " * 800)
    rows = world.review()
    assert len(rows) == count
    assert world.judge([row | {"verdict": "accept"} for row in rows]).accepted == count
    assert world.review() == []


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
