"""The rows of a review that people marked, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer import errors
from batchinfer.core.columns import Column, typed
from batchinfer.core.records import VerdictKind
from batchinfer.errors import InputError, UsageError
from batchinfer.review.retyped import is_retyped
from batchinfer.review.sheet import PERSON, column_of, digest_of, marks, sample_of
from batchinfer.review.subject import Correction, ReviewRow, Subject, Verdict

MAX_FAULTS = 5  # that are named


@dataclass(frozen=True, slots=True)
class Original:
    """A row as it was written into a review.

    needed: the cells of its key and value, by column.
    also: others that a verdict is read from.
    """

    needed: Mapping[str, str]
    also: Mapping[str, str]


class RowReader:
    """Reads the rows of a review of a job.

    faults: the first of what is wrong with it, each with its place.
    more: how many other faults it has.
    blank: rows that were not judged.
    """

    def __init__(self, job: str, subject: Subject, key: Sequence[Column], author: str) -> None:
        """author: of rows that name none."""
        self._job, self._subject, self._key, self._author = job, subject, list(key), author
        self.faults: list[tuple[str, str]] = []
        self.more = 0
        self.blank = 0

    def of_another_job(self, job: Any) -> str | None:
        """What to say of a row that was made for another job."""
        return (
            None if job == self._job else f"it was made for the job {errors.shortened(str(job))}, not for {self._job}"
        )

    def names(self, path: Path, columns: Sequence[str]) -> list[str]:
        """The columns of a file as a review calls them, whatever their case. Raises InputError if one is missing."""
        key = [column_of(column.name) for column in self._key]
        needed = ["job", *key, *self._subject.read_columns, "check", "verdict"]
        ours = {name.lower(): name for name in [*needed, *PERSON]}
        names = [ours.get(name.strip().lower(), name) for name in columns]
        marked = marks(columns, [column.name for column in self._key])
        for name in needed:
            if name not in names:
                raise InputError(
                    f"{path} has the column {', '.join(marked)}, so it is a review, but it has no column {name}: make it "
                    "again with batchinfer review, or rename that column if it holds plain predictions. "
                    "Nothing was imported."
                )
        for name in ours.values():
            if names.count(name) > 1:
                raise InputError(
                    f"The review {path} has the column {name} more than once: remove one. Nothing was imported."
                )
        return names

    def is_altered(self, cells: Mapping[str, Any]) -> bool:
        """Whether a row was judged, and its key or value are not as they were written."""
        return bool(_text(cells, "verdict") or _text(cells, "corrected")) and self._checked(cells, "", 0) is None

    def read(self, cells: Mapping[str, Any], place: str, line: int, original: Original | None = None) -> list[Verdict]:
        """The verdicts of a row: none where it was not judged, or is at fault.

        original: what was written, where the row is altered: a spreadsheet may have written it in its own way.
        """
        try:
            return self._verdicts(self._restored(cells, original), place, line)
        except (ValueError, UsageError) as exc:
            if len(self.faults) < MAX_FAULTS:
                self.faults.append((place, str(exc)))
            else:
                self.more += 1
            return []

    def _verdicts(self, cells: Mapping[str, Any], place: str, line: int) -> list[Verdict]:
        if fault := self.of_another_job(cells["job"]):
            raise ValueError(fault)
        word, corrected = _text(cells, "verdict"), _text(cells, "corrected")
        if not word and not corrected:
            self.blank += 1
            return []
        verdict = _verdict(word)
        row = self._unchanged(cells, place, line)
        if verdict == VerdictKind.CORRECT and not corrected:
            raise ValueError("the verdict is correct, but there is no corrected value")
        correction = self._subject.correct(row, corrected) if corrected else None
        return self._subject.verdicts(row, _with(correction, verdict), correction)

    def _restored(self, cells: Mapping[str, Any], original: Original | None) -> Mapping[str, Any]:
        """The cells, with the original's in place of those that only a spreadsheet changed, if all of them are such."""
        if original is None or not all(
            is_retyped(text, str(cells[name] or "")) for name, text in original.needed.items()
        ):
            return cells
        also = {name: text for name, text in original.also.items() if is_retyped(text, str(cells.get(name) or ""))}
        return {**cells, **original.needed, **also}

    def _unchanged(self, cells: Mapping[str, Any], place: str, line: int) -> ReviewRow:
        """The row as it was written. Raises ValueError where its key or value is another one now."""
        if (row := self._checked(cells, place, line)) is not None:
            return row
        raise ValueError(
            "the key or the value was changed since the review was made: put these cells back as batchinfer review wrote them"
        )

    def _checked(self, cells: Mapping[str, Any], place: str, line: int) -> ReviewRow | None:
        """The row, if its check is that of its key and value."""
        author = _text(cells, "author") or self._author
        try:
            query = {column.name: _typed(cells[column_of(column.name)], column) for column in self._key}
            lookup_hash, value = self._subject.lookup_hash(query), str(cells["value"])
            if self._subject.digest(lookup_hash, value) == digest_of(cells["check"]):
                sample = sample_of(cells["check"])
                return ReviewRow(line, place, author, query, lookup_hash, value, cells.get("prediction"), sample)
        except (ValueError, UsageError, AttributeError, TypeError, RecursionError):
            pass  # values that cannot even be read were changed, too
        return None


def _text(cells: Mapping[str, Any], name: str) -> str:
    return str(cells.get(name) or "").strip()


def _verdict(word: str) -> VerdictKind:
    """A verdict in any case; without one, there is a corrected value. Raises ValueError."""
    try:
        return VerdictKind(word.casefold() or VerdictKind.CORRECT)
    except ValueError:
        raise ValueError(f"the verdict is {errors.shortened(word)}, but should be accept, reject or correct") from None


def _with(correction: Correction | None, verdict: VerdictKind) -> VerdictKind:
    """The verdict with a correction: who gives what was judged itself has accepted it. Raises ValueError."""
    if correction is None:
        return VerdictKind.ACCEPT if verdict == VerdictKind.CORRECT else verdict
    if verdict != VerdictKind.CORRECT:
        raise ValueError(f"the verdict is {verdict}, but there is a corrected value: say correct, or clear it")
    return verdict


def _typed(cell: Any, column: Column) -> Any:
    """A cell as a value of the key column. Raises UsageError or ValueError."""
    if cell is None:
        raise ValueError
    return typed(cell, column) if isinstance(cell, str) else cell
