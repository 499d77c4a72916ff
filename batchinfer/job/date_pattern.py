"""A date in a list's path, such as exports/{date:%Y-%m-%d}/*.parquet."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import translate
from typing import Self

DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "j": 3}  # of strftime's codes that may stand in a path
# codes that together name a day, or the first of one
ENOUGH = ({"Y"}, {"Y", "m"}, {"Y", "m", "d"}, {"y", "m", "d"}, {"Y", "j"})
_FIELD = re.compile(r"\{date(?::([^{}]*))?\}")
SIGNS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_SIGN = re.compile(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])")  # a ] that comes first is one of the characters
_CODE = re.compile("%(.?)", re.DOTALL)
HINT = "write one such as {date:%Y-%m-%d}, of %Y, %m and %d"


@dataclass(frozen=True, slots=True)
class DatePattern:
    """A path with a date in it.

    before, after: what stands around it, which may be a glob.
    form: of the date, by strftime's codes.
    """

    before: str
    form: str
    after: str

    @classmethod
    def of(cls, path: str) -> Self | None:
        """None for a path without a date. Raises ValueError for one that cannot be read back."""
        fields = list(_FIELD.finditer(path))
        if not fields and re.search(r"\{date(?::|$)", path):
            raise ValueError(f"has a date that is not closed: {HINT}")
        if not fields:
            return None
        if len(fields) > 1:
            raise ValueError(f"has {len(fields)} dates, and can have one: {HINT}")
        [field] = fields
        codes = _CODE.findall(field[1] or "")
        if ".." in field[0] or set(codes) not in ENOUGH or len(codes) != len(set(codes)):
            raise ValueError(f"has a date {field[0]} that names no day: {HINT}")
        return cls(path[: field.start()], field[1], path[field.end() :])

    def at(self, day: date) -> str:
        """The path of that day."""
        return f"{self.before}{day.strftime(self.form)}{self.after}"

    def glob(self) -> str:
        """What finds the paths of all days."""
        return f"{self.before}{''.join(self._parts(digits='[0-9]'))}{self.after}"

    def day_of(self, path: str) -> date | None:
        """Which day a path that the glob found is of; None for digits that are no date."""
        form = "".join(self._parts(digits=r"\d"))
        found = re.fullmatch(f"{_expression(self.before)}({form}){_expression(self.after)}(?:/.*)?", path, re.DOTALL)
        if found is None:
            return None
        try:
            return datetime.strptime(found[1], self.form).date()  # noqa: DTZ007 - a day has no zone
        except ValueError:
            return None

    def _parts(self, digits: str) -> Iterator[str]:
        escape = glob.escape if digits == "[0-9]" else re.escape
        for number, part in enumerate(_CODE.split(self.form)):
            yield digits * DIGITS[part] if number % 2 else escape(part)


def _expression(pattern: str) -> str:
    """A regular expression for what a part of a glob finds."""
    parts = _SIGN.split(pattern)
    return "".join(_of_sign(part) if number % 2 else re.escape(part) for number, part in enumerate(parts))


def _of_sign(sign: str) -> str:
    """What a sign stands for; of a set, as fnmatch has it, which is what finds the files."""
    found = SIGNS.get(sign)
    return found if found is not None else translate(sign).removeprefix("(?s:")[: -len(")\\Z")]
