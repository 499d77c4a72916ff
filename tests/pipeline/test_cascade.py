"""A run in which a small model answers all, and a large one what the small one is not sure of."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure
from batchinfer.engines.protocol import EngineConfig
from batchinfer.errors import GateFailed, Stopped
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.maintenance import doctor, erase, repair
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.prune import prune
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.report import RunReport
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from batchinfer.review import predictions
from batchinfer.review.allowed import Allowance
from batchinfer.versions import pointers
from tests.cascades import PROMISE, SAMPLE, TwoModels, make_cascade, says_well
from tests.factories import LENIENT, Quiet, Templates, write
from tests.tiny import RecordingConsole, adds_up, numbered, press, stored

REFUSED = Failure(b"", "engine", "refused", "No.")


def ran(job: Job, data: JobData, engine: TwoModels | None = None, **options: Any) -> RunReport:
    """A run with an engine that pretends both models."""
    return run(job, data, Options(**options), RecordingConsole(answer=True), engine or TwoModels())


def served(data: JobData) -> dict[int, tuple[str, str]]:
    """Prediction and model of each row that is served."""
    with pointers.open_served(data) as version:
        found = {number: version.get({"text": f"query {number:04d}"}) for number in range(version.manifest.rows)}
    bodies = {number: json.loads(body) for number, body in found.items() if body is not None}
    return {number: (body["prediction"], body["model"]) for number, body in bodies.items()}


def begun(folder: Path, tiny: Path) -> None:
    """A job of 200 rows after its first run."""
    ran(*make_cascade(folder / "shop", tiny))


@pytest.fixture
def done(templates: Templates, tmp_path: Path, tiny: Path) -> tuple[Job, JobData]:
    """The same, made once."""
    templates.copy(begun, tmp_path, tiny)
    return reader.load(str(tmp_path / "shop"), {}), JobData(tmp_path / "home", "shop")


def relisted(job: Job, count: int) -> None:
    """Gives the job a list of so many rows."""
    write(job.folder / "queries.parquet", numbered(count))


def edited(job: Job, **sections: Any) -> Job:
    """The job with other sections."""
    content = yaml.safe_load(job.path.read_text(encoding="utf-8")) | sections
    job.path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return reader.load(str(job.folder), {})


@pytest.mark.long
def test_the_large_model_answers_what_the_small_one_is_not_sure_of(tmp_path: Path, tiny: Path) -> None:
    """The small one is asked all, the large one the sample and what is under the threshold; what it said is taken, in the sample too."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    engine = TwoModels()
    report = ran(job, data, engine)
    unsure = {number for number in range(200) if number % 4 == 0}
    assert sorted(engine.asked[False]) == list(range(200))
    asked = engine.asked[True]
    assert len(set(asked)) == len(asked)
    assert unsure <= set(asked)
    assert len(set(asked) - unsure) == len(set(asked[:SAMPLE]) - unsure)
    entries = served(data)
    assert {number for number, (_, model) in entries.items() if "+" in model} == set(asked)
    assert {number for number, (prediction, _) in entries.items() if prediction == "no"} == unsure
    assert adds_up(report.to_json())
    assert (report.cached, report.generated, report.failed, report.remaining, report.version) == (0, 200, 0, 0, 1)
    told = report.to_json()["cascade"]
    assert (told["sample"], told["threshold"], told["agreement"], told["problem"]) == (SAMPLE, 0.95, 1.0, None)
    assert (told["small"]["asked"], told["small"]["answers"], told["small"]["generated"]) == (
        200,
        200 - len(asked),
        200,
    )
    assert (told["large"]["asked"], told["large"]["answers"], told["large"]["generated"]) == (
        len(asked),
        len(asked),
        len(asked),
    )
    with pointers.open_served(data) as version:
        shared = version.manifest.run.cascade
    assert shared is not None
    assert (shared.threshold, shared.small.answers, shared.large.answers) == (0.95, 200 - len(asked), len(asked))


@pytest.mark.long
def test_a_rerun_asks_nothing(done: tuple[Job, JobData]) -> None:
    """The division follows from the cache, so all of it is there again; a row that is added asks what is new alone."""
    job, data = done
    again = TwoModels()
    report = ran(job, data, again)
    assert again.asked == {False: [], True: []}
    assert (report.cached, report.generated, report.unchanged) == (200, 0, True)
    assert report.to_json()["cascade"]["threshold"] == 0.95
    relisted(job, 204)
    assert publish(job, data, Options(), Quiet()).unchanged  # what nobody was asked yet changes nothing
    more = TwoModels()
    report = ran(job, data, more)
    assert sorted(more.asked[False]) == [200, 201, 202, 203]
    assert 200 in more.asked[True]
    assert len(more.asked[True]) < 10
    assert (report.generated, report.cached) == (4, 200)


def test_a_job_of_the_large_model_alone_has_its_answers_already(done: tuple[Job, JobData]) -> None:
    """And the other way round: each answer is cached as a job with that model alone would cache it."""
    job, data = done
    both = stored(data)[0]
    cascade = yaml.safe_load(job.path.read_text(encoding="utf-8"))["model"]
    alone = edited(job, model=cascade["cascade"]["large"])
    engine = TwoModels()
    report = ran(alone, data, engine)
    assert (report.cached, report.generated) == (both - 200, 400 - both)
    assert engine.asked[False] == []
    back = TwoModels()
    console = RecordingConsole()
    assert run(edited(job, model=cascade), data, Options(), console, back).generated == 0
    assert console.questions == []
    assert back.asked == {False: [], True: []}


@pytest.mark.long
def test_a_small_model_that_is_seldom_right_answers_nothing(tmp_path: Path, tiny: Path) -> None:
    """Where no threshold holds the large one is asked all, and that is said."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    console = RecordingConsole(answer=True)
    engine = TwoModels(lambda number, large: 0.9 if large else 0.1 + 0.8 * (number % 2))
    report = run(job, data, Options(), console, engine)
    assert len(engine.asked[True]) == 200
    assert {model for _, model in served(data).values()} == {report.to_json()["cascade"]["large"]["model"]}
    assert any("The large model answers all, since from no score on" in said for said in console.said)
    assert report.to_json()["cascade"]["problem"].startswith("from no score on")


def test_a_list_as_short_as_the_sample_is_the_large_models(tmp_path: Path, tiny: Path) -> None:
    """The small one is not asked, since nothing would be saved."""
    job, data = make_cascade(tmp_path / "shop", tiny, rows=SAMPLE)
    engine = TwoModels()
    report = ran(job, data, engine)
    assert (len(engine.asked[False]), len(engine.asked[True])) == (0, SAMPLE)
    assert f"no more than the {SAMPLE} prompts" in report.to_json()["cascade"]["problem"]


def test_two_models_are_never_loaded_at_once(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small one ends before the large one begins, which is loaded once for the sample and the rest."""
    loaded: list[str] = []

    @contextlib.contextmanager
    def engine_for(_job: Job, _data: JobData, config: EngineConfig, *_: object, **_more: object) -> Iterator[TwoModels]:
        loaded.append("large" if config.adapter else "small")
        yield TwoModels()
        loaded.append("end")

    monkeypatch.setattr("batchinfer.pipeline.asking.engine_for", engine_for)
    monkeypatch.setattr("batchinfer.pipeline.run.check_models", lambda *_: None)
    job, data = make_cascade(tmp_path / "shop", tiny)
    run(job, data, Options(), Quiet())
    assert loaded == ["small", "end", "large", "end"]


@pytest.mark.long
@pytest.mark.parametrize("large", [False, True])
def test_a_run_that_is_stopped_goes_on(tmp_path: Path, tiny: Path, large: bool) -> None:
    """Ctrl-C while either model is asked: nothing is published, nothing committed is asked again, and the end is the same."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    engine = TwoModels(at={(large, 30): press(signal.SIGINT)})
    with pytest.raises(Stopped) as stopped:
        ran(job, data, engine)
    assert stopped.value.report is not None
    report = stopped.value.report.to_json()
    assert adds_up(report)
    assert report["left"] > 0
    rest = TwoModels()
    done = ran(job, data, rest)
    asked = {model: engine.asked[model] + rest.asked[model] for model in (False, True)}
    assert all(len(set(numbers)) == len(numbers) for numbers in asked.values())
    assert sorted(asked[False]) == list(range(200))
    assert (done.remaining, done.version) == (0, 1)
    assert {number for number, (_, model) in served(data).items() if "+" in model} == set(asked[True])


@pytest.mark.long
def test_a_part_of_a_run_publishes_nothing(tmp_path: Path, tiny: Path) -> None:
    """--limit counts the prompts of both models; what is published before both are done has the large one's answers alone."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    first = ran(job, data, limit=200)
    assert adds_up(first.to_json())
    assert (first.to_json()["cascade"]["small"]["generated"], first.remaining) == (200, SAMPLE)
    with pytest.raises(GateFailed):
        publish(edited(job, gate=LENIENT | {"rows": 1}), data, Options(), Quiet())
    engine = TwoModels()
    report = ran(job, data, engine, limit=10)
    assert (len(engine.asked[False]), len(engine.asked[True])) == (0, 10)
    assert report.remaining == SAMPLE - 10
    assert adds_up(report.to_json())
    ran(job, data)
    assert len(served(data)) == 200


@pytest.mark.long
def test_a_row_that_fails_in_the_large_model_is_a_failure(tmp_path: Path, tiny: Path) -> None:
    """The small one's answer is not taken in its place; --retry-failed asks the large one again."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    refusing = TwoModels(lambda number, large: REFUSED if large and number in (4, 8) else says_well(number, large))
    report = ran(job, data, refusing)
    assert (report.failed, report.generated, report.entries) == (2, 198, 198)
    assert adds_up(report.to_json())
    assert sorted(row.query["text"] for row in Store(data.cache).failures() if row.query) == [
        "query 0004",
        "query 0008",
    ]
    assert {4, 8}.isdisjoint(served(data))
    again = TwoModels()
    assert ran(job, data, again).failed == 2
    assert again.asked == {False: [], True: []}
    report = ran(job, data, again, retry_failed=True)
    assert again.asked == {False: [], True: again.asked[True]}
    assert set(again.asked[True]) == {4, 8}
    assert (report.failed, len(served(data))) == (0, 200)
    assert Store(data.cache).failures() == []


@pytest.mark.long
def test_a_row_that_fails_in_the_small_model_is_the_large_ones(tmp_path: Path, tiny: Path) -> None:
    """It is as little sure of it as can be; once the large one has answered, it is no failure any more."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    refusing = TwoModels(lambda number, large: REFUSED if not large and number in (1, 2) else says_well(number, large))
    report = ran(job, data, refusing)
    assert (report.failed, report.entries) == (0, 200)
    assert "+" in served(data)[1][1]
    assert Store(data.cache).failures() == []
    assert ran(job, data, again := TwoModels()).cached == 200
    assert again.asked == {False: [], True: []}


@pytest.mark.long
def test_a_refresh_asks_both_again(tmp_path: Path, tiny: Path) -> None:
    """Each prompt once for each model that it is for."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    ran(job, data, first := TwoModels())
    report = ran(job, data, again := TwoModels(), refresh=True)
    assert {model: sorted(numbers) for model, numbers in again.asked.items()} == {
        model: sorted(numbers) for model, numbers in first.asked.items()
    }
    assert (report.generated, report.remaining) == (200, 0)
    assert stored(data)[0] == stored(data)[1]


@pytest.mark.long
def test_a_plan_prices_both_models(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first run only bounds are known; after it rows and time of each, and what the large one alone would take."""
    monkeypatch.setattr("batchinfer.pipeline.plan.check_models", lambda *_: None)
    job, data = make_cascade(tmp_path / "shop", tiny)
    before = plan(job, data, Options()).to_json()
    assert (before["to_generate"], before["estimate_seconds"]) == (200, None)
    large = before["cascade"]["large"]
    assert (large["to_generate"], large["at_least"], large["at_most"]) == (None, SAMPLE, 200)
    assert before["cascade"]["large_alone"]["to_generate"] == 200
    asked = ran(job, data).to_json()["cascade"]["large"]["asked"]
    after = plan(job, data, Options()).to_json()
    assert (after["to_generate"], after["estimate_seconds"]) == (0, 0.0)
    shared = after["cascade"]
    assert [shared[name]["to_generate"] for name in ("small", "large", "large_alone")] == [0, 0, 200 - asked]
    assert shared["large_alone"]["estimate_seconds"] is not None  # rounded, so it may be 0.0
    relisted(job, 400)
    more = plan(job, data, Options()).to_json()["cascade"]
    assert more["small"]["to_generate"] == 200
    assert more["large"]["to_generate"] == 50  # a quarter of the new ones
    assert more["small"]["estimate_seconds"] is not None


def test_nothing_that_is_used_is_pruned(done: tuple[Job, JobData]) -> None:
    """Answers of both models to the list's prompts stay, those of the sample that are not served too."""
    job, data = done
    assert not prune(job, data, Quiet(), yes=True).rows
    relisted(job, 150)
    gone = prune(job, data, Quiet(), dry_run=True)
    assert gone.rows.generations < 50 * 2  # version 1 holds one answer of each row


def test_a_lost_cache_comes_back_under_both_keys(done: tuple[Job, JobData]) -> None:
    """What a version holds of either model is a hit again, once its cache is lost."""
    _, data = done
    with Store(data.cache).open() as db:
        kept = {row[0]: row[1] for row in db.execute("SELECT key, fingerprint FROM generations").fetchall()}
    data.cache.write_bytes(b"no database any more" * 1000)
    repair.repair(data, Quiet(), yes=True)
    with Store(data.cache).open() as db:
        back = {row[0]: row[1] for row in db.execute("SELECT key, fingerprint FROM generations").fetchall()}
    assert len(back) == 200
    assert all(kept[key] == fingerprint for key, fingerprint in back.items())
    assert len(set(back.values())) == 2


def test_both_answers_of_an_entry_are_erased(done: tuple[Job, JobData]) -> None:
    """Of a row of the sample the cache has two, under two keys."""
    job, data = done
    with Store(data.cache).open() as db:
        before = db.execute("SELECT count(*) FROM generations").fetchall()[0][0]
    erased = erase.erase_entry(job, data, {"text": "query 0004"})
    with Store(data.cache).open() as db:
        left = db.execute("SELECT count(*) FROM generations").fetchall()[0][0]
    assert (erased.rows.generations, before - left) == (2, 2)


@pytest.mark.long
def test_people_answer_for_both_models(done: tuple[Job, JobData]) -> None:
    """A row that people answered is asked of neither, nor counted."""
    job, data = done
    predictions.import_predictions(
        job,
        data,
        write(job.folder / "imported.parquet", {"text": ["query 0004"], "prediction": ["yes"]}),
        None,
        tuple(Allowance),
    )
    report = ran(job, data, again := TwoModels(), refresh=True)
    assert 4 not in again.asked[False] + again.asked[True]
    assert report.to_json()["cascade"]["small"]["asked"] == 199
    assert served(data)[4][0] == "yes"


def test_the_doctor_names_both_models(tmp_path: Path, tiny: Path) -> None:
    """Each with what identifies it."""
    job, data = make_cascade(tmp_path / "shop", tiny)
    found = {finding.what: finding for finding in doctor.job(job, data)}
    assert found["model"].detail == str(tiny)
    assert found["large model"].detail.startswith(f"{tiny}+")
    without = dataclasses.replace(
        job, spec=job.spec.model_copy(update={"model": job.spec.model.large if job.spec.model else None})
    )
    assert "large model" not in {finding.what for finding in doctor.job(without, data)}


def test_the_promise_is_the_job_files(done: tuple[Job, JobData]) -> None:
    """A higher one needs a larger sample, and asks only what that lacks."""
    job, data = done
    model = yaml.safe_load(job.path.read_text(encoding="utf-8"))["model"]
    model["cascade"] |= PROMISE | {"agree": 0.85}
    engine = TwoModels()
    report = ran(edited(job, model=model), data, engine)
    assert engine.asked[False] == []
    assert report.to_json()["cascade"]["sample"] == 80
