"""Opens a version's matcher and finds its terms in live texts. Imports neither duckdb nor pyarrow, as all that serves.

matcher.bin, made by `publish.matcher`: what each pattern stands for, as JSON, one after the other; where each of them begins; the
automaton; a checksum for each pattern's JSON; and at the end a JSON object that says where these lie. The file is never
mapped, since one that is cut would end the process. What the patterns stand for is read from the open file as it is wanted;
of the rest each process has a copy.
"""

from __future__ import annotations

import itertools
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batchinfer.core.files import DAMAGE, why_damaged
from batchinfer.core.open_file import OpenFile
from batchinfer.errors import MissingExtra, StoreError
from batchinfer.match.budget import LEAST_WRITTEN, MatchBudget
from batchinfer.match.names import Name, Named, NamedTerms, Occurrence, Span
from batchinfer.match.stored import deserialized, read_facts
from batchinfer.match.version import MATCHER_FORMAT, IncompatibleMatcher

if TYPE_CHECKING:  # these need the libraries of matching, which a service without matching does not have
    from batchinfer.match.suffixes import Place
    from batchinfer.match.windows import Window

SHORT = 1024  # characters of a text that is searched as a whole
FEW_CONCEPTS = 16  # that a term names: what is written of them is small
BLOCK = 1024  # places that are looked at between two looks at the clock


Match = tuple[Span, Named]


class Matcher:
    """The terms of a version. Any number of threads may ask it."""

    def __init__(self, path: Path, opened: OpenFile | None = None) -> None:
        """opened: the file, if it is open. Raises StoreError for one that is missing or damaged, MissingExtra where a library is."""
        try:
            from daachorse import CharwiseDoubleArrayAhoCorasick

            from batchinfer.match import folding, suffixes, windows
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("batchinfer"):
                raise
            raise MissingExtra(f"{exc.name}, which matching needs,", "match") from exc
        try:
            self._file = file = opened or OpenFile(path)
            facts = read_facts(file)
            if facts["format"] != MATCHER_FORMAT or not 1 <= facts["folding"] <= folding.VERSION:
                raise IncompatibleMatcher(
                    f"{path} was made by a batchinfer that matches in another way: publish again with this one."
                )
            automaton = file.read(*facts["automaton"])
            checks = array("I", file.read(*facts["checks"])) if "checks" in facts else None  # an old one has none
            if zlib.crc32(automaton) != facts.get("automaton_check", zlib.crc32(automaton)):
                raise file.damaged("the automaton differs from its checksum")
            # An automaton of no patterns cannot be kept in a file.
            searched = deserialized(CharwiseDoubleArrayAhoCorasick.deserialize, automaton)
            self._named = NamedTerms(file, array("Q", file.read(*facts["offsets"])), checks)
        except OSError as exc:
            raise StoreError(f"{path} cannot be opened: {exc.strerror}.") from exc
        except DAMAGE as exc:
            raise StoreError(f"{path} is damaged: {why_damaged(exc)}.") from exc
        self._fold = folding.Folding(accents=facts["accents"], version=facts["folding"])
        self._overlaps: bool = facts["overlaps"]
        self._suffixes = suffixes.Suffixes(searched, len(self._named)) if searched is not None else None
        self._windows = windows.windows
        long = self._named.terms(windows.LEAST_STEP // windows.MOST_PER_BYTE)
        longest = max((windows.most_marked(self._fold, term) for term in long), default=0)
        # A bound on the characters of the longest one's normal form; of most, which are short, only the file's bytes count.
        self._longest = min(max(longest, windows.LEAST_STEP), windows.LONGEST)

    @property
    def is_suspect(self) -> bool:
        """Whether damage was found in its file, or somebody wrote to it."""
        return self._file.is_suspect

    def __len__(self) -> int:
        """How many different terms there are."""
        return len(self._named)

    def find(
        self, text: str, *, languages: Collection[str] = (), utf16: bool = False, budget: MatchBudget | None = None
    ) -> list[Occurrence]:
        """The terms that stand in a text, by where they begin, and what each names.

        languages: BCP 47 tags to which to keep (de: de-AT, too); terms of no language are always found. utf16: count
        offsets in UTF-16 units, as JavaScript and Java do, rather than in code points. budget: what it may cost, the
        usual limits for one request if it is not given. Raises ResultTooLarge or TooMuchWork beyond it.
        """
        matches, places = self._found(text, languages, utf16=utf16, budget=budget or MatchBudget())
        found: list[Occurrence] = []  # list[Occurrence]() would take 0.3 µs, of some 10 for a short text
        many: dict[Named, tuple[Name, ...]] = {}  # made once for this text, and not kept for the next one
        for ((start, end), entries), place in zip(matches, places, strict=True):
            names = entries.few or many.get(entries)
            if names is None:
                names = many[entries] = entries.records()
            found.append(Occurrence(*place, text[start:end], names))
        return found

    def find_json(
        self, text: str, *, languages: Collection[str] = (), utf16: bool = False, budget: MatchBudget | None = None
    ) -> bytes:
        """The same as a JSON list of flat matches, in UTF-8."""
        budget = budget or MatchBudget()
        parts = []
        matches, places = self._found(text, languages, utf16=utf16, budget=budget)
        for ((start, end), entries), place in zip(matches, places, strict=True):
            if entries.concepts > FEW_CONCEPTS:
                budget.need_room((LEAST_WRITTEN + end - start) * entries.concepts)
            part = entries.json(*place, text[start:end])
            budget.spend_room(len(part) + 1)
            parts.append(part)
        return b"[%b]" % b",".join(parts)

    def _found(
        self, text: str, languages: Collection[str], *, utf16: bool, budget: MatchBudget
    ) -> tuple[list[Match], list[Span]]:
        """What is found, in code points, and where that is as asked for."""
        if self._suffixes is None:
            return [], []
        ranges = tuple(sorted(tag.lower() for tag in languages)) if languages else ()
        matches = self._matches(text, ranges, budget)
        if utf16 and matches and not text.isascii() and max(text) > "\uffff":
            units = _utf16_units(text)
            return matches, [(units(start), units(end)) for (start, end), _ in matches]
        return matches, [span for span, _ in matches]

    def _matches(self, text: str, ranges: tuple[str, ...], budget: MatchBudget) -> list[Match]:
        """Those that are reported, in order."""
        if len(text) <= SHORT and (few := self._few_matches(text, ranges, budget)) is not None:
            return few
        kept, pending = list[Match](), list[Match]()
        size = 0  # of what is found, as JSON, at least
        for window in self._windows(self._fold, text, self._longest):
            for match in self._in_window(text, window, ranges, budget):
                pending.append(match)
                if self._overlaps:
                    (start, end), entries = match
                    size += (LEAST_WRITTEN + end - start) * entries.concepts
                    budget.need_room(size)
            if not self._overlaps:
                kept, pending = _settle(kept, pending, window.settled(self._longest))
        if self._overlaps:
            return sorted(pending, key=_leftmost_longest) if len(pending) > 1 else pending
        return _settle(kept, pending, len(text) + 1)[0]

    def _few_matches(self, text: str, ranges: tuple[str, ...], budget: MatchBudget) -> list[Match] | None:
        """The same of a short text, without windows; None where terms stand at very many places of it."""
        assert self._suffixes is not None
        folded = self._fold(text)
        places = self._suffixes.few_places(folded.marked, BLOCK, budget)
        if not places:
            return None if places is None else []
        budget.spend_places(len(places))
        spans = folded.spans([(start, end) for start, end, _ in places])
        matches: list[Match] = []
        held, named, plain, most = budget.held, self._named, folded.plain, budget.names
        for (_, end, number), span in zip(places, spans, strict=True):
            entries = held.get((number, ranges)) or named(number, ranges, budget)
            if entries.size > most:
                budget.need_names(entries.size)
            if entries.turkic:
                entries = self._named.spelled(number, ranges, text[slice(*span)], self._fold, budget)
            if entries.concepts and (plain or not folded.cuts(end)):
                matches.append((span, entries))
        if len(matches) > 1:
            matches.sort(key=_leftmost_longest)
            if not self._overlaps:
                return _apart([], matches)
        return matches

    def _in_window(self, text: str, window: Window, ranges: tuple[str, ...], budget: MatchBudget) -> Iterator[Match]:
        """What ends in a window of a text, in some languages."""
        budget.check_time()
        assert self._suffixes is not None
        for block in _blocks(self._suffixes.all_places(window, budget)):
            budget.spend_places(len(block))
            budget.check_time()
            for (_, end, number), span in zip(
                block, window.spans([(start, end) for start, end, _ in block]), strict=True
            ):
                entries = self._named(number, ranges, budget)
                if entries.turkic:
                    entries = self._named.spelled(number, ranges, text[slice(*span)], self._fold, budget)
                if entries.concepts and not window.cuts(end):
                    yield span, entries


def _leftmost_longest(match: Match) -> Span:
    (start, end), _ = match
    return start, -end


def _settle(kept: list[Match], pending: list[Match], before: int) -> tuple[list[Match], list[Match]]:
    """Of matches that overlap, the leftmost, then the longest; several of the very same span stay together.

    before: the offset before which all that begin are known. Returns what is kept by now, and what is not settled.
    """
    later = [match for match in pending if match[0][0] >= before]
    return _apart(kept, sorted([match for match in pending if match[0][0] < before], key=_leftmost_longest)), later


def _apart(kept: list[Match], ordered: Iterable[Match]) -> list[Match]:
    """The same of matches in order: `kept`, with what is kept of them."""
    last = kept[-1][0] if kept else (-1, -1)
    for match in ordered:
        span = match[0]
        if span[0] >= last[1] or span == last:
            kept.append(match)
            last = span
    return kept


def _blocks(places: Iterator[Place]) -> Iterator[list[Place]]:
    while block := list(itertools.islice(places, BLOCK)):
        yield block


def _utf16_units(text: str) -> Callable[[int], int]:
    """What turns an offset in code points into one in UTF-16 units; a long text can hold very many."""
    wide = [place for place, sign in enumerate(text) if sign > "\uffff"]
    return lambda offset: offset + bisect_left(wide, offset)
