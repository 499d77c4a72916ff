"""How precise is what is served: a sample drawn for review, and the figure that its verdicts give."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batchinfer.cache import verdicts
from batchinfer.cache.verdicts import IMPORTS
from batchinfer.cache.workspace import Workspace
from batchinfer.core.clock import iso, now
from batchinfer.core.database import one
from batchinfer.core.files import os_errors, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile
from batchinfer.core.person import Nobody, Person
from batchinfer.core.records import Info, Source
from batchinfer.core.sql import listed, literal
from batchinfer.errors import NotFound, UsageError, counted, did_you_mean
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, Prepared, prepare, quiet
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.caution import confirm_list
from batchinfer.publish.golden import read_golden
from batchinfer.publish.inference import Estimated, Precision, allocate
from batchinfer.publish.precision import SampledPrecision, judged_mark, size_sql, verdict_mark
from batchinfer.publish.predictions_file import version_rows
from batchinfer.publish.recall import measure_recall
from batchinfer.publish.samples import Sample, Stratum, keep_sample, new_sample, write_frame
from batchinfer.publish.sliced import SLICE_VALUES, check_slices, read_slice_values
from batchinfer.review.export import DrawnRows, Sheet
from batchinfer.review.subject import SubjectKind
from batchinfer.versions import folders
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import open_if_served, served
from batchinfer.versions.precision import precision_file

BANDS = 5  # of the score
LEAST_SHARE = 10  # rows that a uniform sample would draw of a slice; smaller ones are drawn as one
LETTERS = 8  # of a sample's id


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """What was drawn.

    job: its name.
    sample: the sample's id.
    file: where the review is, or - for standard output.
    rows: those that people are asked for.
    judged: further rows that were drawn, which people had judged for an earlier sample.
    stands_for: how many rows could have been drawn.
    subject: what is judged, values or terms.
    list_differs: that the list is another one than the served version's, as a sentence.
    """

    job: str
    sample: str
    file: str
    rows: int
    judged: int
    stands_for: int
    subject: SubjectKind
    list_differs: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VersionPrecision:
    """The precision of a version.

    job: its name.
    version: its number.
    found: the figure.
    recall: of what golden rows say that a right answer contains, the share that is served; None without such rows.
    """

    job: str
    version: int
    found: Precision
    recall: Estimated | None = None

    def to_json(self) -> dict[str, Any]:
        """As `precision --json` prints it, and evals/ has it."""
        recall = None if self.recall is None else {
            "estimate": self.recall.value, **asdict(self.recall.interval), "rows": self.recall.verdicts
        }  # fmt: skip
        return {"job": self.job, "version": self.version, **self.found.to_json(), "recall": recall}


def version_precision(
    job: Job, data: JobData, options: Options, version: int | None, info: Info = quiet
) -> VersionPrecision:
    """The precision of a version, the served one if none is named; it is written to evals/, where the service reads it.

    Raises NotFound where there is no such version, or too few verdicts.
    """
    data.require()
    number = served(data).version if version is None else version
    with prepare(job, data, options, info) as prepared, open_if_served(data) as now_served:
        rows = _rows_of(job, data, prepared, number)
        candidate = Candidate(prepared.workspace, now_served.folder if now_served else None)
        found = SampledPrecision(prepared.workspace, data, candidate.withheld_sql).measure(rows)
        recall = measure_recall(prepared.workspace, read_golden(job, prepared.query_list.source.key), rows)
    report = VersionPrecision(job.name, number, found, recall)
    if found.problem is None or recall is not None:
        _write(data, report)
    if found.problem is not None:
        sample = f"batchinfer precision {job.name} --sample {max(1, found.wanted(DEFAULT_LIMIT) or 0)} --out FILE"
        raise NotFound(
            f"There is no figure for version {number} of {job.name}: {found.problem}{_with_recall(recall)}",
            fix=f"{sample} draws what to judge." if found.rows else "there is nothing that a sample could be drawn of.",
        )
    return report


def _with_recall(recall: Estimated | None) -> str:
    """What golden rows tell all the same, as the end of a sentence."""
    if recall is None:
        return ""
    rows, low, high = counted(recall.verdicts, "golden row"), recall.interval.low, recall.interval.high
    return f"; of what {rows} must contain, {recall.value:.1%} is served ({low:.1%} to {high:.1%}), which is kept"


DEFAULT_LIMIT = 0.9  # that a first sample is made for


def _write(data: JobData, report: VersionPrecision) -> None:
    with os_errors(data.evals):
        data.evals.mkdir(parents=True, exist_ok=True)
    content = report.to_json() | {"made_at": iso(now())}
    write_atomically(precision_file(data, report.version), json.dumps(content, indent=2).encode())


def _rows_of(job: Job, data: JobData, prepared: Prepared, version: int) -> str:
    """The entries of a version, named as the list's. Raises NotFound or UsageError."""
    folder = folders.folder_of(data, version)
    if not folder.is_dir():
        raise NotFound(
            f"The job {data.name} has no version {version}", fix=f"batchinfer versions {data.name} lists them."
        )
    manifest = Manifest.read(folder)
    if manifest.key != tuple(prepared.query_list.source.key) or manifest.prediction != job.spec.output.kind:
        raise UsageError(
            f"Version {version} of {data.name} has another key or kind of prediction than the job has now, so verdicts do not fit it."
        )
    workspace = prepared.workspace
    return f"({version_rows(workspace.db, workspace.texts, folder, manifest.key)})"


def draw_sample(
    job: Job,
    data: JobData,
    options: Options,
    target: OutputFile,
    count: int,
    where: Mapping[str, str],
    version: int | None = None,
    person: Person = Nobody(),  # noqa: B008 - it has no state
    seed: str | None = None,
    *,
    everything: bool = False,
) -> DrawnSample:
    """Draws so many rows, and writes those that nobody has judged as a review.

    version: which to draw from; None for what would be published now. seed: by which to draw; random unless given.
    everything: of a checking job, also what match.where and match.min_score leave out.
    Raises UsageError where nothing can be drawn, and NotFound where the data folder has nothing of the job.
    """
    data.require()
    differs = confirm_list(job, data, options.input, person, yes=options.yes)
    with (
        target.draft() as draft,
        prepare(job, data, options, person.info) as prepared,
        open_if_served(data) as now_served,
        new_sample(data) as folder,
    ):
        check_slices(job, prepared.query_list.source)
        candidate = Candidate(prepared.workspace, now_served.folder if now_served else None)
        rows = candidate.entries_sql if version is None else _rows_of(job, data, prepared, version)
        draw = _Draw(
            prepared.workspace, rows, candidate.withheld_sql, seed or secrets.token_hex(8), everything=everything
        )
        strata = draw.fill(count, where)
        name = draw.sample_id
        sheet = Sheet(prepared.workspace, candidate, now_served.number if now_served else 0, draw.rows(name))
        sheet.fill()
        sheet.write(target, draft)
        write_frame(prepared.workspace.db, draw.frame_sql, folder)
        keep_sample(data, folder, Sample(name, iso(now()) or "", version, dict(where), draw.seed, tuple(strata)))
        asked, drawn = sheet.count(), sum(stratum.drawn for stratum in strata)
        whole = sum(stratum.rows for stratum in strata)
        return DrawnSample(job.name, name, str(target), asked, drawn - asked, whole, sheet.subject.kind, differs)


class _Draw:
    """A sample that is being drawn. Owns the tables `drawable` and `frame` in the workspace's database."""

    frame_sql = "frame"

    def __init__(self, workspace: Workspace, rows_sql: str, withheld_sql: str, seed: str, *, everything: bool) -> None:
        """rows_sql: the entries. withheld_sql: see `SampledPrecision`. everything: see `draw_sample`."""
        self._everything = everything
        self._workspace, self._db, self._spec = workspace, workspace.db, workspace.spec
        self._rows, self._withheld, self.seed = rows_sql, withheld_sql, seed
        self._slices = [name for name in workspace.spec.audit.slices if name not in workspace.spec.input.key]

    @property
    def sample_id(self) -> str:
        """A name for the sample, of letters alone, so that no spreadsheet takes it for a number."""
        sql = "SELECT translate(left(sha256(?), ?), '0123456789', 'ghijklmnop')"
        return str(one(self._db, sql, [f"id {self.seed}", LETTERS]))

    def fill(self, count: int, where: Mapping[str, str]) -> list[Stratum]:
        """Draws; returns the strata. Raises UsageError where there is nothing to draw from."""
        read_slice_values(self._workspace, self._slices)
        with self._workspace.store.attached(self._db):
            self._db.execute(f"CREATE OR REPLACE TABLE drawable AS {self._drawable(count, where)}", [*where.values()])
        sizes = self._db.execute(
            "SELECT count(*), avg(score) FROM drawable GROUP BY stratum ORDER BY stratum"
        ).fetchall()
        if not sizes:
            raise UsageError(
                "There is nothing to draw from: "
                + (
                    "no prediction has " + " and ".join(f"{name}={value}" for name, value in where.items())
                    if where
                    else f"{self._spec.name} has no predictions of a model"
                )
                + "."
            )
        drawn = allocate([rows for rows, _ in sizes], [score for _, score in sizes], count)
        self._make_frame(drawn)
        return [Stratum(rows, part, score) for (rows, score), part in zip(sizes, drawn, strict=True)]

    def rows(self, sample: str) -> DrawnRows:
        """Those that people are to judge."""
        rows = f"(SELECT e.*, f.place FROM {self._rows} e JOIN (FROM frame WHERE place IS NOT NULL AND NOT known) f USING (lookup_hash))"
        return DrawnRows(sample, rows)

    def _drawable(self, count: int, where: Mapping[str, str]) -> str:
        """SQL for all that can be drawn, and its stratum, by slice and score: the model's predictions, and what reviewers gave.

        What people took out because of an earlier sample is among it, or that sample's wrong rows would count twice.
        """
        spec, names = self._spec, ", ".join(listed(name) for name in self._spec.input.key)
        chosen = "".join(f" AND {name}::VARCHAR = ?" for name in self._columns(where))
        marked = f"*, {judged_mark(spec, 'prediction')} AS value"
        is_matched = f"coalesce({verdicts.matched(spec, listed)}, false)"
        marked += f", {is_matched} AS is_matched"
        fit = f"{'true' if self._everything else is_matched} AND {size_sql(spec)} > 0"
        return f"""
            WITH judged AS (
                SELECT DISTINCT lookup_hash, {verdict_mark(spec)} AS value FROM {IMPORTS} WHERE verdict IS NOT NULL AND sample IS NOT NULL),
            withheld AS (SELECT {marked} FROM ({self._withheld}) WHERE {fit}),
            proposed AS (
                SELECT lookup_hash, {names}, prediction, score, source, model, {judged_mark(spec, "prediction")} AS value,
                       {is_matched} AS is_matched
                FROM {self._rows} WHERE source <> '{Source.IMPORT}' AND {fit}),
            every AS (
                FROM proposed UNION ALL BY NAME
                FROM withheld SEMI JOIN judged USING (lookup_hash, value) ANTI JOIN proposed USING (lookup_hash, value)),
            scored AS (
                SELECT e.lookup_hash, e.value, e.is_matched, coalesce(e.score, w.score, 0.5) AS score, {self._slice()} AS slice,
                       (e.lookup_hash, e.value) IN (SELECT (lookup_hash, value) FROM judged) AS known
                FROM every e LEFT JOIN withheld w ON e.lookup_hash = w.lookup_hash AND e.value = w.value
                LEFT JOIN {self._workspace.query_list.first_rows_sql} l ON e.lookup_hash = l.lookup_hash
                LEFT JOIN {SLICE_VALUES} s ON l.row = s.row WHERE true{chosen}),
            large AS (
                SELECT slice FROM scored GROUP BY slice HAVING count(*) * {count} >= {LEAST_SHARE} * (SELECT count(*) FROM scored)),
            grouped AS (
                SELECT s.* REPLACE (large.slice AS slice), dense_rank() OVER (ORDER BY large.slice) AS number,
                       ntile({BANDS}) OVER (PARTITION BY large.slice ORDER BY is_matched, score, lookup_hash) AS band
                FROM scored s LEFT JOIN large ON s.slice = large.slice)
            SELECT * EXCLUDE (slice, number, band, is_matched), dense_rank() OVER (ORDER BY number, band) - 1 AS stratum FROM grouped"""

    def _slice(self) -> str:
        """SQL for the group that a row belongs to, by the columns of audit.slices."""
        columns = [
            f"{'s' if name in self._slices else 'e'}.{listed(name)}::VARCHAR" for name in self._spec.audit.slices
        ]
        return f"to_json([{', '.join(columns)}])::VARCHAR" if columns else "''"

    def _columns(self, where: Mapping[str, str]) -> list[str]:
        """SQL for the columns of `where`: of the list, or of an entry. Raises UsageError."""
        key, context = self._spec.input.key, self._workspace.query_list.columns
        own = {"value": "e.prediction", "score": "e.score", "source": "e.source", "model": "e.model"}
        found = own | {name: f"s.{listed(name)}" for name in self._slices}
        found |= {name: f"l.{listed(name)}" for name in context} | {name: f"e.{listed(name)}" for name in key}
        if unknown := [name for name in where if name not in found]:
            fix = did_you_mean(unknown[0], found) or f"there are {', '.join(found)}."
            raise UsageError(f"--where: there is no column {unknown[0]} to draw by", fix=fix)
        return [found[name] for name in where]

    def _make_frame(self, drawn: list[int]) -> None:
        """The rows with the smallest hashes are drawn, and are listed in the order of another one."""
        counts = ", ".join(f"({stratum}, {count})" for stratum, count in enumerate(drawn))
        seed = literal(self.seed)
        self._db.execute(
            f"""CREATE OR REPLACE TABLE frame AS
            WITH ordered AS (
                SELECT *, row_number() OVER (PARTITION BY stratum ORDER BY md5({seed} || hex(lookup_hash)), lookup_hash) AS number
                FROM drawable),
            chosen AS (
                SELECT * EXCLUDE (number), number <= wanted AS is_drawn
                FROM ordered JOIN (VALUES {counts}) v(stratum, wanted) USING (stratum))
            SELECT lookup_hash, value, score, stratum, known, CASE WHEN is_drawn THEN
                   row_number() OVER (PARTITION BY is_drawn ORDER BY md5('place' || {seed} || hex(lookup_hash)), lookup_hash) END AS place
            FROM chosen"""
        )
