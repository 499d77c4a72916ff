"""What a student learned, and what it is worth: beside the model, beside people, by groups of rows, and on live misses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from batchinfer.errors import counted
from batchinfer.publish.slices import FairVerdict
from batchinfer.student.likeness import Likeness
from batchinfer.student.threshold import Threshold


@dataclass(frozen=True, slots=True)
class PeopleLikeness:
    """A student, and its model, beside people, on the same rows, none of which the student learned from.

    rows: of which people said what is right.
    student, model: how alike each of them and people are.
    rounded: how alike people and a student are that learned the likeliest choices in place of scores.
    most_frequent: how often what the model says most often is right.
    answered: of how many the student is sure enough to answer.
    right: how many of those it answers as people do.
    """

    rows: int
    student: Likeness
    model: Likeness
    rounded: Likeness
    most_frequent: float
    answered: int
    right: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StudentSlice:
    """A group of rows that the student did not learn from.

    column, value: of the list, as `audit` has them.
    rows: how many there are.
    answered: the share of them that it is sure enough to answer.
    agreement: how often it agrees with the model on those; None if it answers none.
    verdict: whether the group stands apart from the others, by audit's limits.
    """

    column: str
    value: str | None
    rows: int
    answered: float
    agreement: float | None
    verdict: FairVerdict

    def to_json(self) -> dict[str, Any]:
        whole = asdict(self)
        return {("coverage" if name == "answered" else name): value for name, value in whole.items()}


@dataclass(frozen=True, slots=True)
class StudentReport:
    """What a student learned, and what it is worth.

    job: its name.
    kind: as the job file has it.
    rows: how many have scores.
    learned, held: how many it learned from, and how many it was held against the model on.
    asked: how many that clients asked for its threshold was found with; 0 where rows of the list were needed, too.
    at_least: how often clients asked for each of those, at least.
    threshold: from which score on it answers; None if nothing can be promised.
    agree, confidence, max_abstain: as the job file has them.
    student: of all held-out rows, whether it would answer or not.
    rounded: the same of a student that learned the likeliest choices in place of scores.
    most_frequent: how often the model says what it says most often.
    linear: the same as `student` of a linear one; None where this is one.
    always: what it says whenever it answers, of the held-out rows; None if it says several things, or answers nothing.
    people: beside people; None where they said nothing of rows that it did not learn from.
    slices: by groups of audit.slices.
    size: bytes of the file.
    problem: why it is not used, as the rest of a sentence; None if it is.
    """

    job: str
    kind: str
    rows: int
    learned: int
    held: int
    asked: int
    at_least: int
    threshold: Threshold | None
    agree: float
    confidence: float
    max_abstain: float
    student: Likeness
    rounded: Likeness
    most_frequent: float
    linear: Likeness | None
    always: str | None
    people: PeopleLikeness | None
    slices: tuple[StudentSlice, ...]
    size: int
    problem: str | None

    @property
    def judged_by(self) -> str:
        """What its threshold was found with, for people."""
        if not self.asked:
            return "the held-out rows"
        often = "" if self.at_least == 1 else f" that were asked {self.at_least:,} times or more"
        return f"{counted(self.asked, 'live query', 'live queries')}{often}"

    @property
    def caution(self) -> str | None:
        """That its answers say little, as a sentence; None if they say something."""
        if self.always is not None:
            return f"Whenever it answers it says {self.always}: look at how scores are ranked, not at answers."
        if self.student.agreement <= self.most_frequent:
            return (
                "Always saying the most frequent answer agrees as often: look at how scores are ranked, not at answers."
            )
        return None

    def to_json(self) -> dict[str, Any]:
        found = self.threshold
        return {
            "job": self.job, "kind": self.kind, "rows": self.rows, "learned": self.learned, "held": self.held, "asked": self.asked,
            "at_least": self.at_least, "agreement": None if found is None else found.agreement,
            "coverage": None if found is None else found.answered,
            "threshold": None if found is None else found.score, "agree": self.agree, "confidence": self.confidence,
            "served": self.problem is None, "problem": self.problem, "bytes": self.size,
            "student": self.student.to_json(), "rounded": self.rounded.to_json(), "most_frequent": self.most_frequent,
            "linear": None if self.linear is None else self.linear.to_json(), "always": self.always,
            "people": None if self.people is None else self.people.to_json(),
            "slices": [each.to_json() for each in self.slices],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TurnedOut:
    """How often the student that is served was right about what clients asked for, as the model has answered since.

    answered: how many such queries it answers.
    right: how many of those the model answers as it does.
    """

    answered: int
    right: int

    def __str__(self) -> str:
        """A sentence."""
        if not self.answered:
            return "The student before it answered none of the live queries that the model has answered since."
        return (
            f"The student before it answered {counted(self.answered, 'live query', 'live queries')} that the model has answered since, "
            f"{self.right / self.answered:.0%} of them as the model."
        )


@dataclass(frozen=True, slots=True)
class VersionStudent:
    """What publishing came to with a student.

    report: of the one that was learned; None where nothing could be.
    problem: why the version has none, as the rest of a sentence; None if it has one.
    before: how the one that was served until then turned out; None if there was none, or nothing to tell by.
    """

    report: StudentReport | None
    problem: str | None
    before: TurnedOut | None

    def to_json(self) -> dict[str, Any]:
        """As the manifest and the report of a run have it."""
        before = None if self.before is None else asdict(self.before)
        said = {"served": False, "problem": self.problem} if self.report is None else self.report.to_json()
        return {**said, "before": before}

    @property
    def message(self) -> str:
        """The same in sentences."""
        return " ".join([self._outcome, *([] if self.before is None else [str(self.before)])])

    @property
    def _outcome(self) -> str:
        if self.report is None or self.report.threshold is None or self.problem is not None:
            return f"The version has no student: {self.problem}."
        found, caution = self.report.threshold, self.report.caution
        said = f"Its student answers {found.answered:.0%} of other queries, {found.agreement:.0%} of them as the model."
        return said if caution is None else f"{said} {caution}"
