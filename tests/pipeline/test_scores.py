"""Scores of choices, against the model's own logits: the same weights, loaded by transformers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.home import JobData
from batchinfer.core.records import Prompt
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline.run import run
from batchinfer.planning import question
from batchinfer.planning.prepare import Options
from batchinfer.planning.prompts import PromptMaker
from tests.conftest import MODEL, WINDOW, EngineSlot, Workshop
from tests.tiny import RecordingConsole

JOBS = Path(__file__).parents[2] / "jobs"
SENTIMENT, FRUITS = JOBS / "sentiment", JOBS / "fruit_families"
SHOWN = ["peach", "raspberry", "pear", "cucumber"]
# Ten scripts, five words each: Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, Han, Kana, Hangul.
TERMS = """
water vaccine apple Wasser agua νερό εμβόλιο μήλο ουρανός δρόμος вода вакцина яблоко небо дорога מים חיסון תפוח שמיים דרך
ماء لقاح تفاحة سماء طريق पानी टीका सेब आकाश सड़क น้ำ วัคซีน แอปเปิล ท้องฟ้า ถนน 水 疫苗 苹果 天空 道路
みず ワクチン りんご そら みち 물 백신 사과 하늘 길
"""
FLOAT32 = {"id": MODEL, "dtype": "float32", "options": {"max_model_len": WINDOW}}
ROWS = 24
TOLERANCE = 1e-3  # of a probability; float32 on both sides, since bfloat16 rounds a logit of 16 to eighths

REFERENCE = """
import copy, json, os, sys
from batchinfer.engines.environment import hide_vision_packages
hide_vision_packages()
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)  # threads that wait for one another would wait long beside vLLM's
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
torch.set_grad_enabled(False)
print("loaded", flush=True)
for line in sys.stdin:
    answers, asked = [], json.loads(line)
    head = os.path.commonprefix([prompt[:-2] for prompt, _ in asked])
    shared = model(torch.tensor([head])).past_key_values
    for prompt, continuations in asked:
        size = max(map(len, continuations))
        # Tokens behind the end change nothing before them.
        fed = torch.tensor([prompt[-1:] + ids[:-1] + [0] * (size - len(ids)) for ids in continuations])
        past = model(torch.tensor([prompt[len(head):-1]]), past_key_values=copy.deepcopy(shared)).past_key_values
        past.batch_repeat_interleave(len(continuations))
        logprobs = torch.log_softmax(model(fed, past_key_values=past).logits.double(), -1)
        answers.append([
            sum(row[place, token].item() for place, token in enumerate(ids)) for row, ids in zip(logprobs, continuations)
        ])
    print(json.dumps(answers), flush=True)
"""


class Reference:
    """The model as transformers computes it in float32, in a process of its own: it loads while vLLM does."""

    def __init__(self, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", REFERENCE, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._loaded = False

    def logprobs(self, asked: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> list[list[float]]:
        """For each prompt the log-probability of each of its continuations, all given as token ids."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._loaded:
            self._loaded = self._process.stdout.readline() == "loaded\n"
        self._process.stdin.write(f"{json.dumps(asked)}\n")
        self._process.stdin.flush()
        answers: list[list[float]] = json.loads(self._process.stdout.readline())
        return answers

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> Iterator[Reference]:
    """Log-probabilities by transformers."""
    process = Reference(model_folder)
    yield process
    process.close()


def prompts_of(job: Job, data: JobData, rows: Sequence[dict[str, Any]], model_folder: Path) -> list[Prompt]:
    """The prompts that a run makes of these rows, in their order."""
    asked = question.make(job, data)
    maker = PromptMaker(job, asked, Tokenizer(str(model_folder), None, {}))
    return maker.prompts([maker.fill(number.to_bytes(16), row) for number, row in enumerate(rows)])


@pytest.mark.slow
def test_scores_are_the_models_own_probabilities(
    workshop: Workshop, engine_slot: EngineSlot, console: RecordingConsole, model_folder: Path, reference: Reference
) -> None:
    """In float32, mass and renormalised scores equal the softmax of transformers' logits at the first answer token."""
    table = pq.read_table(SENTIMENT / "queries.parquet").slice(0, ROWS).rename_columns({"sentence": "text"})
    spec = reader.load(str(SENTIMENT), {}).spec
    job, data = workshop.job(
        table,
        prompt={"system": spec.prompt and spec.prompt.system, "template": "{{ text }}"},
        model=FLOAT32,
        output={"type": "choice", "choices": ["Positive", "Negative"]},
    )
    run(job, data, Options(), console, engine_slot.get(dtype="float32"))
    served = _served(data)

    texts = table["text"].to_pylist()
    tokens = Tokenizer(str(model_folder), None, {}).in_place(["Positive", "Negative"], chat=True)
    prompts = prompts_of(job, data, [{"text": text} for text in texts], model_folder)
    assert not any(prompt.continuations for prompt in prompts)
    truth = reference.logprobs([(prompt.token_ids, [ids[:1] for ids in tokens]) for prompt in prompts])

    for text, logprobs in zip(texts, truth, strict=True):
        positive, negative = map(math.exp, logprobs)
        row = served[text]
        scores = json.loads(row["scores"])
        assert row["mass"] == pytest.approx(positive + negative, abs=TOLERANCE)
        assert scores["Positive"] == pytest.approx(positive / (positive + negative), abs=TOLERANCE)
        assert scores["Positive"] + scores["Negative"] == pytest.approx(1)
        assert row["score"] == scores[row["prediction"]] == max(scores.values())


@pytest.mark.slow
@pytest.mark.parametrize(("form", "rows", "runs"), [("completion", 50, 1), ("chat", 6, 2)])
def test_whole_choices_have_the_models_own_probabilities(
    workshop: Workshop, engine_slot: EngineSlot, console: RecordingConsole, model_folder: Path, reference: Reference,
    form: str, rows: int, runs: int,
) -> None:  # fmt: skip
    """In float32, log-probabilities of choices whose first tokens collide are those of transformers.

    So they are where one choice begins another, and where the engine has computed all of it before.
    """
    fruits = [{"text": fruit} for fruit in pq.read_table(FRUITS / "queries.parquet")["fruit"].to_pylist()[:rows]]
    choices = ["drupe", "drupelet", "pome", "pepo"]
    shown = [{"input": {"text": fruit}, "output": label} for fruit, label in zip(SHOWN, choices, strict=True)]
    job, data = workshop.job(
        pa.Table.from_pylist(fruits),
        name=f"whole-{form}",
        prompt={"format": form, "template": "{{ text }}:", "examples": shown * 3},
        model=FLOAT32,
        output={"type": "choice", "choices": choices},
    )
    for _ in range(runs):
        report = run(job, data, Options(refresh=True), console, engine_slot.get(dtype="float32"))
    assert report.generated == len(fruits)
    assert report.prefix_saving is not None
    assert report.prefix_saving > 0.5

    prompts, served = prompts_of(job, data, fruits, model_folder), _served(data)
    truth = reference.logprobs([(each.token_ids, [part.token_ids for part in each.continuations]) for each in prompts])
    for fruit, logprobs in zip(fruits, truth, strict=True):
        row = served[fruit["text"]]
        scores = json.loads(row["scores"])
        found = [math.log(scores[choice] * row["mass"]) for choice in choices]
        assert found == pytest.approx(logprobs, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "normalize", "rows"), [("completion", "tokens", 50), ("chat", "none", 10)])
def test_a_likelihood_is_the_models_own(
    workshop: Workshop, engine_slot: EngineSlot, console: RecordingConsole, model_folder: Path, reference: Reference,
    form: str, normalize: str, rows: int,
) -> None:  # fmt: skip
    """In float32, log-probabilities of terms in ten scripts are those of transformers, within 0.02 per token."""
    terms = [{"text": f"water {number}", "term": term} for number, term in enumerate(TERMS.split()[-rows:])]
    job, data = workshop.job(
        pa.Table.from_pylist(terms),
        name=f"likelihood-{form}",
        prompt={"format": form, "template": "The word for {{ text }} is:"},
        model=FLOAT32,
        output={"type": "likelihood", "text": "{{ term }}", "normalize": normalize},
    )
    report = run(job, data, Options(), console, engine_slot.get(dtype="float32"))
    assert (report.generated, len({term["term"] for term in terms})) == (rows, rows)

    prompts, served = prompts_of(job, data, terms, model_folder), _served(data)
    parts = [prompt.continuations[0] for prompt in prompts]
    truth = reference.logprobs([(prompt.token_ids, [prompt.continuations[0].token_ids]) for prompt in prompts])
    for term, part, [logprob] in zip(terms, parts, truth, strict=True):
        row = served[term["text"]]
        count = len(part.token_ids)
        assert row["score"] == json.loads(row["prediction"])
        assert row["score"] * part.length / count == pytest.approx(logprob / count, abs=0.02)
        assert part.length == (count if normalize == "tokens" else 1)


@pytest.mark.slow
def test_completion_scores_the_label_after_a_space(model_folder: Path) -> None:
    """In a completion the scored tokens are those that follow the prompt when the label is written after a space."""
    tokenizer = Tokenizer(str(model_folder), None, {})
    labels = ["drupe", "pome", "berry", "nut"]
    tokens = tokenizer.in_place(labels, chat=False)
    [prompt] = tokenizer.encode(["peach: drupe\napple:"], chat=False)
    for label, ids in zip(labels, tokens, strict=True):
        [whole] = tokenizer.encode([f"peach: drupe\napple: {label}"], chat=False)
        assert whole == [*prompt, *ids]


def _served(data: JobData) -> dict[str, dict[str, Any]]:
    path = max(data.versions.glob("0*")) / "predictions.parquet"
    return {row["text"]: row for row in pq.read_table(path).to_pylist()}
