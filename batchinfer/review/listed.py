"""The keys of the list that an import is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from batchinfer.core.columns import Column
from batchinfer.core.home import JobData
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.records import Info
from batchinfer.errors import InputError, NotFound
from batchinfer.inputs.files import list_files, open_list
from batchinfer.inputs.query_list import QueryList
from batchinfer.inputs.shortest import Form
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import load_list


@dataclass(frozen=True, slots=True)
class ListedKeys:
    """What is known of the list.

    key: its columns; None where there is no list yet.
    forms: of key columns whose numbers have a shortest form.
    lookups_sql: the keys of all its rows; None where it cannot be read.
    """

    key: list[Column] | None = None
    forms: Mapping[str, Form] = field(default_factory=dict)
    lookups_sql: str | None = None


def keys_of_list(
    db: duckdb.DuckDBPyConnection,
    texts: LongTexts,
    job: Job,
    data: JobData,
    instead: Path | None,
    scratch: Path,
    info: Info,
) -> ListedKeys:
    """The list, read into the database for its keys. Without one nothing is known: a job may begin with imports."""
    key, forms = None, dict[str, Form]()
    try:
        paths, _ = list_files(job, data, instead, scratch)
        source = open_list(job, paths, [])
        key, forms = source.key, source.forms
        query_list = QueryList(db, source, job.spec.input.key, texts)
        load_list(query_list, job, data, None)
    except (InputError, NotFound) as exc:
        if instead is not None:
            raise
        info(f"The list cannot be read, so keys are not compared with it: {exc}")
        return ListedKeys(key, forms)
    return ListedKeys(key, forms, query_list.lookups_sql)
