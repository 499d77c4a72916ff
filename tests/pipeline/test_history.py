"""What earlier runs left: their reports and failures, or who says that there was none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure
from batchinfer.errors import NotFound
from batchinfer.pipeline import history
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.report import figure
from batchinfer.planning.prepare import Options
from tests.factories import LENIENT, Reply, World, imports_job, model_job
from tests.tiny import RecordingConsole


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A job that failed for two reasons and answered one row."""
    made = model_job(
        tmp_path, {"id": [1, 2, 3, 4], "text": ["a", "b", "c", "d"]}, output={"type": "regex", "pattern": "[0-9]+"}
    )
    replies: dict[str, Reply] = {
        "a": "12", "b": "none", "c": "nothing", "d": Failure(None, "engine", "refused", "The engine would not."),
    }  # fmt: skip
    made.answer(lambda row: replies[row["text"]])
    return made


def test_failures_are_counted_by_reason(world: World) -> None:
    """All reasons count, the most frequent first, however few rows are shown."""
    found = history.failures(world.data, 1)
    assert (len(found.rows), found.count) == (1, 3)
    assert [reason.count for reason in found.reasons] == [2, 1]
    everything = history.failures(world.data, None)
    assert sorted(row.query["id"] for row in everything.rows if row.query) == [2, 3, 4]
    assert {row.stage for row in everything.rows} == {"engine", "parse"}
    assert {row.query["id"]: row.text for row in everything.rows if row.query} == {2: "none", 3: "nothing", 4: None}


def test_runs_are_listed_newest_first(world: World) -> None:
    """Each run has its number, whether or not it came to its end."""
    world.answer(lambda row: "7", retry_failed=True)
    assert [run.run_id for run in history.runs(world.data)] == [2, 1]
    assert history.failures(world.data, None).count == 0


def test_a_job_without_a_cache_has_no_history(tmp_path: Path) -> None:
    """A job that was never run is not found, and one that the data folder does not know neither; nothing is made."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    world.data.bind(world.job.path)
    world.data.cache.unlink()
    for ask in (history.runs, lambda data: history.failures(data, 5)):
        with pytest.raises(NotFound, match=r"The job shop has not been run yet in .*"):
            ask(world.data)
        with pytest.raises(NotFound, match="nowhere"):
            ask(JobData(world.data.root, "nowhere"))
    assert not world.data.cache.exists()


def test_imports_and_a_failed_beginning_are_no_run(tmp_path: Path) -> None:
    """A cache without a run has no history either."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    world.take_in({"id": [1], "prediction": ["b"]})
    for ask in (history.runs, lambda data: history.failures(data, 5)):
        with pytest.raises(NotFound, match=r"The job shop has not been run yet in "):
            ask(world.data)


def test_what_remains_is_no_failure_but_is_counted(tmp_path: Path) -> None:
    """Failures knows how many prompts the last run left, and says if it does not know."""
    world = imports_job(tmp_path, {"id": [1, 2]}, gate=LENIENT)
    world.take_in({"id": [1], "prediction": ["b"]})
    world.run()
    assert (history.failures(world.data, None).count, history.failures(world.data, None).remaining) == (0, 1)
    command = ["--home", str(world.data.root), "failures", "shop"]
    said = " ".join(CliRunner().invoke(cli, command).output.split())
    rest = "When the last run ended, 1 more prompt had no prediction yet: batchinfer plan shop"
    assert said == f"No failures of shop in the data folder {world.data.root}. {rest}"
    world.store.start_run(b"", None)
    assert history.failures(world.data, None).remaining is None


def test_reports_of_older_programs_are_read() -> None:
    """A stored report may have figures under their older names only; the newer name goes first where it has both."""
    old = {"hits": 1, "failures": 2, "left": 3}
    assert [figure(old, name) for name in ("cached", "failed", "remaining")] == [1, 2, 3]
    assert figure(old | {"cached": 4}, "cached") == 4
    assert figure({}, "cached") is None


def test_what_publish_counts_is_listed(tmp_path: Path) -> None:
    """Bad rows that a publish points to are among the failures, also of a job that was never run."""
    world = imports_job(tmp_path, {"id": ["a", None]}, input={"path": "queries.parquet", "key": ["id"]}, gate=LENIENT)
    world.take_in({"id": ["a"], "prediction": ["x"]})
    report = publish(world.job, world.data, Options(), RecordingConsole())
    assert report.bad == 1
    assert [row.reason for row in history.failures(world.data, None).rows] == ["null_key"]
    with pytest.raises(NotFound, match="has not been run"):
        history.runs(world.data)
