"""Columns of the list with further names of what a row is about: terms of every language, wherever versions come from or go to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile
from batchinfer.core.person import Nobody
from batchinfer.errors import BatchinferError, GateFailed, UsageError
from batchinfer.job import reader
from batchinfer.maintenance import erase
from batchinfer.maintenance.repair import repair
from batchinfer.match.names import Name
from batchinfer.pipeline import export
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.publish import publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.publish import diff, matcher
from batchinfer.versions import folders, replication
from batchinfer.versions.layout import PREDICTIONS
from batchinfer.versions.pointers import open_served
from tests.factories import LENIENT, Quiet, Templates, World, imports_job, unchecked

MATCH = {
    "terms": ["prediction"], "concept": "name", "language": "language", "everywhere": ["name", "aliases"], "min_score": 0.5,
}  # fmt: skip
ROWS = {"name": ["Ann", "Ben", "Ben"], "language": ["en", "en", "de"]}
GIVEN = ROWS | {"prediction": ["alpha", "beta", "gamma"], "score": [0.9, 0.1, 0.9]}


ALIASES = (["Annie"], ["Benny", "Benjamin"], None)


def job(folder: Path, aliases: Any = ALIASES, **sections: Any) -> World:
    """A published job of two concepts, one of them in two languages."""
    settings = {"input": {"path": "queries.parquet", "key": ["name", "language"]}, "match": MATCH, "gate": LENIENT}
    world = imports_job(folder, ROWS | {"aliases": aliases}, **(settings | sections))
    world.take_in(GIVEN)
    return world


def published(folder: Path) -> World:
    world = job(folder)
    world.publish()
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """A copy of `published`."""
    return templates.world(published, tmp_path)


def names(data: JobData, text: str, languages: Sequence[str] = ()) -> list[Name]:
    """All that the served version finds."""
    with open_served(data) as version:
        version.verify()
        return [name for place in version.matcher.find(text, languages=languages) for name in place.names]


def concepts(world: World, text: str, languages: Sequence[str] = ()) -> list[tuple[str, str]]:
    return [(name.concept, name.term) for name in names(world.data, text, languages)]


def test_an_alias_holds_in_every_language(world: World) -> None:
    """Whatever `min_score` leaves out, without a score; it is the concept's, not the row's."""
    found = [("Ann", "Annie"), ("Ben", "Benny"), ("Ben", "Benjamin"), ("Ben", "Ben")]
    for languages in ([], ["de"], ["ja"]):
        assert concepts(world, "annie BENNY benjamin Ben", languages) == found
    assert concepts(world, "alpha beta gamma") == [("Ann", "alpha"), ("Ben", "gamma")]
    [name] = names(world.data, "Benny")
    assert (name.language, name.score, name.source) == (None, None, "list")


@pytest.mark.long
def test_a_changed_alias_is_a_new_version(world: World) -> None:
    """Though no prediction differs; equal ones are no news."""
    assert world.publish().version is None
    world.rows(ROWS | {"aliases": [["Anna"], ["Benny", "Benjamin"], None]})
    report = world.publish()
    assert (report.version, str(report.changes)) == (2, "+0 −0 ~0")
    assert diff.compare(world.data, [], None, 3).count == 0
    world.rows(ROWS | {"aliases": pa.nulls(3)})
    assert world.publish().version == 3
    assert concepts(world, "Annie Anna Benny") == []


def test_without_such_a_column_nothing_is_added(tmp_path: Path) -> None:
    """A version has a column of aliases only where the job names some in the list."""
    plain = job(tmp_path, match=MATCH | {"everywhere": ["name"]})
    plain.publish()
    with plain.served() as version:
        assert "aliases" not in pq.read_schema(version.folder / PREDICTIONS).names
    assert concepts(plain, "Annie Ann") == [("Ann", "Ann")]


@pytest.mark.long
def test_a_forgotten_alias_is_gone(world: World) -> None:
    """It leaves the version that is built again with its row; the other row's stay."""
    erase.erase_entry(world.job, world.data, {"name": "Ann", "language": "en"})
    assert concepts(world, "Annie Benny") == [("Ben", "Benny")]
    erase.erase_entry(world.job, world.data, {"name": "Ben", "language": "en"})
    assert concepts(world, "Benny Ben") == [("Ben", "Ben")]
    assert not [path for path in world.data.folder.rglob("*") if path.is_file() and b"Benjamin" in path.read_bytes()]


@pytest.mark.long
def test_what_is_kept_has_the_list_s_aliases(world: World) -> None:
    """An entry that is carried from the version before has them as the list has them now."""
    asking = world.changed(prompt={"template": "{{ name }}"}, model={"id": "./model"})
    model = world.job.folder / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "none"}', encoding="utf-8")
    rows = {"name": ["Ann", "Dan"], "language": ["en", "en"], "aliases": [["Nan"], ["Danny"]]}
    asking.rows(rows)
    asking.answer(lambda row: "delta")
    asking.publish()
    assert concepts(asking, "Nan Danny Dan") == [("Ann", "Nan"), ("Dan", "Danny"), ("Dan", "Dan")]
    changed = asking.changed(sampling={"max_tokens": 9}, gate=LENIENT | {"carried": 1.0})
    changed.rows(rows | {"aliases": [["Nan"], ["Daniel"]]})
    assert changed.publish().carried == 1
    assert concepts(changed, "Danny Daniel") == [("Dan", "Daniel")]


@pytest.mark.long
def test_a_candidate_has_its_aliases(world: World) -> None:
    """One that was refused is published with those that it holds, unless the job names other columns by now."""
    strict = world.changed(gate=LENIENT | {"changed": 0.0})
    strict.rows(ROWS | {"aliases": [["Nan"], None, None], "more": ["Nancy", "", None]})
    strict.take_in({"name": ["Ann"], "language": ["en"], "prediction": ["delta"], "score": [0.9]})
    with pytest.raises(GateFailed):
        strict.publish()
    [candidate] = folders.candidates(world.data)
    other = strict.changed(match=MATCH | {"everywhere": ["name", "more"]})
    said = "its set of columns with aliases is aliases, the job's is more"
    with pytest.raises(UsageError, match=said):
        publish_candidate(other.job, other.data, Options(), Quiet(), candidate, "they are right")
    strict = other.changed(match=MATCH)
    assert publish_candidate(strict.job, strict.data, Options(), Quiet(), candidate, "they are right").version == 2
    assert concepts(strict, "Annie Nan delta") == [("Ann", "Nan"), ("Ann", "delta")]


@pytest.mark.long
def test_a_copy_and_an_export_go_on(world: World, tmp_path: Path) -> None:
    """A replica finds them, an export has the list's column, and a cache that is made again leaves all as it was."""
    (tmp_path / "elsewhere").mkdir()
    replication.replicate(world.data, tmp_path / "elsewhere", lambda _: None)
    assert [name.term for name in names(JobData(tmp_path / "elsewhere", "shop"), "Benny")] == ["Benny"]
    out = tmp_path / "answers.jsonl"
    export.export(world.job, world.data, Options(), OutputFile.of(out))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["aliases"] for row in rows] == [["Annie"], ["Benny", "Benjamin"], None]
    world.data.cache.unlink()
    assert repair(world.data, Nobody(), yes=True).to_json()["repaired"]
    assert world.publish().version is None
    assert concepts(world, "Benny") == [("Ben", "Benny")]


def test_a_text_is_one_alias_and_columns_add_up(tmp_path: Path) -> None:
    """A column may hold texts or lists of them; of rows with one key the first that has some counts; empty ones are left out."""
    rows = {
        "name": ["Ann", "Ann", "Ben"], "language": ["en"] * 3, "aliases": [None, ["Annie", "", None], []],
        "nick": ["", "Nan", "  "],
    }  # fmt: skip
    world = job(tmp_path, match=MATCH | {"everywhere": ["aliases", "nick"]})
    world.rows(rows)
    world.publish()
    assert concepts(world, "Annie Nan Ann Ben") == [("Ann", "Annie"), ("Ann", "Nan")]


def test_a_key_column_may_have_the_name(tmp_path: Path) -> None:
    """A key column called aliases is a part as any other, and the file's own column is called otherwise."""
    key = ["aliases", "language"]
    match = MATCH | {"concept": "aliases", "everywhere": ["aliases", "list_aliases"]}
    rows = {"aliases": ["Ann"], "language": ["en"], "list_aliases": [["Annie"]]}
    world = imports_job(tmp_path, rows, input={"path": "queries.parquet", "key": key}, match=match, gate=LENIENT)
    world.take_in({"aliases": ["Ann"], "language": ["en"], "prediction": ["alpha"], "score": [0.9]})
    world.publish()
    assert concepts(world, "Ann Annie") == [("Ann", "Ann"), ("Ann", "Annie")]
    assert world.publish().version is None


@pytest.mark.long
def test_long_aliases(tmp_path: Path) -> None:
    """Thousands of them in a row are found; one that no text can have is left out, and said; none of it is news again."""
    many = [f"alias number {number}" for number in range(2000)]
    world = job(tmp_path, [[*many, "x" * (matcher.LONGEST_TERM + 1)], ["Benny"], None])
    report = world.publish()
    assert report.match is not None
    assert "1 term that is too long" in report.match.message
    assert concepts(world, "Alias number 1999, Benny") == [("Ann", "alias number 1999"), ("Ben", "Benny")]
    assert world.publish().version is None


def test_aliases_are_carried_in_a_chain(tmp_path: Path) -> None:
    """A nested column of the upstream's list is carried as JSON, and read as the list that it is."""
    world = published(tmp_path)
    place = world.job.folder.parent / "check"
    place.mkdir()
    content = {
        "name": "check", "gate": LENIENT,
        "input": {"job": "shop", "carry": ["aliases"], "key": ["name", "language"]},
        "match": MATCH | {"everywhere": ["name", "aliases"]},
    }  # fmt: skip
    (place / "job.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    check = World(reader.load(str(place), {}), JobData(world.data.root, "check"))
    check.take_in({"name": ["Ann"], "language": ["en"], "prediction": ["sure"], "score": [0.9]})
    check.publish()
    assert concepts(check, "annie, Benny: sure", ["fr"]) == [("Ann", "Annie"), ("Ben", "Benny")]
    assert concepts(check, "sure") == [("Ann", "sure")]


BAD: dict[str, tuple[Any, str]] = {
    "numbers": ([[1], [2], [3]], "row 1: the column aliases holds [1], which is neither a text nor a list of texts"),
    "number": ([7, 8, 9], "row 1: the column aliases holds 7, which is neither a text nor a list of texts"),
    "lists of lists": ([None, [["a"]], None], "row 2: the column aliases holds"),
    "mappings": ([{"de": "a"}] * 3, "row 1: the column aliases holds"),
    "no UTF-8": (unchecked([b"a", b"\xff", b"c"], pa.string()), "row 2: the column aliases is not valid UTF-8 at byte 0."),
    "half a pair": (unchecked([b"a", b"\xed\xa0\x80", b"c"], pa.string()), "row 2: the column aliases is not valid UTF-8"),
    "lists of no UTF-8": (
        pa.ListArray.from_arrays([0, 1, 2, 3], unchecked([b"a", b"b", b"\xff"], pa.string())),
        "row 3: the column aliases holds text that is not valid UTF-8.",
    ),
    "too long": (["x" * (1 << 24) + "y", "b", "c"], "row 1: the column aliases holds 16.0 MB of text"),
}  # fmt: skip


@pytest.mark.parametrize(("aliases", "said"), BAD.values(), ids=list(BAD))
def test_what_is_no_text_is_refused(tmp_path: Path, aliases: Any, said: str) -> None:
    """Before anything is asked or published, with the file, the row and the line of the job file."""
    world = job(tmp_path, aliases)
    with pytest.raises(
        BatchinferError, match=r"job\.yaml: line \d+: match\.everywhere\.1: queries\.parquet, "
    ) as refused:
        plan(world.job, world.data, Options())
    assert f"queries.parquet, {said}" in str(refused.value)
    assert not world.data.versions.exists()


@pytest.mark.parametrize(("name", "hint"), [("aliase", "did you mean aliases?"), ("nam", "did you mean name?")])
def test_a_column_that_is_not_there(tmp_path: Path, name: str, hint: str) -> None:
    """Whatever it was meant to be, the sentence names the line and what is like it."""
    world = job(tmp_path, match=MATCH | {"everywhere": ["name", name]})
    with pytest.raises(BatchinferError, match=rf"match\.everywhere\.1: queries\.parquet has no column {name}: {hint}"):
        world.publish()
