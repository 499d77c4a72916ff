"""The chosen arm, written into the job file: its examples as they are, its texts, its model."""

from __future__ import annotations

from typing import Any

from batchinfer.errors import UsageError
from batchinfer.evaluate.arms import Arm
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.job.yaml_edit import REMOVED, CannotEdit, edited
from batchinfer.planning import question as questions


def chosen_text(job: Job, arm: Arm) -> str:
    """The job file's text with the arm in it. Raises UsageError where it cannot be put there."""
    before = job.path.read_text(encoding="utf-8")
    text = before
    try:
        for section, fields in (
            ("prompt", _prompt(job, arm)),
            ("model", _model(job, arm)),
            ("output", _output(job, arm)),
        ):
            if fields:
                text = edited(text, section, fields)
    except CannotEdit as exc:
        raise UsageError(
            f"{job.path} is written so that --select cannot change it", fix=f"put the arm {arm.name} there yourself."
        ) from exc
    if reader.parse(text, str(job.path)) == job.spec:
        return before
    return text


def _prompt(job: Job, arm: Arm) -> dict[str, Any]:
    """The fields of prompt that differ."""
    old, new = job.spec.prompt, arm.job.spec.prompt
    assert old is not None
    assert new is not None
    fields: dict[str, Any] = {}
    if new.template != old.template:
        fields["template"] = new.template
    if new.system != old.system:
        fields["system"] = new.system
    shown = list(arm.question.examples)
    if not shown:
        return fields | ({"shots": 0} if old.examples and old.shots != 0 else {})
    columns = arm.question.template.columns
    written = [{"input": {name: each.input[name] for name in columns}, "output": each.output} for each in shown]
    every = questions.examples_in_file(job)
    if not isinstance(old.examples, str) and every[: len(shown)] == shown and "template" not in fields:
        return fields | {"shots": len(shown)}
    return fields | {"examples": written, "shots": "all"}


def _model(job: Job, arm: Arm) -> dict[str, Any]:
    """The fields of model that differ."""
    old, new = job.spec.model, arm.job.spec.model
    assert old is not None
    assert new is not None
    if old.id == new.id:
        return {}
    gone = {name: REMOVED for name in ("revision", "adapter", "quantization") if getattr(old, name) is not None}
    return {"id": new.id, **gone}


def _output(job: Job, arm: Arm) -> dict[str, Any]:
    """The fields of output that differ."""
    old, new = job.spec.output.prior, arm.prior
    return {} if old == new else {"prior": new if new != "none" else REMOVED}
