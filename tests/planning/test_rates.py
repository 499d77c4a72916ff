"""How long a model takes, by the runs that asked it."""

from __future__ import annotations

from typing import Any

import pytest

from batchinfer.planning.rates import RUNS, seconds_of


def figures(model: str | None, rate: float | None, load: float = 5) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return named | {"rows_per_second": rate, "engine_load_seconds": load}


SHARED = {"rows_per_second": 7.0, "engine_load_seconds": 9} | {
    "cascade": {"small": figures("small", 20.0), "large": figures("large", 2.0, load=10)}
}


@pytest.mark.parametrize(("model", "seconds"), [("small", 5 + 40 / 20), ("large", 10 + 40 / 2), ("other", None)])
def test_what_two_models_took_together_is_neithers(model: str, seconds: float | None) -> None:
    """Of a run in which they took turns, each has its own figures."""
    assert seconds_of([SHARED], model, 40) == seconds
    assert seconds_of([SHARED], model, 40, alone=True) == seconds


def test_runs_of_one_model_count_beside_those_of_two() -> None:
    """Whether it was asked alone or took turns: the median of all; another model's runs say nothing of it."""
    reports = [figures("large", 4.0), SHARED, figures("small", 100.0), figures("large", 10.0)]
    assert seconds_of(reports, "large", 40) == 5 + 40 / 4.0


def test_older_runs_named_no_model() -> None:
    """In a job with one model they were of it; beside another nobody knows."""
    assert seconds_of([figures(None, 8.0)], "large", 40, alone=True) == 10.0
    assert seconds_of([figures(None, 8.0)], "large", 40) is None


def test_the_newest_runs_that_generated_tell_it() -> None:
    """Five at most; nothing to ask takes no time, and nobody knows how long an unknown number takes."""
    reports = [figures("one", None), *[figures("one", 2.0)] * RUNS, *[figures("one", 1000.0)] * (RUNS + 1)]
    assert seconds_of(reports, "one", 20) == 15.0
    assert seconds_of([], "one", 20) is None
    assert seconds_of([], "one", 0) == 0.0
    assert seconds_of(reports, "one", None) is None
