"""The tables that the benchmark of matching prints."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cldr import Locale, Text
from benchmarks.serving import spread

BATCH = 100  # texts in one request
MOST_SHOWN = 40  # failures


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds of each text, in one round: of the bare automaton, and of Matcher.find."""

    bare: list[float]
    whole: list[float]


@dataclass
class Answers:
    """What was looked at in the locales of one kind of script, and what was wrong."""

    locales: int = 0
    terms: int = 0
    spans: int = 0
    inside: int = 0
    covered: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """All that was measured. texts: with how many names are found in each; ways: rounds of µs, by way to ask.

    memory: private MB of a worker, before and after load.
    """

    locales: Sequence[Locale]
    texts: Sequence[tuple[Text, int]]
    built: dict[str, dict[str, Any]]
    libraries: dict[str, dict[str, Any]]
    times: list[Times]
    ways: dict[str, list[list[float]]]
    rates: list[float]
    memory: tuple[float, float]
    start: dict[str, Any]
    answers: dict[str, Answers]


def report(found: Results) -> None:
    """Prints what was measured, then each figure beside its limit."""
    console = Console(width=140)
    keywords = sum(len(names) for locale in found.locales for names in locale.names.values())
    symbols = len({symbol for locale in found.locales for symbol in locale.names})
    console.print(f"{keywords:,} names of {symbols:,} symbols in {len(found.locales)} locales\n")
    for drawn in (building(found), searching(found), serving(found), looking(found)):
        console.print(drawn)
    wrong = [line for seen in found.answers.values() for line in seen.wrong]
    for line in wrong[:MOST_SHOWN]:
        console.print(f"  {line}", markup=False, highlight=False)
    if len(wrong) > MOST_SHOWN:
        console.print(f"  … and {len(wrong) - MOST_SHOWN:,} more")


def table(title: str, *columns: str) -> Table:
    """With one column of words, and figures beside them."""
    drawn = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left")
    return drawn


def building(found: Results) -> Table:
    """Row by row: the step, and the bare libraries."""
    drawn = table("Building, each in a process of its own", "what", "terms", "names", "seconds", "peak GiB", "file MiB")
    for what, one in (
        ("the job's matcher", found.built["real"]),
        ("with neighbours put together", found.built["million"]),
    ):
        drawn.add_row(
            what, f"{one['terms']:,}", f"{one['entries']:,}", f"{one['seconds']:.1f}", f"{one['peak_gib']:.2f}", f"{one['mib']:.0f}"
        )  # fmt: skip
    drawn.add_row("limit, for a million", "", "", "30", "2", "")
    for name, one in found.libraries.items():
        drawn.add_row(f"{name} alone", f"{one['forms']:,}", "", f"{one['seconds']:.1f}", f"{one['peak_gib']:.2f}", "")
    return drawn


def searching(found: Results) -> Table:
    """One text in this process, by kind of text and by how much is found."""
    drawn = table(
        "One text of 60 characters in this process, µs: median of the texts (range over rounds), and 95th percentile",
        "texts", "how many", "names found", "bare automaton", "p95", "Matcher", "p95", "beyond the bare one", "p95",
    )  # fmt: skip
    bare, whole = [one.bare for one in found.times], [one.whole for one in found.times]
    for what, chosen in groups(found.texts):
        drawn.add_row(what, *searched(found, chosen, bare, whole))
        if what == "all":
            drawn.add_row("  limit", "", "", "", "", "", "", "15", "")
            for way, rounds in found.ways.items():
                drawn.add_row(way, *searched(found, chosen, bare[: len(rounds)], rounds))
    for name, one in found.libraries.items():
        drawn.add_row(f"{name}: mean of all", "", "", spread(one["microseconds"], 1), "", "", "", "", "")
    return drawn


def searched(
    found: Results, chosen: Sequence[int], bare: Sequence[Sequence[float]], whole: Sequence[Sequence[float]]
) -> list[str]:
    """The cells of a row, for the texts of these numbers."""
    beyond = [[one - least for one, least in zip(*rows, strict=True)] for rows in zip(whole, bare, strict=True)]
    names = statistics.median(found.texts[number][1] for number in chosen)
    cells = [f"{len(chosen):,}", f"{names:.0f}"]
    for rounds in (bare, whole, beyond):
        taken = [[row[number] for number in chosen] for row in rounds]
        cells += [spread([statistics.median(row) for row in taken], 1), f"{statistics.median(map(p95, taken)):.1f}"]
    return cells


def groups(asked: Sequence[tuple[Text, int]]) -> Iterator[tuple[str, list[int]]]:
    """All texts, then those of each kind of script, then those in which so many names are found; by their numbers."""
    yield "all", list(range(len(asked)))
    for kind in sorted({text.kind for text, _ in asked}):
        yield kind, [number for number, (text, _) in enumerate(asked) if text.kind == kind]
    for least, most in itertools.pairwise((0, 4, 16, 64, 10_000)):
        chosen = [number for number, (_, names) in enumerate(asked) if least <= names < most]
        if chosen:
            yield f"{least} names or more", chosen


def p95(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


def serving(found: Results) -> Table:
    """The service, and a worker's start."""
    drawn = table("Serving", "what", "figure", "limit")
    start = found.start
    drawn.add_row(f"texts/s in batches of {BATCH}, one server process", spread(found.rates, 0), "at least 20000")
    drawn.add_row("a worker opens the version's matcher, seconds", f"{start['seconds']:.2f}", "under 2")
    drawn.add_row("private MB of a process that looked up", f"{start['without_mb']:.0f}", "")
    drawn.add_row("  with the matcher opened", f"{start['opened_mb']:.0f}", "")
    drawn.add_row("  after all the texts", f"{start['used_mb']:.0f}", "")
    drawn.add_row("  at its peak, shared pages counted", f"{start['peak_mb']:.0f}", "")
    drawn.add_row("private MB of the server's worker, when ready", f"{found.memory[0]:.0f}", "")
    drawn.add_row("  after the load", f"{found.memory[1]:.0f}", "")
    return drawn


def looking(found: Results) -> Table:
    """Whether the answers are right, by kind of script."""
    drawn = table(
        "Right answers: matches may overlap, but in the last column", "script", "locales", "terms", "to be found",
        "not to be, inside a word", "wrong", "covered by a longer one where none overlap",
    )  # fmt: skip
    for kind, seen in sorted(found.answers.items()):
        counts = seen.locales, seen.terms, seen.spans, seen.inside, len(seen.wrong), seen.covered
        drawn.add_row(kind, *(f"{count:,}" for count in counts))
    return drawn
