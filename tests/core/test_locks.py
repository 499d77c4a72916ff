"""Locks: whom a wait is for, and what another user may have put in their place."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from batchinfer.core.locks import is_held, lock, lock_in_turn, machine_wide
from batchinfer.errors import Busy, StoreError
from tests.tiny import BECOME_NOBODY, folder_for_all, process, until

HOLD = """
import fcntl, sys, time
from pathlib import Path
handle = open(sys.argv[1], "r")
fcntl.flock(handle, fcntl.LOCK_EX)
Path(sys.argv[2]).touch()
time.sleep(3600)
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_lock_that_is_held_tells_who_has_it(tmp_path: Path) -> None:
    """A lock that is not waited for yields who has it, so that the caller can say so."""
    path = tmp_path / "some" / "lock"
    with lock(path, "the first") as mine, lock(path, "the second") as other:
        assert mine is None
        assert other == f"the first (process {os.getpid()})"


def test_a_wait_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits says for whom, without being asked to, and goes on once the lock is free."""
    path = tmp_path / "lock"
    with lock(path, "the first"):
        second = threading.Thread(target=lambda: lock_in_turn(path, "the second").__enter__())
        second.start()
        until(lambda: bool(caplog.messages))
    second.join()
    assert caplog.messages == [f"Waiting for {path}, used by the first (process {os.getpid()}) ..."]


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    """Who has waited for long enough is told who holds the lock."""
    path = tmp_path / "lock"
    with (
        lock(path, "the first"),
        pytest.raises(Busy, match=r"lock is in use by the first \(process \d+\)"),
        lock_in_turn(path, "the second", patience=0.1),
    ):
        pass


def test_what_a_holder_writes_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """Control characters in a lock, which another user may have written, are not shown as they are."""
    path = tmp_path / "lock"
    with lock(path, "a\x1b[2Jb"), lock(path, "the second") as holder:
        assert holder is not None
        assert holder.startswith("a?[2Jb")


@pytest.mark.parametrize(("folder", "expected"), [(0o755, 0o600), (0o700, 0o600), (0o775, 0o660), (0o1777, 0o666)])
def test_a_lock_is_for_those_who_may_write_to_its_folder(tmp_path: Path, folder: int, expected: int) -> None:
    """Another user who can only read the folder cannot hold a lock in it, for which one needs to open it."""
    tmp_path.chmod(folder)
    old = tmp_path / "old"
    old.touch(0o666)
    for path in (tmp_path / "new", old):
        with lock(path, "me"):
            assert mode(path) == expected


@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "pipe"])
def test_nothing_is_done_to_a_file_in_a_locks_place(tmp_path: Path, kind: str) -> None:
    """A link, another name of a file, or a pipe: refused, and the file behind it stays as it is."""
    path, victim = tmp_path / "lock", tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    victim.chmod(0o600)
    tmp_path.chmod(0o777)
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "link to nothing":
        path.symlink_to(tmp_path / "new")
    elif kind == "second name":
        path.hardlink_to(victim)
    else:
        os.mkfifo(path)
    for taken in (lock, lock_in_turn):
        with pytest.raises(StoreError, match="is not a lock that batchinfer made"), taken(path, "me"):
            pass
    assert victim.read_text(encoding="utf-8") == "precious"
    assert mode(victim) == 0o600
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_hold_the_locks_of_a_data_folder(tmp_path: Path) -> None:
    """One who can read a data folder cannot make those hang who use it."""
    with folder_for_all() as shared:
        data = shared / "data"
        data.mkdir(mode=0o755)
        path = data / "versions.lock"
        path.touch(0o666)  # as an older version of the program left it
        with lock_in_turn(path, "me"):
            pass
        program = HOLD.replace("handle =", BECOME_NOBODY + "handle =", 1)
        with process("-c", program, str(path), str(shared / "held"), temporary=shared, log=tmp_path / "log") as other:
            assert other.wait(30) != 0
        assert "PermissionError" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_link_that_another_user_planted_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine-wide lock, taken by root, where somebody made a link of that name beforehand."""
    victim = tmp_path / "shadow"
    victim.write_text("root:secret", encoding="utf-8")
    victim.chmod(0o600)
    with folder_for_all() as shared:
        monkeypatch.setattr(tempfile, "tempdir", str(shared))
        planted = machine_wide("cpu")
        planted.symlink_to(victim)
        os.lchown(planted, 65534, 65534)
        with pytest.raises(StoreError, match="is not a lock"), lock_in_turn(planted, "root's run"):
            pass
    assert (victim.read_text(encoding="utf-8"), mode(victim)) == ("root:secret", 0o600)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
@pytest.mark.parametrize("unsafe", ["another user's", "not sticky"])
def test_a_shared_folder_must_be_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe: str) -> None:
    """Locks of all users lie in no folder in which another user can replace them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if unsafe == "another user's":
        os.chown(tmp_path, 65534, 65534)
    else:
        tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="no lock there can be trusted"):
        machine_wide("cpu")


def test_a_lock_that_may_not_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names the lock, where it belongs to another user alone."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=r"Permission denied for .*lock"), lock(tmp_path / "lock", "me"):
        pass


def test_who_only_asks_takes_no_lock(tmp_path: Path) -> None:
    """Whether a lock is held is known without making it, and without keeping others from it."""
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    with lock(path, "testing") as holder:
        assert holder is None
        assert is_held(path)
    assert not is_held(path)
    with lock(path, "testing") as holder:
        assert holder is None
