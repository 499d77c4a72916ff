"""Opens a version's matcher and finds its terms in live texts. Imports neither duckdb nor pyarrow, as all that serves.

matcher.bin, made by `publish.matcher`: what each pattern stands for, as JSON, one after the other; where each of them begins; the
automaton; a checksum for each pattern's JSON; and at the end a JSON object that says where these lie. The file is never
mapped, since one that is cut would end the process. What the patterns stand for is read from the open file as it is wanted;
of the rest each process has a copy.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchinfer.core.open_file import OpenFile
from batchinfer.errors import MissingExtra, StoreError
from batchinfer.match.budget import LEAST_WRITTEN, MatchBudget
from batchinfer.match.languages import is_in, is_turkic
from batchinfer.match.stored import deserialized, read_facts
from batchinfer.match.version import MATCHER_FORMAT, IncompatibleMatcher

if TYPE_CHECKING:  # these need the libraries of matching, which a service without matching does not have
    from batchinfer.match.suffixes import Place
    from batchinfer.match.windows import Window

MOST_KEPT = 8 << 20  # bytes of names in the file: some 50 MB when read; what common terms name is read once
FEW = 64  # bytes that any names take beside what the file has
BLOCK = 1024  # places that are looked at between two looks at the clock
Span = tuple[int, int]


class Name(NamedTuple):
    """One thing that a term names.

    concept: what is named.
    language: the term's language, as a BCP 47 tag, if it has one.
    term: the term as it was listed.
    score: that of the prediction, if it has one.
    source: where the prediction comes from.
    """

    concept: Any
    language: str | None
    term: str
    score: float | None
    source: str


class Occurrence(NamedTuple):
    """A place in a text where a term occurs.

    start: the offset of its first character.
    end: the offset after its last character.
    text: the text between them.
    names: all that the term names.
    """

    start: int
    end: int
    text: str
    names: tuple[Name, ...]

    def flat(self) -> list[dict[str, Any]]:
        """One mapping for each concept, as HTTP and the command line give them."""
        return [
            {
                "concept": name.concept, "language": name.language, "languages": languages, "term": name.term,
                "start": self.start, "end": self.end, "text": self.text, "score": name.score, "source": name.source,
            }
            for name, languages in by_concept(self.names)
        ]  # fmt: skip


def by_concept(names: Sequence[Name]) -> list[tuple[Name, list[str] | None]]:
    """Of each concept what is surest, a person's word before a score, and all languages; None where it holds in every one."""
    found: dict[str, list[Name]] = {}
    for name in names:
        found.setdefault(repr(name.concept), []).append(name)
    return [(max(alike, key=_sureness), _languages(alike)) for alike in found.values()]


def _sureness(name: Name) -> tuple[bool, float]:
    return name.source not in ("model", "list"), -math.inf if name.score is None else name.score


def _languages(names: Sequence[Name]) -> list[str] | None:
    tags = {name.language for name in names}
    return None if None in tags else sorted(tag for tag in tags if tag is not None)


class _Entries:
    """What a pattern stands for, in some languages. Built once and kept, since some terms are much more common."""

    __slots__ = ("_parts", "concepts", "names", "turkic")

    def __init__(self, names: tuple[Name, ...], *, turkic: bool = False) -> None:
        """turkic: whether any is of a language whose spellings have to be looked at."""
        self.names, self.turkic = names, turkic
        self.concepts = len({repr(name.concept) for name in names})
        self._parts: list[str] | None = None

    def json(self, start: int, end: int, text: str) -> str:
        """`Occurrence.flat` as JSON, without its brackets: all but the span is the same each time, and written once."""
        if self._parts is None:
            self._parts = _parts(self.names)
        return f'"start":{start},"end":{end},"text":{_quoted(text)},'.join(self._parts)


class _Named:
    """What the patterns of a matcher stand for: read from the file, and kept as long as there is room."""

    def __init__(self, file: OpenFile, offsets: array[int], checks: array[int] | None) -> None:
        self._file, self._offsets, self._checks = file, offsets, checks
        self._kept = dict[tuple[int, tuple[str, ...]], _Entries]()
        self._room = MOST_KEPT

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __call__(self, number: int, ranges: tuple[str, ...], budget: MatchBudget) -> _Entries:
        """Those of a pattern, restricted to languages. Raises StoreError, or ResultTooLarge for more than is to be read."""
        entries = self._kept.get((number, ranges))
        if entries is None:
            size = self._offsets[number + 1] - self._offsets[number] + FEW
            if size < self._file.size:  # what is damaged, reading tells
                budget.need_names(size)
            entries = self._read(number, ranges)
            self._room -= size
            if self._room < 0:
                self._kept.clear()
                self._room = MOST_KEPT - size
            self._kept[number, ranges] = entries
        return entries

    def terms(self, least: int) -> Iterator[str]:
        """A spelling of each term of which the file has this many bytes. Raises StoreError."""
        offsets = self._offsets
        for number in range(len(self)):
            if offsets[number + 1] - offsets[number] >= least:
                yield from (name.term for name in self._read(number, ()).names[:1])

    def _read(self, number: int, ranges: tuple[str, ...]) -> _Entries:
        """The file has it by columns, as one value where all of a column are equal."""
        data = self._file.read(self._offsets[number], self._offsets[number + 1])
        if self._checks is not None and zlib.crc32(data) != self._checks[number]:
            raise self._file.damaged("what a term names differs from its checksum")
        try:
            columns, _ = _decode(str(data, "utf-8"))
            count = len(columns[0])
            whole = [column if isinstance(column, list) else itertools.repeat(column, count) for column in columns]
            names = tuple(map(Name._make, zip(*whole, strict=False)))
        except (ValueError, IndexError, TypeError) as exc:
            raise self._file.damaged("what a term names cannot be read") from exc
        named = tuple(name for name in names if is_in(name.language, ranges)) if ranges else names
        return _Entries(named, turkic=any(is_turkic(name.language) for name in named))


Match = tuple[Span, _Entries]


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
            self._named = _Named(file, array("Q", file.read(*facts["offsets"])), checks)
        except OSError as exc:
            raise StoreError(f"{path} cannot be opened: {exc.strerror}.") from exc
        except (ValueError, KeyError, TypeError, struct.error) as exc:
            raise StoreError(f"{path} is damaged: {exc}.") from exc
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
        return [
            Occurrence(*place, text[start:end], entries.names)
            for (start, end), place, entries in self._places(
                text, languages, utf16=utf16, budget=budget or MatchBudget()
            )
        ]

    def find_json(
        self, text: str, *, languages: Collection[str] = (), utf16: bool = False, budget: MatchBudget | None = None
    ) -> bytes:
        """The same as a JSON list of flat matches, in UTF-8."""
        budget = budget or MatchBudget()
        parts = []
        for (start, end), place, entries in self._places(text, languages, utf16=utf16, budget=budget):
            budget.need_room((LEAST_WRITTEN + end - start) * entries.concepts)
            part = entries.json(*place, text[start:end]).encode()
            budget.spend_room(len(part) + 1)
            parts.append(part)
        return b"[%b]" % b",".join(parts)

    def _places(
        self, text: str, languages: Collection[str], *, utf16: bool, budget: MatchBudget
    ) -> Iterable[tuple[Span, Span, _Entries]]:
        """Where terms stand, in code points and as asked for, and what each stands for."""
        if self._suffixes is None:
            return ()
        ranges = tuple(sorted(tag.lower() for tag in languages)) if languages else ()
        matches = self._matches(text, ranges, budget)
        if utf16 and matches and not text.isascii() and max(text) > "\uffff":
            units = _utf16_units(text)
            return [(span, (units(span[0]), units(span[1])), entries) for span, entries in matches]
        return [(span, span, entries) for span, entries in matches]

    def _spelled(self, entries: _Entries, text: str, span: Span) -> _Entries:
        """Those entries whose term is really what stands there: a pattern may be more than one Turkish word's."""
        if not entries.turkic:
            return entries
        found, is_spelled = text[slice(*span)], self._fold.is_spelled
        names = [name for name in entries.names if not is_turkic(name.language) or is_spelled(found, name.term)]
        return entries if len(names) == len(entries.names) else _Entries(tuple(names))

    def _matches(self, text: str, ranges: tuple[str, ...], budget: MatchBudget) -> list[Match]:
        """Those that are reported, in order."""
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
                entries = self._spelled(self._named(number, ranges, budget), text, span)
                if entries.names and not window.cuts(end):
                    yield span, entries


_decode = json.JSONDecoder().raw_decode
_quoted = json.encoder.encode_basestring


def _parts(names: Sequence[Name]) -> list[str]:
    """JSON texts between which the span is put."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    parts = [""]
    for name, languages in by_concept(names):
        known = f'"language":{encode(name.language)},"languages":{encode(languages)}'
        head = f'{{"concept":{encode(name.concept)},{known},"term":{encode(name.term)},'
        parts[-1] += ("," if len(parts) > 1 else "") + head
        parts.append(f'"score":{encode(name.score)},"source":{encode(name.source)}}}')
    return parts


def _leftmost_longest(match: Match) -> Span:
    (start, end), _ = match
    return start, -end


def _settle(kept: list[Match], pending: list[Match], before: int) -> tuple[list[Match], list[Match]]:
    """Of matches that overlap, the leftmost, then the longest; several of the very same span stay together.

    before: the offset before which all that begin are known. Returns what is kept by now, and what is not settled.
    """
    last = kept[-1][0] if kept else (-1, -1)
    later = [match for match in pending if match[0][0] >= before]
    for match in sorted([match for match in pending if match[0][0] < before], key=_leftmost_longest):
        span = match[0]
        if span[0] >= last[1] or span == last:
            kept.append(match)
            last = span
    return kept, later


def _blocks(places: Iterator[Place]) -> Iterator[list[Place]]:
    while block := list(itertools.islice(places, BLOCK)):
        yield block


def _utf16_units(text: str) -> Callable[[int], int]:
    """What turns an offset in code points into one in UTF-16 units; a long text can hold very many."""
    wide = [place for place, sign in enumerate(text) if sign > "\uffff"]
    return lambda offset: offset + bisect_left(wide, offset)
