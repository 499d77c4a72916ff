"""Which of a list's files are taken: those of the newest date, or of the one that was asked for, or the newest file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from batchinfer.inputs.list_file import ListFile, NoListFile, globbed
from batchinfer.job.date_pattern import DatePattern

FindFiles = Callable[[Path], list[ListFile]]
"""The files that a path, folder or glob names. Raises NoListFile where there is none."""


def of_date(place: Path, wanted: date | None, find: FindFiles, base: Path) -> list[ListFile]:
    """The files of the newest date for which there are any. Raises InputError.

    place: a path with a date, absolute. wanted: that date instead. base: the folder from which names are given.
    """
    root = next(parent for parent in place.parents if parent.is_dir())  # a name, and no pattern
    pattern = DatePattern.of(str(place.relative_to(root)))
    if pattern is None:
        raise NoListFile(f"There is no list in {place}: a folder has that very name.")
    for day in [wanted] if wanted is not None else _days(pattern, root):
        path = root / pattern.at(day)
        try:
            files = find(path)
        except NoListFile:
            continue
        return [replace(file, found_by=_named(path, base)) for file in files]
    of = "any date" if wanted is None else f"{wanted}"
    raise NoListFile(f"There is no list of {of} in {place}: correct the path, or name the list with --input.")


def _days(pattern: DatePattern, root: Path) -> list[date]:
    """Those of which there is something, the newest first; what is later than tomorrow is mistyped."""
    days = {pattern.day_of(str(path.relative_to(root))) for path in globbed(root, pattern.glob())}
    latest = datetime.now(UTC).date() + timedelta(days=1)
    return sorted((day for day in days if day is not None and day <= latest), reverse=True)


def newest_file(files: Sequence[ListFile], base: Path) -> list[ListFile]:
    """The file that was written last; of several at one moment, the last by name."""
    newest = max(files, key=lambda file: (file.path.stat().st_mtime_ns, str(file.path)))
    return [replace(newest, found_by=_named(newest.path, base))]


def _named(path: Path, base: Path) -> str:
    return str(path.relative_to(base) if path.is_relative_to(base) else path)
