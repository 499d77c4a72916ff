"""batchinfer status: one line for each job, and exit code 1 where not all is well."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from batchinfer.alerts.attempts import read_attempt, write_attempt
from batchinfer.core.home import JobData
from tests.alerts.made import SECRET, START
from tests.tiny import Cli

WEEKLY = {"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}
HOOK = {"webhook": "http://127.0.0.1:9/hook", "secret_env": "ALERTS_SECRET", "stale_after": "8d"}


def aged(data: JobData, days: float) -> None:
    """As if the last run had ended so long ago; the version, too."""
    then = datetime.now(UTC) - timedelta(days=days)
    (data.folder / "last_run.json").write_text(json.dumps({"run_id": 1, "finished_at": then.isoformat()}))
    manifest = data.versions / "000001" / "manifest.json"
    content = json.loads(manifest.read_bytes()) | {"created_at": then.isoformat()}
    manifest.write_text(json.dumps(content))


@pytest.fixture
def data(batchinfer: Cli, ran: Path) -> JobData:
    """The data of jobs/shop, which ran once."""
    return JobData(batchinfer.data, "shop")


def test_a_job_that_is_well(batchinfer: Cli, data: JobData) -> None:
    """What is served, how old it is and how it ran last, as a table and as JSON; exit code 0."""
    done = batchinfer("status", "--json")
    assert done.code == 0
    [line] = done.json
    attempt = read_attempt(data)
    assert attempt is not None
    assert attempt.ended_at is not None
    assert line["last_run"] == attempt.to_json()["ended_at"]
    assert 0 <= line["age_seconds"] < 3600
    known = {
        name: line[name]
        for name in ("job", "version", "next_run", "health", "last_status", "stale_after_seconds", "problems")
    }
    assert known == {
        "job": "shop", "version": 1, "next_run": None, "health": "ok", "last_status": "done", "stale_after_seconds": None, "problems": [],
    }  # fmt: skip
    shown = batchinfer("status", "shop")
    assert shown.code == 0
    assert "ago), done" in " ".join(shown.out.split())  # where the age has two digits, the table breaks the line


def test_when_it_runs_next(batchinfer: Cli, data: JobData, shop: Callable[..., Path]) -> None:
    """A schedule's next time is there, on the clocks of its zone for people; a job that never ran is one that is not well."""
    shop(schedule=WEEKLY)
    text = (Path("jobs") / "shop" / "job.yaml").read_text().replace("name: shop", "name: later")
    (Path("jobs") / "later").mkdir()
    (Path("jobs") / "later" / "job.yaml").write_text(text)
    done = batchinfer("status", "--json")
    assert done.code == 1
    lines = {line["job"]: line for line in done.json}
    assert {name: line["health"] for name, line in lines.items()} == {"shop": "ok", "later": "never run"}
    for line in lines.values():
        at = datetime.fromisoformat(line["next_run"])
        assert at.weekday() == 0
        assert at > datetime.now(UTC)
    assert (lines["later"]["version"], lines["later"]["age_seconds"], lines["later"]["last_run"]) == (None, None, None)
    assert batchinfer("status", "shop").code == 0
    shown = batchinfer("status", "later")
    assert shown.code == 1
    assert "Mon 20" in shown.out
    assert "03:00 CET (in " in shown.out


def test_what_is_wrong_is_said(
    batchinfer: Cli, data: JobData, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stale, failing: in the line, and why in sentences; what could not be told is there, too."""
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    folder = shop(alerts=[HOOK])
    assert batchinfer("run", "shop").code == 0
    aged(data, 3)
    assert batchinfer("status", "--json").json[0]["stale_after_seconds"] == 8 * 86400
    for version in (data.versions / "000001", data.versions / "000002"):
        content = json.loads((version / "manifest.json").read_bytes()) | {"created_at": "2026-01-01T00:00:00Z"}
        (version / "manifest.json").write_text(json.dumps(content))
    aged(data, 9)
    [line] = batchinfer("status", "--json").json
    assert line["health"] == "stale"
    assert line["problems"][0].endswith("9 days ago; it was to be told after 8 days.")
    (folder / "queries.parquet").unlink()
    assert batchinfer("run", "shop").code == 2
    shown = batchinfer("status")
    assert shown.code == 1
    said = " ".join(shown.out.split())
    assert "shop: Failed since 20" in said
    assert "shop: 2 alerts are still to be told." in said
    assert "shop: http://127.0.0.1:9 could not be told yet: it cannot be reached: Connection refused." in said
    [line] = batchinfer("status", "shop", "--json").json
    assert (line["health"], line["alerts_pending"], line["last_status"]) == ("failing", 2, "failed")


def test_health_has_a_colour(batchinfer: Cli, data: JobData, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; elsewhere there are no escapes."""
    assert "\x1b[" not in batchinfer("status").out
    printed: list[Any] = []
    monkeypatch.setattr(Console, "print", lambda _self, what, **_: printed.append(what))
    batchinfer("status")
    [drawn] = printed
    styles = {cell.plain: str(cell.style) for column in drawn.columns for cell in column.cells}
    assert styles["ok"] == "green"
    assert styles["shop"] == ""


def test_the_version_is_the_one_that_clients_get(batchinfer: Cli, data: JobData, shop: Callable[..., Path]) -> None:
    """A pin decides it, and is told; a damaged pin is none."""
    shop(serve={"max_age": "5m"})
    assert batchinfer("run", "shop").code == 0
    assert batchinfer("pin", "shop", 1).code == 0
    [line] = batchinfer("status", "--json").json
    assert (line["version"], line["pinned"], line["health"]) == (1, True, "ok")
    assert "1 (pinned)" in batchinfer("status").out
    (data.folder / "PIN").write_text("?")
    [line] = batchinfer("status", "--json").json
    assert (line["version"], line["pinned"]) == (2, False)


def test_a_folder_that_is_read_only_or_a_copy(batchinfer: Cli, data: JobData, tmp_path: Path) -> None:
    """Nothing is written; a copy says what it has; a job is known by its file, too."""
    before = sorted(path.name for path in data.folder.iterdir())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        assert batchinfer("status").code == 0
    assert sorted(path.name for path in data.folder.iterdir()) == before
    assert batchinfer("copy", "shop", tmp_path / "there").code == 0
    [line] = batchinfer("--home", tmp_path / "there", "status", "--json").json
    assert (line["health"], line["version"], line["last_status"]) == ("ok", 1, "done")
    assert batchinfer("status", "jobs/shop").code == 0


def test_a_run_that_goes_on_or_died(batchinfer: Cli, data: JobData) -> None:
    """A run that holds the job is running; one that does not, and did not say how it ended, died."""
    attempt = read_attempt(data)
    assert attempt is not None
    content = attempt.to_json() | {"status": "running", "ended_at": None, "began_at": START.isoformat()}
    (data.folder / "last_attempt.json").write_text(json.dumps(content))
    with data.run_lock("a test"):
        [line] = batchinfer("status", "--json").json
    assert (line["health"], line["last_status"]) == ("ok", "running")
    [line] = batchinfer("status", "--json").json
    assert (line["health"], line["last_status"]) == ("failing", "failed")
    assert "died" in line["problems"][0]
    write_attempt(data, attempt)
    assert batchinfer("status").code == 0


def test_where_there_are_no_jobs(batchinfer: Cli) -> None:
    """A sentence, and exit code 6."""
    done = batchinfer("status")
    assert done.code == 6
    assert done.sentence.startswith("There are no jobs in the data folder")


def test_a_job_file_that_is_wrong_by_now(batchinfer: Cli, data: JobData) -> None:
    """The job does not run as long as that is so: all is not well, though what is served is still new."""
    path = Path("jobs") / "shop" / "job.yaml"
    path.write_text(path.read_text() + "\nscedule: {}\n")
    done = batchinfer("status", "--json")
    assert done.code == 1
    [line] = done.json
    assert line["health"] == "failing"
    [problem] = line["problems"]
    assert problem.startswith("It does not run as long as its job file is wrong: ")
    assert "scedule" in problem
