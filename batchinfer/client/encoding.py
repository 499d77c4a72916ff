"""Queries and texts as the service takes them: in a URL, and in the bodies of batches, in portions that it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from batchinfer.core.http_limits import MAX_BODY, MAX_QUERIES
from batchinfer.errors import UsageError, without_frames
from batchinfer.versions.query import QueryReader

ROOM = 32  # bytes of a batch besides its queries or texts


def in_portions(queries: Sequence[bytes], room: int = ROOM, most: int = MAX_QUERIES) -> Iterator[list[bytes]]:
    """Queries or texts in the portions that the service takes. room: bytes of a batch besides them; most: how many a batch may have."""
    batch: list[bytes] = []
    size = room
    for query in queries:
        if batch and (len(batch) == most or size + len(query) > MAX_BODY):
            yield batch
            batch, size = [], room
        batch.append(query)
        size += len(query) + 1
    if batch:
        yield batch


def text_as_json(text: str, room: int) -> bytes:
    """A text as a batch has it. Raises UsageError for one that no batch can hold."""
    try:
        data = json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold as an escape alone
        data = json.dumps(text).encode()
    if len(data) + room > MAX_BODY:
        raise UsageError(f"A text has {len(data):,} bytes; the service takes {MAX_BODY - room:,}.")
    return data


def as_text(value: Any) -> str:
    """A checked value as a URL has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, float):
        return repr(value).replace("inf", "1e999")  # which is read as infinity, for which JSON has no word
    return value if isinstance(value, str) else repr(value)


def each_as_json(reader: QueryReader, queries: Sequence[Mapping[str, Any]]) -> list[bytes | UsageError]:
    """The queries as a batch has them; in the place of one that no batch can hold, why."""
    encoded: list[bytes | UsageError] = []
    for values in reader.from_many(queries):
        try:
            encoded.append(values if isinstance(values, UsageError) else as_json(reader, values))
        except UsageError as exc:
            encoded.append(without_frames(exc))
    return encoded


def as_json(reader: QueryReader, values: Sequence[Any]) -> bytes:
    """A checked query as a batch has it. Raises UsageError for one that no batch can hold."""
    parts = []
    for name, value in zip(reader.names, values, strict=True):
        text = as_text(value)
        if isinstance(value, str | date):
            text = json.dumps(text, ensure_ascii=False)
        parts.append(f"{json.dumps(name, ensure_ascii=False)}:{text}")
    data = f"{{{','.join(parts)}}}".encode()
    if len(data) + ROOM > MAX_BODY:
        raise UsageError(f"A query has {len(data):,} bytes; the service takes {MAX_BODY - ROOM:,}.")
    return data
