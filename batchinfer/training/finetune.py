"""From labels to a LoRA adapter: gathered, trained, held against people, served once by vLLM, and only then kept.

labels ─► rows ─► training process ─► draft ─► vLLM's scores equal? ─► adapters/<digest>/ beside the job file
                  (asks vLLM first)                                    with provenance.json
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchinfer.core.home import JobData
from batchinfer.core.keys import canonical_json, short
from batchinfer.core.version import __version__
from batchinfer.engines import models
from batchinfer.engines.devices import Placement, hold, place_here
from batchinfer.engines.digests import folder_digest
from batchinfer.engines.protocol import Engine
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.unknown_tokens import PREFIX
from batchinfer.engines.window import window_of
from batchinfer.errors import MissingExtra, UsageError, counted
from batchinfer.job.finetune_spec import FinetuneSpec
from batchinfer.job.reader import Job, placing
from batchinfer.planning.prepare import Options, prepare
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.question import Question
from batchinfer.training.dataset import COMPARED, DataSet, gather
from batchinfer.training.folders import NAMED, alone, drafted, keep
from batchinfer.training.parity import Parity, check_parity
from batchinfer.training.provenance import base_note, libraries, write_note
from batchinfer.training.records import Course, Trained
from batchinfer.training.room import check_room, needed_memory
from batchinfer.training.teacher import StopAsked, TrainingConsole, teach
from batchinfer.training.worth import Worth, worth_of

ADAPTERS = "adapters"
LESS = "set finetune.batch lower, shorten the prompt, or take a smaller model."


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """An adapter that was trained and kept.

    job: its name.
    adapter: its folder, as model.adapter in the job file may name it.
    digest: of the folder's files, in hexadecimal digits.
    base: the model that it is for.
    rows: how many it learned.
    held_from: where the rows come from that it was held against.
    left_out: how many labels were not used, by the reason.
    steps: of the training.
    seconds: of the training alone.
    before, after: what the model is worth on the held-out rows without it and with it.
    parity: how far vLLM's scores are from those of the training process.
    """

    job: str
    adapter: str
    digest: str
    base: str
    rows: int
    held_from: str
    left_out: Mapping[str, int]
    steps: int
    seconds: float
    before: Worth
    after: Worth
    parity: Parity

    @property
    def worse(self) -> list[str]:
        """In what the adapter is no better than the model alone, in words for people; empty where it is better in all."""
        before, after = self.before, self.after
        pairs = {
            "right answers": (before.accuracy, after.accuracy), "area": (before.area, after.area), "loss": (after.loss, before.loss),
        }  # fmt: skip
        return [name for name, (low, high) in pairs.items() if low is not None and high is not None and high <= low]

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "adapter": self.adapter, "digest": self.digest, "base": self.base, "rows": self.rows, "steps": self.steps,
            "seconds": self.seconds, "held_from": self.held_from, "left_out": dict(self.left_out), "before": self.before.to_json(),
            "after": self.after.to_json(), "parity": self.parity.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Assignment:
    """The base model, and what its adapter is to learn.

    question: without an adapter.
    source: a folder or hub id of the model.
    folder: of the model's files; None where they cannot be had.
    dataset: the rows.
    """

    question: Question
    source: str
    folder: Path | None
    dataset: DataSet

    def digest(self, spec: FinetuneSpec, trainer: str) -> str:
        """Of all that a training depends on. trainer: who takes its steps."""
        settings = spec.model_dump(mode="json", exclude={"labels", "licence", "holdout"}) | {"trainer": trainer}
        parts = [self.dataset.digest, settings, self.question.identity.digest, __version__, libraries(trainer)]
        return short(canonical_json(parts).encode()).hex()


def finetune(
    job: Job, data: JobData, options: Options, console: TrainingConsole, stop: StopAsked, engine: Engine | None = None
) -> FinetuneReport:
    """Trains an adapter for the job's model, and keeps it below the job's folder.

    engine: one that serves the base model with adapters in float32, or None to start one. Raises UsageError for a job
    without the section, InputError for labels on golden rows, TooFewRows, ModelError for what cannot be trained or served,
    and Stopped; then the same call goes on from the last checkpoint.
    """
    spec, base = _section(job), _without_adapter(job)
    with placing(base):
        placement = place_here(1, 1)[0]
    trainer = _trainer(spec, placement)
    assignment = _assignment(base, data, spec, options, console)
    data.bind(job.path)
    with alone(data), drafted(job.folder / ADAPTERS) as draft:
        course = _course(assignment, spec, trainer, data, placement, draft)
        console.info(
            f"Learning from {counted(len(course.learned), 'row')}, held against {counted(len(course.held), 'row')} ..."
        )
        with hold([placement], f"batchinfer finetune {job.name}", console.info):
            needed = needed_memory(assignment.folder, spec, assignment.dataset.longest)
            check_room(needed, placement, "The training", LESS)
            learned = teach(course, data.logs / "finetune.log", console, stop)
        console.info("Serving it with vLLM, to compare ...")
        compared = [*course.held, *course.further][:COMPARED]
        parity = check_parity(
            base, data, assignment.question, assignment.source, draft, compared, learned.after, console.info, engine
        )
        positive = _positive(job)
        before, after = (
            worth_of(course.held, scores[: len(course.held)], positive) for scores in (learned.before, learned.after)
        )
        write_note(draft, _provenance(job, assignment, course, learned, (before, after), parity))
        digest = folder_digest(draft)
        folder = job.folder / ADAPTERS / digest[:NAMED]
        keep(draft, folder)
        data.checkpoint.unlink(missing_ok=True)
    dataset = assignment.dataset
    return FinetuneReport(
        job.name, str(folder.relative_to(job.folder)), digest, assignment.question.identity.label, len(dataset.learned), dataset.held_from,
        dataset.left_out, len(learned.losses), learned.seconds, before, after, parity,
    )  # fmt: skip


def _section(job: Job) -> FinetuneSpec:
    if job.spec.finetune is None:
        raise UsageError(
            f"The job {job.name} has no section finetune: add finetune: {{labels: imports}} to {job.path}."
        )
    if job.spec.model is not None and job.spec.model.id.startswith(PREFIX):
        raise UsageError(
            f"The model of {job.name}, {job.spec.model.id}, is at its server alone: only weights that are here can be trained."
        )
    return job.spec.finetune


def _trainer(spec: FinetuneSpec, placement: Placement) -> str:
    """Who takes the steps. Raises MissingExtra."""
    trainer = spec.trainer or ("plain" if placement.is_cpu else "trl")
    if trainer == "trl" and importlib.util.find_spec("trl") is None:
        raise MissingExtra("TRL, which trains on GPUs unless finetune.trainer is plain,", "trl")
    return trainer


def _without_adapter(job: Job) -> Job:
    """The job as the base model alone is asked it: what it learns may become the adapter of a cascade's large one."""
    assert job.spec.model is not None  # a job with the section finetune has one
    model = job.spec.model.model_copy(update={"adapter": None, "cascade": None})
    return replace(job, spec=job.spec.model_copy(update={"model": model}))


def _assignment(
    base: Job, data: JobData, spec: FinetuneSpec, options: Options, console: TrainingConsole
) -> _Assignment:
    with prepare(base, data, options, console.info) as prepared:
        question = prepared.question
        assert question is not None
        assert question.spec.model is not None
        source = models.weights(question.identity, data, console.info)
        tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
        maker = PromptMaker(base, question, tokenizer)
        window = window_of(question.spec.model.options, source, question.identity.revision)
        dataset = gather(prepared, spec, maker, tokenizer, window)
        return _Assignment(question, source, models.files_of(source, question.identity.revision), dataset)


def _course(
    assignment: _Assignment, spec: FinetuneSpec, trainer: str, data: JobData, placement: Placement, draft: Path
) -> Course:
    identity, dataset = assignment.question.identity, assignment.dataset
    return Course(
        assignment.source, identity.revision, identity.label, placement, assignment.digest(spec, trainer), spec.rank, spec.alpha,
        spec.learning_rate, spec.epochs, spec.batch, spec.seed, trainer, dataset.learned, dataset.held, dataset.further, draft,
        data.checkpoint,
    )  # fmt: skip


def _positive(job: Job) -> int | None:
    """The place of the choice whose score an area is about; None where there is none."""
    choices, deciding = job.spec.output.choices or [], job.spec.deciding_choice
    return None if deciding is None else choices.index(deciding)


def _provenance(
    job: Job, assignment: _Assignment, course: Course, learned: Trained, worth: tuple[Worth, Worth], parity: Parity
) -> dict[str, Any]:
    """How an adapter came to be."""
    dataset, spec = assignment.dataset, _section(job)
    before, after = worth
    return {
        "job": job.name, **base_note(assignment.question.identity, assignment.folder),
        "question": assignment.question.fingerprint.hex(),
        "labels": {
            "from": dataset.labels.source, "licence": spec.licence, "counts": dict(dataset.labels.counts),
            "left_out": dict(dataset.left_out),
        },
        "rows": {"learned": dataset.learned_keys, "held_out": dataset.held_keys},
        "settings": spec.model_dump(mode="json", exclude={"labels", "licence"}) | {"trainer": course.trainer},
        "libraries": {"batchinfer": __version__, **learned.libraries},
        "losses": [round(loss, 6) for loss in learned.losses],
        "held_out": {"from": dataset.held_from, "before": asdict(before), "after": asdict(after)},
        "parity": asdict(parity),
    }  # fmt: skip
