"""The normal form in which terms and live texts are compared, with word boundaries by script and a way back to offsets.

    text ─► NFKC, case folding, NFKC ─► one space, dash, apostrophe, quotation mark; nothing of zero width ─► boundaries marked

Where words are set apart by spaces, a mark stands before and after each. Where particles attach behind a word (Hangul),
only the mark before it counts; where words are not set apart (Han, Kana, Thai, …) there are none. So the automaton
itself finds a term, which was folded in the same way, at boundaries alone. A symbol that becomes letters, such as ™,
is a word of its own. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import regex

from batchinfer.match.languages import is_turkic

VERSION = 2  # raise it when a text is folded differently: it would not meet the terms of matchers that are there
# Folding can do all versions: the first knew no quotation marks, no symbols as words, and no dotted capital i.
EDGE = "\x1f"  # the mark; of a text's own it is white space
ODD = "\x01"  # stands for the underscore, which Python's \b would take for a letter
DOTTED = "i\u0307"  # what case folding makes of the capital İ
IOTA_BELOW = "\u0345"  # the only mark that case folding makes a letter of: other marks must be put before it first
NEVER_NORMAL = "\u0340"  # which NFKC always replaces
HALF = "\x02"  # stands for half of a surrogate pair, which no term may have: it could not be written as UTF-8
BREAK = "\x03"  # stands beside the letters of a symbol until boundaries are marked
MOST_MARKS = 30  # on one character, as Unicode's stream-safe format has it: normalising takes their number squared
LONG = 1000  # characters; what is longer is not normalised as a whole, for the same reason

_UNSPACED = (
    "Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham",
    "Tai_Viet", "Ahom", "Yi", "Tangut", "Nushu", "Khitan_Small_Script",
)  # fmt: skip
_HANGUL = r"[\p{scx=Hangul}&&\p{L}]"
_NO_WORD = "[[" + "".join(rf"\p{{scx={script}}}" for script in _UNSPACED) + r"]--\p{sc=Inherited}]"
_WORD = rf"[[\p{{L}}\p{{N}}\p{{M}}]--{_NO_WORD}--{_HANGUL}]"
_split_words = regex.compile(f"({_WORD}+|{_HANGUL}+)", regex.V1).split
_is_word = regex.compile(_WORD, regex.V1).fullmatch
_is_symbol = regex.compile(r"[^\p{Alphabetic}\p{N}\p{M}]").match
_has_letters = regex.compile(r"[\p{L}\p{N}]").search
_is_hangul = regex.compile(_HANGUL, regex.V1).fullmatch


def is_hangul(sign: str) -> bool:
    """Whether a folded character is of the script whose words particles follow."""
    return _is_hangul(sign) is not None


def _jamo(first: int, last: int, more: str) -> str:
    """A set of Korean letters, for a regular expression, with those that NFKC makes into them; more: ranges beyond."""
    compatible = map(chr, (*range(0x3131, 0x318F), *range(0xFFA0, 0xFFDD)))
    alike = [sign for sign in compatible if first <= ord(unicodedata.normalize("NFKC", sign)[0]) <= last]
    return f"[{chr(first)}-{chr(last)}{more}{''.join(alike)}]"


# A character with what melts into it: marks, what is taken away, and the letters of one Korean syllable.
_LEAD, _VOWEL = _jamo(0x1100, 0x115F, "\ua960-\ua97c"), _jamo(0x1160, 0x11A7, "\ud7b0-\ud7c6")
_TAIL_SIGN = _jamo(0x11A8, 0x11FF, chr(0xD7CB) + "-" + chr(0xD7FB))
_TAIL = rf"(?:\p{{Cf}}{{0,4}}{_TAIL_SIGN})?"
_find_clusters = regex.compile(
    rf"(?:{_LEAD}\p{{Cf}}{{0,4}}{_VOWEL}{_TAIL}|[가-힣]{_TAIL}|.)[\p{{M}}\p{{Cf}}\uFF9E\uFF9F]{{0,{MOST_MARKS}}}",
    regex.V1 | regex.DOTALL,
).findall
_melts = regex.compile(rf"{_VOWEL}|{_TAIL_SIGN}|[\p{{M}}\p{{Cf}}\uFF9E\uFF9F]", regex.V1).match
_mark_words = re.compile(r"\b").sub
_mark_ascii_words = re.compile(r"\b", re.ASCII).sub
_drop_accents = regex.compile(r"[\u0300-\u036F\u1AB0-\u1AFF\u1DC0-\u1DFF\u20D0-\u20FF\uFE20-\uFE2F]+").sub

_ALIKE = {  # beyond what categories say
    **dict.fromkeys(map(ord, "'`´\u1ffdʹʻʼʽˈ‘’‛′＇ꞌ"), "'"),
    **dict.fromkeys(map(ord, "⁃−"), "-"),
    **dict.fromkeys(map(ord, "_＿"), ODD),
    # Variation selectors, the combining grapheme joiner, and the Arabic stroke that only stretches a word.
    **dict.fromkeys([*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), 0x034F, 0x0640], ""),
}
_ALIKE_1 = dict(_ALIKE)
_ALIKE |= {
    **dict.fromkeys(map(ord, '"“”„‟«»״″〝〞〟＂❝❞'), '"'),
    **dict.fromkeys(map(ord, "‚‹›׳❛❜"), "'"),
    ord(BREAK): ODD,
}
_BY_CATEGORY = {"Pd": "-", "Cf": "", "Cs": HALF, "Zs": " ", "Zl": " ", "Zp": " "}
Sizes = tuple[int, int, int]
FoldedPiece = tuple[str, Sizes]
FEW = 8  # spans; the marks before each of more are not counted from the beginning: a long text can hold very many
MOST_CACHED = 20_000  # clusters, and characters: far more than texts of any language have; a hostile text has a million
MOST_CHARACTERS = 200_000  # of the clusters together


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text.

    marked: the text, with EDGE at word boundaries.
    clusters: for each piece of the text, in order: its length, that without what has no width at its end, and that of its
        folded form; None where each character was folded to one.
    plain: whether no character in it is a mark on another.
    """

    marked: str
    clusters: Callable[[], Iterable[Sizes]] | None = None
    plain: bool = True

    def cuts(self, end: int) -> bool:
        """Whether something that ends there in `marked` would leave a mark behind that belongs to its last character."""
        if self.plain:
            return False
        after = self.marked[end : end + 3].lstrip(EDGE)[:1]
        return after != "" and unicodedata.category(after)[0] == "M"

    def spans(self, found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Offsets in the text, in code points, for those in `marked`; characters that were folded to several are whole."""
        if len(found) <= FEW:
            count = self.marked.count
            bare = [(start - count(EDGE, 0, start), end - count(EDGE, 0, end)) for start, end in found]
        else:
            at = self._unmarked({offset for span in found for offset in span})
            bare = [(at[start], at[end]) for start, end in found]
        if self.clusters is None:
            return bare
        starts: list[int] = []
        ends: list[int] = []
        here = 0
        for length, visible, folded in self.clusters():
            starts += [here] * folded
            ends += [here + visible] * folded
            here += length
        return [(starts[start], ends[end - 1]) for start, end in bare]

    def _unmarked(self, offsets: set[int]) -> dict[int, int]:
        """Where they were before the marks came in, in one pass."""
        bare, edges, before = dict[int, int](), 0, 0
        for offset in sorted(offsets):
            edges += self.marked.count(EDGE, before, offset)
            bare[offset] = offset - edges
            before = offset
        return bare


class Folding:
    """Folds texts. Threads may share one: all that it remembers are facts about characters."""

    def __init__(self, *, accents: bool = True, version: int = VERSION) -> None:
        """accents: whether they count; without them, é is e. version: an older one for a matcher that is there."""
        self._accents, self._version = accents, version
        self._alike = _ALIKE if version > 1 else _ALIKE_1
        self._signs = _Signs(self._fold)
        self._clusters, self._characters = dict[str, FoldedPiece](), 0

    def __call__(self, text: str) -> Folded:
        """The folded text."""
        signs = self._signs
        if "  " not in text:
            if text.isascii() and text.isprintable():
                return Folded(_mark_ascii_words(EDGE, text.lower().replace("_", ODD).replace("`", "'")))
            common = text.replace("’", "'").replace("–", "-")
            if signs.simple.issuperset(common):
                return Folded(_mark_words(EDGE, common.casefold()))
        folded = text.translate(signs)
        bare = folded.replace(BREAK, "")
        if "  " in bare or DOTTED in bare or len(text) > LONG or not unicodedata.is_normalized("NFKC", bare):
            return self._by_cluster(text)  # one has melted into another, or should
        each = None if signs.single.issuperset(text) else lambda: [(1, 1, _length(signs[ord(sign)])) for sign in text]
        return Folded(_marked(folded), each, plain=False)

    def term(self, text: str) -> str:
        """The pattern by which a term is found in `marked`; empty if it has no letter, digit or symbol."""
        pattern = self(text).marked.strip(" ")
        if HALF in pattern or not any(unicodedata.category(sign)[0] in "LNS" for sign in pattern):
            return ""
        if pattern.endswith(EDGE) and _is_hangul(pattern[-2]):  # a particle may follow
            return pattern[:-1]
        return pattern

    def patterns(self, term: str, language: str | None) -> list[str]:
        """All patterns of a term: in Turkic languages also with the i that its letters have there, in either case.

        What they find has to be looked at with `is_spelled`.
        """
        if not is_turkic(language):
            return [self.term(term)]
        capitals = term.replace("i", "İ").replace("ı", "I")
        return list(dict.fromkeys([self.term(term), self.term(_turkic(term)), self.term(capitals)]))

    def is_spelled(self, text: str, term: str) -> bool:
        """Whether a text is a term of a Turkic language, in its own case folding or in the one of all others."""
        return self.term(text) == self.term(term) or self.term(_turkic(text)) == self.term(_turkic(term))

    def joins(self, text: str, at: int) -> bool:
        """Whether a word may go on at an offset: not before or after a symbol, which may become letters."""
        before = at - 1
        while before > 0 and at - before < MOST_MARKS and melts(text[before]):
            before -= 1
        return self._version == 1 or not any(map(_is_symbol, (text[max(before, 0)], text[at])))

    def _by_cluster(self, text: str) -> Folded:
        """The general way, which the quicker ones must agree with."""
        found = self._clusters.get
        pieces = [found(cluster) or self._remember(cluster) for cluster in _find_clusters(text)]
        folded, clusters = "".join([piece for piece, _ in pieces]), [sizes for _, sizes in pieces]
        if "  " in folded:
            folded, clusters = _squeezed(pieces)
        return Folded(_marked(folded), lambda: clusters, plain=False)

    def _remember(self, cluster: str) -> FoldedPiece:
        if len(self._clusters) >= MOST_CACHED or self._characters > MOST_CHARACTERS:
            self._clusters.clear()
            self._characters = 0
        self._characters += len(cluster)
        folded = self._fold(cluster)
        return self._clusters.setdefault(cluster, (folded, (len(cluster), _visible(cluster), _length(folded))))

    def _fold(self, cluster: str) -> str:
        """A character, with what melts into it, in its normal form."""
        alike = "".join([self._made_alike(sign) for sign in cluster])
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", alike).casefold())
        if self._version > 1:
            folded = folded.replace(DOTTED, "i")
        if not self._accents:
            folded = unicodedata.normalize("NFKC", _drop_accents("", unicodedata.normalize("NFD", folded)))
        folded = "".join([self._made_alike(sign) for sign in folded])  # full-width forms are dashes and so on only now
        joins = self._version == 1 or not _is_symbol(cluster) or not _has_letters(folded)
        return folded if joins else BREAK + folded + BREAK

    def _made_alike(self, sign: str) -> str:
        found = self._alike.get(ord(sign))
        if found is None:
            found = " " if sign.isspace() else _BY_CATEGORY.get(unicodedata.category(sign), sign)
        return found


class _Signs(dict[int, str]):
    """The folded form of each character that was met, by its number, as str.translate wants it.

    single: those that are folded to one.
    simple: those that casefold folds rightly too, and that Python's own idea of a word takes rightly for part of one, or not.
    """

    def __init__(self, fold: Callable[[str], str]) -> None:
        super().__init__()
        self._fold = fold
        self.single, self.simple = set[str](), set[str]()

    def __missing__(self, number: int) -> str:
        sign = chr(number)
        if len(self) >= MOST_CACHED:
            for remembered in (self, self.single, self.simple):
                remembered.clear()
        if IOTA_BELOW in unicodedata.normalize("NFKD", sign):
            return self.setdefault(number, NEVER_NORMAL)  # a text with it is folded the general way
        folded = self._fold(sign)
        if len(folded) == 1:
            self.single.add(sign)
            is_word, is_mark = bool(_is_word(sign)), unicodedata.category(sign)[0] == "M"
            if folded == sign.casefold() and sign.isalnum() == is_word and not is_mark:
                self.simple.add(sign)
        return self.setdefault(number, folded)


def _squeezed(pieces: list[FoldedPiece]) -> tuple[str, list[Sizes]]:
    """The folded text and the sizes, with one space where there are several in a row."""
    folded, clusters, after_space = list[str](), list[Sizes](), False
    for piece, (length, visible, _) in pieces:
        kept = piece.lstrip(" ") if after_space else piece
        after_space = kept.endswith(" ") if kept else after_space
        folded.append(kept)
        clusters.append((length, visible, _length(kept)))
    return "".join(folded), clusters


def _turkic(text: str) -> str:
    """A text in which both letters i are in lower case, as Turkic languages have it."""
    return text.replace("I\u0307", "i").replace("İ", "i").replace("I", "ı")


def _marked(folded: str) -> str:
    """A folded text with its boundaries marked."""
    return EDGE.join(_split_words(folded)).replace(BREAK, "")


def _length(folded: str) -> int:
    """Of a folded piece, as it will be in the marked text."""
    return len(folded) - folded.count(BREAK)


def melts(sign: str) -> bool:
    """Whether a character can become part of what stands before it."""
    return _melts(sign) is not None


def _visible(cluster: str) -> int:
    """The length without what has no width at its end."""
    length = len(cluster)
    while length > 1 and unicodedata.category(cluster[length - 1]) == "Cf":
        length -= 1
    return length
