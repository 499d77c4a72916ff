"""One entry out of versions and candidates: each is written again without it, and keeps its other entries.

What is served or pinned becomes a new version, which servers then take. The others keep their numbers.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq

from batchinfer.cache.store import Store
from batchinfer.core import database
from batchinfer.core.clock import iso, now
from batchinfer.core.database import one
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.files import os_errors, write_atomically
from batchinfer.core.home import CALIBRATION, JobData
from batchinfer.core.long_rows import has_long_texts, read_batches
from batchinfer.core.sql import literal
from batchinfer.errors import Busy
from batchinfer.job.spec import MatchSpec
from batchinfer.maintenance.entry import SearchedVersion, blobs
from batchinfer.publish import build, lookup_index, matcher
from batchinfer.publish.predictions_file import write_batches
from batchinfer.publish.release import install_version, next_number
from batchinfer.versions import folders, pointers, retention
from batchinfer.versions.folders import draft_folder
from batchinfer.versions.layout import LOOKUP, MANIFEST, NAMES, PREDICTIONS, STUDENT
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import CURRENT, PIN, Pointer


@dataclass(frozen=True, slots=True)
class ReplacedVersions:
    """What became of versions and candidates that held an entry.

    rebuilt: the new versions, in place of what was served or pinned.
    rewritten: those that were written again under their own number or name.
    removed: those that the rebuilt ones replace.
    emptied: those of the rebuilt ones that have no entry any more.
    untaught: those that had a student, which may have learned from the entry, and have none now.
    """

    rebuilt: list[int]
    rewritten: list[int | str]
    removed: list[int | str]
    emptied: list[int]
    untaught: list[int | str]

    @property
    def remarks(self) -> list[str]:
        """What a person must know of them."""
        empty = [f"Version {number} has no entries left: every look-up misses." for number in self.emptied]
        if not self.untaught:
            return empty
        names = ", ".join(map(str, self.untaught))
        said = f"Without a student now, since it may have learned from the entry: {names}. The next publish makes a new one."
        return [*empty, said]


class _Rebuilt(NamedTuple):
    """A version that was built in place of one that is served."""

    number: int
    rows: int


def replace_versions(
    data: JobData, db: duckdb.DuckDBPyConnection, store: Store | None, versions: Sequence[SearchedVersion]
) -> ReplacedVersions:
    """Rebuilds what is served or pinned, then writes again all else that holds the entry.

    A gate's examples may quote the entry, shortened, also where the version does not hold it: they go in any case.
    """
    served = {pointer.version for pointer in _pointers(data).values()}
    replaced = [place for place in versions if place.name in served and (place.lookup_hashes or place.quotes)]
    rebuilt = {place.name: _rebuild(data, db, store, place) for place in replaced}
    holding = [place for place in versions if place.lookup_hashes and place not in replaced]
    quoting = [place for place in versions if place.quotes and place not in replaced and place not in holding]
    with data.versions_lock(f"batchinfer forget {data.name}"):
        _check_not_named(data, [*holding, *quoting])
        for name, pointer in _pointers(data).items():
            if pointer.version in rebuilt:
                pointers.point(data, name, rebuilt[pointer.version].number)
        for place in quoting:
            write_atomically(place.folder / MANIFEST, place.manifest.without_examples().to_bytes())
        for place in replaced:
            with os_errors(place.folder):  # a server that has it open reads on until it takes the new one
                retention.remove(place.folder)
    for place in holding:
        _rewrite(data, db, place)
    return ReplacedVersions(
        rebuilt=[made.number for made in rebuilt.values()],
        rewritten=[place.name for place in holding],
        removed=[place.name for place in replaced],
        emptied=[made.number for made in rebuilt.values() if not made.rows],
        untaught=[
            rebuilt[place.name].number if place.name in rebuilt else place.name
            for place in (*replaced, *holding)
            if _loses_student(place)
        ],
    )


def _loses_student(place: SearchedVersion) -> bool:
    """Whether a version has a student that may have learned from the entry: no model of it must remain."""
    return bool(place.lookup_hashes) and STUDENT in place.manifest.files


def _pointers(data: JobData) -> dict[str, Pointer]:
    found = {name: pointers.pointer(data, name) for name in (PIN, CURRENT)}
    return {name: pointer for name, pointer in found.items() if pointer is not None}


def _check_not_named(data: JobData, places: Sequence[SearchedVersion]) -> None:
    """Raises Busy if CURRENT or PIN names one of them by now: its manifest's digest is in there."""
    for pointer in _pointers(data).values():
        if pointer.version in [place.name for place in places]:
            raise Busy(f"Version {pointer.version} was pinned meanwhile: run this command again.")


def _rebuild(data: JobData, db: duckdb.DuckDBPyConnection, store: Store | None, place: SearchedVersion) -> _Rebuilt:
    """A new version from an old one, without the entry. The gate does not judge it again."""
    with draft_folder(data) as draft:
        manifest = _write_others(db, place, draft)
        version = next_number(data, store)
        rebuilt = manifest.derive(version=version, created_at=iso(now()), parent=place.name)
        install_version(data, store, draft, version, rebuilt, current=False)
    return _Rebuilt(version, rebuilt.rows)


def _rewrite(data: JobData, db: duckdb.DuckDBPyConnection, place: SearchedVersion) -> None:
    """Writes a version or candidate that is not served again, without the entry, in its place."""
    with draft_folder(data) as draft:
        build.write_manifest(draft, _write_others(db, place, draft))
        folders.sync_files(draft)
        if (draft / LOOKUP).exists():
            build.check(draft)
        with data.versions_lock(f"batchinfer forget {data.name}"), os_errors(place.folder):
            _check_not_named(data, [place])
            retention.replace(place.folder, draft)


def _write_rows(db: duckdb.DuckDBPyConnection, source: Path, others: str, target: Path) -> None:
    """Writes those rows of a file again that a condition leaves."""
    if has_long_texts(source):  # in their order already, which is that of the lookup hash
        kept = read_batches(db, source, lambda rows: f"SELECT * FROM {rows} {others}", database.TEXT_ROWS)
        write_batches(kept, pq.read_schema(source), target)
    else:
        rows = f"SELECT * FROM {parquet_rows(source)} {others} ORDER BY lookup"
        db.execute(f"COPY ({rows}) TO {literal(str(target))} {database.COPY_OPTIONS}")


def _write_others(db: duckdb.DuckDBPyConnection, place: SearchedVersion, draft: Path) -> Manifest:
    """Writes its files without the entry, from its predictions.parquet; returns the manifest, still without them."""
    manifest = place.manifest
    others = f"WHERE lookup NOT IN ({blobs(place.lookup_hashes)})" if place.lookup_hashes else ""
    written = parquet_rows(draft / PREDICTIONS)
    for file in {PREDICTIONS, NAMES} & manifest.files.keys():
        _write_rows(db, place.folder / file, others, draft / file)
    if CALIBRATION in manifest.files:  # it says nothing of any entry
        shutil.copyfile(place.folder / CALIBRATION, draft / CALIBRATION)
    student = manifest.document.get("student")
    if STUDENT in manifest.files and not _loses_student(place):
        shutil.copyfile(place.folder / STUDENT, draft / STUDENT)
    elif STUDENT in manifest.files:
        student = None
    held = None
    if LOOKUP in manifest.files:  # a refused candidate has none
        lookup_index.write_lookup(db, manifest.key, draft, manifest.job, is_json=manifest.is_json)
        match = manifest.spec.sections.get("match", "null") if manifest.has_matcher else "null"
        spec = None if match == "null" else MatchSpec.model_validate_json(match)
        held = matcher.write_matcher(manifest.key, draft, spec, is_json=manifest.is_json)
    return manifest.without_examples().derive(
        rows=one(db, f"SELECT count(*) FROM {written}"),
        carried=one(db, f"SELECT count(*) FROM {written} WHERE carried"),
        match=None if held is None else held.to_json(),
        student=student,
        forgot=manifest.erased + 1,
    )
