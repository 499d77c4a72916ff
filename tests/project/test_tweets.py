"""The example jobs on tweets: a student, and a cascade whose large model is the adapter of another job."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batchinfer.job import reader
from tests.tiny import ROOT

JOBS = ROOT / "jobs"
MAKE: dict[str, Any] = runpy.run_path(str(JOBS / "tweets" / "make_queries.py"))


def rows(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(JOBS / path).to_pylist()
    return found


def test_the_lists_are_as_the_readmes_say() -> None:
    """Rated clearly, each once; people's answers to half of them; none that an adapter of jobs/sentiment learns."""
    listed = rows("tweets/queries.parquet")
    sentences = [row["sentence"] for row in listed]
    assert len(set(sentences)) == len(listed) == MAKE["ROWS"]
    assert all(abs(row["rating"]) >= MAKE["CLEAR"] for row in listed)
    golden = {row["sentence"]: row["answer"] for row in rows("tweets/golden.parquet")}
    assert golden == {
        row["sentence"]: "Positive" if row["rating"] > 0 else "Negative" for row in listed[: MAKE["GOLDEN"]]
    }
    assert rows("tweets_cascade/queries.parquet") == listed[: MAKE["GOLDEN"]]
    assert {row["sentence"] for row in rows("sentiment/queries.parquet")}.isdisjoint(sentences)


def test_both_ask_what_sentiment_asks() -> None:
    """So the adapter that is trained there fits here, and each model's answers are what they are there."""
    asked = [reader.load(str(JOBS / name), {}).spec for name in ("sentiment", "tweets", "tweets_cascade")]
    prompts = [spec.prompt.model_dump(include={"format", "system", "template"}) for spec in asked if spec.prompt]
    assert prompts[0] == prompts[1] == prompts[2]
    assert len({tuple(spec.output.choices or ()) for spec in asked}) == 1
    large = asked[2].model and asked[2].model.large
    assert large is not None
    assert (large.id, large.adapter) == ("bundled/smollm2-135m-instruct", "adapter")


def test_its_readme_names_the_list_it_came_from() -> None:
    """And the licence is with it."""
    for name in ("tweets", "tweets_cascade"):
        assert "vaderSentiment" in Path(JOBS / name / "README.md").read_text(encoding="utf-8")
        assert (JOBS / name / "LICENSE").read_bytes() == (JOBS / "sentiment" / "LICENSE").read_bytes()
