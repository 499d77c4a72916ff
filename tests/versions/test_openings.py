"""A version that ends the processes which open it: those that come after leave it alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.versions import openings
from batchinfer.versions.follow import Follower
from batchinfer.versions.openings import MOST_DEATHS, Openings
from batchinfer.versions.pointers import Pointer
from tests.damage import point
from tests.tiny import ROOT
from tests.versions.following import says

ENDED = "Version 3 ended the workers that opened it"
DIES = """\
import os, signal, sys
from pathlib import Path
from batchinfer.core.home import JobData
from batchinfer.versions.follow import Follower
from batchinfer.versions.openings import Openings
Follower(JobData(Path(sys.argv[1]), "shop"), prepare=lambda *_: os.kill(os.getpid(), signal.SIGKILL),
         openings=Openings(Path(sys.argv[2]))).refresh()
"""


def dies(data: JobData, notes: Path) -> None:
    """A process that is killed while it opens the version that is served."""
    command = [sys.executable, "-c", DIES, str(data.root), str(notes)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL


def fresh(data: JobData, notes: Path) -> Follower:
    """What a worker that has just begun follows."""
    follower = Follower(data, openings=Openings(notes))
    follower.refresh()
    return follower


def test_a_version_that_ended_workers_is_left_for_the_one_before(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One death may be chance; after more the newest other one is served, until the next publish or for a while."""
    notes = tmp_path / "notes"
    for number in range(MOST_DEATHS):
        assert len(list(notes.glob("*"))) == number
        assert (says(fresh(data, notes)), fresh(data, notes).followed.problem) == ("3", None)
        dies(data, notes)
    after = fresh(data, notes)
    assert (says(after), after.followed.degraded) == ("2", True)
    assert ENDED in str(after.followed.problem)
    point(data, 1)
    after.refresh()
    assert (says(after), after.followed.problem) == ("1", None)
    point(data, 3)
    monkeypatch.setattr(openings, "FORGOTTEN_SECONDS", 0.0)
    assert says(fresh(data, notes)) == "3"


def test_what_look_ups_need_of_a_single_one_is_opened_all_the_same(data: JobData, tmp_path: Path) -> None:
    """Where there is no other, since nothing would be served."""
    for _ in range(MOST_DEATHS):
        dies(data, tmp_path / "notes")
    for number in (1, 2):
        (data.versions / f"{number:06}" / "manifest.json").unlink()
    only = fresh(data, tmp_path / "notes")
    assert (says(only), only.followed.degraded) == ("3", True)
    assert ENDED in str(only.followed.problem)


def test_notes_of_those_who_live_count_nothing(tmp_path: Path) -> None:
    """Nor those of another version; and a folder that cannot be written keeps nobody from opening."""
    named, notes = Pointer(3, "f" * 64), Openings(tmp_path / "notes")
    with notes.noted(named):
        notes.check(named)
        assert len(list((tmp_path / "notes").iterdir())) == 1
    assert not list((tmp_path / "notes").iterdir())
    for dead in range(MOST_DEATHS):
        (tmp_path / "notes" / f"3-{named.digest}-{2**22 + 1 + dead}").touch()
    with pytest.raises(StoreError, match=ENDED):
        notes.check(named)
    notes.check(Pointer(3, "e" * 64))
    (tmp_path / "file").touch()
    with Openings(tmp_path / "file").noted(named):
        Openings(tmp_path / "file").check(named)
