"""Which old versions and refused candidates are removed, and which stay."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.clock import iso, now
from batchinfer.core.home import JobData
from batchinfer.errors import GateFailed, StoreError
from batchinfer.pipeline.publish import publish
from batchinfer.planning.prepare import Options
from batchinfer.versions import folders, pointers, retention
from batchinfer.versions.keep import Keep
from batchinfer.versions.layout import MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import PinReport
from tests.factories import World, imports_job
from tests.tiny import RecordingConsole

KEEPS = "keep_versions keeps"
OPEN = {"coverage": 0, "failures": 1, "shrink": 1, "changed": 1, "carried": 1}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A job that keeps two versions."""
    return imports_job(tmp_path, {"id": [1]}, gate=OPEN, keep_versions=2)


def add(world: World, *values: str) -> None:
    """Imports and publishes one value after another."""
    for value in values:
        world.take_in({"id": [1], "prediction": [value]})
        world.publish()


def value(world: World) -> str:
    with world.served() as snapshot:
        snapshot.verify()
        found: str = json.loads(snapshot.get({"id": 1}) or b"")["prediction"]
        return found


def opened(folder: Path) -> int:
    """Holds a version as a server does, that has it open."""
    handle = os.open(folder / MANIFEST, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def kept(world: World, count: int, days: int | None = None) -> retention.Removed:
    return retention.retain(world.data, Keep(count, days), lambda _: None)


def aged(folder: Path, days: int) -> None:
    """Makes a version or candidate look so many days old."""
    made = iso(now() - timedelta(days=days))
    (folder / MANIFEST).write_bytes(Manifest.read(folder).derive(created_at=made).to_bytes())


@pytest.mark.long
def test_the_newest_versions_stay(world: World) -> None:
    """After each publish the newest keep_versions stay, with nothing else beside them."""
    add(world, "one", "two", "three", "four")
    assert folders.numbers(world.data) == [3, 4]
    assert sorted(path.name for path in world.data.versions.iterdir()) == ["000003", "000004"]
    assert value(world) == "four"
    world = world.changed(keep_versions=1)
    assert world.publish().unchanged
    assert folders.numbers(world.data) == [4]


@pytest.mark.long
def test_what_is_young_stays_whatever_its_number(world: World) -> None:
    """With a number and days a version goes only once it is beyond both, and so does a candidate.

    One from the future is as good as old.
    """
    world = world.changed(keep_versions={"count": 2, "days": 30})
    add(world, "one", "two", "three", "four", "five")
    assert folders.numbers(world.data) == [1, 2, 3, 4, 5]
    for number, days in ((1, -365), (2, 29), (3, 400), (4, 400)):
        aged(folders.folder_of(world.data, number), days)
    for name, days in (("r1", 31), ("r2", 29), ("r3", 31), ("r3-2", 31)):
        shutil.copytree(folders.folder_of(world.data, 1), world.data.rejected / name)
        aged(world.data.rejected / name, days)
    report = world.publish()
    assert folders.numbers(world.data) == [2, 4, 5]
    assert folders.candidates(world.data) == ["r2", "r3", "r3-2"]
    assert report.versions_removed == [1, 3, "r1"]


@pytest.mark.long
def test_by_default_an_afternoon_removes_nothing(world: World) -> None:
    """Without a setting the newest five stay, and all of the last 30 days: many publishings in a row remove none."""
    world = world.changed(keep_versions=None)
    add(world, *"abcdefg")
    assert folders.numbers(world.data) == [1, 2, 3, 4, 5, 6, 7]
    aged(folders.folder_of(world.data, 1), 31)
    aged(folders.folder_of(world.data, 3), 31)
    add(world, "h")
    assert folders.numbers(world.data) == [2, 4, 5, 6, 7, 8]


def test_the_age_of_a_damaged_version_is_its_file_s(world: World) -> None:
    """A version whose manifest cannot be read is as old as the file."""
    add(world, "one", "two")
    path = folders.folder_of(world.data, 1) / MANIFEST
    path.write_bytes(b"?")
    assert kept(world, 1, days=30).versions == ()
    os.utime(path, (0, 0))
    assert kept(world, 1, days=30).versions == (1,)


@pytest.mark.long
def test_each_removal_is_said(world: World) -> None:
    """Whoever publishes is told what went, and by which setting; where nothing went, nothing."""
    add(world, "one", "two")
    console = RecordingConsole()
    for text in ("three", "four"):
        world.take_in({"id": [1], "prediction": [text]})
        publish(world.job, world.data, Options(), console)
    said = [text for text in console.said if "Removed" in text]
    assert said == [f"Removed version {number}: keep_versions keeps the newest 2." for number in (1, 2)]


@pytest.mark.parametrize(
    ("versions", "candidates", "keep", "said"),
    [
        ((), (), Keep(2), None),
        ((1, 2), (), Keep(1), "Removed versions 1, 2: keep_versions keeps the newest."),
        (
            (1,),
            ("r1", "r2"),
            Keep(5, 30),
            f"Removed version 1 and refused candidates r1, r2: {KEEPS} the newest 5 and those of the last 30 days.",
        ),
        (
            (),
            ("r1",),
            Keep(2, 1),
            f"Removed refused candidate r1: {KEEPS} the newest 2 and those of the last day.",
        ),
    ],
)
def test_how_a_removal_is_said(
    versions: tuple[int, ...], candidates: tuple[str, ...], keep: Keep, said: str | None
) -> None:
    """One sentence has all that went."""
    assert retention.Removed(versions, candidates).told(keep) == said


def test_what_a_manifest_says_of_it() -> None:
    """A copy keeps what the manifest says, of older programs too; what none of them wrote is refused."""
    assert Keep.of(3) == Keep(3)
    assert Keep.of({"count": 3, "days": 9}) == Keep(3, 9)
    for wrong in (None, "many", {"count": 3}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Keep.of(wrong)


@pytest.mark.long
def test_the_pinned_version_stays(world: World) -> None:
    """A pinned version is kept beside the newest, for as long as it is pinned."""
    add(world, "one", "two")
    pointers.pin(world.data, 1)
    add(world, "three", "four")
    assert (folders.numbers(world.data), value(world)) == ([1, 3, 4], "one")
    pointers.unpin(world.data)
    add(world, "five")
    assert folders.numbers(world.data) == [4, 5]


def test_the_current_version_stays(world: World) -> None:
    """The version that CURRENT names stays, though newer ones lie beside it."""
    add(world, "one", "two")
    for number in (3, 4, 5):  # as publishers leave them that are killed before the flip
        shutil.copytree(folders.folder_of(world.data, 2), folders.folder_of(world.data, number))
    assert kept(world, 1).versions == (1, 3, 4)
    assert (folders.numbers(world.data), value(world)) == ([2, 5], "two")


@pytest.mark.long
def test_a_version_that_a_server_has_open_stays(world: World) -> None:
    """A version is left alone while anybody holds a shared lock on its manifest, and goes with the next clean-up after that."""
    add(world, "one")
    handle = opened(folders.folder_of(world.data, 1))
    try:
        add(world, "two", "three")
        assert folders.numbers(world.data) == [1, 2, 3]
    finally:
        os.close(handle)
    add(world, "four")
    assert folders.numbers(world.data) == [3, 4]


def test_a_version_cannot_be_opened_while_it_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while a version is being removed cannot take the lock, and finds it gone afterwards."""
    add(world, "one", "two")
    tried: list[Path] = []
    real = shutil.rmtree

    def watched(path: Path, **options: Any) -> None:
        path = Path(path)  # the library hands its temporary folders over as texts
        if (path / MANIFEST).exists() and path.parent == world.data.versions and not path.name.startswith(".building"):
            assert folders.numbers(world.data) == [2, 3]
            tried.append(path)
            handle = os.open(path / MANIFEST, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.close(handle)
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    add(world, "three")
    assert [path.name for path in tried] == [".removing-000001"]
    assert folders.numbers(world.data) == [2, 3]


def test_who_holds_a_versions_lock_cannot_keep_it_from_being_served(world: World) -> None:
    """Whoever can read a version can lock its manifest for good: it is opened all the same."""
    add(world, "one")
    with (folders.folder_of(world.data, 1) / MANIFEST).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert value(world) == "one"


@pytest.mark.parametrize("name", [pointers.CURRENT, pointers.PIN])
def test_nothing_goes_while_it_is_unclear_what_is_served(world: World, name: str) -> None:
    """Where CURRENT or PIN is damaged, no version is removed."""
    add(world, "one", "two")
    (world.data.folder / name).write_bytes(b"?")
    assert kept(world, 1).versions == ()
    assert folders.numbers(world.data) == [1, 2]


def test_what_a_killed_removal_left_is_cleared(world: World) -> None:
    """Half-removed versions and candidates are never listed, and go with the next clean-up."""
    add(world, "one", "two")
    for place in (world.data.versions / ".removing-000009", world.data.rejected / ".removing-r9"):
        shutil.copytree(folders.folder_of(world.data, 1), place)
        (place / PREDICTIONS).unlink()
    assert folders.numbers(world.data) == [1, 2]
    assert folders.candidates(world.data) == []
    kept(world, 2)
    assert not list(world.data.folder.glob("*/.removing-*"))
    assert folders.numbers(world.data) == [1, 2]


@pytest.mark.long
def test_a_version_that_cannot_be_removed_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish whose clean-up fails has published all the same."""
    add(world, "one", "two")

    def refuse(*arguments: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(retention, "sync_folder", refuse)
        patched.setattr(Path, "rename", rename_or(refuse, world.data))
        world.take_in({"id": [1], "prediction": ["three"]})
        assert world.publish().version == 3
    assert (folders.numbers(world.data), value(world)) == ([1, 2, 3], "three")
    add(world, "four")
    assert folders.numbers(world.data) == [3, 4]


def rename_or(refuse: Callable[..., None], data: JobData) -> Callable[[Path, Path], Path]:
    """A rename that will not touch versions that there are."""
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.parent == data.versions and path.name.isdigit():
            refuse()
        return real(path, target)

    return rename


@pytest.mark.long
def test_the_newest_candidates_stay(world: World) -> None:
    """Refused candidates are kept as long as they are among the newest keep_versions, whether anything is published or not."""
    add(world, "one")
    world = world.changed(gate={"changed": 0})
    for text in ("two", "three", "four"):
        world.take_in({"id": [1], "prediction": [text]})
        with pytest.raises(GateFailed):
            world.run()
    assert folders.candidates(world.data) == ["r2", "r3"]
    with pytest.raises(GateFailed):
        world.publish()
    assert folders.candidates(world.data) == ["r3", "r3-2"]
    assert folders.numbers(world.data) == [1]


@pytest.mark.long
def test_a_rollback_needs_a_version_that_was_kept(world: World) -> None:
    """What was removed is gone: it can neither be pinned nor rolled back to."""
    add(world, "one", "two", "three")
    assert pointers.roll_back(world.data) == PinReport(world.data.name, 2, 2, before=3)
    with pytest.raises(StoreError, match="is missing"):
        folders.verify(world.data, 1)
