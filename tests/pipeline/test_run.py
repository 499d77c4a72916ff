"""Whole runs with the real model: Parquet in, a served version out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.cache.store import Store
from batchinfer.core.clock import iso, now
from batchinfer.core.home import JobData
from batchinfer.engines.pool import EnginePool
from batchinfer.errors import ModelError
from batchinfer.job import reader
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.run import run
from batchinfer.pipeline.trial import try_rows
from batchinfer.pipeline.wanted import Wanted
from batchinfer.planning.prepare import Options
from batchinfer.versions.folders import folder_of
from batchinfer.versions.pointers import served
from batchinfer.versions.snapshot import Snapshot
from tests.conftest import EngineSlot, Workshop
from tests.tiny import RecordingConsole

pytestmark = pytest.mark.slow

CHOICE = {"type": "choice", "choices": ["Positive", "Negative"]}
STRANGE = [
    "👩‍👩‍👧 emoji",
    "שלום עולם",
    "e\u0301 and é",
    "a\u200dz",
    "\uff46\uff55\uff4c\uff4c width",
    "tab\tand 'quote' \"double\" \\ back",
]


def lookup(data: JobData, **query: Any) -> dict[str, Any] | None:
    """What is served for a query."""
    found = served(data)
    with Snapshot(folder_of(data, found.version), digest=found.digest) as snapshot:
        body = snapshot.get(query)
    return None if body is None else dict(json.loads(body))


def adds_up(report: dict[str, Any]) -> bool:
    """The two equations of the design."""
    return bool(
        report["rows"] == report["bad"] + report["duplicates"] + report["unique"]
        and report["unique"] == report["hits"] + report["generated"] + report["failures"] + report["left"]
    )


def test_a_list_becomes_a_served_version(workshop: Workshop, engine: EnginePool, console: RecordingConsole) -> None:
    """Every good row is answered and can be looked up; duplicates are asked once; bad rows are failures with a reason."""
    job, data = workshop.job(
        {"text": ["I love it.", "I hate it.", "I love it.", None, "", "So so."], "unused": [1, 2, 3, 4, 5, 6]}, output=CHOICE,
        gate={"coverage": 0.5, "failures": 0.5},
    )  # fmt: skip
    report = run(job, data, Options(), console, engine)
    assert adds_up(report.to_json())
    assert (report.rows, report.bad, report.duplicates, report.generated) == (6, 2, 1, 3)
    assert report.version == 1
    body = lookup(data, text="I love it.")
    assert body is not None
    assert set(body) == {
        "job", "query", "prediction", "scores", "score", "source", "model", "generated_at",
    }  # fmt: skip
    assert body["prediction"] in CHOICE["choices"]
    assert lookup(data, text="never asked") is None
    reasons = {failure.reason for failure in Store(data.cache).failures()}
    assert reasons == {"null_key", "empty_key"}


def test_the_second_run_loads_no_engine(workshop: Workshop, engine: EnginePool, console: RecordingConsole) -> None:
    """Without a miss nothing is generated; a run given no engine does not start one, and publishes nothing new."""
    job, data = workshop.job({"text": [f"Text {i}." for i in range(20)]}, output=CHOICE)
    run(job, data, Options(), console, engine)
    engine_log = data.logs / "engine.log"
    report = run(job, data, Options(), console)
    assert (report.cached, report.generated, report.version) == (20, 0, None)
    assert report.unchanged
    assert not engine_log.exists()


def test_the_share_that_prefix_caching_saves_is_foretold(
    workshop: Workshop, engine: EnginePool, console: RecordingConsole
) -> None:
    """Of rows that begin alike but do not follow each other in the list; and once asked, their tokens tell how long others take."""
    guides = [" ".join(f"{name} {number}," for number in range(60)) for name in ("rivers", "stars", "boats")]
    rows = {"text": [f"Number {i}." for i in range(30)], "guide": [guides[i % 3] for i in range(30)]}
    prompt = {"template": "{{ guide }}\n{{ text }}"}
    job, data = workshop.job(rows, prompt=prompt, output=CHOICE)
    foretold = plan(job, data, Options())
    report = run(job, data, Options(), console, engine)
    assert foretold.prefix_saving is not None
    assert report.prefix_saving is not None
    assert foretold.prefix_saving == pytest.approx(report.prefix_saving, abs=0.03)
    assert report.prefix_saving > 0.7
    job, data = workshop.job({"text": ["Another."], "guide": guides[:1]}, prompt=prompt, output=CHOICE)
    again = plan(job, data, Options()).estimate
    assert again is not None
    assert again.chunks == 1
    assert again.low is not None


def test_strange_characters_come_back_byte_for_byte(
    workshop: Workshop, engine: EnginePool, console: RecordingConsole
) -> None:
    """Emoji, right-to-left, combining and zero-width characters are keys and queries as they stand."""
    job, data = workshop.job({"text": STRANGE}, output=CHOICE)
    run(job, data, Options(), console, engine)
    for text in STRANGE:
        body = lookup(data, text=text)
        assert body is not None
        assert body["query"] == {"text": text}
    assert lookup(data, text="é and é") is None  # another spelling of the same letters is another key


def test_a_prompt_that_is_too_long_fails_alone(
    workshop: Workshop, engine: EnginePool, console: RecordingConsole
) -> None:
    """A row longer than the model's window is a failure that gives both lengths; the others are answered."""
    job, data = workshop.job(
        {"text": ["Fine.", "very " * 2000]}, output=CHOICE, gate={"coverage": 0.5, "failures": 0.5}
    )
    report = run(job, data, Options(), console, engine)
    assert adds_up(report.to_json())
    assert (report.generated, report.failed) == (1, 1)
    [failure] = Store(data.cache).failures()
    assert failure.reason == "prompt_too_long"
    assert "512" in failure.detail


def test_cut_off_answers_are_failures_and_stay_so_until_asked(
    workshop: Workshop, engine: EnginePool, console: RecordingConsole
) -> None:
    """An answer cut off by max_tokens is no prediction; it is remembered, and made again by --retry-failed alone."""
    job, data = workshop.job(
        {"text": ["Tell me a long story about the sea."]}, sampling={"max_tokens": 5}
    )  # fmt: skip
    first = run(job, data, Options(publish=False), console, engine)
    assert (first.generated, first.failed) == (0, 1)
    assert Store(data.cache).failures()[0].reason == "cut_off"
    again = run(job, data, Options(publish=False), console)
    assert (again.generated, again.failed, again.remaining) == (0, 1, 0)
    retried = run(job, data, Options(retry_failed=True, publish=False), console, engine)
    assert (retried.failed, retried.remaining) == (1, 0)
    assert len(Store(data.cache).failures()) == 1


def test_json_answers_are_served_as_values(workshop: Workshop, engine: EnginePool, console: RecordingConsole) -> None:
    """A JSON output is checked against its schema, and served as the value itself."""
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "maxLength": 10}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    job, data = workshop.job(
        {"text": ["What colour is grass?"]}, output={"type": "json", "schema": schema}, sampling={"max_tokens": 40}
    )
    run(job, data, Options(), console, engine)
    body = lookup(data, text="What colour is grass?")
    assert body is not None
    assert isinstance(body["prediction"]["colour"], str)


def test_a_better_parser_needs_no_model(workshop: Workshop, engine: EnginePool, console: RecordingConsole) -> None:
    """When output.steps change, stored texts are read again without an engine, and a new version is published."""
    rows = {"text": ["Say hello."]}
    job, data = workshop.job(rows, sampling={"max_tokens": 60})
    run(job, data, Options(), console, engine)
    before = lookup(data, text="Say hello.")
    job, data = workshop.job(
        rows, sampling={"max_tokens": 60}, output={"type": "text", "steps": ["casefold", "strip"]}, gate={"changed": 1}
    )
    report = run(job, data, Options(), console)
    assert (report.cached, report.generated, report.version) == (1, 0, 2)
    after = lookup(data, text="Say hello.")
    assert before is not None
    assert after is not None
    assert after["prediction"] == before["prediction"].casefold().strip()


def test_an_adapter_is_part_of_the_key(
    workshop: Workshop, engine_slot: EngineSlot, console: RecordingConsole, adapter: Path
) -> None:
    """With a LoRA adapter the same rows are other questions, and their scores differ."""
    rows = {"text": ["I love it.", "I hate it."]}
    engine = engine_slot.get(adapter=str(adapter))
    job, data = workshop.job(rows, output=CHOICE)
    run(job, data, Options(), console, engine)
    plain = lookup(data, text="I love it.")
    shutil.copytree(adapter, job.folder / "adapter")
    job, data = workshop.job(
        rows, output=CHOICE, model={"id": "bundled/smollm2-135m-instruct", "adapter": "adapter", "options": {"max_model_len": 512}},
        gate={"changed": 1},
    )  # fmt: skip
    console.answer = True
    report = run(job, data, Options(), console, engine)
    assert report.generated == 2
    assert "model.adapter" in console.questions[0]
    adapted = lookup(data, text="I love it.")
    assert plain is not None
    assert adapted is not None
    assert adapted["scores"] != plain["scores"]


def test_fruit_families_with_no_one_and_all_shots(
    engine: EnginePool, models: Path, tmp_path: Path, console: RecordingConsole
) -> None:
    """The few-shot job runs with 0, 1 and all examples, and each shows as many in its prompt."""
    job = reader.load(str(Path(__file__).parents[2] / "jobs" / "fruit_families"), {})
    data = JobData(tmp_path, job.name)
    data.models.symlink_to(models)
    prompts = []
    for shots in (0, 1, None):
        [trial] = try_rows(
            job, data, Wanted({"fruit": "apple"}), shots=shots, info=console.info, show=lambda text, _: prompts.append(text), engine=engine
        )  # fmt: skip
        assert getattr(trial.result, "value", None) in (job.spec.output.choices or [])
    assert prompts[0] == "apple:"
    assert prompts[1] == "peach: drupe\napple:"
    assert prompts[2].count("\n") == 9
    assert not data.cache.exists()  # nothing is stored


def test_a_model_that_thinks_first_cannot_score_a_choice(
    workshop: Workshop, engine: EnginePool, console: RecordingConsole, model_folder: Path
) -> None:
    """A chat template that opens a thinking block is refused for choices; switching it off mends that."""
    job_folder = workshop.folder / "shop"
    job_folder.mkdir()
    thinker = job_folder / "thinker"
    thinker.mkdir()
    for file in model_folder.iterdir():
        if file.name != "chat_template.jinja":
            (thinker / file.name).symlink_to(file)
    plain = (model_folder / "chat_template.jinja").read_text(encoding="utf-8")
    switch = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    (thinker / "chat_template.jinja").write_text(plain + switch, encoding="utf-8")
    model = {"id": "./thinker", "options": {"max_model_len": 512}}
    job, data = workshop.job({"text": ["Good."]}, model=model, output=CHOICE)
    with pytest.raises(ModelError, match=r"thinking block.*enable_thinking: false"):
        run(job, data, Options(), console, engine)
    quiet = {"template": "{{ text }}", "chat_template_kwargs": {"enable_thinking": False}}
    job, data = workshop.job({"text": ["Good."]}, model=model, prompt=quiet, output=CHOICE)
    assert run(job, data, Options(yes=True), console, engine).generated == 1


def test_ctrl_c_on_the_real_command_commits_and_resumes(workshop: Workshop, engine_slot: EngineSlot) -> None:
    """The command stops on Ctrl-C with 130 and a sentence, leaves no process, and the next run makes only the rest."""
    engine_slot.close()  # the command loads its own
    words = pa.table({"text": [f"Write a few lines about the number {i}." for i in range(2000)]})
    job, data = workshop.job(words, sampling={"max_tokens": 16}, output={"type": "text", "steps": ["strip"]})
    command = [sys.executable, "-m", "batchinfer", "--home", str(data.root), "run", str(job.folder), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        store = Store(data.cache)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and (not data.cache.exists() or not _generations(store)):
            time.sleep(0.5)
            assert process.poll() is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole group
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "go on" in errors
    made = _generations(store)
    assert 0 < made < 2000
    [report] = store.runs()
    assert report.status == "interrupted"
    assert adds_up(report.to_json())
    assert report.report["generated"] + report.report["failures"] == made
    assert str(report.finished_at) <= str(iso(now()))
    assert _children_named(str(job.folder)) == []


def _generations(store: Store) -> int:
    with store.open() as db:
        return int(db.execute("SELECT count(*) FROM generations").fetchall()[0][0])


def _children_named(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
    return found


def test_scores_and_parquet_agree_with_what_is_served(
    workshop: Workshop, engine: EnginePool, console: RecordingConsole
) -> None:
    """predictions.parquet has the key, prediction, raw text, scores, mass, source, model, run and time of each entry."""
    job, data = workshop.job({"text": ["Good.", "Bad."]}, output=CHOICE)
    run(job, data, Options(), console, engine)
    rows = pq.read_table(folder_of(data, 1) / "predictions.parquet").to_pylist()
    assert {row["text"] for row in rows} == {"Good.", "Bad."}
    for row in rows:
        body = lookup(data, text=row["text"])
        assert body is not None
        assert body["prediction"] == row["prediction"]
        assert body["scores"] == json.loads(row["scores"])
        assert 0 < row["mass"] <= 1
        assert (row["source"], row["run_id"], row["carried"]) == ("model", 1, False)
