"""What a comparison of prompts came to, as people, programs and later comparisons read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.files import os_errors, write_atomically
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.compare import Figure, Judged, rounded
from batchinfer.evaluate.plot import reliability_svg
from batchinfer.evaluate.stats import Bin

REPORT, RESULTS, PLOT = "report.json", "results.parquet", "reliability.svg"
RESULT_SCHEMA = pa.schema(
    {
        "arm": pa.string(), "half": pa.string(), "query": pa.string(), "answer": pa.string(), "prediction": pa.string(),
        "score": pa.float64(), "scores": pa.string(), "reason": pa.string(), "mark": pa.float64(),
        "prompt_tokens": pa.int32(), "cached_tokens": pa.int32(), "output_tokens": pa.int32(),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores can be taken for probabilities.

    error: the expected calibration error; None without scores.
    bins: rows by their score.
    """

    error: float
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        bins = [{"score": rounded(each.score), "right": rounded(each.right), "rows": each.rows} for each in self.bins]
        return {"ece": rounded(self.error), "bins": bins}


@dataclass(frozen=True, slots=True)
class CutOff:
    """From which score on to say one of two choices, as the rows to choose on have it best.

    choice: the choice.
    score: the cut-off.
    dev: share of the rows to choose on that is right with it.
    test: the same of the rows to report on.
    test_at_half: what the cut-off of one half would give there.
    """

    choice: str
    score: float
    dev: float
    test: float
    test_at_half: float

    def to_json(self) -> dict[str, Any]:
        return {
            "choice": self.choice, "score": rounded(self.score), "dev": rounded(self.dev), "test": rounded(self.test),
            "test_at_half": rounded(self.test_at_half),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArmReport:
    """An arm and what was found of it.

    name, shots, draw, model: as in `Arm`.
    rows: that it was asked to be compared on.
    cached: prompts of all of its rows that the cache had.
    to_generate: prompts that it had not; none where another arm, which is only read otherwise, asks the same ones.
    judged: the arm beside the baseline; None before it is asked.
    failed: rows without a prediction.
    prompt_tokens: of a row, on average.
    output_tokens: of an answer, on average.
    seconds_per_row: of generation now; None where nothing was generated.
    calibration: of its scores; None without choices.
    """

    name: str
    shots: int
    draw: int
    model: str
    rows: int
    cached: int
    to_generate: int
    judged: Judged | None = None
    failed: int = 0
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    seconds_per_row: float | None = None
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        judged = self.judged
        found: dict[str, Any] = (
            {"value": None, "low": None, "high": None} if judged is None else judged.figure.to_json()
        )
        if judged is not None:
            found |= {
                "wins": judged.wins, "losses": judged.losses, "p": rounded(judged.p), "p_alone": rounded(judged.p_alone),
                "verdict": str(judged.verdict), "difference": judged.difference.to_json() if judged.difference else None,
            }  # fmt: skip
        return {
            "arm": self.name, "shots": self.shots, "draw": self.draw, "model": self.model, "rows": self.rows, **found,
            "cached": self.cached, "to_generate": self.to_generate, "failed": self.failed,
            "prompt_tokens": rounded(self.prompt_tokens), "output_tokens": rounded(self.output_tokens),
            "seconds_per_row": rounded(self.seconds_per_row),
            "calibration": self.calibration.to_json() if self.calibration else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TestReport:
    """What the chosen arm and the baseline are worth on rows that nothing was chosen on.

    chosen: the arm that was chosen.
    baseline: the baseline, which may be the same.
    difference: between the two; None where they are the same.
    p: the probability of such a difference if there were none.
    """

    chosen: Figure
    baseline: Figure
    difference: Figure | None = None
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "chosen": self.chosen.to_json(), "baseline": self.baseline.to_json(),
            "difference": self.difference.to_json() if self.difference else None, "p": rounded(self.p),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvalReport:
    """A comparison of prompts, at its end, or before it with --dry-run.

    job: its name.
    number: of the comparison, which names its folder; None for a dry run.
    metric: what was compared.
    positive: the choice that an auc is about.
    dev: golden rows to choose on.
    test: golden rows to report on.
    arms: all of them.
    baseline: the name of the arm that the others are compared with.
    chosen: the name of the one that was chosen; None for a dry run.
    tested: on the rows to report on; None for a dry run.
    cut_off: of the chosen arm's scores; None without two choices.
    generated: predictions that were made now.
    smallest_difference: that so many rows show with 80 %; None where they show none.
    rows_for_5_points: golden rows in all that would show a difference of 0.05.
    assumption: what these two figures assume.
    selected: whether the job file was changed to the chosen arm.
    """

    job: str
    number: int | None
    metric: str
    positive: str | None
    dev: int
    test: int
    arms: tuple[ArmReport, ...]
    baseline: str
    chosen: str | None
    tested: TestReport | None
    cut_off: CutOff | None
    generated: int
    smallest_difference: float | None
    rows_for_5_points: int
    assumption: str
    selected: bool = False

    @property
    def curves(self) -> dict[str, Calibration]:
        """How far the scores of the chosen arm, and of the baseline, can be taken for probabilities; none without scores."""
        arms = {arm.name: arm.calibration for arm in self.arms}
        names = dict.fromkeys(name for name in (self.chosen, self.baseline) if name is not None)
        return {name: found for name in names if (found := arms.get(name)) is not None}

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "eval": self.number, "metric": self.metric, "positive": self.positive,
            "golden": {"dev": self.dev, "test": self.test}, "arms": [arm.to_json() for arm in self.arms],
            "baseline": self.baseline, "chosen": self.chosen, "test": self.tested.to_json() if self.tested else None,
            "cut_off": self.cut_off.to_json() if self.cut_off else None, "generated": self.generated,
            "smallest_difference": rounded(self.smallest_difference), "rows_for_5_points": self.rows_for_5_points,
            "assumption": self.assumption, "selected": self.selected,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class MarkedAnswer:
    """An arm's answer to a golden row, with what the metric gives it.

    arm: its name.
    half: dev or test.
    query: the row's key, as JSON.
    answer: the right one.
    given: the arm's.
    mark: what the metric gives it.
    """

    arm: str
    half: str
    query: str
    answer: object
    given: ArmAnswer
    mark: float

    def to_row(self) -> dict[str, Any]:
        """A row of RESULT_SCHEMA."""
        given = self.given
        return {
            "arm": self.arm, "half": self.half, "query": self.query, "answer": _text(self.answer),
            "prediction": None if given.value is None else _text(given.value), "score": given.score,
            "scores": None if given.scores is None else _text(given.scores), "reason": given.reason, "mark": self.mark,
            "prompt_tokens": given.prompt_tokens, "cached_tokens": given.cached_tokens, "output_tokens": given.output_tokens,
        }  # fmt: skip


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_report(folder: Path, report: EvalReport, answers: Sequence[MarkedAnswer]) -> None:
    """Writes report.json, results.parquet and, with scores, reliability.svg into a folder that is made for them.

    Raises StoreError.
    """
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([each.to_row() for each in answers], RESULT_SCHEMA), folder / RESULTS)
    if report.curves:
        title = f"{report.job}: how often answers with such a score are right"
        plot = reliability_svg(title, {name: found.bins for name, found in report.curves.items()})
        write_atomically(folder / PLOT, plot.encode())
    write_atomically(folder / REPORT, json.dumps(report.to_json(), ensure_ascii=False, indent=2).encode())
