"""The record of a run: written on every way out, with a report that was built once."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest

from batchinfer.cache.schema import RunStatus
from batchinfer.errors import BatchinferError, Interrupted, Stopped, StoreError
from batchinfer.pipeline.record import RunRecord
from batchinfer.pipeline.stop import StopNow
from batchinfer.planning.prepare import Options
from tests.factories import LENIENT, World, imports_job


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = imports_job(tmp_path, {"id": [1, 2]}, gate=LENIENT)
    made.take_in({"id": [1], "prediction": ["one"]})
    return made


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (None, RunStatus.DONE),
        (Stopped("Enough."), RunStatus.STOPPED),
        (Interrupted("Ctrl-C."), RunStatus.INTERRUPTED),
        (StopNow(Interrupted("Ctrl-C twice.")), RunStatus.INTERRUPTED),
        (StoreError("The disk is full."), RunStatus.FAILED),
        (ValueError("A bug."), RunStatus.FAILED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_is_recorded_on_every_way_out(world: World, ending: BaseException | None, status: RunStatus) -> None:
    """Whatever ends a run, the cache has its status and its report; a stop carries the report to whoever hears of it."""
    with (
        contextlib.suppress(BatchinferError, StopNow, ValueError),
        world.prepared(writes=True) as prepared,
        RunRecord(prepared, Options(), 0.0) as record,
    ):
        assert [row.status for row in world.store.runs()] == [RunStatus.RUNNING]
        if ending is not None:
            raise ending
    [row] = world.store.runs()
    assert (row.status, row.report["status"], row.report["rows"]) == (status, status, 2)
    assert row.finished_at is not None
    assert record.report.status is status
    stop = ending.request if isinstance(ending, StopNow) else ending
    if isinstance(stop, Stopped):
        assert stop.report is record.report


def test_a_report_is_what_is_stored(world: World) -> None:
    """The record's JSON is what the cache keeps, and it cannot be changed afterwards."""
    report = world.run()
    [row] = world.store.runs()
    assert {name: value for name, value in report.to_json().items() if name != "gate"} == {
        name: value for name, value in row.report.items() if name != "gate"
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.version = 7  # type: ignore[misc]


def test_a_status_of_a_newer_program_hides_nothing(world: World) -> None:
    """The history is listed, although one of its runs ended in a way that is not known here."""
    world.run()
    with world.store.open(write=True) as db:
        db.execute("UPDATE runs SET status = 'postponed'")
    assert [row.status for row in world.store.runs()] == [RunStatus.UNKNOWN]
