"""The curve of match.min_score: what each value would hold and find, as a version that is published with it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.errors import BatchinferError, StoreError, UsageError
from batchinfer.publish.golden_texts import GoldenText, read_golden_texts
from batchinfer.publish.score_curve import CUT_OFFS, ScoreCurve, score_curve
from tests.factories import LENIENT, Templates, World, imports_job, model_job, write

MATCH: dict[str, Any] = {
    "terms": ["term"], "concept": "vaccine", "language": "language", "everywhere": ["vaccine", "aliases"],
    "where": {"prediction": "Yes"}, "min_score": 0.8, "most_concepts": 1, "generic": "drop",
}  # fmt: skip
ROWS = [  # vaccine, language, term, answer, score
    ("Moderna", "de", "Spikevax", "Yes", 0.95), ("Moderna", "de", "Mode", "Yes", 0.3), ("Moderna", "de", "Jab", "Yes", 0.85),
    ("Abdala", "es", "vacuna cubana", "Yes", 0.6), ("Abdala", "es", "virus", "No", 0.99), ("Abdala", "de", "Jab", "Yes", 0.5),
    ("Novavax", "de", "Nuvaxovid", "Yes", None),
]  # fmt: skip
TEXTS = (
    GoldenText("Spikevax oder Nuvaxovid?", "de", frozenset({"Moderna", "Novavax"})),
    GoldenText("la vacuna cubana", "es", frozenset({"Abdala"})),
    GoldenText("CIGB-66, ein Jab", "de", frozenset({"Abdala"})),
    GoldenText("neue Mode", None, frozenset()),
)


def published(folder: Path) -> World:
    """A job of checked terms, some of them given without a score."""
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(("vaccine", "language", "term"))}
    aliases = [["CIGB-66"] if row[0] == "Abdala" else None for row in ROWS]
    key = {"path": "queries.parquet", "key": list(columns)}
    world = imports_job(folder, columns | {"aliases": aliases}, input=key, match=MATCH, gate=LENIENT)
    for scored in (True, False):
        rows = [row for row in ROWS if (row[4] is not None) is scored]
        given: dict[str, Any] = {name: [row[place] for row in rows] for place, name in enumerate(columns)}
        given |= {"prediction": [row[3] for row in rows]} | ({"score": [row[4] for row in rows]} if scored else {})
        world.take_in(given)
    world.publish()
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """A copy of `published`."""
    return templates.world(published, tmp_path)


def curve(world: World, folder: Path, texts: tuple[GoldenText, ...] = TEXTS) -> ScoreCurve:
    with world.served() as version:
        return score_curve(version, texts, folder)


def test_each_point_is_what_would_be_served(world: World, tmp_path: Path) -> None:
    """By `min_score` from none on, with the published one among them: terms, concepts, hits and what is wrong."""
    found = curve(world, tmp_path)
    assert (found.job, found.version, found.min_score, found.texts, found.mentions) == ("shop", 1, 0.8, 4, 4)
    assert [point.min_score for point in found.points] == [None, *CUT_OFFS]
    assert [(point.terms, point.hits, point.wrong) for point in found.points if point.min_score in (None, 0.4, 0.6, 0.8, 0.99)] == [
        (9, 4, 2), (8, 4, 1), (8, 4, 1), (7, 3, 1), (5, 2, 0),
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("least", [None, 0.55, 0.9])
def test_a_version_with_that_min_score_holds_as_much(world: World, tmp_path: Path, least: float | None) -> None:
    """The same terms, concepts and finds, though it is made in another way."""
    section = {name: value for name, value in (MATCH | {"min_score": least}).items() if value is not None}
    served = world.changed(match=section)
    held = served.publish().match
    assert held is not None
    [point] = [point for point in curve(served, tmp_path).points if point.min_score == least]
    assert (point.terms, point.concepts) == (held.terms, held.concepts)
    hits = wrong = 0
    with served.served() as version:
        for text in TEXTS:
            places = version.matcher.find(text.text, languages=[text.language] if text.language else [])
            there = {name.concept for place in places for name in place.names}
            hits, wrong = hits + len(text.concepts & there), wrong + len(there - text.concepts)
    assert (point.hits, point.wrong) == (hits, wrong)


def test_without_texts_nothing_is_judged(world: World, tmp_path: Path) -> None:
    """Terms and concepts alone are known then; a damaged version is told."""
    found = curve(world, tmp_path, ())
    assert found.unscored == 0  # people gave those that have none
    assert (found.mentions, {(point.hits, point.wrong) for point in found.points}) == (0, {(None, None)})
    with world.served() as version:
        path = version.folder / "predictions.parquet"
        path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
        with pytest.raises(StoreError, match=r"predictions\.parquet is damaged"):
            score_curve(version, (), tmp_path)


@pytest.mark.long
def test_terms_without_a_score_are_counted(tmp_path: Path) -> None:
    """Lists that nobody judged have none to choose by: any cut-off leaves them out, and people are told so."""
    world = model_job(
        tmp_path, {"id": [1, 2], "text": ["a", "b"]}, output={"steps": [{"split": ","}]},
        match={"terms": ["prediction"], "concept": "id"}, gate=LENIENT,
    )  # fmt: skip
    world.answer(lambda row: f"jab {row['text']},shot {row['text']}")
    world.publish()
    found = curve(world, tmp_path, ())
    assert (found.unscored, [point.terms for point in found.points[:2]]) == (4, [4, 0])
    result = CliRunner().invoke(cli, ["--home", str(world.data.root), "match", "shop", "--score-curve"])
    assert "4 terms of the model have no score: any min_score leaves them out." in result.output


def test_a_job_without_terms_has_no_curve(tmp_path: Path) -> None:
    """That is said."""
    world = imports_job(tmp_path, {"id": [1]}, gate=LENIENT)
    world.take_in({"id": [1], "prediction": ["x"]})
    world.publish()
    with pytest.raises(UsageError, match="shop has no match section, so there are no terms to choose by their scores"):
        curve(world, tmp_path)


def test_golden_texts_have_a_row_for_each_mention(tmp_path: Path) -> None:
    """As CSV or Parquet, with a column language or without one."""
    path = tmp_path / "texts.csv"
    path.write_text("Language,text,concept\nde,a und b,A\nde,a und b,B\n,nothing,\nfr,a und b,A\n", encoding="utf-8")
    wanted = (
        GoldenText("a und b", "de", frozenset({"A", "B"})), GoldenText("nothing", None, frozenset()),
        GoldenText("a und b", "fr", frozenset({"A"})),
    )  # fmt: skip
    assert read_golden_texts(path, tmp_path) == wanted
    columns = {"text": ["a", "a", "b"], "concept": [7, 8, None]}
    assert read_golden_texts(write(tmp_path / "texts.parquet", columns), tmp_path) == (
        GoldenText("a", None, frozenset({"7", "8"})), GoldenText("b", None, frozenset()),
    )  # fmt: skip


BAD: dict[str, tuple[Any, str]] = {
    "no text": ({"txt": ["a"], "concept": ["A"]}, "has no column text: did you mean txt?"),
    "no concept": ({"text": ["a"]}, "has no column concept: it has text."),
    "an empty text": ({"text": ["a", " "], "concept": ["A", "A"]}, "row 2: the column text is an empty text."),
    "a list": ({"text": ["a"], "concept": [["A"]]}, "row 1: the column concept: expected a string, got"),
    "no language": ({"text": ["a"], "concept": ["A"], "language": ["German!"]}, "row 1: 'German!' is not a BCP 47 tag"),
    "no rows": ({"text": [], "concept": []}, "has no rows"),
}


@pytest.mark.parametrize(("columns", "said"), BAD.values(), ids=list(BAD))
def test_what_are_no_golden_texts(tmp_path: Path, columns: Any, said: str) -> None:
    """A sentence with the file and the row."""
    path = write(tmp_path / "golden.parquet", columns)
    with pytest.raises(BatchinferError) as refused:
        read_golden_texts(path, tmp_path)
    assert "golden.parquet" in str(refused.value)
    assert said in str(refused.value)
