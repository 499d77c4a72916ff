"""Cells that a spreadsheet wrote in its own way although nobody touched them: true as TRUE, 1.50 as 1,5, dates. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation

MONTHS_OF_YEAR, DAYS_OF_MONTH, SHORT = 12, 31, 2  # SHORT: digits of a year without its century, of a month, of a day
LONGEST_CELL = 32_767  # characters; Excel cuts longer ones
SURE_DIGITS = 15  # of a number; spreadsheets keep no more
SHOWN_DIGITS = 3  # of a number with an exponent, which is shown rounded
YES = {"true", "wahr", "vrai", "verdadero", "vero", "waar", "verdadeiro", "prawda", "истина"}
NO = {"false", "falsch", "faux", "falso", "onwaar", "fałsz", "ложь"}
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?(\s?%)?", re.IGNORECASE)
GROUPED = re.compile(  # 1,234.5 or 1.234,5 or 1'234 or 12,34,567: what stands between groups of digits
    "[+-]?\\d{1,3}([.,'\N{RIGHT SINGLE QUOTATION MARK} \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}])"
    r"(?:\d{2,3}\1)*\d{3}(?:(?!\1)[.,]\d+)?"
)
TIME = re.compile(r"(?:T|\b)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?\s*([ap]m)?(?:Z|\b)", re.IGNORECASE)
DATE = re.compile(
    r"\s*(?:[^\W\d_]{3,12}[.,]?\s+)?((?:\d{1,4}|[^\W\d_]{3,12})(?:[-/.\s]+(?:\d{1,4}|[^\W\d_]{3,12})\.?,?){1,2})\s*"
)
MONTHS = {
    name: number
    for number, names in enumerate(
        ("jan ene gen", "feb fév feb", "mar mär", "apr avr abr", "may mai mag", "jun jui giu", "jul juil lug", "aug aoû ago",
         "sep set", "oct okt ott", "nov", "dec dez déc dic"), 1)
    for name in names.split()
}  # fmt: skip
DayParts = tuple[int | None, int, int]
# day 0 of the numbers by which spreadsheets keep dates, and older ones for the Mac
SERIALS = (date(1899, 12, 30), date(1904, 1, 1))
MOST_SERIAL = 2_958_465  # the last day of the year 9999
DAY = 86_400  # seconds


def is_retyped(original: str, cell: str) -> bool:
    """Whether a spreadsheet may have written a cell for a text that nobody touched."""
    first, second = (re.sub(r"\r\n?", "\n", text) for text in (original, cell))
    if first == second or (len(cell) >= LONGEST_CELL and first.startswith(second)):
        return True
    alike = (_same_number, _same_time, _same_serial)
    return _same_word(first.strip(), second.strip()) or any(same(first, second) for same in alike)


def _same_word(original: str, cell: str) -> bool:
    word = original.lower()
    return (word == "true" and cell.lower() in YES) or (word == "false" and cell.lower() in NO)


def _numbers(text: str) -> list[Decimal]:
    """What a text can mean as a number: a sign between digits may begin decimals, or stand between groups."""
    read = [_number(text)]
    if found := GROUPED.fullmatch(text.strip()):
        read.append(_number(text.replace(found[1], "")))
    return [number for number in read if number is not None]


def _number(text: str) -> Decimal | None:
    text = text.strip()
    if not NUMBER.fullmatch(text):
        return None
    try:
        value = Decimal(text.rstrip("% ").replace(",", "."))
    except InvalidOperation:
        return None
    return value / 100 if text.endswith("%") else value


def _same_number(original: str, cell: str) -> bool:
    return any(_alike(one, other, cell) for one, other in itertools.product(_numbers(original), _numbers(cell)))


def _alike(one: Decimal, other: Decimal, cell: str) -> bool:
    """Whether a cell shows a number as exactly as spreadsheets do. other: how the cell is read."""
    if one == other:
        return True
    digits = len(re.sub(r"e.*|\D", "", cell.lower()).strip("0"))
    least = SHOWN_DIGITS if "e" in cell.lower() else SURE_DIGITS
    return digits <= SURE_DIGITS and f"{one:.{max(least, digits) - 1}e}" == f"{other:.{max(least, digits) - 1}e}"


def _same_time(original: str, cell: str) -> bool:
    """Days may be written in any order; a year or seconds may be left out."""
    clocks = [_clock(text) for text in (original, cell)]
    dates = [TIME.sub("", text).strip() for text in (original, cell)]
    if clocks[0][:2] != clocks[1][:2] or (cell.count(":") > 1 and clocks[0] != clocks[1]):
        return False
    if not any(dates):
        return ":" in original and ":" in cell
    days = [list(_days(text)) for text in dates]
    return any(a[1:] == b[1:] and (a[0] == b[0] or None in (a[0], b[0])) for a, b in itertools.product(*days))


def _same_serial(original: str, cell: str) -> bool:
    """Whether a cell has the number of a date: days, and the time as a part of one. So they are shown in cells that are no dates."""
    number = _number(cell)
    if number is None or not 0 <= number <= MOST_SERIAL or not (TIME.search(original) or DATE.fullmatch(original)):
        return False
    days, seconds = divmod(round(number * DAY), DAY)
    hour, minute, second = _clock(original)
    if seconds != (hour * 60 + minute) * 60 + second:
        return False
    if not (text := TIME.sub("", original).strip()):
        return days == 0
    meant = [first + timedelta(days) for first in SERIALS if days <= (date.max - first).days]
    said = list(_days(text))
    return any(
        day[0] in (None, one.year) and day[1:] == (one.month, one.day) for day, one in itertools.product(said, meant)
    )


def _clock(text: str) -> tuple[int, int, int]:
    found = TIME.search(text)
    if found is None:
        return 0, 0, 0
    hour, minute, second, half = found.groups()
    late = 12 if half and half.lower() == "pm" else 0
    return (int(hour) % 12 + late if half else int(hour)), int(minute), int(second or 0)


def _days(text: str) -> Iterator[DayParts]:
    """All days that a text can mean, as year, month and day; 0 for a day that is not said."""
    found = DATE.fullmatch(text)
    if found is None:
        return
    parts = re.findall(r"\d+|[^\W\d_]+", found[1])
    values = [_value(part) for part in parts]
    for order in ("ymd", "dmy", "mdy", "md", "dm", "my", "ym"):
        if len(order) == len(parts) and all(_fits(part, role) for part, role in zip(parts, order, strict=True)):
            day = dict(zip(order, values, strict=True))
            years: list[int | None] = (
                [None]
                if "y" not in day
                else [day["y"]]
                if day["y"] >= 10**SHORT
                else [1900 + day["y"], 2000 + day["y"]]
            )
            for year in years:
                yield year, day["m"], day.get("d", 0)
                if "d" not in day:  # the first is what spreadsheets make of a month
                    yield year, day["m"], 1


def _value(part: str) -> int:
    lower = part.lower()
    return int(part) if part.isdigit() else MONTHS.get(lower[:4], MONTHS.get(lower[:3], 0))


def _fits(part: str, role: str) -> bool:
    if role == "y":
        return part.isdigit() and len(part) in (2, 4)
    if role == "m":
        return 1 <= _value(part) <= MONTHS_OF_YEAR and (not part.isdigit() or len(part) <= SHORT)
    return part.isdigit() and 1 <= int(part) <= DAYS_OF_MONTH
