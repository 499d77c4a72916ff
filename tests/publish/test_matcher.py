"""A version's matcher wherever versions come from or go to: forgotten entries, candidates, copies, carried entries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pytest

from batchinfer.core.database import scratch_database
from batchinfer.core.home import JobData
from batchinfer.errors import GateFailed, StoreError
from batchinfer.maintenance import erase
from batchinfer.match import windows
from batchinfer.pipeline.publish import publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.publish import matcher
from batchinfer.versions import folders, pointers, replication
from batchinfer.versions.snapshot import Snapshot
from tests.factories import LENIENT, Quiet, World, imports_job

MATCH = {"terms": ["prediction"], "concept": "name"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A published job of three names with a term each."""
    made = imports_job(
        tmp_path, {"name": ["Ann", "Ben", "Cay"]}, input={"path": "queries.parquet", "key": ["name"]},
        match=MATCH, gate=LENIENT,
    )  # fmt: skip
    made.take_in({"name": ["Ann", "Ben", "Cay"], "prediction": ["alpha", "beta", "gamma"]})
    made.publish()
    return made


def found(data: JobData, text: str = "alpha beta gamma delta") -> Sequence[str]:
    """What the served version finds."""
    pointer = pointers.served(data)
    with Snapshot(folders.folder_of(data, pointer.version), digest=pointer.digest) as version:
        version.verify()
        return [name.concept for match in version.matcher.find(text) for name in match.names]


def test_a_forgotten_entry_is_found_no_more(world: World) -> None:
    """Its terms leave the matcher of the version that is built again, and no byte of them stays."""
    erase.erase_entry(world.job, world.data, {"name": "Ben"})
    assert found(world.data) == ["Ann", "Cay"]
    files = [path.read_bytes() for path in world.data.versions.rglob("matcher.bin")]
    assert len(files) == 1
    assert b"beta" not in files[0]


def test_terms_that_no_text_has_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of megabytes is counted as too long; more long ones than an automaton has room for are refused with a sentence."""
    key = {"path": "queries.parquet", "key": ["name"]}
    world = imports_job(tmp_path, {"name": ["Ann", "Ben", "Cay"]}, input=key, match=MATCH, gate=LENIENT)
    assert matcher.LONGEST_TERM < windows.LONGEST
    terms = ["alpha", "b" * matcher.LONGEST_TERM, "c" * (matcher.LONGEST_TERM + 1)]
    world.take_in({"name": ["Ann", "Ben", "Cay"], "prediction": terms})
    held = world.publish().match
    assert held is not None
    assert held.message == "The matcher finds 2 terms; left out: 1 term that is too long."
    assert found(world.data, " ".join(terms[:2])) == ["Ann", "Ben"]
    monkeypatch.setattr(matcher, "MOST_STATES", matcher.LONGEST_TERM + len("alpha"))
    world.take_in({"name": ["Cay"], "prediction": ["alpha" + "b" * 100]})
    with pytest.raises(StoreError, match=r"differ in 100,109 characters, and at most 100,005 can be matched"):
        world.publish()
    assert found(world.data) == ["Ann"]


@pytest.mark.long
def test_no_report_quotes_a_forgotten_term(tmp_path: Path) -> None:
    """A run's report names the terms that are too generic: not those of an entry that was forgotten."""
    world = imports_job(
        tmp_path, {"name": ["Ann", "Ben"]}, input={"path": "queries.parquet", "key": ["name"]},
        match=MATCH | {"most_concepts": 1}, gate=LENIENT,
    )  # fmt: skip
    world.take_in({"name": ["Ann", "Ben"], "prediction": ["zebrasecret", "zebrasecret"]})
    held = world.run().match
    assert held is not None
    assert held.examples == (("zebrasecret", 2),)
    for name in ("Ann", "Ben"):
        erase.erase_entry(world.job, world.data, {"name": name})
    quoting = [path for path in world.data.folder.rglob("*") if path.is_file() and b"zebrasecret" in path.read_bytes()]
    assert quoting == []


def test_a_candidate_has_its_matcher_when_it_is_published(world: World) -> None:
    """A candidate that the gate refused is published with the terms that it holds."""
    strict = world.changed(gate=LENIENT | {"changed": 0.0})
    strict.take_in({"name": ["Ann"], "prediction": ["delta"]})
    with pytest.raises(GateFailed):
        strict.publish()
    assert found(world.data) == ["Ann", "Ben", "Cay"]
    (candidate,) = folders.candidates(world.data)
    report = publish_candidate(strict.job, strict.data, Options(), Quiet(), candidate, "they are right")
    assert report.version == 2
    assert found(world.data) == ["Ben", "Cay", "Ann"]


@pytest.mark.long
def test_a_candidate_is_matched_by_the_section_of_its_day(world: World) -> None:
    """By the job's when it is published; that stays so when an entry is taken out of it, and publishing again is no news."""
    strict = world.changed(gate=LENIENT | {"changed": 0.0})
    strict.take_in({"name": ["Ann"], "prediction": ["delta"]})
    with pytest.raises(GateFailed):
        strict.publish()
    [candidate] = folders.candidates(world.data)
    later = strict.changed(match=MATCH | {"stop_terms": ["gamma"]}, gate=LENIENT)
    publish_candidate(later.job, later.data, Options(), Quiet(), candidate, "they are right")
    assert found(world.data) == ["Ben", "Ann"]
    assert later.publish().version is None
    erase.erase_entry(later.job, later.data, {"name": "Ben"})
    assert found(world.data) == ["Ann"]


def test_tables_are_let_go_of_before_the_automaton_is_built(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two wants a gigabyte for a million terms, and an instance that stays open gives nothing back."""
    opened, scratch, build = list[duckdb.DuckDBPyConnection](), scratch_database, matcher._automaton

    @contextlib.contextmanager
    def noting(folder: Path, **options: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with scratch(folder, **options) as db:
            opened.append(db)
            yield db

    def after_closing(patterns: list[str]) -> bytes:
        with pytest.raises(duckdb.ConnectionException):
            opened[-1].execute("SELECT 1")
        return build(patterns)

    monkeypatch.setattr(matcher, "scratch_database", noting)
    monkeypatch.setattr(matcher, "_automaton", after_closing)
    world.take_in({"name": ["Ann"], "prediction": ["delta"]})
    world.publish()
    assert len(opened) == 1
    assert found(world.data) == ["Ben", "Cay", "Ann"]


def test_a_copy_finds_the_same(world: World, tmp_path: Path) -> None:
    """The matcher goes with the version to another data folder."""
    (tmp_path / "elsewhere").mkdir()
    replication.replicate(world.data, tmp_path / "elsewhere", lambda _: None)
    assert found(JobData(tmp_path / "elsewhere", world.data.name)) == ["Ann", "Ben", "Cay"]


@pytest.mark.long
def test_the_report_says_what_was_made_findable(world: World) -> None:
    """A publishing's report has the matcher's counts; one that publishes nothing has none."""
    assert world.publish().match is None
    world.take_in({"name": ["Ann"], "prediction": ["delta"]})
    held = world.publish().match
    assert held is not None
    assert held.terms == 3
