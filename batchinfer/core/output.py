"""Files that a person names for a command to write: the ending decides the format, and a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from batchinfer.core.files import DISK_FULL, fault_of_path, is_full, os_errors, real_path, sync_folder
from batchinfer.errors import StoreError, UsageError

STDOUT = "-"


class OutputFormat(StrEnum):
    """The formats of such files, by their endings."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """Where a command writes, and in which format.

    path: the file, absolute; None for standard output.
    format: by the file's ending.
    """

    path: Path | None
    format: OutputFormat

    @staticmethod
    def of(
        name: str | Path, chosen: str | None = None, formats: Sequence[OutputFormat] = tuple(OutputFormat)
    ) -> OutputFile:
        """What a person means by a file's name, or by - and a format. formats: those that the command can write.

        Raises UsageError, before anything is done, for an ending that none of them has, for a path that no file
        can have, and for a folder that is not there.
        """
        if str(name) == STDOUT:
            return OutputFile(None, _chosen(chosen, formats))
        path = Path(name).absolute()
        if (fault := fault_of_path(path)) is not None:
            raise UsageError(f"{name} {fault}")
        known = {f".{each}": each for each in formats}
        if path.suffix.lower() not in known:
            found = (
                f"the ending {path.suffix} is not a format" if path.suffix else "it has no ending that says its format"
            )
            raise UsageError(
                f"{name} cannot be written: {found}. Name a file that ends in {_or(known)}, or {STDOUT} with --format."
            )
        if chosen is not None and chosen != known[path.suffix.lower()]:
            raise UsageError(
                f"--format {chosen} does not fit {name}: the ending of a file decides; leave --format out."
            )
        if not path.parent.exists():
            raise UsageError(f"The folder {path.parent} does not exist: make it first.")
        return OutputFile(path, known[path.suffix.lower()])

    def __str__(self) -> str:
        """For messages."""
        return "standard output" if self.path is None else str(self.path)

    @contextlib.contextmanager
    def draft(self) -> Iterator[Path]:
        """A file to write, which becomes the output as a whole at the end.

        Raises UsageError before anything is done if the file cannot be written, and StoreError where the disk is full.
        """
        try:
            with _printed() if self.path is None else _replaced(self.path) as draft:
                yield draft
        except OSError as exc:
            if not is_full(exc):
                raise
            raise StoreError(f"{self} cannot be written: {DISK_FULL}") from exc


def _chosen(chosen: str | None, formats: Sequence[OutputFormat]) -> OutputFormat:
    """The format of standard output. Raises UsageError."""
    if chosen not in list(formats):
        raise UsageError(f"{STDOUT} needs --format: {_or(formats)}.")
    return OutputFormat(chosen)


def _or(words: Sequence[str] | dict[str, OutputFormat]) -> str:
    *first, last = list(words)
    return f"{', '.join(first)} or {last}" if first else last


@contextlib.contextmanager
def _printed() -> Iterator[Path]:
    """Goes to standard output once it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "output"
        yield draft
        sys.stdout.flush()
        with draft.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A draft next to the file, put in its place at the end. It lies in a folder of its own: others may write next to it."""
    place = real_path(target)  # a link stays a link
    try:
        if place.exists() and not place.is_file():
            raise UsageError(f"{target} is not a file: name one that can be replaced, or that does not exist yet.")
        folder = Path(tempfile.mkdtemp(prefix=".batchinfer-", dir=place.parent))
    except OSError as exc:
        raise UsageError(f"{target} cannot be written: {exc.strerror}. Name another file.") from exc
    try:
        draft = folder / place.name
        yield draft
        with os_errors(target):
            draft.replace(place)
            sync_folder(place.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
