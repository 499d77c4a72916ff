"""Long texts of a few rows, kept out of what SQL makes of them: JSON or CSV of a text would be held twenty times on its way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import Any

import pyarrow as pa

from batchinfer.core.json_parts import JsonPath, json_parts
from batchinfer.core.long_texts import (
    CLOSE,
    EITHER,
    in_json,
    is_long,
    json_token,
    may_be_long,
    shortened_column,
    token_digest,
    whole_batches,
)

AGAIN: Any = object()


class SetAside:
    """The long texts of the rows that are at work."""

    def __init__(self, others: Callable[[bytes], bytes] | None = None) -> None:
        """others: gives the text of a digest that is not of these rows."""
        self._others = others
        self._texts: dict[bytes, bytes] = {}

    @property
    def any(self) -> bool:
        """Whether there are some."""
        return bool(self._texts)

    def shortened(self, batch: pa.RecordBatch, as_json: Container[str] = ()) -> pa.RecordBatch:
        """Rows with tokens in place of their long texts; those of rows before are forgotten.

        as_json: columns of JSON. Where that is long, a JSON text that holds nothing but a token is there.
        """
        self._texts = {}
        columns = [
            shortened_column(column, self._keep, json_token)
            if name in as_json
            else shortened_column(column, self._keep)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        return pa.record_batch(columns, names=batch.schema.names)

    def in_parts(
        self, batch: pa.RecordBatch, lists: Mapping[str, Collection[JsonPath]], most: int | None = None
    ) -> pa.RecordBatch:
        """The same, but long JSON comes as `json_parts` divides it, a row for each part.

        lists: by columns of JSON, the places in them of lists that are wanted. most: parts of a row that are wanted.
        """
        if not any(may_be_long(batch.column(name)) for name in lists):
            return self.shortened(batch)
        own = [name for name in batch.schema.names if name not in lists]
        short = self.shortened(batch.select(own))
        rows, parts = list[int](), {name: list[str | None]() for name in lists}
        for row in range(batch.num_rows):
            cells = {name: self._parts(batch.column(name)[row].as_py(), places) for name, places in lists.items()}
            for made in itertools.islice(_beside(cells), most):
                rows.append(row)
                for name, part in made.items():
                    parts[name].append(part)
        columns = [
            *short.take(pa.array(rows, pa.int64())).columns,
            *(pa.array(made, pa.string()) for made in parts.values()),
        ]
        return pa.record_batch(columns, names=[*own, *parts])

    def _parts(self, text: str | None, lists: Collection[JsonPath]) -> Iterator[str | None]:
        return json_parts(text, lists, self._keep) if text is not None and is_long(text) else iter([text])

    def put_back(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """What SQL took out of such rows, with the texts themselves, in batches of bounded size."""
        yield from whole_batches(batch, self._read)

    def _read(self, digest: bytes) -> bytes:
        if self._others is not None and digest not in self._texts:
            return self._others(digest)
        return self._texts[digest]

    def _keep(self, digest: bytes, data: bytes) -> None:
        self._texts[digest] = data

    def whole(self, line: str, written: Callable[[str], str] = in_json) -> str:
        """What SQL made of such a row, with the texts themselves. written: how it writes one; JSON texts stand as they are."""
        return "".join(self._pieces(line, written)) if CLOSE in line else line

    def _pieces(self, line: str, written: Callable[[str], str]) -> Iterator[str]:
        end = 0
        for found in EITHER.finditer(line):
            yield line[end : found.start()]
            text = self._texts[token_digest(found)].decode()
            yield text if found[1] else written(text)
            end = found.end()
        yield line[end:]


def _beside(cells: Mapping[str, Iterator[str | None]]) -> Iterator[dict[str, str | None]]:
    """The parts of several cells of a row, side by side; the last one again where another cell has more."""
    held = dict.fromkeys(cells)
    for parts in itertools.zip_longest(*cells.values(), fillvalue=AGAIN):
        held |= {name: part for name, part in zip(cells, parts, strict=True) if part is not AGAIN}
        yield dict(held)
