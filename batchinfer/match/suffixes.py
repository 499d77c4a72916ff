"""All places where terms end, found one after the other.

The automaton gives the longest term that ends at each place. Those that end there too are the suffixes of the longest:
each term's next shorter one is looked up in the term itself when it is first needed, and remembered.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from typing import Any

from batchinfer.match.budget import MatchBudget
from batchinfer.match.windows import Window

Place = tuple[int, int, int]
"""Start, end, and the number of the term."""
UNKNOWN, NONE = -2, -1


class Suffixes:
    """Of the terms of one automaton. Threads may share it: what one looks up, another would look up alike."""

    def __init__(self, automaton: Any, terms: int) -> None:
        self._longest = automaton.find_overlapping_no_suffix
        self._numbers = array("i", [UNKNOWN]) * terms
        self._lengths = array("i", [0]) * terms

    def all_places(self, window: Window, budget: MatchBudget) -> Iterator[Place]:
        """Where terms end in a window, beyond what is not fresh; by their ends, the longest first."""
        marked, fresh = window.marked, window.fresh
        for place in self._longest(marked):
            if place[1] <= fresh:
                continue
            yield place
            yield from self._shorter(place, marked, budget)

    def few_places(self, marked: str, most: int, budget: MatchBudget) -> list[Place] | None:
        """The same of a whole text as one list, sooner; None where there are more than so many."""
        budget.check_time()
        found: list[Place] = self._longest(marked)
        numbers = self._numbers
        if len(found) > most:
            return None
        if all([numbers[number] == NONE for _, _, number in found]):  # noqa: C419 - the list is quicker
            return found
        places: list[Place] = []
        for place in found:
            places.append(place)
            if numbers[place[2]] != NONE:
                places.extend(itertools.islice(self._shorter(place, marked, budget), most))
                if len(places) > most:
                    return None
        return places

    def _shorter(self, place: Place, marked: str, budget: MatchBudget) -> Iterator[Place]:
        """The other terms that end where one does, the longest first."""
        numbers, lengths = self._numbers, self._lengths
        start, end, number = place
        while (shorter := numbers[number]) != NONE:
            if shorter == UNKNOWN:
                budget.check_time()
                self._look_up(number, marked[start:end])
                continue
            number = shorter
            start = end - lengths[number]
            yield start, end, number

    def _look_up(self, number: int, term: str) -> None:
        """Remembers the longest term that another one ends with."""
        places = self._longest(term[1:])
        found = NONE
        if places and places[-1][1] == len(term) - 1:
            start, end, found = places[-1]
            self._lengths[found] = end - start
        self._numbers[number] = found
