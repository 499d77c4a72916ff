"""Lookup: the predictions of a job and its matches, over HTTP or straight from the data folder, by one interface."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchinfer.client.arguments import many_queries, many_texts, one_query
from batchinfer.client.backends import close_backend, open_backend
from batchinfer.client.types import Backend, Hit, LookupOutcome, Matches, Query
from batchinfer.errors import UsageError
from batchinfer.versions.query import language_ranges


class Lookup:
    """Looks predictions of one job up, and finds its terms in texts. Threads may share it, and it goes on working in the child of a fork.

    source: the address of a service ("http://host:port" or "https://…"), or a data folder, which is then read in this
    process. For a service: key is an API key; timeout is in seconds, for connecting and for each wait for data;
    retries is how often a request that failed is sent again.

    Raises UsageError for what no service or job could be asked; NotFound for a job that there is not or that has no
    published version, StoreError for one that cannot be read: for a folder now, for a service with the first query.
    """

    def __init__(
        self, source: str | Path, job: str, *, key: str | None = None, timeout: float = 2.0, retries: int = 3
    ) -> None:
        self._backend: Backend | None = open_backend(source, job, key=key, timeout=timeout, retries=retries)
        self.job = job

    def get(self, query: Query | None = None, /, **columns: Any) -> Hit | None:
        """The prediction for these columns, as the service's hit; None if there is none.

        A column whose name is no Python name goes into `query`. Raises UsageError for what the lookup key does not fit.
        """
        return self._opened.get(one_query(query, columns))

    def get_many(self, queries: Iterable[Query]) -> list[LookupOutcome]:
        """The same for many, in their order. In the place of a query that the lookup key does not fit is its UsageError."""
        return self._opened.get_many(many_queries(queries))

    def match(self, text: str, *, languages: Collection[str] = (), utf16: bool = False) -> Matches:
        """The terms of the job that a text mentions: {"matches": [...], "version": N}.

        languages: BCP 47 tags that matches are restricted to; de stands for de-AT too. utf16: spans count UTF-16 units,
        as JavaScript and Java do, and not code points. Raises UsageError for a job without a match section.
        """
        return self.match_many([text], languages=languages, utf16=utf16)[0]

    def match_many(
        self, texts: Iterable[str], *, languages: Collection[str] = (), utf16: bool = False
    ) -> list[Matches]:
        """The same for many texts, in their order."""
        return self._opened.match_many(many_texts(texts), language_ranges(languages), utf16=utf16)

    @property
    def version(self) -> int:
        """The version that is open; over HTTP, the one that answered last."""
        return self._opened.version

    @property
    def _opened(self) -> Backend:
        if self._backend is None:
            raise UsageError("This Lookup is closed.")
        return self._backend

    def close(self) -> None:
        """Lets connections, files and the thread go. A second time does nothing."""
        backend, self._backend = self._backend, None
        if backend is not None:
            close_backend(backend)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
