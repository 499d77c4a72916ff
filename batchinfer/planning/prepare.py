"""What every command that needs the list begins with: list and question made ready, and compared with the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from batchinfer.cache import imports
from batchinfer.cache.store import Store
from batchinfer.cache.verdicts import Verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core.clock import RUN_STOP_SECONDS, latest, now
from batchinfer.core.columns import Kind
from batchinfer.core.database import scratch_database
from batchinfer.core.home import JobData
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.records import Info
from batchinfer.errors import BatchinferError, UsageError, counted, did_you_mean
from batchinfer.inputs import misses
from batchinfer.inputs.files import list_columns, list_files, open_list
from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.place import ListFacts, list_place
from batchinfer.inputs.query_list import QueryList
from batchinfer.inputs.upstream import Upstream
from batchinfer.job.reader import LARGE_MODEL, Job, faulty, placing
from batchinfer.job.spec import JobSpec
from batchinfer.planning import question as questions
from batchinfer.planning.cascade import Cascade, joint_fingerprint, need_threshold_libraries
from batchinfer.planning.plan import Plan, Selection
from batchinfer.planning.question import Question
from batchinfer.prompting.likelihood import used_columns
from batchinfer.versions.folders import candidates, numbers

WRITER_PATIENCE = 600.0  # seconds; a run of hours does not fail because somebody plans beside it


def quiet(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asked of a run.

    input: the list in place of the job's own.
    limit: of prompts; nothing is published then.
    spread: take them from all over the list, not its first.
    purpose: of a run with a limit that a person did not ask for as such: probe or tune.
    max_hours: after them it stops as by Ctrl-C.
    budget: what it may cost, with the runs before it that did not come to their end, in the job's currency.
    stop_seconds: that what is in flight has after Ctrl-C or SIGTERM.
    publish: False to fill the cache only.
    retry_failed: try again what failed before.
    refresh: make again what is cached.
    refresh_where: (column, value) of the rows to refresh; None for all.
    update_model: take the model as it is now.
    yes: do not ask.
    despite_people: ask the model also what people answered.
    """

    input: Path | None = None
    limit: int | None = None
    spread: bool = False
    purpose: str | None = None
    max_hours: float | None = None
    budget: float | None = None
    stop_seconds: float = RUN_STOP_SECONDS
    publish: bool = True
    retry_failed: bool = False
    refresh: bool = False
    refresh_where: tuple[str, str] | None = None
    update_model: bool = False
    yes: bool = False
    despite_people: bool = False

    @property
    def publishes(self) -> bool:
        """Whether the run is to end with a version."""
        return self.publish and self.limit is None

    @property
    def refresh_text(self) -> str:
        """The refresh as it was asked for."""
        return "=".join(self.refresh_where) if self.refresh_where else "all"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose list was read and compared with its cache.

    job: the job file.
    data: its part of the data folder.
    workspace: the list and its cache.
    plan: what is to be generated.
    question: None for a job that lives by imports.
    selection: what is made again although it is cached.
    upstream: what the list was made of, if the job is chained.
    place: where the list comes from, as versions record it.
    made_of: the list's files, as they were when they were read.
    cascade: how two models share the list; None in a job with one. `question` is the small one's then.
    """

    job: Job
    data: JobData
    workspace: Workspace
    plan: Plan
    question: Question | None
    selection: Selection
    upstream: Upstream | None
    place: str
    made_of: ListFacts
    cascade: Cascade | None = None

    @property
    def query_list(self) -> QueryList:
        return self.workspace.query_list

    @property
    def store(self) -> Store:
        return self.workspace.store

    @property
    def current_question(self) -> Question | None:
        """The question of the model that is asked now."""
        return self.question if self.cascade is None else self.cascade.current_question

    @property
    def has_todo(self) -> bool:
        """Whether a model is left prompts to answer, as the plan is now."""
        return self.question is not None and self.plan.counts.to_generate > 0

    @property
    def asks_model(self) -> bool:
        """Whether a run may ask a model. Of two models only the run finds out what is left to ask."""
        return self.has_todo or self.cascade is not None

    @property
    def list_name(self) -> str:
        """Where the list came from, but for --input: for people and for what is recorded."""
        return str(self.upstream or self.made_of.found_by or self.job.spec.input.path)


@contextlib.contextmanager
def holding_run_lock(job: Job, data: JobData, doing: str, instead: Path | None, info: Info = quiet) -> Iterator[None]:
    """Holds the job's run lock, in a folder that is made for it. A command that stored nothing of a new job leaves no folder.

    Of a new job the list is opened first: a command that cannot begin makes nothing. instead: the list in place of the
    job's own.
    """
    data.check_owner(job.path)
    if not data.is_known:
        prompt = job.spec.prompt
        list_columns(job, data, instead, used=used_columns(prompt, job.spec.output, "") if prompt else ())
    with placing(job), lock_job(data, doing, info):
        yield


def lock_job(data: JobData, doing: str, info: Info) -> contextlib.AbstractContextManager[None]:
    """The run lock of a job that may be new, whose folder is taken away again if nothing was stored in it."""
    return data.first_use(doing, partial(_is_empty, data), info)


def _is_empty(data: JobData) -> bool:
    """Whether neither a run nor an import was recorded, nor anything published or refused."""
    if numbers(data) or candidates(data):
        return False
    with contextlib.suppress(BatchinferError):  # one that cannot be read is kept: whatever raised before is told
        return not data.cache.exists() or Store(data.cache).is_empty()
    return False


@contextlib.contextmanager
def prepare(job: Job, data: JobData, options: Options, info: Info = quiet) -> Iterator[Prepared]:
    """For commands that only look: plan, export, review. May run beside a run."""
    with _prepared(job, data, options, info, writes=False) as prepared:
        yield prepared


@contextlib.contextmanager
def prepare_to_write(job: Job, data: JobData, options: Options, info: Info = quiet) -> Iterator[Prepared]:
    """For commands that change the job's cache or versions. The caller holds the run lock.

    What the cache holds is brought up to date first: texts that another parser read are read again.
    """
    with _prepared(job, data, options, info, writes=True) as prepared:
        yield prepared


@contextlib.contextmanager
def _prepared(job: Job, data: JobData, options: Options, info: Info, *, writes: bool) -> Iterator[Prepared]:
    data.check_owner(job.path)
    spec = job.spec
    question = questions.make(job, data, update_model=options.update_model) if spec.prompt else None
    large = _large(job, data, options, question)
    columns = question.columns if question else list(spec.input.key)
    selection = _selection(options, spec.cache.max_age, data, list(dict.fromkeys([*spec.input.key, *columns])))
    with data.scratch() as scratch, scratch_database(scratch) as db, contextlib.closing(LongTexts(scratch)) as texts:
        files, upstream = list_files(job, data, options.input, scratch)
        made_of = ListFacts.of(files, list_place(job, options.input))
        if made_of.files is not None and made_of.found_by is not None:
            info(f"The list: {made_of.found_by}.")
        narrowed = bool(spec.input.where) or options.input is not None
        query_list = QueryList(db, open_list(job, files, columns), columns, texts, narrowed=narrowed)
        question, large = (each and each.of_kinds(*_kinds(query_list.source, columns)) for each in (question, large))
        load_list(query_list, job, data, question, large)
        store = _store_to_write(job, data) if writes else _store_to_read(data, scratch, query_list)
        if store.has_long_texts():
            texts.add_source(store.long_texts)
        fingerprint = _fingerprint(spec, question, large)
        workspace = Workspace(db, spec, store, query_list, Verdicts(db, spec), data, fingerprint)
        for each in (question, large):
            if writes and each is not None:
                _reread(workspace, each)
        _resolve_verdicts(workspace, options, info, is_own=writes or store.path != data.cache)
        plan = Plan(workspace, question.parser_id if question else "", selection)
        cascade = _cascade(workspace, plan, question, large)
        yield Prepared(
            job, data, workspace, plan, question, selection, upstream, list_place(job, options.input), made_of, cascade
        )


def _large(job: Job, data: JobData, options: Options, small: Question | None) -> Question | None:
    """What the large model is asked, in a job that has one. Raises SpecError where it is the small one."""
    if (large_job := job.large) is None or small is None:
        return None
    need_threshold_libraries()
    large = questions.make(large_job, data, update_model=options.update_model)
    if large.identity.weights == small.identity.weights:
        raise faulty(job, [(LARGE_MODEL, f"it is the same model as model.id, {small.identity.label}.")])
    return large


def _fingerprint(spec: JobSpec, question: Question | None, large: Question | None) -> str | None:
    """What stands for all that the list is asked, in hexadecimal digits."""
    if question is None:
        return None
    if large is None:
        return question.fingerprint.hex()
    assert spec.model is not None
    assert spec.model.cascade is not None
    return joint_fingerprint(question, large, spec.model.cascade).hex()


def _cascade(workspace: Workspace, plan: Plan, small: Question | None, large: Question | None) -> Cascade | None:
    model = workspace.spec.model
    if small is None or large is None or model is None or model.cascade is None:
        return None
    return Cascade(workspace, plan, model.cascade, small, large)


def _kinds(source: ListSource, names: Sequence[str]) -> tuple[dict[str, Kind], list[str]]:
    """The kinds of these columns, and those among them whose times have a zone."""
    return {name: source.kinds[name] for name in names}, [name for name in names if name in source.zoned]


def load_list(
    query_list: QueryList, job: Job, data: JobData, question: Question | None, large: Question | None = None
) -> None:
    """Reads the list, and what clients asked for and did not find, if the job takes that in. large: to a second model."""
    include = job.spec.input.include_misses
    query_list.load(
        question.fingerprint if question else b"",
        misses.rows(data, query_list.source) if include else None,
        include.at_least if include else 1,
        large.fingerprint if large else b"",
    )


def _reread(workspace: Workspace, question: Question) -> None:
    """Reads stored texts again that another parser judged."""
    query_list = workspace.query_list
    values = partial(_template_values, query_list) if question.parser.columns else None
    workspace.store.reread(question.parser, question.provenance(None), query_list.queries, values)


def _template_values(query_list: QueryList, prompt_keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    """What the template is filled with for these prompts, as far as the list has them."""
    return {
        prompt_key: query_list.source.template_values(row) for prompt_key, row in query_list.rows(prompt_keys).items()
    }


def _store_to_write(job: Job, data: JobData) -> Store:
    """The job's cache, up to date; the job's name in the data folder belongs to this job file from now on."""
    data.bind(job.path)
    store = Store(data.cache, patience=WRITER_PATIENCE)
    store.create_or_migrate()
    return store


def _store_to_read(data: JobData, scratch: Path, query_list: QueryList) -> Store:
    """The job's cache, up to date: a copy of one that must be changed and cannot be. None is made."""
    store = Store(data.cache).for_reading(scratch)
    if store.path == data.cache and not data.is_writable and imports.outdated(store, query_list.source):
        return store.copied(scratch)
    return store


def _resolve_verdicts(workspace: Workspace, options: Options, info: Info, *, is_own: bool) -> None:
    """What people said of the list's rows, unless the model is to be asked whatever they said.

    is_own: nobody else changes the cache now.
    """
    if options.despite_people:
        workspace.verdicts.ignore()
        return
    _rebuild_lookups(workspace, info, is_own=is_own)
    workspace.verdicts.resolve(workspace.store, workspace.query_list)


def _rebuild_lookups(workspace: Workspace, info: Info, *, is_own: bool) -> None:
    """What people gave and rejected holds for the job's key as it is now, whatever it was when they did.

    is_own: nobody else changes the cache now, since the run lock is held, or it is a copy.
    """
    store, query_list, data = workspace.store, workspace.query_list, workspace.data
    if not imports.outdated(store, query_list.source):
        return
    with contextlib.nullcontext() if is_own else data.run_lock(f"batchinfer, on imports of {data.name}"):
        numbers = imports.outdated(store, query_list.source)  # another process may have been faster
        unfit = imports.rebuild_lookups(store, workspace.db, query_list, numbers) if numbers else 0
    if unfit:
        names = ", ".join(column.name for column in query_list.source.key)
        info(
            f"{counted(unfit, 'row')} of earlier imports and reviews {'does' if unfit == 1 else 'do'} not fit the key {names}: "
            "kept, but not used until the job has that key again."
        )


def _selection(options: Options, max_age: timedelta | None, data: JobData, columns: list[str]) -> Selection:
    """What is to be made again. A refresh that was stopped goes on: what it made since it began counts as done."""
    if options.refresh_where and options.refresh_where[0] not in columns:
        fix = did_you_mean(options.refresh_where[0], columns) or f"it uses {', '.join(columns)}."
        raise UsageError(f"--refresh: the list has no column {options.refresh_where[0]} that the job uses", fix=fix)
    begun = data.refresh_since(options.refresh_text)
    # One that began in the future began under a clock that went wrong: what it made has no known age.
    since = (now() if begun is None or begun > latest() else begun) if options.refresh else None
    return Selection(options.retry_failed, since, options.refresh_where, max_age)
