"""A version's student: what its manifest says of it, and what it answers a miss with. numpy is loaded where one is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _json  # without the encoder that json.dumps makes for each call
from pathlib import Path
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Self

from batchinfer.core.files import open_plain
from batchinfer.errors import MissingExtra, StoreError
from batchinfer.versions.kept_bodies import KeptBodies
from batchinfer.versions.layout import STUDENT

if TYPE_CHECKING:
    from batchinfer.student.student import Student

ROOM = 4 << 20  # bytes of answers that are kept
ONCE = (
    19_000  # texts that were asked once, of which no more is known than that; a set of more takes three times as much
)
BESIDE = 130  # bytes that keeping an answer takes beside it and its text: their places among those kept, and its head


@dataclass(frozen=True, slots=True)
class StudentRecord:
    """What publishing came to with a student.

    problem: why the version has none, as the rest of a sentence; None if it has one.
    threshold: the least score with which it answers; None where nothing could be promised.
    agreement: how often it agreed with the model on what it answered, of rows that it did not learn from.
    coverage: the share of those that it answered.
    checked: how many live queries the student before it answered, and the model has answered since.
    right: how many of those the model answered as it did.
    """

    problem: str | None
    threshold: float | None
    agreement: float | None
    coverage: float | None
    checked: int | None
    right: int | None

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Self | None:
        """As a manifest has it. Raises ValueError, KeyError, TypeError or AttributeError for a damaged one."""
        if document is None:
            return None
        before, problem = document.get("before") or {}, document["problem"]
        shares = [document.get(name) for name in ("threshold", "agreement", "coverage")]
        threshold, agreement, coverage = (None if share is None else float(share) for share in shares)
        checked, right = (None if count is None else int(count) for count in map(before.get, ("answered", "right")))
        return cls(None if problem is None else str(problem), threshold, agreement, coverage, checked, right)


class MissAnswers:
    """Answers what a version does not have, by its student. Threads may share one.

    Answers to what was asked twice of late are kept: to keep each would take longer than it saves, where most are asked once.
    """

    def __init__(
        self, job: str, column: str, version: int | None, student: Student, *, calibrated: bool = False
    ) -> None:
        """column: whose text the student reads, which is the lookup key.

        calibrated: whether the version's scores are the chance of being right. Its own is how like the model it is, and is left out.
        """
        self._student, self._calibrated = student, calibrated
        self._kept = KeptBodies[str](ROOM)
        self._once = set[int]()
        self._begin = f'{{"job":{_json(job)},"query":{{{_json(column)}:'
        choices = [_json(choice).replace("%", "%%") for choice in student.choices]
        scores = ",".join(f"{choice}:%s" for choice in choices)
        self._answers = tuple(f'}},"prediction":{choice},"scores":{{{scores}}},"score":' for choice in choices)
        made_by = "null" if version is None else version
        self._end = f',"source":"student","model":null,"generated_at":null,"abstained":false,"version":{made_by}}}'

    def __call__(self, text: str) -> bytes | None:
        """The body of a hit, and which version says so; None if the student abstains."""
        body = self._kept.get(text)
        if body is None:
            body = self._answer(text)
            if self._was_asked(text):
                size = len(body) + getsizeof(text) + BESIDE
                if size <= ROOM // 100:
                    self._kept.keep(text, body, size)
        return body or None

    def _was_asked(self, text: str) -> bool:
        """Whether it was of late, before this."""
        known = hash(text)
        if known in self._once:
            return True
        if len(self._once) >= ONCE:
            self._once.clear()
        self._once.add(known)
        return False

    def _answer(self, text: str) -> bytes:
        """Empty if the student abstains."""
        said = self._student(text)
        if said.abstains:
            return b""
        scores = tuple(map(repr, said.scores))
        score = "null" if self._calibrated else scores[said.best]
        return f"{self._begin}{_json(text)}{self._answers[said.best] % scores}{score}{self._end}".encode()

    @classmethod
    def open(cls, folder: Path, job: str, column: str, version: int | None, *, calibrated: bool = False) -> Self:
        """Reads student.npz; the rest as the constructor has it. Raises StoreError for a damaged one, NewerStudent, or MissingExtra."""
        try:
            from batchinfer.student.file import read_student
        except ModuleNotFoundError as exc:
            raise MissingExtra("numpy or regex, which a student needs,", "student") from exc
        path = folder / STUDENT
        try:
            with open_plain(path) as file:
                content = file.read()
        except OSError as exc:
            raise StoreError(f"{path} is missing or cannot be read: {exc.strerror}.") from exc
        return cls(job, column, version, read_student(content), calibrated=calibrated)
