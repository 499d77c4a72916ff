"""Two models for one list: a small one answers all, a large one what the small one is not sure of, and a sample of the rest.

How sure the small one is, its score says: how likely it finds its answer. It is stored with each answer; of two choices the margin
between them orders rows in the same way. Which measure it is changes nothing of the promise, only how much it saves.

    answers of the small model ──► small_said ──► sampled ─┐
    answers of the large one to the sample ────────────────┴──► threshold ──► whose answer each prompt takes

From which score on the small model is sure is found as a student's threshold is. All of it follows from the list and the
cache: nothing is stored, and whoever looks later finds the same.

| table      | columns                                         | what it holds                                                       |
| ---------- | ----------------------------------------------- | ------------------------------------------------------------------- |
| small_said | small_key, large_key, prediction, score, failed | what the small model said of each prompt that people did not answer |
| sampled    | small_key, large_key, score, agreed, tried      | the prompts that both models answer; agreed is NULL, and tried      |
|            |                                                 | false, as long as the large one was not asked                       |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import one_integer
from batchinfer.core.keys import canonical_json, short
from batchinfer.errors import MissingExtra
from batchinfer.job.model_spec import CascadeSpec
from batchinfer.planning.plan import Plan
from batchinfer.planning.question import Question
from batchinfer.versions.published_run import CascadeModel, PublishedCascade

if TYPE_CHECKING:  # brings SciPy, which only jobs with a cascade need
    from batchinfer.student.threshold import Threshold

TIMES = 8  # the sample has so many times the rows without which nothing can be shown
MOST_SAMPLED = 20_000
ALL, NOBODY = "SELECT small_key FROM small_said", "SELECT NULL"
BOTH = "SELECT small_key FROM sampled WHERE agreed IS NOT NULL"  # what the large one says of these is there anyway


class Stage(StrEnum):
    """What a run asks, in this order: the small model all, the large one the sample, then what the small one is not sure of."""

    SMALL = "small"
    SAMPLE = "sample"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Division:
    """Which of two models answers how much of a list.

    agree, confidence: as the job file has them.
    prompts: that are asked of a model.
    sample: how many of them both models are asked.
    threshold: from which score on the small one's answer is taken; None where it is not known, or there is none.
    small, large: how many prompts take the answer of each; None as long as that is not known.
    large_asked: how many the large one is asked, those of the sample too; None like these.
    problem: why the large one answers all, as the rest of a sentence; None if it does not, or that is not known yet.
    """

    agree: float
    confidence: float
    prompts: int
    sample: int
    threshold: Threshold | None = None
    small: int | None = None
    large: int | None = None
    large_asked: int | None = None
    problem: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is known which model answers what."""
        return self.large is not None

    @property
    def small_asked(self) -> int:
        """How many prompts the small one is asked: all, or none of a list so short that the large one is asked all anyway."""
        return self.prompts if self.sample or self.problem is None else 0


def need_threshold_libraries() -> None:
    """Raises MissingExtra."""
    try:
        import scipy  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("SciPy, which a job with model.cascade needs,", "train") from exc


def sample_size(agree: float, confidence: float) -> int:
    """How many prompts both models are asked: enough to find a threshold with, and no more than a bound."""
    from batchinfer.student.threshold import least_rows

    return min(TIMES * least_rows(agree, confidence), MOST_SAMPLED)


def joint_fingerprint(small: Question, large: Question, spec: CascadeSpec) -> bytes:
    """Stands for what a job with two models asks."""
    parts = [small.fingerprint.hex(), large.fingerprint.hex(), spec.agree, spec.confidence]
    return short(canonical_json(parts).encode())


class Cascade:
    """The two models of a job, and what each of them is asked. Owns the tables above in the workspace's database.

    small, large: what each is asked.
    stage: what is asked now; None outside a run's stages.
    division: as far as it is known.
    """

    def __init__(self, workspace: Workspace, plan: Plan, spec: CascadeSpec, small: Question, large: Question) -> None:
        self._workspace, self._db, self._list = workspace, workspace.db, workspace.query_list
        self._plan, self._spec, self._size = plan, spec, sample_size(spec.agree, spec.confidence)
        self.small, self.large = small, large
        self.stage: Stage | None = None
        self.division: Division
        workspace.verdicts.cover_pairs(self._list.pairs_sql)
        self.settle()

    @property
    def current_question(self) -> Question:
        """The question of the model that is asked now, or last."""
        return self.small if self.stage is Stage.SMALL else self.large

    @property
    def questions(self) -> tuple[tuple[Question, tuple[Stage, ...]], ...]:
        """What each model is asked, and in which stages."""
        return (self.small, (Stage.SMALL,)), (self.large, (Stage.SAMPLE, Stage.REST))

    def published(self) -> PublishedCascade:
        """As reports and manifests have it."""
        division = self.division
        found = division.threshold
        small, large = self.small, self.large
        return PublishedCascade(
            division.agree, division.confidence, division.sample, None if found is None else found.score,
            None if found is None else found.agreement, None if found is None else found.answered, division.problem,
            CascadeModel(small.identity.label, small.fingerprint, division.small),
            CascadeModel(large.identity.label, large.fingerprint, division.large),
        )  # fmt: skip

    def settle(self, run_id: int | None = None) -> None:
        """Lets each row take its answer from the model that it is to take it from; as long as that is not known, the large one."""
        self._read()
        self.stage = None
        self._list.ask_large(self._unsure())
        self._plan.compare(run_id)

    def turn_to(self, stage: Stage, run_id: int | None = None) -> int:
        """Lets the plan hold what is to be asked in a stage, the stages before being done; returns how many prompts.

        run_id: of the run that asks.
        """
        self._read()
        self.stage = stage
        if stage is Stage.SMALL:
            within, asked = (f"({ALL})" if not self._is_short else f"({NOBODY})"), NOBODY
        else:
            within, asked = f"(SELECT large_key FROM {self._list.pairs_sql})", self._unsure()
            if stage is Stage.SAMPLE:
                asked = NOBODY if self._is_short else "SELECT small_key FROM sampled"
        self._list.ask_large(asked)
        self._plan.compare(run_id, within)
        return self._plan.counts.to_generate

    @property
    def sample_left(self) -> int:
        """How many prompts the large model is asked at least, as long as the sample is not complete."""
        tried = self._count("FROM sampled WHERE tried")
        return min(self._size, self.division.prompts) - tried

    @property
    def unsure_share(self) -> float | None:
        """Of what the small model was asked, the share that it is not sure of; None as long as no threshold is known."""
        found, asked = self.division.threshold, self._count("FROM small_said WHERE score IS NOT NULL OR failed")
        return self._count(_unsure_sql(found.score)) / asked if found is not None and asked else None

    def large_alone(self) -> int:
        """How many prompts the large model would be asked in a job that has no other."""
        self._list.ask_large(ALL)
        self._plan.compare()
        return self._plan.counts.to_generate

    def _read(self) -> None:
        """Makes the tables, and `division` by them."""
        covered = self._workspace.verdicts.covered_sql
        unread = f"stage = 'engine' OR parser = '{self.small.parser_id}'"
        failed = f"(SELECT DISTINCT key FROM cache.failures WHERE key IS NOT NULL AND ({unread}))"
        with self._workspace.store.attached(self._db):
            self._db.execute(
                f"""CREATE OR REPLACE TABLE small_said AS
                SELECT p.small_key, p.large_key, g.prediction, g.score, f.key IS NOT NULL AS failed
                FROM {self._list.pairs_sql} p LEFT JOIN cache.generations g ON g.key = p.small_key
                LEFT JOIN {failed} f ON f.key = p.small_key
                WHERE p.small_key NOT IN (SELECT prompt_key FROM {covered})"""
            )
            self._db.execute(  # keys are hashes, whose order is as good as chance
                f"""CREATE OR REPLACE TABLE sampled AS
                WITH drawn AS (FROM small_said WHERE prediction IS NOT NULL AND score IS NOT NULL ORDER BY small_key LIMIT {self._size})
                SELECT s.small_key, s.large_key, s.score, s.prediction = g.prediction AS agreed,
                       g.key IS NOT NULL OR f.key IS NOT NULL AS tried
                FROM drawn s LEFT JOIN cache.generations g ON g.key = s.large_key LEFT JOIN {failed} f ON f.key = s.large_key"""
            )
        self.division = self._divide()

    @property
    def _is_short(self) -> bool:
        """Whether the list has no more prompts than both models would be asked anyway."""
        return self._count(ALL) <= self._size

    def _divide(self) -> Division:
        """What follows from the tables."""
        prompts, sample = self._count(ALL), self._count("FROM sampled")
        plain = Division(self._spec.agree, self._spec.confidence, prompts, sample)
        everything = replace(plain, small=0, large=prompts, large_asked=prompts)
        if self._is_short:
            why = (
                f"the list has no more than the {self._size:,} prompts that both models would be asked, to find where the small one "
                "is sure"
            )
            return replace(everything, sample=0, problem=why)
        if not sample or self._count("FROM sampled WHERE NOT tried"):
            return plain
        found = self._threshold()
        if found is None:
            why = (
                f"from no score on the small one can be shown to agree with it {plain.agree:.0%} of the time, by {sample:,} prompts that "
                "both were asked"
            )
            return replace(everything, problem=why)
        unsure = _unsure_sql(found.score)
        large = self._count(f"{unsure} UNION {BOTH}")
        both = self._count(f"{unsure} UNION SELECT small_key FROM sampled")
        small = self._count(f"FROM small_said WHERE score >= {found.score!r} AND small_key NOT IN ({BOTH})")
        return replace(plain, threshold=found, small=small, large=large, large_asked=both)

    def _threshold(self) -> Threshold | None:
        import numpy as np

        from batchinfer.student.threshold import find_threshold

        rows = self._db.execute(
            "SELECT score, agreed FROM sampled WHERE agreed IS NOT NULL ORDER BY small_key"
        ).fetchall()
        scores, agreed = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows], bool)
        return find_threshold(scores, agreed, self._spec.agree, self._spec.confidence)

    def _unsure(self) -> str:
        """SQL for the keys of the prompts that the large model answers."""
        found = self.division.threshold
        return ALL if found is None else f"{_unsure_sql(found.score)} UNION {BOTH}"

    def _count(self, sql: str) -> int:
        return one_integer(self._db, f"SELECT count(*) FROM ({sql})")


def _unsure_sql(score: float) -> str:
    """What the small model answered with less than this score, or not at all although it was asked."""
    return f"SELECT small_key FROM small_said WHERE score < {score!r} OR (score IS NULL AND failed)"
