"""Tables on a terminal, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from batchinfer.errors import shortened

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 60  # characters of a cell
LONG_WORD = 16  # characters of a word that is not broken in a table; longer ones are paths and the like
BETWEEN = 2  # characters between two columns of a table


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    free: Sequence[str] = (),
    colours: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Prints a table as wide as the terminal. Where that is too narrow, columns of free text are broken at words.

    What is too wide even so comes in several tables, each with the first column; elsewhere than on a terminal in one.
    right: columns whose values stand to the right. free: columns of free text; values of all others stay whole.
    colours: of cells, by what is in them.
    """
    from rich.console import Console
    from rich.text import Text

    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    inside = [[name, *(row[place] for row in texts)] for place, name in enumerate(columns)]
    narrowest = [_narrowest(each, free=each[0] in free) for each in inside]
    widest = [_narrowest(each, free=False) for each in inside]
    console = Console()
    parts = _parts(narrowest, console.width) if console.is_terminal else [list(range(len(columns)))]
    if title:  # not the table's own, which would be broken at its width
        console.print(Text(title, style="table.title"), soft_wrap=True)
    for places in parts:
        widths = _fitting([(narrowest[place], widest[place]) for place in places], console.width)
        drawn = _drawn([(columns[place], width) for place, width in zip(places, widths, strict=True)], right, free)
        for row in texts:
            drawn.add_row(*(Text(row[place], style=colours.get(row[place], "")) for place in places))
        # A narrow terminal breaks lines, but no column is lost.
        console.width = max(console.width, _width(widths))
        console.print(drawn)


def _drawn(columns: Sequence[tuple[str, int]], right: Sequence[str], free: Sequence[str]) -> Table:
    """A table without rows. columns: each with its width."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        drawn.add_column(name, justify=justify, overflow="fold", no_wrap=name not in free, width=width)
    return drawn


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    """The places of the columns of each table, so that each is as narrow as the room if it can be."""
    parts = [[0]] if widths else []
    for place in range(1, len(widths)):
        if len(parts[-1]) > 1 and _width([widths[each] for each in (*parts[-1], place)]) > room:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _fitting(ranges: Sequence[tuple[int, int]], room: int) -> list[int]:
    """The columns' widths: what the room lacks is taken from the widest first, as far as each can be narrowed.

    ranges: of each column, its least width and the one that breaks nothing.
    """
    widths = [min(most, max(least, room)) for least, most in ranges]
    while _width(widths) > room:
        broader = [place for place, (least, _) in enumerate(ranges) if widths[place] > least]
        if not broader:
            break
        widths[max(broader, key=lambda place: widths[place])] -= 1
    return widths


def _width(columns: Sequence[int]) -> int:
    """Of a table with columns of these widths."""
    return sum(columns) + len(columns) * BETWEEN


def _narrowest(texts: Sequence[str], *, free: bool) -> int:
    """The least width of a column: free text can be broken, but not within its words."""
    from rich.cells import cell_len

    parts = " ".join(texts).split() if free else texts
    widest = max(map(cell_len, parts), default=0)
    return min(widest, LONG_WORD) if free else widest


def cell(value: object, most: int = WIDE) -> str | None:
    """A value in one line of a table, shortened if it is wide."""
    return None if value is None else shortened(" ".join(str(value).split()), most)


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{share:.1%}"
