"""copy: a version reaches another data folder whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import Busy, StoreError
from batchinfer.versions import folders, pointers, replication
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import CHECKS, INDEX, LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.snapshot import Snapshot
from tests.factories import LENIENT, Quiet, Templates, World, imports_job
from tests.killing import kill_at
from tests.tiny import Cli


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, with the data folder of `world`."""
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys, tmp_path / "home")


def one_version(folder: Path) -> World:
    """A job with one version, in which 1 is one."""
    made = imports_job(folder, {"id": [1, 2]}, gate=LENIENT)
    say(made, "one")
    return made


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """`one_version`."""
    return templates.world(one_version, tmp_path)


def say(world: World, text: str) -> None:
    """Publishes a version in which 1 is this text."""
    world.take_in({"id": [1], "prediction": [text]})
    world.publish()


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Another data folder, still empty."""
    (tmp_path / "dest").mkdir()
    return tmp_path / "dest"


def served(root: Path) -> tuple[int, str]:
    """What a data folder serves: the version, and what it says of 1. Everything is checked on the way."""
    data = JobData(root, "shop")
    found = pointers.served(data)
    with Snapshot(folder_of(data, found.version), digest=found.digest) as snapshot:
        snapshot.verify()
        return found.version, json.loads(snapshot.get({"id": 1}) or b"{}")["prediction"]


def quiet(text: str) -> None:
    """Takes no notice."""


def test_what_is_served_arrives(world: World, dest: Path, batchinfer: Cli) -> None:
    """A copy has the same bytes under the same number, is served, and needs no job file."""
    done = batchinfer("copy", "shop", dest, "--json")
    assert (done.code, done.err) == (0, "")
    assert (done.json["version"], done.json["copied"], done.json["pinned"]) == (1, True, None)
    assert served(dest) == (1, "one")
    for name in (PREDICTIONS, LOOKUP, MANIFEST):
        there = dest / "shop" / "versions" / "000001" / name
        assert there.read_bytes() == (folder_of(world.data, 1) / name).read_bytes()
    assert not (dest / "shop" / "job.json").exists()
    assert batchinfer("--home", dest, "lookup", "shop", "id=1", "--json").json["prediction"] == "one"
    assert len(batchinfer("--home", dest, "versions", "shop", "--json").json) == 1


def test_a_copy_of_a_copy(world: World, dest: Path, batchinfer: Cli, tmp_path: Path) -> None:
    """A copy can be copied on, from a data folder that knows no job file."""
    (tmp_path / "third").mkdir()
    assert batchinfer("copy", "shop", dest).code == 0
    assert batchinfer("--home", dest, "copy", "shop", tmp_path / "third").code == 0
    assert served(tmp_path / "third") == (1, "one")


def test_a_pinned_version_is_what_is_copied(world: World, dest: Path, batchinfer: Cli) -> None:
    """The version that is pinned here is shipped, and is current there."""
    say(world, "two")
    pointers.pin(world.data, 1)
    assert batchinfer("copy", "shop", dest, "--json").json["version"] == 1
    assert served(dest) == (1, "one")


def test_again_copies_nothing(world: World, dest: Path, batchinfer: Cli) -> None:
    """A version that is there already is not copied again, but made current, also after a newer one."""
    batchinfer("copy", "shop", dest)
    say(world, "two")
    batchinfer("copy", "shop", dest)
    assert served(dest) == (2, "two")
    pointers.pin(world.data, 1)
    before = (dest / "shop" / "versions" / "000001" / LOOKUP).stat().st_mtime_ns
    done = batchinfer("copy", "shop", dest)
    assert "has version 1 already" in done.out.replace("\n", " ")
    assert served(dest) == (1, "one")
    assert (dest / "shop" / "versions" / "000001" / LOOKUP).stat().st_mtime_ns == before


def test_a_pin_there_stays(world: World, dest: Path, batchinfer: Cli) -> None:
    """A pin in the other folder goes on deciding what is served there, and the copy warns of it."""
    batchinfer("copy", "shop", dest)
    pointers.pin(JobData(dest, "shop"), 1)
    say(world, "two")
    done = batchinfer("copy", "shop", dest, "--json")
    assert done.json["pinned"] == 1
    assert "Version 1 is pinned" in done.err
    assert served(dest) == (1, "one")
    current = pointers.pointer(JobData(dest, "shop"))
    assert current is not None
    assert current.version == 2


def test_what_a_server_tells_comes_along(world: World, dest: Path) -> None:
    """The report of the last run, and how right the version is, are carried over with it; not how right others are."""
    (world.data.folder / "last_run.json").write_text('{"status": "done"}')
    world.data.evals.mkdir()
    for version in (1, 2):
        (world.data.evals / f"precision-v{version}.json").write_text(f"of {version}")
    replication.replicate(world.data, dest, quiet)
    assert (dest / "shop" / "last_run.json").read_text() == '{"status": "done"}'
    assert [path.read_text() for path in (dest / "shop" / "evals").iterdir()] == ["of 1"]


@pytest.mark.long
def test_old_copies_go(tmp_path: Path, dest: Path) -> None:
    """The other folder keeps as many versions as the job file says."""
    made = imports_job(tmp_path, {"id": [1, 2]}, gate=LENIENT, keep_versions=2)
    for text in ("one", "two", "three"):
        say(made, text)
        replication.replicate(made.data, dest, quiet)
    assert served(dest) == (3, "three")
    assert folders.numbers(JobData(dest, "shop")) == [2, 3]


@pytest.mark.long
def test_another_version_of_that_number(world: World, dest: Path, batchinfer: Cli, tmp_path: Path) -> None:
    """A number that the other folder gave to something else is refused, with what to do; nothing changes there."""
    other = imports_job(tmp_path / "other", {"id": [1, 2]}, gate=LENIENT)
    say(other, "theirs")
    shutil.copytree(other.data.folder, dest / "shop")
    done = batchinfer("copy", "shop", dest)
    assert done.code == 2
    assert "has another version 1 of its own: remove" in done.sentence
    assert served(dest) == (1, "theirs")


def test_half_a_version_there(world: World, dest: Path, batchinfer: Cli) -> None:
    """A folder of that number that is not whole is neither trusted nor overwritten."""
    (dest / "shop" / "versions" / "000001").mkdir(parents=True)
    done = batchinfer("copy", "shop", dest)
    assert (done.code, "is not a complete version: remove that folder" in done.sentence) == (2, True)


def test_a_damaged_version_there(world: World, dest: Path) -> None:
    """A version that is there but damaged is not made current."""
    replication.replicate(world.data, dest, quiet)
    say(world, "two")
    replication.replicate(world.data, dest, quiet)
    place = dest / "shop" / "versions" / "000001" / PREDICTIONS
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    pointers.pin(world.data, 1)
    with pytest.raises(StoreError, match=rf"is damaged: .* Remove {place.parent}, then copy again\."):
        replication.replicate(world.data, dest, quiet)
    assert served(dest) == (2, "two")
    shutil.rmtree(place.parent)
    replication.replicate(world.data, dest, quiet)
    assert served(dest) == (1, "one")


def pipe_for(path: Path) -> None:
    """Puts a pipe into a file's place."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", [PREDICTIONS, LOOKUP])
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), pipe_for]
)
def test_a_damaged_source_is_not_shipped(world: World, dest: Path, name: str, damage: Callable[[Path], object]) -> None:
    """A file that is missing here, or not what was published, stops the copy; the other folder serves what it did."""
    replication.replicate(world.data, dest, quiet)
    say(world, "two")
    damage(folder_of(world.data, 2) / name)
    empty = dest.with_name("empty")
    with pytest.raises(StoreError):
        replication.replicate(world.data, empty, quiet)
    assert not (empty / "shop").exists()  # not even as a job without a version
    with pytest.raises(StoreError, match=f"000002/{name} (is missing|is damaged|cannot be opened|is truncated)"):
        replication.replicate(world.data, dest, quiet)
    assert served(dest) == (1, "one")
    assert [path.name for path in (dest / "shop" / "versions").iterdir()] == ["000001"]


def test_places_that_will_not_do(world: World, tmp_path: Path, batchinfer: Cli) -> None:
    """The data folder itself, also by a link, and a file are each refused in a sentence."""
    (tmp_path / "link").symlink_to(world.data.root)
    (tmp_path / "file").touch()
    for place, says in (
        (world.data.root, "is the data folder that the version lies in"),
        (tmp_path / "link", "is the data folder that the version lies in"),
        (tmp_path / "file", "is not a folder: name a data folder"),
    ):
        done = batchinfer("copy", "shop", place)
        assert done.code == 2
        assert says in done.sentence


def test_a_folder_that_is_not_there_is_made(world: World, tmp_path: Path, batchinfer: Cli) -> None:
    """A destination need not exist, nor the folders above it."""
    assert batchinfer("copy", "shop", tmp_path / "far" / "away").code == 0
    assert served(tmp_path / "far" / "away") == (1, "one")


def test_no_version_to_ship(tmp_path: Path, dest: Path, batchinfer: Cli) -> None:
    """A job without a version has nothing to copy."""
    made = imports_job(tmp_path, {"id": [1]})
    done = batchinfer("copy", made.job.path, dest)
    assert (done.code, "no published version" in done.sentence) == (6, True)


def test_no_right_to_write(world: World, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be written is a sentence."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dest / "shop"))

    monkeypatch.setattr(Path, "mkdir", refused)  # not by permissions: root may write anywhere
    with pytest.raises(StoreError, match="Permission denied for"):
        replication.replicate(world.data, dest, quiet)


def test_no_space(world: World, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is a sentence; what was written goes, and the other folder serves what it did."""
    replication.replicate(world.data, dest, quiet)
    say(world, "two")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="Free space"):
        replication.replicate(world.data, dest, quiet)
    monkeypatch.undo()
    assert served(dest) == (1, "one")
    assert [path.name for path in (dest / "shop" / "versions").iterdir()] == ["000001"]


def test_somebody_else_at_work_there(world: World, dest: Path) -> None:
    """While the other folder's job is in use, nothing is copied, and its user is named."""
    with (
        JobData(dest, "shop").run_lock("batchinfer run shop"),
        pytest.raises(Busy, match="in use by batchinfer run shop"),
    ):
        replication.replicate(world.data, dest, quiet)


@pytest.mark.parametrize(
    "step", ["versions.folders:sync_files", "versions.folders:move_into_place", "versions.pointers:make_current"]
)
@pytest.mark.long
def test_killed_half_way(world: World, dest: Path, step: str) -> None:
    """A copy that is killed at any step leaves the other folder serving what it did; the next one finishes the work."""
    replication.replicate(world.data, dest, quiet)
    say(world, "two")
    kill_at(step, replication.replicate, world.data, dest, Quiet().info)
    assert served(dest) == (1, "one")
    replication.replicate(world.data, dest, quiet)
    assert served(dest) == (2, "two")
    assert sorted(path.name for path in (dest / "shop" / "versions").iterdir()) == ["000001", "000002"]


def test_big_files_are_told_of(world: World, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes a while to copy is announced, once."""
    monkeypatch.setattr(replication, "BIG", 0)
    said: list[str] = []
    replication.replicate(world.data, dest, said.append)
    assert [text.split()[1] for text in said] == [CHECKS, INDEX, LOOKUP, PREDICTIONS]
