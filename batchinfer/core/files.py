"""Locks that go with their process, files replaced as a whole, and what the system's errors mean."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from batchinfer.errors import StoreError

FIX_PERMISSIONS = "Fix its permissions, or choose another data folder with --home."


def user_name() -> str:
    """The user who runs this process, for records of who did what."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


@contextlib.contextmanager
def lock(path: Path, doing: str, wait: Callable[[str], None] | None = None) -> Iterator[str | None]:
    """Holds an exclusive lock on a file that names its holder. Yields None, or the holder if another has it.

    The lock goes with the process, however it ends.

    wait: if given, it is called with the holder's name, and the lock is then waited for.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR)  # in a folder for all, Linux lets only its maker open a file with O_CREAT
        except FileNotFoundError:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, 0o666)  # whatever the umask: other users take turns with us
    try:
        if not _try_lock(handle):
            holder = os.read(handle, 1000).decode(errors="replace").strip() or "another process"
            if wait is None:
                yield holder
                return
            wait(holder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{doing} (process {os.getpid()})\n".encode(), 0)
        yield None
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_atomically(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replaces a file as a whole: readers see the old content or the new, also after a power cut.

    mode: who may read it, less what the umask takes away.
    """
    with os_errors(path):
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turns file-system errors into sentences that say what to do."""
    try:
        yield
    except PermissionError as exc:
        raise StoreError(f"Permission denied for {exc.filename or path}. {FIX_PERMISSIONS}") from exc
    except OSError as exc:
        advice = "Free space" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "Fix that"
        raise StoreError(
            f"{exc.filename or path} cannot be written: {exc.strerror}. {advice}, then run again."
        ) from exc
