"""The job file as frozen models. `reader.py` reads one from YAML; the models here say what may stand in it.

The descriptions here are the field's documentation: the JSON Schema and docs/job-file.md are made from them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from batchinfer.core.fields import ColumnType, Duration, Names, NonEmpty, Scalar, Section, Share, distinct
from batchinfer.core.keys import JOB_NAME
from batchinfer.job.alerts_spec import AlertSpec
from batchinfer.job.audit_spec import AuditSpec
from batchinfer.job.calibrate_spec import CalibrateSpec
from batchinfer.job.cost_spec import CostSpec
from batchinfer.job.date_pattern import DatePattern
from batchinfer.job.engine_spec import EngineSpec, VllmSpec
from batchinfer.job.eval_spec import EvalSpec
from batchinfer.job.finetune_spec import FinetuneSpec
from batchinfer.job.model_spec import ModelSpec
from batchinfer.job.parts import Part
from batchinfer.job.schedule_spec import ScheduleSpec
from batchinfer.job.student_spec import StudentSpec
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.spec import PromptSpec, SamplingSpec
from batchinfer.versions.keep import Keep


class MissesSpec(Section):
    """The misses that become rows: queries that clients asked for and did not find."""

    at_least: Annotated[int, Field(ge=1)] = Field(
        1, description="Only those that were asked for at least this many times."
    )


def _with_one_date(path: str) -> str:
    DatePattern.of(path)
    return path


def _part_of_prediction(name: str) -> str:
    Part.parse(name)
    return name


class InputSpec(Section):
    """The source of the queries."""

    path: Annotated[str, AfterValidator(_with_one_date)] | None = Field(
        None,
        description="Parquet, CSV or JSON lines: a file, glob or folder, below the job's folder or an allowed root; "
        "`{date:%Y-%m-%d}` in it is the newest date there is.",
    )
    pick: Literal["all", "newest"] = Field(
        "all", description="newest: of the files that path names, the one that was written last."
    )
    sql: NonEmpty | None = Field(
        None, description="Instead of a path: a query of DuckDB over files there; see [lists.md](lists.md)."
    )
    job: Annotated[str, Field(pattern=f"^{JOB_NAME}$")] | None = Field(
        None, description="Instead of a path: the version of this job that is served; see [chain.md](chain.md)."
    )
    explode: Annotated[str, AfterValidator(_part_of_prediction)] | None = Field(
        None, description="With job: the list whose items become rows, such as prediction.names."
    )
    as_: NonEmpty | None = Field(
        None, alias="as", description="With explode: the name of the column that holds the item; a column of the key."
    )
    carry: Annotated[list[NonEmpty], AfterValidator(distinct)] = Field(
        [], description="With job: other columns of that job's list that are taken along, such as a language's name."
    )
    key: Names = Field(description="The lookup key: the columns that other services will ask with.")
    types: dict[str, ColumnType] = Field({}, description="What a column must be; values that are not are bad rows.")
    normalize: list[Literal["nfkc", "casefold", "trim"]] = Field(
        [], description="Applied to key strings before they are compared, when publishing and when looking up."
    )
    where: dict[str, Scalar | list[Scalar]] = Field({}, description="Keep only rows whose columns have these values.")
    optional: list[str] = Field(
        [], description="Template columns that may be null or empty; others make a bad row then."
    )
    include_misses: MissesSpec | None = Field(
        None,
        description="Add what clients asked the service for and did not find, if at least `at_least` times (by default once).",
    )

    @field_validator("key")
    @classmethod
    def _holds_the_item(cls, key: list[str], info: ValidationInfo) -> list[str]:
        item = info.data.get("as_")
        if info.data.get("job") and info.data.get("explode") and item and item not in key:
            raise ValueError(f"lacks {item}, which tells the items of one list apart")
        return key

    @model_validator(mode="after")
    def _one_source(self) -> InputSpec:
        if (self.path, self.job, self.sql).count(None) != 2:  # noqa: PLR2004 - of three
            raise ValueError("needs one of path, sql and job")
        if self.pick != "all" and self.path is None:
            raise ValueError("pick belongs to path: it chooses among files")
        if (self.explode is None) != (self.as_ is None) or (self.explode and not self.job):
            raise ValueError("explode and as belong together, and to job")
        if self.carry and not self.job:
            raise ValueError("carry belongs to job: of a file, all columns are there")
        return self


class CacheSpec(Section):
    """The lifetime of a generation."""

    max_age: Duration | None = Field(None, description="Older answers are regenerated.")


class GoldenSpec(Section):
    """Keys whose right answers are known, to judge a version by."""

    path: NonEmpty = Field(
        description="Parquet file with the key columns and a column answer, below the job's folder or an allowed root."
    )
    compare: Literal["equal", "contains"] = Field(
        "equal", description="Whether a prediction must be the answer, or may hold it among other things."
    )
    accuracy: Share = Field(0.90, description="Least share of the golden rows that must be right.")


class GateSpec(Section):
    """The checks that a candidate must pass before it is served; shares are from 0 to 1."""

    coverage: Share = Field(0.95, description="Least share of the list's keys that have a prediction.")
    failures: Share = Field(0.05, description="Most failed and bad rows, as a share of the prompts and bad rows.")
    shrink: Share = Field(0.10, description="Most entries of the served version that may be missing.")
    changed: Share = Field(
        0.50, description="Most entries of the served version whose value may differ, people's corrections aside."
    )
    rows: Annotated[int, Field(ge=1)] = Field(1, description="Fewest entries of a version.")
    carried: Share = Field(0.10, description="Most entries that may be kept from the version before.")
    reviewed: Literal["all", "changed", "none"] = Field(
        "none",
        description="The entries of the model that people must have reviewed: all, or those that are new or changed.",
    )
    golden: GoldenSpec | None = Field(None, description="Keys whose right answers are known; most must be answered so.")
    audit: bool = Field(
        default=False,
        description="Whether each group of the section audit must keep to its limits, where rows enough say so; exchanged terms and "
        "sentences count as `batchinfer audit` last found them with this prompt and model.",
    )
    precision: Share | None = Field(
        None,
        description="Least share of the predictions that is right, by verdicts on samples; the interval's lower end must reach it.",
    )
    recall: Share | None = Field(
        None,
        description="Least share of what the rows of golden must contain that is served; the interval's lower end must reach it.",
    )
    calibration: Share | None = Field(
        None,
        description="Most that calibrated scores may be off the share of right ones, on average over verdicts on groups that were held "
        "out, beyond what chance gives.",
    )


class MatchSpec(Section):
    """The parts of a version that are terms to be found in live text, and what they name.

    A part is a column of the lookup key, `prediction`, or a place in a JSON prediction, such as prediction.names.
    """

    terms: Annotated[list[NonEmpty], Field(min_length=1), AfterValidator(distinct)] = Field(
        description="The parts that hold terms: a text, or a list of texts."
    )
    concept: NonEmpty = Field(description="The part that says what a term names.")
    language: NonEmpty | None = Field(None, description="The part that says a term's language, as a BCP 47 tag.")
    everywhere: Annotated[list[NonEmpty], AfterValidator(distinct)] = Field(
        [],
        description="The parts that hold terms of every language, such as the concept's own name, and columns of the list with further "
        "names of it, texts or lists of texts: they hold whatever where and min_score leave out, and in whatever language is asked.",
    )
    where: dict[NonEmpty, Scalar | Annotated[list[Scalar], Field(min_length=1)]] = Field(
        {}, description="Only entries whose parts have these values."
    )
    min_score: Share | None = Field(
        None, description="Only entries with at least this score; what people imported without one passes."
    )
    min_length: Annotated[int, Field(ge=1)] = Field(2, description="Terms of fewer characters are left out.")
    stop_terms: list[str] = Field(
        [], description="Terms that are left out, in any spelling that matching takes for equal."
    )
    overlaps: bool = Field(
        default=False,
        description="Whether matches may overlap; otherwise the leftmost of them is taken, then the longest.",
    )
    accents: Literal["keep", "ignore"] = Field("keep", description="ignore: é is e, in terms and in texts.")
    most_concepts: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="A term that names more concepts than this number or share of them is too generic, which publishing reports; "
        "auto: a fifth of them, at least 2 and at most 20.",
    )
    generic: Literal["report", "drop"] = Field(
        "report",
        description="drop: leave terms out that are too generic, but for a concept whose score is clearly best.",
    )


class ServeSpec(Section):
    """Answers of the lookup service."""

    max_age: Duration = Field(timedelta(seconds=60), description="How long clients may keep an answer.")
    misses: bool = Field(default=True, description="Whether the service records what was asked for and not found.")
    on_miss: Literal["miss", "student"] = Field(
        "miss", description="student: what is not there is asked of the version's student, which answers or abstains."
    )


class OnErrorsSpec(Section):
    """The share of failed rows at which a run stops early, with exit code 4: the rest would mostly fail, too."""

    stop_at: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of the rows finished in the run, from 0 to 1, that failed."
    )
    after: Annotated[int, Field(ge=1)] = Field(
        200, description="Rows that are finished before the run may stop for that reason."
    )


class KeepVersionsSpec(Section):
    """The old versions and refused candidates that stay. One goes once it is beyond both limits; a number is `count` alone."""

    count: Annotated[int, Field(ge=1)] = Field(5, description="How many of the newest stay.")
    days: Annotated[int, Field(ge=1)] = Field(30, description="For how many days older ones stay.")


class JobSpec(Section):
    """A whole job file."""

    name: Annotated[str, Field(pattern=f"^{JOB_NAME}$")] = Field(description="The job's name.")
    description: str = Field("", description="What the job is for, in a sentence.")
    input: InputSpec
    prompt: PromptSpec | None = Field(None, description="Without prompt and model, a job has only imported answers.")
    model: ModelSpec | None = None
    engine: EngineSpec = VllmSpec()
    sampling: SamplingSpec = SamplingSpec()
    output: OutputSpec = OutputSpec()
    on_failure: Literal["keep", "drop"] = Field(
        "keep", description="keep: a row without a new prediction keeps the one served now."
    )
    on_errors: OnErrorsSpec | Literal["continue"] = Field(
        OnErrorsSpec(), description="When a run stops early since most rows fail; continue: never."
    )
    cache: CacheSpec = CacheSpec()
    gate: GateSpec = GateSpec()
    eval: EvalSpec = EvalSpec()
    audit: AuditSpec = AuditSpec()
    calibrate: CalibrateSpec | None = None
    student: StudentSpec | None = None
    finetune: FinetuneSpec | None = None
    match: MatchSpec | None = None
    serve: ServeSpec = ServeSpec()
    schedule: ScheduleSpec | None = None
    cost: CostSpec | None = None
    alerts: list[AlertSpec] = Field([], description="Whom to tell when the job needs somebody, and of what.")
    keep_versions: Annotated[int, Field(ge=1)] | KeepVersionsSpec = Field(
        KeepVersionsSpec(), description="How many versions stay, and how long."
    )

    @property
    def deciding_choice(self) -> str | None:
        """The choice whose score says all: that of eval.positive, or of two choices the first; None where there is none."""
        if self.eval.positive is not None:
            return self.eval.positive
        choices = self.output.choices or []
        return choices[0] if len(choices) == 2 else None  # noqa: PLR2004 - one and the other

    @property
    def keep(self) -> Keep:
        """What `keep_versions` says."""
        kept = self.keep_versions
        return Keep(kept) if isinstance(kept, int) else Keep(kept.count, kept.days)

    @model_validator(mode="after")
    def _prompt_and_model(self) -> JobSpec:
        if (self.prompt is None) != (self.model is None):
            there, missing = ("prompt", "model") if self.prompt else ("model", "prompt")
            raise ValueError(
                f"has {there} but no {missing}: give both, or neither for a job that has only imported answers"
            )
        return self
