"""The only place where keys are made: fingerprints, prompt keys and lookup hashes.

Each is the first 16 bytes of SHA-256. Rows are hashed in bulk by SQL, single queries in Python;
both hash the same canonical bytes. A value is encoded with its type and, where its length varies,
its length, so that no two different rows share their bytes:

    null n    true b1    -7 i-7;    1.5 f<bits of the double as a signed integer>;
    "é" s2:é    2026-01-31 d2026-01-31;    timestamp t<microseconds since 1970, UTC>;    nested j<length>:<JSON>
"""

from __future__ import annotations

import hashlib
import json
import operator
import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchinfer.core.columns import Column, Kind
from batchinfer.core.sql import quoted

SIZE = 16
MOST_MARKS = 1000  # in a row; a text with more is not brought into a normal form of Unicode
JOB_NAME = r"[a-z][a-z0-9_-]{0,63}"  # safe as the name of a folder and in a URL


def short(data: bytes) -> bytes:
    """The first 16 bytes of SHA-256."""
    return hashlib.sha256(data).digest()[:SIZE]


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted names, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def encode(value: Any, kind: Kind) -> bytes:
    """The canonical bytes of one value of a column of this kind."""
    return b"n" if value is None else ENCODERS[kind](value)


def _text(value: Any) -> bytes:
    data = str(value).encode()
    return b"s%d:%b" % (len(data), data)


def _json(value: Any) -> bytes:
    data = str(value).encode()
    return b"j%d:%b" % (len(data), data)


def _timestamp(value: datetime) -> bytes:
    since = (value if value.tzinfo else value.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return b"t%d;" % ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds)


ENCODERS: Mapping[Kind, Callable[[Any], bytes]] = {
    "string": _text,
    "json": _json,
    "boolean": lambda value: b"b1" if value else b"b0",
    "integer": lambda value: b"i%d;" % value,
    "number": lambda value: b"f%d;" % number_bits(float(value)),
    "date": lambda value: f"d{value.isoformat()};".encode(),
    "timestamp": _timestamp,
}


def number_bits(value: float) -> int:
    """The bits of a double, as a signed integer; -0.0 counts as 0.0."""
    bits: int = struct.unpack("<q", struct.pack("<d", value + 0.0))[0]
    return bits


def encode_sql(column: Column) -> str:
    """SQL whose value is `encode`'s, for columns as `source` gives them (numbers as their bits)."""
    name = quoted(column.name)
    if column.kind in ("string", "json"):
        tag = "s" if column.kind == "string" else "j"
        text = f"'{tag}' || strlen({name}) || ':' || {name}"
    elif column.kind == "boolean":
        text = f"CASE {name} WHEN true THEN 'b1' WHEN false THEN 'b0' END"
    elif column.kind == "integer":
        text = f"'i' || {name} || ';'"
    elif column.kind == "number":
        text = f"'f' || {quoted(bits_column(column.name))} || ';'"
    elif column.kind == "date":
        text = f"'d' || strftime({name}, '%Y-%m-%d') || ';'"
    else:
        text = f"'t' || epoch_us({name}) || ';'"
    return f"coalesce({text}, 'n')"


def bits_column(name: str) -> str:
    """The name of the column that holds the bits of a column of numbers."""
    return f"{name}\x1fbits"


def row_hash(prefix: bytes, values: Sequence[Any], columns: Sequence[Column]) -> bytes:
    """The hash of one row. prefix: a fingerprint, or nothing; hashed as hexadecimal text, since SQL hashes text."""
    encoded = (encode(value, column.kind) for value, column in zip(values, columns, strict=True))
    return short(prefix.hex().encode() + b"".join(encoded))


def row_hash_sql(prefix: bytes, columns: Sequence[Column]) -> str:
    """SQL whose value is `row_hash`'s, a BLOB of 16 bytes."""
    text = " || ".join([f"'{prefix.hex()}'", *(encode_sql(column) for column in columns)])
    return f"unhex(left(sha256({text}), {2 * SIZE}))"


def lookup_hash(values: Sequence[Any], columns: Sequence[Column], normalize: Sequence[str]) -> bytes:
    """The hash that live queries are looked up by; `values` in the order of `columns`."""
    normal = [
        normalized(value, normalize) if column.kind == "string" else value
        for value, column in zip(values, columns, strict=True)
    ]
    return row_hash(b"", normal, columns)


def lookup_hash_sql(columns: Sequence[Column], normalize: Sequence[str]) -> str:
    """SQL whose value is `lookup_hash`'s, for columns as `source` gives them."""
    normal = [
        Column(normal_column(column.name), "string") if normalize and column.kind == "string" else column
        for column in columns
    ]
    return row_hash_sql(b"", normal)


def normalized(text: str, steps: Sequence[str]) -> str:
    """A key string made comparable by the job's steps: nfkc, casefold and trim, in that order."""
    if "nfkc" in steps and is_heaped(text):
        steps = [step for step in steps if step != "nfkc"]
    if "nfkc" in steps:
        text = unicodedata.normalize("NFKC", text)
    if "casefold" in steps:
        text = text.casefold()
        if "nfkc" in steps:  # case folding can undo the normal form; once more makes it idempotent
            text = unicodedata.normalize("NFKC", text)
    return text.strip() if "trim" in steps else text


def is_heaped(text: str) -> bool:
    """Whether a great many marks stand in a row: no writing has that, and normalising would take their number squared."""
    if len(text) <= MOST_MARKS or text.isascii():
        return False
    stride = MOST_MARKS // 2
    beats = [unicodedata.category(sign)[0] == "M" for sign in text[::stride]]
    return any(
        both and all(unicodedata.category(sign)[0] == "M" for sign in text[number * stride : (number + 1) * stride])
        for number, both in enumerate(map(operator.and_, beats, beats[1:]))
    )


def normal_column(name: str) -> str:
    """The name of the column that holds the normalized strings of a key column."""
    return f"{name}\x1fnormal"
