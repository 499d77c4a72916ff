"""What was added, removed and changed between two versions or candidates, from their predictions.parquet alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.core import output_rows
from batchinfer.core.columns import Column
from batchinfer.core.database import TEXT_ROWS, one, record_batches, scratch_database
from batchinfer.core.home import JobData
from batchinfer.core.keys import canonical_json
from batchinfer.core.long_rows import has_long_texts, most_text
from batchinfer.core.long_texts import LONG, LongTexts
from batchinfer.core.memory import table_memory
from batchinfer.core.output import OutputFile
from batchinfer.core.sql import listed, quoted
from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.publish.predictions_file import narrow, version_rows
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import CANDIDATE, OWN_COLUMNS, PREDICTIONS, free_name
from batchinfer.versions.manifest import Manifest

CURRENT = "current"
WIDE = 512  # bytes of a text that no join takes along where all are more than it has room for
DIFFERENCE_COLUMNS = ("change", "old", "new", "old_score", "new_score", "old_source", "new_source")


@dataclass(frozen=True, slots=True)
class Side:
    """A version or a candidate that is compared.

    name: a version's number, or a candidate's name.
    folder: where it lies.
    manifest: what it says of itself.
    """

    name: int | str
    folder: Path
    manifest: Manifest

    def __str__(self) -> str:
        return f"candidate {self.name}" if isinstance(self.name, str) else f"version {self.name}"


@dataclass(frozen=True, slots=True)
class Difference:
    """How many predictions differ, and the first of them.

    start: what was compared.
    end: with what.
    added: predictions that only `end` has.
    removed: predictions that only `start` has.
    changed: predictions that differ.
    first: the first of them all, each with its key's values, change, old and new.
    """

    start: Side
    end: Side
    added: int
    removed: int
    changed: int
    first: list[tuple[Any, ...]]

    @property
    def count(self) -> int:
        return self.added + self.removed + self.changed

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.end.manifest.job, "from": self.start.name, "to": self.end.name, "added": self.added,
            "removed": self.removed, "changed": self.changed,
        }  # fmt: skip


def compare(data: JobData, names: Sequence[str], out: OutputFile | None, show: int) -> Difference:
    """Compares two versions. names: both, or none for the version before the served one and that.

    out: a file for all differences. show: how many of them to return. Raises NotFound or UsageError.
    """
    start, end = _sides(data, names)
    if start.manifest.key != end.manifest.key:
        keys = [", ".join(f"{key.name} ({key.kind})" for key in side.manifest.key) for side in (start, end)]
        raise UsageError(
            f"{str(start).capitalize()} is looked up by {keys[0]} and {end} by {keys[1]}, so they cannot be compared."
        )
    with (
        contextlib.nullcontext() if out is None else out.draft() as draft,
        data.scratch() as scratch,
        scratch_database(scratch) as db,
        contextlib.closing(LongTexts(scratch)) as texts,
    ):
        with _damage(start, end):
            _find(db, texts, start, end)
        if out is not None and draft is not None:
            is_json = start.manifest.is_json or end.manifest.is_json
            output_rows.write_output(
                db, _all_sql(end.manifest.key), out, draft, texts, ("old", "new") if is_json else ()
            )
        counts = dict(db.execute("SELECT change, count(*) FROM differences GROUP BY change").fetchall())
        columns = ", ".join([*(listed(key.name) for key in end.manifest.key), "change", "old", "new"])
        shown = db.execute(f"SELECT {columns} FROM differences ORDER BY change, lookup_hash LIMIT {show}").fetchall()
        first = texts.whole_rows(shown)
    added, removed, changed = (counts.get(change, 0) for change in ("added", "removed", "changed"))
    return Difference(start, end, added, removed, changed, first)


def _sides(data: JobData, names: Sequence[str]) -> tuple[Side, Side]:
    if names:
        start, end = (_side(data, name) for name in names)
        return start, end
    end = _side(data, CURRENT)
    earlier = [number for number in folders.numbers(data) if number < int(end.name)]
    if not earlier:
        raise NotFound(
            f"The job {data.name} in {data.root} has no version before {end.name}, which is served: "
            "there is nothing to compare it with."
        )
    return _side(data, str(earlier[-1])), end


def _side(data: JobData, name: str) -> Side:
    """What a person means by 3, r7 or current. Raises NotFound or UsageError."""
    if name == CURRENT:
        with pointers.open_served(data) as version:
            return Side(version.number, version.folder, version.manifest)
    if CANDIDATE.fullmatch(name):
        if name not in (known := folders.candidates(data)):
            raise NotFound(
                f"The job {data.name} in {data.root} has no candidate {name}: it has {', '.join(known) or 'none'}."
            )
        return Side(name, data.rejected / name, Manifest.read(data.rejected / name))
    if not (name.isascii() and name.isdigit()):
        raise UsageError(f"{name} is not a version: give a number such as 3, a candidate such as r7, or {CURRENT}.")
    number, versions = int(name), folders.numbers(data)
    if number not in versions:
        there = ", ".join(map(str, versions)) or "none"
        raise NotFound(f"The job {data.name} in {data.root} has no version {number}: it has {there}.")
    folder = folders.folder_of(data, number)
    return Side(number, folder, Manifest.read(folder))


@contextlib.contextmanager
def _damage(start: Side, end: Side) -> Iterator[None]:
    """Says of DuckDB's errors while it reads that a version cannot be read."""
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as exc:
        reason = str(exc).splitlines()[0]
        raise StoreError(f"{PREDICTIONS} of {start} or {end} is missing or damaged: {reason}") from exc


def _find(db: duckdb.DuckDBPyConnection, texts: LongTexts, start: Side, end: Side) -> None:
    """Makes the table `differences`."""
    any_json, made = start.manifest.is_json or end.manifest.is_json, dict[str, str]()
    for alias, side in (("a", start), ("b", end)):
        # A text and a JSON value are compared as JSON.
        value = "to_json(prediction)::VARCHAR" if any_json and not side.manifest.is_json else "prediction"
        columns = ", ".join(listed(key.name) for key in side.manifest.key)
        rows = version_rows(db, texts, side.folder, side.manifest.key)
        made[alias] = f"SELECT {columns}, lookup_hash, {value} AS prediction, score, source FROM ({rows})"
    are_long = any_json and any(has_long_texts(side.folder / PREDICTIONS) for side in (start, end))
    room = table_memory() / 4
    may_grow = start.manifest.is_json != end.manifest.is_json  # where texts become JSON
    are_wide = (
        may_grow or sum(most_text(db, side.folder / PREDICTIONS, "prediction") for side in (start, end)) > room
    ) and (sum(one(db, f"SELECT sum(strlen(prediction)) FROM ({rows})") or 0 for rows in made.values()) > room)
    for alias, rows in made.items():
        if are_long or are_wide:
            narrow(db, rows, texts, alias, WIDE if are_wide else LONG)
        else:
            db.execute(f"CREATE VIEW {alias} AS {rows}")
    names = [listed(key.name) for key in end.manifest.key]
    alike = start.manifest.normalize == end.manifest.normalize  # otherwise equal keys have other hashes
    match = "a.lookup_hash = b.lookup_hash" if alike else " AND ".join(f"a.{name} = b.{name}" for name in names)
    db.execute(
        f"""CREATE TABLE differences AS
        SELECT {", ".join(f"coalesce(b.{name}, a.{name}) AS {name}" for name in names)},
               CASE WHEN a.lookup_hash IS NULL THEN 'added' WHEN b.lookup_hash IS NULL THEN 'removed' ELSE 'changed' END AS change,
               a.prediction AS old, b.prediction AS new, a.score AS old_score, b.score AS new_score,
               a.source AS old_source, b.source AS new_source, coalesce(b.lookup_hash, a.lookup_hash) AS lookup_hash
        FROM a FULL JOIN b ON {match}
        WHERE a.lookup_hash IS NULL OR b.lookup_hash IS NULL OR a.prediction IS DISTINCT FROM b.prediction"""
    )
    if any_json:
        _drop_equal_values(db, texts)


def _drop_equal_values(db: duckdb.DuckDBPyConnection, texts: LongTexts) -> None:
    """JSON texts can differ where their values do not: in the order of names, or in spaces."""
    db.execute("CREATE TABLE equal (lookup_hash BLOB)")
    changed = "SELECT lookup_hash, old, new FROM differences WHERE change = 'changed'"
    with record_batches(db, changed, TEXT_ROWS) as reader:
        for batch in texts.all_whole(reader):
            rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            same = [lookup_hash for lookup_hash, old, new in rows if _canonical(old) == _canonical(new)]
            db.register("found", pa.table({"lookup_hash": pa.array(same, pa.binary())}))
            db.execute("INSERT INTO equal SELECT lookup_hash FROM found")
            db.unregister("found")
    db.execute("DELETE FROM differences WHERE change = 'changed' AND lookup_hash IN (SELECT lookup_hash FROM equal)")


def _canonical(text: str) -> str:
    return canonical_json(json.loads(text))


def _all_sql(key: Sequence[Column]) -> str:
    """SQL for all differences."""
    reserved = OWN_COLUMNS | set(DIFFERENCE_COLUMNS)
    columns = [f"{listed(column.name)} AS {quoted(free_name(column.name, reserved))}" for column in key]
    return (
        f"SELECT {', '.join([*columns, *DIFFERENCE_COLUMNS])} FROM differences ORDER BY change, differences.lookup_hash"
    )
