"""A new cache in place of a damaged one: of what can still be read of it, and of what versions have. The damaged file stays."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.cache.pieces import drop_incomplete, shorten_whole
from batchinfer.cache.rewrite import remove_cache_drafts
from batchinfer.cache.store import Store
from batchinfer.core.clock import now
from batchinfer.core.database import first_line, is_damage, scratch_database
from batchinfer.core.duckdb_paths import database_place
from batchinfer.core.files import os_errors, replace_durably, sync_folder
from batchinfer.core.home import JobData
from batchinfer.core.person import Person, ask
from batchinfer.core.sql import literal
from batchinfer.errors import BatchinferError, NotFound, StoreError, counted
from batchinfer.maintenance.deep import read_cache
from batchinfer.maintenance.restore import opened, restore_generations, restore_imports, restore_run
from batchinfer.maintenance.salvage import KEPT, SalvagedTable, kept_files, salvage
from batchinfer.versions import folders, pointers

UNKNOWN = SalvagedTable(0, None)


@dataclass(frozen=True, slots=True)
class RepairedTable:
    """Where the rows of a table of the new cache are from.

    cache: read of the damaged file.
    versions: that file lacks them, and versions have them.
    lost: what neither has; None where nobody can say how many there were.
    """

    cache: int
    versions: int
    lost: int | None

    @classmethod
    def of(cls, read: SalvagedTable, versions: int) -> RepairedTable:
        return cls(read.rows, versions, None if read.lost is None else max(0, read.lost - versions))

    def to_json(self) -> dict[str, Any]:
        return {"cache": self.cache, "versions": self.versions, "lost": self.lost}


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair came to.

    job: its name.
    damage: what was wrong with the cache; None if nothing was, and nothing was done.
    kept: the damaged file; None where there was none.
    tables: the new cache's.
    remarks: what a person must know besides.
    """

    job: str
    damage: str | None = None
    kept: Path | None = None
    tables: Mapping[str, RepairedTable] | None = None
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        tables = {name: table.to_json() for name, table in (self.tables or {}).items()}
        return {
            "job": self.job, "repaired": self.damage is not None, "damage": self.damage,
            "kept": None if self.kept is None else str(self.kept), **tables, "remarks": list(self.remarks),
        }  # fmt: skip


def repair(data: JobData, person: Person, *, yes: bool = False) -> RepairReport:
    """Makes a new cache if the job's is damaged or missing. Raises NotFound, NotConfirmed, StoreError or Busy.

    yes: do not ask. What is served is not touched. Killed anywhere, or on a full disk, it leaves the cache as it was.
    """
    data.require()
    with data.run_lock(f"batchinfer repair {data.name}"), data.scratch() as scratch:
        remove_cache_drafts(Store(data.cache))
        damage = _damage(data)
        if damage is None:
            return RepairReport(data.name)
        versions, remarks = _versions(data)
        _confirm(data, person, damage, len(versions), yes=yes)
        with _kept(data) as kept:
            return _replace(data, kept, versions, scratch, damage, remarks)


def _damage(data: JobData) -> str | None:
    """What is wrong with the cache, a sentence. Raises Busy, or StoreError for what is not damage."""
    if not data.cache.exists():
        return f"There is no {data.cache}."
    try:
        read_cache(Store(data.cache))
    except StoreError as exc:
        if not is_damage(exc.__cause__):
            raise
        return f"{data.cache} is damaged: {first_line(exc.__cause__)}."
    return None


def _versions(data: JobData) -> tuple[list[int], list[str]]:
    """The versions that are whole, the newest first; and what to say of the others."""
    found, remarks = list[int](), list[str]()
    for number in reversed(folders.numbers(data)):
        try:
            folders.verify(data, number)
        except BatchinferError as exc:
            remarks.append(f"Version {number} is damaged, too, and nothing was taken from it: {exc}")
        else:
            found.append(number)
    return found, remarks


def _confirm(data: JobData, person: Person, damage: str, versions: int, *, yes: bool) -> None:
    there = data.cache.exists()
    if not there and not versions:
        raise NotFound(
            f"There is no {data.cache}, and no version to make one of", fix="batchinfer run makes a new one."
        )
    held = f"what {counted(versions, 'version')} {'holds' if versions == 1 else 'hold'}"
    made = " and ".join([*(["what can be read of it"] if there else []), *([held] if versions else [])])
    stays = " The damaged file is kept beside it." if there else ""
    ask(person, f"{damage} A new cache is made of {made}.{stays}", "pass --yes to make it.", yes=yes)


@contextlib.contextmanager
def _kept(data: JobData) -> Iterator[Path | None]:
    """A second name of the damaged file, and of its log, which stays once the new cache is there; one of a killed repair, too.

    So the file is never without a name, and the cache never missing.
    """
    if not data.cache.exists():
        yield None
        return
    with os_errors(data.folder):
        known = [path for path in kept_files(data) if path.samefile(data.cache)]
        kept = known[0] if known else data.folder / f"{KEPT}{now():%Y%m%d-%H%M%S}.duckdb"
        if not known:
            for name, other in ((_log(data.cache), _log(kept)), (data.cache, kept)):
                if name.exists():
                    os.link(name, other)
            sync_folder(data.folder)
    try:
        yield kept
    except BaseException:
        if not known and data.cache.exists() and kept.samefile(data.cache):
            _log(kept).unlink(missing_ok=True)
            kept.unlink()
        raise


def _log(cache: Path) -> Path:
    """DuckDB's, of what is not in the file yet."""
    return cache.with_name(f"{cache.name}.wal")


def _replace(
    data: JobData, kept: Path | None, versions: list[int], scratch: Path, damage: str, remarks: list[str]
) -> RepairReport:
    path = data.cache.with_name(f".{data.cache.name}.{os.getpid()}")
    try:
        with database_place(path, read_only=False) as place:
            tables, more = _fill(Store(Path(place)), data, kept, versions, scratch)
        with os_errors(data.cache):
            if kept:
                shutil.copymode(kept, path)
            _log(data.cache).unlink(missing_ok=True)
            replace_durably(path, data.cache)
    finally:
        remove_cache_drafts(Store(data.cache))
    return RepairReport(data.name, damage, kept, tables, (*remarks, *more))


def _fill(
    draft: Store, data: JobData, kept: Path | None, versions: list[int], scratch: Path
) -> tuple[dict[str, RepairedTable], list[str]]:
    """Makes the new cache; says what is from where, and what a person must know."""
    draft.migrate()
    read = salvage(kept, draft.path, scratch) if kept else dict[str, SalvagedTable]()
    with scratch_database(scratch) as db:
        db.execute(f"ATTACH {literal(str(draft.path))} AS fresh")
        gone = drop_incomplete(db, "fresh.")
        read = {name: table.without(gone.get(name, 0)) for name, table in read.items()}
        shorten_whole(db, "fresh.")  # older caches had long texts whole
        found = _complete(db, data, versions, read, scratch)
        db.execute("CHECKPOINT fresh")
        db.execute("DETACH fresh")
    read_cache(draft)
    return found


def _complete(
    db: duckdb.DuckDBPyConnection, data: JobData, numbers: list[int], read: Mapping[str, SalvagedTable], scratch: Path
) -> tuple[dict[str, RepairedTable], list[str]]:
    """Adds what versions have and the cache lacks; says what is from where, and what a person must know."""
    db.execute(
        "INSERT INTO fresh.import_keys SELECT DISTINCT import_id, NULL FROM fresh.imports "
        "WHERE import_id NOT IN (SELECT import_id FROM fresh.import_keys)"
    )
    unnamed, added, found = list[int](), Counter[str](), read.get("imports", UNKNOWN)
    for number in numbers:
        with opened(db, data, number, scratch) as version:
            added["runs"] += restore_run(db, version)
            if version.names_prompts(db):
                added["generations"] += restore_generations(db, version)
            elif version.is_older:
                unnamed.append(number)
            if number == _current(data, numbers) and found.lost != 0:
                added["imports"] += restore_imports(db, version)
    tables = {
        name: RepairedTable.of(read.get(name, UNKNOWN), added[name])
        for name in ("generations", "imports", "failures", "runs")
    }
    return tables, _remarks(unnamed, found)


def _current(data: JobData, numbers: list[int]) -> int | None:
    """The version that was published last, as far as that can be told."""
    with contextlib.suppress(BatchinferError):
        pointer = pointers.pointer(data, pointers.CURRENT)
        if pointer is not None:
            return pointer.version
    return numbers[0] if numbers else None


def _remarks(unnamed: list[int], imports: SalvagedTable) -> list[str]:
    said = []
    if unnamed:
        names = ", ".join(map(str, sorted(unnamed)))
        said.append(
            f"Made by an older program, and without the prompts of their answers, which were not taken: versions {names}."
        )
    if imports.lost != 0:
        said.append(
            "Of what people gave, some could not be read: what the current version has of it is an import now; "
            "rejections and the names of reviewers are in no version, so import such reviews again."
        )
    return said
