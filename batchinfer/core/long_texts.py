"""Long texts are kept out of tables: a short token stands there, through sorts and joins, and the text is fetched late.

DuckDB works on 2,048 rows at a time, whatever they hold: with texts of megabytes, gigabytes. So each cell that is longer
than LONG is replaced by a token, and its text goes to a file (`LongTexts`) or, in pieces, to a table of the cache.

    text     ─► OPEN  start, stem, digest  CLOSE     48 bytes of the text, a hash of its first 4,096, a hash of all, in hexadecimal
    JSON     ─► long strings in it so, and what else is long (`core/long_json.py`): "OPEN_JSON  count, start, stem, digest  CLOSE"

Equal texts have equal tokens, texts that begin alike lie together when sorted, and JSON stays JSON. The marks are characters
that Unicode keeps out of texts; a text that has one all the same is replaced as if it were long.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchinfer.core.files import os_errors
from batchinfer.core.memory import batch_bytes
from batchinfer.errors import StoreError

LONG = 4096  # bytes of a cell
COUNT = 8  # digits: how many items a list has that a token stands for; 0 for other JSON
MOST_TEXT = 1 << 24  # bytes of a text that can be used
FIRST_INDEX = 1 << 20  # bytes of address space that an index begins with
OPEN, CLOSE, OPEN_JSON = "\ufdd0", "\ufdd1", "\ufdd2"
MARKS = re.compile("[\ufdd0-\ufdd2]")
MARK_BYTES = re.compile(b"\xef\xb7[\x90-\x92]")
START, STEM, DIGEST = 48, 4096, 16
TOKEN = re.compile(f"{OPEN}([0-9a-f]+){CLOSE}")
JSON_TOKEN = re.compile(f'"{OPEN_JSON}([0-9a-f]+){CLOSE}"')
EITHER = re.compile(f"{JSON_TOKEN.pattern}|{TOKEN.pattern}")
DIGESTS_SQL = f"[{OPEN}{OPEN_JSON}][0-9a-f]*([0-9a-f]{{{2 * DIGEST}}}){CLOSE}"
"""A regular expression for SQL: the digests in a cell, as hexadecimal digits."""

KeepText = Callable[[bytes, bytes], None]
"""Takes the digest of a text, and the text in UTF-8."""


def oversized(size: int) -> str:
    """What is wrong with a text of so many bytes, as the rest of a sentence."""
    return f"{size / (1 << 20):.1f} MB of text, and at most {MOST_TEXT >> 20} MB can be used"


def is_long(text: str) -> bool:
    """Whether a token stands for a text in tables."""
    return len(text) > LONG or len(text.encode()) > LONG or MARKS.search(text) is not None


def shortened_column(
    column: pa.Array | pa.ChunkedArray,
    keep: KeepText,
    stand_in: Callable[[str, KeepText], str] | None = None,
    long: int = LONG,
) -> pa.Array | pa.ChunkedArray:
    """A column of texts with tokens in place of long ones; any other column as it is.

    stand_in: makes them, if not `token`. long: bytes beyond which a text is.
    """
    if not _is_text(column.type) or not may_be_long(column, long):
        return column
    lengths = pc.binary_length(column).to_pylist()
    marked = pc.match_substring_regex(column, MARKS.pattern).to_pylist()
    made = stand_in or token
    texts = [
        made(column[row].as_py(), keep)
        if length is not None and (length > long or marked[row])
        else column[row].as_py()
        for row, length in enumerate(lengths)
    ]
    return pa.array(texts, pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def may_be_long(column: pa.Array | pa.ChunkedArray, long: int = LONG) -> bool:
    """Whether a column of texts may have some that tokens stand for in tables."""
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return longest > long or any(
        chunk.buffers()[2] is not None and MARK_BYTES.search(memoryview(chunk.buffers()[2])) is not None
        for chunk in chunks
    )


def token(text: str, keep: KeepText) -> str:
    """The token of a text, which is kept."""
    return f"{OPEN}{_kept(text, keep)}{CLOSE}"


def json_token(text: str, keep: KeepText, count: int = 0) -> str:
    """JSON that stands for a whole JSON text, which is kept. count: of the items of a list."""
    return f'"{OPEN_JSON}{count:0{COUNT}}{_kept(text, keep)}{CLOSE}"'


def short_text(text: str) -> str:
    """A text, or the token that stands for it in tables."""
    return token(text, lambda _digest, _data: None) if is_long(text) else text


def text_digest(data: bytes) -> bytes:
    """The digest of a text in UTF-8."""
    return hashlib.sha256(data).digest()[:DIGEST]


def lacking(digest: bytes) -> StoreError:
    """The error for a text that is named, and not there as it was."""
    return StoreError(f"The cache lacks a long text ({digest.hex()}): run batchinfer doctor --deep, then repair.")


def _kept(text: str, keep: KeepText) -> str:
    """What stands between the marks."""
    data = text.encode()
    digest = text_digest(data)
    keep(digest, data)
    return data[:START].ljust(START, b"\0").hex() + hashlib.sha256(data[:STEM]).hexdigest()[:DIGEST] + digest.hex()


def whole(text: str, read: Callable[[bytes], bytes]) -> str:
    """A cell with the texts that its tokens stand for. read: gives the text of a digest."""
    if CLOSE not in text:
        return text
    if match := TOKEN.fullmatch(text):
        return read(token_digest(match)).decode()
    return EITHER.sub(lambda match: _in_place(match, read(token_digest(match)).decode()), text)


def _in_place(match: re.Match[str], text: str) -> str:
    """What a token in JSON stands for there."""
    return text if match[1] else in_json(text)


def in_json(text: str) -> str:
    """What stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def named(texts: Iterable[str | None]) -> set[bytes]:
    """The digests that cells have tokens of."""
    cells = [text for text in texts if text is not None and CLOSE in text]
    return {token_digest(match) for text in cells for found in (TOKEN, JSON_TOKEN) for match in found.finditer(text)}


def token_digest(match: re.Match[str]) -> bytes:
    """The digest in a token that was found."""
    return bytes.fromhex(match[match.lastindex or 1][-2 * DIGEST :])


class LongTexts:
    """The long texts of one command, in two files of its scratch folder: the texts, and where each of them lies.

    Tokens of another store, such as the cache's, are found in what `add_source` names, all of which is read when it is
    first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._end = folder, 0
        self._file: Any = None
        self._index: Any = None
        self._sources: list[Callable[[], Iterable[tuple[bytes, bytes]]]] = []
        self._found: list[tuple[bytes, bytes]] = []
        self._holds = False

    @property
    def any(self) -> bool:
        """Whether there may be a token in a table."""
        return self._holds or bool(self._sources)  # a source is there for those who have some

    def add_source(self, texts: Callable[[], Iterable[tuple[bytes, bytes]]]) -> None:
        """texts: gives digests and texts that tables may have tokens of already."""
        self._sources.append(texts)

    def shortened(self, column: pa.Array | pa.ChunkedArray, long: int = LONG) -> pa.Array | pa.ChunkedArray:
        """A column of texts with tokens in place of long ones, by bytes. Raises StoreError."""
        return shortened_column(column, self.keep, long=long)

    def keep(self, digest: bytes, data: bytes) -> None:
        """Notes a text. Raises StoreError."""
        self._open()
        if not self._is_noted(digest, self._end.to_bytes(8, "big") + len(data).to_bytes(8, "big")):
            return
        with os_errors(self._folder):
            self._file.write(data)
        self._end += len(data)
        self._holds = True

    def _is_noted(self, digest: bytes, place: bytes) -> bool:
        """Notes where a text will lie; false where it lies somewhere already. The index grows, since it is mapped whole."""
        import lmdb

        with self._index_errors():
            while True:
                try:
                    with self._index.begin(write=True) as transaction:
                        return bool(transaction.put(digest, place, overwrite=False))
                except lmdb.MapFullError:
                    self._index.set_mapsize(2 * self._index.info()["map_size"])

    @contextlib.contextmanager
    def _index_errors(self) -> Iterator[None]:
        import lmdb

        try:
            yield
        except (lmdb.Error, MemoryError) as exc:
            raise StoreError(
                f"The long texts in {self._folder} cannot be noted: {exc}. "
                "Free space there, and allow the program more address space (ulimit -v)."
            ) from exc

    def load(self) -> None:
        """Reads what the sources have, for those who cannot wait until it is needed. Raises StoreError."""
        while self._sources:
            for digest, data in self._sources.pop()():
                if digest == text_digest(data):  # what lacks a piece is as good as missing
                    self.keep(digest, data)

    def _open(self) -> None:
        if self._file is not None:
            return
        import lmdb

        with os_errors(self._folder):
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `close`
            place = tempfile.mkdtemp(dir=self._folder)
        with self._index_errors():
            self._index = lmdb.open(place, map_size=FIRST_INDEX, sync=False, metasync=False, lock=False)

    def close(self) -> None:
        """Lets go of the files."""
        if self._file is not None:
            self._file.close()
        if self._index is not None:  # it may not have opened
            self._index.close()

    def whole(self, text: str) -> str:
        """A cell with the texts that its tokens stand for. Raises StoreError where one is missing."""
        return whole(text, self.read)

    def read(self, digest: bytes) -> bytes:
        """The text with this digest, in UTF-8. Raises StoreError."""
        place = self._place(digest)
        if place is None:
            self.load()
            place = self._place(digest)
        if place is None:
            raise lacking(digest)
        with os_errors(self._folder):
            self._file.flush()
        start, size = int.from_bytes(place[:8], "big"), int.from_bytes(place[8:], "big")
        return os.pread(self._file.fileno(), size, start)

    def _place(self, digest: bytes) -> bytes | None:
        if self._index is None:
            return None
        with self._index.begin() as transaction:
            found: bytes | None = transaction.get(digest)
        return found

    def whole_record(self, record: dict[str, Any]) -> dict[str, Any]:
        """A row with all its texts."""
        return {name: self.whole(value) if isinstance(value, str) else value for name, value in record.items()}

    def whole_rows(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows with all their texts."""
        return [tuple(self.whole(value) if isinstance(value, str) else value for value in row) for row in rows]

    def all_whole(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of all batches with all their texts, in batches of bounded size."""
        for batch in batches:
            yield from self.whole_batches(batch)

    def whole_batches(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The rows with all their texts, in batches of bounded size."""
        yield from whole_batches(batch, self.read)


def whole_batches(batch: pa.RecordBatch, read: Callable[[bytes], bytes]) -> Iterator[pa.RecordBatch]:
    """Rows with the texts that their tokens stand for, in batches of bounded size. read: gives the text of a digest."""
    if not any(_is_text(field.type) and _may_hold(batch.column(field.name)) for field in batch.schema):
        yield batch
        return
    rows, size, most = list[dict[str, Any]](), 0, batch_bytes()
    for number in range(batch.num_rows):
        [row] = batch.slice(number, 1).to_pylist()
        row = {name: whole(value, read) if isinstance(value, str) else value for name, value in row.items()}
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        rows.append(row)
        if size >= most:
            yield pa.RecordBatch.from_pylist(rows, batch.schema)
            rows, size = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, batch.schema)


def _may_hold(column: pa.Array) -> bool:
    buffer = column.buffers()[2]
    return buffer is not None and MARK_BYTES.search(memoryview(buffer)) is not None
