"""Checks across the sections of a job file: one sentence for each fault, with its line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from batchinfer.errors import SpecError
from batchinfer.job.engine_spec import ServerSpec
from batchinfer.job.matched import alias_columns
from batchinfer.job.parts import Part
from batchinfer.job.problems import line_of, locate
from batchinfer.job.spec import JobSpec
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.spec import PromptSpec


def prompt_problems(prompt: Any, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each fault of the template and its inline examples, whatever else is invalid."""
    from batchinfer.prompting.template import PromptTemplate, few_shot

    if not isinstance(prompt, dict) or not isinstance(template := prompt.get("template"), str):
        return set()
    try:
        spec = PromptSpec.model_validate(prompt)
    except ValidationError:  # reported by the check of the whole file
        spec = PromptSpec(template=template)
    examples = [] if isinstance(spec.examples, str) else spec.examples
    found: list[str] = []
    try:
        examples = examples if isinstance(spec.examples, str) else few_shot(examples, spec.shots, "")
    except SpecError as exc:
        found += exc.problems
    try:
        PromptTemplate(spec, examples, "")
    except SpecError as exc:
        found += exc.problems
    return {(line_of(problem, tree), problem) for problem in found}


def example_problems(content: Mapping[str, Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each inline example that no answer can look like, also those that `shots` leaves out."""
    from batchinfer.prompting.examples import as_written

    try:
        prompt, output = (
            PromptSpec.model_validate(content.get("prompt")),
            OutputSpec.model_validate(content.get("output", {})),
        )
    except ValidationError:  # reported by the check of the whole file
        return set()
    _, faults = as_written([] if isinstance(prompt.examples, str) else prompt.examples, output)
    return {(locate(("prompt", "examples", number - 1, "output"), tree)[1], fault) for number, fault in faults}


def miss_problems(content: Mapping[str, Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each reason why a job cannot include misses: they have only the columns of the lookup key."""
    section = content.get("input")
    if not isinstance(section, dict) or section.get("include_misses") is None:
        return set()
    line, found = locate(("input", "include_misses"), tree)[1], []
    key, optional, where = section.get("key"), section.get("optional"), section.get("where")
    if content.get("prompt") is None and content.get("model") is None:
        found.append("the job has no prompt and no model, so nothing would answer them: leave it out.")
    if isinstance(key, list):
        may_lack = [*key, *(optional if isinstance(optional, list) else [])]
        used = [name for name in _used_columns(content) if name not in may_lack]
        filtered = [str(name) for name in where if name not in key] if isinstance(where, dict) else []
        for names, what in ((used, "prompt.template uses"), (filtered, "input.where names")):
            if names:
                it = "it" if len(names) == 1 else "them"
                found.append(
                    f"{what} {', '.join(names)}, and a miss has only the columns of input.key: put {it} there."
                )
    return {(line, f"input.include_misses: {problem}") for problem in found}


def text_problems(content: Mapping[str, Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each fault of the text whose likelihood is asked for."""
    from batchinfer.prompting.likelihood import ScoredText

    output = content.get("output")
    if not isinstance(output, dict) or not isinstance(text := output.get("text"), str):
        return set()
    try:
        ScoredText(text, "")
    except SpecError as exc:
        return {(locate(("output", "text"), tree)[1], problem) for problem in exc.problems}
    return set()


def step_problems(content: Mapping[str, Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each step that looks at a column which the template does not use.

    An answer is read once for all rows with one prompt; they share no other columns.
    """
    output, used = content.get("output"), _used_columns(content)
    steps = output.get("steps") if isinstance(output, dict) else None
    found = set()
    for number, step in enumerate(steps if isinstance(steps, list) else []):
        for name, setting in step.items() if isinstance(step, dict) else ():
            column = setting.get("language") if isinstance(setting, dict) else setting
            if name in ("drop_echo", "drop_wrong_script") and isinstance(column, str) and used and column not in used:
                line = locate(("output", "steps", number), tree)[1]
                reason = f"the template does not use the column {column}, which rows with one answer need not share"
                found.add((line, f"output.steps.{number}: {reason}; it uses {', '.join(used)}."))
    return found


def match_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each name in the match section that is not a part of the job's entries.

    What `everywhere` names besides should be columns of the list, which is looked into later.
    """
    if spec.match is None:
        return set()
    match, aliases = spec.match, alias_columns(spec.match, spec.input.key)
    named: list[tuple[tuple[str | int, ...], str | None]] = [
        *((("terms", number), name) for number, name in enumerate(match.terms)),
        *((("everywhere", number), name) for number, name in enumerate(match.everywhere) if name not in aliases),
        (("concept",), match.concept),
        (("language",), match.language),
        *((("where", name), name) for name in match.where),
    ]
    found = set()
    for place, name in named:
        if name is not None and (fault := _part_fault(name, spec)):
            found.add((locate(("match", *place), tree)[1], f"match.{place[0]}: {fault}"))
    return found


def eval_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each setting of eval that does not fit the output."""
    choices, metric, positive = spec.output.choices, spec.eval.metric, spec.eval.positive
    found: list[tuple[str, str]] = []
    if positive is not None and positive not in (choices or []):
        there = ", ".join(choices) if choices else f"output.type is {spec.output.type}, which has none"
        found.append(("positive", f"{positive} is not one of output.choices ({there})."))
    if metric == "auc" and positive is None:
        found.append(
            ("metric", "auc is about the score of one choice: name it as eval.positive, with output.type choice.")
        )
    if metric == "f1" and not spec.output.is_json:
        found.append(
            ("metric", f"f1 compares lists, but output.type is {spec.output.type}: take accuracy or contains.")
        )
    if metric == "contains" and choices:
        found.append(
            (
                "metric",
                "contains looks for an answer within a prediction, and a choice is one as a whole: take accuracy.",
            )
        )
    return {(locate(("eval", field), tree)[1], f"eval.{field}: {fault}") for field, fault in found}


def gate_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for a gate that asks for a recall or a calibration of which nothing can be known."""
    golden, found = spec.gate.golden, set()
    if spec.gate.recall is not None and (golden is None or golden.compare != "contains"):
        fault = "gate.recall: it is of golden rows that say what a right answer contains: set gate.golden with compare: contains."
        found.add((locate(("gate", "recall"), tree)[1], fault))
    if spec.gate.calibration is not None and spec.calibrate is None:
        fault = "gate.calibration: it is of scores that verdicts have calibrated: add a section calibrate."
        found.add((locate(("gate", "calibration"), tree)[1], fault))
    return found


def student_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for a student that could not learn, or not be asked as the job is."""
    if spec.student is None:
        fault = "serve.on_miss: the job has no student that could be asked: add a section student."
        return {(locate(("serve", "on_miss"), tree)[1], fault)} if spec.serve.on_miss == "student" else set()
    found = set()
    if spec.output.choices is None or spec.output.normalize != "none":
        fault = "student: it learns the scores of choices: it needs output.type choice, and output.normalize none."
        found.add((locate(("student",), tree)[1], fault))
    if spec.input.key != [spec.student.text]:
        there = ", ".join(spec.input.key)
        fault = (
            f"student.text: it should be the one column of input.key, which is {there}: a student reads nothing else."
        )
        found.add((locate(("student", "text"), tree)[1], fault))
    if (kind := spec.input.types.get(spec.student.text, "string")) != "string":
        fault = f"student.text: a student reads texts, but input.types says that {spec.student.text} is {kind}."
        found.add((locate(("student", "text"), tree)[1], fault))
    if spec.student.embeddings is not None and spec.student.kind == "linear":
        fault = "student.embeddings: a linear student has none: add kind: model2vec."
        found.add((locate(("student", "embeddings"), tree)[1], fault))
    return found | _number_problems(spec.student.score, spec.output.choices, tree)


def _number_problems(
    score: dict[str, float] | None, choices: list[str] | None, tree: yaml.Node | None
) -> set[tuple[int, str]]:
    """Line and sentence for numbers of choices that a student could not learn."""
    if score is None or choices is None:
        return set()
    found: list[tuple[str | None, str]] = [
        (name, f"student.score.{name}: there is no such choice in output.choices.")
        for name in score
        if name not in choices
    ]
    if lacking := [choice for choice in choices if choice not in score]:
        found.append(
            (None, f"student.score: it should have a number for each choice, but has none for {', '.join(lacking)}.")
        )
    elif len({score[choice] for choice in choices}) == 1:
        found.append((None, "student.score: all choices have the same number, so there is nothing to learn."))
    return {
        (locate(("student", "score") if name is None else ("student", "score", name), tree)[1], fault)
        for name, fault in found
    }


def finetune_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each reason why no adapter could be trained for the job."""
    if spec.finetune is None:
        return set()
    found: list[tuple[tuple[str | int, ...], str]] = []
    if spec.prompt is None:
        found.append((("finetune",), "finetune: the job has no prompt and no model, so there is nothing to train."))
    if spec.output.type == "likelihood":
        fault = "a likelihood is no answer that a model could learn to write."
        found.append((("finetune",), f"finetune: output.type is likelihood, and {fault}"))
    if spec.output.splits:
        fault = "the text that a model should write is not known of a list that a step split."
        found.append((("finetune",), f"finetune: output.steps has a split, and {fault}"))
    if spec.model is not None and spec.model.quantization is not None:
        fault = "model.quantization is set, and adapters are trained on whole weights: leave one of the two out."
        found.append((("finetune",), f"finetune: {fault}"))
    labels = spec.finetune.labels
    if not isinstance(labels, str) and labels.job == spec.name:
        fault = "it would learn from itself: name another job, or imports."
        found.append((("finetune", "labels"), f"finetune.labels.job: {fault}"))
    return {(locate(place, tree)[1], fault) for place, fault in found}


def cascade_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each reason why a small and a large model could not share the job's list."""
    if spec.model is None or spec.model.cascade is None:
        return set()
    small, large, found = spec.model, spec.model.cascade.large, dict[tuple[str, ...], str]()
    if spec.output.choices is None:
        found["model", "cascade"] = (
            "the small model's scores say where it is sure, and only choices have scores: it needs output.type choice."
        )
    if (small.id, small.revision, small.adapter) == (large.id, large.revision, large.adapter):
        found["model", "cascade", "large"] = "it is the same model as model.id: name another one, or an adapter."
    if spec.output.prior != "none":
        found["output", "prior"] = "a prior is of one model, and this job has two: leave it out, or model.cascade."
    if isinstance(spec.engine, ServerSpec) and spec.engine.served_model_name is not None:
        found["engine", "served_model_name"] = (
            "it names one model, and this job has two: leave it out, or model.cascade."
        )
    for field, names in (("swaps", spec.audit.swaps), ("templates", spec.audit.templates)):
        if names:
            found["audit", field] = "one model is asked, and this job has two: leave it out, or model.cascade."
    return {(locate(place, tree)[1], f"{'.'.join(place)}: {fault}") for place, fault in found.items()}


def engine_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for a price that says nothing of the job's engine."""
    if spec.engine.kind != "openai_batch" or spec.cost is None:
        return set()
    fault = "it prices devices by the hour, and a batch API is paid by the token: leave it out, and --budget with it."
    return {(locate(("cost",), tree)[1], f"cost: {fault}")}


def alert_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for a receiver that is named twice, and for a limit that each wait for the next run would pass."""
    found, receivers = set(), dict[str, int]()
    gap = None if spec.schedule is None else spec.schedule.longest_gap
    for number, rule in enumerate(spec.alerts):
        first = receivers.setdefault(rule.receiver_name, number)
        if first != number:
            line = locate(("alerts", number), tree)[1]
            found.add((line, f"alerts.{number}: it has the receiver of alerts.{first}: make one of the two."))
        if gap is not None and rule.stale_after is not None and rule.stale_after < gap:
            line = locate(("alerts", number, "stale_after"), tree)[1]
            hours = round(gap.total_seconds() / 3600)
            fault = f"the schedule leaves {hours:,}h between two runs, and this is less: make it longer than that."
            found.add((line, f"alerts.{number}.stale_after: {fault}"))
    return found


def audit_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for a gate that asks for an audit of nothing, and for sentences that cannot be judged."""
    found = set()
    if spec.gate.audit and not spec.audit.slices and not spec.audit.asks:
        fault = "gate.audit: the job has no audit.slices and no audit.swaps, so there is nothing to audit."
        found.add((locate(("gate", "audit"), tree)[1], fault))
    if spec.gate.audit and spec.audit.asks and spec.prompt is None:
        fault = (
            "gate.audit: the job has no prompt to ask with exchanged terms: leave audit.swaps and audit.templates out."
        )
        found.add((locate(("gate", "audit"), tree)[1], fault))
    line = locate(("audit", "templates"), tree)[1]
    if spec.audit.templates and not spec.output.choices:
        fault = (
            f"audit.templates: sentences are judged by the scores of choices, but output.type is {spec.output.type}."
        )
        found.add((line, fault))
    if spec.audit.templates and not spec.audit.swaps:
        found.add(
            (line, "audit.templates: the terms for the slots of sentences come from audit.swaps: name a list there.")
        )
    return found


def _part_fault(name: str, spec: JobSpec) -> str | None:
    """The fault of a name that should be a part of the job's entries; None if it is one."""
    try:
        part = Part.parse(name, spec.input.key)
    except ValueError:
        return f"{name} is not a column of input.key ({', '.join(spec.input.key)}), and not prediction."
    if part.path and spec.output.type != "json":
        return f"{name} is within a prediction, but output.type is {spec.output.type}, not json."
    return None


def _used_columns(content: Mapping[str, Any]) -> list[str]:
    """The columns that a row's question is made of; none of a template that is invalid, which is reported elsewhere."""
    from batchinfer.prompting.template import PromptTemplate

    found: list[str] = []
    for section, field in (("prompt", "template"), ("output", "text")):
        template = content[section].get(field) if isinstance(content.get(section), dict) else None
        with contextlib.suppress(SpecError):
            found += PromptTemplate(PromptSpec(template=template), [], "").columns if isinstance(template, str) else []
    return list(dict.fromkeys(found))
