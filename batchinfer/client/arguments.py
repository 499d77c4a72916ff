"""Checks what both kinds of Lookup are called with, but for the lookup key, which is the backend's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from batchinfer.client.types import Query
from batchinfer.errors import UsageError, shortened


def one_query(query: Query | None, columns: Mapping[str, Any]) -> Query:
    """The query of a `get`, which may be given as a mapping, as keyword arguments, or as both. Raises UsageError."""
    if query is None:
        return columns
    if type(query) is not dict and not isinstance(query, Mapping):  # in this order: the first is quick
        raise UsageError(f"A query is a mapping of columns to values, not {shortened(repr(query))}.")
    return {**query, **columns} if columns else query


def many_queries(queries: Iterable[Query]) -> list[Query]:
    """Raises UsageError for one query, whose columns would be taken for queries."""
    if isinstance(queries, str | bytes | Mapping):
        raise UsageError(f"Queries are a list of mappings, not {shortened(repr(queries))}.")
    return list(queries)


def many_texts(texts: Iterable[str]) -> list[str]:
    """Raises UsageError for one text, and for what is none."""
    if isinstance(texts, str | bytes | Mapping):
        raise UsageError(f"Texts are a list of strings, not {shortened(repr(texts))}.")
    found = list(texts)
    for text in found:
        if not isinstance(text, str):
            raise UsageError(f"A text is a string, not {shortened(repr(text))}.")
    return found
