"""Long texts, folded and searched in windows: so that what is held at a time is bounded, whatever the text.

    text      │ slice │ slice │ slice │ …           each is folded by itself, as it would be within the whole text
    windows   ├───────────────┤
                          ├───┴───────────┤          they overlap by the longest term; each place ends in one of them

Pure.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchinfer.match.folding import EDGE, Folded, Folding, is_hangul, melts
from batchinfer.match.names import Span

SLICE = 2048  # characters that are folded at a time
SEEK = 1000  # characters in which to look for a place to cut at; there is one, but for heaps of marks or of white space
LEAST_STEP = 16384  # characters of the normal form by which windows advance
MOST_PER_BYTE = 9  # characters of the normal form that a byte of UTF-8 can become, boundaries included
LONGEST = 131_072  # characters of a term's normal form; a longer one is found only in a text of few windows


@dataclass(frozen=True, slots=True)
class _Piece:
    """A folded slice within a window.

    at: where it begins in the window; below 0 if part of it lies before.
    lead: how many characters at its beginning were left out, since the slice before has them.
    text_at: where the slice begins in the text.
    folded: the slice.
    """

    at: int
    lead: int
    text_at: int
    folded: Folded

    def local(self, offset: int) -> int:
        return offset - self.at + self.lead


class Window:
    """A part of a folded text.

    marked: the part.
    fresh: the offset in it after which places end that no window before had.
    """

    __slots__ = ("_pieces", "_plain", "_starts", "fresh", "marked")

    def __init__(self, marked: str, fresh: int, pieces: Sequence[_Piece]) -> None:
        self.marked, self.fresh = marked, fresh
        self._pieces = pieces
        self._starts = [piece.at for piece in pieces]
        self._plain = all(piece.folded.plain for piece in pieces)

    def spans(self, found: Sequence[Span]) -> list[Span]:
        """Offsets in the text for those in `marked`."""
        if len(self._pieces) == 1:
            [only] = self._pieces
            shift = only.lead - only.at
            if not shift and not only.text_at:
                return only.folded.spans(found)
            local = [(start + shift, end + shift) for start, end in found]
            return [(start + only.text_at, end + only.text_at) for start, end in only.folded.spans(local)]
        return self._spans_of_many(found)

    def _spans_of_many(self, found: Sequence[Span]) -> list[Span]:
        asked = [list[Span]() for _ in self._pieces]
        places = []
        for start, end in found:
            first, last = self._number(start), self._number(end - 1)
            here, there = self._pieces[first].local(start), self._pieces[last].local(end)
            places.append((first, last))
            if first == last:
                asked[first].append((here, there))
            else:
                asked[first].append((here, here + 1))
                asked[last].append((there - 1 - (self.marked[end - 1] == EDGE), there))
        answers = [_in_text(piece, spans) for piece, spans in zip(self._pieces, asked, strict=True)]
        return [
            next(answers[first]) if first == last else (next(answers[first])[0], next(answers[last])[1])
            for first, last in places
        ]

    def _number(self, offset: int) -> int:
        """Of the piece that has what stands there."""
        return bisect_right(self._starts, offset) - 1

    def cuts(self, end: int) -> bool:
        """Whether something that ends there would leave a mark behind that belongs to its last character."""
        if self._plain:
            return False
        piece = self._pieces[self._number(end - 1)] if len(self._pieces) > 1 else self._pieces[0]
        return piece.folded.cuts(piece.local(end))

    def settled(self, longest: int) -> int:
        """The offset in the text before which nothing begins that a later window finds."""
        return self._pieces[self._number(max(0, len(self.marked) - longest))].text_at


def _in_text(piece: _Piece, spans: list[Span]) -> Iterator[Span]:
    """Offsets in the text for those in a folded slice."""
    at = piece.text_at
    return ((start + at, end + at) for start, end in (piece.folded.spans(spans) if spans else ()))


def windows(fold: Folding, text: str, longest: int, size: int = SLICE, step: int = LEAST_STEP) -> Iterator[Window]:
    """The windows of a text, one after the other. longest: characters of the longest term's normal form."""
    if len(text) <= size:
        folded = fold(text)
        yield Window(folded.marked, 0, (_Piece(0, 0, 0, folded),))
        return
    step, marked, fresh, pieces = max(step, longest), "", 0, list[_Piece]()
    for at, part in slices(fold, text, size):
        folded = fold(part)
        cut, lead = _joint(marked, folded.marked, joins=fold.joins(text, at))
        marked = marked[: len(marked) - cut]
        pieces.append(_Piece(len(marked), lead, at, folded))
        marked += folded.marked[lead:]
        end = len(marked) - marked.endswith(EDGE)  # this boundary may be none: the next slice tells
        if end - fresh >= step:
            yield Window(marked[:end], fresh, pieces)
            drop = max(0, end - longest)
            kept = max(0, bisect_right([piece.at for piece in pieces], drop) - 1)
            pieces = [_Piece(p.at - drop, p.lead, p.text_at, p.folded) for p in pieces[kept:]]
            marked, fresh = marked[drop:], end - drop
    yield Window(marked, fresh, pieces)


def most_marked(fold: Folding, text: str) -> int:
    """A bound on the characters that a text has when it is folded, at the price of its different characters."""
    each = [fold(sign).marked for sign in set(text)]
    alone = max((len(marked.replace(EDGE, "")) for marked in each), default=0)
    spaced = any(EDGE in marked for marked in each)
    return len(text) * alone * (3 if spaced else 1) + 2


def slices(fold: Folding, text: str, size: int) -> Iterator[tuple[int, str]]:
    """(offset, part) of each slice. They are cut where folding looks at nothing beyond, if there is such a place."""
    at = 0
    while len(text) - at > size + SEEK:
        end = next((end for end in range(at + size, at + size + SEEK) if _begins(fold, text[end])), at + size + SEEK)
        yield at, text[at:end]
        at = end
    yield at, text[at:]


def _begins(fold: Folding, sign: str) -> bool:
    """Whether a character is folded in the same way whatever stands before it."""
    if sign.isascii() and sign.isalnum():
        return True
    if sign.isspace() or melts(sign):
        return False
    first = fold(sign).marked.lstrip(EDGE)[:1]
    return first not in ("", " ") and unicodedata.category(first)[0] != "M"


def _joint(before: str, after: str, *, joins: bool) -> tuple[int, int]:
    """How much to leave out where folded slices meet, at the end of one and at the beginning of the next."""
    if joins and before.endswith(EDGE) and after.startswith(EDGE) and is_hangul(before[-2]) == is_hangul(after[1]):
        return 1, 1  # the cut went through a word
    if before.endswith(" ") and after.startswith(" "):
        return 0, 1
    return 0, 0
