"""Database files where DuckDB finds them, and what belongs to them, whatever their folders are called.

DuckDB takes a backslash for a slash, and what follows a question mark for parameters: its log then lies in another folder,
before that mark. It resolves links first, so a link helps against a backslash alone (the resolved path is not read again).
Below a question mark a database is written as a copy elsewhere, which then takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from batchinfer.core.files import check_plain, os_errors, replace_durably
from batchinfer.core.home import cache_folder
from batchinfer.core.locks import lock_in_turn
from batchinfer.core.sql import literal
from batchinfer.errors import StoreError

SIGNS = {"?": "question mark", "\\": "backslash"}


def found_by_duckdb(path: Path) -> str:
    """A path to the same place without a backslash. Raises StoreError where there can be none."""
    folder = next((part for part in (path, *path.parents) if "\\" in part.name), None)
    if folder is None:
        return str(path)
    link = _place("links", folder)
    with os_errors(link):
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(folder.absolute())
    return str(link / path.relative_to(folder))


def parquet_rows(path: Path) -> str:
    """SQL for the rows of one Parquet file that this program wrote; `town=Ulm` in its path is no column. Raises StoreError."""
    check_plain(path)
    return f"read_parquet({parquet_name(path)}, hive_partitioning = false)"


def parquet_name(path: Path) -> str:
    """The same, for its path: the stars and brackets of a name are no pattern."""
    return literal("".join(f"[{sign}]" if sign in "*?[" else sign for sign in found_by_duckdb(path)))


@contextlib.contextmanager
def database_place(path: Path, *, read_only: bool) -> Iterator[str]:
    """The path by which DuckDB can attach a database file, and detach it before the end.

    What was written to a copy takes the file's place then, unless anything is raised. Raises StoreError or Busy.
    """
    for place in (path, path.with_name(f"{path.name}.wal")):
        check_plain(place)
    if read_only or "?" not in os.path.realpath(path):
        yield found_by_duckdb(path)
        return
    copy = _place("writing", path) / "database"
    with lock_in_turn(path.with_name("cache.lock"), "batchinfer"):
        shutil.rmtree(copy.parent, ignore_errors=True)  # of a process that was killed
        try:
            with os_errors(copy):
                copy.parent.mkdir(mode=0o700, parents=True)
                if path.exists():
                    shutil.copyfile(path, copy)
            yield str(copy)
            _put_back(copy, path)
        finally:
            shutil.rmtree(copy.parent, ignore_errors=True)


def _put_back(copy: Path, path: Path) -> None:
    if copy.with_name(f"{copy.name}.wal").exists():
        raise StoreError(f"{path} cannot be written: the disk of {copy.parent} is full. Free space, then run again.")
    draft = path.with_name(f".{path.name.removeprefix('.')}.{os.getpid()}.new")
    try:
        with os_errors(path):
            shutil.copyfile(copy, draft)
            if path.exists():
                shutil.copymode(path, draft)
            replace_durably(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _place(kind: str, path: Path) -> Path:
    """Where a link or a copy stands for a file or a folder: always the same. Raises StoreError."""
    folder = cache_folder()
    for sign, name in SIGNS.items():
        if sign in os.path.realpath(folder):
            raise StoreError(
                f"{path} cannot be opened, since its path has a sign in it that DuckDB misreads, and so has that of the "
                f"user's cache folder, {folder} (a {name}): set XDG_CACHE_HOME to another folder."
            )
    return folder / kind / hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
