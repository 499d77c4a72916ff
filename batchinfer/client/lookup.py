"""Lookup: the predictions of a job and its matches, over HTTP or straight from the data folder, by one interface."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchinfer.client.local import _REFRESHING, _Files
from batchinfer.client.types import Backend, Hit, Matches, Query
from batchinfer.core.keys import JOB_NAME
from batchinfer.errors import MissingExtra, UsageError, shortened
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
        if not re.fullmatch(JOB_NAME, job):
            raise UsageError(f"{shortened(repr(job))} is not a job's name: small letters, digits, - and _, at most 64.")
        self._way: Backend | None = (
            _over_http(source, job, key, timeout, retries)
            if isinstance(source, str) and "://" in source
            else _Files(Path(source), job)
        )
        _OPEN.add(self._way)

    def get(self, query: Query | None = None, /, **columns: Any) -> Hit | None:
        """The prediction for these columns, as the service's hit; None if there is none.

        A column whose name is no Python name goes into `query`. Raises UsageError for what the lookup key does not fit.
        """
        if query is None:
            query = columns
        elif not isinstance(query, Mapping):
            raise UsageError(f"A query is a mapping of columns to values, not {shortened(repr(query))}.")
        elif columns:
            query = {**query, **columns}
        return self._opened.get(query)

    def get_many(self, queries: Iterable[Query]) -> list[Hit | None]:
        """The same for many, in their order. Raises UsageError if the lookup key does not fit one of them."""
        return self._opened.get_many(list(queries))

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
        if isinstance(texts, str | bytes | Mapping):
            raise UsageError(f"Texts are a list of strings, not {shortened(repr(texts))}.")
        asked = list(texts)
        for text in asked:
            if not isinstance(text, str):
                raise UsageError(f"A text is a string, not {shortened(repr(text))}.")
        return self._opened.match_many(asked, language_ranges(languages), utf16=utf16)

    @property
    def version(self) -> int:
        """The version that is open; over HTTP, the one that answered last."""
        return self._opened.version

    @property
    def _opened(self) -> Backend:
        if self._way is None:
            raise UsageError("This Lookup is closed.")
        return self._way

    def close(self) -> None:
        """Lets connections, files and the thread go. A second time does nothing."""
        way, self._way = self._way, None
        if way is not None:
            _OPEN.discard(way)
            way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _over_http(url: str, job: str, key: str | None, timeout: float, retries: int) -> Backend:
    try:
        from batchinfer.client.http import Remote
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("batchinfer"):
            raise
        raise MissingExtra("urllib3, which a Lookup over HTTP needs,", "client") from exc
    return Remote(url, job, key=key, timeout=timeout, retries=retries)


_OPEN: weakref.WeakSet[Backend] = weakref.WeakSet()


def _after_fork() -> None:
    _REFRESHING.release()
    for way in list(_OPEN):
        way.after_fork()


os.register_at_fork(before=_REFRESHING.acquire, after_in_parent=_REFRESHING.release, after_in_child=_after_fork)
