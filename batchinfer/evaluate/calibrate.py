"""From people's verdicts to scores that are the chance of being right: learned, tried on groups held out, and kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from batchinfer.cache import verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core.clock import iso, now
from batchinfer.core.files import write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.core.sql import listed, quoted
from batchinfer.errors import TooFewVerdicts, UsageError, counted, did_you_mean
from batchinfer.evaluate.logistic import folds_of
from batchinfer.evaluate.score_fit import (
    FittedScores,
    JudgedScores,
    LearningPoint,
    chance_error,
    fit_scores,
    held_out_area,
    learning_curve,
    ranked_bins,
    scale_of,
    verdicts_missing,
    worthwhile,
)
from batchinfer.evaluate.stats import Bin, calibration_error
from batchinfer.inputs.other_columns import OtherColumns
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Options, prepare, quiet
from batchinfer.publish.calibrated import SCORE, VOTES, FeatureColumn, Proposals, wanted_choice
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.other_scores import OtherScores
from batchinfer.publish.sliced import SLICE_VALUES, read_slice_values
from batchinfer.versions.calibration import Scale, ScoreModel, ScoreSource
from batchinfer.versions.pointers import open_if_served

FEWEST_GROUPS = 3


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What was learned of verdicts, and what it is worth.

    job: its name.
    model: what was learned.
    auc_before: the area under the ROC curve of the job's own score, taken like that of the model; None without a score.
    ece_before: its expected calibration error; None where it is no probability.
    reliability: verdicts of groups that were held out, by their scores from the lowest.
    learning: what parts of the verdicts would have come to.
    more: about how many more verdicts would be worth their while.
    used: whether the job file asks for such scores, so that publishing gives them.
    """

    job: str
    model: ScoreModel
    auc_before: float | None
    ece_before: float | None
    reliability: tuple[Bin, ...]
    learning: tuple[LearningPoint, ...]
    more: int
    used: bool

    def to_json(self) -> dict[str, Any]:
        model = self.model
        return {
            "job": self.job, "verdicts": model.verdicts, "right": model.right, "group": model.group, "groups": model.groups,
            "auc": {"before": self.auc_before, "after": model.auc},
            "ece": {"before": self.ece_before, "after": model.ece},
            "held_out_groups": {"auc": model.auc, "ece": model.ece, "chance": model.chance},
            "features": [asdict(feature) for feature in model.features],
            "reliability": [asdict(each) for each in self.reliability],
            "learning": [asdict(point) for point in self.learning], "more_verdicts": self.more, "used": self.used,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _JudgedRows:
    """The judged rows of a job, as they are learned from.

    rows: their features, what people said, and groups.
    columns: of the features.
    digest: SHA-256 of the verdicts, in hexadecimal digits.
    group: the column that the groups are of; None where each row is one.
    proposed: how many rows there are, judged or not.
    """

    rows: JudgedScores
    columns: tuple[FeatureColumn, ...]
    digest: str
    group: str | None
    proposed: int


def calibrate(
    job: Job, data: JobData, options: Options, group: str | None = None, info: Info = quiet
) -> CalibrationReport:
    """Learns from the verdicts on what the model says now, and keeps it for the next version.

    group: the column whose values are held out, in place of the job file's. Raises NotFound where the data folder has nothing
    of the job, UsageError for a column that is not there, and TooFewVerdicts.
    """
    data.require()
    with prepare(job, data, options, info) as prepared, open_if_served(data) as served:
        workspace = prepared.workspace
        candidate = Candidate(workspace, served.folder if served else None, calibration=ScoreSource())
        known = _gather(workspace, candidate.proposals(), group or _group_of(job.spec))
        others = OtherScores(workspace)
        fingerprint = workspace.fingerprint
    _check_enough(job, known.rows, known.proposed)
    names, are_scores = [column.name for column in known.columns], [column.is_score for column in known.columns]
    fitted = fit_scores(known.rows, names, are_scores)
    points = learning_curve(known.rows, names, are_scores, fitted.penalties)
    looked_at = {feature.name for feature in fitted.features}
    voters = [voter.name for voter in others.voters] if VOTES in looked_at else []
    used = {
        name: made_of
        for name, made_of in others.fingerprints.items()
        if f"score of {name}" in looked_at or name in voters
    }
    kinds = {name: kind for name, kind in others.kinds.items() if name in used}
    model = replace(_model(known, fitted, fingerprint, job.spec, used), kinds=kinds)
    write_atomically(data.calibration, model.to_bytes())
    return _report(job, known, fitted, model, points)


def _group_of(spec: JobSpec) -> str | None:
    """The column whose values are held out: as the job file says, or the language, or the first that is audited."""
    if spec.calibrate is not None and spec.calibrate.group is not None:
        return spec.calibrate.group
    if spec.match is not None and spec.match.language in spec.input.key:
        return spec.match.language
    return spec.audit.slices[0] if spec.audit.slices else None


def _gather(workspace: Workspace, proposals: Proposals, group: str | None) -> _JudgedRows:
    """What people said of what the model says now."""
    query_list = workspace.query_list
    own, join = ("hex(f.lookup_hash)", "") if group is None else _grouped(workspace, group)
    said = verdicts.hashed(workspace.spec, "f.prediction")
    values = ", ".join(f"f.{quoted(column.name)}" for column in proposals.columns)
    rows = workspace.db.execute(
        f"""SELECT hex(f.lookup_hash), coalesce(v.value, 0), v.is_right, {own}{f", {values}" if values else ""}
        FROM {proposals.features_sql} f JOIN {workspace.verdicts.judgements_sql} v
        ON f.lookup_hash = v.lookup_hash AND (v.value IS NULL OR v.value = {said})
        LEFT JOIN {query_list.first_rows_sql} l ON f.lookup_hash = l.lookup_hash {join}
        QUALIFY row_number() OVER (PARTITION BY f.lookup_hash ORDER BY v.value NULLS LAST) = 1 ORDER BY f.lookup_hash"""
    ).fetchall()
    digest = hashlib.sha256("\n".join(f"{key} {value} {right}" for key, value, right, *_ in rows).encode()).hexdigest()
    table = np.array([row[4:] for row in rows], dtype=float).reshape(len(rows), len(proposals.columns))
    judged = JudgedScores(table, np.array([row[2] for row in rows], dtype=bool), [row[3] for row in rows])
    [(proposed,)] = workspace.db.execute(f"SELECT count(*) FROM {proposals.features_sql}").fetchall()
    return _JudgedRows(judged, proposals.columns, digest, group, int(proposed))


def _grouped(workspace: Workspace, group: str) -> tuple[str, str]:
    """SQL for the group of a row `l` of the list, and the join that it needs. Raises UsageError."""
    key = workspace.spec.input.key
    names = [*key, *OtherColumns(workspace.query_list.source.files, workspace.spec.input).names]
    if group not in names:
        fix = did_you_mean(group, names) or f"there are {', '.join(names)}."
        raise UsageError(f"There is no column {group} to group verdicts by", fix=fix)
    if group in key:
        return f"coalesce(l.{listed(group)}::VARCHAR, '')", ""
    read_slice_values(workspace, [group])
    return f"coalesce(s.{listed(group)}, '')", f"LEFT JOIN {SLICE_VALUES} s ON l.row = s.row"


def _check_enough(job: Job, rows: JudgedScores, proposed: int) -> None:
    """Raises TooFewVerdicts, with how many are wanted. proposed: how many rows there are, judged or not."""
    name = job.name
    everything = " --all" if verdicts.is_checking(job.spec) else ""  # what it passed says nothing of the other scores
    count, right = len(rows.right), int(rows.right.sum())
    if more := verdicts_missing(right, count - right):
        said = (
            f"{counted(count, 'verdict')} on what {name} says now, {right:,} of them right, are too few to learn from; "
        )
        said += f"about {more:,} more "
        left = max(proposed - count, 0)
        if left < more:
            raise TooFewVerdicts(f"{said}are wanted, and {left:,} are left to judge", fix="learn of a longer list.")
        # a sample is drawn of all rows, and asks about those that nobody judged
        drawn = math.ceil(more * proposed / left)
        raise TooFewVerdicts(
            f"{said}are wanted",
            fix=f"batchinfer precision {name} --sample {drawn}{everything} --out FILE draws that many that nobody has judged, more or "
            f"less, batchinfer import {name} FILE takes it in.",
        )
    if (groups := len(set(rows.groups))) < FEWEST_GROUPS:
        raise TooFewVerdicts(
            f"The verdicts on {name} are on {counted(groups, 'group')}, each of which is held out in turn",
            fix=f"judge rows of {FEWEST_GROUPS} groups or more, or name another column with --group.",
        )
    if not np.isfinite(rows.values).any():
        raise UsageError(f"Nothing is known of the predictions of {name} that a score could be learned from.")


def _model(
    known: _JudgedRows, fitted: FittedScores, fingerprint: str | None, spec: JobSpec, jobs: dict[str, str | None]
) -> ScoreModel:
    bins = ranked_bins(fitted.held_out, known.rows.right)
    auc = held_out_area(fitted.held_out, known.rows.right, folds_of(known.rows.groups))
    return ScoreModel(
        made_at=iso(now()) or "", verdicts=len(known.rows.right), right=int(known.rows.right.sum()), digest=known.digest,
        fingerprint=fingerprint, prior=spec.output.prior, jobs=jobs, group=known.group, groups=len(set(known.rows.groups)),
        auc=auc, ece=calibration_error(bins), chance=chance_error(bins),
        intercept=fitted.intercept, features=fitted.features,
        wanted=wanted_choice(spec),
    )  # fmt: skip


def _report(
    job: Job, known: _JudgedRows, fitted: FittedScores, model: ScoreModel, points: Sequence[LearningPoint]
) -> CalibrationReport:
    right, folds = known.rows.right, folds_of(known.rows.groups)
    own = [values for column, values in zip(known.columns, known.rows.values.T, strict=True) if column.name == SCORE]
    before = next((values for values in own if np.isfinite(values).all()), None)
    is_share = before is not None and scale_of(before) is Scale.LOGIT
    return CalibrationReport(
        job.name, model,
        auc_before=None if before is None else held_out_area(before, right, folds),
        ece_before=calibration_error(ranked_bins(before, right)) if before is not None and is_share else None,
        reliability=tuple(ranked_bins(fitted.held_out, right)), learning=tuple(points), more=worthwhile(points),
        used=job.spec.calibrate is not None,
    )  # fmt: skip
