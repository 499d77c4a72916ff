"""A version that ends the processes which open it: it takes no more than one at a time, and those that come after leave it alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.versions import follow
from batchinfer.versions.follow import Follower
from batchinfer.versions.openings import LIMITS, Awaited, Opening, Openings, excuse
from batchinfer.versions.pointers import Pointer, pointer_to
from tests.damage import point
from tests.tiny import ROOT
from tests.versions.following import says

ENDED = "Version 3 ended the workers that opened it"
HALF_AN_HOUR, TWO_HOURS = 1800.0, 7200.0

# A worker that serves version 2, or nothing, and is then at version 3 until it is told to go on, or dies. It may die of look-ups.
OPENS = """\
import os, signal, sys
from pathlib import Path
from batchinfer.core.home import JobData
from batchinfer.versions.follow import Follower
from batchinfer.versions.openings import Openings
from batchinfer.versions.snapshot import Snapshot
from tests.damage import point

root, notes, now, does = sys.argv[1:]
data = JobData(Path(root), "shop")

def third(snapshot, pointer):
    if pointer.version == 3 and "lookups" not in does:
        end()

def end():
    print(f"{follower.followed.pointer and follower.followed.pointer.version}", flush=True)
    if "waits" in does:
        sys.stdin.read(1)
    else:
        os.kill(os.getpid(), signal.SIGTERM if "terminated" in does else signal.SIGKILL)

follower = Follower(data, prepare=third, openings=Openings(Path(notes), "shop", lambda: float(now)))
if "lookups" in does:
    Snapshot.verify_lookups = lambda self: end()
if "beside" in does:
    point(data, 2)
    follower.refresh()
    point(data, 3)
follower.refresh()
"""


@dataclass
class Workers:
    """What workers of one service do, at the times that a test says."""

    data: JobData
    notes: Path
    now: float = 0.0

    @contextmanager
    def opening(self, does: str) -> Iterator[subprocess.Popen[str]]:
        """A process that is at version 3."""
        command = [sys.executable, "-c", OPENS, str(self.data.root), str(self.notes), str(self.now), does]
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == ("2\n" if "beside" in does else "None\n")
            yield process

    def dies(self, does: str) -> None:
        """A process is killed while it opens version 3."""
        with self.opening(does) as process:
            assert process.wait(60) == (-signal.SIGTERM if "terminated" in does else -signal.SIGKILL)

    def follower(self) -> Follower:
        """What a worker follows that has just begun."""
        return Follower(self.data, openings=Openings(self.notes, "shop", lambda: self.now))

    def fresh(self) -> Follower:
        follower = self.follower()
        follower.refresh()
        return follower

    def serves_the_second(self) -> Follower:
        """A worker that has version 2 open, and has yet to look at the third."""
        point(self.data, 2)
        follower = self.fresh()
        assert (says(follower), follower.followed.degraded) == ("2", False)
        point(self.data, 3)
        return follower

    def left(self) -> list[Path]:
        """What lies there of openings."""
        return [path for path in (self.notes / "openings" / "shop").glob("*") if path.suffix != ".lock"]


@pytest.fixture
def workers(data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Of a service that tries again at each look."""
    monkeypatch.setattr(follow, "RETRY_SECONDS", 0.0)
    return Workers(data, tmp_path / "notes")


def test_a_version_that_ended_two_with_nothing_open_is_left_for_the_one_before(workers: Workers) -> None:
    """One death may be chance; after two the newest other one is served, until the next publish or for a while."""
    workers.dies("alone")
    workers.dies("alone")
    after = workers.fresh()
    assert (says(after), after.followed.degraded) == ("2", True)
    assert f"{ENDED}, for want of memory or by a fault: one tries it again 30 minutes after" in str(
        after.followed.problem
    )
    point(workers.data, 1)
    after.refresh()
    assert (says(after), after.followed.problem) == ("1", None)
    point(workers.data, 3)
    workers.now = HALF_AN_HOUR - 1
    assert says(workers.fresh()) == "2"
    workers.now = HALF_AN_HOUR
    assert says(workers.fresh()) == "3"


def test_only_deaths_in_a_row_count(workers: Workers) -> None:
    """Whoever opens it takes away what was noted."""
    for _ in range(3):
        workers.dies("alone")
        assert len(workers.left()) == 1
        after = workers.fresh()
        assert (says(after), after.followed.problem, workers.left()) == ("3", None, [])


def test_one_that_serves_another_version_leaves_it_after_one_death(workers: Workers) -> None:
    """It goes on with what it has, so that not all die of a publish, and one that has nothing open tries it alone."""
    other = workers.serves_the_second()
    workers.dies("beside")
    other.refresh()
    assert (says(other), other.followed.degraded) == ("2", True)
    assert ENDED in str(other.followed.problem)
    after = workers.fresh()
    assert (says(after), after.followed.problem) == ("3", None)
    other.refresh()
    assert (says(other), other.followed.problem) == ("3", None)


def test_one_that_fits_neither_beside_nor_alone(workers: Workers) -> None:
    """It ends one beside and two alone; later one each time, ever more rarely. Who serves another goes on through all of it."""
    other = workers.serves_the_second()
    for does in ("beside", "alone", "alone"):
        workers.dies(does)
        other.refresh()
    for began, again in ((0.0, HALF_AN_HOUR), (1800.0, 3600.0), (3600.0, 7200.0)):
        if began:
            workers.now = began
            workers.dies("beside")
        for workers.now in (began, again - 1):
            other.refresh()
            assert (says(other), says(workers.fresh())) == ("2", "2")
    assert "60 minutes" in str(other.followed.problem)


def test_it_is_tried_again_every_two_hours_at_the_least(workers: Workers) -> None:
    """However long it has been ending processes."""
    named = pointer_to(workers.data, 3)
    folder = workers.notes / "openings" / "shop"
    folder.mkdir(parents=True)
    for number, began in enumerate((0.0, 9 * TWO_HOURS)):
        (folder / f"3-{named.digest}-{2**22 + 1 + number}-alone-{began}").touch()
    workers.now = 10 * TWO_HOURS - 1
    assert says(workers.fresh()) == "2"
    workers.now = 10 * TWO_HOURS
    assert says(workers.fresh()) == "3"


def test_who_serves_another_version_waits_for_its_turn(workers: Workers) -> None:
    """Without a fault; it takes its turn once the one before is done, or goes on with what it has if that one died."""
    other = workers.serves_the_second()
    with workers.opening("beside, waits") as first:
        assert not other.refresh()
        assert (says(other), other.followed.problem, other.failed_loads) == ("2", None, 0)
        assert first.stdin is not None
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.wait(60) == 0
    assert other.refresh()
    assert (says(other), other.followed.problem) == ("3", None)


def test_after_a_death_one_at_a_time_tries_it(workers: Workers) -> None:
    """Others that have begun meanwhile serve the version before, and those without a death do not wait for each other."""
    with workers.opening("alone, waits"):
        assert says(workers.fresh()) == "3"
    workers.dies("alone")
    with workers.opening("alone, waits") as again:
        after = workers.fresh()
        assert (says(after), after.followed.degraded) == ("2", True)
        assert "another tries it just now" in str(after.followed.problem)
        again.kill()
    assert ENDED in str(workers.fresh().followed.problem)


@pytest.mark.parametrize("when", ["before", "afterwards"])
def test_ends_that_are_excused_count_nothing(workers: Workers, when: str) -> None:
    """Such as those of workers that were told to end, or killed because they were frozen."""
    for _ in range(3):
        with workers.opening("alone, waits") as process:
            if when == "before":
                excuse(workers.notes, process.pid)
            process.kill()
            process.wait(60)
            if when == "afterwards":
                excuse(workers.notes, process.pid)
    assert len(workers.left()) == 3
    after = workers.serves_the_second()
    after.refresh()
    assert (says(after), after.followed.problem, workers.left()) == ("3", None, [])


def only_the_third(workers: Workers) -> None:
    for number in (1, 2):
        (workers.data.versions / f"{number:06}" / "manifest.json").unlink()


def test_what_look_ups_need_of_a_single_one_is_opened_all_the_same(workers: Workers) -> None:
    """Where there is no other, since nothing would be served. That this works clears nothing else."""
    only_the_third(workers)
    workers.dies("alone")
    workers.dies("alone")
    for _ in range(2):
        only = workers.fresh()
        assert (says(only), only.followed.degraded) == ("3", True)
        assert ENDED in str(only.followed.problem)


def test_a_single_one_whose_look_ups_end_workers_is_left_alone_for_a_minute(workers: Workers) -> None:
    """So that other jobs are served. In the end it is opened, if it can be."""
    only_the_third(workers)
    for does in ("alone", "alone", "lookups", "lookups"):
        workers.dies(does)
    least = LIMITS[Opening.LOOKUPS].least
    for workers.now in (0.0, least - 1):
        none = workers.fresh()
        assert (says(none), none.followed.degraded) == (None, True)
        assert ENDED in str(none.followed.problem)
    workers.now = least
    assert says(workers.fresh()) == "3"


def test_notes_of_those_who_live_or_of_others_count_nothing(tmp_path: Path) -> None:
    """Nor is one left by an opening that went wrong in order."""
    named, notes = Pointer(3, "f" * 64), Openings(tmp_path, "shop")
    with notes.opening(named, Opening.ALONE), notes.opening(named, Opening.BESIDE):
        assert len(list((tmp_path / "openings" / "shop").glob("*-*-*-*"))) == 2
        with pytest.raises(Awaited), notes.opening(named, Opening.BESIDE):
            pass
    with pytest.raises(StoreError, match="damaged"), notes.opening(named, Opening.ALONE):
        raise StoreError("damaged")
    assert not list((tmp_path / "openings" / "shop").glob("*-*-*-*"))
    for number in range(2):
        (tmp_path / "openings" / "shop" / f"3-{named.digest}-{2**22 + 1 + number}-beside-0.000").touch()
    for other in (Pointer(3, "e" * 64), Pointer(33, named.digest)):
        with notes.opening(other, Opening.BESIDE):
            pass
    with Openings(tmp_path, "other").opening(named, Opening.BESIDE):
        pass


@pytest.mark.parametrize("opening", Opening)
def test_where_nothing_can_be_noted_all_open_it(tmp_path: Path, opening: Opening) -> None:
    """A full disk, or a folder that cannot be written, keeps nobody from it."""
    (tmp_path / "openings").touch()
    (tmp_path / "excused").touch()
    for _ in range(2):
        excuse(tmp_path, 1)
        notes = Openings(tmp_path, "shop")
        with notes.opening(Pointer(3, "f" * 64), opening), notes.opening(Pointer(3, "f" * 64), opening):
            pass
