"""A version's student: learned of the candidate's own entries, judged, and written as student.npz where it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchinfer.cache.workspace import Workspace
from batchinfer.core.arrays import Floats
from batchinfer.core.files import os_errors
from batchinfer.core.records import Info
from batchinfer.errors import BatchinferError, TooFewRows, UsageError, counted
from batchinfer.job.spec import JobSpec
from batchinfer.job.student_spec import StudentSpec
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.golden import Golden
from batchinfer.publish.needs import PublishingNeeds
from batchinfer.publish.sliced import SlicedKeys
from batchinfer.publish.slices import SliceFigures, judge_slices
from batchinfer.publish.student_report import PeopleLikeness, StudentReport, StudentSlice, TurnedOut, VersionStudent
from batchinfer.publish.student_rows import HELD, NOBODY, StudentRows, gather_rows
from batchinfer.student.embeddings import Embeddings
from batchinfer.student.file import read_student
from batchinfer.student.learn import Learned, learn
from batchinfer.student.likeness import likeness, only
from batchinfer.student.threshold import Threshold, least_rows
from batchinfer.versions.layout import STUDENT
from batchinfer.versions.manifest import Manifest

LEAST_SPREAD = 1e-6  # of scores, below which there is nothing to learn


class NothingToLearn(UsageError):
    """What the model says of a job's rows teaches nothing."""


class Pupil:
    """A student that was learned of a candidate.

    report: what it is worth.
    rows: what it was learned of.
    content: student.npz, whether it can be used or not.
    """

    def __init__(
        self,
        candidate: Candidate,
        workspace: Workspace,
        golden: Golden | None,
        embeddings: Embeddings | None,
        info: Info,
    ) -> None:
        """golden: rows of which people know what is right. embeddings: None for a linear student.

        Raises NothingToLearn, TooFewRows, InputError or StoreError.
        """
        spec, choices = _section(workspace.spec), tuple(workspace.spec.output.choices or ())
        self.rows = rows = gather_rows(workspace, candidate, golden)
        _check_enough(workspace.spec, rows)
        lesson = rows.lesson
        held = np.flatnonzero(lesson.held)
        info(f"Learning a student from {counted(len(lesson.texts) - len(held), 'row')} ...")
        scale = spec.scale(choices)
        learned = learn(lesson, spec.agree, spec.confidence, scale, embeddings)
        self.content = learned.to_bytes(choices)
        teacher, found = lesson.scores[held], learned.threshold
        asked_often, most = workspace.spec.input.include_misses, np.bincount(teacher.argmax(1))
        self.report = StudentReport(
            workspace.spec.name, spec.kind, rows.rows, len(lesson.texts) - len(held), len(held), learned.asked,
            asked_often.at_least if asked_often else 1, found, spec.agree, spec.confidence, spec.max_abstain,
            likeness(learned.said, teacher, scale), likeness(learned.rounded, teacher, scale), float(most.max() / len(held)),
            None if learned.linear is None else likeness(learned.linear, teacher, scale), _always(learned, choices),
            _beside_people(rows, learned, int(most.argmax()), scale), _by_slices(workspace, candidate, rows, learned),
            len(self.content), _problem(spec, found, learned.asked or len(held)),
        )  # fmt: skip


def add_student(
    candidate: Candidate, workspace: Workspace, needs: PublishingNeeds, before: Path | None, draft: Path, info: Info
) -> VersionStudent | None:
    """Writes student.npz into a draft if a promise can be kept, and says if not. None for a job without the section.

    before: the version that is served now.
    """
    if workspace.spec.student is None:
        return None
    try:
        pupil = Pupil(candidate, workspace, needs.golden, needs.embeddings(), info)
    except (NothingToLearn, TooFewRows) as exc:
        found = VersionStudent(None, exc.args[0].rstrip("."), None)
    else:
        report = pupil.report
        found = VersionStudent(
            report,
            report.problem,
            None if before is None else _turned_out(pupil.rows, workspace.spec.output.choices or (), before),
        )
        if report.problem is None:
            with os_errors(draft):
                (draft / STUDENT).write_bytes(pupil.content)
    info(found.message)
    return found


def _section(spec: JobSpec) -> StudentSpec:
    assert spec.student is not None
    return spec.student


def _check_enough(job: JobSpec, rows: StudentRows) -> None:
    """Raises TooFewRows, with how many are wanted, or NothingToLearn."""
    spec, choices, lesson = _section(job), job.output.choices or [], rows.lesson
    least = least_rows(spec.agree, spec.confidence)
    if lesson.held.sum() < least or lesson.held.all():
        raise TooFewRows(
            f"{counted(len(lesson.texts), 'row')} of {job.name} with scores are too few for a student: it is held against the model on "
            f"every fourth, and with fewer than {least} of them no agreement of {spec.agree:g} can be shown: some {HELD * least} rows are "
            "wanted."
        )
    if np.ptp(lesson.scores, axis=0).max() < LEAST_SPREAD:
        raise NothingToLearn(f"The scores of {job.name} are all alike, so there is nothing that a student could learn.")
    if len(said := np.unique(lesson.scores.argmax(1))) == 1:
        raise NothingToLearn(
            f"The model says {choices[int(said[0])]} to every row of {job.name}: a student would learn no more than that word."
        )


def _problem(spec: StudentSpec, found: Threshold | None, judging: int) -> str | None:
    """judging: rows that the threshold was looked for with."""
    if found is None:
        return (
            f"from no score on it can be shown to agree with the model {spec.agree:.0%} of the time, by {counted(judging, 'row')} that it "
            "did not learn from"
        )
    if 1 - found.answered > spec.max_abstain:
        return f"it would leave {1 - found.answered:.0%} of the queries unanswered, and student.max_abstain is {spec.max_abstain:.0%}"
    return None


def _answers(said: Floats, found: Threshold | None) -> npt.NDArray[np.bool_]:
    """Which rows it is sure enough to answer."""
    return np.asarray(said.max(1) >= (np.inf if found is None else found.score))


def _always(learned: Learned, choices: Sequence[str]) -> str | None:
    """The one choice that it answers held-out rows with, if it is one."""
    said = np.unique(learned.said.argmax(1)[_answers(learned.said, learned.threshold)])
    return choices[int(said[0])] if len(said) == 1 else None


def _beside_people(
    rows: StudentRows, learned: Learned, most_frequent: int, scale: Sequence[float] | None
) -> PeopleLikeness | None:
    """On what was held out, and on what people put another answer in place of: the model was not right about all of that.

    most_frequent: the number of the choice that the model says most often.
    """
    lesson, judged = rows.lesson, rows.judged
    known = rows.right[lesson.held] != NOBODY
    right = np.concatenate([rows.right[lesson.held][known], judged.right])
    if not len(right):
        return None
    said, rounded, teacher = learned.said[known], learned.rounded[known], lesson.scores[lesson.held][known]
    if judged.texts:
        parts = zip((said, rounded, teacher), (*learned.answers(judged.texts), judged.scores), strict=True)
        said, rounded, teacher = (np.concatenate(pair) for pair in parts)
    answered, truth = _answers(said, learned.threshold), only(right, said.shape[1])
    is_right = (said.argmax(1) == right) & answered
    return PeopleLikeness(
        len(right),
        likeness(said, truth, scale),
        likeness(teacher, truth, scale),
        likeness(rounded, truth, scale),
        float((right == most_frequent).mean()),
        int(answered.sum()),
        int(is_right.sum()),
    )


def _by_slices(
    workspace: Workspace, candidate: Candidate, rows: StudentRows, learned: Learned
) -> tuple[StudentSlice, ...]:
    """Of the rows held out. Audit's limits on coverage and accuracy hold for what it answers, and for how often it agrees."""
    columns, held = workspace.spec.audit.slices, rows.lesson.held
    if not columns:
        return ()
    answered = _answers(learned.said, learned.threshold)
    agreed = learned.said.argmax(1) == rows.lesson.scores[held].argmax(1)
    lookup_hashes = [each for each, is_held in zip(rows.lookup_hashes, held, strict=True) if is_held]
    table = pa.table({"lookup_hash": lookup_hashes, "answered": answered, "agreed": answered & agreed})
    keys = SlicedKeys(workspace, columns)
    keys.fill(candidate.entries_sql, None)
    groups = [
        (column, value, SliceFigures(count, sure, 0, golden=sure, right=right))
        for column in columns
        for value, count, sure, right in keys.tally(column, table)
    ]
    whole = SliceFigures(
        len(agreed), int(answered.sum()), 0, golden=int(answered.sum()), right=int((answered & agreed).sum())
    )
    return tuple(
        StudentSlice(
            each.column, each.value, each.figures.rows, each.figures.coverage,
            each.figures.right / each.figures.golden if each.figures.golden else None, each.verdict,
        )
        for each in judge_slices(groups, whole, workspace.spec.audit.limits)
    )  # fmt: skip


def _turned_out(rows: StudentRows, choices: Sequence[str], before: Path) -> TurnedOut | None:
    """Of what clients asked for since the version before was made, and the model has answered since."""
    manifest = Manifest.read(before)
    if STUDENT not in manifest.files:
        return None
    try:
        student = read_student((before / STUDENT).read_bytes())
    except (OSError, BatchinferError):  # of a newer program or another kind, or damaged: whoever serves it says so
        return None
    made, lesson = manifest.created_at.replace(tzinfo=None), rows.lesson
    since = [number for number in np.flatnonzero(lesson.asked) if rows.asked[rows.lookup_hashes[number]] >= made]
    said = [(student(lesson.texts[number]), choices[int(lesson.scores[number].argmax())]) for number in since]
    answered = [(student.choices[answer.best], teacher) for answer, teacher in said if not answer.abstains]
    return TurnedOut(len(answered), sum(choice == teacher for choice, teacher in answered)) if since else None
