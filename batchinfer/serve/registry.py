"""Every job under the data folder, as one worker serves it: noticed when it appears, followed from version to version."""

from __future__ import annotations

import json
import logging
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from batchinfer.core.clock import iso
from batchinfer.core.home import JobData, job_names
from batchinfer.errors import MissingExtra, StoreError
from batchinfer.match.matcher import IncompatibleMatcher
from batchinfer.misses.counter import MissCounter
from batchinfer.serve.problems import Problem, Reply, problem_body, reply
from batchinfer.versions.follow import Follower, Served
from batchinfer.versions.query import QueryReader
from batchinfer.versions.snapshot import Snapshot

log = logging.getLogger("batchinfer.serve")
RETRY_AFTER = (("retry-after", "5"),)


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A version that is open, with all of an answer that is the same for each of its entries."""

    snapshot: Snapshot
    reader: QueryReader
    version: int
    headers: tuple[tuple[str, str], ...]  # of a hit; the first is the content type
    miss: Reply
    misses: MissCounter | None  # where to note what was not found

    @classmethod
    def of(cls, snapshot: Snapshot, version: int, misses: MissCounter | None) -> OpenVersion:
        seconds = snapshot.manifest.max_age
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
    """What the service says of a job. Times are ISO 8601 text, ages seconds. failed_loads: this worker's."""

    job: str
    version: int | None
    created_at: str | None
    age_seconds: float | None
    entries: int | None
    key: list[dict[str, str]]
    pinned: bool
    degraded: bool
    problem: str | None
    last_success_at: str | None
    failed_loads: int

    @property
    def last_success(self) -> float | None:
        """In seconds since 1970, as metrics have it."""
        return None if self.last_success_at is None else datetime.fromisoformat(self.last_success_at).timestamp()


class ServedJob:
    """One job in one worker. `open` is swapped as a whole; a request takes it once and uses it to its end."""

    def __init__(self, data: JobData, *, records_misses: bool) -> None:
        self.job = data.name
        self.open: OpenVersion | None = None
        self.served = Served()
        self.loaded = False
        self._follower = Follower(data, matching=True)
        self._last_run = data.folder / "last_run.json"
        self._last_success: str | None = None
        self._failed_takes = 0
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
        try:
            opened = self._open(served)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a version, what is open must go on
            self._failed_takes += 1
            opened = self.open
            served = replace(served, problem=f"What is published of {self.job} cannot be served: {exc!r}.")
        if served.problem is not None and served.problem != self.served.problem:
            still = f"version {opened.version} is served instead" if opened else "nothing can be served"
            log.error("%s: %s %s.", self.job, served.problem, still.capitalize())
        self.served, self.open = served, opened

    def _open(self, served: Served) -> OpenVersion | None:
        if served.snapshot is None:
            return None
        if self.open is not None and self.open.snapshot is served.snapshot:
            return self.open
        assert served.pointer is not None
        opened = OpenVersion.of(served.snapshot, served.pointer.version, self._counter(served.snapshot))
        log.info("%s: version %d is served, %d entries", self.job, opened.version, len(served.snapshot))
        made = served.snapshot.manifest.unicode
        if (served.snapshot.manifest.normalize or served.snapshot.matches) and made != unicodedata.unidata_version:
            log.warning(
                "%s: version %d normalizes by Unicode %s, and this Python by %s: rare spellings may not be found. "
                "Serve and publish with one version of Python.",
                self.job, opened.version, made, unicodedata.unidata_version,
            )  # fmt: skip
        try:
            _ = served.snapshot.matches and served.snapshot.matcher
        except (MissingExtra, IncompatibleMatcher) as exc:
            log.warning("%s: texts cannot be matched. %s", self.job, exc)
        return opened

    @property
    def failed_loads(self) -> int:
        """How often a version could not be opened, in this worker."""
        return self._follower.failed_loads + self._failed_takes

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

    def opened(self) -> OpenVersion:
        """Raises Problem where there is nothing to answer from."""
        if self.open is not None:
            return self.open
        if not self.loaded:
            said = f"The service has just started and has not opened {self.job} yet: ask again in a moment."
            raise Problem("not-published", said, RETRY_AFTER)
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
        return State(
            job=self.job,
            version=self.open.version if self.open else None,
            created_at=iso(manifest.created_at) if manifest else None,
            age_seconds=round(time.time() - manifest.created_at.timestamp(), 1) if manifest else None,
            entries=manifest.rows if manifest else None,
            key=[{"name": column.name, "kind": column.kind} for column in manifest.key] if manifest else [],
            pinned=self.served.pinned,
            degraded=self.served.degraded,
            problem=self.served.problem,
            last_success_at=self._last_success,
            failed_loads=self.failed_loads,
        )


class JobRegistry:
    """The desks of all jobs. `refresh` is called by one thread; the rest may be called by another."""

    def __init__(self, root: Path, welcome: Callable[[ServedJob], None], *, records_misses: bool) -> None:
        """welcome: called for each new job, before anyone can ask for it."""
        self.desks: dict[str, ServedJob] = {}
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
                desk = ServedJob(JobData(self._root, name), records_misses=self._records_misses)
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


def _finished_at(path: Path) -> str | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        moment: str = content["finished_at"]
        datetime.fromisoformat(moment).timestamp()
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return moment
