"""From the cache to what is served: gate, bodies, manifest, look-ups, damage, and publishing that breaks off."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import tempfile
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchinfer
from batchinfer.cache import imports
from batchinfer.core import keys
from batchinfer.core.columns import Column, typed
from batchinfer.core.records import Failure
from batchinfer.errors import GateFailed, NotFound, StoreError, UsageError
from batchinfer.pipeline.publish import publish, publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.publish import build, lookup_index
from batchinfer.publish.contents import Candidate
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.snapshot import Snapshot
from tests.factories import Quiet, Reply, World, imports_job, model_job

Make = Callable[..., World]
REFUSED = Failure(None, "engine", "refused", "The engine would not.")
OPEN = {"coverage": 0, "failures": 1, "shrink": 1, "changed": 1, "carried": 1}  # a gate that lets everything through
MOMENT = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows."""

    def job(rows: dict[str, Any], **sections: Any) -> World:
        return model_job(tmp_path, rows, **sections)

    return job


def echo(row: dict[str, Any]) -> Reply:
    return f"about {row['text']}"


def folder(world: World, version: int) -> Path:
    return folders.folder_of(world.data, version)


def current(world: World) -> int:
    return pointers.served(world.data).version


def entries(world: World, version: int) -> dict[Any, dict[str, Any]]:
    """A version's rows in predictions.parquet, by their id."""
    return {row["id"]: row for row in pq.read_table(folder(world, version) / PREDICTIONS).to_pylist()}


def same_but_for_time(body: bytes | None, expected: str) -> bool:
    """Whether a body is exactly this, where TIME stands for any moment."""
    assert body is not None
    return re.fullmatch(re.escape(expected).replace("TIME", MOMENT), body.decode()) is not None


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


# Look-ups

ZONE = timezone(timedelta(hours=2))
KEYS: dict[str, tuple[Any, Any, Any, Any]] = {  # column of one row; the value that hits; one that does not; as the body shows it
    "string": (["é"], "é", "e\u0301", "é"),
    "binary": ([b"a"], "a", "b", "a"),
    "decimal": (pa.array([Decimal("1.50")], pa.decimal128(9, 2)), "1.50", "1.5", "1.50"),
    "integer": ([-7], -7, 7, -7),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1, 2**63, 2**64 - 1),
    "number": ([0.1], 0.1, 0.2, 0.1),
    "large": ([1e300], 1e300, 1e301, 1e300),
    "zero": ([0.0], -0.0, 0.5, 0.0),
    "boolean": ([True], True, False, True),
    "first": ([date(1, 1, 1)], date(1, 1, 1), date(1, 1, 2), "0001-01-01"),
    "last": ([date(9999, 12, 31)], date(9999, 12, 31), date(9999, 12, 30), "9999-12-31"),
    "timestamp": (
        [datetime(2026, 1, 31, 12, 30, 0, 1, tzinfo=UTC)], datetime(2026, 1, 31, 14, 30, 0, 1, tzinfo=ZONE),
        datetime(2026, 1, 31, 12, 30, tzinfo=UTC), "2026-01-31 12:30:00.000001",
    ),
}  # fmt: skip


def test_every_kind_of_key_is_found_by_its_typed_value(make: Make) -> None:
    """Key columns of any kind are looked up by the values as Python has them; one other value makes a miss."""
    columns = {name: column for name, (column, *_) in KEYS.items()}
    world = make(columns | {"text": ["a"]}, input={"path": "queries.parquet", "key": list(KEYS)})
    world.answer(echo)
    world.publish()
    hit = {name: value for name, (_, value, _, _) in KEYS.items()}
    with world.served() as snapshot:
        body = json.loads(snapshot.get(hit) or b"")
        assert body["query"] == {name: shown for name, (*_, shown) in KEYS.items()}
        for name, (_, _, miss, _) in KEYS.items():
            assert snapshot.get(hit | {name: miss}) is None, name
        assert len(snapshot) == 1


def test_every_kind_of_key_is_found_by_its_text(make: Make) -> None:
    """COLUMN=VALUE finds a key of any kind, imported or generated, through the kinds in the manifest."""
    noon = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    values: dict[str, Any] = {"s": "1", "i": 1, "n": 1.5, "b": True, "d": date(2026, 1, 31), "t": noon}
    columns = {name: [value, value] for name, value in values.items()} | {"i": [1, 2]}
    world = make(columns | {"text": ["a", "b"]}, input={"path": "queries.parquet", "key": list(values)})
    world.answer(echo)
    world.take_in({name: column[:1] for name, column in columns.items()} | {"prediction": ["imported"]})
    world.publish()
    texts = {"s": "1", "i": "1", "n": "1.5", "b": "True", "d": "2026-01-31"}
    with world.served() as snapshot:
        kinds = {column.name: column for column in snapshot.manifest.key}
        for text in ("2026-01-31T12:30:00", "2026-01-31 14:30:00+02:00"):
            for number, prediction in (("1", "imported"), ("2", "about b")):
                asked = texts | {"t": text, "i": number}
                body = snapshot.get({name: typed(part, kinds[name]) for name, part in asked.items()})
                assert json.loads(body or b"")["prediction"] == prediction


def test_a_key_of_several_columns_is_all_of_them(make: Make) -> None:
    """Values that run together to the same text in other columns are other keys; the order of asking does not matter."""
    rows = {"a": ["x", "xy"], "b": ["yz", "z"], "n": [1, 1], "text": ["1", "2"]}
    world = make(rows, input={"path": "queries.parquet", "key": ["a", "b", "n"]})
    world.answer(echo)
    world.publish()
    assert json.loads(world.get(n=1, b="yz", a="x") or b"")["prediction"] == "about 1"
    assert json.loads(world.get(a="xy", b="z", n=1) or b"")["prediction"] == "about 2"
    assert world.get(a="x", b="z", n=1) is None


def test_missing_and_unknown_columns_are_refused(make: Make) -> None:
    """A look-up must name the key's columns and no others; the message says which."""
    world = make({"a": ["x"], "b": ["y"], "text": ["1"]}, input={"path": "queries.parquet", "key": ["a", "b"]})
    world.answer(echo)
    world.publish()
    with pytest.raises(UsageError, match=r"^The lookup key of shop is a, b: b is missing and c is not part of it\.$"):
        world.get(a="x", c=1)
    with pytest.raises(UsageError, match="a, b is missing"):
        world.get()


def test_normalised_keys_are_found_however_they_are_written(make: Make) -> None:
    """Under input.normalize a look-up finds its entry in any form; the body shows the list's first spelling."""
    normal = {"path": "queries.parquet", "key": ["id"], "normalize": ["nfkc", "casefold", "trim"]}
    world = make({"id": [" Straße", "STRASSE", "ﬁn"], "text": ["a", "a", "b"]}, input=normal)
    world.answer(echo)
    world.take_in({"id": ["FIN"], "prediction": ["imported"]})
    world.publish()
    assert json.loads(world.get(id="ＳＴＲＡＳＳＥ ") or b"")["query"] == {"id": " Straße"}
    assert json.loads(world.get(id="Fin") or b"")["prediction"] == "imported"
    assert world.get(id="Strase") is None
    with world.served() as snapshot:
        assert len(snapshot) == 2


@pytest.mark.parametrize("name", ["text", "Source", "score", "lookup", 'a"b', "it's größe"])
def test_a_key_column_may_bear_any_name(tmp_path: Path, name: str) -> None:
    """Key columns named like a version's own columns, or with signs that mean something in SQL, are served like others."""
    world = model_job(
        tmp_path, {name: ["x", "y"]}, input={"path": "queries.parquet", "key": [name]},
        prompt={"template": "{{ text }}" if name == "text" else "{{ other }}"},
    )  # fmt: skip
    if name != "text":
        world.rows({name: ["x", "y"], "other": ["1", "2"]})
    world.answer(lambda row: f"about {row[name]}" if row[name] == "x" else REFUSED)
    world.changed(gate=OPEN).publish()
    world.take_in({name: ["beyond"], "prediction": ["imported"]})
    world.changed(gate=OPEN).publish()
    for value, prediction in (("x", "about x"), ("beyond", "imported")):
        body = json.loads(world.get(**{name: value}) or b"")
        assert (body["query"], body["prediction"]) == ({name: value}, prediction)


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
    assert sorted(content["files"]) == [LOOKUP, PREDICTIONS]
    assert sorted(file.name for file in path.iterdir()) == [LOOKUP, MANIFEST, PREDICTIONS]
    for name, facts in content["files"].items():
        data = (path / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    pointer = pointers.served(world.data)
    assert pointer.manifest == hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    with Snapshot(path, digest=pointer.manifest) as snapshot:
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
    assert row["lookup"] == keys.lookup_key([7], [Column("id", "integer")], [])
    assert row["generated_at"].tzinfo is None
    assert {name: row[name] for name in ("id", "prediction", "raw_text", "scores", "source", "model", "run_id", "carried")} == {
        "id": 7, "prediction": "about 7", "raw_text": "about 7", "scores": None, "source": "model", "model": "./model",
        "run_id": run_id, "carried": False,
    }  # fmt: skip


def test_versions_are_listed_newest_first(make: Make) -> None:
    """The listing says of each version its number, size, time, gate, and whether it is current or pinned."""
    world = make({"id": [1], "text": ["a"]})
    assert pointers.listing(world.data, pytest.fail) == []
    world.answer(echo)
    world.publish()
    world.take_in({"id": [2], "prediction": ["x"]})
    world.publish()
    newest, oldest = pointers.listing(world.data, pytest.fail)
    assert newest | {"created_at": None} == {
        "version": 2, "created_at": None, "rows": 2, "current": True, "pinned": False, "gate": "passed",
    }  # fmt: skip
    assert (oldest["version"], oldest["rows"], oldest["current"]) == (1, 1, False)
    assert Manifest.read(folder(world, 2)).parent == 1


def test_a_pin_is_served_in_place_of_the_current_version(make: Make) -> None:
    """PIN overrides CURRENT, and publishing leaves it alone."""
    world = make({"id": [1], "text": ["a"]})
    world.answer(echo)
    world.publish()
    (world.data.folder / pointers.PIN).write_bytes((world.data.folder / pointers.CURRENT).read_bytes())
    world.take_in({"id": [1], "prediction": ["corrected"]})
    assert world.changed(gate=OPEN).publish().version == 2
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert [(row["version"], row["current"], row["pinned"]) for row in pointers.listing(world.data, pytest.fail)] == [
        (2, True, False), (1, False, True),
    ]  # fmt: skip


def test_an_open_version_outlives_the_next(make: Make) -> None:
    """A version that is open goes on answering while and after another one is published."""
    world = make({"id": [1], "text": ["a"]})
    world.answer(echo)
    world.publish()
    with world.served() as snapshot:
        world.take_in({"id": [1], "prediction": ["corrected"]})
        world.changed(gate=OPEN).publish()
        assert json.loads(snapshot.get({"id": 1}) or b"")["prediction"] == "about a"
        assert json.loads(world.get(id=1) or b"")["prediction"] == "corrected"


def test_nothing_published_is_said_so(make: Make) -> None:
    """Asking for what is served before anything was published says what makes a version."""
    with pytest.raises(NotFound, match=r"has no published version in .*: batchinfer run makes one"):
        pointers.served(make({"id": [1], "text": ["a"]}).data)


# The gate


def refused(world: World, check: str) -> Path:
    """Publishes, expects that check and no other to fail, and returns where the candidate lies."""
    before = {path: path.read_bytes() for path in sorted(world.data.folder.glob("CURRENT"))}
    versions = folders.numbers(world.data)
    with pytest.raises(GateFailed, match=f"The gate refused the new version: {check}: ") as raised:
        world.publish()
    assert str(raised.value).partition("andidate lies")[0].count(" wanted)") <= 1
    assert str(raised.value).partition("andidate lies")[0].count("%; at ") == 1  # one check, not several
    assert {path: path.read_bytes() for path in sorted(world.data.folder.glob("CURRENT"))} == before
    assert folders.numbers(world.data) == versions
    assert not list(world.data.versions.glob(".*"))
    (candidate,) = world.data.rejected.iterdir()
    assert str(candidate) in str(raised.value)
    return candidate


def test_too_little_coverage_is_refused(make: Make) -> None:
    """A candidate with predictions for too few keys is not served; it is kept to be looked at."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]})
    run_id = world.answer(lambda row: None if row["id"] == 3 else echo(row))
    candidate = refused(world, "coverage")
    assert candidate.name == f"r{run_id}"
    with pytest.raises(NotFound):
        pointers.served(world.data)
    manifest = Manifest.read(candidate)
    assert (manifest.version, manifest.rows, manifest.gate.status) == (None, 2, "failed")
    (failed,) = manifest.gate.failed
    assert failed.says == "2 of 3 keys have a prediction (66.7%; at least 95.0% wanted)"
    assert sorted(pq.read_table(candidate / PREDICTIONS)["id"].to_pylist()) == [1, 2]


def test_too_many_failures_are_refused(make: Make) -> None:
    """Failed prompts and bad rows count together against the gate, though the keys are covered by imports."""
    world = make({"id": [1, 2, 3, 4], "text": ["a", "b", "c", ""]}, gate={"coverage": 0.5, "failures": 0.4})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    check = Manifest.read(refused(world, "failures")).gate.failed[0]
    assert check.says == "2 of 4 prompts and bad rows failed (50.0%; at most 40.0% allowed)"


def test_a_version_that_shrinks_too_much_is_refused(make: Make) -> None:
    """A list that lost many of the keys that are served is more likely broken than meant."""
    world = make({"id": list(range(10)), "text": list("abcdefghij")})
    world.answer(echo)
    world.publish()
    world.rows({"id": list(range(8)), "text": list("abcdefgh")})
    refused(world, "shrink")
    assert current(world) == 1
    assert world.get(id=9) is not None
    assert world.changed(gate={"shrink": 0.2}).publish().version == 2
    assert world.get(id=9) is None


def test_a_version_that_changes_too_much_is_refused(make: Make) -> None:
    """A candidate whose values differ from too many that are served is not served."""
    world = make({"id": [1, 2, 3, 4], "text": list("abcd")})
    world.answer(echo)
    world.publish()
    world.answer(lambda row: "something else" if row["id"] < 4 else echo(row), refresh=True)
    refused(world, "changed")
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert world.changed(gate={"changed": 0.75}).publish().version == 2


def test_a_run_whose_gate_fails_is_recorded_as_rejected(make: Make) -> None:
    """A run keeps its report where its version was refused, and the exit code is the gate's."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    with pytest.raises(GateFailed) as raised:
        world.run()
    assert raised.value.exit_code == 3
    newest = world.store.runs()[0]
    assert (newest.status, newest.report["version"], newest.report["hits"], newest.report["failures"]) == (
        "rejected",
        None,
        1,
        1,
    )
    assert {check["name"] for check in newest.report["gate"] if not check["passed"]} == {"coverage", "failures"}
    assert newest.report["candidate"] == f"r{newest.run_id}"
    assert (world.data.rejected / f"r{newest.run_id}" / PREDICTIONS).is_file()


def test_content_that_is_served_already_publishes_nothing(make: Make) -> None:
    """A run that changes nothing leaves the version that there is; one more entry makes another."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(echo)
    assert world.run().version == 1
    again = world.run()
    assert (again.version, again.unchanged, again.entries) == (None, True, 2)
    assert folders.numbers(world.data) == [1]
    world.take_in({"id": [3], "prediction": ["c"]})
    assert world.run().version == 2
    assert [run.status for run in world.store.runs()][:3] == ["done"] * 3


def test_a_list_in_another_order_publishes_nothing(make: Make) -> None:
    """The order of the list, and columns that are no part of key or template, are no news."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(echo)
    world.publish()
    world.rows({"id": [2, 1], "text": ["b", "a"], "note": ["x", "y"]})
    assert world.publish().version is None


def test_another_way_to_look_up_is_news(make: Make) -> None:
    """Equal values are published again where the key's columns, its normal form, or the kind of the values changed."""
    world = make({"id": ["tea"], "name": ["tea"], "text": ["a"]})
    world.answer(echo)
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]})
    assert world.publish().version == 2
    assert world.get(id="TEA") is not None
    assert world.publish().unchanged
    world = world.changed(input={"path": "queries.parquet", "key": ["name"], "normalize": ["casefold"]})
    assert world.publish().version == 3
    assert world.get(name="Tea") is not None
    assert world.publish().unchanged


def test_equal_texts_of_another_kind_are_news(tmp_path: Path) -> None:
    """A prediction that was the text 1 and is now the number is published, though both are written alike."""
    world = imports_job(tmp_path, {"id": [1]}, gate=OPEN)
    world.take_in({"id": [1], "prediction": ["1"]})
    world.publish()
    world = world.changed(output={"type": "json", "schema": {}})
    imports.remove_import(world.store, 1)
    world.take_in({"id": [1], "prediction": ["1"]})
    with world.store.open(write=True) as db:
        moment = db.execute("SELECT min(generated_at) FROM read_parquet(?)", [str(folder(world, 1) / PREDICTIONS)])
        db.execute("UPDATE imports SET created_at = ?", [moment.fetchall()[0][0]])
    assert world.publish().version == 2
    assert json.loads(world.get(id=1) or b"")["prediction"] == 1


def test_every_version_is_recorded(make: Make) -> None:
    """The cache's table of versions has those of publish as well as those of run, once each."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(echo)
    world.run()
    world.take_in({"id": [3], "prediction": ["c"]})
    world.publish()
    world.publish()  # nothing new
    with world.store.open() as db:
        assert db.execute("SELECT version, run_id, rows FROM versions ORDER BY version").fetchall() == [
            (1, 2, 2),
            (2, 2, 3),
        ]


# By force


def publish_by_force(world: World, candidate: str | None = None, why: str | None = None) -> dict[str, Any]:
    if candidate is None:
        return publish(world.job, world.data, Options(), Quiet(), why).to_json()
    return publish_candidate(world.job, world.data, Options(), Quiet(), candidate, why).to_json()


@pytest.fixture
def rejected(make: Make) -> World:
    """A job that serves three keys, and whose run 2 was refused since it would change two of them; a third changed since."""
    world = make({"id": [1, 2, 3], "text": list("abc")})
    world.answer(echo)
    world.publish()
    world.answer(lambda row: "new" if row["id"] < 3 else echo(row), refresh=True)
    refused(world, "changed")
    world.answer(lambda row: "newer", refresh=True)
    return world


def test_a_candidate_is_published_as_its_very_bytes(rejected: World) -> None:
    """What was refused is served by force exactly as it lay there, whatever the cache has now; it says who, when and why."""
    candidate = rejected.data.rejected / "r2"
    data = {path.name: path.read_bytes() for path in candidate.iterdir()}
    report = publish_by_force(rejected, "r2", "Ann looked at all of it")
    assert (report["version"], report["entries"], report["candidate"], report["status"]) == (2, 3, "r2", "done")
    place = folder(rejected, 2)
    assert (place / PREDICTIONS).read_bytes() == data[PREDICTIONS]
    assert {path.name: path.read_bytes() for path in candidate.iterdir()} == data
    with rejected.served() as snapshot:
        snapshot.verify()
        served = [json.loads(snapshot.get({"id": number}) or b"")["prediction"] for number in (1, 2, 3)]
    assert served == ["new", "new", "about c"]
    manifest = Manifest.read(place)
    forced = manifest.forced
    assert forced is not None
    assert (forced.why, forced.by) == ("Ann looked at all of it", getpass.getuser())
    assert re.fullmatch(MOMENT, forced.at or "")
    assert (manifest.version, manifest.parent, manifest.candidate) == (2, 1, "r2")
    assert (manifest.gate.status, manifest.run["run_id"]) == ("failed", 2)
    with rejected.store.open() as db:
        assert db.execute("SELECT version, run_id, rows FROM versions WHERE version = 2").fetchall() == [(2, 2, 3)]
    assert publish_by_force(rejected, "r2", "again")["unchanged"]


def test_a_body_by_force_is_as_any_other(rejected: World) -> None:
    """The bodies made from a candidate's Parquet are, byte for byte, those that its cache would have made."""
    rejected.answer(lambda row: "new" if row["id"] < 3 else echo(row), refresh=True)
    with pytest.raises(GateFailed) as raised:
        rejected.publish()
    assert raised.value.report is not None
    name = raised.value.report.to_json()["candidate"]
    publish_by_force(rejected, None, "from the cache")
    from_cache = [rejected.get(id=number) for number in (1, 2, 3)]
    rejected.take_in({"id": [1], "prediction": ["other"]})
    rejected.changed(gate=OPEN).publish()
    publish_by_force(rejected, name, "from the candidate")
    assert [rejected.get(id=number) for number in (1, 2, 3)] == from_cache


def test_the_cache_can_be_published_by_force(rejected: World) -> None:
    """Without a candidate it is what the cache has now; its failed checks and the reason stay with it."""
    report = publish_by_force(rejected, None, "meant so")
    assert (report["version"], [check["name"] for check in report["gate"] if not check["passed"]]) == (2, ["changed"])
    assert json.loads(rejected.get(id=3) or b"")["prediction"] == "newer"
    manifest = Manifest.read(folder(rejected, 2))
    assert (manifest.gate.status, manifest.forced and manifest.forced.why) == ("failed", "meant so")
    assert Manifest.read(folder(rejected, 1)).forced is None
    assert publish_by_force(rejected, None, "again")["unchanged"]


def test_a_candidate_is_never_overwritten(rejected: World) -> None:
    """A second refusal under the same run's number takes the next free name, and says it, to machines too."""
    first = (rejected.data.rejected / "r2" / PREDICTIONS).read_bytes()
    for name in ("r3", "r3-2", "r3-3"):
        with pytest.raises(GateFailed, match=f"/{name}\\. ") as raised:
            rejected.publish()
        assert raised.value.report is not None
        report = raised.value.report.to_json()
        assert (report["status"], report["candidate"], report["version"], report["job"]) == (
            "rejected", name, None, "shop",
        )  # fmt: skip
    assert (rejected.data.rejected / "r2" / PREDICTIONS).read_bytes() == first
    with pytest.raises(NotFound, match=r"has no candidate r4: it has r2, r3, r3-2, r3-3\.$"):
        publish_by_force(rejected, "r4", "why not")


def test_a_first_refusal_is_told_as_such(make: Make) -> None:
    """Where nothing is served yet, the sentence names no version to compare with."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    with pytest.raises(GateFailed) as raised:
        world.publish()
    said = str(raised.value)
    assert "What was served" not in said
    assert "batchinfer diff" not in said
    assert f"The candidate lies in {world.data.rejected / 'r1'}; to publish it all the same: batchinfer publish" in said


def test_a_candidate_is_durable_before_it_has_its_name(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of what the gate refused are synced while they lie in a draft."""
    world = make({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: REFUSED if row["id"] == 1 else echo(row))
    synced: list[set[str]] = []

    def watched(draft: Path) -> None:
        assert folders.candidates(world.data) == []
        synced.append({path.name for path in draft.iterdir()})

    monkeypatch.setattr(folders, "sync_files", watched)
    with pytest.raises(GateFailed):
        world.publish()
    assert (synced, folders.candidates(world.data)) == ([{MANIFEST, PREDICTIONS}], ["r1"])


def test_a_candidate_is_published_like_any_version(rejected: World) -> None:
    """A candidate follows the newest whole version where CURRENT is damaged, says that a pin hides it, and has old versions removed."""
    pointers.pin(rejected.data, 1)
    (rejected.data.folder / pointers.CURRENT).write_bytes(b"")
    report = publish_by_force(rejected, "r2", "read")
    assert (report["version"], report["pinned"], current(rejected)) == (2, 1, 1)
    assert Manifest.read(folder(rejected, 2)).parent == 1
    pointers.unpin(rejected.data)
    assert publish_by_force(rejected.changed(keep_versions=1), None, "now the cache")["pinned"] is None
    assert folders.numbers(rejected.data) == [3]
    again = publish_by_force(rejected.changed(keep_versions=1), "r2", "back to what was read")
    assert (again["version"], folders.numbers(rejected.data)) == (4, [4])


@pytest.mark.parametrize("name", ["r7", "", ".", "..", "../versions/000001", "r2/"])
def test_a_candidate_that_is_not_there(rejected: World, name: str) -> None:
    """Only the names of candidates are taken."""
    with pytest.raises(NotFound, match=r"has no candidate .*: it has r2\.$"):
        publish_by_force(rejected, name, "why not")
    assert current(rejected) == 1


def test_a_candidate_needs_force(rejected: World) -> None:
    """What the gate refused is not published by its name alone."""
    with pytest.raises(UsageError, match=r"The candidate r2 failed its gate \(changed\): --force --why TEXT"):
        publish_by_force(rejected, "r2")
    assert folders.numbers(rejected.data) == [1]


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"input": {"path": "queries.parquet", "key": ["text"]}}, r"its lookup key is id \(integer\), the job's is text \(string\)"),
        ({"input": {"path": "queries.parquet", "key": ["id"], "normalize": ["trim"]}}, "its normalize is nothing, the job's is trim"),
        ({"output": {"type": "json", "schema": {}}}, "its kind of prediction is string, the job's is json"),
    ],
    ids=["key", "normalize", "kind"],
)  # fmt: skip
def test_a_candidate_that_does_not_fit_is_refused(rejected: World, sections: dict[str, Any], sentence: str) -> None:
    """A candidate that would be looked up or read otherwise than the job now says is not published, not even by force."""
    with pytest.raises(UsageError, match=f"The candidate r2 does not fit the job as it is now: {sentence}"):
        publish_by_force(rejected.changed(**sections), "r2", "why not")
    assert folders.numbers(rejected.data) == [1]


def test_a_candidate_of_another_kind_of_key_is_refused(rejected: World) -> None:
    """The kinds of the list's key columns count; where there is no list any more, their names do."""
    rejected.rows({"id": ["1"], "text": ["a"]})
    with pytest.raises(UsageError, match=r"its lookup key is id \(integer\), the job's is id \(string\)"):
        publish_by_force(rejected, "r2", "why not")
    rejected.list_path.unlink()
    assert publish_by_force(rejected, "r2", "the list is gone")["version"] == 2


@pytest.mark.parametrize("spoil", ["byte", "cut", "gone", "manifest"])
def test_a_damaged_candidate_is_refused(rejected: World, spoil: str) -> None:
    """A candidate that is not whole is not published, whoever wants it; no trace is left."""
    path = rejected.data.rejected / "r2" / (MANIFEST if spoil == "manifest" else PREDICTIONS)
    data = bytearray(path.read_bytes())
    data[-20 if spoil == "byte" else len(data) // 2] ^= 1
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:100] if spoil in ("cut", "manifest") else data)
    with pytest.raises(StoreError):
        publish_by_force(rejected, "r2", "why not")
    assert (folders.numbers(rejected.data), current(rejected)) == ([1], 1)
    assert not list(rejected.data.versions.glob(".*"))


# Failures keep what is served


def failing(make: Make, on_failure: str) -> World:
    """A served version of three keys, of which two fail after the question changed."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]}, on_failure=on_failure)
    world.answer(echo)
    world.publish()
    world = world.changed(prompt={"template": "{{ text }}!"}, gate=OPEN)
    replies: dict[int, Reply] = {1: "new", 2: REFUSED, 3: None}
    world.answer(lambda row: replies[row["id"]])
    return world


def test_what_fails_keeps_what_is_served(make: Make) -> None:
    """Under on_failure: keep, rows that failed or are left keep their bodies to the byte, and are marked and counted."""
    world = failing(make, "keep")
    kept = world.get(id=2)
    report = world.publish()
    assert (report.version, report.carried, report.entries) == (2, 2, 3)
    assert (world.get(id=2), json.loads(world.get(id=1) or b"")["prediction"]) == (kept, "new")
    assert {number: row["carried"] for number, row in entries(world, 2).items()} == {1: False, 2: True, 3: True}
    assert Manifest.read(folder(world, 2)).carried == 2
    assert world.publish().version is None  # and carrying on is no news


def test_what_fails_keeps_what_a_pin_serves(make: Make) -> None:
    """While a version is pinned, rows that fail keep its predictions, not those of the one that was rolled back from."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, on_failure="keep", gate=OPEN)
    world.answer(lambda row: "good")
    world.publish()
    world.answer(lambda row: "bad", refresh=True)
    world.publish()
    pointers.roll_back(world.data)
    world = world.changed(prompt={"template": "{{ text }}!"})
    world.answer(lambda row: REFUSED if row["id"] == 2 else "new")
    report = world.publish()
    assert (report.version, report.carried, report.pinned) == (3, 1, 1)
    assert {number: row["prediction"] for number, row in entries(world, 3).items()} == {1: "new", 2: "good"}


def test_what_is_carried_is_carried_on(make: Make) -> None:
    """A kept prediction stays for as long as its row has no other, and goes when it has one."""
    world = failing(make, "keep")
    world.publish()
    world.rows({"id": [1, 2, 3, 4], "text": ["a", "b", "c", "d"]})
    world.answer(lambda row: "late" if row["id"] == 4 else None)
    assert (world.publish().carried, entries(world, 3)[2]["carried"]) == (2, True)
    world.answer(lambda row: "at last", retry_failed=True)
    assert world.publish().carried == 0
    assert json.loads(world.get(id=2) or b"")["prediction"] == "at last"


def test_what_fails_is_dropped_where_the_job_says_so(make: Make) -> None:
    """Under on_failure: drop, rows that failed or are left are not served any more."""
    world = failing(make, "drop")
    report = world.publish()
    assert (report.carried, report.entries) == (0, 1)
    assert (world.get(id=2), world.get(id=3)) == (None, None)


def test_keys_that_left_the_list_are_not_carried(make: Make) -> None:
    """Only keys of the list keep their predictions; others go with their rows."""
    world = failing(make, "keep")
    world.rows({"id": [1, 2], "text": ["a", "b"]})
    assert world.publish().entries == 2
    assert world.get(id=3) is None


def test_rows_that_became_bad_keep_what_is_served(make: Make) -> None:
    """A row that turns out bad this time, or conflicts with another, keeps its prediction like any other failure."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    world.rows({"id": [1, 2, 3, 3, 4], "text": [None, "b", "c", "other", "d"]})
    world.answer(echo)
    report = world.publish()
    assert (report.bad, report.carried, report.entries) == (3, 2, 4)
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert json.loads(world.get(id=3) or b"")["prediction"] == "about c"


def test_nothing_is_carried_into_another_key(make: Make) -> None:
    """When the job's key changes, the next version begins afresh."""
    world = make({"id": [1, 2], "name": ["x", "y"], "text": ["a", "b"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["name"]})
    report = world.publish()
    assert (report.version, report.carried, report.entries) == (2, 0, 2)
    assert world.get(name="x") is not None


def test_nothing_is_carried_into_another_kind_of_prediction(make: Make) -> None:
    """When a job's texts become JSON values, older texts are not served as values."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    world = world.changed(output={"type": "json", "schema": {}})
    world.answer(lambda row: "[1]" if row["id"] == 1 else REFUSED)
    assert (world.publish().carried, world.get(id=2)) == (0, None)


# Imports


def test_imports_win_and_may_lie_beyond_the_list(make: Make) -> None:
    """An import takes the place of the model's answer, and of an older import; keys beyond the list are served too."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    world.take_in({"id": [1, 99], "prediction": ["first", "beyond"]})
    world.take_in({"id": [1], "prediction": ["second"]})
    report = world.publish()
    assert (report.entries, report.carried) == (3, 0)
    assert [json.loads(world.get(id=number) or b"")["prediction"] for number in (1, 2, 99)] == [
        "second",
        "about b",
        "beyond",
    ]
    checks = {check.name: check.value for check in report.gate}
    assert checks == {
        "coverage": 1.0,
        "failures": 0.0,
        "rows": 3,
        "shrink": 0.0,
        "changed": 0.0,
        "carried": 0.0,
    }  # a key beyond the list covers nothing, and what people changed is no change


def test_an_import_for_another_lookup_key_is_left_out(tmp_path: Path) -> None:
    """An import whose query has not the columns of today's lookup key does not stop a publish, and is not served."""
    world = imports_job(tmp_path, {"id": [1], "size": [9]}, gate=OPEN)
    world.take_in({"id": [1], "prediction": ["old"]})
    world = world.changed(input={"path": "queries.parquet", "key": ["id", "size"]})
    world.take_in({"id": [2], "size": [7], "prediction": ["new"]})
    assert world.publish().entries == 1
    assert json.loads(world.get(id=2, size=7) or b"")["prediction"] == "new"


def test_an_import_that_was_taken_back_is_not_carried(make: Make) -> None:
    """After an undo the model's answer is served again, or none: what people took back is never kept."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(lambda row: echo(row) if row["id"] == 1 else REFUSED)
    world.take_in({"id": [1, 2, 3], "prediction": ["x", "y", "z"]})
    world.publish()
    imports.remove_import(world.store, 1)
    world.publish()
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert (world.get(id=2), world.get(id=3)) == (None, None)


def test_a_job_without_a_model_lives_by_imports(tmp_path: Path) -> None:
    """A job with neither prompt nor model is run and published from its imports alone."""
    world = imports_job(
        tmp_path, {"id": ["a", "b"]}, input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]}
    )
    world.take_in({"id": ["A", "B"], "prediction": ["x", "y"]})
    report = world.run()
    assert (report.status, report.hits, report.left, report.version) == ("done", 2, 0, 1)
    assert json.loads(world.get(id="a") or b"")["prediction"] == "x"


# Damage


@pytest.fixture
def published(make: Make) -> World:
    """A job with one version."""
    world = make({"id": list(range(300)), "text": [str(number) for number in range(300)]})
    world.answer(echo)
    world.publish()
    return world


def test_a_truncated_lookup_file_is_not_opened(published: World) -> None:
    """A look-up file that is shorter than its manifest says is refused before it is mapped."""
    path = folder(published, 1) / LOOKUP
    whole = path.read_bytes()
    for length in (0, 100, 8192, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"lookup\.lmdb is not whole: its size differs"):
            published.served()


def test_a_lookup_file_of_other_bytes_is_not_opened(published: World) -> None:
    """A file of the right size that is no LMDB file is refused."""
    path = folder(published, 1) / LOOKUP
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreError, match=r"lookup\.lmdb cannot be opened"):
        published.served()


def test_a_missing_lookup_file_is_said_to_be_missing(published: World) -> None:
    """A version without its look-up file cannot be opened."""
    (folder(published, 1) / LOOKUP).unlink()
    with pytest.raises(StoreError, match=r"lookup\.lmdb cannot be opened: .*No such file"):
        published.served()


@pytest.mark.parametrize("name", [LOOKUP, PREDICTIONS])
def test_a_wrong_checksum_is_found(published: World, name: str) -> None:
    """One changed byte in any file of a version is found by its checksum, and a missing file too."""
    path = folder(published, 1) / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with published.served() as snapshot, pytest.raises(StoreError, match=f"{name} is damaged: its checksum differs"):
        snapshot.verify()
    with published.served() as snapshot:
        path.unlink()
        with pytest.raises(StoreError, match=f"{name} is missing or cannot be read: No such file"):
            snapshot.verify()


def test_a_damaged_manifest_is_refused(published: World) -> None:
    """A manifest that is missing, cut off, or something else, is said to be damaged."""
    path = folder(published, 1) / MANIFEST
    for content in (b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"manifest\.json is (missing|damaged)"):
            published.served()
    path.unlink()
    with pytest.raises(StoreError, match=r"manifest\.json is (missing|damaged)"):
        published.served()


def test_a_changed_manifest_is_refused(published: World) -> None:
    """A whole manifest that is not the one that was published is refused by its checksum."""
    path = folder(published, 1) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"rows": 300', '"rows": 301'), encoding="utf-8")
    with pytest.raises(StoreError, match="is not the manifest that was published: its checksum differs"):
        published.served()
    with (
        Snapshot(folder(published, 1)) as snapshot,
        pytest.raises(StoreError, match="holds 300 entries, the manifest says 301"),
    ):
        snapshot.verify()


def test_a_version_of_an_unknown_format_is_refused(published: World) -> None:
    """A version made by a later program is not guessed at."""
    path = folder(published, 1) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(StoreError, match="has format 2, and this batchinfer knows 1: upgrade it"):
        Snapshot(folder(published, 1))


def test_a_damaged_current_is_refused(published: World) -> None:
    """A damaged CURRENT is said to be so by whoever reads it, and what mends it."""
    path = published.data.folder / pointers.CURRENT
    for content in (b"", b"1", b"{}", b'{"version": "one", "manifest_sha256": ""}', b"\xff"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"CURRENT is damaged: .*\. batchinfer publish shop mends it\.$"):
            published.served()


def test_a_damaged_draft_is_never_published(published: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read again before it is named: a file that came out wrong stops the publishing."""

    def damaged(db: Any, key: Any, target: Path, *arguments: Any) -> int:
        count = build_lookup(db, key, target, *arguments)
        path = target / LOOKUP
        whole = path.read_bytes()
        manifest_then = build.write_manifest

        def damage_after(draft: Path, facts: Any) -> None:
            manifest_then(draft, facts)
            path.write_bytes(whole[:-20] + b"!" + whole[-19:])

        monkeypatch.setattr(build, "write_manifest", damage_after)
        return count

    build_lookup = lookup_index.write_lookup
    monkeypatch.setattr(lookup_index, "write_lookup", damaged)
    published.take_in({"id": [1], "prediction": ["new"]})
    with pytest.raises(StoreError, match="checksum differs"):
        published.publish()
    assert (current(published), folders.numbers(published.data)) == (1, [1])


# Publishing that breaks off

STEPS = [
    (Candidate, "__init__"), (Candidate, "write"), (lookup_index, "write_lookup"), (build, "write_manifest"), (folders, "sync_files"),
    (build, "check"), (folders, "add"), (pointers, "make_current"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "step", "after"),
    [*((module, step, False) for module, step in STEPS), (pointers, "make_current", True)],
    ids=[*(f"before {step}" for _, step in STEPS), "after make_current"],
)
def test_an_error_between_steps_leaves_the_old_version_served(
    make: Make, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, *, after: bool
) -> None:
    """Wherever publishing breaks off, the old version is served until the new one is current, and the next attempt works."""
    world = make({"id": [1], "text": ["a"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    world.take_in({"id": [1], "prediction": ["new"]})
    real = getattr(module, step)

    def breaks(*arguments: Any) -> None:
        if after:
            real(*arguments)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module, step, breaks)
        with pytest.raises((OSError, StoreError)):
            world.publish()
    done = after and step == "make_current"
    assert json.loads(world.get(id=1) or b"")["prediction"] == ("new" if done else "about a")
    assert not list(world.data.versions.glob(".*"))
    report = world.publish()
    assert (report.version is None) == done
    assert json.loads(world.get(id=1) or b"")["prediction"] == "new"


def test_readers_of_current_see_the_old_or_the_new(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """CURRENT is replaced as a whole: at the moment before the flip it names the old version and its manifest."""
    world = make({"id": [1], "text": ["a"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    seen: list[int] = []
    real = pointers.make_current

    def watched(*arguments: Any) -> None:
        seen.append(current(world))
        real(*arguments)
        seen.append(current(world))

    monkeypatch.setattr(pointers, "make_current", watched)
    world.take_in({"id": [1], "prediction": ["new"]})
    world.publish()
    assert seen == [1, 2]
