"""diff: what was added, removed and changed between versions and candidates."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.core.output import OutputFile
from batchinfer.errors import GateFailed, NotFound, StoreError, UsageError
from batchinfer.publish import diff
from batchinfer.versions import pointers
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import PREDICTIONS
from tests.factories import LENIENT, Templates, World, imports_job, model_job
from tests.tiny import Cli


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, with the data folder of `two`."""
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys, tmp_path / "home")


def published_twice(folder: Path) -> World:
    """A job with two versions: of the keys 1, 2 and 3, and of 2, 3 and 4, where 3 is answered otherwise."""
    world = imports_job(folder, {"id": [1, 2, 3]}, gate=LENIENT)
    world.take_in({"id": [1, 2, 3], "prediction": ["one", "two", "three"], "score": [0.1, 0.2, 0.3]})
    world.publish()
    world.rows({"id": [2, 3, 4]})
    world.take_in({"id": [3, 4], "prediction": ["drei", "vier"], "score": [0.9, 0.4]})
    with world.store.open(write=True) as db:
        db.execute("DELETE FROM imports WHERE query LIKE '%: 1}'")
    assert world.publish().version == 2
    return world


@pytest.fixture
def two(templates: Templates, tmp_path: Path) -> World:
    """`published_twice`."""
    return templates.world(published_twice, tmp_path)


def test_without_versions_the_last_publish_is_shown(two: World, batchinfer: Cli) -> None:
    """The command counts what the served version changed against the one before it."""
    assert batchinfer("diff", "shop", "--json").json == {
        "job": "shop", "from": 1, "to": 2, "added": 1, "removed": 1, "changed": 1,
    }  # fmt: skip


def test_the_other_way_round(two: World, batchinfer: Cli) -> None:
    """What was added in one direction was removed in the other, and current is what is served."""
    found = batchinfer("diff", "shop", "current", "1", "--json").json
    assert (found["from"], found["to"], found["added"], found["removed"], found["changed"]) == (2, 1, 1, 1, 1)
    pointers.pin(two.data, 1)
    assert batchinfer("diff", "shop", "current", "2", "--json").json["from"] == 1


def test_a_version_and_itself_do_not_differ(two: World, batchinfer: Cli) -> None:
    """A version compared with itself has no differences, and no table is shown."""
    done = batchinfer("diff", "shop", "2", "2")
    assert (done.code, done.out) == (0, "From version 2 to version 2: 0 added, 0 removed, 0 changed.\n")


def test_the_table_shows_old_and_new(two: World, batchinfer: Cli) -> None:
    """People see each key with its change and both values."""
    lines = [line.split() for line in batchinfer("diff", "shop").out.splitlines()]
    assert ["4", "added", "vier"] in lines
    assert ["3", "changed", "three", "drei"] in lines
    assert ["1", "removed", "one"] in lines


def test_long_tables_and_cells_are_cut(tmp_path: Path, batchinfer: Cli) -> None:
    """At most 20 rows are shown, wide values shortened, and it is said how many more there are."""
    keys = list(range(30))
    world = imports_job(tmp_path, {"id": keys}, gate=LENIENT)
    for text in ("a", "b" * 500):
        world.take_in({"id": keys, "prediction": [text] * 30})
        world.publish()
    out = batchinfer("diff", "shop").out
    assert out.count("changed") == 21  # with the sentence
    assert "10 more are not shown" in out
    assert "b" * 59 + "…" in out.replace("\n", "")
    assert "b" * 60 not in out


def test_all_of_it_as_parquet(two: World, batchinfer: Cli, tmp_path: Path) -> None:
    """--out writes every difference with typed keys, both values, scores and sources."""
    out = tmp_path / "diff.parquet"
    assert batchinfer("diff", "shop", "--out", out).code == 0
    rows = pq.read_table(out).to_pylist()
    assert {row["id"]: row for row in rows} == {
        4: _row(4, "added", new=("vier", 0.4)),
        3: _row(3, "changed", old=("three", 0.3), new=("drei", 0.9)),
        1: _row(1, "removed", old=("one", 0.1)),
    }


def _row(key: int, change: str, old: tuple[str, float] | None = None, new: tuple[str, float] | None = None) -> Any:
    (old_value, old_score), (new_value, new_score) = old or (None, None), new or (None, None)
    return {
        "id": key, "change": change, "old": old_value, "new": new_value, "old_score": old_score, "new_score": new_score,
        "old_source": old and "import", "new_source": new and "import",
    }  # fmt: skip


def test_key_columns_keep_their_types_and_make_way(tmp_path: Path) -> None:
    """A key column named like one of the file's own gets key_ before its name; dates stay dates."""
    day = date(2026, 1, 31)
    world = imports_job(
        tmp_path, {"old": ["a"], "day": [day]}, input={"path": "queries.parquet", "key": ["old", "day"]}
    )
    for text in ("x", "y"):
        world.take_in({"old": ["a"], "day": [day], "prediction": [text]})
        world.changed(gate=LENIENT).publish()
    out = tmp_path / "diff.parquet"
    diff.compare(world.data, [], OutputFile.of(out), 20)
    [row] = pq.read_table(out).to_pylist()
    assert (row["key_old"], row["day"], row["old"], row["new"]) == ("a", day, "x", "y")


def json_job(tmp_path: Path) -> World:
    schema = {"type": "object"}
    return imports_job(tmp_path, {"id": [1, 2]}, output={"type": "json", "schema": schema}, gate=LENIENT)


def test_json_is_compared_by_value(tmp_path: Path) -> None:
    """Two JSON texts of one value are no change; other values are."""
    world = json_job(tmp_path)
    world.take_in({"id": [1, 2], "prediction": ['{"a": 1, "b": [1, 2]}', '{"a": 1}']})
    world.publish()
    world.take_in({"id": [1, 2], "prediction": ['{"b": [1, 2],  "a": 1}', '{"a": 2}']})
    world.publish()
    found = diff.compare(world.data, [], None, 20)
    assert (found.added, found.removed, found.changed) == (0, 0, 1)
    assert found.first[0][0] == 2


def test_text_against_json(tmp_path: Path) -> None:
    """A text and a JSON text of the same letters are equal, though their versions hold them otherwise."""
    world = imports_job(tmp_path, {"id": [1, 2]}, gate=LENIENT)
    world.take_in({"id": [1, 2], "prediction": ["same", "2"]})
    world.publish()
    world = world.changed(output={"type": "json", "schema": {}})
    world.take_in({"id": [1, 2], "prediction": ['"same"', "2"]})
    world.publish()
    found = diff.compare(world.data, [], None, 20)
    assert [(key, old, new) for key, _, old, new in found.first] == [(2, '"2"', "2")]


def test_another_normalize_compares_by_the_keys(tmp_path: Path) -> None:
    """Versions that hash keys otherwise are still compared key by key."""
    world = imports_job(tmp_path, {"id": ["A"]}, gate=LENIENT)
    world.take_in({"id": ["A"], "prediction": ["x"]})
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})
    world.take_in({"id": ["A"], "prediction": ["y"]})
    with world.store.open(write=True) as db:
        db.execute("DELETE FROM imports WHERE import_id = 1")
    world.publish()
    found = diff.compare(world.data, [], None, 20)
    assert (found.added, found.removed, found.changed) == (0, 0, 1)


def test_a_candidate_is_compared(tmp_path: Path, batchinfer: Cli) -> None:
    """A candidate that the gate refused can be compared with what is served."""
    world = model_job(tmp_path, {"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: row["text"])
    world.publish()
    world.answer(lambda row: "new", refresh=True)
    with pytest.raises(GateFailed):
        world.publish()
    found = batchinfer("diff", "shop", "current", "r2", "--json").json
    assert (found["from"], found["to"], found["changed"]) == (1, "r2", 2)
    assert "no candidate r9: it has r2" in batchinfer("diff", "shop", "1", "r9").sentence


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["1"], 2, "Give both versions"),
        (["1", "2", "3"], 2, "Give both versions"),
        (["1", "seven"], 2, "seven is not a version"),
        (["1", "7"], 6, "has no version 7: it has 1, 2"),
    ],
)
def test_versions_that_cannot_be_meant(two: World, batchinfer: Cli, words: list[str], code: int, says: str) -> None:
    """A wrong number of versions, and one that is not there, is one sentence."""
    done = batchinfer("diff", "shop", *words)
    assert done.code == code
    assert says in done.sentence


def test_nothing_before_the_first_version(tmp_path: Path, batchinfer: Cli) -> None:
    """With a single version, or none, diff says that there is nothing to compare."""
    world = imports_job(tmp_path, {"id": [1]})
    world.take_in({"id": [1], "prediction": ["x"]})
    assert "no published version" in batchinfer("diff", str(world.job.path)).sentence
    world.publish()
    done = batchinfer("diff", "shop")
    assert (done.code, "no version before 1" in done.sentence) == (6, True)


def test_other_keys_are_refused(tmp_path: Path) -> None:
    """Versions that are looked up by other columns, or other kinds, cannot be compared."""
    world = imports_job(tmp_path, {"id": [1]}, gate=LENIENT)
    world.take_in({"id": [1], "prediction": ["x"]})
    world.publish()
    world.rows({"id": ["1"]})
    with world.store.open(write=True) as db:
        db.execute("DELETE FROM imports")
    world.take_in({"id": ["1"], "prediction": ["x"]})
    world.publish()
    with pytest.raises(UsageError, match=r"Version 1 is looked up by id \(integer\) and version 2 by id \(string\)"):
        diff.compare(world.data, [], None, 20)


Damage = Callable[[Path], object]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1nonsense")])
def test_a_damaged_version_is_said(two: World, damage: Damage) -> None:
    """A version whose Parquet file is gone or broken is one sentence; --out leaves no file behind."""
    damage(folder_of(two.data, 1) / PREDICTIONS)
    out = two.job.folder / "diff.parquet"
    with pytest.raises(StoreError, match=r"predictions.parquet of version 1 or version 2 is missing or damaged"):
        diff.compare(two.data, [], OutputFile.of(out), 20)
    assert not list(two.job.folder.glob("*diff*"))
    assert not list(two.job.folder.glob(".batchinfer*"))


def test_a_place_that_will_not_do(two: World, batchinfer: Cli, tmp_path: Path) -> None:
    """--out into a folder that does not exist, or onto a folder, is refused before anything is compared."""
    (tmp_path / "folder.parquet").mkdir()
    assert "does not exist: make it first" in batchinfer("diff", "shop", "--out", tmp_path / "none" / "x.csv").sentence
    assert "is not a file" in batchinfer("diff", "shop", "--out", tmp_path / "folder.parquet").sentence
    assert "--format goes with --out -" in batchinfer("diff", "shop", "--format", "csv").sentence


def test_text_files_have_the_same_differences(two: World, batchinfer: Cli) -> None:
    """As CSV and JSON Lines, and on standard output, the differences are those of the Parquet file."""
    folder = two.job.folder
    for ending in ("parquet", "csv", "jsonl"):
        assert batchinfer("diff", "shop", "--out", folder / f"diff.{ending}").code == 0
    rows = pq.read_table(folder / "diff.parquet").to_pylist()
    lines = (folder / "diff.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    with (folder / "diff.csv").open(encoding="utf-8", newline="") as file:
        assert [row["new"] or None for row in csv.DictReader(file)] == [row["new"] for row in rows]
    printed = batchinfer("diff", "shop", "--out", "-", "--format", "csv")
    assert printed.out == (folder / "diff.csv").read_text(encoding="utf-8")
    assert f"Wrote {len(rows)} rows to standard output." in printed.err


def test_missing_job(batchinfer: Cli) -> None:
    """A job that is not there is a sentence."""
    assert batchinfer("diff", "shop").code == 6


def test_not_found_leaves_no_version(two: World) -> None:
    """A candidate that was never rejected is not found."""
    with pytest.raises(NotFound, match="it has none"):
        diff.compare(two.data, ["r1", "current"], None, 20)


@pytest.mark.parametrize("as_json", [False, True])
def test_texts_that_are_too_much_for_a_join_are_compared_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """Where all texts together are more than it has room for, tokens stand for them: the table and every file say the same."""
    said = [
        [json.dumps(f"{word} {number}") if as_json else f"{word} {number}" for number in range(40)]
        for word in ("old", "new")
    ]
    output = {"output": {"type": "json", "schema": {"type": "string"}}} if as_json else {}
    world = imports_job(tmp_path / "job", {"id": list(range(40))}, gate=LENIENT, **output)
    world.take_in({"id": list(range(30)), "prediction": said[0][:30]})
    world.publish()
    world.take_in({"id": list(range(20, 40)), "prediction": [*said[0][20:25], *said[1][25:]]})
    world.publish()

    def compared(name: str) -> tuple[object, list[bytes]]:
        files = [tmp_path / f"{name}.{ending}" for ending in ("csv", "jsonl")]
        [found, _] = [diff.compare(world.data, ["1", "2"], OutputFile.of(str(file), None), 50) for file in files]
        table = diff.compare(world.data, ["1", "2"], OutputFile.of(str(tmp_path / f"{name}.parquet"), None), 50)
        assert table.first == found.first
        return pq.read_table(tmp_path / f"{name}.parquet").to_pylist(), [file.read_bytes() for file in files]

    with monkeypatch.context() as patched:
        patched.setattr(diff, "one", None)  # little is known by what the files say, and not counted
        plain = compared("plain")
    monkeypatch.setattr(diff, "table_memory", lambda: 0)
    monkeypatch.setattr(diff, "WIDE", 3)
    assert compared("wide") == plain
