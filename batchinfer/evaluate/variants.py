"""Rows made for an audit, asked through the job's cache as its own rows are, under numbers in place of its key."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.evaluate.answers import ArmAnswer, read_rows
from batchinfer.evaluate.arms import Arm
from batchinfer.evaluate.ask import AskedArm, Session, ask_arms, beside_cache
from batchinfer.job.reader import Job
from batchinfer.job.spec import InputSpec
from batchinfer.planning import question as questions
from batchinfer.publish.prior import Means
from batchinfer.versions.layout import free_name

NUMBER = "audit_row"


def ask_tables(
    job: Job, tables: Mapping[str, pa.Table], session: Session, scratch: Path, means: Means | None
) -> tuple[list[list[ArmAnswer]], int]:
    """The answers to the rows of each table, in their order, and how many were generated for it, by one loaded engine.

    tables: the template's columns, of the types that the job's list has; by the name that its run is recorded with.
    scratch: a folder. means: of the job's list, by which output.prior divides choices; None without one. Raises Stopped or InputError.
    """
    asks = {name: rows for name, rows in tables.items() if rows.num_rows}
    with contextlib.ExitStack() as stack:
        arms = [
            stack.enter_context(_beside_cache(job, name, rows, session, scratch / f"{name}.parquet"))
            for name, rows in asks.items()
        ]
        ask_arms(arms, session)
        found = {
            name: _answers(each, rows.num_rows, means) for each, (name, rows) in zip(arms, asks.items(), strict=True)
        }
        generated = sum(each.progress.generated for each in arms)
        return [found.get(name, []) for name in tables], generated


def _beside_cache(
    job: Job, name: str, rows: pa.Table, session: Session, path: Path
) -> contextlib.AbstractContextManager[AskedArm]:
    """The rows as the list of the job, with numbers for its key."""
    number = free_name(NUMBER, [name.lower() for name in rows.column_names])
    pq.write_table(rows.append_column(number, pa.array(range(rows.num_rows), pa.int64())), path)
    section = job.spec.input
    types = {name: kind for name, kind in section.types.items() if name in rows.column_names}
    own = InputSpec(path=str(path), key=[number], types=types, optional=section.optional)
    variant = replace(job, spec=job.spec.model_copy(update={"input": own}))
    question = questions.make(variant, session.data)
    arm = Arm(name, 0, 0, question.identity.label, variant, question, variant.spec.output.prior)
    return beside_cache(arm, session.data, path, session.console, writes=True)


def _answers(asked: AskedArm, count: int, means: Means | None) -> list[ArmAnswer]:
    found, missing = read_rows(asked, means), ArmAnswer(reason="bad_row")
    return [found.get(row, missing) for row in range(1, count + 1)]
