"""predictions.parquet to lookup.lmdb: the hash of a lookup key, and its finished answer; and to the checksums and index of that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import lmdb

from batchinfer.core.columns import Column
from batchinfer.core.database import TEXT_ROWS
from batchinfer.core.files import os_errors
from batchinfer.core.long_rows import read_batches
from batchinfer.core.set_aside import SetAside
from batchinfer.core.sql import literal, query_json
from batchinfer.errors import StoreError
from batchinfer.versions.extents import Extents
from batchinfer.versions.layout import CHECKS, INDEX, LOOKUP, PREDICTIONS, version_column
from batchinfer.versions.tree import PageTree, page_checks


def write_lookup(db: duckdb.DuckDBPyConnection, key: Sequence[Column], target: Path, job: str, *, is_json: bool) -> int:
    """lookup.lmdb from predictions.parquet, both in `target`: hash of the lookup key → the finished JSON body; lookup.crc; lookup.index.

    db: any; no table of it is read. is_json: whether predictions are JSON values. Returns the number of entries.
    """
    prediction = "prediction::JSON" if is_json else "prediction"
    select = (  # in the order of the file, which is that of the hashes
        f"""SELECT lookup, encode(json_object(
            'job', {literal(job)}, 'query', {query_json(key, version_column)}, 'prediction', {prediction}, 'scores', scores::JSON,
            'score', score, 'source', source, 'model', model,
            'generated_at', strftime(generated_at, '%Y-%m-%dT%H:%M:%SZ'))::VARCHAR) AS body
        FROM """
    )
    aside = SetAside()
    as_json = ["prediction"] if is_json else []
    batches = read_batches(
        db, target / PREDICTIONS, lambda rows: select + rows, TEXT_ROWS, lambda batch: aside.shortened(batch, as_json)
    )
    path = target / LOOKUP
    size = 64 << 20
    count = 0
    with (
        _lmdb_errors(path),
        lmdb.open(
            str(path), subdir=False, lock=False, map_size=size, sync=False, metasync=False, writemap=False
        ) as environment,
    ):
        for batch in batches:
            lookups, bodies = (column.to_pylist() for column in batch.columns)
            if aside.any:
                bodies = [aside.whole(body.decode()).encode() for body in bodies]
            items = list(zip(lookups, bodies, strict=True))
            needed = sum(len(key) + len(body) + 64 for key, body in items)
            size += 2 * needed  # sparse: the file only takes what is written
            environment.set_mapsize(size)
            with environment.begin(write=True) as transaction:
                _, added = transaction.cursor().putmulti(items, append=True)
            count += added
        environment.sync(force=True)
    with os_errors(target):
        checks = page_checks(path)
        (target / CHECKS).write_bytes(checks)
        Extents.of(PageTree(path, checks)).write(target / INDEX)
    return count


@contextlib.contextmanager
def _lmdb_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as exc:
        raise StoreError(f"{path} cannot be written: {exc}. Free space on the disk, then run again.") from exc
