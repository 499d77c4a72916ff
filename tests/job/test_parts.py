"""Parts of an entry, as a job file names them."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from batchinfer.core.sql import literal, quoted
from batchinfer.job.parts import Part


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("language", Part("language")),
        ("prediction", Part(None)),
        ("prediction.names", Part(None, ("names",))),
        ("prediction.names.short form", Part(None, ("names", "short form"))),
        ("a.b", Part("a.b")),
    ],
)
def test_a_name_stands_for_a_part(name: str, part: Part) -> None:
    """A key column, the prediction, or a place in it; a column's name may hold a dot."""
    assert Part.parse(name, ["language", "a.b"]) == part


@pytest.mark.parametrize("key", [["prediction"], ["prediction.names"]])
def test_a_key_column_goes_first(key: list[str]) -> None:
    """A column of the key may be called as a part of predictions is."""
    assert Part.parse(key[0], key) == Part(key[0])


@pytest.mark.parametrize(
    "name", ["", "names", "predictions", "prediction.", "prediction..names", ".prediction", "Prediction"]
)
def test_other_names_stand_for_nothing(name: str) -> None:
    """What is neither a key column nor a place in predictions is refused."""
    with pytest.raises(ValueError, match="must be prediction, or a place in it"):
        Part.parse(name, ["language"])


@pytest.mark.parametrize(
    ("name", "is_json", "prediction", "value"),
    [
        ("language", True, "{}", "de"),
        ("prediction", True, '{"a": 1}', {"a": 1}),
        ("prediction", False, "Yes", "Yes"),
        ('prediction.a.b"c', True, '{"a": {"b\\"c": [1, "x"]}}', [1, "x"]),
        ("prediction.a", True, '{"b": 1}', None),
        ("prediction.a", True, "[]", None),
    ],
)
def test_sql_reads_a_part(name: str, is_json: bool, prediction: str, value: Any) -> None:
    """The SQL of a part gives its value as JSON, or NULL where there is none."""
    sql = Part.parse(name, ["language"]).sql(quoted, is_json=is_json)
    with duckdb.connect() as db:
        [(found,)] = db.execute(
            f"SELECT {sql} FROM (SELECT 'de' AS language, {literal(prediction)} AS prediction)"
        ).fetchall()
    assert (found if found is None else json.loads(found)) == value
