"""Prompts compared on golden rows, from files to a chosen arm, with a scorer that follows a script."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.core.home import JobData
from batchinfer.core.person import Nobody
from batchinfer.core.records import Message
from batchinfer.errors import BatchinferError, InputError, Interrupted, UsageError
from batchinfer.evaluate.arms import Axes
from batchinfer.evaluate.experiment import EvalOptions
from batchinfer.evaluate.prompts import compare_prompts, dry_run
from batchinfer.evaluate.report import EvalReport
from batchinfer.evaluate.select import chosen_text
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.job.replaced import difference, write_job_file
from batchinfer.maintenance.erase import erase_entry
from batchinfer.pipeline.history import failures, runs
from batchinfer.pipeline.prune import prune
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.evaluate.scorer import ScriptedScorer, noisy, rated_job, rows, shots_of
from tests.factories import Templates, write
from tests.tiny import RecordingConsole, make_job, press

FEW_SHOT = EvalOptions(Axes(shots=(0, 2, 4), draws=2))


def worse_with_examples(messages: Sequence[Message]) -> float:
    """Right without examples, and the noisier the more there are."""
    return noisy(messages[-1][1], 0.3 if not shots_of(messages) else 0.98, str(shots_of(messages)))


def better_with_examples(messages: Sequence[Message]) -> float:
    """The other way round."""
    return noisy(messages[-1][1], 0.98 if not shots_of(messages) else 0.3 + 0.01 * shots_of(messages))


def compare(job: Job, data: JobData, says: Any, options: EvalOptions = FEW_SHOT) -> tuple[EvalReport, ScriptedScorer]:
    """A comparison with a scorer of its own."""
    scorer = ScriptedScorer(says)
    return compare_prompts(job, data, options, RecordingConsole(), scorer)[0], scorer


def compared_job(folder: Path, tiny: Path) -> None:
    """A job after its first comparison, of five arms."""
    job, data = rated_job(folder, tiny, rows(80), rows(20, 100))
    compare(job, data, worse_with_examples)


@pytest.fixture
def compared(templates: Templates, tmp_path: Path, tiny: Path) -> tuple[Job, JobData]:
    """The same, for tests that go on from there."""
    templates.copy(compared_job, tmp_path, tiny)
    return reader.load(str(tmp_path / "rated"), {}), JobData(tmp_path / "home", "rated")


@pytest.mark.long
def test_examples_that_make_it_worse_are_not_chosen(tmp_path: Path, tiny: Path) -> None:
    """The job's own zero-shot prompt is the baseline and is chosen; arms with examples read worse; the second time nothing is asked."""
    job, data = rated_job(tmp_path, tiny, rows(80), rows(20, 100))
    report, scorer = compare(job, data, worse_with_examples)
    assert [arm.name for arm in report.arms] == ["0-shot", "2-shot/1", "2-shot/2", "4-shot/1", "4-shot/2"]
    assert (report.chosen, report.baseline, report.dev, report.test) == ("0-shot", "0-shot", 40, 40)
    assert [str(arm.judged.verdict) for arm in report.arms if arm.judged] == ["baseline", *["worse"] * 4]
    # The chosen arm is the baseline: the others are asked of the rows to choose on alone.
    assert report.generated == len(scorer.asked) == 80 + 4 * 40
    again, silent = compare(job, data, worse_with_examples)
    assert (again.generated, silent.asked) == (0, [])
    assert [arm.judged for arm in again.arms] == [arm.judged for arm in report.arms]
    assert [(past.status, past.report["eval"]) for past in runs(data)] == [("eval", 1)] * 5


@pytest.mark.long
def test_answers_of_an_arm_are_hits_of_the_job(compared: tuple[Job, JobData]) -> None:
    """A run of the job afterwards asks only the rows that no arm was asked with its prompt, and is not told of changes."""
    job, data = compared
    console = RecordingConsole()
    report = run(job, data, Options(), console, ScriptedScorer(worse_with_examples))
    assert (report.unique, report.cached, report.generated) == (101, 80, 21)
    assert console.questions == []
    assert failures(data, None).remaining == 0


@pytest.mark.long
def test_the_better_arm_is_chosen_tested_and_written(tmp_path: Path, tiny: Path) -> None:
    """It is tested on the other half beside the baseline; the job file gets its examples, keeps its comments, and finds its answers."""
    job, data = rated_job(tmp_path, tiny, rows(160), rows(20, 200))
    job.path.write_text("# mine\n" + job.path.read_text().replace("prompt:", "prompt:  # asks"), encoding="utf-8")
    job = reader.load(str(job.path), {})
    scorer = ScriptedScorer(better_with_examples)
    report, arm = compare_prompts(job, data, FEW_SHOT, RecordingConsole(), scorer)
    assert report.chosen is not None
    assert report.chosen.startswith("2-shot")
    assert report.tested is not None
    assert report.tested.chosen.value > report.tested.baseline.value
    assert report.tested.p is not None
    assert report.tested.p < 0.05
    assert len(scorer.asked) == report.generated == 160 + 4 * 80 + 80

    text = chosen_text(job, arm)
    assert "+  shots: all" in difference(job, text)
    write_job_file(job, text)
    assert text.startswith("# mine\n")
    assert "prompt:  # asks" in text
    job = reader.load(str(job.path), {})
    assert job.spec.prompt is not None
    assert len(job.spec.prompt.examples) == 2
    after = run(job, data, Options(publish=False), RecordingConsole(), ScriptedScorer(better_with_examples))
    assert after.cached == 160
    report, _ = compare(job, data, better_with_examples)  # it is the baseline now, and none of the others is better
    assert (report.baseline, report.generated) == (report.chosen, 0)


@pytest.mark.long
def test_what_is_left_on_disk(compared: tuple[Job, JobData]) -> None:
    """report.json is what --json prints; results.parquet has each row of each arm, those to report on only where they were looked at."""
    job, data = compared
    report, _ = compare(job, data, worse_with_examples)
    folder = data.evals / "2"
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    results = pq.read_table(folder / "results.parquet").to_pylist()
    assert {(row["arm"], row["half"]) for row in results if row["half"] == "test"} == {("0-shot", "test")}
    assert len(results) == 5 * 40 + 40
    assert all(json.loads(row["scores"])["Positive"] == pytest.approx(row["mark"]) for row in results)
    assert all(row["prompt_tokens"] > 0 for row in results)


def test_the_json_of_the_contract(compared: tuple[Job, JobData]) -> None:
    """The fields that programs rely on are there, with the types that they expect."""
    content = json.loads((compared[1].evals / "1" / "report.json").read_text(encoding="utf-8"))
    assert content["golden"] == {"dev": 40, "test": 40}
    arm = content["arms"][1]
    for name, kind in {
        "arm": str, "shots": int, "draw": int, "model": str, "rows": int, "value": float, "low": float, "high": float,
        "wins": int, "losses": int, "p": float, "verdict": str,
    }.items():  # fmt: skip
        assert isinstance(arm[name], kind), name
    assert content["test"]["chosen"].keys() == content["test"]["baseline"].keys() == {"value", "low", "high"}
    assert content["job"] == "rated"
    assert content["metric"] == "auc"
    assert 0 < content["smallest_difference"] < 1


def test_a_dry_run_asks_nothing(tmp_path: Path, tiny: Path) -> None:
    """It says what the cache lacks and what so many rows can show, and leaves no data folder."""
    job, data = rated_job(tmp_path, tiny, rows(80), rows(20, 100))
    report = dry_run(job, data, FEW_SHOT, RecordingConsole())
    assert [(arm.cached, arm.to_generate) for arm in report.arms] == [(0, 80), *[(0, 40)] * 4]
    assert report.smallest_difference is not None
    assert report.rows_for_5_points > 1000
    assert not data.root.exists()


def test_a_dry_run_afterwards_finds_all_in_the_cache(compared: tuple[Job, JobData]) -> None:
    """Nothing is left to ask of any arm."""
    assert {arm.to_generate for arm in dry_run(*compared, FEW_SHOT, RecordingConsole()).arms} == {0}


def test_rows_to_report_on_are_never_chosen_on(tmp_path: Path, tiny: Path) -> None:
    """New golden rows move none of the old ones to the other half."""
    job, data = rated_job(tmp_path, tiny, rows(80))
    own = EvalOptions()
    first, _ = compare(job, data, worse_with_examples, own)
    more = rows(100)
    write(
        job.folder / "golden.parquet",
        {"text": more, "answer": ["Positive" if text[0] == "g" else "Negative" for text in more]},
    )
    second, _ = compare(job, data, worse_with_examples, own)
    assert (second.dev, second.test) == (50, 50)

    def half(report: EvalReport) -> dict[str, str]:
        return {
            row["query"]: row["half"]
            for row in pq.read_table(data.evals / str(report.number) / "results.parquet").to_pylist()
        }

    assert half(first).items() <= half(second).items()


def test_rows_that_people_answered_are_asked(tmp_path: Path, tiny: Path) -> None:
    """An import for each golden row would spare the model the question, and is no answer of the model's."""
    from batchinfer.review.predictions import import_predictions

    job, data = rated_job(tmp_path, tiny, rows(80))
    known = write(tmp_path / "known.parquet", {"text": rows(80), "prediction": ["Positive"] * 80})
    import_predictions(job, data, known, "a test")
    report, scorer = compare(job, data, worse_with_examples, EvalOptions())
    assert len(scorer.asked) == report.generated == 80


def test_a_row_without_a_prediction_is_wrong(tmp_path: Path, tiny: Path) -> None:
    """An arm that fails on half of the rows is asked to its end, and is no better for it."""

    def fails(messages: Sequence[Message]) -> float | None:
        return None if shots_of(messages) and messages[-1][1][-1] in "13579" else noisy(messages[-1][1], 0.1)

    job, data = rated_job(tmp_path, tiny, rows(80), rows(20, 100))
    report, _ = compare(job, data, fails, EvalOptions(Axes(shots=(0, 2))))
    assert report.arms[1].failed == 20
    assert report.arms[1].judged is not None
    assert (str(report.arms[1].judged.verdict), report.arms[1].judged.figure.value) == ("worse", 0.0)


@pytest.mark.long
def test_templates_systems_and_accuracy(tmp_path: Path, tiny: Path) -> None:
    """Files give arms of their own; without positive the metric is accuracy; columns that golden rows lack come from the list."""

    def says(messages: Sequence[Message]) -> float:
        asked = messages[-1][1]
        return noisy(asked.removesuffix("!"), 0.1 if asked.endswith("!") else 0.9)

    job, data = rated_job(tmp_path, tiny, rows(80))
    write(job.folder / "queries.parquet", {"text": rows(90), "mark": ["!"] * 90})
    (tmp_path / "loud.txt").write_text("{{ text }}{{ mark }}\n", encoding="utf-8")
    (tmp_path / "calm.txt").write_text("Be calm.\n", encoding="utf-8")
    content = job.path.read_text().replace("  metric: auc\n  positive: Positive\n", "")
    job.path.write_text(content, encoding="utf-8")
    job = reader.load(str(job.path), {})
    axes = Axes(templates=(tmp_path / "loud.txt",), systems=(tmp_path / "calm.txt",))
    report, arm = compare_prompts(job, data, EvalOptions(axes), RecordingConsole(), ScriptedScorer(says))
    loud, calm = f"+{tmp_path}/loud.txt", f"+{tmp_path}/calm.txt"
    assert [arm.name for arm in report.arms] == ["0-shot", f"0-shot{calm}", f"0-shot{loud}", f"0-shot{loud}{calm}"]
    assert (report.metric, report.chosen) == ("accuracy", f"0-shot{loud}")
    assert report.cut_off is not None
    assert report.cut_off.test > 0.9
    write_job_file(job, chosen_text(job, arm))
    assert reader.load(str(job.path), {}).spec.prompt == arm.job.spec.prompt.model_copy(update={"shots": "all"})  # type: ignore[union-attr]


# --- bad input


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"pool": ["good-1", "bad-2", "bad-100"]}, FEW_SHOT, "are golden rows of .*: text=good-1; text=bad-2: remove them"),
        ({"golden": rows(8)}, FEW_SHOT, "8 golden rows, of which 4 are to choose on, cannot show any difference between 5 arms: .* needs"),
        ({"golden": ["good-1", "good-2", "good-3"]}, FEW_SHOT, "too few rows for an area under the ROC curve"),
        ({"answer": "Poistive"}, FEW_SHOT, "row 1: the answer 'Poistive' is not one of output.choices"),
        ({"label": "Poistive"}, FEW_SHOT, "The pool .*, row 1: the answer 'Poistive' is not one of output.choices"),
        ({"eval": None}, FEW_SHOT, "has no golden rows to compare prompts by: name a Parquet file"),
        ({}, EvalOptions(Axes(shots=(500,))), "--shots 500: eval.pool has only 20 examples."),
        ({}, EvalOptions(Axes(draws=3)), "--draws goes with --shots"),
        ({}, EvalOptions(Axes(shots=(0, 2)), "2-sot"), "--baseline: there is no arm 2-sot; did you mean 2-shot?"),
        ({}, EvalOptions(Axes(templates=(Path("no.txt"),))), "no.txt cannot be read"),
        ({"file": "Hello?"}, EvalOptions(Axes(templates=(Path("file.txt"),))), "file.txt has 1 problem:\n .* uses no column"),
        ({"file": "{{ txet }}"}, EvalOptions(Axes(templates=(Path("file.txt"),))), "has no column txet: did you mean text?"),
    ],
)  # fmt: skip
def test_bad_input(
    tmp_path: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    options: EvalOptions,
    sentence: str,
) -> None:
    """Golden rows, pools and arms that cannot be compared are refused before anything is asked or made."""
    monkeypatch.chdir(tmp_path)
    sections = {"eval": None} if "eval" in change else {}
    job, data = rated_job(tmp_path, tiny, change.get("golden", rows(80)), change.get("pool", rows(20, 100)), **sections)
    if "label" in change:
        write(job.folder / "labels.parquet", {"text": ["good-1"], "answer": [change["label"]]})
    if "answer" in change:
        write(job.folder / "golden.parquet", {"text": ["good-1"], "answer": [change["answer"]]})
    Path("file.txt").write_text(change.get("file", ""), encoding="utf-8")
    with pytest.raises(BatchinferError, match=sentence) as refused:
        compare(job, data, worse_with_examples, options)
    assert refused.value.exit_code == 2
    assert not data.folder.exists()


def test_shown_examples_must_not_be_golden(tmp_path: Path, tiny: Path) -> None:
    """The job file's own examples are refused, too, where they are golden rows."""
    shown = [{"input": {"text": "good-3"}, "output": "Positive"}]
    job, data = rated_job(tmp_path, tiny, rows(80), prompt={"template": "{{ text }}", "examples": shown})
    with pytest.raises(InputError, match=r"prompt.examples of .* has rows that are golden rows .*: text=good-3"):
        compare(job, data, worse_with_examples, EvalOptions())


def test_a_job_of_imports_has_no_prompt(tmp_path: Path) -> None:
    """There is nothing to compare."""
    job, data = make_job(tmp_path / "shop", {"text": ["a"]})
    with pytest.raises(UsageError, match="has no prompt to compare with others"):
        compare(job, data, worse_with_examples)


def test_likelihoods_are_compared_with_no_golden_answer(tmp_path: Path, tiny: Path) -> None:
    """A number is never equal to a right answer, so nothing is asked."""
    output = {"type": "likelihood", "text": "{{ text }}"}
    job, data = make_job(tmp_path / "shop", {"text": ["a"]}, tiny, output=output)
    with pytest.raises(UsageError, match=r"^The answers of shop are likelihoods, numbers that no golden answer can be"):
        compare(job, data, worse_with_examples)


@pytest.mark.long
def test_a_stopped_comparison_goes_on(tmp_path: Path, tiny: Path) -> None:
    """What was answered before Ctrl-C is not asked again."""
    job, data = rated_job(tmp_path, tiny, rows(80), rows(20, 100))
    scorer = ScriptedScorer(worse_with_examples)
    console = RecordingConsole(at={100: press(signal.SIGINT)})
    with pytest.raises(Interrupted):
        compare_prompts(job, data, FEW_SHOT, console, scorer)
    report, again = compare(job, data, worse_with_examples)
    assert 100 <= len(scorer.asked) < 240
    assert len(scorer.asked) + len(again.asked) == 240
    assert report.generated == len(again.asked)


@pytest.mark.long
def test_an_erased_row_leaves_nothing(compared: tuple[Job, JobData]) -> None:
    """Answers of all arms to it go, the rows of reports, and its place in the split."""
    job, data = compared
    erased = erase_entry(job, data, {"text": "good-7"})
    asked = pq.read_table(data.evals / "1" / "results.parquet")["query"].to_pylist()
    assert '{"text": "good-7"}' not in asked
    assert '{"text": "good-9"}' in asked
    again, scorer = compare(job, data, worse_with_examples)
    assert {messages[-1][1] for messages in scorer.asked} == {"good-7"}
    assert again.generated == erased.rows.generations == erased.evals
    assert not any(b"good-7" in path.read_bytes() for path in (data.evals / "1").iterdir())


def test_what_prune_would_remove_of_a_comparison(compared: tuple[Job, JobData]) -> None:
    """Answers of other arms, which it says; those to golden rows with the job's own prompt stay, which the list has no more."""
    job, data = compared
    write(job.folder / "queries.parquet", {"text": ["good-listed"]})
    report = prune(job, data, Nobody(), dry_run=True)
    assert (report.rows.compared, report.rows.generations, report.left) == (160, 160, 80)
    assert "(160 of them to other prompts that batchinfer eval compared)" in str(report.rows)


def test_each_model_is_an_arm(tmp_path: Path, tiny: Path) -> None:
    """Another model's answers are its own; it has neither the adapter nor the revision of the job's."""
    job, data = rated_job(tmp_path, tiny, rows(80))
    other = shutil.copytree(tiny, tmp_path / "other")
    (other / "generation_config.json").write_text("{}", encoding="utf-8")
    report, scorer = compare(job, data, worse_with_examples, EvalOptions(Axes(models=(str(other),))))
    assert [(arm.name, arm.model) for arm in report.arms] == [("0-shot", str(tiny)), (f"0-shot@{other}", str(other))]
    assert len(scorer.asked) == 80 + 40
    assert report.arms[1].judged is not None
    assert (report.arms[1].judged.wins, report.arms[1].judged.losses) == (0, 0)


def test_a_server_s_name_of_one_model_is_no_other_s(tmp_path: Path, tiny: Path) -> None:
    """By that name the same model would be asked for both, and its answers stay under the other's key."""
    engine = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "served_model_name": "ours", "trust_model": True}
    job, data = rated_job(tmp_path, tiny, rows(4), engine=engine)
    with pytest.raises(UsageError, match=rf"--model org/b: engine.served_model_name is what the server calls {tiny}"):
        compare(job, data, worse_with_examples, EvalOptions(Axes(models=("org/b",))))


@pytest.mark.long
def test_a_prior_is_compared_without_asking_twice(tmp_path: Path, tiny: Path) -> None:
    """A model that says Positive of all rows, but less of bad ones, is right once its scores are divided by their means."""
    job, data = rated_job(tmp_path, tiny, rows(80), eval={"golden": {"path": "golden.parquet"}, "metric": "accuracy"})

    def biased(messages: Sequence[Message]) -> float:
        return 0.9 if messages[-1][1].startswith("good") else 0.6

    scorer = ScriptedScorer(biased)
    options = EvalOptions(Axes(priors=("none", "list")))
    planned = dry_run(job, data, options, RecordingConsole())
    report, arm = compare_prompts(job, data, options, RecordingConsole(), scorer)
    assert [each.to_generate for each in planned.arms] == [each.to_generate for each in report.arms] == [80, 0]
    assert [each.name for each in report.arms] == ["0-shot", "0-shot+prior"]
    assert (report.chosen, len(scorer.asked)) == ("0-shot+prior", 80)
    assert report.tested is not None
    assert (report.tested.baseline.value, report.tested.chosen.value) == (0.5, 1.0)
    assert "prior: list" in chosen_text(job, arm)
    golden = {"golden": {"path": "golden.parquet"}}
    text_job = rated_job(tmp_path / "other", tiny, rows(8), output={"type": "text"}, eval=golden)
    with pytest.raises(UsageError, match=r"--prior list: it is of choices, but output.type is text"):
        dry_run(*text_job, options, RecordingConsole())
