"""Every job under the data folder, as one worker serves it: noticed when it appears, followed from version to version."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchinfer.errors import StoreError
from batchinfer.follow import Follower, Served
from batchinfer.home import JobHome, job_names
from batchinfer.query import QueryReader
from batchinfer.serve.misses import MissCounter
from batchinfer.serve.problems import Answer, Problem, problem_body, reply
from batchinfer.snapshot import Snapshot

log = logging.getLogger("batchinfer.serve")
NOT_LOADED = "The service has just started and has not opened it yet: ask again in a moment."
RETRY_AFTER = (("retry-after", "5"),)


@dataclass(frozen=True, slots=True)
class Open:
    """A version that is open, with all of an answer that is the same for each of its entries."""

    snapshot: Snapshot
    reader: QueryReader
    version: int
    headers: tuple[tuple[str, str], ...]  # of a hit; the first is the content type
    miss: Answer
    misses: MissCounter | None  # where to note what was not found

    @classmethod
    def of(cls, snapshot: Snapshot, version: int, misses: MissCounter | None) -> Open:
        serve = snapshot.manifest.serve
        seconds = int(str(serve.get("max_age", "60s")).removesuffix("s"))
        at = ("batchinfer-version", str(version))
        body = problem_body("miss", f"{snapshot.manifest.job} has no prediction for this query.")
        return cls(
            snapshot=snapshot,
            reader=snapshot.reader,
            version=version,
            headers=(("content-type", "application/json"), ("cache-control", f"max-age={seconds}"), at),
            miss=reply(404, body, "application/problem+json", (("cache-control", "no-cache"), at)),
            misses=misses,
        )


@dataclass(frozen=True, slots=True)
class State:
    """What the service says of a job. Times are seconds since 1970, ages seconds."""

    job: str
    version: int | None
    created_at: str | None
    age_seconds: float | None
    entries: int | None
    key: list[dict[str, str]]
    pinned: bool
    degraded: bool
    problem: str | None
    last_success: float | None
    failed_loads: int


class Desk:
    """One job in one worker. `open` is swapped as a whole; a request takes it once and uses it to its end."""

    def __init__(self, home: JobHome, *, records_misses: bool) -> None:
        self.job = home.name
        self.open: Open | None = None
        self.served = Served()
        self.loaded = False
        self._follower = Follower(home)
        self._last_run = home.folder / "last_run.json"
        self._last_success: float | None = None
        self._records_misses = records_misses
        self._retired: list[MissCounter] = []

    def refresh(self) -> None:
        """Takes a new version, if there is one. Runs beside the event loop."""
        changed = self._follower.refresh()
        self._last_success = _finished_at(self._last_run) or self._last_success
        if changed or not self.loaded:
            self._take(self._follower.served)
        self.loaded = True

    def _take(self, served: Served) -> None:
        opened = self.open
        if served.snapshot is None:
            opened = None
        elif opened is None or opened.snapshot is not served.snapshot:
            assert served.pointer is not None
            opened = Open.of(served.snapshot, served.pointer.version, self._counter(served.snapshot))
            log.info("%s: version %d is served, %d entries", self.job, opened.version, len(served.snapshot))
        if served.problem is not None and served.problem != self.served.problem:
            still = f"version {opened.version} is served instead" if opened else "nothing can be served"
            log.error("%s: %s %s.", self.job, served.problem, still.capitalize())
        self.served, self.open = served, opened

    def _counter(self, snapshot: Snapshot) -> MissCounter | None:
        """The one in use as long as the lookup key stays as it is."""
        before = self.open.misses if self.open else None
        wanted = self._records_misses and snapshot.manifest.serve.get("misses", True)
        if before is not None and wanted and before.names == snapshot.reader.names:
            return before
        if before is not None:
            self._retired.append(before)
        return MissCounter(snapshot.reader.names) if wanted else None

    def spool_misses(self, folder: Path) -> int:
        """Puts what was not found into files below `folder`; returns how many misses went unrecorded since the last call."""
        counters = [*self._retired, *([self.open.misses] if self.open and self.open.misses else [])]
        dropped = 0
        for counter in counters:
            try:
                counter.spool(folder / self.job)
            except StoreError as exc:
                log.error("%s", exc)  # noqa: TRY400 - the sentence says it all
            dropped, counter.dropped = dropped + counter.dropped, 0
        self._retired = [counter for counter in self._retired if len(counter)]
        return dropped

    def opened(self) -> Open:
        """Raises Problem where there is nothing to answer from."""
        if self.open is not None:
            return self.open
        if not self.loaded:
            raise Problem("not-published", f"{self.job}: {NOT_LOADED}", RETRY_AFTER)
        if self.served.published:
            raise Problem("not-published", f"The version of {self.job} that should be served is damaged.", RETRY_AFTER)
        raise Problem("not-published", f"The job {self.job} has no published version yet.", RETRY_AFTER)

    @property
    def waited_for(self) -> bool:
        """Whether the service is not ready for want of it: something is published, and nothing is open."""
        return self.open is None and (self.served.published or not self.loaded)

    def state(self) -> State:
        """As of now."""
        manifest = self.open.snapshot.manifest if self.open else None
        created = None if manifest is None else str(manifest.content["created_at"])
        return State(
            job=self.job,
            version=self.open.version if self.open else None,
            created_at=created,
            age_seconds=None if created is None else round(datetime.now(UTC).timestamp() - _seconds(created), 1),
            entries=manifest.rows if manifest else None,
            key=[{"name": column.name, "kind": column.kind} for column in manifest.key] if manifest else [],
            pinned=self.served.pinned,
            degraded=self.served.degraded,
            problem=self.served.problem,
            last_success=self._last_success,
            failed_loads=self._follower.failed_loads,
        )


class Board:
    """The desks of all jobs. `refresh` is called by one thread; the rest may be called by another."""

    def __init__(self, root: Path, welcome: Callable[[Desk], None], *, records_misses: bool) -> None:
        """welcome: called for each new job, before anyone can ask for it."""
        self.desks: dict[str, Desk] = {}
        self.listed = False  # whether it is known which jobs there are
        self.looked = False  # whether every job of the first list was looked at
        self._root = root
        self._welcome = welcome
        self._records_misses = records_misses
        self._problem: str | None = None

    def refresh(self) -> None:
        """Looks for new jobs and new versions. A data folder that cannot be read takes nothing away."""
        names = self._names()
        for name in names or ():
            if name not in self.desks:
                desk = Desk(JobHome(self._root, name), records_misses=self._records_misses)
                self._welcome(desk)
                self.desks = self.desks | {name: desk}
        self.listed = self.listed or names is not None
        for desk in self.desks.values():
            try:
                desk.refresh()
            except Exception:  # one job must not keep the others from being refreshed
                log.exception("%s: could not be refreshed", desk.job)
        self.looked = True

    def _names(self) -> list[str] | None:
        """The jobs that there are, or None where the data folder cannot be read."""
        names, problem = None, None
        try:
            names = job_names(self._root)
        except OSError as exc:
            problem = exc.strerror
        if problem != self._problem:
            log.error(
                "The data folder %s %s", self._root, f"cannot be read: {problem}." if problem else "is there again."
            )
        self._problem = problem
        return names

    def states(self) -> list[State]:
        """Of all jobs, by name."""
        return [desk.state() for _, desk in sorted(self.desks.items())]

    @property
    def ready(self) -> bool:
        """Whether each job that has a published version has one open."""
        return self.listed and not any(desk.waited_for for desk in self.desks.values())


def _finished_at(path: Path) -> float | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return _seconds(str(content["finished_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
