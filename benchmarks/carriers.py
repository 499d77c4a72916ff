"""Sentences of each script to put a term into, and letters to stick to it: what shows whether matching is right.

The sentences say that somebody mentioned the term, or saw a picture of it. Those of some scripts are words made of their
letters, which is all that word boundaries look at.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import regex

from batchinfer.match.names import Occurrence

Kind = Literal["spaced", "particles", "unspaced"]
Find = Callable[..., list[Occurrence]]
"""Matcher.find, or one that is to be checked beside it."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A sentence in two parts, with the term between them, and a letter of its script.

    kind: spaced (words end at both sides of a term), particles (endings follow a term at once), or unspaced.
    """

    before: str
    after: str
    letter: str
    kind: Kind = "spaced"

    def around(self, term: str) -> str:
        """The sentence with the term in it."""
        return f"{self.before}{term}{self.after}"


@dataclass(frozen=True, slots=True)
class Case:
    """A text with a term at this span (in code points), and whether it is to be found there."""

    text: str
    start: int
    end: int
    found: bool


def made(first: int, last: int, letter: int) -> Carrier:
    """Words of two to six of the letters from `first` to `last`."""
    chance = random.Random(first)
    words = [
        "".join(chr(chance.randint(first, last)) for _ in range(chance.randint(2, 6))) for _ in range(16)
    ]  # fmt: skip
    return Carrier(" ".join(words[:5]) + " ", " " + " ".join(words[5:]), chr(letter))


CARRIERS = {
    "Latin": Carrier("Yesterday somebody mentioned ", " without explaining which meaning was intended.", "x"),
    "Cyrillic": Carrier("Вчера я видел рисунок ", " на стене старого дома у реки, и он мне понравился.", "ж"),
    "Greek": Carrier("Χθες είδα μια εικόνα με ", " στον τοίχο του παλιού σπιτιού δίπλα στο ποτάμι.", "ξ"),
    "Armenian": Carrier("Երեկ հին տան պատին տեսա ", " պատկերող մի նկար և այն շատ հավանեցի։", "տ"),
    "Georgian": Carrier("გუშინ ძველი სახლის კედელზე ", " დახატული ვნახე და ძალიან მომეწონა.", "ტ"),
    "Hebrew": Carrier("אתמול ראיתי תמונה של ", " על הקיר של הבית הישן ליד הנהר הגדול שבכפר.", "ט"),
    "Arabic": Carrier("رأيت أمس صورة ", " على جدار البيت القديم بالقرب من النهر الكبير.", "س"),
    "Syriac": made(0x0712, 0x072C, 0x071B),
    "Ethiopic": Carrier("ትናንት በአሮጌው ቤት ግድግዳ ላይ ", " የሚል ስዕል አየሁ በጣም ደስ አለኝ።", "ተ"),
    "Devanagari": Carrier("पिछले सप्ताह किसी ने ", " का उल्लेख किया परंतु स्पष्टीकरण नहीं दिया था।", "ट"),
    "Bengali": Carrier("গতকাল আমি পুরানো বাড়ির দেয়ালে ", " এর একটি ছবি দেখেছি, ভালো লেগেছে।", "ট"),
    "Gurmukhi": Carrier("ਕੱਲ੍ਹ ਮੈਂ ਪੁਰਾਣੇ ਘਰ ਦੀ ਕੰਧ ਉੱਤੇ ", " ਦੀ ਇੱਕ ਸੋਹਣੀ ਤਸਵੀਰ ਵੇਖੀ ਸੀ।", "ਟ"),
    "Gujarati": Carrier("ગઈકાલે મેં જૂના ઘરની દીવાલ પર ", " નું એક સુંદર ચિત્ર જોયું હતું.", "ટ"),
    "Oriya": Carrier("ଗତକାଲି ମୁଁ ପୁରୁଣା ଘରର କାନ୍ଥରେ ", " ର ଏକ ସୁନ୍ଦର ଚିତ୍ର ଦେଖିଲି।", "ଟ"),
    "Tamil": Carrier("நேற்று நான் பழைய வீட்டின் சுவரில் ", " என்ற படத்தைப் பார்த்தேன்.", "ட"),
    "Telugu": Carrier("నిన్న నేను పాత ఇంటి గోడ మీద ", " అనే అందమైన చిత్రాన్ని చూశాను.", "ట"),
    "Kannada": Carrier("ನಿನ್ನೆ ನಾನು ಹಳೆಯ ಮನೆಯ ಗೋಡೆಯ ಮೇಲೆ ", " ಎಂಬ ಸುಂದರ ಚಿತ್ರವನ್ನು ನೋಡಿದೆ.", "ಟ"),
    "Malayalam": Carrier("ഇന്നലെ ഞാൻ പഴയ വീടിന്റെ ചുവരിൽ ", " എന്ന മനോഹരമായ ചിത്രം കണ്ടു.", "ട"),
    "Sinhala": Carrier("ඊයේ මම පරණ ගෙදර බිත්තියේ ", " යන ලස්සන පින්තූරය දැක්කා.", "ට"),
    "Chakma": made(0x11107, 0x11126, 0x11111),
    "Ol_Chiki": made(0x1C5A, 0x1C77, 0x1C74),
    "Tibetan": Carrier("ངས་ཁ་སང་ཁང་པ་རྙིང་པའི་རྩིག་ངོས་ལ་", "་ཟེར་བའི་པར་ཞིག་མཐོང་བྱུང་།", "ཊ"),
    "Cherokee": made(0x13A0, 0x13F4, 0x13D4),
    "Tifinagh": made(0x2D30, 0x2D65, 0x2D5C),
    "Adlam": made(0x1E922, 0x1E943, 0x1E93C),
    "Hanifi_Rohingya": made(0x10D00, 0x10D1D, 0x10D03),
    "Hangul": Carrier(
        "어제 누군가 이야기를 나누다가 ", "를 언급했지만 무슨 뜻인지 설명하지 않았다고 한다.", "한", "particles"
    ),
    "Han": Carrier(
        "昨天我在河边老房子的墙上看到了", "的图片，觉得非常漂亮，于是拍了一张照片送给住在城里的朋友看看。", "的", "unspaced"
    ),
    "Kana": Carrier(
        "昨日は川の近くの古い家の壁に", "の絵が描いてあるのを見て、とてもきれいだと思いました。", "の", "unspaced"
    ),
    "Thai": Carrier(
        "เมื่อวานฉันเห็นรูป", "บนผนังบ้านเก่าใกล้แม่น้ำสายใหญ่ในหมู่บ้านนั้น", "ต", "unspaced"
    ),
    "Lao": Carrier(
        "ມື້ວານນີ້ຂ້ອຍເຫັນຮູບ", "ຢູ່ຝາເຮືອນເກົ່າໃກ້ແມ່ນ້ຳໃຫຍ່ໃນບ້ານນັ້ນ", "ຕ", "unspaced"
    ),
    "Khmer": Carrier("ម្សិលមិញខ្ញុំបានឃើញរូប", "នៅលើជញ្ជាំងផ្ទះចាស់ក្បែរទន្លេធំក្នុងភូមិនោះ", "ត", "unspaced"),
    "Myanmar": Carrier("မနေ့ကကျွန်တော်", "ပုံကိုအိမ်ဟောင်းနံရံပေါ်မှာတွေ့ခဲ့တယ်", "တ", "unspaced"),
}  # fmt: skip
INDIC = {
    "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Chakma",
}  # fmt: skip
PARTICLE = "를"

_SCRIPT = regex.compile(
    "|".join(f"(?P<{name}>\\p{{Script={name}}})" for name in CARRIERS if name != "Kana")
    + r"|(?P<Kana>[\p{Script=Hiragana}\p{Script=Katakana}ー])"
)
_MARK = regex.compile(r"\p{M}")
_AROUND = regex.compile(r"^[\p{Cf}\s]+|[\p{Cf}\s\u0640]+$")  # U+0640 only stretches an Arabic word
_NAMING = regex.compile(r"[\p{L}\p{N}\p{S}--−]", regex.V1)


def names(term: str) -> bool:
    """Whether there is a letter, digit or symbol in a term: punctuation alone, or a dash of any kind, is none."""
    return _NAMING.search(term) is not None


@functools.cache
def script_of(character: str) -> str | None:
    """The script of a letter or a mark; None for what belongs to no script of CARRIERS."""
    found = _SCRIPT.match(character)
    return found.lastgroup if found and (character.isalpha() or _MARK.match(character)) else None


def main_script(terms: Iterable[str]) -> str:
    """The script that most letters of a locale's terms have."""
    counted = Counter(script_of(character) for term in terms for character in term)
    del counted[None]
    return counted.most_common(1)[0][0] or "Latin" if counted else "Latin"


def edges(term: str) -> tuple[str | None, str | None]:
    """The scripts of a term's first and last letter; None where it begins or ends with something else."""
    whole = list(term)
    while len(whole) > 1 and script_of(whole[-1]) is None and _MARK.match(whole[-1]):
        whole.pop()  # a mark that scripts share belongs to the letter before it
    return script_of(whole[0]), script_of(whole[-1])


def stuck(term: str) -> tuple[str, str, bool] | None:
    """Letters to stick before and after a term, and whether it is still to be found; None if they would say nothing.

    They say nothing where a term begins or ends with no letter, or with letters of different kinds.
    """
    first, last = edges(term)
    if first is None or last is None or CARRIERS[first].kind != CARRIERS[last].kind:
        return None
    kind = CARRIERS[first].kind
    after = "" if kind == "particles" else CARRIERS[last].letter
    return CARRIERS[first].letter, after, kind == "unspaced"


def cases(term: str, script: str) -> Iterator[Case]:
    """A term in a carrier of this script: by itself, with a particle where its script has them, and inside a word.

    White space and what has no width, at a term's ends, is in the texts, but in no span.
    """
    carrier = CARRIERS[script]
    visible = _AROUND.sub("", term)
    at = len(carrier.before) + term.index(visible)
    yield Case(carrier.around(term), at, at + len(visible), found=True)
    if edges(visible)[1] == "Hangul":
        yield Case(carrier.around(term + PARTICLE), at, at + len(visible), found=True)
    if letters := stuck(visible):
        before, after, found = letters
        text = carrier.around(before + term + after)
        yield Case(text, at + len(before), at + len(before) + len(visible), found=found)


def wrong(find: Find, case: Case, concepts: Collection[Any]) -> str | None:
    """What is wrong with the answer to a case, in a sentence; None if nothing is. concepts: all that the term names.

    A term is found if its span, in code points and in UTF-16 units, bears each of the concepts and the text there.
    """
    whole = find(case.text)
    found = [match for match in whole if (match.start, match.end) == (case.start, case.end)]
    there = f"{case.text[case.start : case.end]!r} at {case.start} of {case.text!r}"
    if not case.found:
        return f"{there} is found inside a word" if found else None
    if not found:
        return f"{there} is not found; there are matches at {sorted((match.start, match.end) for match in whole)}"
    if missing := set(concepts) - {name.concept for match in found for name in match.names}:
        return f"{there} lacks the concepts {sorted(missing)}"
    if any(match.text != case.text[case.start : case.end] for match in found):
        return f"{there} comes with the text {found[0].text!r}"
    span = tuple(units(case.text[:end]) for end in (case.start, case.end))
    if not any((match.start, match.end) == span for match in find(case.text, utf16=True)):
        return f"{there} is not found in UTF-16 units"
    return None


def units(text: str) -> int:
    """How many UTF-16 units a text has."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
