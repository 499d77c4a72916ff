"""Scores that are the chance of being right: what is known of each prediction, and what verdicts taught of that.

    entries, withheld ─► proposals ─┬─► features ─► calibrated
                        other_scores ┘

| table      | columns                                               | what it holds                                        |
| ---------- | ----------------------------------------------------- | ---------------------------------------------------- |
| proposals  | lookup_hash, the key's, prediction, scores, mass, and | what the model says, whatever people said of it      |
|            | the texts term, concept, language                     |                                                      |
| features   | lookup_hash, prediction, a column for each feature    | what is known of them, as numbers; a view            |
| calibrated | lookup_hash, score                                    | their scores, from 0 to 1                            |
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from batchinfer.cache import verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import add_text_function
from batchinfer.core.files import DAMAGE, os_errors, read_small, why_damaged
from batchinfer.core.home import CALIBRATION
from batchinfer.core.sql import json_path, listed, literal, quoted
from batchinfer.errors import NotFound, StoreError
from batchinfer.job.scripts import ScriptFault, script_fault
from batchinfer.job.spec import JobSpec
from batchinfer.publish.other_scores import OtherScores
from batchinfer.versions.calibration import EDGE, Feature, Scale, ScoreModel, ScoreSource

MOST_ANSWERS = 10  # choices that are told apart
LANGUAGE = "language"
SCORE, VOTES = "score", "votes"
SCRIPT_FAULT = "batchinfer_script_fault"
NOT_LATIN = r"'\P{L}|\p{Latin}'"


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """Something that is known of each prediction.

    name: as people read it, and as the file has it.
    sql: the number, of a row `p` of the proposals; NULL where it is not known.
    is_score: whether it is a score; else it is a plain fact.
    """

    name: str
    sql: str
    is_score: bool = False


class Proposals:
    """What the model says of each key of the list, and what is known of that. Owns the tables above in the workspace's database.

    columns: the features.
    """

    features_sql = "features"

    def __init__(self, workspace: Workspace, others: OtherScores) -> None:
        self._db, self._spec, self._others = workspace.db, workspace.spec, others
        self._joined = {f"score of {job.name}": (f"o{number}", job) for number, job in enumerate(others.jobs)}
        theirs = [FeatureColumn(name, f"{alias}.score", is_score=True) for name, (alias, _) in self._joined.items()]
        votes = [FeatureColumn(VOTES, others.votes_sql("p")[0], is_score=True)] if others.voters else []
        self.columns = (*_own_columns(self._spec), *theirs, *votes, *_fact_columns(self._spec))

    def fill(self, rows_sql: str, names: Collection[str] | None = None) -> None:
        """Makes the tables but for `calibrated`. rows_sql: the model's predictions, as entries have them.

        names: of the features that are needed; all unless given.
        """
        spec = self._spec
        columns = [column for column in self.columns if names is None or column.name in names]
        joined = [self._joined[column.name] for column in columns if column.name in self._joined]
        key = ", ".join(listed(name) for name in spec.input.key)
        texts = {name: sql or "NULL::VARCHAR" for name, sql in _texts(spec).items()}
        self._db.execute(
            f"CREATE OR REPLACE TABLE proposals AS SELECT lookup_hash, {key}, prediction, scores, mass, "
            f"{', '.join(f'{sql} AS {name}' for name, sql in texts.items())} FROM {rows_sql}"
        )
        self._others.load([job for _, job in joined])
        if any(column.sql.startswith(SCRIPT_FAULT) for column in columns):
            _add_script_fault(self._db)
        joins = " ".join(self._others.join_sql(job, alias, "p") for alias, job in joined)
        if any(column.name == VOTES for column in columns):
            self._others.load_lists()
            joins += " " + self._others.votes_sql("p")[1]
        values = "".join(f", ({column.sql})::DOUBLE AS {quoted(column.name)}" for column in columns)
        self._db.execute(
            f"""CREATE OR REPLACE VIEW features AS
            WITH shared AS (
                SELECT lower(term) AS folded, count(*) AS keys, count(DISTINCT concept) AS concepts, count(DISTINCT language) AS languages
                FROM proposals WHERE term IS NOT NULL GROUP BY 1)
            SELECT p.lookup_hash, p.prediction{values} FROM proposals p LEFT JOIN shared s ON lower(p.term) = s.folded {joins}"""
        )

    def score(self, model: ScoreModel) -> None:
        """Makes `calibrated`."""
        odds = " + ".join([repr(model.intercept), *map(_term_sql, model.features)])
        self._db.execute(
            f"CREATE OR REPLACE TABLE calibrated AS SELECT lookup_hash, 1 / (1 + exp(-greatest(-500, {odds}))) AS score FROM features"
        )

    def rescore(self, entries: str, model: ScoreModel) -> None:
        """Gives the model's entries of a table the scores that verdicts taught."""
        self.score(model)
        self._db.execute(
            f"UPDATE {entries} e SET score = c.score FROM calibrated c "
            f"WHERE e.lookup_hash = c.lookup_hash AND source NOT IN {verdicts.PEOPLE}"
        )

    @staticmethod
    def scored_sql(rows_sql: str) -> str:
        """Rows with a score, with the calibrated one in its place."""
        return f"SELECT r.* REPLACE (coalesce(c.score, r.score) AS score) FROM ({rows_sql}) r LEFT JOIN calibrated c USING (lookup_hash)"

    scores_sql = "(SELECT lookup_hash, score FROM calibrated)"
    """Lookup hash and score of each proposal."""


def find_calibration(workspace: Workspace) -> ScoreSource:
    """What was learned for the job's scores, if the job wants it and it was learned of what is asked now. Raises StoreError."""
    if workspace.spec.calibrate is None:
        return ScoreSource()
    path = workspace.data.calibration
    if not path.exists():
        return ScoreSource(problem="nothing has been learned of verdicts yet")
    with os_errors(path):
        content = read_small(path)
    try:
        model = ScoreModel.of(content)
    except DAMAGE as exc:
        raise StoreError(
            f"{path} is damaged: {why_damaged(exc)}", fix=f"batchinfer calibrate {workspace.data.name} learns it again."
        ) from exc
    problem = _misfit(workspace, model)
    return ScoreSource(problem=problem) if problem else ScoreSource(model, None, content)


def write_calibration(calibration: ScoreSource, folder: Path) -> None:
    """Writes the file that a candidate's scores were made by, if they were. Raises StoreError."""
    if calibration.model is not None:
        with os_errors(folder):
            (folder / CALIBRATION).write_bytes(calibration.content)


def _misfit(workspace: Workspace, model: ScoreModel) -> str | None:
    """Why what was learned does not hold for what is asked now."""
    if (problem := _own_misfit(workspace, model)) is not None:
        return problem
    try:
        others = OtherScores(workspace)
    except NotFound as exc:
        return str(exc)
    there = others.fingerprints
    if moved := [name for name, made_of in model.jobs.items() if there.get(name, "") != made_of]:
        return f"what was learned of verdicts was for other scores of {', '.join(moved)}"
    kinds = others.kinds
    if moved := [name for name, kind in model.kinds.items() if kinds.get(name) != kind]:
        return (
            f"what was learned of verdicts was for scores of {', '.join(moved)} that were made otherwise, "
            "by another calibration or output.prior, or without one"
        )
    known = {column.name for column in Proposals(workspace, others).columns}
    if lacking := [feature.name for feature in model.features if feature.name not in known]:
        return f"what was learned of verdicts looks at what the job has no more: {', '.join(lacking)}"
    return None


def _own_misfit(workspace: Workspace, model: ScoreModel) -> str | None:
    """The same, as far as the job's own question and scores go."""
    if model.fingerprint != workspace.fingerprint:
        return "what was learned of verdicts was for another prompt or model"
    if model.prior != workspace.spec.output.prior:
        return f"what was learned of verdicts was for scores with output.prior: {model.prior}"
    if model.wanted not in (None, wanted_choice(workspace.spec)):
        return "what was learned of verdicts was for the score of " + (
            f"the choice {model.wanted}, which the match section does not ask for now"
            if model.wanted
            else "the likeliest choice"
        )
    return None


def _term_sql(feature: Feature) -> str:
    """What a feature adds to the log-odds."""
    value = quoted(feature.name)
    if feature.scale is Scale.LOGIT:
        clipped = f"least(greatest({value}, {EDGE!r}), {1 - EDGE!r})"  # of NULL they make a number
        value = f"(CASE WHEN {value} IS NOT NULL THEN ln({clipped} / (1 - {clipped})) END)"
    return f"coalesce(({value} - {feature.mean!r}) / {feature.spread!r} * {feature.weight!r}, {feature.missing!r})"


def wanted_choice(spec: JobSpec) -> str:
    """The choice that the feature `score` is of: in a checking job the one that is matched, or the first; else empty: the likeliest."""
    choices = spec.output.choices
    if not choices or not verdicts.is_checking(spec):
        return ""
    wanted = verdicts.expected_parts(spec).get("prediction", choices[0])
    return wanted if wanted in choices else ""


def _own_columns(spec: JobSpec) -> list[FeatureColumn]:
    """The job's own score, and what else the model said of its answer."""
    choices = spec.output.choices
    if spec.output.type == "likelihood":
        return [FeatureColumn(SCORE, "try_cast(p.prediction AS DOUBLE)", is_score=True)]
    if not choices:
        return []
    if wanted := wanted_choice(spec):  # people judge the term, whatever the answer
        own, answers = _choice_sql(wanted), []
    else:
        own = f"greatest({', '.join(map(_choice_sql, choices))})"
        answers = [
            FeatureColumn(f"answer {choice}", f"p.prediction = {literal(choice)}") for choice in choices[1:MOST_ANSWERS]
        ]
    return [
        FeatureColumn(SCORE, own, is_score=True),
        FeatureColumn("mass", f"ln(greatest(p.mass, {EDGE}))"),
        *answers,
    ]


def _choice_sql(choice: str) -> str:
    return f"(p.scores ->> {literal(json_path(choice))})::DOUBLE"


def _texts(spec: JobSpec) -> dict[str, str | None]:
    """SQL for what a prediction proposes, what it stands for, and in which language, of an entry; None where that is no text."""
    match, key = spec.match, spec.input.key
    language = match.language if match is not None and match.language in key else None
    spoken = None if language is None else f"{listed(language)}::VARCHAR"
    if match is not None and verdicts.is_checking(spec):
        concept = verdicts.part(spec, match.concept, listed)
        return {"term": f"{listed(match.terms[0])}::VARCHAR", "concept": concept, LANGUAGE: spoken}
    is_text = not spec.output.choices and spec.output.type != "likelihood"
    return {"term": "prediction" if is_text else None, "concept": None, LANGUAGE: spoken}


def _fact_columns(spec: JobSpec) -> list[FeatureColumn]:
    """What can be told of a proposed text without a model: its form, and where else it stands."""
    texts = _texts(spec)
    if texts["term"] is None:
        return []
    others = f"regexp_replace(p.term, {NOT_LATIN}, '', 'g') <> ''"
    found = [
        FeatureColumn("length", "ln(1 + length(p.term))"),
        FeatureColumn("other script", others),
    ]
    if texts["concept"] is None:
        found.append(FeatureColumn("keys", "ln(s.keys)"))
    else:
        found.append(FeatureColumn("concepts", "ln(greatest(s.concepts, 1))"))
        found.append(FeatureColumn("echo", "contains(lower(p.term), lower(p.concept))"))
    if texts[LANGUAGE] is not None:
        found.append(FeatureColumn("languages", "ln(greatest(s.languages, 1))"))
        fault = f"{SCRIPT_FAULT}(to_json([p.language, p.term])::VARCHAR)"
        found += [FeatureColumn(kind.value, f"{fault} = {literal(kind)}") for kind in ScriptFault if kind]
    return found


def _add_script_fault(db: duckdb.DuckDBPyConnection) -> None:
    """Lets SQL ask whether a step would drop a text for its script, and which. Raises MissingExtra."""
    fault = script_fault()

    def fault_of(pair: str | None) -> str | None:
        language, text = json.loads(pair) if pair else (None, None)
        return None if language is None or text is None else fault(language, text)

    add_text_function(
        db, SCRIPT_FAULT, lambda pairs: pa.array([fault_of(pair) for pair in pairs.to_pylist()], pa.string())
    )
