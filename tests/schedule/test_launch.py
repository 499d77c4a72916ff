"""Runs as processes of their own, and the commands `schedule run` and `schedule list`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchinfer.errors import UsageError
from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.alerting import NamedReceivers
from batchinfer.schedule.entries import JobFiles, named_entries
from batchinfer.schedule.launch import Ended, ProcessLauncher
from batchinfer.schedule.memory import Memory
from batchinfer.schedule.scheduler import SystemClock
from tests.alerts.made import stale_job
from tests.factories import LENIENT, World, imports_job
from tests.tiny import until

EVERY_MINUTE = {"cron": "* * * * *"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A job that lives by imports, due every minute."""
    world = imports_job(tmp_path, {"id": ["a", "b"]}, gate=LENIENT, schedule=EVERY_MINUTE)
    world.take_in({"id": ["a", "b"], "prediction": ["x", "y"]})
    return world


def launched(world: World) -> Ended:
    """How a run of the job ends."""
    ended = threading.Event()
    schedule = world.job.spec.schedule
    assert schedule is not None
    launch = ProcessLauncher(world.data.root, Memory(world.data.root), ended.set)
    Memory(world.data.root).write({})
    run = launch(ScheduledJob(world.job, schedule))
    assert ended.wait(60)
    found = run.ended()
    assert found is not None
    return found


@pytest.mark.long
def test_a_run_is_a_process_that_says_how_it_ended(world: World) -> None:
    """What it published, that nothing is new, or the sentence of its error, which its log has, too."""
    assert launched(world) == Ended(0, "Version 1 is published: 0 answers made.")
    assert launched(world) == Ended(0, "Nothing new: version 1 says it all.")
    (world.job.folder / "queries.parquet").unlink()
    failed = launched(world)
    assert failed.exit_code == 2
    assert "queries.parquet" in failed.said
    assert "queries.parquet" in Memory(world.data.root).log_of("shop").read_text()


@pytest.mark.long
def test_schedule_run_until_it_is_told_to_stop(world: World) -> None:
    """A due time that passed is made up for at once; SIGTERM ends it with 0, and `schedule list` knows the run."""
    world = world.changed(schedule={"cron": "0 0 1 1 *"})  # none that comes while the test goes on
    memory = Memory(world.data.root)
    environment = os.environ | {"BATCHINFER_HOME": str(world.data.root)}
    base = [sys.executable, "-m", "batchinfer", "schedule"]
    memory.folder.mkdir(parents=True)
    content = {
        "since": "2024-06-01T00:00:00+00:00",
        "unfinished": None,
        "began": None,
        "ended": None,
        "exit_code": None,
    }
    (memory.folder / "jobs.json").write_text(json.dumps({"format": 1, "jobs": {"shop": content}}))
    command = [*base, "run", str(world.job.path), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(json.loads(line)["message"])
            if "ended" in lines[-1]:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert lines[0].startswith("shop: At 00:00 on January 1, UTC; next at 2025-01-01T00:00:00Z")
    assert "begins, which stands for" in lines[1]
    assert lines[2].endswith("ended. Version 1 is published: 0 answers made.")
    assert lines[-1].startswith("Stopped.")
    listed = json.loads(
        subprocess.run(
            [*base, "list", str(world.job.path), "--json"], capture_output=True, check=True, env=environment
        ).stdout
    )
    [line] = listed
    assert (line["job"], line["cron"], line["timezone"], line["exit_code"]) == ("shop", "0 0 1 1 *", "UTC", 0)
    assert line["last"].endswith("Z")
    assert line["next"].endswith(":00Z")


@pytest.mark.long
def test_schedule_run_tells_what_is_stale(tmp_path: Path) -> None:
    """Beside it a process looks after alerts. It starts the programs of job files, and none that only the data folder names."""
    told, planted = tmp_path / "told", tmp_path / "planted"
    words = [sys.executable, "-c", f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read())"]
    world = stale_job(tmp_path, {"command": words, "stale_after": "8d"}, schedule={"cron": "0 3 * * 1"})
    path = world.data.folder / "last_attempt.json"
    notes = json.loads(path.read_bytes())
    notes["alerts"] = [notes["alerts"][0] | {"command": ["touch", str(planted)]}, *notes["alerts"]]
    path.write_text(json.dumps(notes))
    command = [
        sys.executable,
        "-m",
        "batchinfer",
        "--home",
        str(world.data.root),
        "schedule",
        "run",
        str(world.job.path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: told.exists() and told.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert json.loads(told.read_text())["type"] == "job.stale"
    assert not planted.exists()


def test_job_files_are_read_again_when_they_change(world: World) -> None:
    """What is wrong with one is said once; the job comes back when that is mended, and goes with its file."""
    said: list[str] = []
    files = JobFiles([str(world.job.path)], said.append)
    assert [entry.name for entry in files()] == ["shop"]
    text = world.job.path.read_text()
    world.job.path.write_text(text.replace("* * * * *", "61 * * * *"))
    os.utime(world.job.path, ns=(1, 1))
    assert files() == files() == []
    [sentence] = said
    assert "bad minute" in sentence
    world.job.path.write_text(text)
    assert [entry.name for entry in files()] == ["shop"]
    world.job.path.unlink()
    assert files() == []
    assert "is not run as long as that is so" in said[1]


def test_two_jobs_of_one_name(world: World, tmp_path: Path) -> None:
    """The second is said, once, and not run; where both are named, they are refused."""
    other = tmp_path / "other" / "job.yaml"
    other.parent.mkdir()
    other.write_text(world.job.path.read_text())
    said: list[str] = []
    files = JobFiles([str(world.job.path), str(other)], said.append)
    assert [entry.job.path for entry in files()] == [entry.job.path for entry in files()] == [world.job.path]
    [sentence] = said
    assert f"{world.job.path} and {other} are both named shop" in sentence
    with pytest.raises(UsageError, match="are both named shop: rename one"):
        named_entries([str(world.job.path), str(other)])


def test_a_handler_may_wake_the_clock_at_any_time() -> None:
    """The wait ends at once, and one wake-up before it is not lost; many are one."""
    clock = SystemClock()
    for _ in range(3):
        clock.wake()
    clock.wait(60)
    began = clock.now()
    clock.wait(0.01)
    assert clock.now() > began


def test_whom_a_job_file_named_is_told_though_it_is_wrong_by_now(world: World) -> None:
    """That nothing runs any more is what they are to hear; once the file is gone they are told nothing."""
    world = world.changed(alerts=[{"command": ["true"], "stale_after": "8d"}])
    receivers = NamedReceivers(JobFiles([str(world.job.path)], lambda _: None))
    named = receivers()
    assert len(named) == 1
    text = world.job.path.read_text()
    world.job.path.write_text(text.replace("* * * * *", "61 * * * *"))
    os.utime(world.job.path, ns=(1, 1))
    assert receivers() == named
    world.job.path.write_text(text)
    world.changed(alerts=None)
    assert receivers() == frozenset()
    world.job.path.unlink()
    assert receivers() == frozenset()
