"""batchinfer match: the same matches for people and for machines, of one text or of each line of standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.factories import Templates
from tests.serving import job, names_job, say
from tests.tiny import Cli

NAMED = {
    ("Sputnik V", "de"): ["Sputnik-Impfstoff"],
    ("Sputnik V", "en"): ["the jab"],
    ("Comirnaty", "en"): ["the jab"],
}


def two_jobs(folder: Path) -> None:
    """A data folder, `home`, that has the jobs `vaccines`, whose terms are matched, and `plain`."""
    names_job(folder / "home", "vaccines", NAMED)
    say(job(folder / "home", "plain", {"id": ["a"]}), "x", id=["a"])


@pytest.fixture
def batchinfer(
    templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """The command, with the data folder of `two_jobs`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    templates.copy(two_jobs, tmp_path)
    return Cli(monkeypatch, capsys, tmp_path / "home")


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Standard input."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def test_for_machines_it_is_the_contracts_object(batchinfer: Cli) -> None:
    """One object with matches and version."""
    done = batchinfer("match", "vaccines", "Der SPUTNIK-Impfstoff!", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json == {
        "matches": [
            {
                "concept": "Sputnik V", "language": "de", "languages": ["de"], "term": "Sputnik-Impfstoff", "start": 4, "end": 21,
                "text": "SPUTNIK-Impfstoff", "score": None, "source": "import",
            }
        ],
        "version": 1,
    }  # fmt: skip


def test_for_people_each_match_is_a_row(batchinfer: Cli) -> None:
    """A term of two concepts has two rows."""
    done = batchinfer("match", "vaccines", "I had the jab.")
    assert done.code == 0
    head, *rows = [line.split() for line in done.out.splitlines() if line.strip(" ─")]
    assert head == ["span", "text", "concept", "language", "term", "score", "source"]
    assert sorted(rows) == [
        ["6-13", "the", "jab", "Comirnaty", "en", "the", "jab", "import"],
        ["6-13", "the", "jab", "Sputnik", "V", "en", "the", "jab", "import"],
    ]


def test_no_match_is_a_miss(batchinfer: Cli) -> None:
    """It is said, and the exit code is 6; for machines the object comes too, with the error in it."""
    sentence = "Version 1 of vaccines finds nothing in this text."
    done = batchinfer("match", "vaccines", "Guten Tag")
    assert (done.code, done.out, done.sentence) == (6, "", sentence)
    for text in ("Guten Tag", "", "\udcff"):
        done = batchinfer("match", "vaccines", text, "--json")
        assert (done.code, done.sentence) == (6, sentence)
        assert done.json.keys() == {"matches", "version", "error"}
        assert (done.json["matches"], done.json["version"]) == ([], 1)
        assert (done.json["error"]["code"], done.json["error"]["message"]) == ("not_found", sentence)


def test_languages_and_offsets(batchinfer: Cli) -> None:
    """--language can be repeated; --offsets utf16 counts as JavaScript does."""
    text = "\N{SYRINGE} the jab, Sputnik-Impfstoff"

    def spans(*options: str) -> list[tuple[str, int]]:
        matches = batchinfer("match", "vaccines", text, "--json", *options).json["matches"]
        return sorted((found["language"], found["start"]) for found in matches)

    assert spans() == spans("--language", "de", "--language", "en") == [("de", 11), ("en", 2), ("en", 2)]
    assert spans("--language", "de") == [("de", 11)]
    assert spans("--language", "de", "--offsets", "utf16") == [("de", 12)]
    assert spans("--offsets", "code_points") == spans()


def test_each_line_of_standard_input_is_a_text(batchinfer: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets a place, in its order, also an empty one, and whatever ends the lines; one match is enough for exit code 0."""
    data = b"I had the jab\r\n\nnothing\nSputnik-Impfstoff, the jab"
    give(monkeypatch, data)
    done = batchinfer("match", "vaccines", "-", "--json")
    assert (done.code, done.json.keys(), done.json["version"]) == (0, {"version", "results"}, 1)
    assert [len(result["matches"]) for result in done.json["results"]] == [2, 0, 0, 3]
    assert done.json["results"][0]["matches"][0]["end"] == 13
    give(monkeypatch, data)
    first, *others = batchinfer("match", "vaccines", "-", "--language", "de").out.splitlines()
    assert (first, others) == ("-", ["-", "-", "0-17 Sputnik-Impfstoff = Sputnik V"])


@pytest.mark.parametrize("data", [b"", b"\n", b"nothing\nGuten Tag\n"])
def test_lines_that_mention_nothing_are_a_miss(batchinfer: Cli, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Also when there are none."""
    give(monkeypatch, data)
    done = batchinfer("match", "vaccines", "-")
    assert (done.code, done.out) == (6, "-\n" * len(data.splitlines()))
    assert "finds nothing in these texts" in done.sentence
    give(monkeypatch, data)
    done = batchinfer("match", "vaccines", "-", "--json")
    assert (done.code, done.json["error"]["code"]) == (6, "not_found")
    assert (done.json["version"], done.json["results"]) == (1, [{"matches": []}] * len(data.splitlines()))


def test_a_line_that_is_no_text_is_named(batchinfer: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before it are answered."""
    give(monkeypatch, b"the jab\n\xff\n")
    done = batchinfer("match", "vaccines", "-")
    assert (done.code, done.sentence) == (2, "Line 2 of standard input is not valid UTF-8: convert the text first.")
    assert done.out.startswith("0-7 the jab = ")
    give(monkeypatch, b"the jab\n\xff\n")
    done = batchinfer("match", "vaccines", "-", "--json")
    assert (done.code, done.json["error"]["message"]) == (2, done.sentence)
    assert [len(result["matches"]) for result in done.json["results"]] == [2]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["vaccines"], 2, "TEXT is missing: give one, - for the lines of standard input, or --score-curve."),
        (["vaccines", "a", "--offsets", "bytes"], 2, "--offsets: expected code_points or utf16, got 'bytes'"),
        (["vaccines", "a", "--language", "zh_Hans"], 2, "'zh_Hans' is not a BCP 47 tag, such as de or pt-BR."),
        (["plain", "a"], 2, "The job plain has no match section"), (["nosuch", "a"], 6, "There is no job nosuch"),
    ],
)  # fmt: skip
def test_bad_words_are_refused(batchinfer: Cli, words: list[str], code: int, sentence: str) -> None:
    """With one sentence, and nothing on stdout."""
    done = batchinfer("match", *words)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.sentence


def test_nothing_is_published_yet(batchinfer: Cli, tmp_path: Path) -> None:
    """Said as look-ups say it."""
    bare = job(tmp_path / "home", "bare", {"id": ["a"]})
    bare.data.bind(bare.job.path)
    done = batchinfer("match", "bare", "a")
    assert done.code == 6
    assert "no published version" in done.sentence


def test_the_score_curve(batchinfer: Cli, tmp_path: Path) -> None:
    """A row for each value of min_score; machines get the same as an object."""
    (tmp_path / "texts.csv").write_text("text,concept\nthe jab,Comirnaty\nnothing,\n", encoding="utf-8")
    done = batchinfer("match", "vaccines", "--score-curve", "--golden", "texts.csv")
    assert done.code == 0
    title, head, *rows = [line.split() for line in done.out.splitlines() if line.strip(" ─")]
    assert " ".join(title) == "vaccines, version 1, by match.min_score, 2 golden texts with 1 mention"
    assert head == ["min_score", "terms", "concepts", "hits", "missed", "wrong"]
    assert rows[0] == ["none", "(published)", "4", "2", "1", "0", "1"]
    found = batchinfer("match", "vaccines", "--score-curve", "--json").json
    assert (found["job"], found["version"], found["min_score"], found["texts"], found["mentions"]) == (
        "vaccines",
        1,
        None,
        0,
        0,
    )
    assert found["points"][-1] == {"min_score": 0.99, "terms": 4, "concepts": 2, "hits": None, "wrong": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "--score-curve"), "--score-curve looks at no TEXT: give one of the two"),
        (("--score-curve", "--language", "de"), "--language is for a TEXT"),
        (("a", "--golden", "texts.csv"), "--golden belongs to --score-curve: give both."),
    ],
)
def test_what_does_not_go_with_the_score_curve(batchinfer: Cli, arguments: tuple[str, ...], said: str) -> None:
    """It is bad usage, and what to do is said; so is what is no file, or no job that matches."""
    done = batchinfer("match", "vaccines", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.sentence


def test_what_has_no_score_curve(batchinfer: Cli) -> None:
    """A file that is not there, and a job without a match section."""
    done = batchinfer("match", "vaccines", "--score-curve", "--golden", "missing.csv")
    assert (done.code, done.out) == (2, "")
    assert "missing.csv cannot be read: No such file or directory." in done.sentence
    done = batchinfer("match", "plain", "--score-curve")
    assert (done.code, done.out) == (2, "")
    assert "has no match section" in done.sentence
