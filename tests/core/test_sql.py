"""Names, texts and places in JSON reach DuckDB as they are, whatever signs they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchinfer.core.sql import json_path, listed, literal, quoted

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12) | st.text(
    "a\"'\\.$[]*;-", min_size=1, max_size=8
)
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture(scope="module")
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@SHARED
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
@example(text="'; DROP TABLE t; --")
def test_a_literal_is_its_text(db: duckdb.DuckDBPyConnection, text: str) -> None:
    """A text comes back from SQL as it went in."""
    assert db.execute(f"SELECT {literal(text)}").fetchall() == [(text,)]


@SHARED
@given(name=names)
@example(name='say "hi"')
def test_a_quoted_name_is_a_column_of_that_name(db: duckdb.DuckDBPyConnection, name: str) -> None:
    """A column bears the name, and the list's own columns bear it behind a mark."""
    found = db.execute(f"SELECT 1 AS {quoted(name)}, 2 AS {listed(name)}").description
    assert [column[0] for column in found] == [name, f"q_{name}"]


@SHARED
@given(outer=names, inner=names)
@example(outer='a"b', inner="c.d")
@example(outer="a\\b", inner="\\")
def test_a_json_path_leads_to_its_field(db: duckdb.DuckDBPyConnection, outer: str, inner: str) -> None:
    """A field is found by its name within that of another, and in no other place."""
    document = json.dumps({outer: {inner: "here"}, f"{outer}.{inner}": "not here"})
    sql = f"SELECT json_extract_string(?, {literal(json_path(outer, inner))})"
    assert db.execute(sql, [document]).fetchall() == [("here",)]
