"""What every command that needs the list begins with: the list read, keys made, compared with the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from batchinfer.cache import imports
from batchinfer.cache.store import Store
from batchinfer.core.clock import now
from batchinfer.core.home import JobData
from batchinfer.errors import UsageError
from batchinfer.inputs import misses
from batchinfer.inputs.files import list_files
from batchinfer.inputs.parquet import Source, template_values
from batchinfer.inputs.query_list import Plan, scratch_plan
from batchinfer.inputs.upstream import Upstream
from batchinfer.job.reader import Job
from batchinfer.planning import question
from batchinfer.planning.plan import Selection
from batchinfer.planning.question import Question
from batchinfer.publish import golden, matcher
from batchinfer.publish.golden import Golden

WRITER_PATIENCE = 600.0  # seconds; a run of hours does not fail because somebody plans beside it


def quiet(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `batchinfer run`."""

    input: Path | None = None
    limit: int | None = None
    max_hours: float | None = None
    publish: bool = True
    retry_failed: bool = False
    refresh: bool = False  # make again what is cached: all, or the rows of refresh_where
    refresh_where: tuple[str, str] | None = None
    update_model: bool = False
    yes: bool = False

    @property
    def refresh_text(self) -> str:
        """The refresh as it was asked for."""
        return "=".join(self.refresh_where) if self.refresh_where else "all"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose list was read and compared with its cache. question: None for a job that lives by imports.

    known: the job's golden rows, if it names any. upstream: what the list was made of, if the job is chained.
    """

    job: Job
    data: JobData
    store: Store
    plan: Plan
    question: Question | None
    selection: Selection
    known: Golden | None
    upstream: Upstream | None


@contextlib.contextmanager
def planned(
    job: Job,
    data: JobData,
    options: Options,
    *,
    holds_lock: bool = False,
    gated: bool = True,
    say: Callable[[str], None] = quiet,
) -> Iterator[Prepared]:
    """Reads the list, makes keys, compares them with the cache. Used by every command that needs the list.

    holds_lock: the caller holds the run lock; stored texts are then read again first if the parser changed.
    gated: what comes of it is to pass the gate, whose golden file is then read: before hours of work, not after.
    """
    data.prepare(job.path)
    spec = job.spec
    if gated and spec.match is not None:
        matcher.need_libraries()
    asked = question.make(job, data, update_model=options.update_model) if spec.prompt else None
    columns = asked.template.columns if asked else list(spec.input.key)
    store = Store(data.cache, patience=WRITER_PATIENCE if holds_lock else None)
    store.prepare()
    with data.scratch() as scratch:
        files, upstream = list_files(job, data, options.input, scratch)
        source = Source(files, spec.input, columns)
        asked = asked and asked.of_kinds({name: source.kinds[name] for name in columns})
        known = golden.load(job, source.key) if gated else None
        with scratch_plan(scratch, source, columns) as plan:
            include = spec.input.include_misses
            plan.load(
                asked.fingerprint if asked else b"",
                misses.rows(data, source) if include else None,
                include.at_least if include else 1,
            )
            if asked is not None and holds_lock:
                values = partial(_template_values, plan) if asked.parser.columns else None
                store.reread(asked.parser, asked.made(None), plan.queries, values)
            _find_imports_again(store, data, plan, say, holds_lock=holds_lock)
            selection = _selection(options, spec.cache.max_age, data, [*spec.input.key, *columns])
            plan.compare(store, spec, asked.parser_id if asked else "", selection)
            yield Prepared(job, data, store, plan, asked, selection, known, upstream)


def _find_imports_again(
    store: Store, data: JobData, plan: Plan, say: Callable[[str], None], *, holds_lock: bool
) -> None:
    """What people gave and rejected holds for the job's key as it is now, whatever it was when they did."""
    if not imports.stale(store, plan.source):
        return
    with contextlib.nullcontext() if holds_lock else data.run_lock(f"batchinfer, on imports of {data.name}"):
        numbers = imports.stale(store, plan.source)  # another process may have been faster
        lost = imports.rebuild_lookups(store, plan.db, plan.source, numbers) if numbers else 0
    if lost:
        names = ", ".join(column.name for column in plan.source.key)
        say(
            f"{lost:,} rows of earlier imports and reviews are not of the key {names}, or not of its kinds: "
            "they are kept, but neither served nor heeded until the job has their key again."
        )


def _template_values(plan: Plan, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    """What the template is filled with for these prompts, as far as the list has them."""
    return {key: template_values(row, plan.source.kinds) for key, row in plan.rows(keys).items()}


def _selection(options: Options, max_age: timedelta | None, data: JobData, columns: list[str]) -> Selection:
    """What is to be made again. A refresh that was stopped goes on: what it made since it began counts as done."""
    if options.refresh_where and options.refresh_where[0] not in columns:
        raise UsageError(f"--refresh: the list has no column {options.refresh_where[0]} that the job uses.")
    since = (data.refresh_since(options.refresh_text) or now()) if options.refresh else None
    return Selection(options.retry_failed, since, options.refresh_where, max_age)
