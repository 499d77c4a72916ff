"""Choices divided by what each has over the whole list."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from batchinfer.errors import SpecError
from tests.factories import LENIENT, Reply, World, model_job

CHOICES = ["it's", "drupe", "berry"]
SCORES = {"a": [0.8, 0.1, 0.1], "b": [0.7, 0.1, 0.2], "c": [0.6, 0.3, 0.1]}


def says(row: dict[str, str]) -> Reply:
    return [math.log(0.5 * score) for score in SCORES[row["text"]]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A job whose model likes the first choice whatever is asked."""
    columns = {"id": [1, 2, 3], "text": list(SCORES)}
    made = model_job(tmp_path, columns, output={"type": "choice", "choices": CHOICES, "prior": "list"}, gate=LENIENT)
    made.answer(says)
    return made


def test_scores_are_divided_by_their_means(world: World) -> None:
    """So are prediction and score; without the prior all is as the model gave it, and nothing is asked."""
    report = world.publish()
    assert (report.entries, report.remaining) == (3, 0)
    means = [sum(scores[place] for scores in SCORES.values()) / 3 for place in range(3)]
    for number, scores in enumerate(SCORES.values(), 1):
        body = json.loads(world.get(id=number) or b"{}")
        divided = [score / mean for score, mean in zip(scores, means, strict=True)]
        shares = {choice: part / sum(divided) for choice, part in zip(CHOICES, divided, strict=True)}
        assert body["scores"] == pytest.approx(shares)
        assert body["prediction"] == max(shares, key=lambda choice: shares[choice])
        assert body["score"] == pytest.approx(max(shares.values()))
    plain = world.changed(output={"type": "choice", "choices": CHOICES})
    with plain.prepared() as prepared:
        assert prepared.plan.counts.to_generate == 0
        assert prepared.question is not None
    plain.publish()
    bodies = [json.loads(plain.get(id=number) or b"{}") for number in (1, 2, 3)]
    assert [(body["prediction"], body["score"]) for body in bodies] == [
        ("it's", pytest.approx(s)) for s in (0.8, 0.7, 0.6)
    ]


def test_only_choices_have_a_prior(tmp_path: Path) -> None:
    """It divides the scores of choices; a text has none."""
    with pytest.raises(SpecError, match=r"prior belongs to type: choice"):
        model_job(tmp_path, {"id": [1], "text": ["a"]}, output={"type": "text", "prior": "list"})
