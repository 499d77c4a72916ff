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
from batchinfer.inputs.convert import kind_of, stored, stored_type
from batchinfer.inputs.list_file import unreadable
from batchinfer.job.reader import FILE
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
LOOK_AT_ROWS = 100_000
SAMPLE = {"word": ["apple", "river", "violin", "granite", "sparrow", "lantern"]}

TEXT = """\
# A job: one question asked of every row of a list. All fields: docs/job-file.md
name: {name}
description: Say in a sentence what this list of answers is for.

input:
  path: queries.parquet
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
    """

    job: str
    folder: Path
    key: list[str]
    sure: bool
    columns: list[str]
    left_out: list[str]

    def to_json(self) -> dict[str, object]:
        return {
            "job": self.job, "folder": str(self.folder), "key": self.key, "columns": self.columns, "left_out": self.left_out
        }  # fmt: skip


def init(name: str, list_path: Path | None, parent: Path, key: Sequence[str] = (), ask: AskKey | None = None) -> NewJob:
    """Makes `parent`/`name` with job.yaml and queries.parquet. Raises UsageError or InputError.

    key: its columns, if a person said so. ask: asks for them where they cannot be told; None where nobody is there.
    """
    if not re.fullmatch(JOB_NAME, name):
        raise UsageError(
            f"A job's name is lower case: letters, digits, _ and -, beginning with a letter; {name} is not."
        )
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name, or remove it.")
    table = pa.table(SAMPLE) if list_path is None else _read(list_path)
    chosen = _key(table, key, ask)
    question = propose_question(table, chosen.columns)
    if not tells_questions_apart(table, chosen.columns, question.columns):
        raise UsageError(
            f"The key {', '.join(chosen.columns)} does not tell the rows apart: some that share one ask different questions, "
            "and a key has one answer. Choose other columns with --key, which may be repeated."
        )
    with os_errors(folder):
        folder.mkdir(parents=True)
        if list_path is None:
            pq.write_table(table, folder / "queries.parquet")
        else:
            shutil.copyfile(list_path, folder / "queries.parquet")
        (folder / FILE).write_text(_job_file(name, chosen.columns, question), encoding="utf-8")
    return NewJob(name, folder, chosen.columns, chosen.sure, question.columns, question.left_out)


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


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            table = pa.Table.from_batches(file.iter_batches(LOOK_AT_ROWS), file.schema_arrow).slice(0, LOOK_AT_ROWS)
    except (pa.ArrowInvalid, OSError) as exc:
        raise unreadable(path, exc) from exc
    columns = [pa.chunked_array(map(stored, column.chunks), stored_type(column.type)) for column in table.columns]
    return pa.table(columns, table.column_names)


def _job_file(name: str, key: list[str], question: QuestionProposal) -> str:
    flow = yaml.safe_dump(key, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    names = ", ".join(repr(left) if not left.isprintable() else left for left in question.left_out)
    left_out = (
        f"\n  # Not shown (no texts, or with nulls, or they look like labels, ids or ratings): {names}" if names else ""
    )
    template = "\n".join(f"    {line}".rstrip() for line in question.template.split("\n"))
    return TEXT.format(name=name, key=flow, template=template, left_out=left_out, model=bundled.PREFIX + bundled.NAME)
