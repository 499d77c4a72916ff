"""Opens a version's matcher and finds its terms in live texts. Imports neither duckdb nor pyarrow, as all that serves.

matcher.bin, made by `terms`: what each pattern stands for, as JSON, one after the other; where each of them begins; the
automaton; and at the end a JSON object that says where these lie. All but the automaton is read from the mapped file,
so that workers share it; daachorse makes a copy of the automaton for each process.
"""

from __future__ import annotations

import functools
import json
import mmap
import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from batchinfer.errors import MissingExtra, StoreError

MATCHER = "matcher.bin"
MAGIC = b"batchinfer match"
FORMAT = 1
MOST_CACHED = 4096  # patterns; a common one is read once
TRAILER = struct.Struct("<Q16s")  # the length of the JSON object before it, and MAGIC

Span = tuple[int, int]
Match = dict[str, Any]


class Matcher:
    """The terms of a version. Any number of threads may ask it."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError for a file that is missing or damaged, MissingExtra where a library is."""
        try:
            from daachorse import CharwiseDoubleArrayAhoCorasick

            from batchinfer import folding
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("batchinfer"):
                raise
            raise MissingExtra(f"{exc.name}, which matching needs,", "match") from exc
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            facts = _facts(data)
            begin, end = facts["automaton"]
            # An automaton of no patterns cannot be kept in a file.
            self._automaton = CharwiseDoubleArrayAhoCorasick.deserialize(data[begin:end]) if end > begin else None
            begin, end = facts["offsets"]
            self._offsets = memoryview(data)[begin:end].cast("Q")
        except OSError as exc:
            raise StoreError(f"{path} cannot be opened: {exc.strerror}.") from exc
        except (ValueError, KeyError, TypeError, struct.error) as exc:
            raise StoreError(f"{path} is damaged: {exc}.") from exc
        if (facts["format"], facts["folding"]) != (FORMAT, folding.VERSION):
            raise StoreError(
                f"{path} was made by a batchinfer that matches otherwise: serve with that one, or publish again."
            )
        self._data = data
        self._entries = functools.lru_cache(MOST_CACHED)(self._read)  # some terms are much more common than others
        self._fold = folding.Folding(accents=facts["accents"])
        self._overlaps: bool = facts["overlaps"]

    def __len__(self) -> int:
        """How many different terms there are."""
        return len(self._offsets) - 1

    def find(self, text: str, *, languages: Collection[str] = (), utf16: bool = False) -> list[Match]:
        """The terms that stand in a text, by where they begin, and what each names.

        languages: BCP 47 tags to which to keep (de: de-AT, too); terms of no language are always found. utf16: count
        offsets in UTF-16 units, as JavaScript and Java do, rather than in code points.
        """
        if self._automaton is None:
            return []
        folded = self._fold(text)
        found = self._automaton.find_overlapping(folded.marked)
        if not found:
            return []
        named = self._named(found, tuple(tag.lower() for tag in languages))
        spans = folded.spans([(start, end) for start, end, _ in found])
        matches = [
            (span, entries)
            for (_, end, _), span, entries in zip(found, spans, named, strict=True)
            if entries and not folded.cuts(end)
        ]
        matches.sort(key=_leftmost_longest)
        if not self._overlaps:
            matches = _apart(matches)
        count = _utf16_counter(text) if utf16 else None
        return [
            {
                "concept": concept,
                "language": language,
                "term": term,
                "start": span[0] if count is None else count(span[0]),
                "end": span[1] if count is None else count(span[1]),
                "text": text[span[0] : span[1]],
                "score": score,
                "source": source,
            }
            for span, entries in matches
            for concept, language, term, score, source in entries
        ]

    def _read(self, number: int) -> list[Any]:
        begin, end = self._offsets[number : number + 2]
        entries: list[Any] = json.loads(self._data[begin:end])
        return entries

    def _named(self, found: Sequence[tuple[int, int, int]], ranges: tuple[str, ...]) -> list[list[Any]]:
        """What each pattern stands for: [concept, language, term, score, source] for each thing that it names."""
        named = [self._entries(number) for _, _, number in found]
        if ranges:
            named = [[entry for entry in entries if _is_in(entry[1], ranges)] for entries in named]
        return named


def _facts(data: mmap.mmap) -> dict[str, Any]:
    """The JSON object at the end. Raises ValueError or struct.error."""
    length, magic = TRAILER.unpack(data[-TRAILER.size :])
    if magic != MAGIC or length > len(data):
        raise ValueError("it does not end as a matcher does")
    facts: dict[str, Any] = json.loads(data[-TRAILER.size - length : -TRAILER.size])
    return facts


def _is_in(language: str | None, ranges: tuple[str, ...]) -> bool:
    """Whether a tag is in one of the ranges, by RFC 4647's basic filtering."""
    if language is None:
        return True
    tag = language.lower() + "-"
    return any(tag.startswith(f"{part}-") for part in ranges)


def _leftmost_longest(match: tuple[Span, Any]) -> Span:
    (start, end), _ = match
    return start, -end


def _apart(matches: list[tuple[Span, list[Any]]]) -> list[tuple[Span, list[Any]]]:
    """Of matches that overlap, the leftmost, then the longest; several of the very same span stay together."""
    kept, last = [], (-1, -1)
    for match in matches:
        span = match[0]
        if span[0] >= last[1] or span == last:
            kept.append(match)
            last = span
    return kept


def _utf16_counter(text: str) -> Any:
    """Turns an offset in code points into one in UTF-16 units."""
    if text.isascii() or max(text) < "\U00010000":
        return None
    return lambda offset: len(text[:offset].encode("utf-16-le", "surrogatepass")) // 2
