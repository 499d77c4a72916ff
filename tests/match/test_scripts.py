"""Terms of many scripts in sentences of theirs: found with exact spans by themselves, not found inside longer words."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from batchinfer.match.matcher import Matcher
from benchmarks.carriers import CARRIERS, Case, cases, wrong
from tests.factories import LENIENT, imports_job

TERMS = [  # script of the sentence, language, term
    ("Latin", "en", "vaccine"), ("Latin", "de", "Schutz-Impfung"), ("Latin", "tr", "aşı"), ("Latin", "vi", "vắc xin"),
    ("Latin", "fr", "aujourd’hui"), ("Latin", "yo", "abẹ́rẹ́ àjẹsára"), ("Cyrillic", "ru", "вакцина"), ("Cyrillic", "kk", "екпе"),
    ("Greek", "el", "εμβόλιο"), ("Greek", "el", "ιός"), ("Armenian", "hy", "պատվաստանյութ"), ("Georgian", "ka", "ვაქცინა"),
    ("Hebrew", "he", "חיסון"), ("Arabic", "ar", "لقاح"), ("Arabic", "fa", "واکسن‌ها"), ("Syriac", "syr", "ܚܘܠܡܢܐ"),
    ("Ethiopic", "am", "ክትባት"), ("Devanagari", "hi", "टीका"), ("Devanagari", "mr", "लस"), ("Bengali", "bn", "টিকা"),
    ("Gurmukhi", "pa", "ਟੀਕਾ"), ("Gujarati", "gu", "રસી"), ("Oriya", "or", "ଟିକା"), ("Tamil", "ta", "தடுப்பூசி"),
    ("Telugu", "te", "టీకా"), ("Kannada", "kn", "ಲಸಿಕೆ"), ("Malayalam", "ml", "വാക്സിൻ"), ("Sinhala", "si", "එන්නත"),
    ("Chakma", "ccp", "𑄑𑄨𑄇"), ("Ol_Chiki", "sat", "ᱴᱤᱠᱟ"), ("Tibetan", "dz", "སྨན་ཁབ"), ("Cherokee", "chr", "ᏅᏬᏘ"),
    ("Tifinagh", "zgh", "ⴰⵙⴰⴼⴰⵔ"), ("Adlam", "ff-Adlm", "𞤻𞤢𞤳𞤢"), ("Hanifi_Rohingya", "rhg", "𐴊𐴝𐴀"),
    ("Hangul", "ko", "백신"), ("Hangul", "ko", "백신 접종"), ("Hangul", "ko", "ㅎㅎ"), ("Hangul", "ko", "mRNA"), ("Han", "zh", "疫苗"),
    ("Han", "zh", "mRNA疫苗"), ("Han", "ja", "予防接種"), ("Kana", "ja", "ワクチン"), ("Kana", "ja", "おまもり"), ("Thai", "th", "วัคซีน"),
    ("Thai", "th", "น้ำยา"), ("Lao", "lo", "ວັກຊີນ"), ("Khmer", "km", "វ៉ាក់សាំង"), ("Myanmar", "my", "ကာကွယ်ဆေး"),
]  # fmt: skip
IDS = [f"{script}-{term}" for script, _, term in TERMS]


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matcher]:
    """All the terms in one published version, each a concept of its own."""
    concepts, languages = [term for _, _, term in TERMS], [language for _, language, _ in TERMS]
    world = imports_job(
        tmp_path_factory.mktemp("scripts"), {"concept": concepts, "language": languages},
        input={"path": "queries.parquet", "key": ["concept", "language"]},
        output={"type": "json", "schema": {"type": "array"}},
        match={"terms": ["prediction"], "concept": "concept", "language": "language", "overlaps": True}, gate=LENIENT,
    )  # fmt: skip
    world.take_in({"concept": concepts, "language": languages, "prediction": [json.dumps([term]) for term in concepts]})
    world.publish()
    with world.served() as version:
        yield version.matcher


@pytest.mark.parametrize(("script", "language", "term"), TERMS, ids=IDS)
def test_terms_of_every_script(matcher: Matcher, script: str, language: str, term: str) -> None:
    """In a sentence of its script each is found with its span, in both countings; inside a longer word of spaced scripts not."""
    looked_at = list(cases(term, script))
    assert [complaint for case in looked_at if (complaint := wrong(matcher.find, case, [term]))] == []
    assert language in {name.language for match in matcher.find(looked_at[0].text) for name in match.names}


@pytest.mark.parametrize(
    ("term", "script", "expected"),
    [
        ("vaccine", "Latin", {"vaccine": True, "xvaccinex": False}),
        ("백신", "Hangul", {"백신": True, "백신를": True, "한백신": False}),
        ("疫苗", "Han", {"疫苗": True, "的疫苗的": True}),
        ("C++", "Latin", {"C++": True}),
        ("mRNA疫苗", "Han", {"mRNA疫苗": True}),
    ],
)
def test_what_is_looked_at(term: str, script: str, expected: dict[str, bool]) -> None:
    """By kind of script: a term alone, with a particle, and with letters stuck to it where that says something."""
    carrier = CARRIERS[script]
    found = list(cases(term, script))
    assert {case.text: case.found for case in found} == {
        carrier.around(word): there for word, there in expected.items()
    }
    assert [case.text[case.start : case.end] for case in found] == [term] * len(expected)


def test_no_carrier_has_a_term_of_its_own(matcher: Matcher) -> None:
    """What is found in the sentences is what was put into them."""
    assert [script for script, carrier in CARRIERS.items() if matcher.find(carrier.around(" … "))] == []


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        (Case("the vaccine", 4, 11, found=False), "is found inside a word"),
        (Case("the vaccines", 4, 11, found=True), "is not found; there are matches at []"),
        (Case("the vaccine", 3, 11, found=True), "is not found; there are matches at [(4, 11)]"),
    ],
)
def test_the_check_complains(matcher: Matcher, case: Case, complaint: str) -> None:
    """A wrong answer is one to the check that these tests and the benchmark share."""
    said = wrong(matcher.find, case, ["vaccine"])
    assert said is not None
    assert complaint in said
    lacking = wrong(matcher.find, Case("the vaccine", 4, 11, found=True), ["vaccine", "another"])
    assert lacking is not None
    assert "lacks the concepts ['another']" in lacking
