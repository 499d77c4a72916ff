"""Who looks after alerts beside what serves and what schedules: of staleness once a data folder, by one id everywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchinfer.alerts import delivery
from batchinfer.alerts import watcher as watcher_module
from batchinfer.alerts.attempts import AttemptStatus, note_failure, read_attempt, write_attempt
from batchinfer.alerts.desk import AlertDesk
from batchinfer.alerts.health import job_health
from batchinfer.alerts.notes import PendingAlert
from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.standing import StandingReader
from batchinfer.alerts.watcher import AlertWatcher
from batchinfer.core.home import JobData
from batchinfer.versions import pointers
from batchinfer.versions.replication import replicate
from tests.alerts.made import HOOK, SECRET, stale_job, web_receiver
from tests.factories import Templates, World, world_at
from tests.serving import eventually, serving
from tests.tiny import ROOT, until


@pytest.fixture
def world(templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """`stale_job`."""
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    templates.copy(stale_job, tmp_path)
    return world_at(tmp_path)


class Told:
    """What receivers got. It takes everything."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.data: list[dict[str, Any]] = []

    def __call__(self, alert: PendingAlert, _seconds: float) -> Outcome:
        self.ids.append(alert.id)
        self.data.append(json.loads(alert.body)["data"])
        return Outcome(delivered=True)


def watching(root: Path, told: Told, said: list[str] | None = None) -> AlertWatcher:
    heard = list[str]() if said is None else said
    return AlertWatcher(root, heard.append, send=told)


def test_what_goes_stale_is_told_once_a_data_folder(world: World) -> None:
    """Several services on one folder agree; it is told as what a served version says, without a job file."""
    world.job.path.unlink()
    told = Told()
    for watcher in [watching(world.data.root, told) for _ in range(3)] * 2:
        watcher.round()
    [data] = told.data
    assert (data["event"], data["version"], data["job"]) == ("stale", 1, "shop")
    assert data["message"].endswith("9 days ago; it was to be told after 8 days.")


def test_at_the_same_moment(world: World) -> None:
    """Also where they look at once."""
    told = Told()
    threads = [threading.Thread(target=watching(world.data.root, told).round) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watching(world.data.root, told).round()
    assert len(told.ids) == 1


def test_replicas_tell_it_by_the_same_id(world: World, tmp_path: Path) -> None:
    """A copy has the rules, the limit and the last run; what it tells is the same event, also from a folder that is read-only."""
    other = tmp_path / "other"
    replicate(world.data, other, lambda _: None)
    copy = JobData(other.resolve(), "shop")
    assert not (copy.folder / "last_attempt.json").exists()
    here, there = Told(), Told()
    watching(world.data.root, here).round()
    watching(other, there).round()
    assert here.ids == there.ids
    assert len(here.ids) == 1


def test_a_folder_that_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process remembers what it told; another one tells it by the same id; what was noted by others counts."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    first, second = Told(), Told()
    for watcher in [watching(world.data.root, first)] * 3 + [watching(world.data.root, second)]:
        watcher.round()
    assert first.ids == second.ids
    assert len(first.ids) == 1
    assert not (world.data.folder / "alerts.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    noted, third = Told(), Told()
    watching(world.data.root, noted).round()
    monkeypatch.setattr(os, "access", lambda *_: False)
    watching(world.data.root, third).round()
    assert (len(noted.ids), third.ids) == (1, [])


def test_what_others_left_undelivered_in_a_folder_that_cannot_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once by this process, and not at all where the one that left it told it meanwhile."""
    desk = AlertDesk(world.data, lambda _: None, send=Told())
    desk.look()
    monkeypatch.setattr(os, "access", lambda *_: False)
    first, second, refused = Told(), Told(), list[str]()

    def refuses(alert: PendingAlert, _seconds: float) -> Outcome:
        refused.append(alert.id)
        return Outcome(said="it answered 500.")

    later = AlertWatcher(world.data.root, lambda _: None, send=refuses)
    later.round()
    for watcher in [watching(world.data.root, first)] * 3:
        watcher.round()
    assert len(first.ids) == len(refused) == 1
    monkeypatch.undo()
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    desk.deliver()
    assert json.loads((world.data.folder / "alerts.json").read_bytes())["pending"] == []
    monkeypatch.setattr(os, "access", lambda *_: False)
    later._send = second
    for desk in later._desks.values():
        desk._send = second
        desk.deliver(datetime.now(UTC) + timedelta(hours=1))
    assert second.ids == []


def test_a_run_that_finds_nothing_new_makes_it_fresh(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No version is published, and none is needed: the last run that ended well counts, here and, once copied, elsewhere."""
    other = tmp_path / "other"
    replicate(world.data, other, lambda _: None)
    here, there = Told(), Told()
    watching(world.data.root, here).round()
    watching(other, there).round()
    monkeypatch.setattr(delivery, "send_apart", here)
    assert world.run().unchanged
    assert not replicate(world.data, other, lambda _: None).copied
    watching(world.data.root, here).round()
    watching(other, there).round()
    assert [[data["event"] for data in told.data] for told in (here, there)] == [["stale", "recovered"]] * 2
    assert here.ids[1] == there.ids[1]


def test_a_folder_that_was_once_run_in(world: World, tmp_path: Path) -> None:
    """What was published since by another machine says who is told, and not what a run here said long ago."""
    attempt = read_attempt(world.data)
    assert attempt is not None
    write_attempt(world.data, replace(attempt, began_at=datetime(2020, 1, 1, tzinfo=UTC), rules=()))
    assert len(StandingReader(world.data).read().rules) == 1
    published = StandingReader(world.data).read().published
    assert published is not None
    for began_at in (attempt.began_at, published.made_at):  # in the same second, too
        write_attempt(world.data, replace(attempt, began_at=began_at, rules=()))
        assert StandingReader(world.data).read().rules == ()


def test_what_serves_starts_no_programs(tmp_path: Path) -> None:
    """A command that a data folder names is started only by who knows it from a job file, too."""
    world = stale_job(tmp_path, {"command": ["page"], "stale_after": "8d"})
    told = Told()
    watching(world.data.root, told).round()
    assert told.ids == []
    assert not (world.data.folder / "alerts.json").exists()
    [rule] = StandingReader(world.data).read().rules
    AlertWatcher(world.data.root, lambda _: None, trusted=lambda: frozenset({rule.key}), send=told).round()
    assert len(told.ids) == 1


def test_one_job_does_not_keep_others_from_being_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with one is said once; damaged notes are said, and begun again; a folder that is away is waited for."""
    (world.data.root / "broken").mkdir()
    (world.data.root / "broken" / "job.json").write_text("{}")
    look = AlertDesk.look

    def breaks(desk: AlertDesk, *rest: Any) -> None:
        if desk._data.name == "broken":
            raise RuntimeError("out of order")
        look(desk, *rest)

    monkeypatch.setattr(AlertDesk, "look", breaks)
    (world.data.folder / "alerts.json").write_text("{")
    told, said = Told(), list[str]()
    watcher = watching(world.data.root, told, said)
    away = world.data.root.with_name("away")
    for _ in range(3):
        watcher.round()
        world.data.root.rename(away)
        watcher.round()
        away.rename(world.data.root)
    assert len(told.ids) == 1
    assert said[0] == "Alerts of broken cannot be looked after: out of order"
    assert said[1].endswith(
        "alerts.json cannot be used: it is not JSON. It is begun again: what was told may be told again."
    )
    assert said[2:] == ["http://127.0.0.1:9 was told of shop."]


def test_damaged_files_of_a_job(world: World) -> None:
    """Whatever a file says, the rest is looked at; what CURRENT does not tell, the newest version does."""
    data = world.data
    for name, content in (
        ("last_run.json", '{"finished_at": 7}'), ("last_attempt.json", '{"status": "odd"}'), (pointers.CURRENT, "?"), (pointers.PIN, "?"),
    ):  # fmt: skip
        (data.folder / name).write_text(content)
    standing = StandingReader(data).read()
    assert standing.published is not None
    assert (standing.published.version, standing.succeeded_at, standing.attempt) == (1, None, None)
    assert len(standing.rules) == 1
    told = Told()
    watching(data.root, told).round()
    assert [each["event"] for each in told.data] == ["stale"]


EARLY, LATE = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"  # no other zone has them
ODD = ["", "null", "[]", "7", '"x"', "{}", "[" * 100_000, "\ud800", '{"format": 1}']
ATTEMPTS: list[dict[str, Any]] = [
    {"status": "done", "began_at": 7}, {"status": "done", "began_at": EARLY, "troubles": 7},
    {"status": "failed", "began_at": LATE, "troubles": [{"kind": "failed", "since": EARLY, "said": 3}]},
    {"status": "running", "began_at": "2026-01-01", "host": 7, "alerts": [{"on": 3}], "run_id": []},
]  # fmt: skip
NOTES: list[dict[str, Any]] = [
    {"told": 7, "pending": []}, {"told": {"x": [7]}, "pending": []}, {"told": {}, "pending": [{"id": 1}]},
    {"told": {"x": [{"kind": "failed", "marker": None, "reminders": "9"}]}, "pending": [], "doubted": [LATE, EARLY]},
]  # fmt: skip


@pytest.mark.parametrize("name", ["last_attempt.json", "alerts.json", "last_run.json"])
def test_whatever_a_file_holds(world: World, name: str) -> None:
    """A file that says nothing, or anything at all, ends no look, and neither times at the ends of all times."""
    contents = {"last_attempt.json": ATTEMPTS, "alerts.json": NOTES}.get(name, [{"finished_at": LATE}])
    for content in [*ODD, *map(json.dumps, contents)]:
        (world.data.folder / name).write_bytes(content.encode(errors="surrogatepass"))
        said = list[str]()
        watching(world.data.root, Told(), said).round()
        assert not [text for text in said if "cannot be looked after" in text], content
        assert job_health(world.data, datetime.now(UTC)).standing.job == "shop"
    path = world.data.folder / name
    path.unlink()
    os.mkfifo(path)
    assert job_health(world.data, datetime.now(UTC)).standing.job == "shop", "a pipe is not waited for"


def test_a_folder_of_which_nothing_can_be_read(world: World) -> None:
    """What was told is not forgotten, and nothing is taken for mended."""
    told = Told()
    watcher = watching(world.data.root, told)
    watcher.round()
    away = world.data.versions.rename(world.data.root / "away")
    attempt = (world.data.folder / "last_attempt.json").rename(world.data.root / "attempt")
    fresh = watching(world.data.root, told)
    for each in (watcher, fresh):
        each.round()
    away.rename(world.data.versions)
    attempt.rename(world.data.folder / "last_attempt.json")
    for each in (watcher, fresh):
        each.round()
    assert len(told.ids) == 1


def test_a_failure_that_the_run_could_not_note(world: World) -> None:
    """Who started a run notes that it failed, unless the run did so itself; of a job without any run nothing is made."""
    now = datetime.now(UTC)
    note_failure(world.data, now + timedelta(seconds=5), "Signal 9 ended it.")
    attempt = read_attempt(world.data)
    assert attempt is not None
    assert (attempt.status, attempt.said) == (AttemptStatus.FAILED, "Signal 9 ended it.")
    note_failure(world.data, now - timedelta(seconds=60), "Signal 15 ended it.")
    assert read_attempt(world.data) == attempt
    note_failure(JobData(world.data.root, "gone"), now, "x")
    assert not (world.data.root / "gone").exists()


def test_the_process_ends_with_who_started_it(world: World, tmp_path: Path) -> None:
    """It looks at once, goes on through the signals that all processes of a service get, and ends when its stdin closes."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "batchinfer.alerts.watcher", str(world.data.root)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=errors, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ) as process,
    ):
        until(lambda: "could not be told of shop" in log.read_text())
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
    assert "Connection refused. It is tried again later." in log.read_text()


@pytest.mark.long
def test_a_service_tells_what_goes_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`batchinfer serve` alone, with nothing that schedules and no job file, tells a real receiver of it, once."""
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    with web_receiver() as receiver:
        world = stale_job(tmp_path, HOOK | {"webhook": receiver.url})
        world.job.path.unlink()
        with serving(world.data.root, tmp_path / "server", workers=1) as server:
            eventually(lambda: receiver.got, server.said)
            assert server.stop() == 0
        assert "was told of shop." in server.log
    [(headers, body)] = receiver.got
    assert json.loads(body)["type"] == "job.stale"
    assert headers["webhook-id"].startswith("batchinfer_")
    assert watcher_module.LOOK_SECONDS + watcher_module.LAST_SECONDS < 60


def test_a_process_without_the_secret_leaves_it_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once, and uses up none of the tries of the one that has it."""
    with web_receiver() as good:
        stale = stale_job(tmp_path, HOOK | {"webhook": good.url})
        said: list[str] = []
        monkeypatch.delenv("ALERTS_SECRET", raising=False)
        watcher = AlertWatcher(stale.data.root, said.append)
        for _ in range(3):
            watcher.round()
        assert [text.partition(": ")[0].rpartition(" cannot")[2] for text in said] == [
            " be told of shop by this process"
        ]
        assert good.got == []
        monkeypatch.setenv("ALERTS_SECRET", SECRET)
        AlertWatcher(stale.data.root, said.append).round()
        assert len(good.got) == 1


def test_news_come_first_and_what_was_tried_in_vain_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs have receivers that hang, a job that goes stale now is told of in this round."""
    monkeypatch.setattr(watcher_module, "MOST_AT_ONCE", 2)
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    watcher = AlertWatcher(tmp_path, lambda _: None)
    tries = {"a": 3, "b": 1, "c": 2, "d": None, "e": 0, "f": 0}
    watcher._desks = {name: SimpleNamespace(tries_of_due=lambda count=count: count) for name, count in tries.items()}  # type: ignore[misc]
    assert watcher._to_deliver() == ["e", "f", "b", "c"]
