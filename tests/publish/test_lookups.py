"""Look-ups in a version: kinds of keys, their normal form, and queries that do not fit."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.core.columns import typed
from batchinfer.core.output import OutputFile
from batchinfer.core.records import Failure
from batchinfer.errors import UsageError
from batchinfer.pipeline.export import export
from batchinfer.planning.prepare import Options
from tests.factories import model_job
from tests.publish.conftest import (
    OPEN,
    REFUSED,
    Make,
    echo,
)

ZONE = timezone(timedelta(hours=2))
KEYS: dict[str, tuple[Any, Any, Any, Any]] = {  # column of one row; the value that hits; one that does not; as the body shows it
    "string": (["é"], "é", "e\u0301", "é"),
    "binary": ([b"a"], "a", "b", "a"),
    "decimal": (pa.array([Decimal("1.50")], pa.decimal128(9, 2)), "1.5", "1.50", "1.5"),
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
        datetime(2026, 1, 31, 12, 30, tzinfo=UTC), "2026-01-31T12:30:00.000001Z",
    ),
    "without a zone": ([datetime(1, 1, 1, 7)], datetime(1, 1, 1, 7), datetime(1, 1, 1), "0001-01-01T07:00:00"),  # noqa: DTZ001
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
    with pytest.raises(UsageError, match="a, b are missing"):
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


@pytest.mark.parametrize("name", ["text", "Source", "score", "lookup", "lookup_hash", 'a"b', "a\\", "it's größe"])
@pytest.mark.long
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


@pytest.mark.long
def test_times_say_their_zone_wherever_they_are_shown(make: Make, tmp_path: Path) -> None:
    """Bodies, exports, stored queries and prompts have RFC 3339 times, with a zone where the list has one."""
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    moments = pa.array([noon, noon + timedelta(hours=1)], pa.timestamp("us", "Asia/Tokyo"))
    plain = pa.array([noon.replace(tzinfo=None)] * 2, pa.timestamp("us"))
    world = make({"at": moments, "day": plain}, input={"path": "queries.parquet", "key": ["at", "day"]},
                 prompt={"template": "{{ at }} {{ day }}"}, gate=OPEN)  # fmt: skip
    prompts: list[str] = []

    def reply(row: dict[str, Any]) -> str | Failure:
        prompts.append(f"{row['at']} {row['day']}")
        return "yes" if len(prompts) == 1 else Failure(None, "engine", "refused", "no")

    world.answer(reply)
    world.publish()
    day = "2026-01-31T12:00:00"
    assert json.loads(world.get(at=noon, day=noon) or b"")["query"] == {"at": f"{day}Z", "day": day}
    assert [row.query for row in world.store.failures()] == [{"at": "2026-01-31T13:00:00Z", "day": day}]
    export(world.job, world.data, Options(), OutputFile.of(tmp_path / "out.csv"))
    assert f"{day}Z,{day}," in (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1]
    with world.prepared() as prepared:
        first = prepared.query_list.first_row()
        assert first is not None
        assert prepared.question is not None
        [(_, text)] = prepared.question.template.messages(prepared.query_list.source.template_values(first))
        assert text == "2026-01-31 12:00:00+00:00 2026-01-31 12:00:00"
        assert prepared.question.parts["columns_with_zones"] == ["at"]
