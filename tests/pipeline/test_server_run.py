"""Runs whose engine is a server: `plan`, `run` and what stops them, against a scripted server that stages faults."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.errors import Interrupted, Stopped, StoreError
from batchinfer.job.reader import Job
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.batch_server import BatchServer, serving_batches
from tests.cascades import make_cascade
from tests.openai_server import BUSY, HALF, Fault, ScriptedServer, card, serving
from tests.tiny import Cli, RecordingConsole, make_job, numbered, press, process, stored, until, write_job


@pytest.fixture
def server(tiny: Path) -> Iterator[ScriptedServer]:
    with serving(models=[card(str(tiny))]) as started:
        yield started


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys, tmp_path / "home")


def shop(folder: Path, tiny: Path, server: ScriptedServer, rows: int = 20, **more: Any) -> tuple[Job, JobData]:
    """A job that asks the server. more: of its section engine."""
    engine = {"kind": "openai", "base_url": server.url, **more}
    return make_job(folder / "jobs" / "shop", numbered(rows), tiny, engine=engine)


def written(folder: Path, tiny: Path, url: str, **more: Any) -> None:
    write_job(folder / "jobs" / "shop", numbered(5), tiny, engine={"kind": "openai", "base_url": url, **more})


def test_a_list_is_answered_by_a_server(tmp_path: Path, tiny: Path, server: ScriptedServer, batchinfer: Cli) -> None:
    """As by any engine; what was checked of it is stored with the run, and the next run asks it nothing."""
    written(tmp_path, tiny, server.url)
    report = batchinfer("run", "shop", "--json").json
    assert (report["generated"], report["failed"], report["version"]) == (5, 0, 1)
    assert report["checked"][0] == f"The server at {server.url} lists {tiny}."
    assert report["cost"]["device"] == "server"
    [stored_run] = batchinfer("runs", "shop", "--json").json
    assert stored_run["checked"] == report["checked"]
    asked = len(server.asked), server.probes
    assert batchinfer("run", "shop", "--json").json["unchanged"] is True
    assert (len(server.asked), server.probes) == asked


def test_plan_asks_no_row(tmp_path: Path, tiny: Path, server: ScriptedServer, batchinfer: Cli) -> None:
    """It looks at the server, and only that."""
    written(tmp_path, tiny, server.url)
    assert batchinfer("plan", "shop", "--json").json["to_generate"] == 5
    assert (len(server.asked), server.probes) == (0, 1)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_another_model_fails_in_a_plan_as_in_a_run(
    tmp_path: Path, tiny: Path, server: ScriptedServer, batchinfer: Cli, command: str
) -> None:
    """With the file and the line of the engine."""
    server.models = [card("other/model"), card("third/model")]
    written(tmp_path, tiny, server.url)
    done = batchinfer(command, "shop")
    assert done.code == 2
    assert (
        f"job.yaml: line 11: engine: the server at {server.url} lists other/model, third/model, not {tiny}" in done.err
    )
    assert not server.asked


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_key_that_is_missing_fails_in_a_plan_as_in_a_run(
    tmp_path: Path, tiny: Path, server: ScriptedServer, batchinfer: Cli, command: str
) -> None:
    """Before anything is asked."""
    written(tmp_path, tiny, server.url, api_key_env="BATCHINFER_TEST_KEY")
    done = batchinfer(command, "shop")
    assert done.code == 2
    assert "engine.api_key_env: the environment has no BATCHINFER_TEST_KEY" in done.err


def test_a_server_that_is_away_is_told_by_plan(tmp_path: Path, tiny: Path, batchinfer: Cli) -> None:
    """It is no error: a run would wait for it. What it would ask is planned all the same."""
    written(tmp_path, tiny, "http://127.0.0.1:9/v1")
    done = batchinfer("plan", "shop")
    assert done.code == 0
    assert (
        "http://127.0.0.1:9/v1 cannot be reached: connection refused: a run would wait for it, for up to 6 h."
        in done.err
    )


def test_settings_that_no_server_tells_must_be_trusted(
    tmp_path: Path, tiny: Path, server: ScriptedServer, batchinfer: Cli
) -> None:
    """They are in the key, and a server may have been started with others."""
    model = {"id": str(tiny), "dtype": "float32", "options": {"max_model_len": 400, "block_size": 16}}
    engine = {"kind": "openai", "base_url": server.url}
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, model=model, engine=engine)
    done = batchinfer("plan", "shop")
    assert done.code == 2
    assert "open is model.dtype; model.options.max_model_len, which is 400, and the server lists none" in done.err
    assert "block_size" not in done.err
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, model=model, engine=engine | {"trust_model": True})
    report = batchinfer("run", "shop", "--json").json
    assert report["unshown"][0] == "model.dtype"


def test_a_server_that_refuses_all_stops_the_run_early(tmp_path: Path, tiny: Path, server: ScriptedServer) -> None:
    """on_errors holds: what most rows fail for is said once, in the server's words."""
    server.fault = lambda _number, _content: Fault(400, b'{"error": {"message": "no such field"}}')
    job, data = make_job(
        tmp_path / "shop", numbered(300), tiny, on_errors={"stop_at": 0.5, "after": 20},
        engine={"kind": "openai", "base_url": server.url, "in_flight": 4},
    )  # fmt: skip
    with pytest.raises(Stopped, match=r"Stopped early: all .* rows that are finished failed"):
        run(job, data, Options(), RecordingConsole())
    assert len(server.asked) <= 20 + 4


@pytest.mark.long
def test_a_server_that_sheds_half_of_its_load_is_slow_and_restarts(
    tmp_path: Path, tiny: Path, server: ScriptedServer
) -> None:
    """All at once: the run completes, and each row is there once."""

    def shed(number: int, _content: dict[str, Any]) -> Fault | None:
        if number == 30:
            server.stop()
            server.start()
            return HALF
        return BUSY if number % 2 else Fault(late=0.02)

    server.fault = shed
    job, data = shop(tmp_path, tiny, server, rows=60)
    report = run(job, data, Options(), RecordingConsole())
    assert (report.generated, report.failed, report.version) == (60, 0, 1)
    assert stored(data) == (60, 60)


@pytest.mark.long
def test_two_models_at_one_server(
    tmp_path: Path, tiny: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cascade asks each under its own name there; of both it is stored what was checked."""
    monkeypatch.setattr("batchinfer.pipeline.run.check_models", lambda *_: None)  # the adapter has no weights
    engine = {"kind": "openai", "base_url": server.url}
    job, data = make_cascade(tmp_path / "shop", tiny, engine=engine)
    adapter = tmp_path / "shop" / "adapter"
    server.models = [card(str(tiny)), card("careful", root=str(adapter), parent=str(tiny))]
    report = run(job, data, Options(), RecordingConsole())
    assert (report.generated, report.failed, report.version) == (200, 0, 1)
    assert {asked["model"] for asked in server.asked} == {str(tiny), "careful"}
    assert report.checked is not None
    assert [said.partition(" lists ")[2] for said in report.checked if " lists " in said] == [
        f"{tiny}.",
        f"careful, which is {adapter}.",
    ]


class Watching(RecordingConsole):
    """Presses Ctrl-C as soon as something is said."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self._awaited = said

    def info(self, text: str) -> None:
        super().info(text)
        if self._awaited in text:
            press(signal.SIGINT)()


def test_ctrl_c_ends_the_wait_for_a_server(tmp_path: Path, tiny: Path, server: ScriptedServer) -> None:
    """At once, and not when patience is at its end; what was answered stays, and the next run makes the rest."""
    job, data = shop(tmp_path, tiny, server, in_flight=1)

    def end(number: int, _content: dict[str, Any]) -> Fault | None:
        if number == 5:
            server.stop()
        return HALF if number >= 5 else None

    server.fault = end
    with pytest.raises(Interrupted):
        run(job, data, Options(), Watching("Trying again"))
    assert stored(data) == (5, 5)
    assert Store(data.cache).runs()[0].report["checked"][0].endswith(f"lists {tiny}.")
    server.fault = lambda _number, _content: None
    server.start()
    report = run(job, data, Options(), RecordingConsole())
    assert (report.cached, report.generated, report.version) == (5, 15, 1)


@pytest.mark.long
def test_ctrl_c_while_a_server_keeps_its_answers(tmp_path: Path, tiny: Path, server: ScriptedServer) -> None:
    """The second Ctrl-C ends the program at once, whatever replies its threads wait for: exit code 130, no traceback."""
    server.fault = lambda number, _content: Fault(late=300.0) if number >= 4 else None
    written(tmp_path, tiny, server.url)
    log, command = (
        tmp_path / "log",
        ["-m", "tests.tiny", "--home", str(tmp_path / "home"), "run", str(tmp_path / "jobs" / "shop")],
    )
    with process(*command, temporary=tmp_path, log=log) as started:
        until(lambda: len(server.asked) == 5)
        os.killpg(started.pid, signal.SIGINT)
        until(lambda: "Ctrl-C: finishing what is in flight" in log.read_text(encoding="utf-8"))
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(timeout=60) == 130, log.read_text(encoding="utf-8")
    assert "Traceback" not in log.read_text(encoding="utf-8")
    assert stored(JobData(tmp_path / "home", "shop")) == (4, 4)


def test_the_first_run_waits_for_a_server_that_is_started_later(
    tmp_path: Path, tiny: Path, server: ScriptedServer
) -> None:
    """It begins as soon as it is there."""
    job, data = shop(tmp_path, tiny, server)
    server.stop()

    class Starting(RecordingConsole):
        def info(self, text: str) -> None:
            super().info(text)
            if "Trying again" in text:
                server.start()

    console = Starting()
    assert run(job, data, Options(), console).version == 1
    assert any("answers again" in said for said in console.said)


@pytest.fixture
def batches(tiny: Path) -> Iterator[BatchServer]:
    with serving_batches(models=[card(str(tiny), vllm=False)], looks=1) as started:
        yield started


def batch_section(server: ScriptedServer) -> dict[str, Any]:
    return {"kind": "openai_batch", "base_url": server.url, "trust_model": True, "part": 8, "poll": "1s"}


def test_a_batch_is_had_after_the_run_was_stopped(tmp_path: Path, tiny: Path, batches: BatchServer) -> None:
    """Ctrl-C ends the wait at once; the next run takes what was paid, and hands over the rest."""
    job, data = make_job(tmp_path / "shop", numbered(20), tiny, engine=batch_section(batches))
    with pytest.raises(Interrupted):
        run(job, data, Options(), Watching("Handed 8 rows over"))
    assert list((data.folder / "batches").iterdir())
    report = run(job, data, Options(), RecordingConsole())
    assert (report.generated, report.failed, report.version) == (20, 0, 1)
    assert sorted(batches.rows()) == sorted(set(batches.rows()))
    assert len(batches.rows()) == 20
    assert not list((data.folder / "batches").iterdir())
    assert report.to_json()["cost"]["device_seconds"] == 0


def test_answers_of_a_batch_that_could_not_be_committed_are_had_again(
    tmp_path: Path, tiny: Path, batches: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is full: they were paid, and the next run takes them from the same batches."""
    job, data = make_job(tmp_path / "shop", numbered(20), tiny, engine=batch_section(batches))

    def full(*_: object, **__: object) -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr("batchinfer.cache.store.Store.commit", full)
        with pytest.raises(StoreError, match="The disk is full"):
            run(job, data, Options(), RecordingConsole())
    report = run(job, data, Options(), RecordingConsole())
    assert (report.generated, len(batches.rows())) == (20, 20)
    assert not list((data.folder / "batches").iterdir())


def test_try_waits_for_no_batch(tmp_path: Path, tiny: Path, batches: BatchServer, batchinfer: Cli) -> None:
    """The same server is asked at once; a probe would not tell how long a batch takes, so none is made."""
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, engine=batch_section(batches))
    tried = batchinfer("try", "shop", "text=one", "--json").json
    assert tried["result"]["value"] == "one"
    assert (len(batches.asked), len(batches.batches)) == (1, 0)
    assert batchinfer("plan", "shop", "--probe", "--json").json["error"]["code"] == "usage_error"
    assert (len(batches.asked), len(batches.batches)) == (1, 0)


def test_plan_says_that_there_is_no_batch_api(
    tmp_path: Path, tiny: Path, server: ScriptedServer, batchinfer: Cli
) -> None:
    """As a run would."""
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, engine=batch_section(server))
    done = batchinfer("plan", "shop")
    assert done.code == 2
    assert f"engine.kind: the server at {server.url} has no batch API" in done.err


class TestAModelThatOnlyItsServerHas:
    """`server/NAME`: no files, no tokenizer, and nothing to show that it is the same next week."""

    @pytest.fixture
    def server(self) -> Iterator[ScriptedServer]:
        with serving(models=[card("large-2026-01-31", vllm=False)]) as started:
            yield started

    def write(self, folder: Path, server: ScriptedServer, **more: Any) -> None:
        engine = {"kind": "openai", "base_url": server.url, "trust_model": True}
        sections: dict[str, Any] = {
            "model": {"id": "server/large-2026-01-31"},
            "prompt": {"template": "{{ text }}"},
            "engine": engine,
        }
        write_job(folder / "jobs" / "shop", numbered(5), **(sections | more))

    def test_it_is_asked_in_turns(self, tmp_path: Path, server: ScriptedServer, batchinfer: Cli) -> None:
        """By its name there; tokens are guessed before the run, and counted by the server in it."""
        self.write(tmp_path, server)
        planned = batchinfer("plan", "shop", "--json").json
        assert (planned["to_generate"], planned["prompt_tokens_exact"]) == (5, False)
        report = batchinfer("run", "shop", "--json").json
        assert (report["generated"], report["model"]) == (5, "server/large-2026-01-31")
        assert report["cost"]["prompt_tokens"] == 5 * 9
        assert {asked["model"] for asked in server.asked} == {"large-2026-01-31"}
        assert "what stands behind that name" in report["unshown"][0]
        assert batchinfer("lookup", "shop", "text=query 0003", "--json").json["prediction"] == "query 0003"

    def test_its_choices_are_scored(self, tmp_path: Path, server: ScriptedServer, batchinfer: Cli) -> None:
        """By the tokens that they may begin with, as the server spells them; one without any is a failure."""
        self.write(tmp_path, server, output={"type": "choice", "choices": ["Positive", "Negative"]})
        assert batchinfer("run", "shop", "--json").json["generated"] == 5
        found = batchinfer("lookup", "shop", "text=query 0003", "--json").json
        assert (found["prediction"], round(found["score"], 2)) == ("Positive", 0.73)
        self.write(
            tmp_path,
            server,
            output={"type": "choice", "choices": ["Positive", "Neutral", "Negative"]},
            on_errors="continue",
        )
        assert batchinfer("run", "shop", "--no-publish", "--yes", "--json").json["failed"] == 5

    def test_it_must_be_trusted_and_have_a_server(
        self, tmp_path: Path, server: ScriptedServer, batchinfer: Cli
    ) -> None:
        """Each is a sentence with its line."""
        self.write(tmp_path, server, engine={"kind": "openai", "base_url": server.url})
        assert "open is what stands behind that name" in batchinfer("plan", "shop").err
        self.write(tmp_path, server, engine=None)
        done = batchinfer("plan", "shop")
        assert done.code == 2
        assert "model.id: server/large-2026-01-31 is a model that only its server has: set engine.kind" in done.err
