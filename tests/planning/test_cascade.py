"""How a list is divided between a small and a large model."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from batchinfer.errors import MissingExtra, ModelError, SpecError
from batchinfer.planning.cascade import MOST_SAMPLED, Stage, sample_size
from batchinfer.planning.prepare import Options, prepare
from batchinfer.student.threshold import find_threshold, least_rows
from tests.cascades import PROMISE, make_cascade

AGREE, CONFIDENCE = 0.95, 0.9


def test_the_promise_holds_and_saves_half() -> None:
    """A small model right on 90 % whose score has an area of 0.9, 200 splits: agreement, and the large one's share, in 90 % of them."""
    size, kept = sample_size(AGREE, CONFIDENCE), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        agreed = rng.random(10_000) < 0.9
        scores = stats.norm.cdf(rng.normal(size=10_000) + np.sqrt(2) * stats.norm.ppf(0.9) * agreed)
        found = find_threshold(scores[:size], agreed[:size], AGREE, CONFIDENCE)
        sure = np.zeros(10_000, bool) if found is None else scores >= found.score
        asked = ~sure | (np.arange(10_000) < size)
        kept += bool(1 - (sure & ~agreed).mean() >= AGREE and asked.mean() < 0.5)
    assert kept >= 180


def test_the_sample_is_bounded_and_large_enough() -> None:
    """However high the promise, it can be shown with so many, and there are no more than a bound."""
    for agree in (0.5, 0.9, 0.95, 0.99, 0.999):
        for confidence in (0.5, 0.9, 0.999):
            size = sample_size(agree, confidence)
            assert least_rows(agree, confidence) < size <= MOST_SAMPLED
    assert sample_size(AGREE, CONFIDENCE) == 360


def test_the_sample_does_not_depend_on_what_is_new(tmp_path: Path, tiny: Path) -> None:
    """As long as the small model has answered nothing there is no sample, and all rows wait for the large one."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    with prepare(job, data, Options()) as prepared:
        assert prepared.cascade is not None
        assert not prepared.cascade.division.is_known
        assert prepared.plan.counts.to_generate == 200
        assert prepared.cascade.turn_to(Stage.SMALL) == 200
        small = {key for key, _ in prepared.plan.todo()}
        assert prepared.cascade.turn_to(Stage.SAMPLE) == 0
        assert prepared.cascade.large_alone() == 200
        assert small.isdisjoint(key for key, _ in prepared.plan.todo())
        assert prepared.query_list.rows([*small]).keys() == small  # also those that nothing asks now


def test_both_questions_are_those_of_jobs_with_one_model(tmp_path: Path, tiny: Path) -> None:
    """So each finds the other's answers; the cascade's own settings are in neither key, but in what stands for both."""
    seen: list[tuple[bytes, bytes, str | None]] = []
    for promise in (PROMISE, PROMISE | {"agree": 0.9}):
        job, data = make_cascade(tmp_path / "shop", tiny, promise=promise)
        with prepare(job, data, Options()) as prepared:
            assert prepared.cascade is not None
            asked = prepared.cascade
            seen.append((asked.small.fingerprint, asked.large.fingerprint, prepared.workspace.fingerprint))
    assert seen[0][:2] == seen[1][:2]
    assert seen[0][2] != seen[1][2]
    alone = make_cascade(tmp_path / "shop", tiny, model={"id": str(tiny)})
    with prepare(*alone, Options()) as prepared:
        assert prepared.cascade is None
        assert prepared.question is not None
        assert prepared.question.fingerprint == seen[0][0]
    alone = make_cascade(tmp_path / "shop", tiny, model={"id": str(tiny), "adapter": "adapter"})
    with prepare(*alone, Options()) as prepared:
        assert prepared.question is not None
        assert prepared.question.fingerprint == seen[0][1]


@pytest.mark.parametrize(
    ("large", "said"),
    [
        ({"id": "./nowhere"}, "line 12: model.cascade.large.id: there is no model in "),
        ({"id": "same"}, "line 11: model.cascade.large: it is the same model as model.id, ./same."),
        ({"id": "bundled/other"}, "line 12: model.cascade.large.id: there is no model bundled/other"),
        ({"id": "./same", "adapter": "gone"}, "line 13: model.cascade.large.adapter: "),
        (
            {"id": "./same", "adapter": "../out"},
            "line 13: model.cascade.large.adapter: ../out is outside the job's folder",
        ),
    ],
)
def test_a_large_model_that_cannot_be_used_has_its_line(
    tmp_path: Path, tiny: Path, large: dict[str, Any], said: str
) -> None:
    """As the job's own model has."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "same").symlink_to(tiny)
    model = {"id": "./same", "cascade": {"large": large} | PROMISE}
    job, data = make_cascade(tmp_path / "shop", tiny, model=model)
    with pytest.raises((SpecError, ModelError)) as raised, prepare(job, data, Options()):
        pass
    assert said in str(raised.value)


def test_without_scipy_the_extra_is_named(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job without a cascade needs none."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "scipy":
            raise ImportError(name)
        return real(name, *rest)

    job, data = make_cascade(tmp_path / "shop", tiny)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra) as raised, prepare(job, data, Options()):
        pass
    assert "SciPy, which a job with model.cascade needs, is not installed" in str(raised.value)
    assert "batchinfer-cache[train]" in str(raised.value)
