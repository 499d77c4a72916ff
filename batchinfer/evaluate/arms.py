"""Arms: the prompts that are compared, each a job of its own that differs from the job file in examples, texts or model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from batchinfer.core.files import why_unread
from batchinfer.core.home import JobData
from batchinfer.core.keys import canonical_json, short
from batchinfer.errors import UsageError, counted, did_you_mean
from batchinfer.evaluate.labelled import LabelledRows
from batchinfer.job.engine_spec import ServerSpec
from batchinfer.job.model_spec import ModelSpec
from batchinfer.job.reader import Job
from batchinfer.planning import question as questions
from batchinfer.planning.question import Question
from batchinfer.prompting.spec import Example, PromptSpec
from batchinfer.prompting.template import PromptTemplate

OWN = "job"  # the name of the job file's own prompt, where it is none of the arms that were asked for
Shots = int | Literal["all"]
Prior = Literal["none", "list"]


@dataclass(frozen=True, slots=True)
class Axes:
    """What arms differ in, as a person asked for it. Each of one is combined with each of the others.

    shots: how many examples; none to leave the job file's.
    draws: of examples, for each number of them.
    models: beside the job file's.
    templates: files, beside the job file's template.
    systems: files, beside the job file's system text.
    priors: of output.prior; none to leave the job file's.
    """

    shots: tuple[Shots, ...] = ()
    draws: int = 1
    models: tuple[str, ...] = ()
    templates: tuple[Path, ...] = ()
    systems: tuple[Path, ...] = ()
    priors: tuple[Prior, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the prompts that are compared.

    name: for people, and for --baseline.
    shots: how many examples it shows.
    draw: which draw of them, from 1; 0 where nothing was drawn.
    model: its id.
    job: the job file with this prompt.
    question: the same, made ready.
    prior: by which its choices are read, in place of the job file's.
    """

    name: str
    shots: int
    draw: int
    model: str
    job: Job
    question: Question
    prior: Prior = "none"

    @property
    def identity(self) -> tuple[bytes, Prior]:
        """What tells arms apart: the question, and how its answers are read."""
        return self.question.fingerprint, self.prior


@dataclass(frozen=True, slots=True)
class _Shown:
    """Examples that an arm shows.

    name: of the arm, as far as they give it.
    draw: which of several draws they are; 0 without examples.
    examples: in the order in which they are shown.
    """

    name: str
    draw: int
    examples: tuple[Example, ...]


def prompts(job: Job, axes: Axes) -> list[tuple[str, PromptSpec]]:
    """The job file's template and system text, and those of files, combined; each with its part of an arm's name."""
    assert job.spec.prompt is not None
    templates = [("", job.spec.prompt.template), *((f"+{path}", _text(path)) for path in axes.templates)]
    systems = [("", job.spec.prompt.system), *((f"+{path}", _text(path)) for path in axes.systems)]
    for name, template in templates[1:]:
        PromptTemplate(PromptSpec(template=template), [], name.removeprefix("+"))
    return [
        (name + other, job.spec.prompt.model_copy(update={"template": template, "system": system}))
        for (name, template), (other, system) in itertools.product(templates, systems)
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} cannot be read: {why_unread(exc)}.") from exc


def template_columns(prompts: Sequence[tuple[str, PromptSpec]], path: str) -> list[str]:
    """The columns that any of these templates uses."""
    used = (PromptTemplate(prompt, [], path).columns for _, prompt in prompts)
    return list(dict.fromkeys(itertools.chain.from_iterable(used)))


def examples_of(pool: LabelledRows, columns: Sequence[str]) -> list[Example]:
    """The rows of a pool as examples, in its order."""
    return [
        Example(
            input={name: _plain(values[name]) for name in columns},
            output=answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
        )
        for values, answer in zip(pool.values, pool.answers, strict=True)
    ]


def _plain(value: object) -> object:
    """A value as a job file can have it; a date is the text that a template would make of it."""
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def drawn(pool: Sequence[Example], draw: int, choose: str) -> list[Example]:
    """All examples in an order that is chance, and the same each time; fewer are its beginning, so that prefixes are shared.

    choose: random, or balanced, where the answers take turns.
    """

    def rank(example: Example) -> bytes:
        return short(f"{draw}:{canonical_json([example.input, example.output])}".encode())

    order = sorted(pool, key=rank)
    if choose == "random":
        return order
    groups: dict[str, list[Example]] = {}
    for example in order:
        groups.setdefault(example.output, []).append(example)
    turns = itertools.zip_longest(*groups.values())
    return [example for turn in turns for example in turn if example is not None]


def make_arms(
    job: Job, data: JobData, axes: Axes, texts: Sequence[tuple[str, PromptSpec]], pool: Sequence[Example] | None
) -> list[Arm]:
    """All arms, the job file's own among them, each prompt once.

    texts: as `prompts` gives them. pool: the examples to draw from; None for those of the job file. Raises UsageError,
    SpecError, InputError or ModelError.
    """
    own = questions.make(job, data)
    priors = axes.priors or (job.spec.output.prior,)
    if "list" in axes.priors and job.spec.output.choices is None:
        raise UsageError(f"--prior list: it is of choices, but output.type is {job.spec.output.type}.")
    arms = [
        _with_prior(_arm(job, data, shown, text, model), prior, named=bool(axes.priors))
        for model, text, shown, prior in itertools.product(
            _models(job, axes), texts, list(_shown(job, own, axes, pool)), priors
        )
    ]
    found = {arm.identity: arm for arm in reversed(arms)}
    unique = [arm for arm in arms if found[arm.identity] is arm]
    if (own.fingerprint, job.spec.output.prior) in found:
        return unique
    return [
        Arm(
            OWN,
            len(own.examples),
            0,
            own.spec.model.id if own.spec.model else "",
            _job_of_arm(job, job.spec.prompt),
            own,
            job.spec.output.prior,
        ),
        *unique,
    ]


def baseline_of(arms: Sequence[Arm], job: Job, data: JobData, name: str | None) -> int:
    """The place of the arm that others are compared with: the one of that name, else the job file's own. Raises UsageError."""
    if name is None:
        own = (questions.make(job, data).fingerprint, job.spec.output.prior)
        return next(place for place, arm in enumerate(arms) if arm.identity == own)
    names = [arm.name for arm in arms]
    if name not in names:
        hint = did_you_mean(name, names) or f"there are {', '.join(names)}."
        raise UsageError(f"--baseline: there is no arm {name}; {hint}")
    return names.index(name)


def _models(job: Job, axes: Axes) -> list[tuple[str, ModelSpec]]:
    """The job file's model and the others, each with what is added to an arm's name. Raises UsageError."""
    own, engine = job.spec.model, job.spec.engine
    assert own is not None
    differing = [name for name in axes.models if name != own.id]
    if differing and isinstance(engine, ServerSpec) and engine.served_model_name is not None:
        raise UsageError(
            f"--model {differing[0]}: engine.served_model_name is what the server calls {own.id}, and would be asked in its place: leave "
            "it out, and have each model listed by its own name."
        )
    # A revision, an adapter and a quantisation are of one model; options may be of all.
    others = [
        own.model_copy(update={"id": name, "revision": None, "adapter": None, "quantization": None})
        for name in differing
    ]
    return [("", own), *((f"@{model.id}", model) for model in others)]


def _shown(job: Job, own: Question, axes: Axes, pool: Sequence[Example] | None) -> Iterator[_Shown]:
    """The examples of each number and draw."""
    if not axes.shots:
        if axes.draws > 1:
            raise UsageError("--draws goes with --shots: it is examples that are drawn.")
        yield _Shown(f"{len(own.examples)}-shot", 0, own.examples)
        return
    every = questions.examples_in_file(job) if pool is None else pool
    for shots in axes.shots:
        count = len(every) if shots == "all" else shots
        if count > len(every):
            where = "prompt.examples has" if pool is None else "eval.pool has"
            raise UsageError(f"--shots {count}: {where} only {counted(len(every), 'example')}.")
        for draw in range(1, (axes.draws if count else 1) + 1):
            listed = pool is None and draw == 1
            order = every if listed else drawn(every, draw, job.spec.eval.choose)
            name = f"{count}-shot" + (f"/{draw}" if axes.draws > 1 and count else "")
            yield _Shown(name, draw if count else 0, tuple(order[:count]))


def _arm(job: Job, data: JobData, shown: _Shown, text: tuple[str, PromptSpec], model: tuple[str, ModelSpec]) -> Arm:
    prompt = text[1].model_copy(update={"examples": list(shown.examples), "shots": "all"})
    arm_job = _job_of_arm(job, prompt, model[1])
    name = shown.name + text[0] + model[0]
    return Arm(name, len(shown.examples), shown.draw, model[1].id, arm_job, questions.make(arm_job, data))


def _with_prior(arm: Arm, prior: Prior, *, named: bool) -> Arm:
    """The same arm, read with this prior."""
    return replace(arm, prior=prior, name=arm.name + ("+prior" if named and prior == "list" else ""))


def _job_of_arm(job: Job, prompt: PromptSpec | None, model: ModelSpec | None = None) -> Job:
    """The job with this prompt and model, and a list that is given as it is asked."""
    given: dict[str, Any] = {
        "path": "golden.parquet",
        "job": None,
        "explode": None,
        "as_": None,
        "where": {},
        "include_misses": None,
    }
    chosen = model or job.spec.model
    update = {
        "prompt": prompt,
        "input": job.spec.input.model_copy(update=given),
        "model": None if chosen is None else chosen.model_copy(update={"cascade": None}),
    }
    return replace(job, spec=job.spec.model_copy(update=update))
