"""One entry out of everything that the data folder holds of a job, in an order in which a kill leaves it repeatable.

Recorded misses, logs and notes, the cache, versions: what the next call needs to find the rest is there until the end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.alerts.attempts import forget_said
from batchinfer.alerts.notes import AlertNotes, without_messages
from batchinfer.cache.rewrite import remove_cache_drafts, rewrite
from batchinfer.cache.store import Store
from batchinfer.core.columns import Column
from batchinfer.core.database import scratch_database
from batchinfer.core.files import DAMAGE, os_errors, read_small, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.person import Nobody, Person, ask
from batchinfer.errors import InputError, NotFound, UsageError, did_you_mean
from batchinfer.inputs.files import list_files
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ListSource
from batchinfer.job.reader import Job
from batchinfer.maintenance import erase_cache
from batchinfer.maintenance.entry import Entry, SearchedVersion, all_folders, published, search
from batchinfer.maintenance.erase_cache import ErasedRows, ListSearch, PastQuestion, PromptId
from batchinfer.maintenance.erase_evals import erase_evals
from batchinfer.maintenance.erase_versions import ReplacedVersions, replace_versions
from batchinfer.maintenance.salvage import kept_files
from batchinfer.misses import log
from batchinfer.versions.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure came to.

    job: whose entry it was.
    rows: of the cache that were removed.
    misses: recorded misses that were removed.
    evals: rows of evaluations, and groups of audits, that were removed.
    exchanged: answers to rows with exchanged terms, any of which may have been made of it.
    versions: what became of those that held it.
    in_list: whether the query list still has it.
    remarks: what a person must know besides.
    """

    job: str
    rows: ErasedRows
    misses: int
    evals: int
    exchanged: int
    versions: ReplacedVersions
    in_list: bool
    remarks: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, **asdict(self.rows), "misses": self.misses, "evals": self.evals, "exchanged": self.exchanged,
            "versions_rebuilt": self.versions.rebuilt,
            "versions_rewritten": self.versions.rewritten, "versions_removed": self.versions.removed,
            "in_list": self.in_list, "remarks": self.remarks,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Traces:
    """What there is of the entry, before anything is removed.

    prompts: those that only it asks.
    shared: generations that other rows of the list need, too.
    in_list: whether the query list has it.
    unread: why the list could not be read, if so.
    unsearched: versions and candidates that have other key columns.
    """

    prompts: set[PromptId]
    shared: int
    in_list: bool
    unread: str | None
    unsearched: list[int | str]

    @property
    def remarks(self) -> list[str]:
        """What a person must know besides what was removed."""
        said = []
        if self.shared:
            stay = "stays" if self.shared == 1 else "stay"
            said.append(
                f"{self.shared:,} of its answers {stay} in the cache, since other rows of the list ask the same."
            )
        if self.in_list:
            said.append("The query list still has it, and the next run would ask it again: take it out of the list.")
        if self.unread is not None:
            said.append(
                f"The query list could not be read, so answers that no version holds may be left: {self.unread}"
            )
        if self.unsearched:
            names = ", ".join(map(str, self.unsearched))
            said.append(f"Not searched, since they are looked up by other columns: {names}.")
        return said


def erase_entry(
    job: Job | None,
    data: JobData,
    texts: Mapping[str, str],
    instead: Path | None = None,
    person: Person | None = None,
    *,
    yes: bool = True,
) -> ErasureReport:
    """Removes one entry. Raises NotFound, UsageError, NotConfirmed, StoreError or Busy.

    job: None where only published versions are there.
    texts: the entry's key.
    instead: the list in place of the job's.
    person: whom to ask, once it is known that this can be a key of the job.
    yes: whether they agreed beforehand.
    """
    if not data.folder.is_dir():
        raise NotFound(f"The job {data.name} has nothing in {data.root}.")
    if job is not None:
        data.bind(job.path)
    with (
        data.run_lock(f"batchinfer forget {data.name}"),
        data.scratch() as scratch,
        scratch_database(scratch) as db,
    ):
        store = Store(data.cache)
        _sweep(data, store)
        files, unread = _list_files(job, data, instead, scratch)
        places = all_folders(data)
        entry = _entry(job, data, files, [manifest for _, manifest in places.values()], texts)
        _ask(person or Nobody(), data, entry, yes=yes)
        if has_cache := store.path.exists():
            store.create_or_migrate()
        versions = [search(db, name, folder, manifest, entry) for name, (folder, manifest) in places.items()]
        existing = store if has_cache else None
        traces = _trace(db, existing, job, files, versions, entry, unread)
        return _remove_all(data, db, existing, entry, versions, traces)


def _ask(person: Person, data: JobData, entry: Entry, *, yes: bool) -> None:
    """Raises NotConfirmed."""
    said = f"This erases {entry.name} of {data.name}, in its cache, versions, misses, evaluations and logs, and cannot be undone."
    ask(person, said, "pass --yes to erase it.", yes=yes)


def _remove_all(
    data: JobData,
    db: duckdb.DuckDBPyConnection,
    store: Store | None,
    entry: Entry,
    versions: Sequence[SearchedVersion],
    traces: Traces,
) -> ErasureReport:
    none = ErasedRows(0, 0, 0)
    erased = none if store is None else erase_cache.mark(store, db, entry, traces.prompts)
    missed = log.erase(data, entry.lookup_hash, entry.columns, entry.normalize)
    evaluated = erase_evals(data, entry)
    if erased == none and not missed and not evaluated and not any(version.lookup_hashes for version in versions):
        raise NotFound(
            " ".join([f"Nothing of {entry.name} is stored for the job {data.name} in {data.root}.", *traces.remarks])
        )
    _drop_logs(data)
    _drop_notes(data)
    data.checkpoint.unlink(missing_ok=True)  # of a training that was stopped: its weights may have learned the row
    exchanged = 0
    if store is not None:  # even if no row is the entry's: what was deleted before may still lie in free blocks
        exchanged = erase_cache.mark_exchanged(store, db)
        rewrite(store, db, erase_cache.without_examples)
    replaced = replace_versions(data, db, store, versions)
    remarks = [*replaced.remarks, *traces.remarks, *_kept(data)]
    return ErasureReport(data.name, erased, missed, evaluated, exchanged, replaced, traces.in_list, remarks)


def _kept(data: JobData) -> list[str]:
    """What a person must know of damaged caches, which nobody can search."""
    return [f"The damaged cache {path} may hold it, too: remove it." for path in kept_files(data)]


def _sweep(data: JobData, store: Store) -> None:
    """What killed processes left unfinished, which may hold anything."""
    remove_cache_drafts(store)
    for left in [*data.versions.glob(".*"), *data.rejected.glob(".*")]:
        if left.is_dir():
            with os_errors(left):
                shutil.rmtree(left)


def _list_files(
    job: Job | None, data: JobData, instead: Path | None, scratch: Path
) -> tuple[list[ListFile], str | None]:
    """The files of the list, or none and why."""
    if job is None:
        return [], None
    try:
        return list_files(job, data, instead, scratch)[0], None
    except (InputError, NotFound) as exc:
        return [], str(exc)


def _entry(
    job: Job | None, data: JobData, files: Sequence[ListFile], manifests: Sequence[Manifest], texts: Mapping[str, str]
) -> Entry:
    """The entry, its values of the kinds that the list has, or else a version. Raises UsageError."""
    known: list[tuple[tuple[Column, ...], tuple[str, ...]]] = []
    if job is not None:
        normalize: tuple[str, ...] = tuple(job.spec.input.normalize)
        with contextlib.suppress(InputError):
            known = [(tuple(ListSource(files, job.spec.input, []).key), normalize)] if files else []
        types = job.spec.input.types
        last = tuple(Column(name, types.get(name, "string")) for name in job.spec.input.key)
        known += [(manifest.key, normalize) for manifest in reversed(manifests)] + [(last, normalize)]
    else:
        known = [(manifest.key, manifest.normalize) for manifest in reversed(manifests)]
    for columns, normalize in known:
        if {column.name for column in columns} == texts.keys():
            return Entry(texts, columns, normalize)
    if not known:
        raise NotFound(f"Nothing of the job {data.name} is stored in {data.root}: there is no entry to erase.")
    keys = list(dict.fromkeys(tuple(column.name for column in columns) for columns, _ in known))
    for unknown in (name for name in texts if name not in keys[0]):
        if fix := did_you_mean(unknown, keys[0]):
            raise UsageError(f"{unknown} is not part of the lookup key of {data.name}", fix=fix)
    names = " or ".join(map(", ".join, keys))
    raise UsageError(f"The lookup key is {names}", fix="give a value for each of its columns, and no others.")


def _trace(
    db: duckdb.DuckDBPyConnection,
    store: Store | None,
    job: Job | None,
    files: Sequence[ListFile],
    versions: Sequence[SearchedVersion],
    entry: Entry,
    unread: str | None,
) -> Traces:
    """What only this entry asks: by the list, by the entry's own values, and by what versions say of it."""
    questions: list[PastQuestion] = []
    prompts: set[PromptId] = set()
    if store is not None:
        known = published(db, versions)
        with store.attached(db):
            questions = erase_cache.past_questions(db)
            prompts = erase_cache.prompts_of(db, known.generations)
        made = (question.prompt(values) for question in questions for values in [entry.values(), *known.spellings])
        prompts |= {prompt for prompt in made if prompt is not None}
    in_list, needed = False, set[PromptId]()
    if job is not None and files:
        listed = ListSearch(files, job.spec.input, questions, entry)
        try:
            in_list, own = listed.prompts(db)
            prompts |= own
            needed = listed.needed(db, prompts)
        except (InputError, NotFound) as exc:
            unread = str(exc)
    shared = 0
    if store is not None and needed:
        with store.attached(db):
            shared = erase_cache.count_answers(db, needed)
    return Traces(prompts - needed, shared, in_list, unread, [found.name for found in versions if not found.searched])


def _drop_logs(data: JobData) -> None:
    """All of them: an engine that failed may have quoted any prompt, in any form."""
    for path in data.logs.glob("*"):
        if path.is_file():
            with os_errors(path):
                path.unlink()


def _drop_notes(data: JobData) -> None:
    """What other files of the job quote: the rows of a gate's report, and of a refresh that was not finished."""
    path = data.folder / "last_run.json"
    if path.is_file():
        try:
            report = erase_cache.without_examples(json.loads(read_small(path)))
            write_atomically(path, json.dumps(report).encode())
        except DAMAGE:  # damaged: the next run writes it again
            path.unlink()
    forget_said(data)
    if (notes := AlertNotes(data, lambda _: None)).is_there:
        notes.change(without_messages)
    if (refresh := data.record().refresh) is not None and refresh.what != "all":
        data.clear_refresh()
