"""From the model's scores to a student: learned on most rows, and held against the model on the others.

    entries with scores ─┬─► learned ──► weights ─┐
                         └─► held out ────────────┴─► threshold ─► student.npz, and what it is worth

What is held out is asked of the weights as the file has them, so that the promise is the file's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import one
from batchinfer.core.files import os_errors, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.core.sql import listed
from batchinfer.errors import TooFewRows, UsageError, counted
from batchinfer.job.reader import Job
from batchinfer.job.student_spec import StudentSpec
from batchinfer.planning.prepare import Options, prepare, quiet
from batchinfer.publish.contents import Candidate
from batchinfer.student.features import Features
from batchinfer.student.fit import Fitted, fit, matrix
from batchinfer.student.linear import LinearStudent
from batchinfer.student.threshold import Threshold, find_threshold, least_rows
from batchinfer.versions.calibration import ScoreSource
from batchinfer.versions.pointers import open_if_served

Floats = npt.NDArray[np.float64]
HELD = 4  # one row of so many is held out, always the same ones
MOST_ROWS = 260_000  # that it learns from or is held against the model on; of more, a sample
FEW_ROWS, FEW_BITS, MANY_BITS = 50_000, 16, 18  # columns are 2 ** bits
LEAST_SPREAD = 1e-6  # of scores, below which there is nothing to learn


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two say the same rows.

    agreement: share of the rows of which both find the same choice likeliest.
    spearman: rank correlation of their scores of the first choice; None where one of them does not vary.
    brier: mean square of the difference of scores, all choices together.
    """

    agreement: float
    spearman: float | None
    brier: float


@dataclass(frozen=True, slots=True)
class DistillReport:
    """What a student learned, and what it is worth.

    job: its name.
    rows: how many have scores.
    learned, held: how many it learned from, and how many it was held against the model on.
    threshold: from which score on it answers; None if nothing can be promised.
    agree, confidence, max_abstain: as the job file has them.
    student: of all held-out rows, whether it would answer or not.
    rounded: the same of a student that learned the likeliest choices in place of scores.
    most_frequent: how often the model says what it says most often.
    size: bytes of the file.
    problem: why it is not used, as the rest of a sentence; None if it is.
    """

    job: str
    rows: int
    learned: int
    held: int
    threshold: Threshold | None
    agree: float
    confidence: float
    max_abstain: float
    student: Likeness
    rounded: Likeness
    most_frequent: float
    size: int
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        found = self.threshold
        return {
            "job": self.job, "rows": self.rows, "learned": self.learned, "held": self.held,
            "agreement": None if found is None else found.agreement, "coverage": None if found is None else found.answered,
            "threshold": None if found is None else found.score, "agree": self.agree, "confidence": self.confidence,
            "served": self.problem is None, "problem": self.problem, "bytes": self.size,
            "student": _plain(self.student), "rounded": _plain(self.rounded), "most_frequent": self.most_frequent,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Taught:
    """What the model says of texts: (rows,) and (rows, choices).

    held: which are held out.
    rows: how many have scores; these are a sample of them if they are more.
    """

    texts: list[str]
    scores: Floats
    held: npt.NDArray[np.bool_]
    rows: int


def distill(job: Job, data: JobData, options: Options, info: Info = quiet) -> DistillReport:
    """Learns from what the model says now, and keeps the student if it can be used.

    Raises NotFound where the data folder has nothing of the job, UsageError for a job without the section, or whose scores
    are all alike, and TooFewRows.
    """
    spec, choices = job.spec.student, tuple(job.spec.output.choices or ())
    if spec is None:
        raise UsageError(
            f"The job {job.name} has no section student: add student: {{text: {job.spec.input.key[0]}}} to {job.path}."
        )
    data.require()
    with prepare(job, data, options, info) as prepared, open_if_served(data) as served:
        candidate = Candidate(prepared.workspace, served.folder if served else None, calibration=ScoreSource())
        taught = _gather(prepared.workspace, candidate, spec, choices)
    _check_enough(job.name, spec, choices, taught)
    learned, held = np.flatnonzero(~taught.held), np.flatnonzero(taught.held)
    info(f"Learning from {counted(len(learned), 'row')} ...")
    rows = matrix(Features(FEW_BITS if len(taught.texts) < FEW_ROWS else MANY_BITS), taught.texts)
    known, goal = rows[learned], taught.scores[learned]
    fitted = fit(known, goal)
    rounded = fit(known, _rounded(goal), fitted.penalty)
    said, teacher = _said(rows[held], fitted), taught.scores[held]
    found = find_threshold(said.max(1), said.argmax(1) == teacher.argmax(1), spec.agree, spec.confidence)
    problem = _problem(spec, found, len(held))
    content = LinearStudent(choices, found.score if found else 1.0, fitted.weights, fitted.bias).to_bytes()
    _keep(data, None if problem else content)
    return DistillReport(
        job.name, taught.rows, len(learned), len(held), found, spec.agree, spec.confidence, spec.max_abstain,
        _likeness(said, teacher), _likeness(_said(rows[held], rounded), teacher),
        float(np.bincount(teacher.argmax(1)).max() / len(held)), len(content), problem,
    )  # fmt: skip


def _gather(workspace: Workspace, candidate: Candidate, spec: StudentSpec, choices: tuple[str, ...]) -> _Taught:
    """The entries that have a score of each choice, always the same ones: hashes of keys are as good as chance."""
    scored = f"FROM {candidate.entries_sql} WHERE scores IS NOT NULL AND {listed(spec.text)} IS NOT NULL"
    rows = workspace.db.execute(
        f"SELECT {listed(spec.text)}::VARCHAR, scores, hex(lookup_hash) {scored} ORDER BY lookup_hash DESC LIMIT {MOST_ROWS}"
    ).fetchall()
    texts = [workspace.texts.whole(text) for text, _, _ in rows]
    scores = np.array(
        [[json.loads(said).get(choice, np.nan) for choice in choices] for _, said, _ in rows], dtype=float
    )
    known = np.isfinite(scores.reshape(len(rows), len(choices))).all(1)
    held = np.array([int(key[-8:], 16) % HELD == 0 for _, _, key in rows], dtype=bool)
    kept = np.flatnonzero(known)
    count = int(one(workspace.db, f"SELECT count(*) {scored}"))
    return _Taught([texts[number] for number in kept], scores[kept], held[kept], count)


def _check_enough(name: str, spec: StudentSpec, choices: tuple[str, ...], taught: _Taught) -> None:
    """Raises TooFewRows, with how many are wanted, or UsageError where there is nothing to learn."""
    least = least_rows(spec.agree, spec.confidence)
    if taught.held.sum() < least:
        raise TooFewRows(
            f"{counted(len(taught.texts), 'row')} of {name} with scores are too few for a student: it is held against the model on every "
            f"fourth, and with fewer than {least} of them no agreement of {spec.agree:g} can be shown: some {HELD * least} rows are wanted."
        )
    if np.ptp(taught.scores, axis=0).max() < LEAST_SPREAD:
        raise UsageError(f"The scores of {name} are all alike, so there is nothing that a student could learn.")
    if len(said := np.unique(taught.scores.argmax(1))) == 1:
        raise UsageError(
            f"The model says {choices[int(said[0])]} to every row of {name}: a student would learn no more than that word."
        )


def _problem(spec: StudentSpec, found: Threshold | None, held: int) -> str | None:
    if found is None:
        return (
            f"from no score on it can be shown to agree with the model {spec.agree:.0%} of the time, by {counted(held, 'row')} that it did "
            "not learn from"
        )
    if 1 - found.answered > spec.max_abstain:
        return f"it would leave {1 - found.answered:.0%} of the queries unanswered, and student.max_abstain is {spec.max_abstain:.0%}"
    return None


def _keep(data: JobData, content: bytes | None) -> None:
    if content is not None:
        write_atomically(data.student, content)
        return
    with os_errors(data.student):
        data.student.unlink(missing_ok=True)


def _rounded(scores: Floats) -> Floats:
    """The likeliest choice alone."""
    rounded: Floats = np.eye(scores.shape[1])[scores.argmax(1)]
    return rounded


def _said(rows: Any, fitted: Fitted) -> Floats:
    """Scores of all choices."""
    logits = rows @ fitted.weights.T + fitted.bias
    if logits.shape[1] == 1:
        logits = np.concatenate([logits, np.zeros_like(logits)], axis=1)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def _likeness(one: Floats, other: Floats) -> Likeness:
    varies = np.ptp(one[:, 0]) > 0 and np.ptp(other[:, 0]) > 0
    return Likeness(
        float((one.argmax(1) == other.argmax(1)).mean()),
        float(stats.spearmanr(one[:, 0], other[:, 0])[0]) if varies else None,
        float(((one - other) ** 2).sum(1).mean()),
    )


def _plain(likeness: Likeness) -> dict[str, float | None]:
    return {"agreement": likeness.agreement, "spearman": likeness.spearman, "brier": likeness.brier}
