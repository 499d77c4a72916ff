"""What the gate refuses, and what is published although it did."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.cache import imports
from batchinfer.errors import GateFailed, NotFound, StoreError, UsageError
from batchinfer.pipeline.publish import publish, publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from tests.factories import Quiet, Templates, World, imports_job, model_job
from tests.publish.conftest import (
    MOMENT,
    OPEN,
    REFUSED,
    Make,
    current,
    echo,
    folder,
    refused,
)

# The gate


def test_too_little_coverage_is_refused(make: Make) -> None:
    """A candidate with predictions for too few keys is not served; it is kept to be looked at."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]})
    run_id = world.answer(lambda row: None if row["id"] == 3 else echo(row))
    candidate = refused(world, "coverage")
    assert candidate.name == f"r{run_id}"
    with pytest.raises(NotFound):
        pointers.served(world.data)
    manifest = Manifest.read(candidate)
    assert (manifest.version, manifest.rows, manifest.gate.status) == (None, 2, "failed")
    (failed,) = manifest.gate.failed
    assert failed.message == "2 of 3 keys have a prediction (66.7%; at least 95.0% wanted)"
    assert sorted(pq.read_table(candidate / PREDICTIONS)["id"].to_pylist()) == [1, 2]


def test_too_many_failures_are_refused(make: Make) -> None:
    """Failed prompts and bad rows count together against the gate, though the keys are covered by imports."""
    world = make({"id": [1, 2, 3, 4], "text": ["a", "b", "c", ""]}, gate={"coverage": 0.5, "failures": 0.4})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    check = Manifest.read(refused(world, "failures")).gate.failed[0]
    assert check.message == "2 of 4 prompts and bad rows failed (50.0%; at most 40.0% allowed)"


@pytest.mark.long
def test_a_version_that_shrinks_too_much_is_refused(make: Make) -> None:
    """A list that lost many of the keys that are served is more likely broken than meant."""
    world = make({"id": list(range(10)), "text": list("abcdefghij")})
    world.answer(echo)
    world.publish()
    world.rows({"id": list(range(8)), "text": list("abcdefgh")})
    refused(world, "shrink")
    assert current(world) == 1
    assert world.get(id=9) is not None
    assert world.changed(gate={"shrink": 0.2}).publish().version == 2
    assert world.get(id=9) is None


@pytest.mark.long
def test_a_version_that_changes_too_much_is_refused(served: Make) -> None:
    """A candidate whose values differ from too many that are served is not served."""
    world = served(4)
    world.answer(lambda row: "something else" if row["id"] < 4 else echo(row), refresh=True)
    refused(world, "changed")
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert world.changed(gate={"changed": 0.75}).publish().version == 2


def test_a_run_whose_gate_fails_is_recorded_as_rejected(make: Make) -> None:
    """A run keeps its report where its version was refused, and the exit code is the gate's."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    with pytest.raises(GateFailed) as raised:
        world.run()
    assert raised.value.exit_code == 3
    newest = world.store.runs()[0]
    assert (newest.status, newest.report["version"], newest.report["hits"], newest.report["failures"]) == (
        "rejected",
        None,
        1,
        1,
    )
    assert {check["name"] for check in newest.report["gate"] if not check["passed"]} == {"coverage", "failures"}
    assert newest.report["candidate"] == f"r{newest.run_id}"
    assert (world.data.rejected / f"r{newest.run_id}" / PREDICTIONS).is_file()


@pytest.mark.long
def test_content_that_is_served_already_publishes_nothing(make: Make) -> None:
    """A run that changes nothing leaves the version that there is; one more entry makes another."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(echo)
    assert world.run().version == 1
    again = world.run()
    assert (again.version, again.unchanged, again.entries) == (None, True, 2)
    assert folders.numbers(world.data) == [1]
    world.take_in({"id": [3], "prediction": ["c"]})
    assert world.run().version == 2
    assert [run.status for run in world.store.runs()][:3] == ["done"] * 3


def test_a_list_in_another_order_publishes_nothing(served: Make) -> None:
    """The order of the list, and columns that are no part of key or template, are no news."""
    world = served(2)
    world.rows({"id": [2, 1], "text": ["b", "a"], "note": ["x", "y"]})
    assert world.publish().version is None


@pytest.mark.long
def test_another_way_to_look_up_is_news(make: Make) -> None:
    """Equal values are published again where the key's columns, its normal form, or the kind of the values changed."""
    world = make({"id": ["tea"], "name": ["tea"], "text": ["a"]})
    world.answer(echo)
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})
    assert world.publish().version == 2
    assert world.get(id="TEA") is not None
    assert world.publish().unchanged
    world = world.changed(input={"path": "queries.parquet", "key": ["name"], "normalize": ["casefold"]})
    assert world.publish().version == 3
    assert world.get(name="Tea") is not None
    assert world.publish().unchanged


def test_equal_texts_of_another_kind_are_news(tmp_path: Path) -> None:
    """A prediction that was the text 1 and is now the number is published, though both are written alike."""
    world = imports_job(tmp_path, {"id": [1]}, gate=OPEN)
    world.take_in({"id": [1], "prediction": ["1"]})
    world.publish()
    world = world.changed(output={"type": "json", "schema": {}})
    imports.remove_import(world.store, 1)
    world.take_in({"id": [1], "prediction": ["1"]})
    with world.store.open(write=True) as db:
        moment = db.execute("SELECT min(generated_at) FROM read_parquet(?)", [str(folder(world, 1) / PREDICTIONS)])
        db.execute("UPDATE imports SET created_at = ?", [moment.fetchall()[0][0]])
    assert world.publish().version == 2
    assert json.loads(world.get(id=1) or b"")["prediction"] == 1


@pytest.mark.long
def test_every_version_is_recorded(make: Make) -> None:
    """The cache's table of versions has those of publish as well as those of run, once each."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(echo)
    world.run()
    world.take_in({"id": [3], "prediction": ["c"]})
    world.publish()
    world.publish()  # nothing new
    with world.store.open() as db:
        assert db.execute("SELECT version, run_id, rows FROM versions ORDER BY version").fetchall() == [
            (1, 2, 2),
            (2, 2, 3),
        ]


# By force


def publish_by_force(world: World, candidate: str | None = None, why: str | None = None) -> dict[str, Any]:
    if candidate is None:
        return publish(world.job, world.data, Options(), Quiet(), why).to_json()
    return publish_candidate(world.job, world.data, Options(), Quiet(), candidate, why).to_json()


def one_refused(folder: Path) -> World:
    """A job that serves three keys, and whose run 2 was refused since it would change two of them; a third changed since."""
    world = model_job(folder, {"id": [1, 2, 3], "text": list("abc")})
    world.answer(echo)
    world.publish()
    world.answer(lambda row: "new" if row["id"] < 3 else echo(row), refresh=True)
    refused(world, "changed")
    world.answer(lambda row: "newer", refresh=True)
    return world


@pytest.fixture
def rejected(templates: Templates, tmp_path: Path) -> World:
    """`one_refused`."""
    return templates.world(one_refused, tmp_path)


@pytest.mark.long
def test_a_candidate_is_published_as_its_very_bytes(rejected: World) -> None:
    """What was refused is served by force exactly as it lay there, whatever the cache has now; it says who, when and why."""
    candidate = rejected.data.rejected / "r2"
    data = {path.name: path.read_bytes() for path in candidate.iterdir()}
    report = publish_by_force(rejected, "r2", "Ann looked at all of it")
    assert (report["version"], report["entries"], report["candidate"], report["status"]) == (2, 3, "r2", "done")
    place = folder(rejected, 2)
    assert (place / PREDICTIONS).read_bytes() == data[PREDICTIONS]
    assert {path.name: path.read_bytes() for path in candidate.iterdir()} == data
    with rejected.served() as snapshot:
        snapshot.verify()
        served = [json.loads(snapshot.get({"id": number}) or b"")["prediction"] for number in (1, 2, 3)]
    assert served == ["new", "new", "about c"]
    manifest = Manifest.read(place)
    forced = manifest.forced
    assert forced is not None
    assert (forced.why, forced.by) == ("Ann looked at all of it", getpass.getuser())
    assert re.fullmatch(MOMENT, forced.at or "")
    assert (manifest.version, manifest.parent, manifest.candidate) == (2, 1, "r2")
    assert (manifest.gate.status, manifest.run.run_id) == ("failed", 2)
    with rejected.store.open() as db:
        assert db.execute("SELECT version, run_id, rows FROM versions WHERE version = 2").fetchall() == [(2, 2, 3)]
    assert publish_by_force(rejected, "r2", "again")["unchanged"]


@pytest.mark.long
def test_a_body_by_force_is_as_any_other(rejected: World) -> None:
    """The bodies made from a candidate's Parquet are, byte for byte, those that its cache would have made."""
    rejected.answer(lambda row: "new" if row["id"] < 3 else echo(row), refresh=True)
    with pytest.raises(GateFailed) as raised:
        rejected.publish()
    assert raised.value.report is not None
    name = raised.value.report.to_json()["candidate"]
    publish_by_force(rejected, None, "from the cache")
    from_cache = [rejected.get(id=number) for number in (1, 2, 3)]
    rejected.take_in({"id": [1], "prediction": ["other"]})
    rejected.changed(gate=OPEN).publish()
    publish_by_force(rejected, name, "from the candidate")
    assert [rejected.get(id=number) for number in (1, 2, 3)] == from_cache


@pytest.mark.long
def test_the_cache_can_be_published_by_force(rejected: World) -> None:
    """Without a candidate it is what the cache has now; its failed checks and the reason stay with it."""
    report = publish_by_force(rejected, None, "meant so")
    assert (report["version"], [check["name"] for check in report["gate"] if not check["passed"]]) == (2, ["changed"])
    assert json.loads(rejected.get(id=3) or b"")["prediction"] == "newer"
    manifest = Manifest.read(folder(rejected, 2))
    assert (manifest.gate.status, manifest.forced and manifest.forced.why) == ("failed", "meant so")
    assert Manifest.read(folder(rejected, 1)).forced is None
    assert publish_by_force(rejected, None, "again")["unchanged"]


def test_a_candidate_is_never_overwritten(rejected: World) -> None:
    """A second refusal under the same run's number takes the next free name, and says it, to machines too."""
    first = (rejected.data.rejected / "r2" / PREDICTIONS).read_bytes()
    for name in ("r3", "r3-2", "r3-3"):
        with pytest.raises(GateFailed, match=rf"/{name}\. ") as raised:
            rejected.publish()
        assert raised.value.report is not None
        report = raised.value.report.to_json()
        assert (report["status"], report["candidate"], report["version"], report["job"]) == (
            "rejected", name, None, "shop",
        )  # fmt: skip
    assert (rejected.data.rejected / "r2" / PREDICTIONS).read_bytes() == first
    with pytest.raises(NotFound, match=r"has no candidate r4: it has r2, r3, r3-2, r3-3\.$"):
        publish_by_force(rejected, "r4", "why not")


def test_a_first_refusal_is_told_as_such(make: Make) -> None:
    """Where nothing is served yet, the sentence names no version to compare with."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    with pytest.raises(GateFailed) as raised:
        world.publish()
    said = str(raised.value)
    assert "What was served" not in said
    assert "batchinfer diff" not in said
    assert f"The candidate lies in {world.data.rejected / 'r1'}. " in said
    assert "Compare" not in raised.value.fix


def test_a_refused_job_of_imports_wants_imports(tmp_path: Path) -> None:
    """Where no model is asked, the rows without a prediction wait for an import; what to do is the error's fix."""
    world = imports_job(tmp_path, {"id": [1, 2]})
    with pytest.raises(GateFailed) as raised:
        world.publish()
    assert raised.value.fix.startswith(
        "Import predictions for the rest of the list first: batchinfer import shop FILE. To publish it anyway: "
    )
    assert "--force" not in raised.value.to_json()["error"]["message"]


def test_a_refused_list_that_was_not_asked_in_full_wants_a_run(make: Make) -> None:
    """Where prompts were never asked, the command that asks them comes first."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate={"coverage": 1.0})
    world.take_in({"id": [1], "prediction": ["x"]})
    with pytest.raises(GateFailed) as raised:
        world.publish()
    assert raised.value.fix.startswith("Ask the model for the rest of the list first: batchinfer run shop. To publish")


def test_a_candidate_is_durable_before_it_has_its_name(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of what the gate refused are synced while they lie in a draft."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    synced: list[set[str]] = []

    def watched(draft: Path) -> None:
        assert folders.candidates(world.data) == []
        synced.append({path.name for path in draft.iterdir()})

    monkeypatch.setattr(folders, "sync_files", watched)
    with pytest.raises(GateFailed):
        world.publish()
    assert (synced, folders.candidates(world.data)) == ([{MANIFEST, PREDICTIONS}], ["r1"])


def test_a_candidate_is_published_like_any_version(rejected: World) -> None:
    """A candidate follows the newest whole version where CURRENT is damaged, says that a pin hides it, and has old versions removed."""
    pointers.pin(rejected.data, 1)
    (rejected.data.folder / pointers.CURRENT).write_bytes(b"")
    report = publish_by_force(rejected, "r2", "read")
    assert (report["version"], report["pinned"], current(rejected)) == (2, 1, 1)
    assert Manifest.read(folder(rejected, 2)).parent == 1
    pointers.unpin(rejected.data)
    assert publish_by_force(rejected.changed(keep_versions=1), None, "now the cache")["pinned"] is None
    assert folders.numbers(rejected.data) == [3]
    again = publish_by_force(rejected.changed(keep_versions=1), "r2", "back to what was read")
    assert (again["version"], folders.numbers(rejected.data)) == (4, [4])


@pytest.mark.parametrize("name", ["r7", "", ".", "..", "../versions/000001", "r2/"])
def test_a_candidate_that_is_not_there(rejected: World, name: str) -> None:
    """Only the names of candidates are taken."""
    with pytest.raises(NotFound, match=r"has no candidate .*: it has r2\.$"):
        publish_by_force(rejected, name, "why not")
    assert current(rejected) == 1


def test_a_candidate_needs_force(rejected: World) -> None:
    """What the gate refused is not published by its name alone."""
    with pytest.raises(
        UsageError,
        match=r"r2 failed its gate \(changed\): batchinfer diff shop current r2 .* --force --why TEXT",
    ):
        publish_by_force(rejected, "r2")
    assert folders.numbers(rejected.data) == [1]


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"input": {"path": "queries.parquet", "key": ["text"]}}, r"its lookup key is id \(integer\), the job's is text \(string\)"),
        ({"input": {"path": "queries.parquet", "key": ["id"], "normalize": ["trim"]}}, "its normalize is nothing, the job's is trim"),
        ({"output": {"type": "json", "schema": {}}}, "its kind of prediction is string, the job's is json"),
    ],
    ids=["key", "normalize", "kind"],
)  # fmt: skip
def test_a_candidate_that_does_not_fit_is_refused(rejected: World, sections: dict[str, Any], sentence: str) -> None:
    """A candidate that would be looked up or read otherwise than the job now says is not published, not even by force."""
    with pytest.raises(UsageError, match=f"The candidate r2 does not fit the job as it is now: {sentence}"):
        publish_by_force(rejected.changed(**sections), "r2", "why not")
    assert folders.numbers(rejected.data) == [1]


def test_a_candidate_of_another_kind_of_key_is_refused(rejected: World) -> None:
    """The kinds of the list's key columns count; where there is no list any more, their names do."""
    rejected.rows({"id": ["1"], "text": ["a"]})
    with pytest.raises(UsageError, match=r"its lookup key is id \(integer\), the job's is id \(string\)"):
        publish_by_force(rejected, "r2", "why not")
    rejected.list_path.unlink()
    assert publish_by_force(rejected, "r2", "the list is gone")["version"] == 2


@pytest.mark.parametrize("spoil", ["byte", "cut", "gone", "manifest"])
def test_a_damaged_candidate_is_refused(rejected: World, spoil: str) -> None:
    """A candidate that is not whole is not published, whoever wants it; no trace is left."""
    path = rejected.data.rejected / "r2" / (MANIFEST if spoil == "manifest" else PREDICTIONS)
    data = bytearray(path.read_bytes())
    data[-20 if spoil == "byte" else len(data) // 2] ^= 1
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:100] if spoil in ("cut", "manifest") else data)
    with pytest.raises(StoreError):
        publish_by_force(rejected, "r2", "why not")
    assert (folders.numbers(rejected.data), current(rejected)) == ([1], 1)
    assert not list(rejected.data.versions.glob(".*"))
