"""What eval promises, tried on simulated experiments: how often arms that are alike are called different, and others found.

In each experiment five arms are asked the same rows, and four are compared with the first. Without a difference, a *better*
or *worse* anywhere is a mistake. With one, the second arm differs by what a dry run says that so many rows show.

It says nothing of real prompts, whose answers need not be as these: rows that are right or wrong by chance, and scores that
are normally distributed. Prints a Markdown table, and on stderr how far it is: 200 of each kind and metric take a few minutes of
one core. tests/evaluate/test_power.py tries 2,000 by the tests alone, without the intervals of a whole comparison.

    python -m benchmarks.experiments [--experiments 200] [--rows 120]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from batchinfer.evaluate import power, stats
from batchinfer.evaluate.compare import Rows, judge_arms
from batchinfer.evaluate.metrics import Metric
from batchinfer.evaluate.power import AREA, AREAS_ALIKE, DISAGREEMENT, Comparison

ARMS = 5
TOLD_EVERY = 10.0  # seconds
Marks = list[NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Setting:
    """One kind of experiment. marks: of the arms, the second of which is worse by a difference."""

    metric: Metric
    marks: Callable[[np.random.Generator, int, float], Marks]


def right_or_wrong(generator: np.random.Generator, rows: int, difference: float) -> Marks:
    """Each arm disagrees with the first on a fifth of the rows, or as many as the difference takes."""
    first = generator.random(rows) < AREA
    marks = [first.astype(float)]
    for arm in range(1, ARMS):
        less = difference if arm == 1 else 0.0
        both = max(DISAGREEMENT, less)
        wins, losses = (both - less) / 2 / (1 - AREA), (both + less) / 2 / AREA
        flips = generator.random(rows) < np.where(first, losses, wins)
        marks.append((first ^ flips).astype(float))
    return marks


def scores(generator: np.random.Generator, rows: int, difference: float) -> Marks:
    """Scores of two normal distributions, in which half of what is chance is the row's own, for all arms alike."""
    positive, common = np.arange(rows) < rows // 2, generator.normal(0, 1, rows)
    found = []
    for arm in range(ARMS):
        distance = np.sqrt(2) * ndtri(AREA - (difference if arm == 1 else 0.0))
        own = np.sqrt(AREAS_ALIKE) * common + np.sqrt(1 - AREAS_ALIKE) * generator.normal(0, 1, rows)
        found.append(np.where(positive, distance, 0.0) + own)
    return found


SETTINGS = {
    "accuracy": Setting(Metric("accuracy"), right_or_wrong),
    "auc": Setting(Metric("auc", "Yes"), scores),
}


def main() -> None:
    """Runs the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=200, help="of each kind")
    parser.add_argument("--rows", type=int, default=120, help="golden rows to choose on")
    arguments = parser.parse_args()
    print(f"{arguments.experiments:,} experiments each, {ARMS} arms, {arguments.rows} rows\n")
    print("| metric | alike, called different | difference | found | seconds |")
    print("| --- | --- | --- | --- | --- |")
    for name, setting in SETTINGS.items():
        began = time.monotonic()
        alike = shares(setting, arguments.experiments, arguments.rows, 0.0)[0]
        smallest = power.smallest_difference(Comparison(setting.metric.kind, ARMS - 1), arguments.rows)
        assert smallest is not None, "so few rows show nothing"
        found = shares(setting, arguments.experiments, arguments.rows, smallest)[1]
        print(f"| {name} | {alike:.1%} | {smallest:.3f} | {found:.1%} | {time.monotonic() - began:.0f} |", flush=True)


def shares(setting: Setting, experiments: int, rows: int, difference: float) -> tuple[float, float]:
    """In how many experiments any arm is shown to differ, and in how many the second one is."""
    generator, place = np.random.default_rng(17), Rows(np.arange(rows) < rows // 2, np.arange(rows))
    shown, told = np.zeros((experiments, ARMS - 1), dtype=bool), time.monotonic()
    for number in range(experiments):
        if time.monotonic() - told >= TOLD_EVERY:
            told = time.monotonic()
            what = f"a difference of {difference:.3f}" if difference else "no difference"
            print(f"{setting.metric.name}, {what}: {number:,} of {experiments:,}", file=sys.stderr, flush=True)
        judged = judge_arms(setting.metric, setting.marks(generator, rows, difference), 0, place)
        shown[number] = [(each.p or 0.0) < stats.ALPHA for each in judged[1:]]
    return float(shown.any(axis=1).mean()), float(shown[:, 0].mean())


if __name__ == "__main__":
    main()
