"""Right answers to learn from: of people, of a file, or what another job serves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchinfer.cache import verdicts
from batchinfer.core.home import JobData
from batchinfer.core.keys import canonical_json
from batchinfer.core.records import VerdictKind
from batchinfer.errors import InputError, NotFound
from batchinfer.job.finetune_spec import LabelsSpec
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Prepared
from batchinfer.prompting.examples import BadExample, written_answer
from batchinfer.publish.golden import read_answers
from batchinfer.publish.predictions_file import version_rows
from batchinfer.versions.pointers import open_served

FIELD = "finetune.labels.path"
IMPORTED = "import"  # said without a verdict
CHOICES = 2  # of so many, what is not one is the other


@dataclass(frozen=True, slots=True)
class Labels:
    """Right answers, by lookup hash, as the model would write them.

    answers: by lookup hash.
    source: where they come from, for people.
    counts: how many are of each kind, such as accept or correct.
    by_people: whether people gave them; else a model did.
    unfit: how many the model could never write.
    path: of the file that they come from, as the job file names it; None where they come from elsewhere.
    """

    answers: Mapping[bytes, str]
    source: str
    counts: Mapping[str, int]
    by_people: bool = True
    unfit: int = 0
    path: str | None = None


@dataclass(slots=True)
class _Said:
    """The last word on each key so far: the answer, and the kind of what said so."""

    answers: dict[bytes, tuple[str, str]] = field(default_factory=dict)

    def give(self, lookup_hash: bytes, answer: str | None, kind: str) -> None:
        if answer is None:
            self.answers.pop(lookup_hash, None)
        else:
            self.answers[lookup_hash] = (answer, kind)


def read_labels(prepared: Prepared, labels: str | LabelsSpec) -> Labels:
    """The labels that the job file names. Raises InputError, SpecError or NotFound."""
    if isinstance(labels, str):
        said = _of_people(prepared)
        return _written(prepared.job.spec, said.items(), "imports and reviews")
    if labels.path is not None:
        rows = read_answers(
            prepared.job, FIELD, labels.path, "equal", prepared.query_list.source.key, "file of labels"
        ).rows
        texts = map(_entry(prepared.job.spec), rows["answer"].to_pylist())
        found = {
            lookup_hash: (text, "answer")
            for lookup_hash, text in zip(rows["lookup_hash"].to_pylist(), texts, strict=True)
        }
        return replace(_written(prepared.job.spec, found.items(), labels.path), path=labels.path)
    assert labels.job is not None
    source, found = _of_job(prepared, labels.job)
    return _written(prepared.job.spec, found.items(), source, by_people=False)


def _entry(spec: JobSpec) -> Any:
    """From a value as JSON text to one as entries hold it."""
    return (lambda text: text) if spec.output.is_json else json.loads


def _written(
    spec: JobSpec, found: Iterable[tuple[bytes, tuple[str, str]]], source: str, *, by_people: bool = True
) -> Labels:
    answers, counts, unfit = dict[bytes, str](), Counter[str](), 0
    for lookup_hash, (text, kind) in found:
        try:
            answers[lookup_hash] = written_answer(text, spec.output)
            counts[kind] += 1
        except BadExample:
            unfit += 1
    return Labels(answers, source, dict(counts), by_people, unfit)


def _of_people(prepared: Prepared) -> Mapping[bytes, tuple[str, str]]:
    """What people said is right, by the last word on each key. In a job of two choices a rejected one says that it is the other."""
    workspace, spec = prepared.workspace, prepared.job.spec
    with workspace.store.attached(workspace.db):
        rows = workspace.db.execute(workspace.verdicts.said_sql).fetchall()
    said = _Said()
    for lookup_hash, verdict, value, answer in workspace.texts.whole_rows(rows):
        key, kind = bytes(lookup_hash), verdict or IMPORTED
        if answer is not None:
            said.give(key, answer, kind)
        elif verdict == VerdictKind.ACCEPT:
            said.give(key, value, kind)
        elif (other := _other(spec, value)) is not None:
            said.give(key, other, kind)
        elif value is None or _same(spec, value, said.answers.get(key)):
            said.give(key, None, kind)
    return said.answers


def _other(spec: JobSpec, rejected: str | None) -> str | None:
    """The choice that is left once one is rejected; None where that is not known."""
    choices = spec.output.choices or []
    wrong = verdicts.expected_parts(spec).get("prediction") if rejected is None else rejected
    if len(choices) != CHOICES or wrong not in choices:
        return None
    return choices[1 - choices.index(wrong)]


def _same(spec: JobSpec, value: str, known: tuple[str, str] | None) -> bool:
    if known is None:
        return False
    if not spec.output.is_json:
        return value == known[0]
    return canonical_json(json.loads(value)) == canonical_json(json.loads(known[0]))


def _of_job(prepared: Prepared, name: str) -> tuple[str, dict[bytes, tuple[str, str]]]:
    """What another job serves for keys of the list. Raises NotFound or InputError."""
    other, source = JobData(prepared.data.root, name), prepared.query_list.source
    place = ("finetune", "labels", "job")
    if not other.is_known:
        said = f"finetune.labels.job: the data folder {prepared.data.root} has no job {name}"
        raise NotFound(said, fix=f"correct the name, or make it: batchinfer run {name}")
    with open_served(other) as version:
        manifest = version.manifest
        if manifest.key != tuple(source.key) or list(manifest.normalize) != list(source.normalize):
            theirs, ours = (", ".join(column.name for column in key) for key in (manifest.key, source.key))
            raise InputError(
                f"{name} is looked up by {theirs}, and {prepared.job.name} by {ours}: labels come from a job whose key has the "
                "same columns, of the same kinds, and the same input.normalize.",
                field=place,
            )
        if manifest.prediction != prepared.job.spec.output.kind:
            raise InputError(
                f"{name} gives another kind of answer: labels come from a job with the same output.", field=place
            )
        db, texts = prepared.workspace.db, prepared.workspace.texts
        rows = version_rows(db, texts, version.folder, manifest.key)
        wanted = f"FROM ({rows}) SEMI JOIN {prepared.query_list.lookups_sql} USING (lookup_hash)"
        found = texts.whole_rows(db.execute(f"SELECT lookup_hash, prediction {wanted} ORDER BY 1").fetchall())
        source_name = f"{name}, version {version.number}"
    return source_name, {bytes(lookup_hash): (text, "prediction") for lookup_hash, text in found}
