"""Samples that were drawn for review, on disk: which rows, by what chances, and out of what.

A folder samples/<id>/ of the job's data folder each, so that no spreadsheet can lose what the chances were; the id stands
in each row's `check` in the review file.

    sample.json      when it was drawn, of which rows, and its strata: how many rows each has, and how many were drawn
    frame.parquet    all rows that it stands for, as hashes
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.files import UNREAD, os_errors, read_small, sync_folder, why_damaged, why_unread
from batchinfer.core.home import JobData
from batchinfer.core.sql import literal
from batchinfer.errors import StoreError
from batchinfer.versions.checked import checked_count, checked_text

SAMPLE, FRAME = "sample.json", "frame.parquet"
FRAME_COLUMNS = "lookup_hash, value, score, stratum, place, known"
"""value: a hash of what is judged. place: of a drawn row, from 1; else NULL. known: it was judged for an earlier sample."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows that were drawn with the same chance.

    rows: how many there are.
    drawn: how many of them were drawn.
    score: their mean score.
    """

    rows: int
    drawn: int
    score: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of a job's predictions.

    id: its name, a few letters.
    created_at: when it was drawn, RFC 3339, UTC.
    version: of which version; None for what would have been published then.
    where: only rows with these values, by column.
    seed: by which it was drawn.
    strata: in the order of their numbers, from 0.
    """

    id: str
    created_at: str
    version: int | None
    where: Mapping[str, str]
    seed: str
    strata: tuple[Stratum, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Sample:
        """A sample from what its file says. Raises one of DAMAGE."""
        version, where = content["version"], content["where"].items()
        return cls(
            id=checked_text(content["id"]),
            created_at=checked_text(content["created_at"]),
            version=None if version is None else checked_count(version),
            where={checked_text(name): checked_text(value) for name, value in where},
            seed=checked_text(content["seed"]),
            strata=tuple(
                Stratum(checked_count(each["rows"]), checked_count(each["drawn"]), float(each["score"]))
                for each in content["strata"]
            ),
        )

    @property
    def rows(self) -> int:
        """How many rows it stands for."""
        return sum(stratum.rows for stratum in self.strata)


def read_samples(data: JobData) -> list[Sample]:
    """A job's samples, oldest first. Raises StoreError for one that is damaged."""
    found = []
    with os_errors(data.samples):
        paths = sorted(data.samples.glob(f"[!.]*/{SAMPLE}")) if data.samples.is_dir() else []
    for path in paths:
        try:
            found.append(Sample.of(json.loads(read_small(path))))
            if found[-1].id != path.parent.name:
                raise ValueError("it is of another sample than its folder")
        except UNREAD as exc:
            why = why_unread(exc) if isinstance(exc, OSError) else why_damaged(exc)
            raise StoreError(f"{path} cannot be read: {why}. Remove {path.parent} to do without this sample.") from exc
    return sorted(found, key=lambda sample: (sample.created_at, sample.id))


@contextlib.contextmanager
def new_sample(data: JobData) -> Iterator[Path]:
    """A folder for the files of a sample that is being drawn; it goes away if `keep_sample` was not called."""
    with os_errors(data.samples):
        data.samples.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=data.samples, prefix="."))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_frame(db: duckdb.DuckDBPyConnection, rows_sql: str, draft: Path) -> None:
    """The rows that a sample stands for. rows_sql: a relation with FRAME_COLUMNS."""
    path = literal(str(draft / FRAME))
    db.execute(f"COPY (SELECT {FRAME_COLUMNS} FROM {rows_sql}) TO {path} (FORMAT parquet, COMPRESSION zstd)")


def keep_sample(data: JobData, draft: Path, sample: Sample) -> None:
    """Puts a sample into its place, whole."""
    with os_errors(data.samples):
        (draft / SAMPLE).write_text(json.dumps(asdict(sample), indent=2, ensure_ascii=False), encoding="utf-8")
        draft.rename(data.samples / sample.id)
        sync_folder(data.samples)


def frames_sql(data: JobData, samples: Sequence[Sample]) -> str:
    """SQL for all rows that samples stand for: FRAME_COLUMNS, and the sample's id."""
    return " UNION ALL ".join(
        f"SELECT {FRAME_COLUMNS}, {literal(sample.id)} AS sample FROM {parquet_rows(data.samples / sample.id / FRAME)}"
        for sample in samples
    )
