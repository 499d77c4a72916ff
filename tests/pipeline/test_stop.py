"""How a run ends before its end: Ctrl-C, SIGTERM, --max-hours, a kill; and how the next one goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.engines.pool import EnginePool
from batchinfer.errors import Interrupted, Stopped
from batchinfer.job.reader import Job
from batchinfer.pipeline.run import run
from batchinfer.pipeline.stop import Stop, StopNow, stopping
from batchinfer.planning.prepare import Options, Prepared
from batchinfer.versions.pointers import pointer
from tests.scripted import read_diary
from tests.tiny import (
    RecordingConsole,
    adds_up,
    alive,
    make_job,
    numbered,
    press,
    process,
    scripted,
    stored,
    until,
    write_job,
)

ROWS = 1000


def handlers() -> list[object]:
    """What Ctrl-C and SIGTERM do now."""
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_nothing_is_requested_at_first() -> None:
    """A run goes on as long as nobody asks it to end."""
    with stopping(None, print) as stop:
        assert not stop.requested()
        assert stop.reason is None


@pytest.mark.parametrize(("number", "kind", "code"), [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Stopped, 4)])
def test_a_signal_while_nothing_is_in_flight(number: signal.Signals, kind: type[Stopped], code: int) -> None:
    """Before and after the model is asked, a signal ends the run at once, with its exit code."""
    before = handlers()
    with pytest.raises(kind, match="to go on") as stopped, stopping(None, print):
        press(number)()
    assert type(stopped.value) is kind
    assert stopped.value.exit_code == code
    assert handlers() == before


def test_the_first_signal_asks_and_the_second_insists() -> None:
    """While answers are in flight the first Ctrl-C is a request, which is said; the next one raises."""
    said: list[str] = []
    with pytest.raises(Interrupted), stopping(None, said.append) as stop:  # noqa: PT012
        stop.graceful = True
        press(signal.SIGINT)()
        assert stop.requested()
        assert said == ["Ctrl-C: finishing what is in flight, for up to 30 s; once more stops at once."]
        with contextlib.suppress(Exception):  # nobody's broad handler on the way keeps it
            press(signal.SIGINT)()


def test_a_deadline_is_a_request() -> None:
    """When --max-hours have passed no new prompt is started, and that is said once."""
    said: list[str] = []
    stop = Stop(1e-12, said.append)
    assert stop.requested()
    assert stop.requested()
    assert len(said) == 1
    assert isinstance(stop.reason, Stopped)
    assert not Stop(1000.0, said.append).requested()


def test_a_bound_that_the_last_answers_passed_ends_nothing() -> None:
    """The run is done then. Whoever asks for the end by a signal gets it, whether anything was left or not."""
    bound = Stop(1e-12, lambda _: None)
    bound.requested()
    bound.check_end(is_done=True)
    with pytest.raises(Stopped):
        bound.check_end(is_done=False)
    signalled = Stop(None, lambda _: None)
    signalled.check_end(is_done=False)
    signalled.request(Interrupted("Stopped by Ctrl-C."), "")
    with pytest.raises(Interrupted):
        signalled.check_end(is_done=True)


@pytest.fixture
def shop(tmp_path: Path, tiny: Path) -> tuple[Job, JobData]:
    """A job of a thousand rows."""
    return make_job(tmp_path / "shop", numbered(ROWS), tiny)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[EnginePool]:
    """An engine that answers everything."""
    with scripted(tmp_path / "engine.log", answer="echo", per_step=4, in_flight=40) as started:
        yield started


def last_run(data: JobData) -> dict[str, Any]:
    """What the cache says of the newest run."""
    return Store(data.cache).runs()[0].to_json()


@pytest.mark.parametrize(
    ("number", "kind", "status"), [(signal.SIGINT, Interrupted, "interrupted"), (signal.SIGTERM, Stopped, "stopped")]
)
@pytest.mark.long
def test_a_signal_finishes_what_is_in_flight(
    shop: tuple[Job, JobData], pool: EnginePool, number: signal.Signals, kind: type[Stopped], status: str
) -> None:
    """The first Ctrl-C or SIGTERM commits what was in flight and publishes nothing; the next run makes just the rest."""
    job, data = shop
    audience = RecordingConsole(at={300: press(number)})
    with pytest.raises(kind) as stopped:
        run(job, data, Options(), audience, pool)
    assert type(stopped.value) is kind
    assert "Run the same command again" in str(stopped.value)
    report = last_run(data)
    count, distinct = stored(data)
    assert 300 < count == distinct == report["generated"] <= 340
    assert (report["status"], report["left"], report["version"]) == (status, ROWS - count, None)
    assert adds_up(report)
    assert pointer(data) is None

    rest = run(job, data, Options(), RecordingConsole(), pool)
    assert (rest.cached, rest.generated, rest.version) == (count, ROWS - count, 1)
    assert stored(data) == (ROWS, ROWS)


@pytest.mark.long
def test_a_second_ctrl_c_stops_at_once(shop: tuple[Job, JobData], pool: EnginePool) -> None:
    """A second Ctrl-C drops what is in flight; what was finished stays, and the report counts just that."""
    job, data = shop
    audience = RecordingConsole(at={600: press(signal.SIGINT), 602: press(signal.SIGINT)})
    with pytest.raises(Interrupted):
        run(job, data, Options(), audience, pool)
    report = last_run(data)
    count, distinct = stored(data)
    assert 602 <= count == distinct < ROWS
    assert (report["status"], report["generated"], report["left"]) == ("interrupted", count, ROWS - count)
    assert adds_up(report)

    assert run(job, data, Options(), RecordingConsole(), pool).cached == count
    assert stored(data) == (ROWS, ROWS)


@pytest.mark.long
def test_the_time_that_a_run_may_take(shop: tuple[Job, JobData], tmp_path: Path) -> None:
    """--max-hours ends a run as SIGTERM does: in flight is finished, the rest is left for the next."""
    job, data = shop
    with scripted(tmp_path / "engine.log", answer="echo", slow=0.05, in_flight=40) as pool:
        with pytest.raises(Stopped, match="reached --max-hours") as stopped:
            run(job, data, Options(max_hours=2 / 3600), RecordingConsole(), pool)
        assert stopped.value.exit_code == 4
    report = last_run(data)
    count, _ = stored(data)
    assert count == report["generated"] < ROWS
    assert adds_up(report)
    with scripted(tmp_path / "engine.log", answer="echo", per_step=8) as pool:
        assert run(job, data, Options(max_hours=1.0), RecordingConsole(), pool).cached == count


@pytest.mark.long
def test_handlers_are_put_back(shop: tuple[Job, JobData], pool: EnginePool) -> None:
    """After a run, whole or not, Ctrl-C does what it did before."""
    before = handlers()
    with pytest.raises(Interrupted):
        run(*shop, Options(), RecordingConsole(at={100: press(signal.SIGINT)}), pool)
    run(*shop, Options(), RecordingConsole(), pool)
    assert handlers() == before


def arguments(folder: Path, data: Path) -> list[str]:
    """What starts `batchinfer run` with the scripted engine."""
    return ["-m", "tests.tiny", "--home", str(data), "run", str(folder)]


def answered(diary: Path) -> int:
    """How many prompts the engine has answered."""
    return sum(entry[0] == "answer" for entry in read_diary(diary))


@pytest.mark.long
def test_a_killed_run_is_resumed(tmp_path: Path, tiny: Path) -> None:
    """After kill -9 the next run goes on: what was committed is not made again, and nothing is there twice."""
    diary = tmp_path / "diary"
    script = {"answer": "echo", "slow": 0.01, "per_step": 8, "in_flight": 64, "diary": str(diary)}
    folder = write_job(tmp_path / "shop", numbered(ROWS), tiny, script=script)
    data = JobData(tmp_path / "home", "shop")
    log = tmp_path / "log"
    with process(*arguments(folder, data.root), temporary=tmp_path, log=log) as first:
        until(lambda: answered(diary) > 400)
        first.kill()
        first.wait()
    count, distinct = stored(data)
    assert count == distinct >= 256
    assert last_run(data)["status"] == "running"  # it could not say otherwise

    made = answered(diary)
    with process(*arguments(folder, data.root), temporary=tmp_path, log=log) as second:
        assert second.wait() == 0, log.read_text(encoding="utf-8")
    report = last_run(data)
    assert (report["hits"], report["generated"], report["version"]) == (count, ROWS - count, 1)
    assert stored(data) == (ROWS, ROWS)
    assert answered(diary) - made == ROWS - count
    assert [entry.status for entry in Store(data.cache).runs()] == ["done", "killed"]


@pytest.mark.long
def test_ctrl_c_on_a_terminal(tmp_path: Path, tiny: Path) -> None:
    """Ctrl-C reaches the command and not its engine: exit code 130, one sentence, no traceback, all in flight committed."""
    diary = tmp_path / "diary"
    script = {"answer": "echo", "slow": 0.05, "in_flight": 40, "diary": str(diary)}
    folder = write_job(tmp_path / "shop", numbered(ROWS), tiny, script=script)
    data, log = JobData(tmp_path / "home", "shop"), tmp_path / "log"
    with process(*arguments(folder, data.root), temporary=tmp_path, log=log) as started:
        until(lambda: answered(diary) > 10)
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait() == 130, log.read_text(encoding="utf-8")
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "Ctrl-C: finishing what is in flight" in said
    assert said.splitlines()[-1].startswith("batchinfer: Stopped by Ctrl-C. Run the same command again")
    taken = sum(entry[0] == "take" for entry in read_diary(diary))
    assert stored(data) == (taken, taken)


@pytest.mark.long
def test_ctrl_c_while_the_model_loads(tmp_path: Path, tiny: Path) -> None:
    """Ctrl-C before the first answer ends the command at once, in the same way."""
    folder = write_job(
        tmp_path / "shop", numbered(3), tiny, script={"loads": ["hang"], "diary": str(tmp_path / "diary")}
    )
    log = tmp_path / "log"
    with process(*arguments(folder, tmp_path / "home"), temporary=tmp_path, log=log) as started:
        until((tmp_path / "diary").exists)
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait() == 130, log.read_text(encoding="utf-8")
    assert "Traceback" not in log.read_text(encoding="utf-8")
    assert "Stopped by Ctrl-C" in log.read_text(encoding="utf-8")


def test_a_signal_while_the_engine_is_slow(shop: tuple[Job, JobData], tmp_path: Path) -> None:
    """A signal that arrives while the run waits for its engine is heeded: no new prompt is begun."""
    job, data = shop
    timer = threading.Timer(0.3, press(signal.SIGINT))
    with (
        scripted(tmp_path / "log", answer="echo", slow=0.5, in_flight=2) as pool,
        pytest.raises(Interrupted),
    ):
        run(job, data, Options(), RecordingConsole(at={1: timer.start}), pool)
    timer.join()
    assert 1 < stored(data)[0] <= 4


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped")])
def test_a_signal_while_duckdb_works(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: str
) -> None:
    """A signal that comes in the midst of a query ends the run as any other does, and the record says so."""
    job, data = make_job(tmp_path / "shop", {"text": ["a"]}, tiny)

    def pressed(_prepared: Prepared, *_arguments: Any) -> None:
        with contextlib.suppress(StopNow):
            press(number)()
        raise RuntimeError("Query interrupted")  # as DuckDB does, which loses what the handler raises

    monkeypatch.setattr("batchinfer.pipeline.run.publish_prepared", pressed)
    with scripted(tmp_path / "log", answer="echo") as pool, pytest.raises(Stopped, match="to go on") as stopped:
        run(job, data, Options(), RecordingConsole(), pool)
    assert isinstance(stopped.value, Interrupted) == (number is signal.SIGINT)
    assert stopped.value.report is not None
    assert stopped.value.report.to_json()["status"] == last_run(data)["status"] == status


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 4)])
@pytest.mark.long
def test_a_signal_while_the_engine_is_frozen(tmp_path: Path, tiny: Path, number: signal.Signals, code: int) -> None:
    """It is said though the engine gives no sign, and the run ends when the time is up, with what was answered before."""
    diary = tmp_path / "diary"
    script = {"answer": "echo", "slow": 0.05, "per_step": 4, "in_flight": 40, "diary": str(diary)}
    folder = write_job(tmp_path / "shop", numbered(ROWS), tiny, script=script)
    data, log = JobData(tmp_path / "home", "shop"), tmp_path / "log"
    command = [*arguments(folder, data.root), "--stop-seconds", "2.5"]
    with process(*command, temporary=tmp_path, log=log) as started:
        until(lambda: answered(diary) > 10)
        [engine] = engines_of(started.pid)
        os.kill(engine, signal.SIGSTOP)
        os.kill(started.pid, number)
        until(lambda: "finishing what is in flight, for up to 2.5 s" in log.read_text(encoding="utf-8"))
        assert started.poll() is None
        assert started.wait() == code, log.read_text(encoding="utf-8")
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "What was in flight did not finish within 2.5 s of " in said.splitlines()[-1]
    assert not alive(engine)
    count, distinct = stored(data)
    assert 10 <= count == distinct <= answered(diary)
    assert last_run(data)["status"] == ("interrupted" if code == 130 else "stopped")


def engines_of(pid: int) -> list[int]:
    """The ids of a run's engine processes."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in found if b"batchinfer.engines.child" in Path(f"/proc/{child}/cmdline").read_bytes()]
