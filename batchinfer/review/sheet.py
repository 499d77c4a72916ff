"""The format of a review file: its columns, and its cells, for both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from batchinfer.core.output import OutputFormat
from batchinfer.core.sql import literal
from batchinfer.versions.layout import free_name

FORMATS = (OutputFormat.CSV, OutputFormat.PARQUET)  # what people mark, and `import` reads back
MARKS = ("verdict", "check", "corrected")  # by any of these columns a file is a review
ABOUT = ("value", "state", "before", "prediction", "score", "source", "model", "generated_at", "concepts")
# `check` stands behind these, last of all: spreadsheets leave out the empty cells at the end of a row.
PERSON = ("verdict", "corrected", "author", "comment")
REVIEW_COLUMNS = frozenset(["job", "version", *ABOUT, "check", *PERSON, "line"])
LINE = "\x1fline"  # the column in which a CSV's rows say at which line they begin
SAMPLE = "."  # in `check`, between the digest and the sample: the one column that every row must bring back
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would compute; apostrophes stand before what we marked


def check_cell(digest: str, sample: str | None) -> str:
    """SQL for the cell `check`: the digest of the row, and the sample that it was drawn for. digest: SQL."""
    return digest if sample is None else f"{digest} || {literal(SAMPLE + sample)}"


def digest_of(cell: object) -> str:
    """The digest in a cell `check`."""
    return str(cell).strip().partition(SAMPLE)[0]


def sample_of(cell: object) -> str | None:
    """The sample in a cell `check`, if the file is one."""
    return str(cell).strip().partition(SAMPLE)[2] or None


def column_of(name: str) -> str:
    """A key column's name in a review file."""
    return free_name(name, REVIEW_COLUMNS)


def safe_cell(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "" if text is None else f"'{text}" if FORMULA.match(text) else text


def uncell(text: str) -> str:
    """The text that such a cell stands for."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def marks(names: Iterable[str], key: Sequence[str]) -> list[str]:
    """Those columns by which a file is a review, in any case; a key column may bear such a name."""
    own = {name.lower() for name in key}
    return [name for name in names if name.strip().lower() in MARKS and name.lower() not in own]
