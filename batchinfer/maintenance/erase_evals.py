"""One entry out of what evaluations left: rows of their Parquet files, its place in the split of golden rows, samples, audits."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.files import UNREAD, read_small, why_damaged, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.markdown import in_table
from batchinfer.errors import StoreError
from batchinfer.maintenance.entry import Entry

HASH = "lookup_hash"
AUDIT, CARD = "audit.json", "card.md"
QUERY = "query"  # the column of a lookup key as JSON


def erase_evals(data: JobData, entry: Entry) -> int:
    """Removes rows of the entry; returns how many. Raises StoreError for a file that cannot be read."""
    for path in sorted(data.samples.glob("*/*.parquet")):
        _erase_from_frame(path, entry.lookup_hash)
    for path in data.evals.glob("*.json"):
        _erase_hash(path, entry.lookup_hash.hex())
    rows = sum(_erase_rows(path, entry) for path in sorted(data.evals.rglob("*.parquet")))
    return rows + sum(_erase_groups(path.parent, entry) for path in sorted(data.audits.glob(f"*/{AUDIT}")))


def _erase_groups(folder: Path, entry: Entry) -> int:
    """Takes groups out of an audit that are of the entry alone, which a column of the key can make; returns how many."""
    path, card = folder / AUDIT, folder / CARD
    try:
        content = json.loads(read_small(path))
        gone = [
            each for each in content["slices"] if each["rows"] == 1 and entry.texts.get(each["column"]) == each["value"]
        ]
        kept = content | {"slices": [each for each in content["slices"] if each not in gone]}
        written = json.dumps(kept, ensure_ascii=False, indent=2).encode()
    except UNREAD as exc:
        raise StoreError(
            f"{path} cannot be searched: {why_damaged(exc)}", fix="remove its folder, then run again."
        ) from exc
    if not gone:
        return 0
    write_atomically(path, written)
    names = [in_table(f"{each['column']}={each['value']}") for each in gone]
    if card.is_file():
        lines = card.read_bytes().decode(errors="replace").splitlines(keepends=True)
        others = [line for line in lines if not any(line.startswith((f"| {name} |", f"- {name}")) for name in names)]
        write_atomically(card, "".join(others).encode())
    return len(gone)


def _erase_rows(path: Path, entry: Entry) -> int:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as exc:
        raise StoreError(f"{path} cannot be searched: {exc}", fix="remove it, then run again.") from exc
    if QUERY not in table.column_names:
        return 0
    stays = pa.array([not entry.is_query(query) for query in table[QUERY].to_pylist()], pa.bool_())
    others = table.filter(stays)
    if gone := int(table.num_rows - others.num_rows):
        sink = pa.BufferOutputStream()
        pq.write_table(others, sink)
        write_atomically(path, sink.getvalue().to_pybytes())
    return gone


def _erase_from_frame(path: Path, lookup_hash: bytes) -> None:
    """Takes a lookup hash out of what a sample was drawn from, a group of rows at a time."""
    draft = path.with_name(f".{path.name}.new")
    try:
        with pq.ParquetFile(path) as file:
            if not any(lookup_hash in batch.column(0).to_pylist() for batch in file.iter_batches(columns=[HASH])):
                return
            with pq.ParquetWriter(draft, file.schema_arrow, compression="zstd") as writer:
                for batch in file.iter_batches():
                    others = [value != lookup_hash for value in batch.column(HASH).to_pylist()]
                    writer.write_batch(batch.filter(pa.array(others, pa.bool_())))
        draft.rename(path)
    except (pa.ArrowException, OSError) as exc:
        raise StoreError(f"{path} cannot be searched: {exc}", fix="remove its folder, then run again.") from exc
    finally:
        draft.unlink(missing_ok=True)


def _erase_hash(path: Path, lookup_hash: str) -> None:
    """Takes a lookup hash out of the lists of a JSON file."""
    try:
        data = read_small(path)
        if lookup_hash.encode() not in data:
            return
        kept = {
            name: [one for one in value if one != lookup_hash] if isinstance(value, list) else value
            for name, value in json.loads(data).items()
        }
    except UNREAD as exc:
        raise StoreError(f"{path} cannot be searched: {why_damaged(exc)}", fix="remove it, then run again.") from exc
    write_atomically(path, json.dumps(kept).encode())
