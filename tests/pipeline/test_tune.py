"""Which engine options are the fastest, on a machine whose time a test makes pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines import vllm_source
from batchinfer.engines.protocol import Task
from batchinfer.errors import Interrupted, ModelError, UsageError
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline import generate
from batchinfer.pipeline.report import RunReport
from batchinfer.pipeline.run import run
from batchinfer.pipeline.tune import TuneReport, tune, variants_for, with_best
from batchinfer.pipeline.variants import usual_variants, wanted_variants
from batchinfer.planning.prepare import Options
from tests.factories import LENIENT, Quiet, imports_job
from tests.in_process import Clocked
from tests.tiny import Cli, make_job, numbered, stored

ROWS = 8
Speed = Callable[[Mapping[str, Any]], float]


class PacedEngine(Clocked):
    """Answers at once, and lets the time pass that so many rows per second take."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        for prompt in prompts:
            self.now += 1 / self._rate
            yield Generation(prompt.prompt_key, "fine", "stop", len(prompt.token_ids), 0, 2)


def options_of(job: Job) -> Mapping[str, Any]:
    assert job.spec.model is not None
    return job.spec.model.options


class Machine:
    """Runs parts of a job at a rate that its engine options make. tried: the options of each run, and how many rows it asked."""

    def __init__(self, data: JobData, rate: Speed, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[tuple[dict[str, Any], int]] = []
        self._data, self._rate, self._monkeypatch = data, rate, monkeypatch

    def __call__(self, job: Job, rows: int) -> RunReport:
        self.tried.append((dict(options_of(job)), rows))
        engine = PacedEngine(self._rate(options_of(job)))
        self._monkeypatch.setattr(generate, "time", engine)
        return run(job, self._data, Options(limit=rows, spread=True), Quiet(), engine)


@pytest.fixture
def shop(tmp_path: Path, tiny: Path) -> tuple[Job, JobData]:
    return make_job(tmp_path / "shop", numbered(600), tiny, script={"max_model_len": 500}, gate=LENIENT)


def tuned(
    shop: tuple[Job, JobData], rate: Speed, monkeypatch: pytest.MonkeyPatch, *tries: dict[str, Any]
) -> tuple[TuneReport, Machine]:
    machine = Machine(shop[1], rate, monkeypatch)
    return tune(*shop, tries, ROWS, Quiet(), machine), machine


def paced(factors: Mapping[tuple[str, Any], float], noise: float, seed: int = 1) -> Speed:
    """Ten rows a second, times a factor for each option that is set so; each run is off by chance."""
    drawn = random.Random(seed)

    def rate(options: Mapping[str, Any]) -> float:
        found = 10.0 * drawn.uniform(1 - noise, 1 + noise)
        for option in options.items():
            found *= factors.get(option, 1.0)
        return found

    return rate


SEQS = [{"max_num_seqs": number} for number in (32, 64, 256)]
BLOCK = {"block_size": 64}


@pytest.mark.long
def test_the_fastest_is_found_and_nothing_asked_twice(
    shop: tuple[Job, JobData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two options that help are put together; each answer is in the cache, once."""
    factors = {("max_num_seqs", 256): 1.4, ("block_size", 64): 1.2, ("max_num_seqs", 32): 0.5}
    report, machine = tuned(shop, paced(factors, 0.03), monkeypatch, *SEQS, BLOCK)
    assert report.best == {"max_num_seqs": 256, "block_size": 64}
    [best] = [each for each in report.tried if each.options == report.best]
    assert best.gain == pytest.approx(0.68, abs=0.1)
    assert best.gain is not None
    assert report.tried[0] == best
    assert best.spread is not None
    assert best.gain > best.spread
    asked = sum(rows for _, rows in machine.tried)
    assert stored(shop[1]) == (asked, asked)
    assert (report.generated, report.remaining) == (asked, 600 - asked)
    slow = next(each for each in report.tried if each.options == {"max_num_seqs": 32})
    assert slow.rows == ROWS  # it was left out after the first round
    assert all(options["max_model_len"] == 500 for options, _ in machine.tried)


@pytest.mark.long
def test_chance_is_no_gain(shop: tuple[Job, JobData], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rounds differ by more than the options do, the job's own stay."""
    report, _ = tuned(shop, paced({}, 0.2, seed=3), monkeypatch, *SEQS)
    assert report.best == {}
    assert {each.rows_per_second is not None for each in report.tried} == {True}


@pytest.mark.long
def test_what_is_not_loaded_is_left_out(shop: tuple[Job, JobData], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason; the job's own options must load."""
    pace = paced({("max_num_seqs", 256): 2.0}, 0.0)

    def rate(options: Mapping[str, Any]) -> float:
        if "block_size" in options:
            raise ModelError("There is no room for such blocks.")
        return pace(options)

    report, machine = tuned(shop, rate, monkeypatch, {"max_num_seqs": 256}, BLOCK)
    assert report.best == {"max_num_seqs": 256}
    assert report.tried[-1].to_json() == {
        "options": BLOCK, "rows": 0, "rows_per_second": None, "gain": None, "spread": None,
        "problem": "There is no room for such blocks.",
    }  # fmt: skip
    assert sum("block_size" in options for options, _ in machine.tried) == 1
    with pytest.raises(ModelError, match="nothing loads"):
        tuned(shop, _refusing("nothing loads"), monkeypatch, BLOCK)


def _refusing(said: str) -> Speed:
    def rate(options: Mapping[str, Any]) -> float:
        raise ModelError(said)

    return rate


@pytest.mark.long
def test_a_stop_ends_it(shop: tuple[Job, JobData], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through every trial; what was answered before is kept."""
    pace, count = paced({}, 0.0), iter(range(99))

    def rate(options: Mapping[str, Any]) -> float:
        if next(count) == 2:
            raise Interrupted("Stopped by Ctrl-C.")
        return pace(options)

    with pytest.raises(Interrupted):
        tuned(shop, rate, monkeypatch, *SEQS)
    assert stored(shop[1]) == (2 * ROWS, 2 * ROWS)


@pytest.mark.long
def test_a_short_list_is_used_up_or_refused(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials shrink with what is left, and end when too little is; with less than eight prompts each nothing begins."""
    short = make_job(tmp_path / "short", numbered(38), tiny, gate=LENIENT)
    report, machine = tuned(short, paced({}, 0.1), monkeypatch, *SEQS)
    assert report.remaining >= 0
    assert [rows for _, rows in machine.tried] == [ROWS] * 4
    with pytest.raises(
        UsageError, match="lacks answers to 6 prompts of short, and 32 are needed to try 3 other settings"
    ):
        tuned(short, paced({}, 0.1), monkeypatch, *SEQS)


def test_only_what_cannot_change_an_answer_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person wants is read like the job file; what vLLM has not, would refuse, or what is in the key, is refused."""
    names = frozenset(
        {"max_num_seqs", "enforce_eager", "dtype", "quantization", "kv_cache_dtype", "speculative_config"}
    )
    monkeypatch.setattr(vllm_source, "engine_options", lambda: names)
    asked = ["max_num_seqs=64, 256", "enforce_eager=false", "speculative_config={method: ngram}"]
    assert wanted_variants(asked) == [
        {"max_num_seqs": 64}, {"max_num_seqs": 256}, {"enforce_eager": False}, {"speculative_config": {"method": "ngram"}},
    ]  # fmt: skip
    for text, said in [
        ("dtype=float16", "could change answers"), ("kv_cache_dtype=fp8", "could change answers"),
        ("quantization=fp8", "could change answers"), ("speculative_config={method: eagle}", "could change answers"),
        ("max_num_sqs=4", "has no engine option max_num_sqs"), ("max_num_seqs", "write an engine option and values"),
        ("max_num_seqs=", "write an engine option"), ("=4", "write an engine option"), ("max_num_seqs=[", "write an engine option"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=said):
            wanted_variants([text])


def test_what_is_tried_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """And on what the job sets, whether it writes answers, and what the vLLM that is installed knows."""
    monkeypatch.setattr(vllm_source, "engine_options", lambda: None)
    cpu = usual_variants({"max_num_seqs": 8, "kv_cache_memory_bytes": 100}, on_cpu=True, may_speculate=False)
    assert {"max_num_seqs": 4} in cpu
    assert {"max_num_seqs": 16} in cpu
    assert {"kv_cache_memory_bytes": 200} in cpu
    assert not any("enforce_eager" in each or "speculative_config" in each for each in cpu)
    gpu = usual_variants({}, on_cpu=False, may_speculate=True)
    assert {"enforce_eager": True} in gpu
    assert gpu[-1]["speculative_config"]["method"] == "ngram"
    monkeypatch.setattr(vllm_source, "engine_options", lambda: frozenset({"block_size"}))
    assert usual_variants({}, on_cpu=False, may_speculate=True) == [{"block_size": 32}]


def test_jobs_that_cannot_be_tuned(tmp_path: Path, tiny: Path) -> None:
    """One without a model, and one that asks a server."""
    with pytest.raises(UsageError, match="asks no model"):
        variants_for(imports_job(tmp_path / "imports", {"id": [1]}).job)
    server = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}
    job, _ = make_job(tmp_path / "shop", numbered(3), tiny, engine=server)
    with pytest.raises(UsageError, match="kind openai"):
        variants_for(job)


def test_the_best_are_written_beside_what_people_wrote(shop: tuple[Job, JobData]) -> None:
    """With comments, and whether the job has options or none."""
    job, _ = shop
    text = job.path.read_text(encoding="utf-8").replace("max_model_len: 500", "max_model_len: 500  # enough")
    job.path.write_text(text, encoding="utf-8")
    found = with_best(job, {"max_num_seqs": 256})
    assert found == text.replace("# enough\n", "# enough\n    max_num_seqs: 256\n")
    bare = text.replace("  options:\n    max_model_len: 500  # enough\n", "")
    job.path.write_text(bare, encoding="utf-8")
    job = reader.load(str(job.folder), {})
    assert options_of(SimpleNamespace(spec=reader.parse(with_best(job, BLOCK), str(job.path)))) == BLOCK  # type: ignore[arg-type]


@pytest.mark.long
def test_tune_says_and_writes_it(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table for people, and with --write the job file."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    job, data = make_job(tmp_path / "shop", numbered(600), tiny, gate=LENIENT)
    machine = Machine(data, paced({("max_num_seqs", 256): 2.0}, 0.02), monkeypatch)
    monkeypatch.setattr("batchinfer.pipeline.tune._ask_by_runs", lambda _data, _console: machine)
    done = batchinfer("tune", job.folder, "--rows", 8, "--try", "max_num_seqs=64,256")
    assert "Fastest: max_num_seqs=256" in done.out
    assert "tune shop --write" in done.out
    told = batchinfer("tune", job.folder, "--rows", 8, "--try", "max_num_seqs=64,256", "--write", "--json").json
    assert (told["best"], told["written"]) == ({"max_num_seqs": 256}, True)
    assert options_of(reader.load(str(job.folder), {})) == {"max_num_seqs": 256}
    assert batchinfer("tune", job.folder, "--try", "dtype=float16").code == 2
