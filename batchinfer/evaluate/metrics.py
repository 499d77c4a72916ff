"""How good answers are, in one figure: accuracy, the area under the ROC curve, contains, F1 over lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batchinfer.core.arrays import Floats
from batchinfer.core.keys import canonical_json
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.job.reader import Job, faulty
from batchinfer.publish.golden import is_right

MetricKind = Literal["right", "area", "mean"]
KINDS: dict[str, MetricKind] = {"accuracy": "right", "contains": "right", "auc": "area", "f1": "mean"}


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared.

    name: accuracy, auc, contains or f1.
    positive: the choice whose score an auc is about.
    """

    name: str
    positive: str | None = None

    @property
    def kind(self) -> MetricKind:
        """Rows that are right or wrong, rows in the order of their scores, or rows with marks from 0 to 1."""
        return KINDS[self.name]

    def wanted(self, answers: Sequence[Any]) -> NDArray[np.bool_]:
        """Which rows are positive, for an area; all true for others."""
        return np.array([self.kind != "area" or answer == self.positive for answer in answers])

    def marks(self, given: Sequence[ArmAnswer], right: Sequence[Any]) -> Floats:
        """A figure for each row: 1 for a right answer and 0 for a wrong one, F1, or for an area the score.

        A row without a prediction is wrong. For an area it loses each comparison.
        """
        return np.array([self._mark(answer, wanted) for answer, wanted in zip(given, right, strict=True)], dtype=float)

    def _mark(self, answer: ArmAnswer, wanted: Any) -> float:
        if self.kind == "area":
            assert self.positive is not None
            last = -np.inf if wanted == self.positive else np.inf
            return last if answer.scores is None else answer.scores[self.positive]
        if answer.value is None:
            return 0.0
        if self.name == "f1":
            return f1(answer.value, wanted)
        return float(is_right(answer.value, wanted, "equal" if self.name == "accuracy" else "contains"))


def metric_of(job: Job, compare: str, answers: Sequence[Any]) -> Metric:
    """What the job file says, or what fits its output. compare: of the golden rows. Raises SpecError for F1 of no lists."""
    spec, output = job.spec.eval, job.spec.output
    name = spec.metric
    if name == "auto" and spec.positive is not None:
        name = "auc"
    elif name == "auto" and compare == "contains":
        name = "contains"
    elif name == "auto":
        name = "f1" if output.is_json and all(_has_list(answer) for answer in answers) else "accuracy"
    if name == "f1" and not all(_has_list(answer) for answer in answers):
        said = "f1 compares lists, and not every golden answer has one: take accuracy or contains."
        raise faulty(job, [(("eval", "metric"), said)])
    return Metric(name, spec.positive if name == "auc" else None)


def f1(value: Any, wanted: Any) -> float:
    """The F1 of the items of a value's lists: twice what both have, by what each has. Lists of an object count by their field."""
    got, right = set(_items(value)), set(_items(wanted))
    return 2 * len(got & right) / (len(got) + len(right)) if got or right else 1.0


def _items(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        yield from ((place, canonical_json(item)) for item in value)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _items(part, f"{place}.{name}")


def _has_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and any(map(_has_list, value.values())))
