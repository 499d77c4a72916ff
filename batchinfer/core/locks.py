"""Locks that go with their process. Who holds one is named; every wait is said, and has an end.

What another user could have put where a lock belongs is never followed, written to or made writable: a link, a name of some
other file, a pipe. A lock can be held by those who may write to its folder, and by nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from batchinfer.core.files import os_errors
from batchinfer.core.records import Info
from batchinfer.errors import Busy, StoreError

log = logging.getLogger("batchinfer")  # shown on standard error, unless an application decides otherwise

PATIENCE_SECONDS = 30.0  # for work that takes moments
SILENT_SECONDS = 1.0  # a wait that is shorter is not worth a word
LOOKING_SECONDS = 0.02
NO_LOCK = "{path} is not a lock that batchinfer made, but a link or some other file. Remove it, then try again."


@contextlib.contextmanager
def lock(path: Path, doing: str) -> Iterator[str | None]:
    """Holds an exclusive lock on a file that names its holder. Yields None, or the holder if another has it.

    Raises StoreError for a file that cannot be one.
    """
    with _opened(path) as handle:
        if _try_lock(handle):
            _sign(handle, doing)
            yield None
        else:
            yield _holder(handle)


@contextlib.contextmanager
def lock_in_turn(
    path: Path, doing: str, *, name: str = "", info: Info = log.warning, patience: float | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[None]:  # fmt: skip
    """Holds the lock, after waiting for it.

    name: of what is waited for, in messages; else the path.
    info: told whom a wait is for.
    meanwhile: called again and again while it waits; what it raises ends the wait.
    patience: seconds; PATIENCE_SECONDS if not said. Raises Busy after them, StoreError for a file that cannot be a lock.
    """
    with _opened(path) as handle:
        _wait(handle, name or str(path), info, PATIENCE_SECONDS if patience is None else patience, meanwhile)
        _sign(handle, doing)
        yield


def is_held(path: Path) -> bool:
    """Whether anybody holds a lock. It makes no file, and holds the lock for no longer than it takes to ask."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _wait(handle: int, name: str, info: Info, patience: float, meanwhile: Callable[[], object]) -> None:
    began, silent = time.monotonic(), True
    while not _try_lock(handle):
        waited = time.monotonic() - began
        if waited > patience:
            raise Busy(f"{name} is in use by {_holder(handle)}: wait for it, or stop it, then try again.")
        if silent and waited > SILENT_SECONDS:
            info(f"Waiting for {name}, used by {_holder(handle)} ...")
            silent = False
        meanwhile()
        time.sleep(LOOKING_SECONDS)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(handle: int, doing: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk it is held without a name
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{doing} (process {os.getpid()})\n".encode(), 0)


def _holder(handle: int) -> str:
    """Who says that he holds it. Another user may have written it, so nothing in it reaches a terminal as an order."""
    text = os.pread(handle, 200, 0).decode(errors="replace").strip()
    return "".join(sign if sign.isprintable() else "?" for sign in text) or "another process"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open(path)
    try:
        _check(path, os.fstat(handle))
        yield handle
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):
                # Without O_CREAT: in a folder for all, Linux lets only a file's maker open it with that.
                return _restricted(path, os.open(path, flags))
            with contextlib.suppress(FileExistsError):  # another process has just made it
                return _restricted(path, os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise StoreError(NO_LOCK.format(path=path)) from exc
        raise


def _restricted(path: Path, handle: int) -> int:
    """Gives a lock of ours to those who may write to its folder, whatever the umask, and to nobody else."""
    facts = os.fstat(handle)
    mode = 0o600 | (path.parent.stat().st_mode & 0o022) * 3
    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and facts.st_uid == os.geteuid():
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, mode)
    return handle


def _check(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        raise StoreError(NO_LOCK.format(path=path))


def machine_wide(name: str) -> Path:
    """The path of a lock for all users of this machine: in the folder for temporary files, which must be safe for that.

    A folder of our own there would belong to whoever made it first. Raises StoreError.
    """
    folder = Path(tempfile.gettempdir())
    with os_errors(folder):
        facts = folder.stat()
    for_others = facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX
    if facts.st_uid not in (0, os.geteuid()) or for_others:
        raise StoreError(
            f"Other users can replace files in {folder}, so no lock there can be trusted. "
            "Set TMPDIR to a folder of your own, or correct its owner (root) and mode (1777)."
        )
    return folder / f"batchinfer-{name}.lock"
