"""Following the served version: taken when it is whole, never otherwise, and what is served in the meantime."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.versions import folders, follow, pointers
from batchinfer.versions.extents import MAGIC
from batchinfer.versions.folders import folder_of
from batchinfer.versions.follow import FollowedVersion, Follower
from batchinfer.versions.layout import CHECKS, INDEX, LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.pointers import CURRENT, PIN, Pointer
from batchinfer.versions.snapshot import Snapshot
from tests.damage import INDEXES, POINTERS, VERSIONS, Damage, cut, flipped, made_to_fit, next_version, point, without
from tests.tiny import BECOME_NOBODY, folder_for_all, process
from tests.versions.following import following, says

DAMAGED = pytest.mark.parametrize(("damage", "sentence"), VERSIONS.values(), ids=VERSIONS)
NOT_WHOLE = pytest.mark.parametrize(("damage", "sentence"), (VERSIONS | INDEXES).values(), ids=list(VERSIONS | INDEXES))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be opened is looked at again without waiting."""
    monkeypatch.setattr(follow, "RETRY_SECONDS", 0.0)


def test_a_new_version_is_picked_up(data: JobData) -> None:
    """A publish is noticed by the next look, and only then does anything change."""
    point(data, 1)
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == ("1", False)
    assert not follower.refresh()
    point(data, 2)
    assert says(follower) == "1"
    assert follower.refresh()
    assert (says(follower), follower.failed_loads) == ("2", 0)


def test_a_pin_goes_before_current(data: JobData) -> None:
    """While there is a PIN it is what is served, also over publishes; without it, CURRENT is again."""
    follower = following(data)
    assert (says(follower), follower.followed.pinned) == ("3", False)
    point(data, 1, name=PIN)
    assert follower.refresh()
    assert (says(follower), follower.followed.pinned) == ("1", True)
    point(data, 2)
    follower.refresh()
    assert (says(follower), follower.followed.pinned) == ("1", True)
    (data.folder / PIN).unlink()
    follower.refresh()
    assert (says(follower), follower.followed.pinned, follower.followed.degraded) == ("2", False, False)


def test_a_pin_of_what_is_served_opens_nothing_again(data: JobData) -> None:
    """Pinning the version that is open only changes what is said of it."""
    follower = following(data)
    before = follower.followed.snapshot
    point(data, 3, name=PIN)
    assert follower.refresh()
    assert follower.followed.snapshot is before
    assert follower.followed.pinned


def test_a_version_in_use_stays_open_until_its_user_is_done(data: JobData) -> None:
    """Who holds a version goes on reading it after the swap, and its lock goes with the last user."""
    point(data, 1)
    follower = following(data)
    held = follower.followed.snapshot
    assert held is not None
    point(data, 2)
    follower.refresh()
    body = held.get({"id": "a"})
    assert body is not None
    assert json.loads(body)["prediction"] == "1"
    assert locks(folder_of(data, 1)) == 1
    del held
    assert locks(folder_of(data, 1)) == 0
    assert locks(folder_of(data, 2)) == 1


def locks(folder: Path) -> int:
    """How often this process has the manifest of a version open."""
    opened = [path.resolve() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(path == (folder / MANIFEST).resolve() for path in opened)


@NOT_WHOLE
def test_a_damaged_version_leaves_the_old_one(data: JobData, damage: Damage, sentence: str) -> None:
    """Whatever is wrong with a new version, the old one goes on, the load is counted as failed, and it is said why."""
    follower = following(data)
    next_version(data, 3, 4, damage)
    assert follower.refresh()
    assert (says(follower), follower.followed.pointer, follower.failed_loads) == ("3", pointers.pointer_to(data, 3), 1)
    assert sentence in str(follower.followed.problem)
    assert not follower.refresh()  # it is not looked at again and again
    next_version(data, 2, 5)
    assert follower.refresh()
    assert (says(follower), follower.followed.problem, follower.failed_loads) == ("2", None, 1)


@NOT_WHOLE
def test_at_the_start_the_newest_whole_version_is_picked_up(data: JobData, damage: Damage, sentence: str) -> None:
    """A follower that starts on a damaged current version takes the newest that is whole, and says that it is degraded."""
    next_version(data, 3, 4, damage)
    shutil.copytree(folder_of(data, 3), folder_of(data, 9))
    (folder_of(data, 9) / LOOKUP).unlink()
    follower = following(data)
    assert (says(follower), follower.followed.degraded, follower.failed_loads) == ("3", True, 1)
    assert sentence in str(follower.followed.problem)


@DAMAGED
def test_a_damaged_pin_is_never_replaced_in_silence(data: JobData, damage: Damage, sentence: str) -> None:
    """A follower that starts on a pin whose version is damaged serves nothing until that is repaired."""
    next_version(data, 3, 4, damage)
    (data.folder / CURRENT).rename(data.folder / PIN)
    point(data, 3)
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == (None, True)
    assert sentence in str(follower.followed.problem)
    (data.folder / PIN).unlink()
    follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("3", False)


@pytest.mark.parametrize("content", [*POINTERS.values(), None], ids=[*POINTERS, "missing"])
def test_a_current_that_names_nothing(data: JobData, content: bytes | None, at_once: None) -> None:
    """CURRENT missing, empty, damaged or pointing nowhere: the old version stays; at the start, the newest is picked up."""
    point(data, 2)
    follower = following(data)
    good = (data.folder / CURRENT).read_bytes()
    (data.folder / CURRENT).unlink() if content is None else (data.folder / CURRENT).write_bytes(content)
    assert follower.refresh()
    assert (says(follower), follower.followed.degraded, follower.failed_loads) == ("2", True, 1)
    assert str(data.folder) in str(follower.followed.problem)
    late = following(data)
    assert (says(late), late.followed.degraded, late.failed_loads) == ("3", True, 1)
    (data.folder / CURRENT).write_bytes(good)
    for each in (follower, late):
        each.refresh()
        assert (says(each), each.followed.problem) == ("2", None)


@pytest.mark.parametrize("content", POINTERS.values(), ids=POINTERS)
def test_a_pin_that_names_nothing(data: JobData, content: bytes, at_once: None) -> None:
    """A damaged PIN leaves what is open; at the start it means that nothing is served."""
    follower = following(data)
    (data.folder / PIN).write_bytes(content)
    follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("3", True)
    late = following(data)
    assert (says(late), late.followed.degraded) == (None, True)
    (data.folder / PIN).unlink()
    late.refresh()
    assert (says(late), late.followed.problem) == ("3", None)


def test_a_version_that_is_repaired_is_picked_up(data: JobData, at_once: None) -> None:
    """A half-copied version is picked up once the rest of it has come, though CURRENT does not change again."""
    follower = following(data)
    next_version(data, 2, 4, lambda folder: (folder / PREDICTIONS).rename(folder.parent / "late"))
    follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("3", True)
    (folder_of(data, 4).parent / "late").rename(folder_of(data, 4) / PREDICTIONS)
    assert follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("2", False)


def test_a_data_folder_that_vanishes_and_comes_back(data: JobData, at_once: None) -> None:
    """The version that is open goes on while its files are away, and what was published meanwhile is picked up after."""
    follower = following(data)
    data.root.rename(data.root.with_name("away"))
    follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("3", True)
    data.root.with_name("away").rename(data.root)
    follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("3", False)
    point(data, 1)
    follower.refresh()
    assert says(follower) == "1"


FOLLOWED = """
import os, sys
from pathlib import Path
from batchinfer.core.home import JobData
from batchinfer.versions import follow
from tests.damage import point
from tests.tiny import BECOME_NOBODY, folder_for_all, process
from tests.versions.following import following, says

follow.RETRY_SECONDS = 0
data = JobData(Path(sys.argv[1]), "shop")
says(following(data))  # all that it takes is imported
{become_nobody}
follower = following(data)
for mode in (0o755, 0, 0o755):
    data.root.chmod(mode)
    follower.refresh()
    print(says(follower), follower.followed.degraded, flush=True)
point(data, 1)
follower.refresh()
print(says(follower), follower.followed.degraded, flush=True)
"""


@pytest.mark.long
def test_a_folder_that_may_not_be_read_any_more(data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that is open goes on, and the next one is picked up once it may be read."""
    monkeypatch.setattr(tempfile, "tempdir", None)  # others may not enter the tests' own
    with folder_for_all() as folder:
        root = folder / "home"
        shutil.copytree(data.root, root)
        if os.getuid() == 0:  # whom no mode keeps out
            for path in (root, *root.rglob("*")):
                os.chown(path, 65534, 65534)
        code = FOLLOWED.format(become_nobody=BECOME_NOBODY)
        with process("-c", code, str(root), temporary=folder, log=tmp_path / "log") as child:
            out, _ = child.communicate(timeout=60)
    assert out.splitlines() == ["3 False", "3 True", "3 False", "1 False"], (tmp_path / "log").read_text()


def test_a_folder_that_vanishes_while_it_is_read(data: JobData, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system in the middle of a look ends in the same sentence, and is got over."""

    def gone(_data: JobData) -> list[int]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(folders, "numbers", gone)
    (data.folder / CURRENT).write_bytes(b"")
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == (None, True)
    monkeypatch.undo()
    follower.refresh()
    assert says(follower) == "3"


class Clock:
    """A clock that a test moves. now: in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(follow.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]

    def pass_by(self, follower: Follower, seconds: int) -> int:
        """How often what is damaged was tried in so many seconds, with a look each half of one."""
        before = follower.failed_loads
        for _ in range(2 * seconds):
            self.now += 0.5
            follower.refresh()
        return follower.failed_loads - before


@pytest.mark.parametrize(
    "damage", [cut(PREDICTIONS), flipped(LOOKUP), without(MANIFEST)], ids=["cut", "flipped", "gone"]
)
def test_what_nobody_changed_is_tried_ever_more_rarely(
    data: JobData, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try reads all files; a change of any is noticed soon, and tried soon again after that."""
    good = {path: path.read_bytes() for path in folder_of(data, 3).iterdir()}
    damage(folder_of(data, 3))
    clock = Clock(monkeypatch)
    follower = following(data)
    assert (says(follower), follower.failed_loads) == ("2", 1)
    assert clock.pass_by(follower, 3600) <= 13
    os.utime(folder_of(data, 3) / LOOKUP)
    assert clock.pass_by(follower, 31) == 2
    for path, content in good.items():
        path.write_bytes(content)
    assert clock.pass_by(follower, 11) == 0
    assert (says(follower), follower.followed.degraded) == ("3", False)


def test_what_a_preparation_raises_is_a_fault_of_the_version(data: JobData, at_once: None) -> None:
    """A version that cannot be prepared is not picked up: at the start the one before it is, later what is open stays."""
    prepared: list[int] = []

    def prepare(_: Snapshot, pointer: Pointer) -> None:
        if pointer.version in bad:
            raise StoreError(f"version {pointer.version} is not wanted.")
        prepared.append(pointer.version)

    bad = {3}
    follower = Follower(data, prepare=prepare)
    follower.refresh()
    assert (says(follower), follower.followed.problem, follower.failed_loads) == ("2", "version 3 is not wanted.", 1)
    point(data, 1)
    follower.refresh()
    point(data, 3)
    follower.refresh()
    assert (says(follower), prepared, follower.failed_loads) == ("1", [2, 1], 2)
    bad.clear()
    follower.refresh()
    assert (says(follower), follower.followed.degraded, prepared) == ("3", False, [2, 1, 3])


def test_a_job_without_a_version(data: JobData) -> None:
    """It serves nothing, and nothing is wrong with that."""
    follower = following(JobData(data.root, "shoes"))
    assert (follower.followed, follower.failed_loads) == (FollowedVersion(), 0)


def test_nothing_whole_at_all(data: JobData) -> None:
    """Where no version is whole, nothing is served, and it is said why."""
    for number in (1, 2, 3):
        (folder_of(data, number) / LOOKUP).unlink()
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == (None, True)


BESIDE = "calibration.json"
SPOILED = pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage(name)) for name in (BESIDE, INDEX) for damage in (cut, flipped, without)],
    ids=[f"{how} {name}" for name in (BESIDE, INDEX) for how in ("cut", "flipped", "gone")],
)


def with_a_file_beside(data: JobData, number: int) -> Path:
    """The folder of a version that has a file which look-ups do not need."""
    folder = folder_of(data, number)
    (folder / BESIDE).write_bytes(b'{"format": 1}')
    made_to_fit(folder)
    return folder


@SPOILED
def test_what_look_ups_do_not_need_takes_nothing_away(data: JobData, name: str, damage: Damage, at_once: None) -> None:
    """Where no other version is whole, look-ups go on without a file that is damaged, and it is said until it is repaired."""
    folder = with_a_file_beside(data, 3)
    point(data, 3)
    for number in (1, 2):
        shutil.rmtree(folder_of(data, number))
    good = (folder / name).read_bytes()
    damage(folder)
    follower = following(data)
    assert (says(follower), follower.followed.degraded, follower.failed_loads) == ("3", True, 1)
    assert name in str(follower.followed.problem)
    before = follower.followed.snapshot
    follower.refresh()
    assert (follower.followed.snapshot, follower.followed.degraded, follower.failed_loads) == (before, True, 2)
    (folder / name).write_bytes(good)
    follower.refresh()
    assert (says(follower), follower.followed.problem) == ("3", None)


@SPOILED
def test_a_whole_version_goes_before_one_that_is_not(data: JobData, name: str, damage: Damage) -> None:
    """An older one is picked up rather than the newest without a damaged file; but never in place of a pin."""
    damage(with_a_file_beside(data, 3))
    point(data, 3)
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == ("2", True)
    (data.folder / CURRENT).rename(data.folder / PIN)
    point(data, 2)
    pinned = following(data).followed
    assert pinned.snapshot is not None
    assert (pinned.snapshot.number, pinned.pinned, pinned.degraded) == (3, True, True)


def test_what_look_ups_need_is_never_left_out(data: JobData) -> None:
    """With a damaged lookup file beside it, nothing of the version is served."""
    folder = with_a_file_beside(data, 3)
    point(data, 3, name=PIN)
    cut(BESIDE)(folder)
    flipped(LOOKUP)(folder)
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == (None, True)


@pytest.mark.parametrize("name", [CHECKS, INDEX])
def test_a_held_file_that_is_damaged_is_noticed(data: JobData, name: str) -> None:
    """What is in memory goes on being right, but a worker that starts now would not have it: so all of them leave the version."""
    follower = following(data)
    assert says(follower) == "3"
    cut(name)(folder_of(data, 3))
    assert follower.refresh()
    assert (says(follower), follower.followed.degraded) == ("2", True)
    assert name in str(follower.followed.problem)


def test_a_damaged_index_that_was_right_once(data: JobData) -> None:
    """A disk may change what it holds and leave all times as they are: nothing is remembered of an index, which each opening reads."""
    assert says(following(data)) == "3"
    path = folder_of(data, 3) / INDEX
    facts = path.stat()
    path.write_bytes(MAGIC + bytes(facts.st_size - len(MAGIC)))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == ("2", True)
    assert "lookup.index is damaged: its checksum differs" in str(follower.followed.problem)
