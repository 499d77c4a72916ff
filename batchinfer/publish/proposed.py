"""SQL for the terms that the entries of a version propose, with what they name. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from batchinfer.core.columns import Column
from batchinfer.job.matched import alias_columns, matched_sql
from batchinfer.job.parts import PREDICTION, Part
from batchinfer.job.spec import MatchSpec
from batchinfer.versions.layout import aliases_column, version_column

LIST = "list"  # the source of terms that are no predictions: they stand in the list


def unwanted_sql(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """A row for each entry that the section's conditions leave out. rows: of a version."""
    wanted = matched_sql(spec, {column.name for column in key}, version_column, is_json=is_json)
    return f"SELECT 1 FROM {rows} WHERE ({wanted}) IS NOT TRUE"


def proposed_sql(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """Each proposed term with what it names: concept as JSON, language, term, score, source. rows: of a version."""
    names = {column.name for column in key}
    language = "NULL"
    if spec.language is not None:
        language = f"json_extract_string({_part(spec.language, names, is_json=is_json)}, '$')"
    matched = matched_sql(spec, names, version_column, is_json=is_json)
    values = [_part(name, names, is_json=is_json) for name in spec.terms]
    facts = f"{language}::VARCHAR AS language, score, source"
    return _terms_sql(spec, values, names, facts, f"{rows} WHERE {matched}", is_json=is_json)


def everywhere_sql(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """The same for the terms that hold in every language, each once. They come from no prediction, and have no score."""
    names = [column.name for column in key]
    aliases = alias_columns(spec, names)
    values = [_part(name, names, is_json=is_json) for name in spec.everywhere if name not in aliases]
    values += [f"{aliases_column(names)}::JSON"] if aliases else []
    facts = f"NULL::VARCHAR AS language, NULL::DOUBLE AS score, '{LIST}' AS source"
    return f"SELECT DISTINCT * FROM ({_terms_sql(spec, values, names, facts, rows, is_json=is_json)})"


def struck_sql(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """The same for the terms of rows that people rejected. rows: of names.parquet."""
    names = [column.name for column in key]
    values = [_part(name, names, is_json=is_json) for name in spec.terms]
    facts = f"NULL::VARCHAR AS language, NULL::DOUBLE AS score, '{LIST}' AS source"
    return _terms_sql(spec, values, names, facts, f"{rows} WHERE source <> '{LIST}'", is_json=is_json)


def listed_sql(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """The terms that hold in every language of rows without an entry. rows: of names.parquet."""
    return everywhere_sql(key, spec, f"{rows} WHERE source = '{LIST}'", is_json=is_json)


def lists_of(key: Sequence[Column], spec: MatchSpec, *, is_json: bool) -> dict[str, list[tuple[str, ...]]]:
    """The lists of terms that these queries take apart: by columns of JSON, the places in them."""
    names = [column.name for column in key]
    aliases = alias_columns(spec, names)
    parts = [Part.parse(name, names) for name in (*spec.terms, *spec.everywhere) if name not in aliases]
    found = {PREDICTION: [part.path for part in parts if part.column is None]} if is_json else {}
    return found | ({aliases_column(names).strip('"'): [()]} if aliases else {})


def _part(name: str, key: Collection[str], *, is_json: bool) -> str:
    return Part.parse(name, key).sql(version_column, is_json=is_json)


def _terms_sql(
    spec: MatchSpec, values: Sequence[str], key: Collection[str], facts: str, rows: str, *, is_json: bool
) -> str:
    """SQL for the terms in some values of rows. values: SQL for texts or lists of texts, as JSON. facts: for language, score, source."""
    each = ", ".join(
        f"CASE json_type({value}) WHEN 'ARRAY' THEN json_extract({value}, '$[*]') ELSE [{value}] END"
        for value in values
    )
    return f"""SELECT concept, language, json_extract_string(item, '$') AS term, score, source FROM (
            SELECT {_part(spec.concept, key, is_json=is_json)}::VARCHAR AS concept, {facts},
                   unnest(list_concat({each}, [])) AS item
            FROM {rows})
        WHERE json_type(item) NOT IN ('NULL', 'OBJECT', 'ARRAY') AND json_type(concept) NOT IN ('NULL', 'OBJECT', 'ARRAY')"""
