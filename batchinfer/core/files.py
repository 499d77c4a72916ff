"""Files replaced as a whole, and what the system's errors mean."""

from __future__ import annotations

import contextlib
import errno
import getpass
import io
import json
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from batchinfer.errors import StoreError, shortened

LONGEST_NAME, LONGEST_PATH = 255, 4095  # of Linux
MOST_SMALL = 64 << 20  # bytes
LONGEST_REASON = 200  # characters
DAMAGE: tuple[type[Exception], ...] = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, struct.error,
)  # fmt: skip
"""What making sense of a small file of ours can raise, such as JSON, once a disk or anybody changed what stands in it."""
UNREAD: tuple[type[Exception], ...] = (OSError, *DAMAGE)
"""The same, and what opening it can raise."""

DISK_FULL = "the disk is full. Free space, then run again."
FIX_PERMISSIONS = "Fix its permissions, or choose another data folder with --home."


def user_name() -> str:
    """The user who runs this process, for records of who did what."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def fault_of_path(path: Path) -> str | None:
    """Why no file can have this path, as the rest of a sentence; None if one can. Every path that people give comes by here."""
    if "\0" in str(path):
        return "has the character U+0000 in it, which no path has: remove it."
    try:
        str(path).encode()
    except UnicodeEncodeError:  # bytes that the system takes, but neither Arrow nor DuckDB
        return "has a name that is not UTF-8: rename it, or choose another."
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts) or len(os.fsencode(path)) > LONGEST_PATH:
        return f"is too long: a name has at most {LONGEST_NAME} bytes, a path {LONGEST_PATH:,}."
    return None


def plain_handle(path: Path) -> int:
    """A descriptor to read a file by. Raises OSError, also for what is no plain file: a pipe would be waited for for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "It is no plain file", str(path))
    return handle


def check_plain(path: Path) -> None:
    """Raises StoreError where something else stands in the place of a file of ours, which others open and would wait for."""
    try:
        mode = path.stat().st_mode
    except OSError:  # who opens it says what is wrong
        return
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is no plain file: move it away, then run again.")


def open_plain(path: Path) -> io.BufferedReader:
    """The same as a file."""
    return open(plain_handle(path), "rb")


def read_small(path: Path) -> bytes:
    """A whole file that should have some KB. Raises OSError, also for what is no plain file, or far too large."""
    with open_plain(path) as file:
        data = file.read(MOST_SMALL + 1)
    if len(data) > MOST_SMALL:
        raise OSError(errno.EFBIG, f"It has more than {MOST_SMALL >> 20} MB", str(path))
    return data


def real_path(path: Path) -> Path:
    """Where a path leads, absolute. Links that lead in a circle stay as they are: what opens them says so."""
    return Path(os.path.realpath(path))


def why_unread(exc: Exception) -> str:
    """Why a file could not be read, without the number and the name that errors of the system repeat."""
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)


def why_damaged(exc: Exception) -> str:
    """What an error says of the content of a file of ours that was being read, as the rest of a sentence."""
    if isinstance(exc, KeyError):
        return f"it lacks {shortened(str(exc.args[0]) if exc.args else '')}"
    if isinstance(exc, UnicodeError):
        return "it is not UTF-8"
    if isinstance(exc, json.JSONDecodeError):
        return "it is not JSON"
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    return shortened(" ".join(str(exc).split()) or f"an unforeseen {type(exc).__name__}", LONGEST_REASON)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replaces a file as a whole: readers see the old content or the new, also after a power cut.

    mode: who may read it, less what the umask takes away.
    """
    with os_errors(path):
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            # Made by us alone, whoever else may write to the folder.
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_durably(draft: Path, path: Path) -> None:
    """Puts a finished file in the place of another one. Raises OSError."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def is_full(exc: OSError) -> bool:
    """Whether it says that a disk is full, or what this user may have of it."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turns file-system errors into sentences that say what to do."""
    try:
        yield
    except PermissionError as exc:
        raise StoreError(f"Permission denied for {exc.filename or path}. {FIX_PERMISSIONS}") from exc
    except OSError as exc:
        advice = "Free space" if is_full(exc) else "Fix that"
        raise StoreError(
            f"{exc.filename or path} cannot be written: {os.strerror(exc.errno) if exc.errno else exc}. {advice}, then run again."
        ) from exc
