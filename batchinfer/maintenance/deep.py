"""Reads all of a job's cache and versions, and says what is damaged. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.core.sql import quoted
from batchinfer.errors import BatchinferError, Busy, counted
from batchinfer.maintenance.doctor import Finding
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.pointers import CURRENT, PIN
from batchinfer.versions.snapshot import Snapshot


def read_all(data: JobData) -> Iterator[Finding]:
    """Findings about every table of the cache, every version, and what CURRENT and PIN name."""
    if data.cache.exists():
        yield _cache(data)
    for name in (CURRENT, PIN):
        yield from _pointer(data, name)
    for number in folders.numbers(data):
        yield _version(data, number)


def _cache(data: JobData) -> Finding:
    what = "cache, all of it"
    try:
        rows, tables = read_cache(Store(data.cache))
    except Busy as exc:
        return Finding(what, f"cannot be read now: {exc}", ok=False, fix=exc.fix)
    except BatchinferError as exc:
        damage = exc.to_json()["error"]["message"]
        return Finding(what, f"damaged: {damage}", ok=False, fix=f"batchinfer repair {data.name}")
    return Finding(what, f"{counted(rows, 'row')} in {counted(tables, 'table')} can be read")


def read_cache(store: Store) -> tuple[int, int]:
    """Reads every value of every table: DuckDB compares each block with its checksum. How many rows and tables.

    Raises StoreError for a damaged one, or Busy.
    """
    with store.open() as db:
        names = [name for (name,) in db.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()]
        rows = 0
        for name in names:
            [(count, _)] = db.execute(f"SELECT count(*), bit_xor(hash(t)) FROM {quoted(name)} t").fetchall()
            rows += count
    return rows, len(names)


def _pointer(data: JobData, name: str) -> Iterator[Finding]:
    """Whether a pointer names a version that is there. One that does not exist is no finding."""
    try:
        found = pointers.pointer(data, name)
    except BatchinferError as exc:
        yield Finding(name, f"damaged: {exc}", ok=False, fix=_pointer_fix(data, name))
        return
    if found is None:
        return
    there = (folders.folder_of(data, found.version) / MANIFEST).is_file()
    said = f"version {found.version}{'' if there else ', which is not there'}"
    yield Finding(name, said, ok=there, fix=None if there else _pointer_fix(data, name))


def _pointer_fix(data: JobData, name: str) -> str:
    return f"batchinfer unpin {data.name}" if name == PIN else f"batchinfer publish {data.name}"


def _version(data: JobData, number: int) -> Finding:
    """Every file is compared with its checksum, and every entry and page read."""
    what = f"version {number}"
    try:
        folders.verify(data, number)
        with Snapshot(folders.folder_of(data, number)) as snapshot:
            snapshot.entries.check()
            if snapshot.matches:
                _ = snapshot.matcher
            return Finding(what, f"{counted(len(snapshot), 'entry', 'entries')}, whole")
    except BatchinferError as exc:
        fix = f"batchinfer rollback {data.name}, if it is served; then remove its folder, or copy it from another data folder"
        return Finding(what, f"damaged: {exc}", ok=False, fix=fix)
