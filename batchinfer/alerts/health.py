"""Whether all is well with a job: in one word, and what is wrong in sentences. Only looks, and makes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from batchinfer.alerts.attempts import AttemptStatus
from batchinfer.alerts.decision import fresh_since, stale_trouble
from batchinfer.alerts.notes import AlertNotes, PendingAlert
from batchinfer.alerts.standing import PublishedFacts, Standing, StandingReader
from batchinfer.core.clock import iso
from batchinfer.core.home import JobData


class Health(StrEnum):
    """Whether all is well with a job.

    FAILING: its last run failed, or was refused by the gate, and none ended well since. STALE: none ended well for longer than
    its alerts allow. NEVER_RUN: nothing of it ever ended well.
    """

    OK = "ok"
    STALE = "stale"
    FAILING = "failing"
    NEVER_RUN = "never run"


@dataclass(frozen=True, slots=True)
class JobHealth:
    """How a job is.

    standing: what is known of it.
    health: in a word.
    fresh_at: when what is served was as new as could be; UTC, None if it never was.
    stale_after: the shortest time after that which its alerts allow; None if they allow any.
    wrong: what is wrong, a sentence each.
    pending: what is still to be told, or was given up.
    """

    standing: Standing
    health: Health
    fresh_at: datetime | None
    stale_after: timedelta | None
    wrong: tuple[str, ...]
    pending: tuple[PendingAlert, ...]

    @property
    def last_run_at(self) -> datetime | None:
        """When the last run ended, or began if it goes on; UTC, None if none is known of."""
        attempt = self.standing.attempt
        return self.standing.succeeded_at if attempt is None else attempt.ended_at or attempt.began_at

    @property
    def last_status(self) -> AttemptStatus | None:
        """How the last run ended; None if none is known of."""
        if self.standing.attempt is not None:
            return self.standing.attempt.status
        return None if self.standing.succeeded_at is None else AttemptStatus.DONE


def is_stale(published: PublishedFacts, succeeded_at: datetime | None, now: datetime) -> bool | None:
    """Whether no run ended well for longer than a version's alerts allow; None if they allow any time. Times are in UTC."""
    if not any(rule.stale_after for rule in published.rules):
        return None
    fresh = fresh_since(Standing("", published, succeeded_at), None, now)
    return any(stale_trouble(rule, fresh, now) is not None for rule in published.rules)


def job_health(data: JobData, now: datetime) -> JobHealth:
    """As of now, in UTC; also of a folder that is read-only, or not there. Raises nothing."""
    said = list[str]()
    standing, memory = StandingReader(data).read(), AlertNotes(data, said.append).read()
    fresh = fresh_since(standing, memory.doubted, now)
    stale = [found for rule in standing.rules if (found := stale_trouble(rule, fresh, now)) is not None]
    limits = [rule.stale_after for rule in standing.rules if rule.stale_after is not None]
    health = Health.OK
    if standing.troubles:
        health = Health.FAILING
    elif stale:
        health = Health.STALE
    elif not standing.fresh_times:
        health = Health.NEVER_RUN
    wrong = [f"{each.kind.capitalize()} since {iso(each.since)}: {each.said}" for each in standing.troubles]
    wrong += [each.said for each in sorted(stale, key=lambda each: each.since)[:1]]
    return JobHealth(standing, health, fresh, min(limits, default=None), (*wrong, *said), memory.pending)
