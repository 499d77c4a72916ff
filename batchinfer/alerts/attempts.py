"""How the last run of a job ended, and what is wrong since when: last_attempt.json, for those who do not open the job's cache."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from batchinfer.alerts.rules import AlertKind, AlertRule, read_rules
from batchinfer.core.clock import iso
from batchinfer.core.files import read_small, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.locks import is_held
from batchinfer.errors import shortened

MOST_SAID = 1000  # characters
NEVER = "never"  # where no run ended well yet


class AttemptStatus(StrEnum):
    """How a run or a publishing stands, or how it ended.

    STOPPED: it was asked to. DECLINED: a person said no to what it asked.
    """

    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    STOPPED = "stopped"
    DECLINED = "declined"


TROUBLES = {AttemptStatus.FAILED: AlertKind.FAILED, AttemptStatus.REFUSED: AlertKind.REFUSED}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a job.

    kind: failed, refused or stale.
    since: when it was found first; UTC.
    said: a sentence about it, as it was found last.
    marker: what tells it from an earlier one of its kind.
    run_id: of the run that it is of; None where it is of none.
    """

    kind: AlertKind
    since: datetime
    said: str
    marker: str
    run_id: int | None = None

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError."""
        since, run_id = moment(document["since"]), document.get("run_id")
        said, marker = str(document["said"]), str(document.get("marker", iso(since)))
        return cls(AlertKind(document["kind"]), since, said, marker, None if run_id is None else int(run_id))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"since": iso(self.since)}


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How a run or a publishing ended.

    status: in a word.
    at: when; UTC.
    said: its error, a sentence.
    run_id: the run's number; None where it has none.
    succeeded_at: when a run ended well last; UTC, None if none did.
    """

    status: AttemptStatus
    at: datetime
    said: str = ""
    run_id: int | None = None
    succeeded_at: datetime | None = None

    @property
    def sentence(self) -> str:
        """The error as it is noted."""
        return shortened(" ".join(self.said.split()), MOST_SAID)

    def troubles(self, before: Iterable[Trouble], clears: Collection[AlertKind]) -> tuple[Trouble, ...]:
        """What is wrong then. Failures are one trouble until a run ends well, whoever notices which of them."""
        is_well = self.status is AttemptStatus.DONE
        troubles = {each.kind: each for each in before if not (is_well and each.kind in clears)}
        if (kind := TROUBLES.get(self.status)) is not None:
            marker = str(iso(self.at)) if kind is AlertKind.REFUSED else iso(self.succeeded_at) or NEVER
            first = troubles.get(kind) or Trouble(kind, self.at, "", marker)
            troubles[kind] = replace(first, said=self.sentence, run_id=self.run_id)
        return tuple(troubles.values())


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """The last run or publishing of a job, whichever way it ended.

    status: how it stands.
    began_at, ended_at: when; UTC. The end is None while it goes on.
    run_id: its number; None where it has none.
    said: its error, a sentence.
    troubles: what is wrong with the job: what went wrong since a run ended well.
    rules: of the job file, as it was then.
    host: the machine that it was on, which alone can tell whether it still goes on.
    """

    status: AttemptStatus
    began_at: datetime
    ended_at: datetime | None = None
    run_id: int | None = None
    said: str = ""
    troubles: tuple[Trouble, ...] = ()
    rules: tuple[AlertRule, ...] = ()
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError or AttributeError for a damaged one."""
        ended_at, run_id = document.get("ended_at"), document.get("run_id")
        return cls(
            status=AttemptStatus(document["status"]),
            began_at=moment(document["began_at"]),
            ended_at=None if ended_at is None else moment(ended_at),
            run_id=None if run_id is None else int(run_id),
            said=str(document.get("said", "")),
            troubles=tuple(Trouble.of(each) for each in document.get("troubles", ())),
            rules=read_rules(document.get("alerts")),
            host=str(document.get("host", "")),
        )

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "status": self.status, "began_at": iso(self.began_at), "ended_at": iso(self.ended_at), "run_id": self.run_id,
            "said": self.said, "troubles": [each.to_json() for each in self.troubles],
            "alerts": [rule.to_json() for rule in self.rules], "host": self.host,
        }  # fmt: skip

    def ended(self, end: AttemptEnd, clears: Collection[AlertKind] = ()) -> LastAttempt:
        """The same attempt at its end. clears: what is wrong no more if it ended well."""
        troubles = end.troubles(self.troubles, clears)
        return replace(
            self, status=end.status, ended_at=end.at, said=end.sentence, run_id=end.run_id, troubles=troubles
        )

    def published(self, end: AttemptEnd, clears: Collection[AlertKind]) -> LastAttempt:
        """The same run after a publishing without one: what is wrong since then."""
        is_new = self.status is AttemptStatus.RUNNING
        after = replace(self, status=end.status, ended_at=end.at) if is_new else self
        return replace(after, troubles=end.troubles(self.troubles, clears))

    def after(self, before: LastAttempt) -> LastAttempt:
        """The same attempt, with what was wrong when it began."""
        return replace(self, troubles=before.troubles)

    def under(self, rules: tuple[AlertRule, ...]) -> LastAttempt:
        """The same attempt, with the rules that the job file has now."""
        return replace(self, rules=rules)


def read_success(data: JobData) -> datetime | None:
    """When the last run that ended well did so; UTC. None if none is known of."""
    try:
        content: dict[str, Any] = json.loads(read_small(data.folder / "last_run.json"))
        return moment(content["finished_at"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def read_attempt(data: JobData, *, holds_lock: bool = False) -> LastAttempt | None:
    """The last attempt; None before the first, and where the file cannot be read: the next one writes it again.

    One that was noted as going on, and does not hold the job's run lock any more, died: nobody else would say so.

    holds_lock: whether who asks holds it.
    """
    found = _noted(data)
    if found is None or found.status is not AttemptStatus.RUNNING or not (holds_lock or _has_died(data, found)):
        return found
    found = _noted(data) or found  # it may have ended, and let go of its lock, since it was read
    if found.status is not AttemptStatus.RUNNING:
        return found
    said = f"The run that began at {iso(found.began_at)} died: it did not say how it ended."
    return found.ended(AttemptEnd(AttemptStatus.FAILED, found.began_at, said, None, read_success(data)))


def _noted(data: JobData) -> LastAttempt | None:
    """As the file has it."""
    try:
        return LastAttempt.of(json.loads(read_small(_file(data))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _has_died(data: JobData, attempt: LastAttempt) -> bool:
    """Whether it is sure: only the machine that it was on can know."""
    return attempt.host == socket.gethostname() and not is_held(data.folder / "run.lock")


def note_failure(data: JobData, began_at: datetime, said: str) -> None:
    """Notes that a run failed which could not note that itself. began_at: when it was started; UTC. Raises StoreError."""
    found = read_attempt(data)
    if (
        found is None
        or found.status is AttemptStatus.RUNNING
        or (found.ended_at is not None and found.ended_at >= began_at)
    ):
        return
    write_attempt(
        data, found.ended(AttemptEnd(AttemptStatus.FAILED, datetime.now(UTC), said, None, read_success(data)))
    )


def write_attempt(data: JobData, attempt: LastAttempt) -> None:
    """Raises StoreError."""
    write_atomically(_file(data), json.dumps(attempt.to_json(), indent=2, ensure_ascii=False).encode())


def forget_said(data: JobData) -> None:
    """Takes out what errors quoted. Raises StoreError."""
    if (found := read_attempt(data)) is not None and _file(data).is_file():
        write_attempt(data, replace(found, said="", troubles=tuple(replace(each, said="") for each in found.troubles)))


def moment(text: str) -> datetime:
    """A time as files have it, in UTC. Raises ValueError or TypeError."""
    return in_utc(datetime.fromisoformat(text))


def in_utc(time: datetime) -> datetime:
    """The same time in UTC; one without a zone is in UTC already, and one at the end of all times keeps its digits."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return time.replace(tzinfo=UTC)


def _file(data: JobData) -> Path:
    return data.folder / "last_attempt.json"
