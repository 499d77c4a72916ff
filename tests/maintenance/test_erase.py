"""Erasure: one entry leaves the cache, all versions, misses and logs, and nothing else does."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.alerts.attempts import AttemptEnd, AttemptStatus, LastAttempt, read_attempt, write_attempt
from batchinfer.alerts.event import AlertEvent
from batchinfer.alerts.notes import AlertNotes, PendingAlert
from batchinfer.alerts.rules import AlertKind, CommandReceiver
from batchinfer.cache.schema import RunStatus
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure
from batchinfer.errors import Busy, GateFailed, NotConfirmed, NotFound, StoreError, UsageError
from batchinfer.maintenance import erase
from batchinfer.pipeline.publish import publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.publish import release
from batchinfer.review import predictions
from batchinfer.versions import folders, pointers, replication
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import PIN
from tests.alerts.made import START
from tests.factories import LENIENT, Quiet, Templates, World, imports_job, model_job, write
from tests.killing import kill_at
from tests.tiny import Cli, RecordingConsole

PRIVATE = "Zyxwvut"  # part of what is erased in all tests, and of nothing else
NAMES = ["Ann", PRIVATE, "Carl"]


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, with the data folder of `world`."""
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys, tmp_path / "home")


def asked_once(folder: Path) -> World:
    """A job that asks a model about names; each was answered once, and published."""
    made = model_job(
        folder,
        {"name": NAMES, "text": [f"about {name}" for name in NAMES]},
        input={"path": "queries.parquet", "key": ["name"]},
        gate=LENIENT,
    )
    made.answer(lambda row: f"first {row['text']}")
    made.publish()
    return made


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """`asked_once`."""
    return templates.world(asked_once, tmp_path)


def forget(world: World, name: str = PRIVATE, **more: Any) -> dict[str, Any]:
    """Erases one name; returns the report, as --json prints it."""
    return erase.erase_entry(world.job, world.data, {"name": name}, **more).to_json()


def traces(folder: Path, text: str = PRIVATE) -> list[str]:
    """The files below a folder that hold the text: as bytes, or as a value of a Parquet file or of the cache."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += repr(pq.read_table(path).to_pylist()).encode()
            if path.name == "cache.duckdb":
                content += _dump(path)
            if text.lower().encode() in content.lower():
                found.append(str(path.relative_to(folder)))
    return found


def _dump(path: Path) -> bytes:
    """All values of a cache, which may be compressed in the file."""
    with duckdb.connect(path, read_only=True) as db:
        tables = [name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return repr([db.execute(f"FROM {name}").fetchall() for name in tables]).encode()


def generations(world: World) -> list[str]:
    """All texts that the cache holds."""
    with world.store.open() as db:
        return [text for (text,) in db.execute("SELECT text FROM generations ORDER BY text").fetchall()]


def others_are_whole(world: World) -> None:
    """What is served still has the other names, in a version that checks out."""
    with world.served() as snapshot:
        snapshot.verify()
        assert snapshot.get({"name": PRIVATE}) is None
        assert json.loads(snapshot.get({"name": "Ann"}) or b"{}")["prediction"].endswith("about Ann")
        assert json.loads(snapshot.get({"name": "Carl"}) or b"{}")["prediction"].endswith("about Carl")


@pytest.mark.long
def test_no_byte_is_left(world: World, batchinfer: Cli) -> None:
    """After all that can hold an entry held it, no file below the job's folder has a trace of it; the others are whole."""
    world.answer(lambda row: f"second {row['text']}", refresh=True)  # deleted rows lie in free blocks
    world.publish()
    world = world.changed(prompt={"template": "Now: {{ text }}"})
    world.answer(
        lambda row: Failure(None, "engine", "refused", f"No {row['text']}.") if PRIVATE in row["text"] else None
    )
    world.take_in({"name": [PRIVATE], "prediction": [f"imported {PRIVATE}"]})
    with pytest.raises(GateFailed):
        world.changed(on_failure="drop", gate={"shrink": 0.0, "failures": 0.0}).publish()
    _miss(world, "2026-01-01", [PRIVATE, "Dora"])
    _miss(world, "2026-01-02", [f" {PRIVATE.upper()}"])
    world.data.logs.mkdir(exist_ok=True)
    (world.data.logs / "engine.log").write_text(f"prompt: about {PRIVATE}")
    world.data.remember_refresh(f"name={PRIVATE}", datetime(2026, 1, 1, tzinfo=UTC))
    half = world.data.versions / ".building-x" / "version"
    half.mkdir(parents=True)
    (half / LOOKUP).write_text(PRIVATE)
    (world.data.folder / ".cache.duckdb.99").write_text(PRIVATE)
    world.data.checkpoint.write_text(f"weights that learned {PRIVATE}")
    assert len(traces(world.data.folder)) > 9

    world = world.changed(input={"path": "queries.parquet", "key": ["name"], "normalize": ["casefold", "trim"]})
    done = batchinfer("forget", world.job.path, f"name={PRIVATE.lower()}", "--yes", "--json")
    assert done.code == 0, done.err
    assert traces(world.data.folder) == []
    report = done.json
    assert (report["job"], report["generations"], report["imports"], report["misses"]) == ("shop", 1, 1, 2)
    assert (report["failures"], report["in_list"]) == (1, True)
    assert (report["versions_rebuilt"], report["versions_removed"]) == ([3], [2])
    assert report["versions_rewritten"] == [1, "r3"]
    assert generations(world) == ["second about Ann", "second about Carl"]
    others_are_whole(world)
    assert pq.read_table(world.data.folder / "misses" / "2026-01-01.parquet")["query"].to_pylist() == [
        '{"name": "Dora"}'
    ]


def _miss(world: World, day: str, names: list[str]) -> Path:
    moment = pa.array([datetime(2026, 1, 1)] * len(names), pa.timestamp("us"))  # noqa: DTZ001 - as the files have it
    queries = [json.dumps({"name": name}) for name in names]
    columns = {"query": queries, "count": [1] * len(names), "first_seen": moment, "last_seen": moment}
    return write(world.data.folder / "misses" / f"{day}.parquet", columns)


def test_deleted_rows_do_not_stay_in_the_file(tmp_path: Path) -> None:
    """The text of a row that was deleted before is still in the cache's file; after forget it is not."""
    world = imports_job(tmp_path, {"id": [1, 2]})
    world.take_in({"id": [1], "prediction": [" ".join(f"{PRIVATE} {n}" for n in range(200))]})
    assert predictions.undo_import(world.job, world.data, 1).rows == 1
    assert traces(world.data.folder) == ["cache.duckdb"]
    world.take_in({"id": [1], "prediction": ["harmless"]})
    erase.erase_entry(world.job, world.data, {"id": "1"})
    assert traces(world.data.folder) == []


def test_the_new_version_says_little(world: World) -> None:
    """The rebuilt version follows the served one, counts that something was erased, does not say what, and asks no gate."""
    report = forget(world)
    assert report["versions_rebuilt"] == [2]
    manifest = Manifest.read(folder_of(world.data, 2))
    assert (manifest.version, manifest.rows, manifest.erased, manifest.parent) == (2, 2, 1, 1)
    assert manifest.gate.status == "passed"
    assert folders.numbers(world.data) == [2]
    others_are_whole(world)
    with world.store.open() as db:
        assert db.execute("SELECT version, rows FROM versions ORDER BY version").fetchall() == [(1, 3), (2, 2)]
    forget(world, "Ann")
    assert Manifest.read(folder_of(world.data, 3)).erased == 2


def test_the_next_run_asks_only_what_was_erased(world: World, batchinfer: Cli) -> None:
    """The output says that the list still has the row: the next run would ask that prompt again, and no other."""
    done = batchinfer("forget", world.job.path, f"name={PRIVATE}", "--yes")
    assert f"Erased name={PRIVATE}: removed 1 generation, 0 imports, 0 failures, 0 misses;" in done.out
    assert "take it out of the list" in done.out
    with world.prepared() as planned:
        assert planned.plan.counts.to_generate == 1


@pytest.mark.long
def test_an_answer_that_others_need_stays(world: World) -> None:
    """A prompt that another row of the list asks, too, keeps its answer, which is said; without that row it goes."""
    world.rows({"name": ["Ann", PRIVATE, "Carl"], "text": ["same", "same", "other"]})
    world.answer(lambda row: f"on {row['text']}")
    world.publish()
    report = forget(world)
    assert report["generations"] == 1  # what was asked about the name before
    assert "1 of its answers stays in the cache" in report["remarks"][0]
    assert "on same" in generations(world)
    world.rows({"name": [PRIVATE, "Carl"], "text": ["same", "other"]})
    world.publish()
    assert forget(world)["generations"] == 1
    assert "on same" not in generations(world)


def test_it_asks_once_it_knows_what_is_meant(world: World) -> None:
    """What cannot be a key is refused before anybody is asked; without a yes nothing goes."""
    person = RecordingConsole(answer=False)
    with pytest.raises(UsageError, match="nmae is not part of the lookup key of shop: did you mean name"):
        erase.erase_entry(world.job, world.data, {"nmae": PRIVATE}, None, person, yes=False)
    assert person.questions == []
    with pytest.raises(NotConfirmed, match="the answer was no"):
        forget(world, person=person, yes=False)
    [question] = person.questions
    assert question.startswith(f"This erases name={PRIVATE} of {world.job.name}, in its cache, versions, ")
    with pytest.raises(NotConfirmed, match="Pass --yes to erase it"):
        forget(world, yes=False)
    assert traces(world.data.folder) != []


def test_a_row_that_left_the_list(world: World) -> None:
    """Of a row that is no longer in the list, the answers that versions point to are found anyway."""
    world.rows({"name": ["Ann", "Carl"], "text": ["about Ann", "about Carl"]})
    world.publish()
    report = forget(world)
    assert (report["generations"], report["in_list"], report["remarks"]) == (1, False, [])
    assert (report["versions_rebuilt"], report["versions_removed"], report["versions_rewritten"]) == ([], [], [1])
    assert traces(world.data.folder) == []


def test_a_prompt_made_of_the_key_alone(tmp_path: Path) -> None:
    """Where the template needs no more than the key, the answers of an unpublished row are found without the list."""
    world = model_job(tmp_path, {"text": ["Ann", PRIVATE]}, input={"path": "queries.parquet", "key": ["text"]})
    world.answer(lambda row: f"about {row['text']}")
    world.rows({"text": ["Ann"]})
    assert erase.erase_entry(world.job, world.data, {"text": PRIVATE}).to_json()["generations"] == 1
    assert traces(world.data.folder) == []


def test_every_question_that_was_ever_asked(world: World) -> None:
    """Answers to earlier prompts, with other columns, go as well."""
    world = world.changed(prompt={"template": "{{ name }}: {{ text }}"})
    world.answer(lambda row: f"again {row['text']}")
    assert len(generations(world)) == 6
    assert forget(world)["generations"] == 2
    assert len(generations(world)) == 4


def test_both_what_is_pinned_and_what_is_hidden(world: World) -> None:
    """Where a pin hides the current version, both are rebuilt, and each name moves to its own."""
    world.answer(lambda row: f"second {row['text']}", refresh=True)
    world.publish()
    pointers.pin(world.data, 1)
    assert forget(world)["versions_rebuilt"] == [3, 4]
    pinned, current = pointers.pointer(world.data, PIN), pointers.pointer(world.data)
    assert pinned is not None
    assert current is not None
    assert (pinned.version, current.version) == (3, 4)
    assert world.get(name="Ann") == world.served().get({"name": "Ann"})
    assert b"first about Ann" in (world.get(name="Ann") or b"")
    assert folders.numbers(world.data) == [3, 4]


@pytest.mark.long
def test_pinned_while_it_works(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is pinned while forget is at work is not taken away under the pin; said again, it is rebuilt."""
    world.answer(lambda row: f"second {row['text']}", refresh=True)
    world.publish()
    whole = release.install_version

    def pinning(*given: Any, **named: Any) -> None:
        whole(*given, **named)
        pointers.pin(world.data, 1)

    monkeypatch.setattr("batchinfer.maintenance.erase_versions.install_version", pinning)
    with pytest.raises(Busy, match="Version 1 was pinned meanwhile"):
        forget(world)
    monkeypatch.undo()
    with world.served() as snapshot:
        snapshot.verify()
    forget(world)
    assert traces(world.data.folder) == []
    assert b"first about Ann" in (world.get(name="Ann") or b"")


def test_versions_without_the_entry_stay(world: World) -> None:
    """What does not hold the entry is left as it is, to the byte."""
    world.rows({"name": ["Ann", "Carl"], "text": ["about Ann", "about Carl"]})
    world.publish()
    place = folder_of(world.data, 2)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert forget(world)["versions_rewritten"] == [1]
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert pointers.served(world.data).version == 2


@pytest.mark.long
def test_other_versions_keep_their_other_rows(world: World) -> None:
    """A version and a candidate that are not served keep number, age and all else, and can be pinned and published."""
    world.answer(lambda row: f"second {row['text']}", refresh=True)
    world.publish()
    world.answer(lambda row: f"third {row['text']}", refresh=True)
    with pytest.raises(GateFailed):
        world.changed(gate={"changed": 0.0}).publish()
    made = Manifest.read(folder_of(world.data, 1)).created_at
    report = forget(world)
    assert (report["versions_rewritten"], report["versions_removed"], report["versions_rebuilt"]) == (
        [1, "r3"],
        [2],
        [3],
    )
    assert traces(world.data.folder) == []
    old = Manifest.read(folder_of(world.data, 1))
    assert (old.version, old.rows, old.created_at, old.erased) == (1, 2, made, 1)
    pointers.pin(world.data, 1)
    others_are_whole(world)
    assert b"first about Ann" in (world.get(name="Ann") or b"")
    pointers.unpin(world.data)
    published = publish_candidate(world.job, world.data, Options(), Quiet(), "r3", "two of us read it")
    assert (published.version, published.manifest.rows) == (4, 2)
    assert b"third about Ann" in (world.get(name="Ann") or b"")


@pytest.mark.long
def test_what_gates_quote_is_dropped(world: World) -> None:
    """Rows that a gate's report quotes are taken out of manifests and reports, also where the entry is not held."""
    with pytest.raises(GateFailed):
        _refuse(world)
    place = world.data.rejected / "r2"
    content = json.loads((place / MANIFEST).read_bytes())
    content["gate"]["checks"][0]["examples"] = [f"name={PRIVATE[:5]}…: gone"]
    (place / MANIFEST).write_text(json.dumps(content))
    report = {"status": "rejected", "gate": [{"name": "changed", "examples": [f"name={PRIVATE[:5]}…"]}]}
    world.store.finish_run(2, RunStatus.REJECTED, report)
    (world.data.folder / "last_run.json").write_text(json.dumps(report))
    attempt = LastAttempt(AttemptStatus.RUNNING, START).ended(
        AttemptEnd(AttemptStatus.FAILED, START, f"name={PRIVATE[:5]}…")
    )
    write_attempt(world.data, attempt)
    body = AlertEvent("shop", AlertKind.FAILED, 1, 2, START, attempt.said, 0, "", None).body(START)
    pending = PendingAlert("x", CommandReceiver(("page",)), body, START, START)
    AlertNotes(world.data, print).change(lambda memory: replace(memory, pending=(pending,)))
    assert forget(world)["versions_removed"] == [1]
    assert traces(world.data.folder, PRIVATE[:5]) == []
    assert read_attempt(world.data) is not None
    assert len(AlertNotes(world.data, print).read().pending) == 1
    assert Manifest.read(place).rows == 2
    assert world.store.runs()[0].report["gate"] == [{"name": "changed"}]


def _refuse(world: World) -> None:
    """Has a candidate refused that lacks the entry."""
    world.rows({"name": ["Ann", "Carl"], "text": ["about Ann", "about Carl"]})
    world.answer(lambda row: f"third {row['text']}", refresh=True)
    world.changed(gate={"changed": 0.0}).publish()


def test_open_versions_are_removed_too(world: World) -> None:
    """A version that a reader has open is removed anyway; the reader goes on reading its old map."""
    with world.served() as snapshot:
        forget(world)
        assert snapshot.get({"name": "Ann"}) is not None
    assert not folder_of(world.data, 1).exists()


def test_the_last_entry(tmp_path: Path) -> None:
    """A version whose only entry is erased becomes an empty one, which is served."""
    world = imports_job(tmp_path, {"id": [1]})
    world.take_in({"id": [1], "prediction": [PRIVATE]})
    world.publish()
    report = erase.erase_entry(world.job, world.data, {"id": "1"}).to_json()
    assert (report["imports"], report["versions_rebuilt"]) == (1, [2])
    assert report["remarks"][0] == "Version 2 has no entries left: every look-up misses."
    assert world.get(id=1) is None
    assert traces(world.data.folder) == []


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([1.0, 2.5]), "2.5"),
        (pa.array([datetime(2026, 1, 1), datetime(2026, 1, 2, 3)], pa.timestamp("us")), "2026-01-02T03:00"),  # noqa: DTZ001
        (pa.array([False, True]), "true"),
        (pa.array([datetime(2026, 1, 1), datetime(2026, 1, 2)], pa.date32()), "2026-01-02"),  # noqa: DTZ001
    ],
)
@pytest.mark.long
def test_keys_of_every_kind(tmp_path: Path, column: pa.Array, text: str) -> None:
    """A value is read as its column's kind, for the cache, for versions and for failures."""
    world = model_job(tmp_path, {"id": column, "text": ["a", PRIVATE]}, gate=LENIENT)
    world.answer(lambda row: row["text"])
    world.publish()
    world = world.changed(prompt={"template": "Now {{ text }}"})
    world.answer(lambda row: Failure(None, "engine", "refused", row["text"]))
    report = erase.erase_entry(world.job, world.data, {"id": text}).to_json()
    assert (report["generations"], report["failures"], report["versions_rebuilt"]) == (1, 1, [2])
    assert traces(world.data.folder) == []


def test_a_copy_without_a_job_file(world: World, tmp_path: Path, batchinfer: Cli) -> None:
    """In a data folder that versions were copied to, forget works without cache and job file."""
    (tmp_path / "dest").mkdir()
    replication.replicate(world.data, tmp_path / "dest", lambda _: None)
    done = batchinfer("--home", tmp_path / "dest", "forget", "shop", f"name={PRIVATE}", "--yes", "--json")
    assert (done.code, done.json["versions_rebuilt"], done.json["in_list"]) == (0, [2], False)
    assert traces(tmp_path / "dest") == []
    assert not (tmp_path / "dest" / "shop" / "cache.duckdb").exists()


def test_a_list_that_is_not_there(world: World) -> None:
    """Without the list, what versions point to is erased, and it is said what may be left."""
    world.list_path.unlink()
    report = forget(world)
    assert report["generations"] == 1
    assert "answers that no version holds may be left: " in report["remarks"][0]
    assert "input.path: there is no file" in report["remarks"][0]


def test_another_list(world: World, tmp_path: Path, batchinfer: Cli) -> None:
    """--input names the list in which the entry's prompts are looked for."""
    world.answer(lambda row: "answer", input=write(tmp_path / "b.parquet", {"name": ["Dora"], "text": [PRIVATE]}))
    assert batchinfer("forget", world.job.path, "name=Dora", "--yes").code == 6
    assert batchinfer("forget", world.job.path, "name=Dora", "--yes", "--input", tmp_path / "b.parquet").code == 0
    assert "answer" not in generations(world)


def test_nothing_to_forget(world: World, batchinfer: Cli) -> None:
    """An entry that is nowhere is a miss, and nothing is changed."""
    (world.data.logs / "engine.log").write_text("kept")
    done = batchinfer("forget", world.job.path, "name=Nobody", "--yes")
    sentence = f"Nothing of name=Nobody is stored for the job shop in {world.data.root}."
    assert (done.code, done.sentence) == (6, sentence)
    assert folders.numbers(world.data) == [1]
    assert (world.data.logs / "engine.log").exists()
    forget(world)
    assert batchinfer("forget", world.job.path, f"name={PRIVATE}", "--yes").code == 6


def test_it_asks_first(world: World, batchinfer: Cli) -> None:
    """Without --yes and without a terminal nothing is removed."""
    done = batchinfer("forget", world.job.path, f"name={PRIVATE}")
    places = "its cache, versions, misses, evaluations and logs"
    said = f"This erases name={PRIVATE} of shop, in {places}, and cannot be undone. Pass --yes to erase it."
    assert (done.code, done.sentence) == (2, said)
    assert world.get(name=PRIVATE) is not None


class Terminal(io.StringIO):
    """A keyboard with something typed on it."""

    def isatty(self) -> bool:
        return True


def test_a_no_is_taken(world: World, batchinfer: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it asks, saying what it would do; no leaves everything, yes goes on."""
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    done = batchinfer("forget", world.job.path, f"name={PRIVATE}")
    assert (done.code, f"This erases name={PRIVATE} of shop" in done.err, "answer was no" in done.err) == (
        2,
        True,
        True,
    )
    assert world.get(name=PRIVATE) is not None
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    stopped = batchinfer("forget", world.job.path, f"name={PRIVATE}")
    # the sentence stands on a line of its own
    assert (stopped.code, stopped.err.splitlines()[-1]) == (
        130,
        "batchinfer: Stopped by Ctrl-C. Run the same command again.",
    )
    assert world.get(name=PRIVATE) is not None
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert batchinfer("forget", world.job.path, f"name={PRIVATE}").code == 0
    assert world.get(name=PRIVATE) is None


def test_a_bad_row(world: World) -> None:
    """A row that could not be asked counts as one of the list, and its failure goes with what it quotes."""
    world.rows({"name": [*NAMES, "Dora"], "text": ["a", "b", "c", None]})
    with world.prepared() as planned:
        world.store.replace_bad_rows(planned.query_list.bad_rows(), planned.workspace.texts)
    report = forget(world, "Dora")
    assert (report["failures"], report["generations"], report["in_list"]) == (1, 0, True)
    assert world.store.failures() == []


@pytest.mark.parametrize(("pair", "says"), [("town=Ulm", "The lookup key is name"), ("name", "expected COLUMN=VALUE")])
def test_words_that_are_off(world: World, batchinfer: Cli, pair: str, says: str) -> None:
    """A column that is no part of the key, and a word without a value, are refused."""
    done = batchinfer("forget", world.job.path, pair, "--yes")
    assert (done.code, says in done.sentence) == (2, True)


def test_a_value_of_another_kind(tmp_path: Path) -> None:
    """A text where the key is a number is refused."""
    world = imports_job(tmp_path, {"id": [1]})
    with pytest.raises(UsageError, match="is not a valid integer"):
        erase.erase_entry(world.job, world.data, {"id": "one"})


def test_a_job_without_data(tmp_path: Path, batchinfer: Cli) -> None:
    """A job of which nothing is stored has nothing to forget; no folder is made for it."""
    world = imports_job(tmp_path / "elsewhere", {"id": [1]})
    done = batchinfer("forget", world.job.path, "id=1", "--yes")
    assert done.code == 6
    assert not batchinfer.data.exists()


def test_a_run_goes_first(world: World) -> None:
    """While a run is at work nothing is erased."""
    with world.data.run_lock("batchinfer run shop"), pytest.raises(Busy):
        forget(world)


Damage = Callable[[World], object]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda world: (folder_of(world.data, 1) / PREDICTIONS).write_bytes(b"PAR1"), "cannot be searched"),
        (lambda world: (folder_of(world.data, 1) / MANIFEST).unlink(), "cannot be searched: remove"),
        (lambda world: _miss(world, "2026-01-01", ["a"]).write_bytes(b"PAR1"), "is damaged"),
    ],
)
def test_what_cannot_be_searched_stops_it(world: World, damage: Damage, says: str) -> None:
    """A version or file that cannot be looked into is named, and nothing is removed before that is repaired."""
    damage(world)
    with pytest.raises(StoreError, match=says):
        forget(world)
    assert len(generations(world)) == 3


def test_versions_with_another_key_are_named(world: World) -> None:
    """A version that is looked up by other columns cannot be searched by these, and that is said."""
    world = world.changed(input={"path": "queries.parquet", "key": ["text"]})
    world.publish()
    report = erase.erase_entry(world.job, world.data, {"text": f"about {PRIVATE}"}).to_json()
    assert report["remarks"][-1] == "Not searched, since they are looked up by other columns: 1."
    assert erase.erase_entry(world.job, world.data, {"name": PRIVATE}).to_json()["versions_rewritten"] == [1]


STEPS = [
    "misses.log:erase",
    "maintenance.erase:rewrite",
    "cache.rewrite:remove_cache_drafts",
    "versions.pointers:point",
    "versions.folders:move_into_place",
    "versions.retention:remove",
    "versions.retention:replace",
    "shutil:rmtree",
]


def asked_twice(folder: Path) -> World:
    """`asked_once`, with misses, a log and a second version."""
    world = asked_once(folder)
    _miss(world, "2026-01-01", [PRIVATE, "Dora"])
    world.data.logs.mkdir(exist_ok=True)
    (world.data.logs / "engine.log").write_text(PRIVATE)
    world.answer(lambda row: f"second {row['text']}", refresh=True)
    world.publish()
    return world


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.long
def test_killed_at_any_step(templates: Templates, tmp_path: Path, step: str, *, after: bool) -> None:
    """A kill before or after any step leaves what is served whole; said again, forget finishes."""
    world = templates.world(asked_twice, tmp_path)
    kill_at(step, erase.erase_entry, world.job, world.data, {"name": PRIVATE}, after=after)
    with world.served() as snapshot:
        snapshot.verify()
        assert snapshot.get({"name": "Ann"}) is not None
    try:
        forget(world)
    except NotFound:
        assert after
    assert traces(world.data.folder) == []
    others_are_whole(world)
    assert not list(world.data.folder.glob(".*"))


def test_the_lookup_file_is_new(world: World) -> None:
    """The rebuilt lookup file holds the other entries only, under the hashes that they had."""
    forget(world)
    with lmdb.open(str(folder_of(world.data, 2) / LOOKUP), subdir=False, readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == 2


def test_home_of_the_copy(world: World) -> None:
    """A job folder with nothing but a lock has nothing to forget."""
    data = JobData(world.data.root, "other")
    data.folder.mkdir()
    with pytest.raises(NotFound, match="Nothing of the job other is stored in"):
        erase.erase_entry(None, data, {"name": "x"})


@pytest.mark.long
def test_verdicts_are_erased_too(world: World) -> None:
    """What people said of the entry goes with it, corrected values too; what they said of others stays."""
    rows = [
        row | {"corrected": f"{row['name']} by hand", "author": f"who knows {row['name']}"} for row in world.review()
    ]
    assert world.judge(rows).corrected == len(NAMES)
    world.review_path.unlink()
    world.publish()
    assert forget(world)["imports"] == 1
    assert traces(world.data.folder) == []
    assert json.loads(world.get(name="Ann") or b"{}")["prediction"] == "Ann by hand"
