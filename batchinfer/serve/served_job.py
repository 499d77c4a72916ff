"""One job as a worker serves it: followed from version to version, and always in one of four states."""

from __future__ import annotations

import json
import logging
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from batchinfer.alerts.attempts import moment
from batchinfer.alerts.health import is_stale
from batchinfer.alerts.standing import published_facts
from batchinfer.core.clock import iso
from batchinfer.core.files import UNREAD, read_small, why_damaged
from batchinfer.core.home import JobData
from batchinfer.errors import MissingExtra, StoreError, counted
from batchinfer.match.version import IncompatibleMatcher
from batchinfer.misses.counter import MissCounter
from batchinfer.serve.problems import MEDIA_TYPE, Problem, Reply, problem_body, reply
from batchinfer.versions.follow import Follower
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.openings import Openings
from batchinfer.versions.pointers import Pointer
from batchinfer.versions.precision import ServedFigures, read_figures
from batchinfer.versions.query import QueryReader
from batchinfer.versions.snapshot import Snapshot
from batchinfer.versions.student import MissAnswers, StudentRecord

log = logging.getLogger("batchinfer.serve")
RETRY_AFTER = (("retry-after", "5"),)


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A version that is open, with all of an answer that is the same for each of its entries.

    snapshot: its files.
    reader: of queries; it makes lookup keys.
    version: its number.
    headers: of a hit; the first is the content type.
    miss_reply: the answer to a query that it does not have, and that its student, if it has one, does not answer.
    student: what is asked such a query first; None where the job does not want that.
    miss_counter: where to count what was not found; None where misses are not recorded.
    """

    snapshot: Snapshot
    reader: QueryReader
    version: int
    headers: tuple[tuple[str, str], ...]
    miss_reply: Reply
    student: MissAnswers | None
    miss_counter: MissCounter | None

    @classmethod
    def of(cls, snapshot: Snapshot, version: int, miss_counter: MissCounter | None) -> OpenVersion:
        seconds = snapshot.manifest.spec.max_age
        at = ("batchinfer-version", str(version))
        job, student = snapshot.manifest.job, snapshot.on_miss
        body = problem_body("miss", f"{job} has no prediction for this query.")
        if student is not None:
            said = f"{job} has no prediction for this query, and its student abstains."
            body = problem_body("miss", said, abstained=True)
        return cls(
            snapshot=snapshot,
            reader=snapshot.reader,
            version=version,
            headers=(("content-type", "application/json"), ("cache-control", f"max-age={seconds}"), at),
            miss_reply=reply(404, body, MEDIA_TYPE, (("cache-control", "no-cache"), at)),
            student=student,
            miss_counter=miss_counter,
        )


class JobState(StrEnum):
    """Whether a worker can answer for a job.

    EMPTY becomes SERVING with the first publish. DEGRADED and SERVING become each other as versions are damaged and
    repaired. STARTING ends with the first look, whatever that finds.
    """

    STARTING = "starting"  # nobody has looked for a version yet
    EMPTY = "empty"  # nothing was ever published
    SERVING = "serving"  # the version that should be served is open
    DEGRADED = "degraded"  # another version is open, or one without its damaged parts, or none


NOTHING_OPEN = {
    JobState.STARTING: "The service has just started and has not opened {job} yet: ask again in a moment.",
    JobState.EMPTY: "The job {job} has no published version yet.",
    JobState.DEGRADED: "The version of {job} that should be served is damaged.",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """A job's state and what belongs to it, as of one look.

    state: whether the worker can answer for the job.
    opened: the version that answers; None if none is open.
    pinned: whether a pin decides what is served.
    problem: why the job is degraded, a sentence.
    """

    state: JobState = JobState.STARTING
    opened: OpenVersion | None = None
    pinned: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The answer to GET /v1/jobs/{job}.

    job: its name.
    version: the number of the version that is served; None, as all that is said of a version, if none is.
    created_at: when the version was made, ISO 8601.
    age_seconds: the time since then.
    entries: how many predictions the version has.
    key: name and kind of each column of the lookup key.
    pinned: whether a pin decides what is served.
    degraded: whether something else is served than what should be, or not all of it.
    problem: why, a sentence.
    last_success_at: when the job's last successful run ended, ISO 8601.
    stale: whether no run ended well for longer than the job's alerts allow; None if they allow any time.
    failed_loads: how often this worker could not open a version.
    precision: of the version, by verdicts on samples, as batchinfer precision wrote it; None if it did not.
    recall: the same by golden rows that say what an answer contains.
    student: of the version, as publishing found; None if there was to be none.
    """

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
    stale: bool | None
    failed_loads: int
    precision: dict[str, Any] | None
    recall: dict[str, Any] | None
    student: StudentRecord | None

    @property
    def student_checked(self) -> int | None:
        """How many answers of the student before could be checked, as metrics have it."""
        return None if self.student is None else self.student.checked

    @property
    def student_right(self) -> int | None:
        """How many of them were right, as metrics have it."""
        return None if self.student is None else self.student.right

    @property
    def last_success(self) -> float | None:
        """In seconds since 1970, as metrics have it."""
        return None if self.last_success_at is None else datetime.fromisoformat(self.last_success_at).timestamp()


class VersionOpener:
    """Prepares a version of a job for answering, before the follower picks it up.

    opened: the version that was prepared last, which is the one that the follower has open.
    """

    def __init__(self, job: str, *, records_misses: bool) -> None:
        self.opened: OpenVersion | None = None
        self._job = job
        self._records_misses = records_misses

    def __call__(self, snapshot: Snapshot, pointer: Pointer) -> None:
        """Raises StoreError, whatever is wrong with the version: what is open must go on."""
        try:
            self.opened = OpenVersion.of(snapshot, pointer.version, self._counter(snapshot))
        except Exception as exc:
            raise StoreError(f"What is published of {self._job} cannot be served: {why_damaged(exc)}.") from exc

    def _counter(self, snapshot: Snapshot) -> MissCounter | None:
        """The one in use, as long as the lookup key stays as it is."""
        if not self._records_misses or not snapshot.manifest.spec.records_misses:
            return None
        before = self.opened.miss_counter if self.opened else None
        if before is not None and before.names == snapshot.reader.names:
            return before
        return MissCounter(snapshot.reader.names)


class ServedJob:
    """One job in one worker. `refresh` puts a new situation in place of the old one, as a whole.

    A request takes the open version once, and uses it to its end.
    """

    def __init__(self, data: JobData, *, records_misses: bool, openings: Path | None = None) -> None:
        """openings: a folder that the workers share, for word of versions that end them."""
        self.name = data.name
        self.data = data
        self.situation = Situation()
        self._opener = VersionOpener(data.name, records_misses=records_misses)
        shared = None if openings is None else Openings(openings, data.name)
        self._follower = Follower(data, matching=True, prepare=self._opener, openings=shared)
        self._last_run = data.folder / "last_run.json"
        self._last_success: str | None = None
        self._figures = ServedFigures()
        self._retired: list[MissCounter] = []

    def refresh(self) -> None:
        """Picks up a new version, if there is one. Runs beside the event loop."""
        changed = self._follower.refresh()
        self._last_success = _finished_at(self._last_run) or self._last_success
        if changed or self.situation.state is JobState.STARTING:
            before, now = self.situation, self._look()
            self._retire_counter(before.opened, now.opened)
            self.situation = now
            self._log_change(before, now)
        opened = self.situation.opened
        self._figures = ServedFigures() if opened is None else read_figures(self.data, opened.version)

    def _look(self) -> Situation:
        followed = self._follower.followed
        state = JobState.EMPTY if followed.snapshot is None else JobState.SERVING
        if followed.degraded:
            state = JobState.DEGRADED
        opened = None if followed.snapshot is None else self._opener.opened
        return Situation(state, opened, followed.pinned, followed.problem)

    def _retire_counter(self, before: OpenVersion | None, now: OpenVersion | None) -> None:
        """What the old version's counter holds is still to be spooled."""
        old = before.miss_counter if before else None
        if old is not None and (now is None or now.miss_counter is not old):
            self._retired.append(old)

    def _log_change(self, before: Situation, now: Situation) -> None:
        if now.opened is not None and now.opened is not before.opened:
            _log_version(self.name, now.opened)
        if now.problem is not None and now.problem != before.problem:
            log.error("%s: %s %s.", self.name, now.problem, _still_served(now.opened))

    @property
    def failed_loads(self) -> int:
        """How often a version could not be opened, in this worker."""
        return self._follower.failed_loads

    def spool_misses(self, folder: Path) -> int:
        """Writes what was not found into files below `folder`; returns how many misses were dropped since the last call."""
        opened = self.situation.opened
        dropped = 0
        for counter in [*self._retired, *([opened.miss_counter] if opened and opened.miss_counter else [])]:
            try:
                counter.spool(folder / self.name)
            except StoreError as exc:
                log.error("%s", exc)  # noqa: TRY400 - the sentence says it all
            dropped, counter.dropped = dropped + counter.dropped, 0
        for counter in [counter for counter in self._retired if not len(counter)]:
            self._retired.remove(counter)  # in place: `refresh` may just be adding one
        return dropped

    def open_version(self) -> OpenVersion:
        """What a request is answered from. Raises Problem where nothing is open."""
        situation = self.situation
        if situation.opened is None:
            again = () if situation.state is JobState.EMPTY else RETRY_AFTER  # nobody knows when it will be published
            raise Problem("not-published", NOTHING_OPEN[situation.state].format(job=self.name), again)
        return situation.opened

    @property
    def is_awaited(self) -> bool:
        """Whether the service is not ready for want of it: something may be published, and nothing is open."""
        return self.situation.opened is None and self.situation.state is not JobState.EMPTY

    def status(self) -> JobStatus:
        """As of now."""
        situation = self.situation
        version = situation.opened.version if situation.opened else None
        manifest = situation.opened.snapshot.manifest if situation.opened else None
        figures = self._figures if self._figures.version == version else ServedFigures()
        return JobStatus(
            job=self.name,
            version=version,
            created_at=iso(manifest.created_at) if manifest else None,
            age_seconds=round(time.time() - manifest.created_at.timestamp(), 1) if manifest else None,
            entries=manifest.rows if manifest else None,
            key=[{"name": column.name, "kind": column.kind} for column in manifest.key] if manifest else [],
            pinned=situation.pinned,
            degraded=situation.state is JobState.DEGRADED,
            problem=situation.problem,
            last_success_at=self._last_success,
            stale=None if manifest is None else _is_stale(manifest, self._last_success),
            failed_loads=self.failed_loads,
            precision=None if figures.precision is None else figures.precision.to_json(),
            recall=None if figures.recall is None else figures.recall.to_json(),
            student=manifest.student if manifest else None,
        )


def _still_served(opened: OpenVersion | None) -> str:
    """What can be answered although something is wrong."""
    if opened is None:
        return "Nothing can be served"
    damaged = opened.snapshot.is_suspect or opened.snapshot.left_out
    return (
        f"What is whole of version {opened.version} is served"
        if damaged
        else f"Version {opened.version} is served instead"
    )


def _log_version(job: str, opened: OpenVersion) -> None:
    """Tells of a version that was picked up, and of what does not work with it."""
    snapshot = opened.snapshot
    log.info("%s: version %d is served, %s", job, opened.version, counted(len(snapshot), "entry", "entries"))
    unicode = snapshot.manifest.unicode
    if (snapshot.manifest.normalize or snapshot.matches) and unicode != unicodedata.unidata_version:
        log.warning(
            "%s: version %d normalizes by Unicode %s, and this Python by %s: rare spellings may not be found. "
            "Serve and publish with one version of Python.",
            job, opened.version, unicode, unicodedata.unidata_version,
        )  # fmt: skip
    if snapshot.student_fault is not None:
        log.warning("%s: the student of version %d is not asked. %s", job, opened.version, snapshot.student_fault)
    try:
        _ = snapshot.matches and snapshot.matcher
    except (MissingExtra, IncompatibleMatcher, StoreError) as exc:
        log.warning("%s: texts cannot be matched. %s", job, exc)


def _is_stale(manifest: Manifest, last_success: str | None) -> bool | None:
    facts = published_facts(manifest)
    succeeded_at = None if last_success is None else moment(last_success)
    return None if facts is None else is_stale(facts, succeeded_at, datetime.now(UTC))


def _finished_at(path: Path) -> str | None:
    try:
        content: dict[str, Any] = json.loads(read_small(path))
        moment: str = content["finished_at"]
        datetime.fromisoformat(moment).timestamp()
    except UNREAD:
        return None
    return moment
