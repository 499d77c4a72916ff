"""Looks up and matches straight from a data folder."""

from __future__ import annotations

import json
import logging
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

from pydantic_core import from_json

from batchinfer.client.types import Hit, LookupOutcome, Matches, Query
from batchinfer.core.faults import LastingFaults
from batchinfer.core.home import JobData
from batchinfer.core.python_words import in_python, reworded
from batchinfer.errors import BatchinferError, StoreError, UsageError
from batchinfer.versions.follow import LOOK_SECONDS, Follower
from batchinfer.versions.pointers import Pointer, nothing_published
from batchinfer.versions.snapshot import Snapshot

log = logging.getLogger("batchinfer.client")
AT_ONCE = 100  # look-ups, which take about a millisecond
AT_ONCE_CHARACTERS = 20_000  # in texts, which take a few milliseconds


class LocalBackend:
    """Reads the data folder in this process. A thread opens new versions; no look-up ever waits for it."""

    def __init__(self, root: Path, job: str) -> None:
        self._follower = Follower(JobData(root, job))
        with REFRESHING:
            self._follower.refresh()
        if self._follower.followed.snapshot is None:
            raise _why_nothing(self._follower)
        self._start()

    def _start(self) -> None:
        """The thread knows the follower alone, so that a Lookup that nobody closed is released anyway."""
        stop = threading.Event()
        self._stop = weakref.finalize(self, stop.set)
        self._stop.atexit = False
        threading.Thread(
            target=_keep_up, args=(self._follower, stop), name=f"batchinfer-{self._follower.data.name}", daemon=True
        ).start()

    @property
    def version(self) -> int:
        _, pointer = self._opened()
        return pointer.version

    def _opened(self) -> tuple[Snapshot, Pointer]:
        """What is open. Raises StoreError once nothing is: all that there was turned out to be damaged."""
        followed = self._follower.followed
        if followed.snapshot is None or followed.pointer is None:
            raise _why_nothing(self._follower)
        return followed.snapshot, followed.pointer

    def get(self, query: Query) -> Hit | None:
        snapshot = self._follower.followed.snapshot
        if snapshot is None:
            raise _why_nothing(self._follower)
        return _hit(snapshot.answer(query))

    def get_many(self, queries: list[Query]) -> list[LookupOutcome]:
        snapshot, _ = self._opened()
        reader = snapshot.reader
        rows = reader.from_many(queries)
        lookup_hash = reader.lookup_hash
        bodies = snapshot.find_many([lookup_hash(values) for values in rows if not isinstance(values, UsageError)])
        ask = snapshot.on_miss
        if ask is None:
            return [values if isinstance(values, UsageError) else _hit(next(bodies)) for values in rows]
        return [values if isinstance(values, UsageError) else _hit(next(bodies) or ask(values[0])) for values in rows]

    def match_many(self, texts: list[str], languages: tuple[str, ...], *, utf16: bool) -> list[Matches]:
        snapshot, pointer = self._with_matcher()
        matcher, version = snapshot.matcher, pointer.version
        found = [matcher.find(text, languages=languages, utf16=utf16) for text in texts]
        return [
            {"matches": [flat for match in matches for flat in match.flat()], "version": version} for matches in found
        ]

    def gets_at_once(self, count: int) -> bool:
        """They take a few microseconds each; where a student may be asked, ten times as long."""
        snapshot = self._follower.followed.snapshot
        return count <= (AT_ONCE if snapshot is None or snapshot.on_miss is None else AT_ONCE // 10)

    def matches_at_once(self, texts: Sequence[str]) -> bool:
        """Once the matcher is loaded, if they are not long."""
        return self._follower.matching and sum(map(len, texts)) <= AT_ONCE_CHARACTERS

    def _with_matcher(self) -> tuple[Snapshot, Pointer]:
        """What is open. The first match loads the matcher; later versions come with theirs. Raises UsageError."""
        if not self._follower.matching:
            with REFRESHING:  # neither a fork nor a version without its matcher may come in between
                snapshot, _ = self._opened()
                _ = snapshot.matcher
                self._follower.matching = True
        return self._opened()

    def close(self) -> None:
        """The version itself is released with the last reference: other threads may be using it."""
        self._stop()

    def after_fork(self) -> None:
        """The thread stayed behind in the parent."""
        self._stop.detach()
        self._start()


def _hit(body: bytes | None) -> Hit | None:
    """A body as a dictionary. Python's own parser takes three times as long, and takes some texts that the other does not."""
    if body is None:
        return None
    try:
        hit: Hit = from_json(body, cache_strings="keys")
    except ValueError:  # half a surrogate pair, or lists very deep within lists
        hit = json.loads(body)
    return hit


@in_python
def _why_nothing(follower: Follower) -> BatchinferError:
    """Why nothing could be opened. Raises NotFound where there is no such job."""
    data, problem = follower.data, follower.followed.problem
    why = nothing_published(data) if problem is None else None
    error = why or StoreError(f"Nothing of the job {data.name} can be served: {problem}")
    error.reword(reworded)
    return error


def _keep_up(follower: Follower, stop: threading.Event) -> None:
    reported, faults = None, LastingFaults(log, f"The job {follower.data.name} could not be brought up to date")
    while True:
        problem = follower.followed.problem
        if problem is not None and problem != reported:
            log.warning("%s: %s The version that was open stays in use.", follower.data.name, problem)
        reported = problem
        if stop.wait(LOOK_SECONDS):
            return
        try:
            with REFRESHING:
                follower.refresh()
            faults.over()
        except Exception as exc:  # noqa: BLE001 - it may pass; look-ups go on with what is open
            faults.note(exc)


# A fork waits until no version is just being opened: the child would be left with half of it, and with its locks.
REFRESHING = threading.Lock()
