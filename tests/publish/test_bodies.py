"""What is served, and what a version says of itself."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchinfer
from batchinfer.core import keys
from batchinfer.core.columns import Column
from batchinfer.errors import NotFound, NotPublished
from batchinfer.versions import pointers
from batchinfer.versions.layout import CHECKS, INDEX, LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.snapshot import Snapshot
from tests.factories import model_job
from tests.publish.conftest import (
    MOMENT,
    OPEN,
    Make,
    echo,
    entries,
    folder,
    same_but_for_time,
)

# What is served


def test_a_text_answer_is_served_as_the_contract_says(make: Make) -> None:
    """The body of a hit has exactly the contract's fields, in its order, without white space."""
    world = make({"id": [7], "text": ["tea"]})
    world.answer(lambda row: 'It\'s "hot"\n\tand wet')
    world.publish()
    assert same_but_for_time(
        world.get(id=7),
        '{"job":"shop","query":{"id":7},"prediction":"It\'s \\"hot\\"\\n\\tand wet","scores":null,"score":null,'
        '"source":"model","model":"./model","generated_at":"TIME"}',
    )


def test_a_choice_is_served_with_its_scores(make: Make) -> None:
    """A choice's scores are an object of probabilities that add up to one, in the job's order, and `score` is the best."""
    world = make({"id": [7], "text": ["tea"]}, output={"type": "choice", "choices": ["Ja", "Nein", "Weiß nicht"]})
    world.answer(lambda row: [-1.0, -0.5, -3.0])
    world.publish()
    body = json.loads(world.get(id=7) or b"")
    assert (body["prediction"], body["score"]) == ("Nein", body["scores"]["Nein"])
    assert list(body["scores"]) == ["Ja", "Nein", "Weiß nicht"]
    assert sum(body["scores"].values()) == pytest.approx(1)
    assert "Weiß nicht".encode() in (world.get(id=7) or b"")
    assert entries(world, 1)[7]["mass"] == pytest.approx(1.0)


def test_a_json_answer_is_served_as_a_value(make: Make) -> None:
    """A JSON prediction is a value in the body, not a text that holds one; its raw text is kept beside it."""
    world = make({"id": [7], "text": ["tea"]}, output={"type": "json", "schema": {"type": "object"}})
    world.answer(lambda row: '{ "names" : ["Tee", "чай", null], "n": 1.50 }')
    world.publish()
    body = json.loads(world.get(id=7) or b"")
    assert body["prediction"] == {"names": ["Tee", "чай", None], "n": 1.5}
    assert entries(world, 1)[7]["raw_text"] == '{ "names" : ["Tee", "чай", null], "n": 1.50 }'


@pytest.mark.long
def test_steps_that_make_a_list_make_a_json_answer(make: Make) -> None:
    """Where the steps split a text, its parts are served as a list."""
    world = make({"id": [7], "text": ["tea"]}, output={"steps": [{"split": ","}, "strip", "dedupe"]})
    world.answer(lambda row: "Tee, té , Tee")
    world.publish()
    assert json.loads(world.get(id=7) or b"")["prediction"] == ["Tee", "té"]


def test_an_import_is_served_with_its_source(make: Make) -> None:
    """An import's body says so, names no model, and has the score that it was given."""
    world = make({"id": [7, 8], "text": ["tea", "milk"]})
    world.take_in({"id": [7, 8], "prediction": ["Tee", "Milch"], "score": [0.5, None]})
    world.publish()
    assert same_but_for_time(
        world.get(id=7),
        '{"job":"shop","query":{"id":7},"prediction":"Tee","scores":null,"score":0.5,"source":"import","model":null,"generated_at":"TIME"}',
    )
    assert json.loads(world.get(id=8) or b"")["score"] is None


SCRIPTS = [
    "👩🏽‍🚀🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "שלום مرحبا\u200f",
    "e\u0301 \u00e9 \u1100\u1161",
    "\ufeff\u200c𠮷 \u2028",
    'a"b\\c/d\x00\x1f\x7f',
]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_every_script_is_served_byte_for_byte(make: Make, kind: str) -> None:
    """Emoji, right-to-left and combining characters come back as they went in: as key, in a text and in JSON."""
    output = {"type": "json", "schema": {}} if kind == "json" else {}
    world = make({"id": SCRIPTS, "text": SCRIPTS}, output=output)
    world.answer(lambda row: json.dumps([row["text"]]) if kind == "json" else row["text"])
    world.publish()
    for text in SCRIPTS:
        raw = world.get(id=text)
        assert raw is not None
        body = json.loads(raw)
        assert body["query"]["id"].encode() == text.encode()
        assert body["prediction"] == ([text] if kind == "json" else text)
        if text.isprintable():
            assert raw.count(text.encode()) == 2  # as UTF-8, not as escapes


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(VALUES, min_size=20, max_size=60))
@settings(max_examples=5, deadline=None)
@pytest.mark.long
def test_any_json_value_is_served_as_it_is(values: list[Any]) -> None:
    """Whatever JSON an answer holds, the body is valid JSON and its prediction is the same value."""
    with tempfile.TemporaryDirectory() as place:
        world = model_job(
            Path(place),
            {"id": range(len(values)), "text": [str(number) for number in range(len(values))]},
            output={"type": "json", "schema": {}},
            gate=OPEN,
        )
        world.answer(lambda row: json.dumps(values[row["id"]]))
        world.publish()
        with world.served() as snapshot:
            for number, value in enumerate(values):
                body = snapshot.get({"id": number})
                if value in ("", []) and value is not False:  # an empty answer is a failure
                    assert body is None
                else:
                    assert json.loads(body or b"")["prediction"] == value


# What a version says of itself


def test_a_manifest_tells_what_a_version_is(make: Make) -> None:
    """A manifest names files with sizes and checksums, counts, key, job file, run, gate, Unicode version and parent."""
    world = make({"id": ["É", "b", "c"], "text": ["1", "2", "3"]},
                 input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})  # fmt: skip
    run_id = world.answer(echo)
    world.publish()
    path = folder(world, 1)
    content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    assert content.items() >= {
        "format": 1, "job": "shop", "version": 1, "rows": 3, "carried": 0, "prediction": "string", "parent": None,
        "key": [{"name": "id", "kind": "string"}], "normalize": ["casefold"],
        "unicode": unicodedata.unidata_version, "made_by": f"batchinfer {batchinfer.__version__}",
    }.items()  # fmt: skip
    assert re.fullmatch(MOMENT, content["created_at"])
    assert content["run"]["run_id"] == run_id
    assert content["run"]["model"]["label"] == "./model"
    assert content["spec"]["input"]["key"] == ["id"]
    assert content["gate"]["status"] == "passed"
    assert {check["name"]: check["passed"] for check in content["gate"]["checks"]} == {
        "coverage": True,
        "failures": True,
        "rows": True,
    }
    assert sorted(content["files"]) == [CHECKS, INDEX, LOOKUP, PREDICTIONS]
    assert sorted(file.name for file in path.iterdir()) == [CHECKS, INDEX, LOOKUP, MANIFEST, PREDICTIONS]
    for name, facts in content["files"].items():
        data = (path / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    pointer = pointers.served(world.data)
    assert pointer.digest == hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    with Snapshot(path, digest=pointer.digest) as snapshot:
        snapshot.verify()


def test_the_parquet_file_is_the_copy_of_record(make: Make) -> None:
    """predictions.parquet holds the typed key, the prediction, where it came from, and the hash it is looked up by, in its order."""
    world = make({"id": list(range(50)), "text": [str(number) for number in range(50)]})
    run_id = world.answer(echo)
    world.publish()
    table = pq.read_table(folder(world, 1) / PREDICTIONS)
    assert table.schema.field("id").type == pa.int64()
    hashes = table["lookup"].to_pylist()
    assert hashes == sorted(hashes)
    row = entries(world, 1)[7]
    assert row["lookup"] == keys.lookup_hash([7], [Column("id", "integer")], [])
    assert row["generated_at"].tzinfo is None
    assert {name: row[name] for name in ("id", "prediction", "raw_text", "scores", "source", "model", "run_id", "carried")} == {
        "id": 7, "prediction": "about 7", "raw_text": "about 7", "scores": None, "source": "model", "model": "./model",
        "run_id": run_id, "carried": False,
    }  # fmt: skip


def test_versions_are_listed_newest_first(make: Make) -> None:
    """The listing says of each version its number, size, time, gate, and whether it is current or pinned."""
    world = make({"id": [1], "text": ["a"]})
    world.data.bind(world.job.path)
    with pytest.raises(NotPublished, match=f"no published version in {world.data.root}: "):
        pointers.list_versions(world.data, pytest.fail)
    world.answer(echo)
    world.publish()
    world.take_in({"id": [2], "prediction": ["x"]})
    world.publish()
    newest, oldest = pointers.list_versions(world.data, pytest.fail)
    assert newest.to_json() | {"created_at": None} == {
        "version": 2, "created_at": None, "rows": 2, "served": True, "current": True, "pinned": False, "gate": "passed",
    }  # fmt: skip
    assert (oldest.version, oldest.rows, oldest.served, oldest.current) == (1, 1, False, False)
    assert Manifest.read(folder(world, 2)).parent == 1


def test_a_pin_is_served_in_place_of_the_current_version(served: Make) -> None:
    """PIN overrides CURRENT, and publishing leaves it alone."""
    world = served(1)
    (world.data.folder / pointers.PIN).write_bytes((world.data.folder / pointers.CURRENT).read_bytes())
    world.take_in({"id": [1], "prediction": ["corrected"]})
    assert world.changed(gate=OPEN).publish().version == 2
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert [(row.version, row.current, row.pinned) for row in pointers.list_versions(world.data, pytest.fail)] == [
        (2, True, False), (1, False, True),
    ]  # fmt: skip


def test_an_open_version_outlives_the_next(served: Make) -> None:
    """A version that is open goes on answering while and after another one is published."""
    world = served(1)
    with world.served() as snapshot:
        world.take_in({"id": [1], "prediction": ["corrected"]})
        world.changed(gate=OPEN).publish()
        assert json.loads(snapshot.get({"id": 1}) or b"")["prediction"] == "about a"
        assert json.loads(world.get(id=1) or b"")["prediction"] == "corrected"


def test_nothing_published_is_said_so(make: Make) -> None:
    """Asking for what is served before anything was published says what makes a version."""
    with pytest.raises(NotFound, match=r"has no published version in .*: batchinfer run makes one"):
        pointers.served(make({"id": [1], "text": ["a"]}).data)
