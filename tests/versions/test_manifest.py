"""manifest.json: read as typed fields, and made from another one without losing what newer programs say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Check
from batchinfer.errors import GateFailed, StoreError
from batchinfer.versions.folders import folder_of
from batchinfer.versions.keep import Keep
from batchinfer.versions.layout import MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import FileFacts, HeldTerms, Manifest, PublishedSpec
from batchinfer.versions.published_run import PublishedRun
from tests.damage import edit_manifest
from tests.factories import LENIENT, Templates, World, model_job

FIELDS = [
    "format", "job", "version", "created_at", "rows", "carried", "key", "normalize", "prediction", "unicode", "gate",
    "forced", "parent", "run", "spec", "made_by", "cost",
]  # fmt: skip
"""Of the manifest of a job with a model, in their order."""


def refused(folder: Path) -> World:
    """A job with one version of two entries, and a candidate that the gate refused for its coverage."""
    world = model_job(folder, {"id": [1, 2], "text": ["a", "b"]}, gate=LENIENT)
    world.answer(lambda row: f"about {row['text']}")
    world.publish()
    world.take_in({"id": [1], "prediction": ["other"]})
    with pytest.raises(GateFailed):
        world.changed(gate={"changed": 0, "rows": 3}).publish()
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """`refused`."""
    return templates.world(refused, tmp_path)


def places(world: World) -> list[Path]:
    """The version, and the candidate."""
    return [folder_of(world.data, 1), *world.data.rejected.iterdir()]


def test_the_order_of_its_fields_stays(world: World) -> None:
    """What published files begin and end with is a contract: the files come last, the matcher only where one was made."""
    version, candidate = (json.loads((place / MANIFEST).read_bytes()) for place in places(world))
    assert list(version) == [*FIELDS, "match", "files"]
    assert list(candidate) == [*FIELDS, "files"]


def test_it_is_written_as_it_was_read(world: World) -> None:
    """Read and written again, it is the same to the byte."""
    for place in places(world):
        assert Manifest.read(place).to_bytes() == (place / MANIFEST).read_bytes()


def test_its_gate_is_typed(world: World) -> None:
    """Each check has its figures, its sentence and its examples."""
    version, candidate = (Manifest.read(place).gate for place in places(world))
    assert (version.status, version.failed, candidate.status) == ("passed", (), "failed")
    assert [check.name for check in candidate.failed] == ["rows"]
    assert candidate.failed[0] == Check(
        "rows", 2, 3, passed=False, message="2 entries would be served (at least 3 wanted)", examples=()
    )


def test_another_is_derived_from_it(world: World) -> None:
    """What is changed is changed where it stands, what is new comes before the files, and all else stays."""
    manifest = Manifest.read(folder_of(world.data, 1))
    derived = manifest.derive(version=7, parent=1, forgot=1)
    assert (derived.version, derived.parent, derived.erased, derived.rows) == (7, 1, 1, manifest.rows)
    assert list(json.loads(derived.to_bytes())) == [*FIELDS, "match", "forgot", "files"]
    assert (manifest.version, manifest.erased) == (1, 0)


def test_fields_of_newer_programs_survive(world: World) -> None:
    """A field that this program does not know is no fault, and what is derived has it still, in its place."""
    folder = folder_of(world.data, 1)
    checks = [{"name": "rows", "value": 2, "limit": 1, "passed": True, "says": "", "examples": ["a"], "low": 0.5}]
    edit_manifest(folder, audit={"verdict": "pass"}, gate={"status": "passed", "checks": checks, "by": "Ann"})
    derived = json.loads(Manifest.read(folder).without_examples().derive(version=2).to_bytes())
    assert derived["audit"] == {"verdict": "pass"}
    assert derived["gate"]["by"] == "Ann"
    assert [list(check) for check in derived["gate"]["checks"]] == [["name", "value", "limit", "passed", "says", "low"]]


@pytest.mark.parametrize("field", ["gate", "prediction", "spec", "rows"])
def test_a_missing_field_is_damage(world: World, field: str) -> None:
    """What is read of every manifest must be there: it is missed when the file is read, not when it is first used."""
    folder = folder_of(world.data, 1)
    content = json.loads((folder / MANIFEST).read_bytes())
    del content[field]
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StoreError, match=rf"manifest\.json is damaged: it has no field '{field}'\.$"):
        Manifest.read(folder)


@pytest.mark.long
def test_run_files_and_spec_are_typed(world: World) -> None:
    """What serving and publishing need of them is read once, when the manifest is."""
    manifest = Manifest.read(folder_of(world.data, 1))
    assert (manifest.run.run_id, manifest.run.input) == (1, "queries.parquet")
    with world.prepared() as prepared:
        assert prepared.question is not None
        question = (prepared.question.fingerprint, prepared.question.parser_id)
    assert (manifest.run.fingerprint, manifest.run.parser) == question
    assert (manifest.spec.upstream, manifest.spec.keep_versions, manifest.spec.max_age) == (None, Keep(5, 30), 60)
    assert (manifest.spec.records_misses, manifest.spec.sections["match"]) == (True, "null")
    assert manifest.match is None
    facts = manifest.files[PREDICTIONS]
    content = (folder_of(world.data, 1) / PREDICTIONS).read_bytes()
    assert facts == FileFacts(len(content), hashlib.sha256(content).hexdigest())


def test_what_an_old_manifest_does_not_say(world: World) -> None:
    """Facts that came later have the value that they stood for: no run, clients that ask each minute, misses recorded."""
    folder = folder_of(world.data, 1)
    document = json.loads((folder / MANIFEST).read_bytes())
    del document["run"]
    manifest = Manifest.of(document | {"spec": {}, "match": {"terms": 3}})
    assert manifest.run == PublishedRun(0, None)
    assert manifest.spec == PublishedSpec(None, Keep(5), 60, records_misses=True, asks_student=False, sections={})
    assert manifest.match == HeldTerms(3, None)


def test_two_models_that_shared_the_answers_are_typed(world: World) -> None:
    """What is said of them is read and written alike; damaged, it makes the manifest a damaged one, in one sentence."""
    folder = folder_of(world.data, 1)
    document = json.loads((folder / MANIFEST).read_bytes())
    assert "cascade" not in document["run"]
    model = {"model": "org/name", "fingerprint": "00ff", "answers": 3}
    shared = {
        "agree": 0.95, "confidence": 0.9, "sample": 360, "threshold": 0.8, "agreement": 0.99, "coverage": 0.7, "problem": None,
        "small": model, "large": model | {"answers": None},
    }  # fmt: skip
    cascade = Manifest.of(document | {"run": document["run"] | {"cascade": shared}}).run.cascade
    assert cascade is not None
    assert cascade.to_json() == shared
    assert (cascade.small.fingerprint, cascade.large.answers) == (b"\0\xff", None)
    lost, negative = model | {"fingerprint": "no"}, model | {"answers": -1}
    broken: list[Any] = [{}, [], 1, shared | {"small": lost}, shared | {"large": negative}]
    for damaged in broken:
        (folder / MANIFEST).write_text(json.dumps(document | {"run": {"cascade": damaged}}), encoding="utf-8")
        with pytest.raises(StoreError, match="is damaged"):
            Manifest.read(folder)
