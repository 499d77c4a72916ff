"""AsyncLookup: what `Lookup` does, for programs that run in an event loop.

What takes microseconds is done in the event loop itself: from a folder, a look-up is two reads of mapped memory, while
handing it to a thread and back takes longer than that. All that waits for a service, or for the processor, is done in
threads of its own, so that the event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchinfer.client.arguments import many_queries, many_texts, one_query
from batchinfer.client.backends import OPEN, close_backend, open_backend
from batchinfer.client.types import POOL_SIZE, Backend, Hit, LookupOutcome, Matches, Query, Result
from batchinfer.errors import UsageError
from batchinfer.versions.query import language_ranges

THREADS = POOL_SIZE  # as many as connections are kept open; further calls wait for one of them


class AsyncLookup:
    """Looks predictions of one job up, and finds its terms in texts, without blocking the event loop. See `Lookup`.

    A folder is opened by the constructor: make one when the program starts. A call that is cancelled raises
    CancelledError at once; a request that it has sent ends by itself, unheeded, and its connection can be used again.
    """

    def __init__(
        self, source: str | Path, job: str, *, key: str | None = None, timeout: float = 2.0, retries: int = 3
    ) -> None:
        self._backend: Backend | None = open_backend(source, job, key=key, timeout=timeout, retries=retries)
        self.job = job
        self.after_fork()
        OPEN.add(self)

    async def get(self, query: Query | None = None, /, **columns: Any) -> Hit | None:
        """The prediction for these columns; None if there is none."""
        backend, values = self._opened, one_query(query, columns)
        return await self._answer(lambda: backend.get(values), at_once=backend.gets_at_once(1))

    async def get_many(self, queries: Iterable[Query]) -> list[LookupOutcome]:
        """The same for many, in their order."""
        backend, rows = self._opened, many_queries(queries)
        return await self._answer(lambda: backend.get_many(rows), at_once=backend.gets_at_once(len(rows)))

    async def match(self, text: str, *, languages: Collection[str] = (), utf16: bool = False) -> Matches:
        """The terms of the job that a text mentions."""
        return (await self.match_many([text], languages=languages, utf16=utf16))[0]

    async def match_many(
        self, texts: Iterable[str], *, languages: Collection[str] = (), utf16: bool = False
    ) -> list[Matches]:
        """The same for many texts, in their order."""
        backend, checked, ranges = self._opened, many_texts(texts), language_ranges(languages)
        return await self._answer(
            lambda: backend.match_many(checked, ranges, utf16=utf16), at_once=backend.matches_at_once(checked)
        )

    async def version(self) -> int:
        """The version that is open; over HTTP, the one that answered last. A method, since the service may be asked."""
        backend = self._opened
        return await self._answer(lambda: backend.version, at_once=backend.gets_at_once(1))

    async def _answer(self, ask: Callable[[], Result], *, at_once: bool) -> Result:
        if at_once:
            return ask()
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    @property
    def _opened(self) -> Backend:
        if self._backend is None:
            raise UsageError("This AsyncLookup is closed.")
        return self._backend

    async def close(self) -> None:
        """Lets all go, once the calls that are under way have ended. A second time does nothing."""
        backend, self._backend = self._backend, None
        if backend is None:
            return
        OPEN.discard(self)
        try:
            await asyncio.to_thread(self._threads.shutdown)
        finally:
            close_backend(backend)

    def after_fork(self) -> None:
        """Starts no thread yet. Those that there were stayed behind in the parent."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"batchinfer-{self.job}-lookup")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
