"""Terms of a version found in live texts: by script, with exact spans, and all that they name."""

from __future__ import annotations

import gc
import json
import random
import unicodedata
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from batchinfer.errors import MissingExtra, StoreError, UsageError
from batchinfer.match import folding, matcher, names
from batchinfer.match.matcher import Matcher
from batchinfer.match.names import Occurrence
from batchinfer.match.version import IncompatibleMatcher
from batchinfer.versions import folders, pointers
from batchinfer.versions.manifest import Manifest
from tests.factories import LENIENT, Templates, World, imports_job, model_job

Named = tuple[str, str, Sequence[Any]]  # concept, language, terms


def job(folder: Path, named: Sequence[Named], **match: Any) -> World:
    """A published job of imported lists of names."""
    world = imports_job(
        folder,
        {"vaccine": [row[0] for row in named], "language": [row[1] for row in named]},
        input={"path": "queries.parquet", "key": ["vaccine", "language"]},
        output={"type": "json", "schema": {"type": "object"}},
        match={"terms": ["prediction.names"], "concept": "vaccine", "language": "language", **match},
        gate=LENIENT,
    )
    world.take_in(
        {
            "vaccine": [row[0] for row in named],
            "language": [row[1] for row in named],
            "prediction": [json.dumps({"names": list(row[2])}) for row in named],
            "score": [0.5 + 0.01 * number for number in range(len(named))],
        }
    )
    world.publish()
    return world


def flat(matches: Sequence[Occurrence]) -> list[dict[str, Any]]:
    """As HTTP gives them."""
    return [mapping for match in matches for mapping in match.flat()]


def found(world: World, text: str, **options: Any) -> list[tuple[str, str]]:
    """(concept, what stands in the text) for each match."""
    with world.served() as version:
        return [(match["concept"], match["text"]) for match in flat(version.matcher.find(text, **options))]


def manifest(world: World) -> Manifest:
    """What the current version says of itself."""
    pointer = pointers.served(world.data)
    return Manifest.read(folders.folder_of(world.data, pointer.version))


def matcher_facts(world: World) -> dict[str, Any]:
    """What the current version says of its matcher."""
    return dict(manifest(world).document["match"])


def test_a_match_says_all(tmp_path: Path) -> None:
    """Concept, language, the term as it was listed, span, score and source of the prediction."""
    world = job(tmp_path, [("Sputnik V", "de", ["Sputnik-Impfstoff", "Sputnik V"]), ("Sputnik V", "ru", ["Спутник V"])])
    with world.served() as version:
        assert flat(version.matcher.find("Ist der SPUTNIK‑Impfstoff gut?")) == [
            {
                "concept": "Sputnik V", "language": "de", "languages": ["de"], "term": "Sputnik-Impfstoff", "start": 8, "end": 25,
                "text": "SPUTNIK‑Impfstoff", "score": 0.5, "source": "import",
            }
        ]  # fmt: skip
        assert len(version.matcher) == 3


SCRIPTS = [  # a term, a text with it, what stands there; None if it must not be found
    ("Impfung", "eine Impfung.", "Impfung"), ("Impfung", "Impfungen", None), ("Impfung", "Schutzimpfung", None),
    ("Straße", "an der STRASSE 5", "STRASSE"), ("ig", "İğ ig", "ig"), ("İğne", "bir i̇ğne", "i̇ğne"),
    ("вакцина", "эта «Вакцина»", "Вакцина"), ("вакцина", "вакцинация", None),
    ("εμβόλιο", "το ΕΜΒΌΛΙΟ;", "ΕΜΒΌΛΙΟ"), ("لقاح", "هذا لقاح جيد", "لقاح"), ("لقاح", "اللقاح", None),
    ("חיסון", "חיסון טוב", "חיסון"), ("टीका", "यह टीका है", "टीका"), ("टीक", "यह टीका है", None), ("ीका", "यह टीका है", None),
    ("টিকা", "টিকা দিন", "টিকা"), ("தடுப்பூசி", "தடுப்பூசி.", "தடுப்பூசி"), ("ვაქცინა", "(ვაქცინა)", "ვაქცინა"),
    ("ክትባት", "ክትባት፡", "ክትባት"), ("պատվաստանյութ", "Պատվաստանյութ", "Պատվաստանյութ"),
    ("백신", "이 백신을 맞다", "백신"), ("백신", "코로나백신", None),
    ("백신", "백신\u0301", None), ("백신", "AZ백신", "백신"), ("백신 접종", "백신 접종을", "백신 접종"),
    ("백신", "백신ㅋㅋ", "백신"), ("백신", "백신ㅠㅠ", "백신"), ("ㅎㅎ", "이 ㅎㅎ", "ㅎㅎ"), ("하", "이 ㅎㅏ", "ㅎㅏ"),
    ("갃", "가ㄳ", "가ㄳ"),
    ("疫苗", "新冠疫苗接种", "疫苗"), ("ワクチン", "新型ワクチンの", "ワクチン"), ("ワクチン", "ﾜｸﾁﾝ", "ﾜｸﾁﾝ"),
    ("わく", "めわくち", "わく"),
    ("วัคซีน", "ฉีดวัคซีนแล้ว", "วัคซีน"), ("ก", "กำ", None), ("ວັກຊີນ", "ສັກວັກຊີນ", "ວັກຊີນ"),
    ("វ៉ាក់សាំង", "ចាក់វ៉ាក់សាំងហើយ", "វ៉ាក់សាំង"), ("ကာကွယ်ဆေး", "ကိုဗစ်ကာကွယ်ဆေးထိုး", "ကာကွယ်ဆေး"), ("က", "ကို", None),
    ("Pfizer", "打Pfizer疫苗", "Pfizer"), ("Pfizer", "PfizerBioNTech", None), ("C++", "in C++ geht", "C++"),
    ("a.b", "axb", None), ("(x|y)", "die (x|y) da", "(x|y)"), (".*", ".* a", None), ("[a-z]+", "abc [A-Z]+", "[A-Z]+"),
    ("covid_19", "#covid_19", "covid_19"), ("covid", "#covid_19", "covid"), ("19", "covid19", None), ("o'r", "l’o’r", "o’r"),
    ("\u0e01\u0e33", "\u0e01\u0e4d\u0e32", "\u0e01\u0e4d\u0e32"), ("é", "e\u0301 ", "e\u0301"),
    ("né", "ne\u0301 ", "ne\u0301"), ("ne", "ne\u0301 ", None),
    ("\U00010400\U00010401", "x \U00010428\U00010429 y", "\U00010428\U00010429"),
]  # fmt: skip


@pytest.fixture(scope="module")
def all_scripts(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One job with all those terms, each in a language of its own."""
    named = [("it", f"x-{number}", [term]) for number, (term, *_) in enumerate(SCRIPTS)]
    return job(tmp_path_factory.mktemp("scripts"), named, min_length=1)


@pytest.mark.parametrize(
    ("number", "term", "text", "there"), [(number, *script) for number, script in enumerate(SCRIPTS)]
)
def test_boundaries_by_script(all_scripts: World, number: int, term: str, text: str, there: str | None) -> None:
    """Whole words in spaced scripts, with room for particles in Hangul, anywhere in Han, Kana, Thai, Lao, Khmer, Myanmar."""
    wanted = [] if there is None or term == ".*" else [("it", there)]
    assert found(all_scripts, text, languages=[f"x-{number}"]) == wanted


def test_offsets_in_both_countings(tmp_path: Path) -> None:
    """Code points, as Python counts; or UTF-16 units, as JavaScript and Java do."""
    world = job(tmp_path, [("it", "x", ["covid"])])
    text = "😀\ud800𐐀 covid 😀"
    with world.served() as version:
        (points,) = version.matcher.find(text)
        (units,) = version.matcher.find(text, utf16=True)
        assert points[:3] == (4, 9, "covid")
        assert units[:3] == (6, 11, "covid")
        assert text.encode("utf-16-le", "surrogatepass")[12:22].decode("utf-16-le") == "covid"
        assert version.matcher.find("covid", utf16=True)[0].end == 5


def test_the_leftmost_then_the_longest(tmp_path: Path) -> None:
    """Of matches that overlap one is taken, and a longer one that no boundary allows hides none."""
    named = [
        ("a", "x", ["covid vaccine"]),
        ("b", "x", ["covid"]),
        ("c", "x", ["vaccine side"]),
        ("d", "x", ["covid vacc"]),
    ]
    world = job(tmp_path, named)
    assert found(world, "the covid vaccine side effects") == [("a", "covid vaccine")]
    assert found(world, "covid vaccines") == [("b", "covid")]
    assert found(world, "covid covid") == [("b", "covid"), ("b", "covid")]


def test_overlaps_on_demand(tmp_path: Path) -> None:
    """With overlaps every term that stands in the text is found, by where it begins, the longer first."""
    named = [
        ("a", "x", ["covid vaccine"]),
        ("b", "x", ["covid"]),
        ("c", "x", ["vaccine side"]),
        ("d", "x", ["vaccine"]),
    ]
    world = job(tmp_path, named, overlaps=True)
    assert [concept for concept, _ in found(world, "covid vaccine side")] == ["a", "b", "c", "d"]


def test_one_term_of_several_concepts(tmp_path: Path) -> None:
    """Each of them is returned once, with all of its languages, and of several spellings and languages what scores best."""
    world = job(
        tmp_path,
        [("Moderna", "en", ["the jab"]), ("Pfizer", "en", ["The Jab", "the  jab"]), ("Pfizer", "de", ["the jab"])],
    )
    with world.served() as version:
        matches = flat(version.matcher.find("had the jab?"))
    assert [(match["concept"], match["language"]) for match in matches] == [
        ("Moderna", "en"),
        ("Pfizer", "de"),
    ]
    assert [match["languages"] for match in matches] == [["en"], ["de", "en"]]
    assert {(match["start"], match["end"]) for match in matches} == {(4, 11)}


@pytest.mark.parametrize("few", [2, 1])
def test_records_of_names_are_kept_where_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Places of the same term share them; those of a term that names more are not kept beside the columns for the next search."""
    monkeypatch.setattr(names, "FEW_NAMES", few)
    with job(tmp_path, [("A", "de", ["Stoff"]), ("B", "de", ["Stoff"])]).served() as version:
        first, second = version.matcher.find("Stoff und Stoff")
        [again] = version.matcher.find("Stoff")
    assert first.names is second.names
    assert again.names == first.names
    assert (again.names is first.names) == (few == len(first.names))


def test_languages_restrict(tmp_path: Path) -> None:
    """The word gift is one thing in English and another in German; a longer term of another language hides nothing."""
    named = [
        ("present", "en", ["gift"]),
        ("poison", "de", ["Gift", "gift shop"]),
        ("poison", "de-AT", ["Gift"]),
        ("dent", "den", ["gift"]),
    ]
    world = job(tmp_path, named)
    assert found(world, "a gift", languages=["en"]) == [("present", "gift")]
    assert found(world, "a gift", languages=["DE"]) == [("poison", "gift")]
    assert found(world, "a gift", languages=["de-AT"]) == [("poison", "gift")]
    assert found(world, "a gift shop", languages=["en"]) == [("present", "gift")]
    assert found(world, "a gift shop") == [("poison", "gift shop")]
    assert found(world, "a gift", languages=["fr"]) == []
    assert len(found(world, "a gift")) == 3
    with world.served() as version:
        poison = [match["languages"] for match in flat(version.matcher.find("a gift")) if match["concept"] == "poison"]
    assert poison == [["de", "de-AT"]]


def test_terms_of_no_language_are_found_in_all(tmp_path: Path) -> None:
    """Where the job names no language part, a restriction takes nothing away."""
    world = job(tmp_path, [("it", "de", ["covid"])], language=None)
    assert found(world, "covid", languages=["fr"]) == [("it", "covid")]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """Empty after folding, too short, or a stop term in whatever spelling: the manifest and the report say how many."""
    world = job(
        tmp_path,
        [("it", "x", ["\u200b", "...", "x", "The Virus", "covid", "Covid", 7])],
        stop_terms=["the virus"],
        min_length=2,
    )
    held = matcher_facts(world)
    assert (held["terms"], held["entries"], held["empty"], held["short"], held["stopped"]) == (1, 1, 2, 2, 1)
    assert held["says"] == "The matcher finds 1 term; left out: 2 empty terms, 2 terms that are too short, 1 stop term."
    assert found(world, "the virus x covid 7") == [("it", "covid")]


@pytest.mark.parametrize(("generic", "there"), [("report", 3), ("drop", 0)])
def test_generic_terms(tmp_path: Path, generic: str, there: int) -> None:
    """A term that names more than so many concepts is reported, and dropped if the job says so."""
    world = job(
        tmp_path,
        [(name, "en", ["the vaccine", f"{name} jab"]) for name in ("a1", "b1", "c1")],
        most_concepts=2,
        generic=generic,
    )
    held = matcher_facts(world)
    assert (held["generic"], held["dropped"], held["examples"]) == (1, generic == "drop", [["the vaccine", 3]])
    assert len(found(world, "the vaccine")) == there
    assert found(world, "b1 jab") == [("b1", "b1 jab")]


@pytest.mark.parametrize(("share", "generic"), [(0.7, 1), (0.8, 0), (0.01, 1)])
def test_a_share_of_the_concepts(tmp_path: Path, share: float, generic: int) -> None:
    """Of four concepts 0.7 are two whole ones, 0.8 are three, and no share is less than one."""
    terms = [(name, "en", ["the vaccine"] if name != "d1" else ["d1 jab"]) for name in ("a1", "b1", "c1", "d1")]
    assert matcher_facts(job(tmp_path, terms, most_concepts=share))["generic"] == generic


def test_a_generic_term_stays_with_the_concept_that_clearly_scores_best(tmp_path: Path) -> None:
    """By default a term of more than a fifth of the concepts is generic; people's word counts as the best score."""
    names = [f"c{number}" for number in range(11)]
    world = imports_job(
        tmp_path, {"vaccine": names}, input={"path": "queries.parquet", "key": ["vaccine"]},
        output={"type": "json", "schema": {}}, match={"terms": ["prediction"], "concept": "vaccine", "generic": "drop"}, gate=LENIENT,
    )  # fmt: skip
    lists = [["pfizer", "vaccine", "spikevax"]] * 3 + [["jab"]] * 2 + [[name] for name in names[5:]]
    world.take_in(
        {"vaccine": names, "prediction": [json.dumps(terms) for terms in lists], "score": [0.9, 0.6, 0.55, *[0.5] * 8]}
    )
    world.publish()
    assert found(world, "pfizer jab c7") == [("c0", "pfizer"), ("c3", "jab"), ("c4", "jab"), ("c7", "c7")]
    held = matcher_facts(world)
    assert (held["generic"], held["settled"]) == (3, 3)
    assert "; 3 of them stay with the concept that clearly scores best." in held["says"]
    world.take_in({"vaccine": names[1:2], "prediction": ['["vaccine"]'], "score": [0.8]})
    world.take_in({"vaccine": names[2:3], "prediction": [json.dumps(lists[0])]})
    world.publish()
    assert found(world, "pfizer vaccine spikevax") == [
        ("c0", "pfizer"), ("c2", "pfizer"), ("c0", "spikevax"), ("c2", "spikevax")
    ]  # fmt: skip


def test_a_name_of_every_language_is_found_in_each(tmp_path: Path) -> None:
    """Whatever `where` and `min_score` leave out, once for each concept, in whatever language is asked for, and without a score."""
    rows: list[Named] = [("Moderna", "de", ["Spikevax"]), ("Moderna", "tr", ["aşı"]), ("Novavax", "de", ["Impfung"])]
    world = job(tmp_path, rows, everywhere=["vaccine"], min_score=0.505, where={"language": "de"})
    assert found(world, "Moderna, Spikevax, aşı, Impfung, Novavax", languages=["fr"]) == [
        ("Moderna", "Moderna"), ("Novavax", "Novavax")
    ]  # fmt: skip
    assert found(world, "Impfung NOVAVAX") == [("Novavax", "Impfung"), ("Novavax", "NOVAVAX")]
    with world.served() as version:
        [match] = flat(version.matcher.find("Moderna!", languages=["ja"]))
    assert (match["language"], match["score"], match["source"], match["term"]) == (None, None, "list", "Moderna")
    assert match["languages"] is None


@pytest.mark.long
def test_a_hundred_thousand_equal_terms(tmp_path: Path) -> None:
    """They are one term; of one concept and language they are one entry."""
    count = 100_000
    world = imports_job(
        tmp_path, {"id": list(range(count))}, input={"path": "queries.parquet", "key": ["id"]},
        match={"terms": ["prediction"], "concept": "prediction"}, gate=LENIENT,
    )  # fmt: skip
    world.take_in(
        {"id": list(range(count)), "prediction": ["Covid" if number % 2 else "covid" for number in range(count)]}
    )
    world.publish()
    assert matcher_facts(world)["terms"] == 1
    assert [match["term"] for match in flat(world.served().matcher.find("covid"))] == ["Covid", "covid"]


def test_no_term_at_all(tmp_path: Path) -> None:
    """A version whose predictions hold no term finds nothing, and can be published and opened."""
    world = job(tmp_path, [("it", "x", ["?"])])
    assert found(world, "anything") == []
    assert matcher_facts(world)["says"] == (
        "The matcher finds no terms: check the match section; left out: 1 empty term."
    )


BAD_TEXTS = {
    "empty": "", "space": " \t\n ", "surrogates": "\ud800\udfff\udc00", "unassigned": "\u0378\U000e0fff\u0380",
    "marks": "\u0301\u0308\u0e49",
    "controls": "\x00\x01\x1e\x1f\x7f", "zero width": "\u200b\u200d\u2060\ufeff", "long": "covi " * 200_000, "one word": "x" * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=list(BAD_TEXTS))
def test_odd_texts(tmp_path: Path, text: str) -> None:
    """Nothing is found in them, and a term right after them is."""
    world = job(tmp_path, [("it", "x", ["covid"])])
    assert found(world, text) == []
    with world.served() as version:
        (match,) = version.matcher.find(f"{text} covid")
    assert (match.start, match.text) == (len(text) + 1, "covid")


def test_where_and_score_choose_the_entries(tmp_path: Path) -> None:
    """A checking job's terms are found where the answer is Yes with enough probability: a confident No never matches."""
    import math

    terms = {"jab one": 0.95, "jab two": 0.6, "jab three": 0.01}
    world = model_job(
        tmp_path,
        {"vaccine": ["it"] * 3, "language": ["en"] * 3, "term": list(terms)},
        input={"path": "queries.parquet", "key": ["vaccine", "language", "term"]},
        prompt={"template": "{{ term }}", "format": "completion"},
        output={"type": "choice", "choices": ["Yes", "No"]},
        match={
            "terms": ["term"], "concept": "vaccine", "language": "language", "where": {"prediction": "Yes"}, "min_score": 0.8,
        },
        gate=LENIENT,
    )  # fmt: skip
    world.answer(lambda row: [math.log(terms[row["term"]]), math.log(1 - terms[row["term"]])])
    world.publish()
    with world.served() as version:
        found = flat(version.matcher.find("jab one, jab two, jab three"))
    assert [(match["text"], round(match["score"], 2), match["source"]) for match in found] == [
        ("jab one", 0.95, "model")
    ]
    assert matcher_facts(world)["unwanted"] == 2


@pytest.mark.parametrize("options", [{}, {"utf16": True}, {"languages": ["de"]}])
@pytest.mark.parametrize("text", ["", "none", 'a "Gift" and\\ a 😀\tgift\u2028shop', "gift\x01 \ud800 gift"])
def test_json_says_the_same(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    """What the service sends is what is found, whatever stands in the text."""
    world = job(tmp_path, [("present", "en", ["gift", '"gift" and\\']), ('po"ison\n', "de", ["Gift", "gift shop"])])
    with world.served() as version:
        matches = flat(version.matcher.find(text, **options))
        assert json.loads(version.matcher.find_json(text, **options)) == matches


def test_a_job_without_terms_says_so(tmp_path: Path) -> None:
    """Asking a version that has no matcher is a mistake in the call."""
    world = imports_job(tmp_path, {"id": [1]}, gate=LENIENT)
    world.take_in({"id": [1], "prediction": ["x"]})
    world.publish()
    with world.served() as version, pytest.raises(UsageError, match="has no match section"):
        _ = version.matcher


@pytest.mark.long
def test_a_changed_match_section_makes_a_new_version(tmp_path: Path) -> None:
    """The terms are part of what is served: the same predictions are published again with another matcher."""
    world = job(tmp_path, [("it", "x", ["covid"])])
    assert world.publish().version is None
    changed = world.changed(match={"terms": ["prediction.names"], "concept": "vaccine", "stop_terms": ["covid"]})
    assert changed.publish().version == 2
    assert found(changed, "covid") == []


def two_terms(folder: Path) -> World:
    """A job whose one concept has two terms."""
    return job(folder, [("it", "x", ["covid", "corona"])])


@pytest.fixture
def published(templates: Templates, tmp_path: Path) -> Iterator[Path]:
    """A version's matcher.bin."""
    world = templates.world(two_terms, tmp_path)
    with world.served() as version:
        yield version.folder / "matcher.bin"


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "magic", "automaton", "missing", "payload", "offsets"])
def test_a_damaged_matcher_is_refused(published: Path, damage: str) -> None:
    """One sentence, with the file's name, at the latest when a term is found; never a crash."""
    data = published.read_bytes()
    rnd = random.Random(7)
    facts = json.loads(data[data.rindex(b'{"format"') : -24])
    begin, end = facts["automaton"]
    whole = {
        "empty": b"", "cut": data[: len(data) // 2], "noise": rnd.randbytes(len(data)), "magic": data[:-1] + b"X",
        "automaton": data[:begin] + rnd.randbytes(end - begin) + data[end:], "missing": None,
        "payload": b"\xff" * facts["offsets"][0] + data[facts["offsets"][0] :],
        "offsets": data[: facts["offsets"][0]] + b"\xff" * 24 + data[begin:],
    }[damage]  # fmt: skip
    if whole is None:
        published.unlink()
    else:
        published.write_bytes(whole)
    with pytest.raises(StoreError, match=r"matcher\.bin"):
        Matcher(published).find("covid corona")


def test_a_matcher_of_another_batchinfer(published: Path) -> None:
    """It is told from a damaged one: publishing again mends it."""
    published.write_bytes(published.read_bytes().replace(b'"folding": 2', b'"folding": 9'))
    with pytest.raises(IncompatibleMatcher, match="publish again"):
        Matcher(published)


def test_publishing_again_makes_a_matcher_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose matcher was made otherwise is not the same as what would be published now."""
    world = job(tmp_path, [("it", "x", ["covid"])])
    assert world.publish().version is None
    monkeypatch.setattr(folding, "VERSION", folding.VERSION + 1)
    assert world.publish().version == 2
    assert found(world, "covid") == [("it", "covid")]


@pytest.mark.long
def test_many_marks_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalising takes the square of the marks on one character: a text of a million must not hold a server up."""
    world = job(tmp_path, [("it", "x", ["covid"])])
    text = "a" + "\u0316\u0301" * 500_000 + " covid"
    lengths: list[int] = []
    real = unicodedata.normalize

    def normalize(form: Any, text: str) -> str:
        lengths.append(len(text))
        return real(form, text)

    monkeypatch.setattr("unicodedata.normalize", normalize)
    assert found(world, text) == [("it", "covid")]
    assert 0 < max(lengths) <= folding.MOST_MARKS + 2


def test_what_is_kept_of_names_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are read again once too many are kept, in whatever languages they were asked for."""
    monkeypatch.setattr(names, "MOST_KEPT", 350)
    world = job(tmp_path, [(f"it{number}", "en", ["covid"]) for number in range(3)])
    with world.served() as version:
        for tag in ("en", "en-GB", "de", "fr", "EN"):
            assert len(flat(version.matcher.find("covid", languages=[tag]))) == (3 if tag.lower() == "en" else 0)
            assert len(version.matcher._named.kept) <= 3


@pytest.mark.parametrize("overlaps", [False, True])
def test_short_texts_are_searched_sooner_and_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    """Without windows the same is found: nested, Turkish, marked and mixed texts, in any language, and where too much stands."""
    nested = ["ha" * count for count in range(1, 120)]
    terms = [("a", "en", ["jab", "the jab", "jab jab", "ab", "é"]), ("b", "tr", ["ISI", "ısı", "isi", "jab"]), ("c", "und", nested),
             ("d", "ja", ["ワクチン", "クチン", "ﾜｸﾁﾝ接種"]), ("e", "ko", ["백신", "신"])]  # fmt: skip
    world = job(tmp_path, terms, overlaps=overlaps, most_concepts=20, min_length=1)
    chance = random.Random(7)
    pieces = [
        "jab",
        "the ",
        " ",
        "isi",
        "ISI",
        "ısı",
        "İ",
        "ha" * 3,
        "ワクチン",
        "ﾜｸﾁﾝ接種",
        "백신은",
        "e\u0301",
        "™",
        "😷",
        "ab",
        "-",
    ]
    texts = ["".join(chance.choices(pieces, k=chance.randrange(12))) for _ in range(400)] + [
        "ha" * 300,
        "ha" * 40 + " jab",
    ]
    with world.served() as version:
        for languages in ((), ("tr",), ("en", "ja")):
            sooner = [version.matcher.find(text, languages=languages, utf16=True) for text in texts]
            with monkeypatch.context() as patched:
                patched.setattr(matcher, "SHORT", -1)
                assert [version.matcher.find(text, languages=languages, utf16=True) for text in texts] == sooner
            assert any(sooner)


def test_a_matcher_goes_with_its_last_user(published: Path) -> None:
    """Nothing refers back to it, so that a version that was swapped out is let go at once, without the collector."""
    matcher = Matcher(published)
    matcher.find("covid")
    gone = weakref.ref(matcher)
    gc.disable()
    try:
        del matcher
        assert gone() is None
    finally:
        gc.enable()


def test_a_missing_library_is_named(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without daachorse the sentence says which extra brings it."""
    import sys

    monkeypatch.setitem(sys.modules, "daachorse", None)
    with pytest.raises(MissingExtra, match=r"batchinfer-cache\[match\]"):
        Matcher(published)


def test_symbols_end_words(tmp_path: Path) -> None:
    """What was no letter joins no word: the term is found before a trade mark, and its span is its own."""
    world = job(tmp_path, [("c", "x", ["Comirnaty", "CO2", "5 kg", 'צה"ל'])])
    for text in ("Comirnaty™ works", "Comirnaty℠", "№Comirnaty", "(Comirnaty™)", "Comirnaty®"):
        assert found(world, text) == [("c", "Comirnaty")]
    assert found(world, "CO₂") == [("c", "CO₂")]
    assert found(world, "a 5 ㎏ bag") == [("c", "5 ㎏")]
    assert found(world, "שר צה״ל") == [("c", "צה״ל")]
    assert found(world, "Comirnatytm") == []


@pytest.mark.parametrize(
    ("text", "there"),
    [("istanbul", "İstanbul"), ("İSTANBUL", "İstanbul"), ("ISTANBUL", "İstanbul"), ("i\u0307stanbul", "İstanbul"), ("ISPARTA", "Isparta"),
     ("ısparta", "Isparta"), ("Isparta", "Isparta"), ("isparta", "Isparta"), ("DİYARBAKIR", "Diyarbakır"), ("diyarbakır", "Diyarbakır"),
     ("SIK", "sık"), ("sık", "sık"), ("sik", None), ("SİK", None), ("diyarbakir", None)],
)  # fmt: skip
def test_turkish_terms_are_found_by_their_own_case_folding(
    tmp_path: Path, templates: Templates, text: str, there: str | None
) -> None:
    """The dotless i has a capital of its own there; a word that only looks alike in capitals is another."""
    world = templates.world(turkish, tmp_path)
    with world.served() as version:
        terms = [match["term"] for match in flat(version.matcher.find(f"x {text}, y"))]
    assert terms == ([] if there is None else [there])


def turkish(folder: Path) -> World:
    """Terms with each i, in Turkish alone."""
    return job(folder, [("t", "tr", ["İstanbul", "Isparta", "Diyarbakır", "sık"])])


def test_other_languages_keep_their_i(tmp_path: Path) -> None:
    """The same letters in another language are found as before."""
    world = job(tmp_path, [("s", "en", ["sik", "Isparta"]), ("t", "az", ["sık"])])
    assert found(world, "sik, ısparta, SIK") == [("s", "sik"), ("s", "SIK"), ("t", "SIK")]


def test_a_matcher_of_an_older_folding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds what it found, with texts folded as its terms were, until the next publish makes it again."""
    with monkeypatch.context() as patch:
        patch.setattr(folding, "VERSION", 1)
        patch.setattr(folding.Folding.__init__, "__kwdefaults__", {"accents": True, "version": 1})
        world = job(tmp_path, [("c", "x", ["Comirnaty™", "Comirnaty"])])
    assert found(world, "Comirnatytm, Comirnaty®") == [("c", "Comirnatytm"), ("c", "Comirnaty")]
    assert world.publish().version == 2
    assert found(world, "Comirnaty™") == [("c", "Comirnaty™")]
