"""A concept's own names hold wherever the list has the concept, also where no answer about it is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchinfer.errors import GateFailed, UsageError
from batchinfer.maintenance import erase
from batchinfer.pipeline.publish import publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.versions import folders
from batchinfer.versions.layout import NAMES
from tests.factories import LENIENT, Quiet, Templates, World, model_job
from tests.review.lists import CHOICE, scores

MATCH: dict[str, Any] = {
    "terms": ["term"], "concept": "vaccine", "language": "language", "everywhere": ["vaccine", "aliases"],
    "where": {"prediction": "Yes"},
}  # fmt: skip
ROWS = [
    ("Moderna", "de", "Modern"), ("Moderna", "fr", "Vaccin"), ("Abdala", "es", "la cubana"), ("Novavax", "de", "Nova")
]  # fmt: skip
ALIASES = {"Moderna": ["Spikevax"], "Novavax": ["Covovax"]}
TEXT = "Moderna Spikevax Modern, Abdala, Novavax Covovax"
OTHERS = ["Abdala"]


def key_columns(rows: list[tuple[str, str, str]]) -> dict[str, list[Any]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(("vaccine", "language", "term"))}


def published(folder: Path) -> World:
    """A job that checks terms of three concepts; of Novavax nothing is known but that the list has it."""
    columns = key_columns(ROWS) | {"aliases": [ALIASES.get(row[0]) for row in ROWS]}
    world = model_job(
        folder, columns, input={"path": "queries.parquet", "key": list(key_columns(ROWS))}, match=MATCH, gate=LENIENT,
        output=CHOICE, prompt={"template": "{{ vaccine }} {{ language }} {{ term }}"},
    )  # fmt: skip
    world.answer(lambda row: None if row["vaccine"] == "Novavax" else scores(0.9))
    world.publish()
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """A copy of `published`."""
    return templates.world(published, tmp_path)


def found(world: World, text: str = TEXT, languages: tuple[str, ...] = ()) -> list[str]:
    with world.served() as version:
        version.verify()
        return [name.term for place in version.matcher.find(text, languages=languages) for name in place.names]


def reject(world: World, *rows: tuple[str, str, str]) -> None:
    lines = [line for line in world.review() if (line["vaccine"], line["language"], line["term"]) in rows]
    assert len(lines) == len(rows)
    world.judge([line | {"verdict": "reject"} for line in lines])


def test_names_of_a_row_without_an_answer(world: World) -> None:
    """Its own name and its aliases, in every language, though nothing was said of it."""
    assert found(world) == ["Moderna", "Spikevax", "Modern", "Abdala", "Novavax", "Covovax"]
    assert found(world, "Novavax Nova Covovax", ("ja",)) == ["Novavax", "Covovax"]
    assert world.get(vaccine="Novavax", language="de", term="Nova") is None
    assert world.publish().version is None


@pytest.mark.long
def test_a_rejected_name_that_the_list_spells_otherwise_now(world: World) -> None:
    """It stays out: the verdict is on the same key."""
    key = {"path": "queries.parquet", "key": ["vaccine", "language", "term"], "normalize": ["casefold"]}
    other = world.changed(input=key)
    rows = [("Moderna", "de", "Moderna"), ("Moderna", "fr", "Vaccin")]
    other.rows(key_columns(rows) | {"aliases": [["Spikevax"]] * 2})
    other.answer(lambda row: scores(0.9))
    other.publish(yes=True)
    reject(other, rows[0])
    other.publish(yes=True)
    assert found(other, "Moderna Spikevax") == ["Spikevax"]
    other.rows(
        key_columns([("MODERNA", "de", "Moderna"), ("MODERNA", "fr", "Vaccin")]) | {"aliases": [["Spikevax"]] * 2}
    )
    other.answer(lambda row: scores(0.9))
    other.publish(yes=True)
    assert found(other, "Moderna Spikevax") == ["Spikevax"]


@pytest.mark.long
def test_a_candidate_of_no_such_names(world: World) -> None:
    """It does not become a version of a job that wants them."""
    without = world.changed(match=MATCH | {"everywhere": ["aliases"]}, gate=LENIENT | {"coverage": 1.0})
    with pytest.raises(GateFailed):
        without.publish()
    world = without.changed(match=MATCH)
    with pytest.raises(UsageError, match="its set of names of every language is nothing, the job's is vaccine"):
        publish_candidate(world.job, world.data, Options(), Quiet(), "r1", "because")


@pytest.mark.long
def test_names_of_what_people_rejected(world: World) -> None:
    """All wrong names of a concept are gone, and its own stay; nothing is left of the concept but what the list says."""
    reject(world, *ROWS[:2])
    world.publish(yes=True)
    assert found(world) == ["Moderna", "Spikevax", "Abdala", "Novavax", "Covovax"]
    assert world.publish().version is None


@pytest.mark.long
@pytest.mark.parametrize("term", ["Moderna", "spikevax"])
def test_a_name_that_a_person_rejected(world: World, term: str) -> None:
    """An own name or an alias, in whatever spelling; other names of the concept stay."""
    added = [*ROWS, ("Moderna", "de", term)]
    world.rows(key_columns(added) | {"aliases": [ALIASES.get(row[0]) for row in added]})
    world.answer(lambda row: None if row["vaccine"] == "Novavax" else scores(0.9))
    world.publish()
    everything = found(world)
    assert term in everything
    reject(world, added[4])
    world.publish(yes=True)
    assert found(world) == [name for name in everything if name.lower() != term.lower()]
    assert world.publish().version is None


@pytest.mark.long
def test_changed_names_are_a_new_version(world: World) -> None:
    """Aliases of a row without an entry, or the row itself, though no prediction differs."""
    columns = key_columns(ROWS) | {"aliases": [["Spikevax"], ["Spikevax"], None, ["Nuvaxovid"]]}
    world.rows(columns)
    assert world.publish().version == 2
    assert found(world, "Covovax Nuvaxovid") == ["Nuvaxovid"]
    world.rows({name: values[:3] for name, values in columns.items()})
    assert world.publish().version == 3
    with world.served() as version:
        assert not (version.folder / NAMES).exists()
    assert found(world, "Novavax Nuvaxovid Abdala") == OTHERS
    world.rows(columns)
    assert world.publish().version == 4


@pytest.mark.long
def test_a_candidate_and_an_erasure(world: World) -> None:
    """A candidate is published with the names that it has; a forgotten row without an entry leaves none."""
    strict = world.changed(gate=LENIENT | {"coverage": 1.0})
    strict.take_in(key_columns(ROWS[:1]) | {"prediction": ["No"]})
    with pytest.raises(GateFailed):
        strict.publish()
    [candidate] = folders.candidates(world.data)
    publish_candidate(strict.job, strict.data, Options(), Quiet(), candidate, "they are right")
    assert found(world) == ["Moderna", "Spikevax", "Abdala", "Novavax", "Covovax"]
    erase.erase_entry(strict.job, strict.data, dict(zip(("vaccine", "language", "term"), ROWS[3], strict=True)))
    assert found(world) == ["Moderna", "Spikevax", "Abdala"]
    assert not [path for path in world.data.folder.rglob("*") if path.is_file() and b"Covovax" in path.read_bytes()]


def test_without_such_names_there_is_no_file(tmp_path: Path) -> None:
    """Nor where `everywhere` names nothing of the list, or the list is answered in full."""
    plain = published(tmp_path).changed(match=MATCH | {"everywhere": []})
    plain.publish()
    with plain.served() as version:
        assert not (version.folder / NAMES).exists()
