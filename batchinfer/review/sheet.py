"""The format of a review file: its columns, and its cells, for both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from batchinfer.core.output import OutputFormat
from batchinfer.versions.layout import free_name

FORMATS = (OutputFormat.CSV, OutputFormat.PARQUET)  # what people mark, and `import` reads back
MARKS = ("verdict", "check", "corrected")  # by any of these columns a file is a review
ABOUT = ("value", "state", "before", "prediction", "score", "source", "model", "generated_at", "concepts")
# `check` stands behind these, last of all: spreadsheets leave out the empty cells at the end of a row.
PERSON = ("verdict", "corrected", "author", "comment")
REVIEW_COLUMNS = frozenset(["job", "version", *ABOUT, "check", *PERSON, "line"])
LINE = "\x1fline"  # the column in which a CSV's rows say at which line they begin
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would compute; apostrophes stand before what we marked


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
