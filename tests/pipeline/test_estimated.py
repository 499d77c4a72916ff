"""How long a run was to take, and how long it took, on a machine whose time a test makes pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache import chunks
from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.protocol import Task
from batchinfer.errors import UsageError
from batchinfer.job.reader import Job
from batchinfer.pipeline import generate
from batchinfer.pipeline.plan import PROBED, plan, probe
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.factories import LENIENT, Quiet, imports_job
from tests.in_process import Clocked
from tests.tiny import Cli, make_job, model_folder

KINDS = {"brief": 3, "short": 3, "long": 60}  # tokens of an answer
PROMPT, OUTPUT = 0.001, 0.05  # seconds for a token
ROOM = {"max_num_seqs": 1}  # prompts that the engine below works on at a time
TEMPLATE = {"template": "{{ kind }}: {{ text }}", "format": "completion"}


class TimedEngine(Clocked):
    """Answers at once, and lets the time pass that computing would have taken: so much for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        for prompt in prompts:
            text = prompt.messages[-1][1]
            self.asked.append(text)
            output = KINDS[text.partition(":")[0]] + sum(text.encode()) % 2
            self.now += PROMPT * len(prompt.token_ids) + OUTPUT * output
            yield Generation(prompt.prompt_key, "fine", "stop", len(prompt.token_ids), 0, output)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TimedEngine:
    timed = TimedEngine()
    monkeypatch.setattr(generate, "time", timed)
    monkeypatch.setattr(generate, "CHUNK", 32)
    monkeypatch.setattr(chunks, "STRETCH", 32)  # this engine begins a prompt when the one before is done
    return timed


def shop(folder: Path, tiny: Path, **counts: int) -> tuple[Job, JobData]:
    """So many rows of each kind; of more rows, those of fewer are some."""
    rows = [(kind, f"row {number:04d}" * (1 + number % 5)) for kind, count in counts.items() for number in range(count)]
    columns = {"kind": [kind for kind, _ in rows], "text": [text for _, text in rows]}
    return make_job(
        folder / "shop",
        columns,
        tiny,
        script=ROOM,
        prompt=TEMPLATE,
        gate=LENIENT,
        input={"path": "queries.parquet", "key": ["kind", "text"]},
    )


def took(report: Any) -> float:
    assert report.generation_seconds is not None
    return float(report.generation_seconds)


@pytest.mark.long
def test_the_second_run_is_foretold(tmp_path: Path, tiny: Path, engine: TimedEngine) -> None:
    """Within a tenth, although its rows are of another mix: long answers are told from short ones by their group."""
    run(*shop(tmp_path, tiny, short=160, long=40), Options(), Quiet(), engine)
    job, data = shop(tmp_path, tiny, short=170, long=240)
    foretold = plan(job, data, Options())
    report = run(job, data, Options(), Quiet(), engine)
    assert foretold.estimate is not None
    assert report.estimate is not None
    assert foretold.estimate.seconds == pytest.approx(took(report), rel=0.1)
    assert report.estimate.seconds == pytest.approx(foretold.estimate.seconds, rel=0.02)
    assert foretold.estimate.low is not None
    assert foretold.estimate.high is not None
    assert foretold.estimate.low < foretold.estimate.seconds < foretold.estimate.high
    assert plan(job, data, Options()).estimate is None  # nothing is left to ask


def test_a_limit_is_foretold_as_such(tmp_path: Path, tiny: Path, engine: TimedEngine) -> None:
    """A run of a part takes that part's time."""
    job, data = shop(tmp_path, tiny, short=300)
    run(job, data, Options(limit=100), Quiet(), engine)
    report = run(job, data, Options(limit=50), Quiet(), engine)
    assert report.estimate is not None
    assert report.estimate.seconds == pytest.approx(took(report), rel=0.2)


def test_another_prompt_has_answers_as_long_as_the_ones_before(tmp_path: Path, tiny: Path, engine: TimedEngine) -> None:
    """Where no answer to this question is known, those of this model tell how long they are."""
    job, data = shop(tmp_path, tiny, short=100)
    run(job, data, Options(), Quiet(), engine)
    changed, _ = make_job(
        tmp_path / "shop", {"kind": ["short"] * 50, "text": [f"new {number:04d}" * (1 + number % 5) for number in range(50)]}, tiny,
        script=ROOM, prompt=TEMPLATE | {"template": "{{ kind }}: {{ text }}!"}, gate=LENIENT,
        input={"path": "queries.parquet", "key": ["kind", "text"]},
    )  # fmt: skip
    foretold = plan(changed, data, Options())
    report = run(changed, data, Options(yes=True), Quiet(), engine)
    assert foretold.estimate is not None
    assert foretold.estimate.seconds == pytest.approx(took(report), rel=0.2)


@pytest.mark.long
def test_a_probe_asks_all_over_the_list_and_nothing_twice(tmp_path: Path, tiny: Path, engine: TimedEngine) -> None:
    """Before the first run nobody knows the time; after a probe the plan does, and the run asks the rest."""
    job, data = shop(tmp_path, tiny, short=200, long=120)
    assert plan(job, data, Options()).estimate is None
    probed = probe(job, data, Options(), Quiet(), engine)
    assert probed is not None
    assert (probed.generated, probed.version, probed.estimate, probed.purpose) == (PROBED, None, None, "probe")
    assert {text.partition(":")[0] for text in engine.asked} == {"short", "long"}
    foretold = plan(job, data, Options())
    report = run(job, data, Options(), Quiet(), engine)
    assert foretold.estimate is not None
    assert foretold.estimate.seconds == pytest.approx(took(report), rel=0.2)
    assert (report.cached, report.generated) == (PROBED, 320 - PROBED)
    assert len(engine.asked) == len(set(engine.asked)) == 320


def test_a_probe_of_a_short_list_asks_all(tmp_path: Path, tiny: Path, engine: TimedEngine) -> None:
    """It has no more prompts; then there is nothing to foretell."""
    job, data = shop(tmp_path, tiny, short=10)
    probed = probe(job, data, Options(), Quiet(), engine)
    assert probed is not None
    assert probed.generated == 10
    assert probe(job, data, Options(), Quiet()) is None
    assert Store(data.cache).last_run_id() == 1
    assert plan(job, data, Options()).estimate_seconds == 0.0


def test_a_job_without_a_model_has_nothing_to_probe(tmp_path: Path) -> None:
    """It lives by imports."""
    world = imports_job(tmp_path, {"id": [1]})
    with pytest.raises(UsageError, match="asks no model"):
        probe(world.job, world.data, Options(), Quiet())


def test_what_no_probe_tells(tmp_path: Path, tiny: Path) -> None:
    """Two models, since only one would be asked; and a batch, which takes as long as the server likes."""
    large = model_folder(tmp_path / "large")
    (large / "weights").write_text("others", encoding="utf-8")
    cascade = {"model": {"id": str(tiny), "cascade": {"large": {"id": str(large)}}}}
    choices = {"output": {"type": "choice", "choices": ["a", "b"]}}
    two = make_job(tmp_path / "two", {"text": ["a"]}, tiny, **cascade, **choices)
    batch = make_job(
        tmp_path / "batch", {"text": ["a"]}, tiny, engine={"kind": "openai_batch", "base_url": "http://127.0.0.1:1/v1"}
    )
    for job, said in ((two, "asks two models"), (batch, "as a batch")):
        with pytest.raises(UsageError, match=said):
            probe(*job, Options(), Quiet())


def test_a_data_folder_of_before_has_an_estimate(tmp_path: Path, tiny: Path, engine: TimedEngine) -> None:
    """Its runs say their rates, though nothing of chunks."""
    job, data = shop(tmp_path, tiny, short=100)
    run(job, data, Options(limit=50), Quiet(), engine)
    with Store(data.cache).open(write=True) as db:
        db.execute("DROP TABLE chunks")
        db.execute("DELETE FROM migrations WHERE name = 'how long chunks took'")
    foretold = plan(job, data, Options())
    assert foretold.estimate is not None
    assert (foretold.estimate.low, foretold.estimate.chunks) == (None, 0)
    assert foretold.estimate_seconds == foretold.estimate.seconds > 0


@pytest.mark.long
def test_plan_and_runs_say_it(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan --probe` says the time, and `runs` how long a run took beside how long it was to take."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    script = {"answer": "echo", "per_step": 8}
    make_job(
        tmp_path / "shop", {"text": [f"text {number}" for number in range(100)]}, tiny, script=script, gate=LENIENT
    )
    place = str(tmp_path / "shop")
    assert "unknown: --probe" in batchinfer("plan", place).out
    told = batchinfer("plan", place, "--probe", "--json").json
    assert (told["cached"], told["to_generate"]) == (PROBED, 100 - PROBED)
    assert told["estimate"]["seconds"] == told["estimate_seconds"]
    assert "in 95 of 100 such runs" in batchinfer("plan", place).out
    assert "as it was estimated" in batchinfer("run", place).out
    newest, first = batchinfer("runs", place, "--json").json
    assert newest["estimate"]["chunks"] == 1
    assert "estimate" not in first
    assert "estimated" in batchinfer("runs", place).out


@pytest.mark.long
def test_what_took_long_is_asked_first(tmp_path: Path, engine: TimedEngine) -> None:
    """So that no long answer is left alone at the end; what begins alike stays together."""
    tiny = model_folder(tmp_path / "model")
    orders = []
    for count in (40, 80):
        engine.asked.clear()
        job, data = shop(tmp_path, tiny, brief=count, long=count)
        run(job, data, Options(yes=True), Quiet(), engine)
        orders.append(engine.asked.copy())
    by_columns = sorted(orders[0])
    assert orders[0] == by_columns
    assert [text[:5] for text in orders[1]] == ["long:"] * 40 + ["brief"] * 40
    assert orders[1] == [*sorted(orders[1][:40]), *sorted(orders[1][40:])]
