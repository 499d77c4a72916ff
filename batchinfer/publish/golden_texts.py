"""Texts of which people said what they mention, to judge a matcher by: a file with a row for each mention."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batchinfer.errors import InputError, UsageError
from batchinfer.inputs.csv_file import as_parquet
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import Batch, ListSource
from batchinfer.job.spec import InputSpec
from batchinfer.versions.query import language_ranges

TEXT, CONCEPT, LANGUAGE = "text", "concept", "language"


@dataclass(frozen=True, slots=True)
class GoldenText:
    """A text whose mentions are known.

    text: the text.
    language: that it is matched in, as a BCP 47 tag; None to match it in all.
    concepts: all that it mentions, as text; it may mention nothing.
    """

    text: str
    language: str | None
    concepts: frozenset[str]


def read_golden_texts(path: Path, scratch: Path) -> tuple[GoldenText, ...]:
    """The texts of a CSV or Parquet file with the columns text and concept, and perhaps language, in their order.

    A text of several mentions has a row for each, one of no mention a row with an empty concept. scratch: a folder.
    Raises InputError.
    """
    file = ListFile(as_parquet(path, Path(tempfile.mkdtemp(dir=scratch)), known=(TEXT, CONCEPT, LANGUAGE)))
    others = [CONCEPT, *([LANGUAGE] if LANGUAGE in file.schema().names else [])]
    spec = InputSpec(path=file.name, key=[TEXT], optional=others, types=dict.fromkeys((TEXT, *others), "string"))
    found = dict[tuple[str, str | None], set[str]]()
    for batch in ListSource([file], spec, others).batches():
        for text, language, concept in _rows(path, batch):
            found.setdefault((text, language), set()).update([concept] if concept else [])
    return tuple(GoldenText(text, language, frozenset(concepts)) for (text, language), concepts in found.items())


def _rows(path: Path, batch: Batch) -> Iterator[tuple[str, str | None, str | None]]:
    for row in batch.bad:
        said = row.detail.replace("The column", "the column", 1)
        raise InputError(f"{path}, row {row.row}: {said}")
    languages = batch.good[LANGUAGE].to_pylist() if LANGUAGE in batch.good.column_names else [None] * len(batch.good)
    columns = (batch.good[name].to_pylist() for name in (TEXT, CONCEPT))
    for number, (text, concept, language) in enumerate(zip(*columns, languages, strict=True)):
        try:
            language_ranges([language] if language else [])
        except UsageError as exc:
            raise InputError(f"{path}, row {batch.good[0][number].as_py()}: {exc}") from exc
        yield text, language or None, concept
