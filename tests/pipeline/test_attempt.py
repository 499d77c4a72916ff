"""How a run ended is noted and told: once on failing, once on being refused, once on being well again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchinfer.alerts import delivery
from batchinfer.alerts.attempts import AttemptStatus, LastAttempt, read_attempt, write_attempt
from batchinfer.alerts.desk import AlertDesk
from batchinfer.alerts.notes import PendingAlert
from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.textfile import metrics_file
from batchinfer.cache.schema import RunStatus
from batchinfer.errors import Busy, CutShort, ExitCode, GateFailed, InputError, NotConfirmed, Stopped
from batchinfer.maintenance.jobs import remove_job
from batchinfer.pipeline import run as run_module
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from batchinfer.versions.manifest import Manifest
from tests.alerts.made import SECRET, START, hanging_receiver, web_receiver
from tests.factories import LENIENT, Quiet, Templates, World, imports_job, model_job
from tests.tiny import Cli, RecordingConsole, press

if TYPE_CHECKING:
    from batchinfer.engines.protocol import Engine

HOOK = {"webhook": "http://127.0.0.1:9/hook", "secret_env": "ALERTS_SECRET", "stale_after": "8d"}


def one_version(folder: Path) -> World:
    """A job with alerts, of imports, whose first run ended well."""
    world = imports_job(folder, {"id": [1, 2, 3, 4]}, gate=LENIENT, alerts=[HOOK])
    world.take_in({"id": [1, 2, 3, 4], "prediction": ["one"] * 4})
    world.run()
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """`one_version`."""
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    return templates.world(one_version, tmp_path)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The data of each event that receivers get, as it is told them. None of them refuses anything."""
    got = list[dict[str, Any]]()

    def send(alert: PendingAlert, _seconds: float) -> Outcome:
        got.append(json.loads(alert.body)["data"])
        return Outcome(delivered=True)

    monkeypatch.setattr(delivery, "send_apart", send)
    return got


def events(told: list[dict[str, Any]]) -> list[str]:
    return [data["event"] for data in told]


def without_list(world: World) -> Callable[[], object]:
    """Takes the list away, so that runs fail; returns what puts it back."""
    away = world.list_path.rename(world.list_path.with_suffix(".away"))
    return partial(away.rename, world.list_path)


def test_a_job_that_fails_every_time_is_told_of_once(world: World, told: list[dict[str, Any]]) -> None:
    """The first failure is told, with what was wrong; not the next ones. A run that ends well is told, once, too."""
    put_back = without_list(world)
    for _ in range(3):
        with pytest.raises(InputError):
            world.run()
    [failed] = told
    assert (failed["event"], failed["version"], failed["reminder"]) == ("failed", 1, 0)
    assert "queries.parquet" in failed["message"]
    put_back()
    for _ in range(2):
        assert world.run().unchanged
    assert events(told) == ["failed", "recovered"]
    attempt = read_attempt(world.data)
    assert attempt is not None
    assert (attempt.status, attempt.troubles, attempt.run_id) == (AttemptStatus.DONE, (), 3)


@pytest.mark.long
def test_a_refusal_is_told_once_and_mended_by_hand(world: World, told: list[dict[str, Any]]) -> None:
    """What the gate refuses is told with its figures; a run or a publishing that it lets through ends that."""
    world.take_in({"id": [1, 2, 3, 4], "prediction": ["two"] * 4})
    strict = world.changed(gate={"changed": 0})
    for _ in range(2):
        with pytest.raises(GateFailed):
            strict.run()
    with pytest.raises(GateFailed):
        strict.publish()
    assert events(told) == ["refused"]
    assert told[0]["message"].startswith("The gate refused the new version: changed: ")
    assert told[0]["run_id"] == 2
    publish(strict.job, strict.data, Options(), Quiet(), "Read by two of us.")
    assert events(told) == ["refused", "recovered"]
    attempt = read_attempt(world.data)
    assert attempt is not None
    assert (attempt.status, attempt.run_id) == (AttemptStatus.REFUSED, 3), (
        "the last run is still the one that was refused"
    )


def test_a_publishing_does_not_mend_a_run_that_failed(world: World, told: list[dict[str, Any]]) -> None:
    """What a person publishes of the cache says nothing of whether runs come to their end; nor does one that fills it."""
    put_back = without_list(world)
    with pytest.raises(InputError):
        world.run()
    with pytest.raises(InputError):
        world.publish()
    put_back()
    assert world.publish().unchanged
    assert events(told) == ["failed"]
    world.run(publish=False)
    assert events(told) == ["failed", "recovered"]


def test_who_stops_or_waits_or_says_no_is_no_failure(world: World, told: list[dict[str, Any]]) -> None:
    """A run that another one was in the way of, or whose question a person answered with no."""
    with world.data.run_lock("a test"), pytest.raises(Busy):
        world.run()
    other = world.changed(input={"path": "other.parquet", "key": ["id"]})
    world.list_path.rename(world.job.folder / "other.parquet")
    with pytest.raises(NotConfirmed):
        run(other.job, other.data, Options(), RecordingConsole(answer=False))
    assert told == []
    attempt = read_attempt(world.data)
    assert attempt is not None
    assert attempt.status is AttemptStatus.DECLINED
    with pytest.raises(NotConfirmed):  # where nobody is there to be asked, somebody is needed
        run(other.job, other.data, Options(), RecordingConsole())
    assert events(told) == ["failed"]


def test_ctrl_c_is_no_failure(world: World, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes, and SIGTERM, too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        monkeypatch.setattr(run_module, "read_publishing_needs", lambda *_, number=number: press(number)())
        with pytest.raises(Stopped):
            world.run()
    assert told == []


def test_a_run_that_its_engine_ends_needs_somebody(
    world: World, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is away for longer than a job's patience, for one: nobody asked for that end."""

    def away(*_: object) -> None:
        raise CutShort("The server answered nothing.")

    monkeypatch.setattr(run_module, "read_publishing_needs", away)
    with pytest.raises(Stopped):
        world.run()
    assert events(told) == ["failed"]


def test_a_run_that_stops_since_most_rows_fail_needs_somebody(
    tmp_path: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit code says that it can go on; nobody asked it to stop."""
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    made = model_job(tmp_path, {"id": [1, 2, 3], "text": ["a", "", ""]}, on_errors={"after": 1}, alerts=[HOOK])
    with pytest.raises(Stopped) as stopped:
        run(made.job, made.data, Options(), Quiet(), cast("Engine", object()))
    assert stopped.value.exit_code == ExitCode.STOPPED
    assert events(told) == ["failed"]
    assert "bad" in told[0]["message"]


def test_an_error_that_nobody_foresaw_is_told(
    world: World, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, without a traceback."""

    def breaks(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(run_module, "read_publishing_needs", breaks)
    with pytest.raises(ZeroDivisionError):
        world.run()
    assert told[0]["message"] == "The run failed: an unforeseen ZeroDivisionError: division by zero"


def test_trying_a_job_tells_nobody(world: World, told: list[dict[str, Any]]) -> None:
    """A run of some rows is a person's look at the job: it neither fails it nor makes it fresh."""
    before = (world.data.folder / "last_run.json").read_bytes()
    assert world.run(limit=1).status is RunStatus.DONE
    without_list(world)
    with pytest.raises(InputError):
        world.run(limit=1)
    assert told == []
    assert (world.data.folder / "last_run.json").read_bytes() == before


def test_a_run_that_died_is_told_by_whoever_looks(world: World, told: list[dict[str, Any]]) -> None:
    """A run that is noted as going on, and holds the job no more, died; one that holds it goes on, and elsewhere nobody can know."""
    died = LastAttempt(AttemptStatus.RUNNING, START, rules=read_rules_of(world))
    for attempt in (died, replace(died, host="elsewhere")):
        write_attempt(world.data, attempt)
        with world.data.run_lock("a test"):
            looked(world)
        assert told == []
        if attempt is died:
            looked(world)
            assert events(told) == ["failed"]
            assert told.pop()["message"].startswith("The run failed: The run that began at 2026-01-05T03:00:00Z died")
            world.run()
            assert events(told) == ["recovered"]
            told.clear()
        else:
            looked(world)
    assert told == []


def read_rules_of(world: World) -> Any:
    attempt = read_attempt(world.data)
    assert attempt is not None
    return attempt.rules


def looked(world: World) -> None:
    """A look by another process."""
    desk = AlertDesk(world.data, lambda _: None)
    desk.look()
    desk.deliver()


def test_a_job_file_that_is_wrong_is_told(
    world: World, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` tells it by the rules of the last run, once; one that another run is at, or of a job that never ran, is let be."""
    cli = Cli(monkeypatch, capsys, world.data.root)
    world.run()
    text = world.job.path.read_text()
    world.job.path.write_text(text + "colour: red\n")
    for _ in range(2):
        assert cli("run", world.job.path).code == 2
    [failed] = told
    assert failed["event"] == "failed"
    assert "colour: there is no such field" in failed["message"]
    assert cli("plan", world.job.path).code == cli("run", world.job.path, "--limit", 1).code == 2
    world.job.path.write_text(text)
    assert cli("run", world.job.path).code == 0
    assert events(told) == ["failed", "recovered"]
    with world.data.run_lock("a test"):
        write_attempt(world.data, LastAttempt(AttemptStatus.RUNNING, START, rules=read_rules_of(world)))
        world.job.path.write_text(text + "colour: red\n")
        assert cli("run", world.job.path).code == 2
    assert len(told) == 2
    other = world.job.folder.parent / "other.yaml"
    other.write_text("name: [")
    assert cli("run", other).code == 2
    assert len(told) == 2


def test_a_new_job_that_cannot_begin_is_told_once(
    tmp_path: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs fail before there is a folder: one is made for the notes, and nobody lists the job for that."""
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    made = imports_job(tmp_path, {"id": [1]}, alerts=[HOOK])
    world = replace(made, data=replace(made.data, root=tmp_path / "new"))
    without_list(world)
    for _ in range(3):
        with pytest.raises(InputError):
            world.run()
    assert events(told) == ["failed"]
    assert not world.data.is_known


def test_a_new_job_without_alerts_leaves_nothing(tmp_path: Path) -> None:
    """A run that cannot begin makes no folder."""
    made = imports_job(tmp_path, {"id": [1]})
    world = replace(made, data=replace(made.data, root=tmp_path / "new"))
    without_list(world)
    with pytest.raises(InputError):
        world.run()
    assert not world.data.root.exists()


def test_a_secret_that_is_missing_is_said_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan` and `run` name the variable; the run goes on, and what was not told says why."""
    monkeypatch.delenv("ALERTS_SECRET")
    console = RecordingConsole()
    said = "alerts: http://127.0.0.1:9 cannot be told of anything: the environment has no ALERTS_SECRET"
    plan(world.job, world.data, Options(), console.info)
    assert console.said[0].startswith(said)
    without_list(world)
    with pytest.raises(InputError):
        run(world.job, world.data, Options(), console)
    assert sum(text.startswith(said) for text in console.said) == 2
    assert console.said[-1].startswith(
        "http://127.0.0.1:9 cannot be told of shop by this process: the environment has no ALERTS_SECRET"
    )


@pytest.mark.long
def test_other_alerts_are_news(world: World) -> None:
    """A change of the section reaches a new version, from which those who serve have it, though no answer changed."""
    changed = world.changed(alerts=[HOOK | {"stale_after": "9d"}])
    assert changed.run().version == 2
    with changed.served() as served:
        assert '"stale_after":"777600s"' in served.manifest.spec.sections["alerts"]
    assert changed.run().unchanged
    plain = changed.changed(alerts=None)
    assert plain.run().version == 3
    folder = plain.served().folder
    document = json.loads((folder / "manifest.json").read_bytes())
    del document["spec"]["alerts"]  # as an older program wrote it
    assert Manifest.of(document).spec.has_section("alerts", "[]")


@pytest.mark.long
def test_a_run_is_not_held_up_and_what_it_could_not_tell_arrives_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside receivers that hang, and one that answers 500, the run ends in time; later each event arrives, by one id."""
    monkeypatch.setattr("batchinfer.alerts.desk.ROUND_SECONDS", 2.0)
    with hanging_receiver() as silent, web_receiver(500) as receiver:
        hooks = [HOOK | {"webhook": url} for url in (f"http://{silent}/", f"https://{silent}/", receiver.url)]
        changed = world.changed(alerts=hooks)
        without_list(changed)
        began = time.monotonic()
        with pytest.raises(InputError):
            changed.run()
        assert time.monotonic() - began < 30, "a bound for a busy machine: without one it would hang"
        notes = changed.data.folder / "alerts.json"
        assert len(json.loads(notes.read_bytes())["pending"]) == 3
        monkeypatch.setattr("batchinfer.alerts.desk.ROUND_SECONDS", 60.0)
        for _ in range(3):
            looked_later(changed, notes, receiver.url)
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) == 2, "refused, then taken"
    assert len(set(ids)) == 1


def looked_later(world: World, notes: Path, url: str) -> None:
    """A look by another process, as if some minutes had passed; those who hang are left alone."""
    content = json.loads(notes.read_bytes())
    content["pending"] = [each for each in content["pending"] if each["receiver"]["webhook"] == url]
    for each in content["pending"]:
        each["next_at"] = each["made_at"]
    notes.write_text(json.dumps(content))
    looked(world)


def test_prometheus_reads_how_the_last_run_ended(world: World) -> None:
    """A file of metrics for each job, replaced at each run's end."""
    without = without_list(world)
    with pytest.raises(InputError):
        world.run()
    families = list(text_string_to_metric_families(metrics_file(world.data).read_text()))
    figures = {family.name: family.samples[0].value for family in families}
    assert all(family.samples[0].labels == {"job": "shop"} and family.type == "gauge" for family in families)
    assert (figures["batchinfer_run_success"], figures["batchinfer_run_troubles"]) == (0, 1)
    assert figures["batchinfer_run_last_success_timestamp_seconds"] <= figures["batchinfer_run_ended_timestamp_seconds"]
    without()
    world.run()
    families = list(text_string_to_metric_families(metrics_file(world.data).read_text()))
    figures = {family.name: family.samples[0].value for family in families}
    assert (figures["batchinfer_run_success"], figures["batchinfer_run_rows"], figures["batchinfer_run_version"]) == (
        1,
        4,
        1,
    )
    begun = read_attempt(world.data)
    assert begun is not None
    # as one that was killed leaves it
    write_attempt(world.data, replace(begun, status=AttemptStatus.RUNNING, ended_at=None))
    AlertDesk(world.data, lambda _: None).look()
    later = {
        family.name: family.samples[0].value
        for family in text_string_to_metric_families(metrics_file(world.data).read_text())
    }
    assert (later["batchinfer_run_success"], later["batchinfer_run_troubles"]) == (0, 1)
    assert (later["batchinfer_run_rows"], later["batchinfer_run_stale_after_seconds"]) == (4, 8 * 86400)
    assert [path.name for path in metrics_file(world.data).parent.iterdir()] == ["batchinfer_shop.prom"]
    remove_job(world.data)
    assert not metrics_file(world.data).exists()
