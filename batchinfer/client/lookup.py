"""Lookup: the predictions of a job and its matches, over HTTP or straight from the data folder, by one interface."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from batchinfer.core.home import JobHome
from batchinfer.core.keys import JOB_NAME
from batchinfer.errors import BatchinferError, MissingExtra, NotFound, StoreError, UsageError, shortened
from batchinfer.versions.follow import Follower, Served
from batchinfer.versions.query import language_ranges

log = logging.getLogger("batchinfer.client")
LOOK_SECONDS = 0.5  # between two looks for a new version
Query = Mapping[str, Any]
Hit = dict[str, Any]
Matches = dict[str, Any]


class _Way(Protocol):
    """How predictions are come by."""

    @property
    def version(self) -> int: ...
    def get(self, query: Query) -> Hit | None: ...
    def get_many(self, queries: list[Query]) -> list[Hit | None]: ...
    def match_many(self, texts: list[str], languages: tuple[str, ...], *, utf16: bool) -> list[Matches]: ...
    def close(self) -> None: ...
    def after_fork(self) -> None: ...


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
        self._way: _Way | None = (
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
    def _opened(self) -> _Way:
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


def _over_http(url: str, job: str, key: str | None, timeout: float, retries: int) -> _Way:
    try:
        from batchinfer.client.http import Remote
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("batchinfer"):
            raise
        raise MissingExtra("urllib3, which a Lookup over HTTP needs,", "client") from exc
    return Remote(url, job, key=key, timeout=timeout, retries=retries)


class _Files:
    """Reads the data folder in this process. A thread takes up new versions; no look-up ever waits for it."""

    def __init__(self, root: Path, job: str) -> None:
        self._follower = Follower(JobHome(root, job))
        with _REFRESHING:
            self._follower.refresh()
        if self._follower.served.snapshot is None:
            raise _nothing(self._follower)
        self._start()

    def _start(self) -> None:
        """The thread knows the follower alone, so that a Lookup that nobody closed is let go all the same."""
        stop = threading.Event()
        self._stop = weakref.finalize(self, stop.set)
        self._stop.atexit = False
        threading.Thread(
            target=_keep_up, args=(self._follower, stop), name=f"batchinfer-{self._follower.home.name}", daemon=True
        ).start()

    @property
    def version(self) -> int:
        pointer = self._follower.served.pointer
        assert pointer is not None
        return pointer.version

    def get(self, query: Query) -> Hit | None:
        snapshot = self._follower.served.snapshot
        assert snapshot is not None
        body = snapshot.get(query)
        return None if body is None else _decode(body.decode())

    def get_many(self, queries: list[Query]) -> list[Hit | None]:
        snapshot = self._follower.served.snapshot
        assert snapshot is not None
        reader = snapshot.reader
        bodies = snapshot.find_many([reader.key(values) for values in reader.from_many(queries)])
        return [None if body is None else _decode(body.decode()) for body in bodies]

    def match_many(self, texts: list[str], languages: tuple[str, ...], *, utf16: bool) -> list[Matches]:
        served = self._with_matcher()
        assert served.snapshot is not None
        assert served.pointer is not None
        matcher, version = served.snapshot.matcher, served.pointer.version
        found = [matcher.find(text, languages=languages, utf16=utf16) for text in texts]
        return [
            {"matches": [flat for match in matches for flat in match.flat()], "version": version} for matches in found
        ]

    def _with_matcher(self) -> Served:
        """What is open. The first match loads the matcher; later versions come with theirs. Raises UsageError."""
        if not self._follower.matching:
            with _REFRESHING:  # neither a fork nor a version without its matcher may come in between
                snapshot = self._follower.served.snapshot
                assert snapshot is not None
                _ = snapshot.matcher
                self._follower.matching = True
        return self._follower.served

    def close(self) -> None:
        """The version itself goes with the last reference: other threads may just be asking it."""
        self._stop()

    def after_fork(self) -> None:
        """The thread stayed behind in the parent."""
        self._stop.detach()
        self._start()


_decode = json.JSONDecoder().decode


def _nothing(follower: Follower) -> BatchinferError:
    """Why nothing could be opened."""
    home = follower.home
    if follower.served.problem is not None:
        return StoreError(f"Nothing of the job {home.name} can be served: {follower.served.problem}")
    if not home.root.is_dir():
        return NotFound(f"There is no data folder {home.root}.")
    if not home.folder.is_dir():
        return NotFound(f"There is no job {home.name} in the data folder {home.root}.")
    return NotFound(f"The job {home.name} has no published version in {home.root}: batchinfer run makes one.")


def _keep_up(follower: Follower, stop: threading.Event) -> None:
    told = None
    while True:
        problem = follower.served.problem
        if problem is not None and problem != told:
            log.warning("%s: %s What was open before goes on being used.", follower.home.name, problem)
        told = problem
        if stop.wait(LOOK_SECONDS):
            return
        try:
            with _REFRESHING:
                follower.refresh()
        except Exception:  # whatever it was, it may pass; look-ups go on with what is open
            log.exception("%s: could not be brought up to date", follower.home.name)


# A fork waits until no version is just being opened: the child would be left with half of it, and with its locks.
_REFRESHING = threading.Lock()
_OPEN: weakref.WeakSet[_Way] = weakref.WeakSet()


def _after_fork() -> None:
    _REFRESHING.release()
    for way in list(_OPEN):
        way.after_fork()


os.register_at_fork(before=_REFRESHING.acquire, after_in_parent=_REFRESHING.release, after_in_child=_after_fork)
