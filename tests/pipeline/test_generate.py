"""Runs with a scripted engine: what is asked, what is counted, what is asked again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig
from batchinfer.errors import Busy, GateFailed, ModelError, Stopped, UsageError
from batchinfer.pipeline.report import ChoiceMass
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options, prepare
from batchinfer.versions.folders import folder_of
from batchinfer.versions.pointers import pointer, served
from batchinfer.versions.snapshot import Snapshot
from tests.factories import LENIENT, model_job
from tests.plans import asked
from tests.scripted import read_diary
from tests.tiny import (
    THINKING_TEMPLATE,
    RecordingConsole,
    adds_up,
    make_job,
    model_folder,
    numbered,
    process,
    scripted,
    stored,
    token,
    until,
)

CHOICE = {"type": "choice", "choices": ["Positive", "Negative"]}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the engine prints to."""
    return tmp_path / "engine.log"


@pytest.fixture
def pool(log: Path) -> Iterator[EnginePool]:
    """An engine that gives every prompt back as its answer."""
    with scripted(log, answer="echo", per_step=8, in_flight=64) as started:
        yield started


@pytest.fixture
def no_engine(log: Path) -> EnginePool:
    """An engine that was not started, for runs that must not need one."""
    return EnginePool(EngineConfig("none"), [], log)


def reasons(data: JobData) -> dict[str, str]:
    """Why each row failed, by its text."""
    return {(failure.query or {})["text"]: failure.reason for failure in Store(data.cache).failures()}


def values(data: JobData) -> dict[str, Any]:
    """What is served: the prediction of each text."""
    folder = folder_of(data, served(data).version)
    return {row["text"]: row["prediction"] for row in pq.read_table(folder / "predictions.parquet").to_pylist()}


def test_the_counts_add_up(tmp_path: Path, tiny: Path, log: Path) -> None:
    """Bad rows, duplicates, answers and failures of every stage are counted once each, and stored with their reasons."""
    rows: dict[str, list[str | None]] = {
        "text": ["fine", "fine", "refuse R", "die D", "cut C", "long " + "x" * 2000, "", None, "clash", "clash", "blank ", "also fine"],
        "more": ["a", "a", "a", "a", "a", "a", "a", "a", "a", "b", "   ", "a"],
    }  # fmt: skip
    job, data = make_job(
        tmp_path / "shop",
        rows,
        tiny,
        prompt={"template": "{{ text }} {{ more }}"},
        output={"type": "text", "steps": ["strip"]},
        gate=LENIENT,
    )
    with scripted(log, answer="echo", refuse=[token("R")], die_on=[token("D")], cut_off=[token("C")]) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert adds_up(report.to_json())
    wanted = {
        "rows": 12, "bad": 5, "duplicates": 1, "unique": 6, "cached": 0, "generated": 2, "failed": 4, "remaining": 0, "version": 1,
    }  # fmt: skip
    assert {name: getattr(report, name) for name in wanted} == wanted
    failures = Store(data.cache).failures()
    assert sorted((failure.stage, failure.reason) for failure in failures) == [
        ("engine", "engine_died"),
        ("engine", "prompt_too_long"),
        ("engine", "refused"),
        ("input", "conflicting_rows"),
        ("input", "conflicting_rows"),
        ("input", "empty_key"),
        ("input", "empty_value"),
        ("input", "null_key"),
        ("parse", "cut_off"),
    ]
    assert values(data) == {"fine": "fine a", "also fine": "also fine a"}


def test_the_second_run_needs_no_engine(tmp_path: Path, tiny: Path, pool: EnginePool, no_engine: EnginePool) -> None:
    """An unchanged job is answered by the cache alone, and publishes nothing new."""
    job, data = make_job(tmp_path / "shop", numbered(20), tiny)
    run(job, data, Options(), RecordingConsole(), pool)
    report = run(job, data, Options(), RecordingConsole(), no_engine)
    assert (report.cached, report.generated, report.version, report.unchanged) == (20, 0, None, True)
    assert served(data).version == 1


def test_only_new_rows_are_asked(tmp_path: Path, tiny: Path, log: Path) -> None:
    """When the list grows, the engine sees just the rows that are new."""
    diary = str(tmp_path / "diary")
    job, data = make_job(tmp_path / "shop", numbered(20), tiny)
    with scripted(log, answer="echo", diary=diary) as pool:
        run(job, data, Options(), RecordingConsole(), pool)
        job, data = make_job(tmp_path / "shop", numbered(25), tiny)
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert (report.cached, report.generated, report.version) == (20, 5, 2)
    assert sum(entry[0] == "take" for entry in read_diary(diary)) == 25


def test_text_comes_back_byte_for_byte(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """Emoji, right-to-left and combining characters, quotes and line breaks survive prompt, cache and version."""
    texts = [
        "👩‍🚀 🏳️‍🌈",
        "שלום עולם",
        "e\u0301 é",
        "n\u0303",
        'a "quoted" \\ one',
        "two\nlines",
        "tab\there",
        "\u202eback",
        "名前",
    ]
    job, data = make_job(tmp_path / "shop", {"text": texts}, tiny)
    report = run(job, data, Options(), RecordingConsole(), pool)
    assert report.generated == len(texts)
    assert values(data) == {text: text for text in texts}


def test_a_limit_never_publishes(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """--limit makes so many, leaves the rest, and publishes nothing; later runs go on from there."""
    job, data = make_job(tmp_path / "shop", numbered(100), tiny)
    report = run(job, data, Options(limit=30), RecordingConsole(), pool)
    assert (report.generated, report.remaining, report.version, report.status) == (30, 70, None, "done")
    assert adds_up(report.to_json())
    assert pointer(data) is None
    report = run(job, data, Options(limit=1000), RecordingConsole(), pool)
    assert (report.cached, report.generated, report.remaining, report.version) == (30, 70, 0, None)
    assert pointer(data) is None
    assert run(job, data, Options(), RecordingConsole(), pool).version == 1


@pytest.mark.long
def test_no_publish_fills_the_cache_only(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """--no-publish generates all and publishes nothing."""
    job, data = make_job(tmp_path / "shop", numbered(10), tiny)
    report = run(job, data, Options(publish=False), RecordingConsole(), pool)
    assert (report.generated, report.remaining, report.version) == (10, 0, None)
    assert pointer(data) is None


@pytest.mark.long
def test_failures_are_remembered_until_they_are_retried(
    tmp_path: Path, tiny: Path, log: Path, no_engine: EnginePool
) -> None:
    """A row that failed is not asked again by itself; --retry-failed asks it, and its old failure is gone."""
    job, data = make_job(tmp_path / "shop", {"text": ["fine", "R", "C"]}, tiny, gate=LENIENT)
    with scripted(log, answer="echo", refuse=[token("R")], cut_off=[token("C")]) as pool:
        assert run(job, data, Options(), RecordingConsole(), pool).failed == 2
    report = run(job, data, Options(), RecordingConsole(), no_engine)
    assert (report.cached, report.failed, report.generated) == (1, 2, 0)
    assert adds_up(report.to_json())
    with scripted(log, answer="echo", refuse=[token("R")]) as pool:
        report = run(job, data, Options(retry_failed=True), RecordingConsole(), pool)
    assert (report.cached, report.failed, report.generated, report.version) == (1, 1, 1, 2)
    assert adds_up(report.to_json())
    assert reasons(data) == {"R": "refused"}
    assert values(data) == {"fine": "fine", "C": "C"}
    assert stored(data) == (2, 2)


@pytest.mark.long
def test_refresh_makes_all_rows_again(tmp_path: Path, tiny: Path, log: Path) -> None:
    """--refresh asks every row again; the new answers take the place of the old ones."""
    job, data = make_job(tmp_path / "shop", {"text": ["ax", "bx"]}, tiny, gate=LENIENT)
    for text in ("old", "new"):
        with scripted(log, answer={token("x"): text}) as pool:
            report = run(job, data, Options(refresh=text == "new"), RecordingConsole(), pool)
    assert (report.cached, report.generated, report.version) == (0, 2, 2)
    assert values(data) == {"ax": "new", "bx": "new"}
    assert stored(data) == (2, 2)


@pytest.mark.long
def test_refresh_of_some_rows(tmp_path: Path, tiny: Path, log: Path) -> None:
    """--refresh COLUMN=VALUE asks just the rows with that value again."""
    job, data = make_job(
        tmp_path / "shop",
        {"text": ["ax", "bx", "cx"], "language": ["de", "en", "de"]},
        tiny,
        prompt={"template": "{{ text }} {{ language }}"},
        gate=LENIENT,
    )
    for text in ("old", "new"):
        options = Options(refresh=text == "new", refresh_where=("language", "de") if text == "new" else None)
        with scripted(log, answer={token("x"): text}) as pool:
            report = run(job, data, options, RecordingConsole(), pool)
    assert (report.cached, report.generated) == (1, 2)
    assert values(data) == {"ax": "new", "bx": "old", "cx": "new"}
    with pytest.raises(UsageError, match="no column languge"):
        run(job, data, Options(refresh=True, refresh_where=("languge", "de")), RecordingConsole(), pool)


def test_a_refresh_that_is_broken_off_keeps_the_old_answers(tmp_path: Path, tiny: Path, log: Path) -> None:
    """Answers that --refresh did not come to are the old ones."""
    job, data = make_job(tmp_path / "shop", {"text": ["ax", "bx", "cx"]}, tiny, gate=LENIENT)
    for text in ("old", "new"):
        with scripted(log, answer={token("x"): text}) as pool:
            run(job, data, Options(refresh=text == "new", limit=1 if text == "new" else None), RecordingConsole(), pool)
    with Store(data.cache).open() as db:
        texts = db.execute("SELECT text, count(*) FROM generations GROUP BY text ORDER BY text").fetchall()
    assert texts == [("new", 1), ("old", 2)]


@pytest.mark.long
def test_a_changed_question_is_asked_about(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """When most of the cache would be made again, the run says what changed and asks; no is a usage error."""
    make_job(tmp_path / "shop", numbered(20), tiny)
    job, data = make_job(tmp_path / "shop", numbered(20), tiny)
    run(job, data, Options(), RecordingConsole(), pool)
    changed, _ = make_job(
        tmp_path / "shop", numbered(20), tiny, prompt={"template": "{{ text }}", "system": "Be brief."}
    )
    audience = RecordingConsole(answer=False)
    with pytest.raises(UsageError, match=r"prompt\.system changed since the last run.*the answer was no"):
        run(changed, data, Options(), audience, pool)
    [question] = audience.questions
    assert "20 of 20 prompts would be regenerated; the 20 cached answers would not be used" in question
    assert stored(data) == (20, 20)
    assert len(Store(data.cache).runs()) == 1

    agreed = RecordingConsole(answer=True)
    assert run(changed, data, Options(), agreed, pool).generated == 20
    assert agreed.questions == audience.questions
    assert run(job, data, Options(), RecordingConsole(), pool).cached == 20  # the old answers are still there


def test_yes_is_not_asked(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """With --yes a changed question is asked of the model without asking the person."""
    job, data = make_job(tmp_path / "shop", numbered(20), tiny)
    run(job, data, Options(), RecordingConsole(), pool)
    changed, _ = make_job(
        tmp_path / "shop", numbered(20), tiny, prompt={"template": "What is {{ text }}?"}, gate=LENIENT
    )
    audience = RecordingConsole()
    assert run(changed, data, Options(yes=True), audience, pool).generated == 20
    assert audience.questions == []


def test_a_change_that_cannot_change_an_answer_is_not_asked_about(
    tmp_path: Path, tiny: Path, pool: EnginePool, no_engine: EnginePool
) -> None:
    """Settings of the engine, the gate and the description leave the cache as it is."""
    job, data = make_job(tmp_path / "shop", numbered(5), tiny)
    run(job, data, Options(), RecordingConsole(), pool)
    changed, _ = make_job(
        tmp_path / "shop", numbered(5), tiny, description="New.", engine={"replicas": 2}, gate={"coverage": 0.5}
    )
    assert run(changed, data, Options(), RecordingConsole(), no_engine).cached == 5


@pytest.mark.long
def test_another_model_is_refused_or_asked_about(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """When the files of a model's folder change, the run wants --update-model, and then asks what it would cost."""
    folder = model_folder(tmp_path / "model")
    job, data = make_job(tmp_path / "shop", numbered(5), folder)
    run(job, data, Options(), RecordingConsole(), pool)
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 999}', encoding="utf-8")
    with pytest.raises(ModelError, match="changed since the last run: run again with --update-model"):
        run(job, data, Options(), RecordingConsole(), pool)
    with pytest.raises(UsageError, match=r"model\.identity changed since the last run"):
        run(job, data, Options(update_model=True), RecordingConsole(), pool)
    assert run(job, data, Options(update_model=True, yes=True), RecordingConsole(), pool).generated == 5


def test_a_prompt_that_is_too_long_fails_alone(tmp_path: Path, tiny: Path, log: Path) -> None:
    """A prompt that fills the model's window, up to its last token, is a failure that says so; others are answered."""
    window = 64
    head = len("<user>\n<assistant>")
    texts = ["x" * (window - head - 1), "x" * (window - head), "y" * 5000, "short"]
    job, data = make_job(tmp_path / "shop", {"text": texts}, tiny, gate=LENIENT)
    with scripted(log, answer="echo", max_len=window) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert (report.generated, report.failed) == (2, 2)
    assert reasons(data) == {texts[1]: "prompt_too_long", texts[2]: "prompt_too_long"}
    details = {failure.detail for failure in Store(data.cache).failures()}
    assert "The prompt has 64 tokens; the model's window of 64 leaves no room for an answer." in details


def test_a_list_of_nothing_but_long_prompts(tmp_path: Path, tiny: Path, log: Path) -> None:
    """Where every prompt is too long, the run ends with failures, stored, and the gate refuses the version."""
    job, data = make_job(tmp_path / "shop", {"text": ["x" * 200, "y" * 200]}, tiny)
    with scripted(log, max_len=64) as pool, pytest.raises(GateFailed):
        run(job, data, Options(), RecordingConsole(), pool)
    assert reasons(data) == {"x" * 200: "prompt_too_long", "y" * 200: "prompt_too_long"}


def test_a_choice_is_scored(tmp_path: Path, tiny: Path, log: Path) -> None:
    """A choice's prediction is the likeliest one, its scores are renormalised, and the mass beside them is kept."""
    job, data = make_job(tmp_path / "shop", numbered(3), tiny, output=CHOICE)
    with scripted(log, scores=[0.06, 0.02]) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert values(data) == dict.fromkeys(numbered(3)["text"], "Positive")
    with Snapshot(folder_of(data, 1)) as version:
        body = version.get({"text": "query 0000"})
    assert body is not None
    assert b'"scores":{"Positive":0.75,"Negative":0.25}' in body.replace(b": ", b":").replace(b", ", b",")
    assert report.choice_mass == ChoiceMass(p05=0.08, median=0.08, small=3)
    assert report.to_json()["mass"] == {"p05": 0.08, "median": 0.08, "below_0.1": 3}


def test_choices_that_begin_alike_are_scored_whole(tmp_path: Path, tiny: Path, log: Path) -> None:
    """Where one token cannot tell choices apart the engine is given all of each, and scores are kept as ever."""
    output = {"type": "choice", "choices": ["yes", "yellow", "no"]}
    job, data = make_job(tmp_path / "shop", numbered(3), tiny, output=output)
    with scripted(log, 2, scores=[0.02, 0.06, 0.0001]) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
        assert run(job, data, Options(), RecordingConsole(), pool).cached == 3
    assert values(data) == dict.fromkeys(numbered(3)["text"], "yellow")
    assert report.choice_mass is not None


def test_scores_by_length_are_served_without_a_mass(tmp_path: Path, tiny: Path, log: Path) -> None:
    """With output.normalize whole choices are scored, whatever they begin with; the version has scores, and no mass."""
    job, data = make_job(tmp_path / "shop", numbered(3), tiny, output=CHOICE | {"normalize": "characters"})
    with scripted(log, scores=[0.6, 0.2]) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert (report.version, report.choice_mass) == (1, None)
    [row, *_] = pq.read_table(folder_of(data, 1) / "predictions.parquet").to_pylist()
    assert (row["score"], row["mass"]) == (pytest.approx(0.75), None)


def test_a_likelihood_is_asked_for_each_rows_own_text(tmp_path: Path, tiny: Path, log: Path) -> None:
    """Rows with one prompt and different texts are different questions; the number is what is served."""
    rows = {"text": ["a", "a", "a", "b"], "term": ["one", "two", "-", "one"]}
    job, data = make_job(
        tmp_path / "shop", rows, tiny, input={"path": "queries.parquet", "key": ["text", "term"]}, gate=LENIENT,
        output={"type": "likelihood", "text": "{{ term | replace('-', '') }}"},
    )  # fmt: skip
    with scripted(log, scores=[0.25]) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
        assert run(job, data, Options(), RecordingConsole(), pool).cached == 3
    assert (report.unique, report.generated, report.failed, report.choice_mass) == (4, 3, 1, None)
    [failure] = Store(data.cache).failures()
    assert (failure.reason, failure.detail) == (
        "template",
        "For this row output.text is empty, so there is nothing to score.",
    )
    with Snapshot(folder_of(data, 1)) as version:
        body = json.loads(version.get({"text": "a", "term": "two"}) or b"")
    assert (body["prediction"], body["score"], body["scores"]) == (pytest.approx(math.log(0.25)),) * 2 + (None,)


def test_a_prompt_without_room_for_what_is_scored_fails_alone(tmp_path: Path, tiny: Path, log: Path) -> None:
    """The longest choice must fit the window behind the prompt."""
    window = 64
    head = len("<user>\n<assistant>")
    texts = ["x" * (window - head - 7), "x" * (window - head - 6)]
    output = {"type": "choice", "choices": ["yes", "yellow"]}
    job, data = make_job(tmp_path / "shop", {"text": texts}, tiny, gate=LENIENT, output=output)
    with scripted(log, scores=[0.5, 0.2], max_len=window) as pool:
        run(job, data, Options(), RecordingConsole(), pool)
    assert reasons(data) == {texts[1]: "prompt_too_long"}
    [failure] = Store(data.cache).failures()
    assert failure.detail.endswith("the model's window of 64 leaves no room for the 6 tokens that are to be scored.")


def test_a_model_that_thinks_before_a_choice_is_refused(tmp_path: Path, log: Path, no_engine: EnginePool) -> None:
    """A chat template that opens a thinking block is refused for choices, with the setting that turns it off."""
    thinking = model_folder(tmp_path / "thinking", chat_template=THINKING_TEMPLATE)
    job, data = make_job(tmp_path / "shop", numbered(3), thinking, output=CHOICE)
    with pytest.raises(ModelError, match=r"thinking block.*chat_template_kwargs: \{enable_thinking: false\}"):
        run(job, data, Options(), RecordingConsole(), no_engine)
    quiet = {"template": "{{ text }}", "chat_template_kwargs": {"enable_thinking": False}}
    job, data = make_job(tmp_path / "shop", numbered(3), thinking, output=CHOICE, prompt=quiet)
    with scripted(log, scores=[0.9, 0.1]) as pool:
        assert run(job, data, Options(), RecordingConsole(), pool).generated == 3


def test_a_model_without_a_chat_template(tmp_path: Path, log: Path, no_engine: EnginePool) -> None:
    """A chat prompt for a base model is refused with the setting to change; as a completion it is asked."""
    base = model_folder(tmp_path / "base", chat_template=None)
    job, data = make_job(tmp_path / "shop", numbered(3), base, output=CHOICE)
    with pytest.raises(ModelError, match=r"no chat template: set prompt\.format to completion"):
        run(job, data, Options(), RecordingConsole(), no_engine)
    prompt = {"template": "{{ text }}:", "format": "completion"}
    job, data = make_job(tmp_path / "shop", numbered(3), base, prompt=prompt)
    with scripted(log, answer="echo") as pool:
        run(job, data, Options(), RecordingConsole(), pool)
    assert values(data)["query 0002"] == "query 0002:"


def test_a_sentence_of_the_engine_ends_the_run(tmp_path: Path, tiny: Path, log: Path) -> None:
    """What the engine says of a model that it cannot load ends the run, which is recorded as failed."""
    job, data = make_job(tmp_path / "shop", numbered(3), tiny)
    sentence = "vLLM could not load tiny: it generates no text."
    with (
        scripted(log, loads=[sentence], diary=str(tmp_path / "diary")) as pool,
        pytest.raises(ModelError, match="it generates no text") as refused,
    ):
        run(job, data, Options(), RecordingConsole(), pool)
    assert refused.value.exit_code == 2
    assert Store(data.cache).runs()[0].status == "failed"


@pytest.mark.long
def test_an_engine_that_cannot_be_kept_alive(tmp_path: Path, tiny: Path, log: Path) -> None:
    """When the engine dies again and again the run stops; what it came to is kept, so that the next one gets further."""
    rows = numbered(14, dict.fromkeys(range(4, 12), "D"))
    job, data = make_job(tmp_path / "shop", rows, tiny, gate=LENIENT)
    with scripted(log, answer="echo", die_on=[token("D")]) as pool, pytest.raises(Stopped, match="in a row"):
        run(job, data, Options(), RecordingConsole(), pool)
    ended = Store(data.cache).runs()[0]
    assert ended.status == "stopped"
    assert (ended.report["generated"], ended.report["failures"]) == (stored(data)[0], len(reasons(data)))
    assert ended.report["failures"] >= 4
    assert adds_up(ended.report)
    with scripted(log, answer="echo", die_on=[token("D")]) as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert (report.cached + report.generated, report.failed) == (6, 8)


@pytest.mark.long
def test_two_runs_of_one_job(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """A second run of a job is refused at once and says which process has it; the first is not disturbed."""
    diary = tmp_path / "diary"
    script = {"answer": "echo", "slow": 0.05, "diary": str(diary)}
    job, data = make_job(tmp_path / "shop", numbered(100), tiny, script=script)
    log = tmp_path / "log"
    command = ["-m", "tests.tiny", "--home", str(data.root), "run", str(job.path)]
    with process(*command, temporary=tmp_path, log=log) as first:
        until(lambda: len(read_diary(diary)) > 2)
        with pytest.raises(Busy, match=rf"in use by batchinfer run shop \(process {first.pid}\)"):
            run(job, data, Options(), RecordingConsole(), pool)
        with prepare(job, data, Options()) as p:  # reading is still allowed
            assert p.plan.counts.unique == 100
        assert first.wait() == 0, log.read_text(encoding="utf-8")
    assert stored(data) == (100, 100)


def test_a_row_that_the_template_cannot_take(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """A row for which the template fails is a failure of its own; those around it are answered."""
    table = pa.table({"text": ["a", "b", "c"], "items": [["x", "y"], [], ["z"]]})
    job, data = make_job(
        tmp_path / "shop",
        {name: table[name].to_pylist() for name in table.column_names},
        tiny,
        prompt={"template": "{{ text }} {{ items[0] }}"},
        gate=LENIENT,
    )
    report = run(job, data, Options(), RecordingConsole(), pool)
    assert (report.generated, report.failed) == (2, 1)
    assert reasons(data) == {"b": "template"}
    assert values(data) == {"a": "a x", "c": "c z"}


@pytest.mark.long
def test_chunks_are_committed_on_the_way(tmp_path: Path, tiny: Path, pool: EnginePool) -> None:
    """Answers are stored while the run goes on, not at its end, and another process can read them then."""
    job, data = make_job(tmp_path / "shop", numbered(700), tiny)
    seen: list[tuple[int, int]] = []
    audience = RecordingConsole(at={600: lambda: seen.append(stored(data))})
    run(job, data, Options(), audience, pool)
    assert seen[0][0] >= 512
    assert stored(data) == (700, 700)


@pytest.mark.parametrize("ends", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_whatever_ends_a_run_what_is_finished_is_kept(tmp_path: Path, ends: type[BaseException]) -> None:
    """Answers that came before an error that nobody foresaw are in the cache; the next run asks for the others."""
    world = model_job(tmp_path, {"id": ["1", "2", "3"], "text": ["a", "b", "c"]})
    said: list[str] = []

    def says(row: dict[str, Any]) -> str:
        if len(said) == 2:
            raise ends("unforeseen")
        said.append(row["text"])
        return "yes"

    with pytest.raises(ends):
        world.answer(says)
    assert stored(world.data) == (2, 2)
    assert len(asked(world)) == 1
    assert set(asked(world)).isdisjoint(said)


def test_answers_that_break_the_reading_fail_alone(tmp_path: Path) -> None:
    """Answers that no check can bear are failures of their rows; the good ones of the chunk are predictions."""
    output = {"type": "json", "schema": {"items": {"$ref": "#"}, "multipleOf": 0.5}}
    hostile = {"deep": "[" * 400 + "]" * 400, "long": "9" * 401, "good": "1.5"}
    world = model_job(tmp_path, {"id": [*hostile], "text": [*hostile]}, output=output, gate=LENIENT)
    world.answer(lambda row: hostile[row["text"]])
    assert world.store.failure_reasons() == {"too_deep": 1, "unreadable": 1}
    assert world.publish().version == 1
    assert world.get(id="good") is not None
