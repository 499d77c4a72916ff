"""`init`: a new job's folder that runs as it is, made from a list or from a small sample."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from batchinfer.core.files import os_errors
from batchinfer.core.keys import JOB_NAME
from batchinfer.engines import bundled
from batchinfer.errors import InputError, SpecError, UsageError
from batchinfer.job.reader import FILE
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import PromptTemplate

LOOK_AT_ROWS = 100_000
LONG_TEXT = 200
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
  # {{{{ column }}}} is filled in from each row. Try it: batchinfer try {name} {pairs}
  template: "{template}"

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
class Proposal:
    """The proposal for a job, from its list.

    key: columns that tell the rows apart.
    columns: those for the template.
    """

    key: list[str]
    columns: list[str]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that was just made.

    job: its name.
    folder: where its job file is.
    """

    job: str
    folder: Path

    def to_json(self) -> dict[str, str]:
        return {"job": self.job, "folder": str(self.folder)}


def init(name: str, list_path: Path | None, parent: Path) -> NewJob:
    """Makes `parent`/`name` with job.yaml and queries.parquet. Raises UsageError or InputError."""
    if not re.fullmatch(JOB_NAME, name):
        raise UsageError(
            f"A job's name is lower case: letters, digits, _ and -, beginning with a letter; {name} is not."
        )
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name, or remove it.")
    table = pa.table(SAMPLE) if list_path is None else _read(list_path)
    found = propose(table)
    with os_errors(folder):
        folder.mkdir(parents=True)
        if list_path is None:
            pq.write_table(table, folder / "queries.parquet")
        else:
            shutil.copyfile(list_path, folder / "queries.parquet")
        (folder / FILE).write_text(_job_file(name, found), encoding="utf-8")
    return NewJob(name, folder)


def propose(table: pa.Table) -> Proposal:
    """A key that tells the rows apart, and the columns for the template.

    The key is the first column of short texts or whole numbers without repeats, else all such columns together.
    """
    usable = [
        field.name
        for field in table.schema
        if _usable(field.type) and table.num_rows and not table[field.name].null_count
    ]
    texts = [name for name in usable if not pa.types.is_integer(table.schema.field(name).type)]
    if not usable:
        raise InputError(
            "The list has no column of texts or whole numbers without nulls: such a column must be the key."
        )
    unique = [name for name in usable if pc.count_distinct(table[name]).as_py() == table.num_rows]
    short = [name for name in unique if name not in texts or pc.max(pc.utf8_length(table[name])).as_py() <= LONG_TEXT]
    key = short[:1] or unique[:1] or usable
    columns = [name for name in texts or key if _is_variable(name)]
    if not columns:
        raise InputError(
            f"The list has no column whose name a template can use: rename {(texts or key)[0]!r} to letters, digits and _."
        )
    return Proposal(key, columns)


def _is_variable(name: str) -> bool:
    """Whether {{ name }} means the column of that name."""
    try:
        return PromptTemplate(PromptSpec(template=f"{{{{ {name} }}}}"), [], "").columns == [name]
    except SpecError:
        return False


def _usable(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return pa.Table.from_batches(file.iter_batches(LOOK_AT_ROWS), file.schema_arrow).slice(0, LOOK_AT_ROWS)
    except (pa.ArrowInvalid, OSError) as exc:
        raise InputError(f"{path} is not a Parquet file, or cannot be read: {exc}") from exc


def _job_file(name: str, found: Proposal) -> str:
    template = " ".join(f"{{{{ {column} }}}}" for column in found.columns)
    if len(found.columns) == 1:
        template = f"What is meant by: {template}?"
    pairs = " ".join(f"{column}=..." for column in found.columns)
    model = bundled.PREFIX + bundled.NAME
    key = yaml.safe_dump(found.key, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return TEXT.format(name=name, key=key, template=template, pairs=pairs, model=model)
