"""`init`: a new job's folder that runs as it is, made from a list or from a small sample."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from batchinfer.core.files import os_errors
from batchinfer.core.keys import JOB_NAME
from batchinfer.engines import bundled
from batchinfer.errors import UsageError, did_you_mean
from batchinfer.inputs.convert import kind_of
from batchinfer.job.reader import FILE
from batchinfer.pipeline.list_to_use import QUERIES, ListToUse
from batchinfer.pipeline.proposal import (
    KeyProposal,
    QuestionProposal,
    propose_key,
    propose_question,
    tells_questions_apart,
    usable_columns,
)

AskKey = Callable[[Sequence[str], Sequence[str]], Sequence[str]]
"""Asks a person which of the columns are the key, with those that are proposed."""
SAMPLE = {"word": ["apple", "river", "violin", "granite", "sparrow", "lantern"]}

TEXT = """\
# A job: one question asked of every row of a list. All fields: docs/job-file.md
name: {name}
description: Say in a sentence what this list of answers is for.

input:
  path: {path}
  # What other services will look an answer up by. These columns tell all rows apart.
  key: {key}

prompt:
  format: chat
  system: Answer briefly.
  # Your question. {{{{ column }}}} is filled in from each row; try it: batchinfer try {name}{left_out}
  template: |-
{template}

model:
  # For trying things out. For real work name a larger model, such as Qwen/Qwen3-8B.
  id: {model}
  options: {{max_model_len: 1024}}

# The answer ends with its first sentence or line. An answer that is cut off by max_tokens is a failure.
sampling: {{temperature: 0, max_tokens: 128, stop: ["\\n", ". "]}}

output:
  # text, or choice (one of some labels, with scores), regex, json
  type: text
  steps: [strip]

# What must hold before a new version is served.
gate: {{coverage: 0.95, failures: 0.05}}
"""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that was just made.

    job: its name.
    folder: where its job file is.
    key: the columns of its key.
    sure: whether only these would do as the key, or a person chose them.
    columns: those that its question shows.
    left_out: the list's other columns.
    path: its list, as its job file has it.
    root: a folder that BATCHINFER_INPUT_ROOTS has to name, so that its list may lie there; None if none has to be named.
    """

    job: str
    folder: Path
    key: list[str]
    sure: bool
    columns: list[str]
    left_out: list[str]
    path: str
    root: str | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "job": self.job, "folder": str(self.folder), "key": self.key, "columns": self.columns, "left_out": self.left_out,
            "path": self.path, "root": self.root,
        }  # fmt: skip


def init(
    name: str, source: ListToUse | None, parent: Path, key: Sequence[str] = (), ask: AskKey | None = None
) -> NewJob:
    """Makes `parent`/`name` with job.yaml, and a list unless it stays where it is. Raises UsageError or InputError.

    source: None for a small sample. key: its columns, if a person said so. ask: asks for them where they cannot be told;
    None where nobody is there.
    """
    if not re.fullmatch(JOB_NAME, name):
        raise UsageError(
            f"A job's name is lower case: letters, digits, _ and -, beginning with a letter; {name} is not."
        )
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name, or remove it.")
    table = pa.table(SAMPLE) if source is None else source.sample()
    chosen = _key(table, key, ask)
    question = propose_question(table, chosen.columns)
    if not tells_questions_apart(table, chosen.columns, question.columns):
        raise UsageError(
            f"The key {', '.join(chosen.columns)} does not tell the rows apart: some that share one ask different questions, "
            "and a key has one answer. Choose other columns with --key, which may be repeated."
        )
    path = QUERIES if source is None else source.path
    root = source.root() if source is not None and source.stays else None
    with os_errors(folder):
        folder.mkdir(parents=True)
        if source is None:
            pq.write_table(table, folder / path)
        elif not source.stays:
            shutil.copyfile(source.place, folder / path)
        (folder / FILE).write_text(_job_file(name, path, chosen.columns, question), encoding="utf-8")
    return NewJob(name, folder, chosen.columns, chosen.sure, question.columns, question.left_out, path, root)


def _key(table: pa.Table, named: Sequence[str], ask: AskKey | None) -> KeyProposal:
    """The key that a person named, that can be told, or that a person is asked for."""
    if named:
        return KeyProposal(_checked(table, named), sure=True)
    proposed = propose_key(table)
    if not proposed.sure and ask is not None:
        return KeyProposal(_checked(table, ask(usable_columns(table), proposed.columns)), sure=True)
    if not proposed.columns:
        names = ", ".join(usable_columns(table))
        raise UsageError(
            f"No columns of the list tell all its rows apart: name those that are the key with --key ({names})."
        )
    return proposed


def _checked(table: pa.Table, key: Sequence[str]) -> list[str]:
    """The columns of a key that a person named. Raises UsageError or InputError."""
    for name in key:
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names) or f"it has {', '.join(table.column_names)}."
            raise UsageError(f"The list has no column {name}: {hint}")
        if kind_of(table.schema.field(name)) == "json":
            raise UsageError(f"The column {name} is {table.schema.field(name).type}: a key must be a plain value.")
    return list(dict.fromkeys(key))


def _job_file(name: str, path: str, key: list[str], question: QuestionProposal) -> str:
    flow = yaml.safe_dump(key, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    names = ", ".join(repr(left) if not left.isprintable() else left for left in question.left_out)
    left_out = (
        f"\n  # Not shown (no texts, or with nulls, or they look like labels, ids or ratings): {names}" if names else ""
    )
    template = "\n".join(f"    {line}".rstrip() for line in question.template.split("\n"))
    listed = (
        yaml.safe_dump(path, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
    )
    return TEXT.format(
        name=name, path=listed, key=flow, template=template, left_out=left_out, model=bundled.PREFIX + bundled.NAME
    )
