"""What a job asks, made ready once: the template with its examples, the parser, the model, and what they are known by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchinfer.core.columns import Kind
from batchinfer.core.home import JobData
from batchinfer.core.records import Provenance
from batchinfer.engines import models
from batchinfer.engines.adapter import adapter_modules
from batchinfer.engines.choices import ChoiceScoring, scoring_of
from batchinfer.engines.models import ModelIdentity
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import InputError, SpecError
from batchinfer.inputs.shortest import plain_values
from batchinfer.job.reader import Job, placing
from batchinfer.job.spec import JobSpec
from batchinfer.planning.fingerprint import answer_parts, fingerprint, model_settings, parser_fingerprint
from batchinfer.prompting.examples import as_written
from batchinfer.prompting.likelihood import ScoredText, scored_text
from batchinfer.prompting.parse import Parser
from batchinfer.prompting.spec import Example, PromptSpec
from batchinfer.prompting.template import PromptTemplate, few_shot


@dataclass(frozen=True, slots=True)
class Question:
    """Everything about a job's question that is the same for all rows.

    spec: the job file.
    template: makes a row's prompt.
    scored: makes the text whose likelihood is asked for; None where none is.
    parser: reads answers.
    parser_id: how answers are read, as a hash.
    identity: of the model.
    fingerprint: of all that could change an answer.
    parts: what the fingerprint is made of.
    examples: those that are shown, as the model would write them.
    """

    spec: JobSpec
    template: PromptTemplate
    scored: ScoredText | None
    parser: Parser
    parser_id: str
    identity: ModelIdentity
    fingerprint: bytes
    parts: dict[str, Any]
    examples: tuple[Example, ...] = ()

    @property
    def chat(self) -> bool:
        return self.prompt.format == "chat"

    @property
    def prompt(self) -> PromptSpec:
        assert self.spec.prompt is not None  # a question is only made of jobs that have one
        return self.spec.prompt

    @property
    def columns(self) -> list[str]:
        """Those that a row's question is made of, in the order in which they first appear."""
        return list(dict.fromkeys([*self.template.columns, *(self.scored.columns if self.scored else ())]))

    def of_kinds(self, kinds: dict[str, Kind], zoned: Collection[str] = ()) -> Question:
        """The same, for template columns of these kinds: 1 and 1.0 make different prompts.

        zoned: those whose times have a zone, which a prompt says.
        """
        parts = self.parts | {"columns": kinds} | ({"columns_with_zones": sorted(zoned)} if zoned else {})
        return replace(self, parts=parts, fingerprint=fingerprint(parts))

    def with_template(self, text: str, path: str = "") -> Question:
        """The same with this template in place of its own, known by the same fingerprint. Raises SpecError where it is none."""
        template = PromptTemplate(self.prompt.model_copy(update={"template": text}), self.examples, path)
        template.compile()
        return replace(self, template=template)

    def provenance(self, run_id: int | None) -> Provenance:
        """What is stored with everything that a run makes of it."""
        return Provenance(self.fingerprint, self.parser_id, self.identity.label, run_id)

    def scoring(self, tokenizer: Tokenizer) -> ChoiceScoring | None:
        """How the choices are scored; None in a job without them. Raises ChoicesCollide if nothing tells them apart.

        Raises ModelError if the model's chat template leaves a part of the prompt out, or opens a thinking block.
        """
        output = self.spec.output
        if self.chat:
            tokenizer.check_holds(self.template.roles)
            if output.is_scored:
                tokenizer.check_no_thinking()
        if output.choices is None:
            return None
        return scoring_of(output.choices, output.normalize, tokenizer, chat=self.chat)

    def task(self, scoring: ChoiceScoring | None) -> Task:
        """What an engine is to do with each prompt. scoring: of the choices."""
        output, adapter = self.spec.output, self.identity.adapter
        if scoring is not None:
            tokens = scoring.first_tokens
            return Task({"temperature": 0.0}, score_tokens=tokens, score_continuations=tokens is None, adapter=adapter)
        if self.scored is not None:
            return Task({"temperature": 0.0}, score_continuations=True, adapter=adapter)
        return Task(self.spec.sampling.model_dump(), output.constraint, adapter=adapter)

    def engine_config(self, source: str) -> EngineConfig:
        """What an engine must load. source: where the weights are."""
        spec = self.spec.model
        assert spec is not None
        return EngineConfig(
            model=source,
            revision=self.identity.revision,
            dtype=spec.dtype,
            quantization=spec.quantization,
            adapter=self.identity.adapter,
            adapter_rank=models.adapter_rank(self.identity.adapter),
            adapter_modules=adapter_modules(self.identity.adapter),
            options=spec.options,
            settings=model_settings(self.parts),
        )


def make(job: Job, data: JobData, *, update_model: bool = False, shots: int | str | None = None) -> Question:
    """The job's question. shots: in place of the job file's number. Raises SpecError, InputError or ModelError."""
    with placing(job):
        return _made(job, data, update_model=update_model, shots=shots)


def _made(job: Job, data: JobData, *, update_model: bool, shots: int | str | None) -> Question:
    spec = job.spec
    if shots is not None and spec.prompt is not None:
        spec = spec.model_copy(update={"prompt": spec.prompt.model_copy(update={"shots": shots})})
    assert spec.prompt is not None
    examples = _as_written(job, few_shot(_examples(job, spec.prompt), spec.prompt.shots, str(job.path)))
    template = PromptTemplate(spec.prompt, examples, str(job.path))
    template.compile()
    if scored := scored_text(spec.output, str(job.path)):
        scored.compile()
    identity = models.resolve(job, data, update=update_model)
    parts = answer_parts(
        spec.beyond_defaults(),
        [({name: example.input[name] for name in template.columns}, example.output) for example in examples],
        identity.digest,
        identity.adapter_digest,
    )
    parser_id = parser_fingerprint(spec.output.beyond_defaults())
    return Question(
        spec, template, scored, Parser(spec.output), parser_id, identity, fingerprint(parts), parts, tuple(examples)
    )


def _as_written(job: Job, examples: Sequence[Example]) -> list[Example]:
    """The examples in the form that the engine makes an answer take. Raises SpecError for one that no answer can look like."""
    written, faults = as_written(examples, job.spec.output)
    if faults:
        raise SpecError(str(job.path), [fault for _, fault in faults])
    return written


def examples_in_file(job: Job) -> list[Example]:
    """All examples of the job file, also those that its number of shots leaves out. Raises InputError or SpecError."""
    with placing(job):
        return _as_written(job, _examples(job, job.spec.prompt)) if job.spec.prompt else []


def _examples(job: Job, prompt: PromptSpec) -> list[Example]:
    """The few-shot examples, from the job file or from the Parquet file that it names."""
    if not isinstance(prompt.examples, str):
        return list(prompt.examples)
    path: Path = job.inside("prompt.examples", prompt.examples)
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(["input", "output"])
        columns = [plain_values(table[name].combine_chunks()) for name in ("input", "output")]
        return [Example.model_validate({"input": row, "output": text}) for row, text in zip(*columns, strict=True)]
    except (OSError, pa.ArrowInvalid, KeyError, ValidationError, UnicodeDecodeError) as exc:
        reason = str(exc).splitlines()[0]
        raise InputError(
            f"{path} must be a Parquet file with the columns input (one field for each column of the template) and output "
            f"(text): {reason}.",
            field=("prompt", "examples"),
        ) from exc
