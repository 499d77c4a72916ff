"""What terms name: read from the file of a matcher, and written as replies have it."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchinfer.core.open_file import OpenFile
from batchinfer.match.budget import MatchBudget
from batchinfer.match.languages import beginnings, is_in, is_turkic

if TYPE_CHECKING:  # it needs the libraries of matching, which a service without matching does not have
    from batchinfer.match.folding import Folding

MOST_KEPT = 8 << 20  # bytes of names in the file: some 50 MB when read; what common terms name is read once
FEW = 64  # bytes that any names take beside what the file has
LEAST_NAME = 60  # bytes that a name counts at least: where columns are equal, the file has much less than memory
FEW_NAMES = 256  # of a term; most have fewer, and are asked for again and again
RANGE = 40  # bytes that a range of languages counts, or a spelling
POINTERS = 40  # bytes that a name takes once more

Span = tuple[int, int]
"""Where something begins in a text, and where it ends."""


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


def by_concept(names: Iterable[Name]) -> Iterator[tuple[Name, list[str] | None]]:
    """Of each concept what is surest, a person's word before a score, and all languages; None where it holds in every one.

    names: by their concepts, as the file has them.
    """
    for _, group in itertools.groupby(names, lambda name: repr(name.concept)):
        alike = list(group)
        yield max(alike, key=_sureness), _languages(alike)


def _sureness(name: Name) -> tuple[bool, float]:
    return name.source not in ("model", "list"), -math.inf if name.score is None else name.score


def _languages(names: Sequence[Name]) -> list[str] | None:
    tags = {name.language for name in names}
    return None if None in tags else sorted(tag for tag in tags if tag is not None)


NameColumns = Sequence[tuple[Any, ...]]
"""Names by the fields of `Name`: all of each of these."""
LANGUAGE = Name._fields.index("language")


class Named:
    """What a pattern stands for, in some languages. Built once and kept, since some terms are much more common.

    Names are kept as columns, in tuples: the garbage collector, for which the whole process waits, looks at each object and at
    each item of a list again and again, and at a tuple of texts once. Records of few names are kept, too.

    weight: what they take, in bytes that stand for some more of memory.
    """

    __slots__ = ("_columns", "_parts", "concepts", "count", "few", "size", "turkic", "weight")

    def __init__(self, columns: NameColumns, size: int, turkic: frozenset[str] = frozenset()) -> None:
        """size: bytes of the file that were read for them. turkic: those of the languages whose spellings have to be looked at."""
        self._columns, self.size, self.turkic = columns, size, turkic
        self.count = len(columns[0])
        self.weight = max(size, LEAST_NAME * self.count)
        self.concepts = sum(1 for _ in itertools.groupby(map(repr, columns[0])))
        self.few: tuple[Name, ...] | None = None
        self._parts: tuple[bytes, ...] | None = None

    def records(self) -> tuple[Name, ...]:
        """All of them, kept as `few` where they are."""
        records = tuple(self)
        if self.count <= FEW_NAMES:
            self.few = records
        return records

    def __iter__(self) -> Iterator[Name]:
        return map(Name._make, zip(*self._columns, strict=True))

    def json(self, start: int, end: int, text: str) -> bytes:
        """`Occurrence.flat` as JSON, without its brackets: all but the span is the same each time, and written once."""
        if self._parts is None:
            self._parts = tuple(_parts(self))
        return (b'"start":%d,"end":%d,"text":%b,' % (start, end, _quoted(text).encode())).join(self._parts)

    def spelled(self, text: str, fold: Folding, budget: MatchBudget) -> Named:
        """Those whose term is really what stands there: a pattern may be more than one Turkish word's."""
        wrong = set[str]()
        for term in {name.term for name in self if name.language in self.turkic}:
            budget.check_time()
            if not fold.is_spelled(text, term):
                wrong.add(term)
        if not wrong:
            return self
        kept = [name.language not in self.turkic or name.term not in wrong for name in self]
        return Named(_compressed(self._columns, kept), self.size)


class NamedTerms:
    """What the patterns of a matcher stand for: read from the file, and kept as long as there is room.

    kept: by the number of a pattern and the languages.
    """

    def __init__(self, file: OpenFile, offsets: array[int], checks: array[int] | None) -> None:
        self._file, self._offsets, self._checks = file, offsets, checks
        self.kept = dict[tuple[int, tuple[str, ...]], Named]()
        self._spelled = dict[tuple[Named, str], Named]()
        self._room = MOST_KEPT

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __call__(self, number: int, ranges: tuple[str, ...], budget: MatchBudget) -> Named:
        """Those of a pattern, restricted to languages. Raises StoreError, or what is exceeded of the budget."""
        entries = budget.held.get((number, ranges))
        if entries is None:
            entries = self.kept.get((number, ranges)) or self._kept(number, ranges, budget)
            budget.hold(number, ranges, entries)
        return entries

    def _kept(self, number: int, ranges: tuple[str, ...], budget: MatchBudget) -> Named:
        """The same, from the file."""
        size = self._offsets[number + 1] - self._offsets[number] + FEW
        if size < self._file.size:  # what is damaged, reading tells
            budget.need_names(size)
        budget.check_time()  # where there is no room to keep them, they are read again and again
        entries = self._read(number, ranges)
        self._keep(number, ranges, entries)
        return entries

    def spelled(self, number: int, ranges: tuple[str, ...], text: str, fold: Folding, budget: MatchBudget) -> Named:
        """The same of a pattern with Turkic terms, where it stands in this spelling."""
        entries = self(number, ranges, budget)
        found = self._spelled.get((entries, text))
        if found is None:
            found = entries.spelled(text, fold, budget)
            self._make_room(len(text) + RANGE + (0 if found is entries else POINTERS * found.count))
            if self.kept.get((number, ranges)) is not entries:  # which the key holds
                self._keep(number, ranges, entries)
            self._spelled[entries, text] = found
        return found

    def _keep(self, number: int, ranges: tuple[str, ...], entries: Named) -> None:
        self._make_room(entries.weight + RANGE * len(ranges))
        self.kept[number, ranges] = entries

    def _make_room(self, size: int) -> None:
        """For what is to be kept, if need be that of all that was."""
        self._room -= size
        if self._room < 0:
            self.kept.clear()
            self._spelled.clear()
            self._room = MOST_KEPT - size

    def terms(self, least: int) -> Iterator[str]:
        """A spelling of each term of which the file has this many bytes. Raises StoreError."""
        offsets = self._offsets
        for number in range(len(self)):
            if offsets[number + 1] - offsets[number] >= least:
                yield from (name.term for name in itertools.islice(self._read(number, ()), 1))

    def _read(self, number: int, ranges: tuple[str, ...]) -> Named:
        data = self._file.read(self._offsets[number], self._offsets[number + 1])
        if self._checks is not None and zlib.crc32(data) != self._checks[number]:
            raise self._file.damaged("what a term names differs from its checksum")
        try:
            columns = _columns(data)
            languages = set[str | None](columns[LANGUAGE])  # few, however many names
        except (ValueError, LookupError, TypeError) as exc:
            raise self._file.damaged("what a term names cannot be read") from exc
        if ranges:
            begins = beginnings(ranges)
            languages = {language for language in languages if is_in(language, begins)}
            columns = _compressed(columns, [language in languages for language in columns[LANGUAGE]])
        turkic = frozenset(language for language in languages if language is not None and is_turkic(language))
        return Named(columns, len(data) + FEW, turkic)


def _columns(data: bytes) -> NameColumns:
    """The file has them so, as one value where all of a column are equal. Raises ValueError, LookupError or TypeError."""
    columns, _ = _decode(str(data, "utf-8"))
    count = len(columns[0])
    whole = [tuple(column) if isinstance(column, list) else (column,) * count for column in columns]
    if len(whole) != len(Name._fields) or any(len(column) != count for column in whole):
        raise ValueError("the columns do not fit each other")
    return whole


def _compressed(columns: NameColumns, kept: Sequence[bool]) -> NameColumns:
    """Of each column what is to be kept."""
    return [tuple(itertools.compress(column, kept)) for column in columns]


_decode = json.JSONDecoder().raw_decode
_quoted = json.encoder.encode_basestring


def _parts(names: Iterable[Name]) -> list[bytes]:
    """JSON texts between which the span is put."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    parts = [""]
    for name, languages in by_concept(names):
        known = f'"language":{encode(name.language)},"languages":{encode(languages)}'
        head = f'{{"concept":{encode(name.concept)},{known},"term":{encode(name.term)},'
        parts[-1] += ("," if len(parts) > 1 else "") + head
        parts.append(f'"score":{encode(name.score)},"source":{encode(name.source)}}}')
    return [part.encode() for part in parts]
