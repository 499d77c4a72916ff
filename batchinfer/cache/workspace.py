"""What the steps of one command share: a scratch database, and the owners of the tables in it."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from batchinfer.cache.store import Store
from batchinfer.cache.verdicts import Verdicts
from batchinfer.core.home import JobData
from batchinfer.core.long_texts import LongTexts
from batchinfer.inputs.query_list import QueryList
from batchinfer.job.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Workspace:
    """The list of a job beside its cache, ready to be compared and published.

    db: the scratch database; whoever makes tables in it owns them, and lists them in its docstring.
    spec: the job file.
    store: the job's cache.
    query_list: the list, loaded.
    verdicts: of people, resolved.
    data: the job's part of the data folder.
    fingerprint: of the question that the list is asked, in hexadecimal digits; None for a job without one.
    """

    db: duckdb.DuckDBPyConnection
    spec: JobSpec
    store: Store
    query_list: QueryList
    verdicts: Verdicts
    data: JobData
    fingerprint: str | None = None

    @property
    def texts(self) -> LongTexts:
        """The long texts of the database's tables, which hold tokens of them."""
        return self.query_list.texts
