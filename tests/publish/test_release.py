"""Which version is served: pins, a CURRENT that is no help, numbers, and publishing that is killed at any step."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache import imports
from batchinfer.core.locks import lock
from batchinfer.errors import Busy, GateFailed, StoreError
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.report import RunReport
from batchinfer.planning.prepare import Options
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import PinReport
from tests.factories import Templates, World, imports_job
from tests.killing import kill_at
from tests.tiny import ROOT, RecordingConsole, until

OPEN = {"coverage": 0, "failures": 1, "shrink": 1, "changed": 1, "carried": 1}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A job that lives by imports, with nothing published yet."""
    return imports_job(tmp_path, {"id": [1]}, gate=OPEN)


Having = Callable[..., World]


def several(folder: Path, *values: str) -> World:
    """A job that published one version for each of these values."""
    world = imports_job(folder, {"id": [1]}, gate=OPEN)
    for value in values:
        add(world, value)
    return world


@pytest.fixture
def having(templates: Templates, tmp_path: Path) -> Having:
    """A copy of `several`."""
    return functools.partial(templates.world, several, tmp_path)


def add(world: World, value: str) -> RunReport:
    """Imports a value and publishes it; returns the report."""
    world.take_in({"id": [1], "prediction": [value]})
    return world.publish()


def recorded_publish(world: World) -> tuple[RunReport, str]:
    """Publishes; returns the report and all that was said."""
    console = RecordingConsole()
    return publish(world.job, world.data, Options(), console), "\n".join(console.said)


def value(world: World) -> str:
    """The one entry that is served, out of a version that is whole."""
    with world.served() as snapshot:
        snapshot.verify()
        found: str = json.loads(snapshot.get({"id": 1}) or b"")["prediction"]
        return found


def folder(world: World, version: int) -> Path:
    return folders.folder_of(world.data, version)


# Pins


@pytest.mark.long
def test_a_pin_survives_publishes(world: World) -> None:
    """A pinned version is served whatever is published, and the report says that it hides that; unpinning shows the newest."""
    assert add(world, "one").pinned is None
    add(world, "two")
    pointers.pin(world.data, 1)
    report = add(world, "three")
    assert (report.version, report.pinned, value(world)) == (3, 1, "one")
    assert [(row.version, row.current, row.pinned) for row in pointers.list_versions(world.data, pytest.fail)] == [
        (3, True, False), (2, False, False), (1, False, True),
    ]  # fmt: skip
    pointers.pin(world.data, 2)
    assert value(world) == "two"
    assert pointers.unpin(world.data).was_pinned
    assert value(world) == "three"
    assert not pointers.unpin(world.data).was_pinned


@pytest.mark.long
def test_a_run_says_that_a_pin_hides_what_it_published(having: Having) -> None:
    """The report of a run names the pin in the way, also where nothing new was published; a pin on the current version hides nothing."""
    world = having("one")
    world.take_in({"id": [1], "prediction": ["two"]})
    pointers.pin(world.data, 1)
    assert (world.run().pinned, world.run().pinned) == (1, 1)
    pointers.pin(world.data, 2)
    assert world.run().pinned is None


def test_a_damaged_pin_does_not_end_a_publish(having: Having) -> None:
    """A damaged PIN is said to be so and left alone; unpinning removes it."""
    world = having("one")
    (world.data.folder / pointers.PIN).write_bytes(b"{")
    world.take_in({"id": [1], "prediction": ["two"]})
    report, said = recorded_publish(world)
    assert (report.version, report.pinned) == (2, None)
    assert "PIN is damaged" in said
    assert "batchinfer unpin shop fixes it." in said
    with pytest.raises(StoreError, match="PIN is damaged"):
        world.served()
    assert pointers.unpin(world.data).was_pinned
    assert value(world) == "two"


def test_a_pin_does_not_wait_for_a_run(having: Having) -> None:
    """While a run of hours holds its lock, versions can be pinned, unpinned and rolled back."""
    world = having("one", "two")
    with world.data.run_lock("batchinfer run shop"):
        pointers.roll_back(world.data)
        assert value(world) == "one"
        pointers.unpin(world.data)
        pointers.pin(world.data, 2)
    assert value(world) == "two"


# What is published under a pin


def test_under_a_pin_the_gate_compares_with_what_is_served(having: Having) -> None:
    """The version that is pinned is what a new one follows; what only the current one says does not count."""
    world = having("one", "two")
    pointers.pin(world.data, 1)
    strict = world.changed(gate=OPEN | {"changed": 0})
    world.take_in({"id": [1, 2], "prediction": ["one", "more"]})
    assert (strict.publish().version, value(world)) == (3, "one")
    assert Manifest.read(folder(world, 3)).parent == 1
    world.take_in({"id": [1], "prediction": ["two"]})
    with pytest.raises(GateFailed, match="changed: 1 of 1 served value differs"):
        strict.publish()


@pytest.mark.long
def test_what_the_pinned_version_says_is_published_again(having: Having) -> None:
    """After a rollback, the old answers become current under a new number, so that unpinning does not bring back the bad ones."""
    world = having("good", "bad")
    assert pointers.roll_back(world.data) == PinReport(world.data.name, 1, 1, before=2)
    imports.remove_import(world.store, 2)
    report = world.publish()
    assert (report.version, report.pinned, report.unchanged) == (3, 1, False)
    assert world.publish().unchanged  # the current version says so now
    pointers.unpin(world.data)
    assert (pointers.served(world.data).version, value(world)) == (3, "good")


def test_what_the_current_version_says_is_not_published_again_under_a_pin(having: Having) -> None:
    """A run while another version is pinned makes no copies of the current one."""
    world = having("one", "two")
    pointers.pin(world.data, 1)
    report = world.publish()
    assert (report.version, report.pinned, report.unchanged) == (None, 1, True)
    assert folders.numbers(world.data) == [1, 2]


def test_a_pinned_version_that_is_damaged_is_not_compared_with(having: Having) -> None:
    """Where what is pinned is not whole, that is said, and the current version is what a new one follows."""
    world = having("one", "two")
    pointers.pin(world.data, 1)
    os.truncate(folder(world, 1) / PREDICTIONS, 100)
    world.take_in({"id": [1], "prediction": ["three"]})
    report, said = recorded_publish(world)
    assert "is damaged: its checksum differs from the manifest's. It is pinned, but the new version is compared" in said
    assert (report.version, Manifest.read(folder(world, 3)).parent) == (3, 2)


# A CURRENT that is no help


def test_a_current_that_cannot_be_read_is_left_alone(having: Having) -> None:
    """What is there but cannot be read may be right: publishing ends with a sentence, and nothing takes its place."""
    world = having("one", "two")
    path = world.data.folder / pointers.CURRENT
    path.unlink()
    path.mkdir()  # not by permissions: root may read anything
    world.take_in({"id": [1], "prediction": ["three"]})
    with pytest.raises(StoreError, match=r"CURRENT cannot be read: It is no plain file\."):
        world.publish()
    assert path.is_dir()
    assert folders.numbers(world.data) == [1, 2]


BROKEN: dict[str, Callable[[World], Any]] = {
    "missing": lambda world: (world.data.folder / pointers.CURRENT).unlink(),
    "empty": lambda world: (world.data.folder / pointers.CURRENT).write_bytes(b""),
    "damaged": lambda world: (world.data.folder / pointers.CURRENT).write_bytes(b'{"version": 1'),
    "dangling": lambda world: shutil.rmtree(folder(world, 3)),
    "truncated": lambda world: os.truncate(folder(world, 3) / PREDICTIONS, 100),
    "other manifest": lambda world: (folder(world, 3) / MANIFEST).write_bytes((folder(world, 2) / MANIFEST).read_bytes()),
}  # fmt: skip


@pytest.fixture(params=BROKEN)
def broken(having: Having, request: pytest.FixtureRequest) -> tuple[World, int]:
    """A job of three versions whose CURRENT is no help, and the newest whole version."""
    world = having("one", "two", "three")
    BROKEN[request.param](world)
    return world, 3 if request.param in ("missing", "empty", "damaged") else 2


@pytest.mark.long
def test_publishing_goes_on_from_the_newest_whole_version(broken: tuple[World, int]) -> None:
    """A CURRENT that is missing or damaged, or names what is, does not block publishing; it says so, and no number is used again."""
    world, whole = broken
    world.take_in({"id": [1], "prediction": ["four"]})
    report, said = recorded_publish(world)
    assert (report.version, value(world)) == (4, "four")
    assert said.count(f"Version {whole}, the newest whole one, is current again.") == 1
    assert Manifest.read(folder(world, 4)).parent == whole


@pytest.mark.long
def test_publishing_the_same_mends_current(broken: tuple[World, int]) -> None:
    """Where the newest whole version says what the job says, CURRENT names it again and nothing new is published."""
    world, whole = broken
    if whole == 2:
        imports.remove_import(world.store, 3)
    report, _ = recorded_publish(world)
    assert (report.version, report.unchanged, value(world)) == (None, True, "three" if whole == 3 else "two")
    assert pointers.served(world.data).version == whole
    assert recorded_publish(world)[1] == ""


def test_a_refusal_mends_current_too(broken: tuple[World, int]) -> None:
    """Where the gate refuses what would follow, the newest whole version is served."""
    world, whole = broken
    world.take_in({"id": [1], "prediction": ["four"]})
    with pytest.raises(GateFailed):
        world.changed(gate={"changed": 0}).publish()
    assert pointers.served(world.data).version == whole
    assert value(world) == ("three" if whole == 3 else "two")


def test_a_refusal_where_nothing_is_whole(world: World) -> None:
    """A damaged CURRENT and no version: the gate's verdict is reported, as ever."""
    (world.data.folder / pointers.CURRENT).write_bytes(b"?")
    (world.data.versions / "000001").mkdir(parents=True)
    with pytest.raises(GateFailed, match="rows: 0 entries"):
        world.publish()


@pytest.mark.long
def test_a_number_is_never_used_again(having: Having) -> None:
    """Numbers go up also where folders, CURRENT and PIN are gone, and past a folder that is no version."""
    world = having("one", "two")
    shutil.rmtree(world.data.versions)
    world.take_in({"id": [1], "prediction": ["three"]})
    report, said = recorded_publish(world)
    assert report.version == 3
    assert "No version is whole, so the new one has no parent." in said
    assert Manifest.read(folder(world, 3)).parent is None
    shutil.rmtree(world.data.versions)
    (world.data.folder / pointers.CURRENT).unlink()
    assert add(world, "four").version == 4
    (folder(world, 9)).mkdir()
    assert add(world, "five").version == 10
    assert value(world) == "five"


def test_a_first_publish_says_nothing_of_current(world: World) -> None:
    """Before the first version there is no CURRENT, and that is no fault."""
    world.take_in({"id": [1], "prediction": ["one"]})
    assert "CURRENT" not in recorded_publish(world)[1]


# How it is served


@pytest.mark.parametrize(
    "sections",
    [
        {"serve": {"max_age": "5m"}},
        {"alerts": [{"on": ["failed"], "command": ["page"]}]},
        {"match": {"terms": ["prediction"], "concept": "id"}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_another_way_to_serve_is_news(having: Having, sections: dict[str, Any]) -> None:
    """A change of how the job is served or matched reaches a new version; one of keep_versions alone does not make one."""
    world = having("one")
    assert world.changed(keep_versions=3).publish().unchanged
    changed = world.changed(**sections)
    assert changed.publish().version == 2
    [section] = sections
    written = json.loads(Manifest.read(folder(world, 2)).spec.sections[section])
    assert written == json.loads(changed.job.spec.model_dump_json(by_alias=True))[section]
    assert changed.publish().unchanged


def test_a_run_that_ended_well_is_noted(world: World) -> None:
    """last_run.json names the last run that was done, also one that published nothing; a refused one is not noted."""
    path = world.data.folder / "last_run.json"
    world.take_in({"id": [1], "prediction": ["one"]})
    world.run()
    noted = json.loads(path.read_bytes())
    assert noted.keys() == {"run_id", "finished_at"}
    assert noted["run_id"] == 1
    assert noted["finished_at"].endswith("Z")
    assert world.run().unchanged
    assert json.loads(path.read_bytes())["run_id"] == 2
    world.take_in({"id": [1], "prediction": ["two"]})
    with pytest.raises(GateFailed):
        world.changed(gate={"changed": 0}).run()
    assert json.loads(path.read_bytes())["run_id"] == 2


# Publishing that is killed

STEPS = [  # in order; what is served then, and which complete versions there are
    ("publish.candidate:Candidate.__init__", "after", "old", [1]),
    ("publish.candidate:Candidate.write", "after", "old", [1]),
    ("publish.gate:judge", "after", "old", [1]),
    ("publish.lookup_index:write_lookup", "after", "old", [1]),
    ("publish.build:write_manifest", "after", "old", [1]),
    ("versions.folders:sync_files", "after", "old", [1]),
    ("publish.build:check", "after", "old", [1]),
    ("versions.folders:move_into_place", "after", "old", [1, 2]),
    ("versions.pointers:make_current", "before", "old", [1, 2]),
    ("versions.pointers:make_current", "after", "new", [1, 2]),
    ("versions.retention:retain", "before", "new", [1, 2]),
    ("versions.retention:sync_folder", "after", "new", [2]),
    ("versions.retention:retain", "after", "new", [2]),
]


def one_kept(folder: Path) -> World:
    """A job that keeps one version, and has it."""
    world = imports_job(folder, {"id": [1]}, gate=OPEN, keep_versions=1)
    add(world, "old")
    return world


@pytest.mark.parametrize(("step", "when", "served", "there"), STEPS, ids=[f"{when} {step}" for step, when, *_ in STEPS])
@pytest.mark.long
def test_a_killed_publish_leaves_a_whole_version_served(
    templates: Templates, tmp_path: Path, step: str, when: str, served: str, there: list[int]
) -> None:
    """After kill -9 at any step the old version is served or the new one, whole; the next attempt publishes and clears up."""
    world = templates.world(one_kept, tmp_path)
    world.take_in({"id": [1], "prediction": ["new"]})
    kill_at(step, World.publish, world, after=when == "after")
    assert value(world) == served
    assert folders.numbers(world.data) == there
    assert (world.publish().version is None) == (served == "new")
    assert value(world) == "new"
    add(world, "newer")
    assert value(world) == "newer"
    assert [path.name for path in world.data.versions.iterdir()] == [f"{folders.numbers(world.data)[-1]:06d}"]


@contextlib.contextmanager
def child(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process with this program; it does not outlive the test."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


SLOW = """
    import sys, time
    from pathlib import Path
    from batchinfer.job import reader
    from batchinfer.core.home import JobData
    from batchinfer.pipeline.publish import publish
    from batchinfer.planning.prepare import Options
    from batchinfer.publish import lookup_index
    from tests.factories import Quiet
    folder, home, sign = sys.argv[1:]
    real = lookup_index.write_lookup
    def slow(*arguments, **named):
        Path(sign, "building").touch()
        while not Path(sign, "go").exists():
            time.sleep(0.02)
        return real(*arguments, **named)
    lookup_index.write_lookup = slow
    job = reader.load(folder, {})
    publish(job, JobData(Path(home), job.name), Options(), Quiet())
"""


@pytest.mark.long
def test_two_publishers_at_once(world: World, tmp_path: Path) -> None:
    """While one publishes, another ends at once with exit code 5 and its name; the first one's version is served."""
    world.take_in({"id": [1], "prediction": ["one"]})
    with child(SLOW, str(world.job.folder), str(world.data.root), str(tmp_path)) as first:
        until((tmp_path / "building").exists)
        with pytest.raises(Busy, match=rf"in use by batchinfer publish shop \(process {first.pid}\)") as raised:
            world.publish()
        assert raised.value.exit_code == 5
        (tmp_path / "go").touch()
        assert first.wait(60) == 0
    assert (folders.numbers(world.data), value(world)) == ([1], "one")
    assert world.publish().unchanged


HOLDS = """
    import sys, time
    from pathlib import Path
    from batchinfer.core.locks import lock
    with lock(Path(sys.argv[1]), "somebody"):
        Path(sys.argv[2]).touch()
        time.sleep(1.5)
"""


def test_a_short_lock_is_waited_for(having: Having, tmp_path: Path) -> None:
    """Who would change what is served waits for another who does so just now; the lock goes with its process."""
    world = having("one")
    path = world.data.folder / "versions.lock"
    with child(HOLDS, str(path), str(tmp_path / "held")):
        until((tmp_path / "held").exists)
        with lock(path, "me") as holder:
            assert holder is not None
            assert holder.startswith("somebody")
        pointers.pin(world.data, 1)
    assert pointers.pinned(world.data) == 1


# No space


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("A small file system can be mounted by root only.")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # files of the failed attempt may still be mapped


def old_and_new(folder: Path) -> World:
    """A job with one version, and other answers to all its keys that wait to be published."""
    count = 3000
    world = imports_job(folder, {"id": range(count)}, gate=OPEN)
    world.take_in({"id": range(count), "prediction": [f"old {number}" * 9 for number in range(count)]})
    world.publish()
    world.take_in({"id": range(count), "prediction": [f"{number} new {number**5}" * 9 for number in range(count)]})
    return world


@pytest.mark.parametrize("left", [0, 100, 300, 600])
@pytest.mark.long
def test_no_space_while_publishing(templates: Templates, small_disk: Path, left: int) -> None:
    """Where the disk fills up at whatever point, one sentence says so, the old version is served, and the next attempt publishes."""
    world = templates.world(old_and_new, small_disk)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    os.truncate(filler, filler.stat().st_size - (left << 10))
    with pytest.raises(StoreError, match=r"(?i)space|full|cannot be") as raised:
        world.publish()
    assert "\n" not in str(raised.value)
    filler.unlink()
    with world.served() as snapshot:
        snapshot.verify()
        assert json.loads(snapshot.get({"id": 7}) or b"")["prediction"].startswith("old 7")
    assert folders.numbers(world.data) == [1]
    assert world.publish().version is not None
    with world.served() as snapshot:
        assert json.loads(snapshot.get({"id": 7}) or b"")["prediction"].startswith("7 new")
