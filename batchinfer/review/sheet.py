"""The format of a review: its columns, and its cells, for both ways."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence

from batchinfer.cache import verdicts
from batchinfer.core.keys import canonical_json
from batchinfer.job.spec import JobSpec

MARKS = ("verdict", "check", "corrected")  # by any of these columns a file is a review
ABOUT = ("value", "state", "before", "prediction", "score", "source", "model", "generated_at", "concepts")
CHECKING_ONLY = ("prediction", "concepts")


# `check` stands behind these, last of all: spreadsheets leave out the empty cells at the end of a row.
PERSON = ("verdict", "corrected", "author", "comment")
RESERVED = frozenset(["job", "version", *ABOUT, "check", *PERSON, "line"])
DIGITS = 16  # of a check: no two of a million rows share theirs, and it is short enough to be looked at
LETTERS = ("0123456789", "ghijklmnop")  # in place of digits: a spreadsheet would take 12e45678 for a number
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would reckon with; apostrophes stand before what we marked


def column_of(name: str) -> str:
    """A key column's name in a review file: its own, or key_NAME where that is one of ours."""
    return f"key_{name}" if name.lower() in RESERVED else name


def digest(spec: JobSpec, lookup: bytes, value: str) -> str:
    """The check of a row, by which it is noticed that its key or value was changed. value: as the row has it.

    Raises ValueError for a value that is not JSON where it should be.
    """
    told = f"{spec.name}\x1f{lookup.hex()}\x1f{comparable(spec, value)}"
    return hashlib.sha256(told.encode()).hexdigest()[:DIGITS].translate(str.maketrans(*LETTERS))


def comparable(spec: JobSpec, value: str) -> str:
    """What `verdicts.same` makes of a value, or a term in a checking job."""
    if spec.output.is_json and not verdicts.is_checking(spec):
        return canonical_json(json.loads(value))
    return re.sub(r"\r\n?", "\n", value)


def _cell(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "" if text is None else f"'{text}" if FORMULA.match(text) else text


def uncell(text: str) -> str:
    """The text that such a cell stands for."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def marks(names: Iterable[str], key: Sequence[str]) -> list[str]:
    """Those columns by which a file is a review, in any case; a key column may bear such a name."""
    own = {name.lower() for name in key}
    return [name for name in names if name.strip().lower() in MARKS and name.lower() not in own]
