"""What an engine would refuse once it has loaded the model, known before: by names and by files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.engines import grammars, models, vllm_options, vllm_source
from batchinfer.engines.adapter import adapter_faults
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import did_you_mean
from batchinfer.job import reader
from batchinfer.job.engine_spec import ServerSpec
from batchinfer.job.model_spec import ModelSpec
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.question import Question

LoadFault = tuple[tuple[str | int, ...], str]
"""A field of the job file, and what is wrong with it."""


def check_models(prepared: Prepared, info: Info) -> None:
    """The same for each model that a run would ask."""
    assert prepared.question is not None
    check_loadable(prepared.job, prepared.data, prepared.question, info)
    if prepared.cascade is not None and (large := prepared.job.large) is not None:
        check_loadable(large, prepared.data, prepared.cascade.large, info)


def check_loadable(job: Job, data: JobData, question: Question, info: Info) -> None:
    """Raises SpecError, with a line for each setting that vLLM would refuse, and what a server would fail with. Loads nothing.

    Says what an answer is held to only once it is there.
    """
    assert job.spec.model is not None
    of_model: list[LoadFault] = [(("adapter",), fault) for fault in adapter_faults(question.identity, data)]
    of_model += [*_option_faults(job.spec.model), *_quantization_faults(job.spec.model)]
    faults = [((*job.model_at, *place), fault) for place, fault in of_model]
    faults += _output_faults(job, question, info)
    if faults:
        raise reader.faulty(job, faults)
    if isinstance(spec := job.spec.engine, ServerSpec):
        _check_server(job, data, spec, question, info)


def _check_server(job: Job, data: JobData, spec: ServerSpec, question: Question, info: Info) -> None:
    from batchinfer.engines.server_engine import check_server

    source = models.weights(question.identity, data, info)
    tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
    task = PromptMaker(job, question, tokenizer).task
    with reader.placing(job):
        check_server(job, spec, question.engine_config(source), task, info)


def _option_faults(model: ModelSpec) -> Iterator[LoadFault]:
    if not model.options:  # what vLLM takes need not be read then
        return
    known = vllm_source.engine_options()
    if known is None:
        return
    for name, value in model.options.items():
        if name not in known:
            yield ("options", name), f"vLLM has no engine option {name}{_hint(name, known)}"
        elif fault := vllm_options.value_fault(name, value):
            yield ("options", name), fault


def _quantization_faults(model: ModelSpec) -> Iterator[LoadFault]:
    if model.quantization is None:
        return
    known = vllm_source.quantization_methods()
    if known is not None and model.quantization not in known:
        said = f"vLLM has no quantisation method {model.quantization}{_hint(model.quantization, known)}"
        yield ("quantization",), said


def _output_faults(job: Job, question: Question, info: Info) -> Iterator[LoadFault]:
    model, output = job.spec.model, job.spec.output
    kind, name, value = ("json", "schema", output.schema_) if output.schema_ else ("regex", "pattern", output.pattern)
    if model is None or value is None or not grammars.follows_xgrammar(model.options):
        return
    shown = tuple(example.output for example in question.examples)
    constraint = grammars.followed_elsewhere(kind, value if isinstance(value, str) else json.dumps(value), shown)
    if constraint.refusal is not None:
        yield ("output", name), constraint.refusal
    elif constraint.left_out:
        places = ", ".join(".".join(map(str, place)) for place in constraint.left_out)
        info(f"output.schema: vLLM cannot hold the model to {places}: answers are checked for it once they are there.")
    if constraint.unwritable:
        numbers = ", ".join(str(place + 1) for place in constraint.unwritable)
        info(
            f"prompt.examples, number {numbers}: vLLM would not let a model that is held to output.{name} write this, so that it "
            "leads away from the right form: show what is simpler, such as texts without quotation marks, or leave it out."
        )


def _hint(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, sorted(known))
    return f"; {hint}" if hint else ": remove it, or look up its name in vLLM's documentation."
