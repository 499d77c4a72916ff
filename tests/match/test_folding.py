"""The normal form of texts: what counts as equal, where words begin and end, and the way back to offsets."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchinfer.match import folding
from batchinfer.match.folding import EDGE, Folding

FOLD = Folding()
BARE = Folding(accents=False)


def shown(text: str, fold: Folding = FOLD) -> str:
    """The folded text, with ¦ at the boundaries."""
    return fold(text).marked.replace(EDGE, "¦")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pfizer", "PFIZER"), ("Ｐｆｉｚｅｒ", "pfizer"), ("Straße", "STRASSE"), ("ﬁn", "fin"), ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ワクチン", "ﾜｸﾁﾝ"), ("ガス", "ｶﾞｽ"), ("é", "e\u0301"), ("한", "\u1112\u1161\u11ab"),
        ("covid 19", "covid\u00a0\t 19"), ("covid-19", "covid\u201119"), ("covid-19", "covid\u221219"), ("covid-19", "covid－19"),
        ("d'or", "d’or"), ("d'or", "d＇or"), ("d'or", "d`or"), ("covid", "co\u200bvid"), ("covid", "co\u00advid"),
        ("می\u200cخواهم", "میخواهم"), ("❤", "❤\ufe0f"), ("كورونا", "كورونـــا"), ("a_b", "a＿b"),
        ('צה"ל', "צה״ל"), ("צ'", "צ׳"),
        *(('a "b"', f"a {one}b{other}") for one, other in ("“”", "„“", "«»", "»«", "″″", "＂＂", "〝〟", "❝❞")),
        ("'b'", "‚b‘"), ("'b'", "‹b›"), ("istanbul", "İstanbul"), ("istanbul", "I\u0307STANBUL"), ("istanbul", "i\u0307stanbul"),
        ("№ 5", "No 5"), ("20 ℃", "20 °C"), ("20 °c", "20 ℃"), ("covid", "ⓒⓞⓥⓘⓓ"),
    ],
)  # fmt: skip
def test_spellings_that_are_folded_alike(one: str, other: str) -> None:
    """Case, width, composition, spaces, dashes, apostrophes and what has no width make no difference."""
    assert shown(one) == shown(other)
    assert FOLD.term(one) == FOLD.term(other)


@pytest.mark.parametrize(
    ("one", "other"), [("e", "é"), ("resume", "résumé"), ("и", "й"), ("a b", "ab"), ("a-b", "a b")]
)
def test_spellings_that_differ(one: str, other: str) -> None:
    """Accents, spaces and dashes themselves do."""
    assert shown(one) != shown(other)


def test_accents_are_ignored_on_demand() -> None:
    """Then é is e and й is и; the vowel signs of other scripts stay, since words are made of them."""
    assert shown("Résumé й", BARE) == shown("resume и", BARE)
    assert shown("कि", BARE) != shown("क", BARE)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("Pfizer's jab", "¦pfizer¦'¦s¦ ¦jab¦"),
        ("вакцина «Спутник V»", '¦вакцина¦ "¦спутник¦ ¦v¦"'),
        ("Comirnaty™ works", "¦comirnaty¦¦tm¦ ¦works¦"),
        ("5㎏", "¦5¦¦kg¦"),
        ("№5", "¦no¦¦5¦"),
        ("20℃", "¦20¦°¦c¦"),
        ("x℠y", "¦x¦¦sm¦¦y¦"),
        ("CO₂", "¦co2¦"),
        ("x²", "¦x2¦"),
        ("1½", "¦11¦⁄¦2¦"),
        ("a™️b", "¦a¦¦tm¦¦b¦"),
        ("Ⓐⓑ", "¦ab¦"),
        ("㍿ab", "株式会社¦ab¦"),
        ("打pfizer疫苗", "打¦pfizer¦疫苗"),
        ("ワクチンー接種", "ワクチンー接種"),
        ("วัคซีน", "วัคซีน"),
        ("कोविड टीका", "¦कोविड¦ ¦टीका¦"),
        ("백신을 맞다", "¦백신을¦ ¦맞다¦"),
        ("AZ백신", "¦az¦¦백신¦"),
        ("covid19", "¦covid19¦"),
        ("İstanbul", "¦istanbul¦"),
    ],
)
def test_words_are_marked_by_script(text: str, marked: str) -> None:
    """Both ends of a word of a spaced script and of Hangul have a mark; Han, Kana and Thai have none."""
    assert shown(text) == marked


def test_a_hangul_term_leaves_room_for_a_particle() -> None:
    """The pattern has the mark before the term, and none behind it."""
    assert FOLD.term("백신").replace(EDGE, "¦") == "¦백신"
    assert FOLD.term("백신 az").replace(EDGE, "¦") == "¦백신¦ ¦az¦"


@pytest.mark.parametrize(
    "text", ["", " ", "\u200b", "\u0301", "\u0301\u0308", "...", "-", "\ufe0f", "\u00ad ", "a\x02", "a\ud800"]
)
def test_terms_of_nothing(text: str) -> None:
    """What has no letter, digit or symbol is no term, nor is what could be taken for half a character."""
    assert FOLD.term(text) == ""


SIGNS = st.characters() | st.sampled_from(
    list("ßİŉﬁｶﾞ한ᄒ\u1161\u11abคำเ\u0e49\u0eba\u0301\u0345\u0656\u0338=\u200d_'’– \t，疫ーあ백az")
)


@settings(max_examples=1000)
@example("\u0ed6\u0345\u064d")
@example("\u037a\u0354")
@example("ᾳ\u0354")
@example("=\u0338")
@given(st.text(SIGNS))
@pytest.mark.long
def test_the_quick_ways_agree_with_the_general_one(text: str) -> None:
    """Whatever was folded before, a text has one folded form."""
    assert FOLD(text).marked == FOLD._by_cluster(text).marked
    assert BARE(text).marked == BARE._by_cluster(text).marked


@given(st.text(SIGNS))
def test_pieces_are_those_of_the_whole(text: str) -> None:
    """Folding piece by piece gives what folding all at once gives: normal, and folded again the same."""
    bare = FOLD(text).marked.replace(EDGE, "")
    assert unicodedata.is_normalized("NFKC", bare)
    assert FOLD(bare).marked.replace(EDGE, "") == bare
    assert "  " not in bare


@given(st.text(SIGNS), st.text(SIGNS, min_size=1), st.text(SIGNS))
def test_offsets_lead_back(before: str, middle: str, after: str) -> None:
    """The span of any folded character is a piece of the text that folds to something with that character in it."""
    text = before + middle + after
    folded = FOLD(text)
    places = [(at, at + 1) for at, sign in enumerate(folded.marked) if sign != EDGE]
    for (at, _), (start, end) in zip(places, folded.spans(places), strict=True):
        assert 0 <= start < end <= len(text)
        assert folded.marked[at] in FOLD(text[start:end]).marked
    assert [start for start, _ in folded.spans(places)] == sorted(start for start, _ in folded.spans(places))


@pytest.mark.parametrize(
    ("text", "found", "there"),
    [
        ("die Straße dort", "strasse", "Straße"), ("in İstanbul!", "istanbul", "İstanbul"), ("＜ﬁn＞", "fin", "ﬁn"),
        ("x ｶﾞｽ y", "ガス", "ｶﾞｽ"), ("a  \t covid\u200b-19", "covid", "covid"), ("a  \t b", " b", "  \t b"),
        ("e\u0301a z", "z", "z"), ("\ud800 covid", "covid", "covid"), ("😀 covid", "covid", "covid"),
    ],
)  # fmt: skip
def test_spans_of_what_changes_its_length(text: str, found: str, there: str) -> None:
    """A span is that of the original spelling, without what has no width behind it."""
    folded = FOLD(text)
    bare = folded.marked.replace(EDGE, "")
    start = bare.index(found)
    where = [at for at, sign in enumerate(folded.marked) if sign != EDGE]
    ((begin, end),) = folded.spans([(where[start], where[start + len(found) - 1] + 1)])
    assert text[begin:end] == there


def test_older_matchers_have_their_own_folding() -> None:
    """Texts are folded for a matcher of the first version as its terms were."""
    old = Folding(version=1)
    assert [shown(text, old) for text in ("Comirnaty™", "«b»", "İ", "I\u0307 a")] == [
        "¦comirnatytm¦",
        "«¦b¦»",
        "¦i\u0307¦",
        "¦i\u0307¦ ¦a¦",
    ]


@pytest.mark.parametrize(
    ("language", "term", "patterns"),
    [("tr", "Isparta", ["isparta", "ısparta"]), ("az-Latn", "Bakı", ["bakı", "baki"]), ("TR_tr", "İzmir", ["izmir"]),
     ("tr", "ışık", ["ışık", "işik"]),
     ("de", "Isparta", ["isparta"]), (None, "Bakı", ["bakı"]), ("trv", "Bakı", ["bakı"])],
)  # fmt: skip
def test_terms_of_turkic_languages_have_patterns_for_each_i(
    language: str | None, term: str, patterns: list[str]
) -> None:
    """Their own case folding counts beside that of all languages; the text may be in capitals."""
    assert [pattern.replace(EDGE, "") for pattern in FOLD.patterns(term, language)] == patterns


def test_what_is_remembered_of_signs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text may have any of a million characters, and heaps of marks: they are folded alike, and forgotten again."""
    monkeypatch.setattr(folding, "MOST_CACHED", 50)
    monkeypatch.setattr(folding, "MOST_CHARACTERS", 200)
    bounded, fold = Folding(), Folding()
    texts = ["".join(map(chr, range(start, start + 40))) for start in range(0x0250, 0x2000, 40)]
    texts += [f"{chr(0x61 + number % 26)}{chr(0x300 + number) * 12} e\u0301" for number in range(100)]
    expected = []
    with monkeypatch.context() as patched:
        patched.setattr(folding, "MOST_CACHED", 20_000)
        expected = [fold(text).marked for text in texts]
    for text, marked in zip(texts, expected, strict=True):
        assert bounded(text).marked == marked
        signs = bounded._signs
        assert max(len(signs), len(signs.single), len(signs.simple), len(bounded._clusters)) <= 50
        assert sum(map(len, bounded._clusters)) <= 200 + folding.MOST_MARKS + 1
