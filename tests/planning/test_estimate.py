"""What a run would cost: tokens counted or sampled, what prefix caching saves, time from earlier runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache.schema import RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.job.reader import Job
from batchinfer.planning import estimate, tokens
from batchinfer.planning.estimate import PlanReport, ScoringReport
from batchinfer.planning.prepare import Options, prepare, quiet
from tests.factories import imports_job
from tests.tiny import make_job, numbered

COMPLETION = {"template": "{{ text }}", "format": "completion"}
BLOCKS = {"block_size": 4}


def estimated(job: Job, data: JobData) -> PlanReport:
    with prepare(job, data, Options()) as prepared:
        return estimate.estimate(prepared, quiet)


def shop(folder: Path, tiny: Path, texts: list[str], **prompt: Any) -> tuple[Job, JobData]:
    """A job whose prompts are these texts; the model's tokenizer has a token for each byte."""
    return make_job(folder / "shop", {"text": texts}, tiny, prompt=COMPLETION | prompt, script=BLOCKS)


def test_prompts_are_counted(tmp_path: Path, tiny: Path) -> None:
    """Each prompt's tokens count once for each different prompt; in a chat, those of the template too."""
    plain = estimated(*shop(tmp_path / "plain", tiny, ["abc", "de", "abc"]))
    assert (plain.prompt_tokens, plain.prompt_tokens_exact) == (5, True)
    chat = estimated(*shop(tmp_path / "chat", tiny, ["abc", "de"], format="chat"))
    assert chat.prompt_tokens > plain.prompt_tokens


def test_whole_blocks_that_neighbours_share_are_saved(tmp_path: Path, tiny: Path) -> None:
    """Of a prefix that a prompt shares with the one before it whole blocks are saved, but never its last token."""
    alike = estimated(*shop(tmp_path / "alike", tiny, ["aaaabbbb", "aaaabbbc", "aaaaccccdd"]))
    assert (alike.prompt_tokens, alike.prefix_saving) == (26, round((4 + 4) / 26, 4))
    begun = estimated(*shop(tmp_path / "begun", tiny, ["aaaa", "aaaab"]))
    assert begun.prefix_saving == round(4 / 9, 4)
    other = estimated(*shop(tmp_path / "other", tiny, ["abcdefgh", "bbcdefgh"]))
    assert other.prefix_saving == 0.0


def test_whole_choices_share_their_prompt(tmp_path: Path, tiny: Path) -> None:
    """Each choice is a request with the whole prompt: of all but a prompt's first its whole blocks are saved, and no more."""
    output = {"type": "choice", "choices": ["yes", "yeses"]}
    job, data = make_job(tmp_path / "shop", {"text": ["aaaabb"]}, tiny, prompt=COMPLETION, script=BLOCKS, output=output)
    found = estimated(job, data)
    requests = [len("aaaabb yes\n"), len("aaaabb yeses\n")]
    assert (found.prompt_tokens, found.prefix_saving) == (sum(requests), round(4 / sum(requests), 4))
    assert found.scoring == ScoringReport(2, whole=True, collisions=("yes and yeses begin with ' '",))


def test_a_likelihood_costs_its_prompt_and_its_text(tmp_path: Path, tiny: Path) -> None:
    """Each row is one request: its prompt with the text behind it, and a prefix that two of them share is saved."""
    output = {"type": "likelihood", "text": "{{ term }}"}
    rows = {"text": ["aaaabb", "aaaacc"], "term": ["x", "xyz"]}
    job, data = make_job(tmp_path / "shop", rows, tiny, prompt=COMPLETION, script=BLOCKS, output=output)
    found = estimated(job, data)
    assert (found.counts.to_generate, found.scoring, found.prefix_saving) == (2, None, round(4 / 18, 4))
    assert found.prompt_tokens == len("aaaabb x") + len("aaaacc xyz")


def test_a_long_list_is_sampled(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a size windows of neighbours stand for all; prompts of one length are told exactly all the same."""
    job, data = make_job(tmp_path / "shop", numbered(60), tiny, prompt=COMPLETION, script=BLOCKS)
    whole = estimated(job, data)
    for name, value in (("EXACT_UP_TO", 20), ("WINDOWS", 3), ("WINDOW", 5)):
        monkeypatch.setattr(tokens, name, value)
    sampled = estimated(job, data)
    assert (sampled.prompt_tokens, sampled.prompt_tokens_exact) == (whole.prompt_tokens, False)
    assert sampled.prefix_saving == pytest.approx(whole.prefix_saving, abs=0.2)


@pytest.mark.parametrize(("shared", "saving"), [("", 0.0), ("x" * 60, 0.5)])
def test_few_long_prompts_are_compared_with_each_other(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, shared: str, saving: float
) -> None:
    """Each once, and none with itself: of prompts that are longer than what is looked at, their beginnings."""
    monkeypatch.setattr(tokens, "CHARACTERS", 100)
    monkeypatch.setattr(tokens, "EXACT_CHARACTERS", 10)
    found = estimated(*shop(tmp_path, tiny, [f"{shared}{number:04d}{'y' * 120}" for number in range(10)]))
    assert found.prefix_saving is not None
    if saving:
        assert 0.25 < found.prefix_saving < 0.4  # 60 of 184 characters
    else:
        assert found.prefix_saving < 0.05


def test_no_block_is_shared_where_the_job_says_so(tmp_path: Path, tiny: Path) -> None:
    """Without prefix caching nothing is saved, however alike prompts are."""
    job, data = make_job(
        tmp_path / "shop", {"text": ["aaaabbbb", "aaaabbbc"]}, tiny, prompt=COMPLETION,
        script=BLOCKS | {"enable_prefix_caching": False},
    )  # fmt: skip
    assert estimated(job, data).prefix_saving == 0.0


def test_rows_that_no_prompt_can_be_made_of_cost_nothing(tmp_path: Path, tiny: Path) -> None:
    """They will be failures of the run, and are named with the reason."""
    found = estimated(*shop(tmp_path, tiny, ["ab", "abc"], template="{{ 6 // (text | length - 2) }}"))
    assert (found.counts.to_generate, found.prompt_tokens) == (2, 1)
    [row] = found.no_prompt_rows
    assert (found.no_prompt, row["query"]) == (1, {"text": "ab"})
    assert "division" in row["detail"]


def test_time_is_that_of_the_last_runs(tmp_path: Path, tiny: Path) -> None:
    """Loading and rows at the median rate of the last five runs that generated; nothing is guessed without one."""
    job, data = shop(tmp_path, tiny, [f"text {number}" for number in range(8)])
    assert estimated(job, data).estimate_seconds is None
    data.bind(job.path)
    store = Store(data.cache)
    store.create_or_migrate()
    for rate in [100.0, 4.0, 1.0, 2.0, None, 3.0, 50.0]:  # the oldest is one too many, and one generated nothing
        run_id = store.start_run(b"x", None)
        store.finish_run(run_id, RunStatus.DONE, {"rows_per_second": rate, "engine_load_seconds": 7})
    assert estimated(job, data).estimate_seconds == round(7 + 8 / 3.0, 1)


def test_nothing_to_generate_costs_nothing(tmp_path: Path) -> None:
    """A job of imports, or one whose answers are all there, needs no tokenizer and no time."""
    world = imports_job(tmp_path, {"id": [1]})
    world.take_in({"id": [1], "prediction": ["x"]})
    found = estimated(world.job, world.data)
    assert (found.prompt_tokens, found.prompt_tokens_exact, found.prefix_saving) == (0, True, None)
    assert found.estimate_seconds == 0.0


def test_rows_that_do_not_fit_the_window_are_named(tmp_path: Path, tiny: Path) -> None:
    """Those whose prompt leaves no room for an answer in the window that the job sets; the run makes failures of them."""
    texts = ["short", "x" * 20, "y" * 19, "z" * 25]
    job, data = make_job(tmp_path / "shop", {"text": texts}, tiny, prompt=COMPLETION, script={"max_model_len": 20})
    report = estimated(job, data)
    assert report.too_long == 2
    assert sorted(row["text"][0] for row in report.too_long_rows) == ["x", "z"]
    assert (report.window, report.looked_at) == (20, 4)
    other = estimated(*shop(tmp_path / "other", tiny, texts))
    assert (other.window, other.looked_at, other.too_long) == (None, 0, 0)


def test_the_window_is_the_models_own(tmp_path: Path, tiny: Path) -> None:
    """Where the job sets none, config.json of the model does; options beyond numbers leave it open."""
    model = shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 20}
    (model / "config.json").write_text(json.dumps(config))
    found = estimated(*shop(tmp_path / "own", model, ["short", "x" * 20]))
    assert (found.window, found.too_long) == (20, 1)
