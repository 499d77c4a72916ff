"""The section schedule of the job file: when a job is to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from batchinfer.core.fields import Section, Timezone

FIELDS = 5
COUNTED_TIMES = 60  # of a weekly job more than a year
FIELD = re.compile(r"[0-9A-Za-z*/,#-]+")
EXAMPLE = "such as 0 3 * * 1 (Mondays at 3:00)"
FROM = datetime(2024, 1, 1, tzinfo=UTC)  # a line that does not fire in the decades from here on never does


class ScheduleSpec(Section):
    """Times at which `batchinfer schedule run` runs the job, and `schedule export` lets another scheduler run it."""

    cron: str = Field(description="Five cron fields: minute, hour, day of the month, month, day of the week.")
    timezone: Timezone = Field("UTC", description="The time zone of the cron fields, such as Europe/Berlin.")
    max_hours: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="A run stops in order after so many hours; the next one goes on from there.",
    )

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        from cronsim import CronSim, CronSimError  # only where a job has a schedule

        fields = cron.split()
        if len(fields) != FIELDS or not all(FIELD.fullmatch(field) for field in fields):
            raise ValueError(f"must be five cron fields, {EXAMPLE}")
        try:
            CronSim(cron, FROM)
        except CronSimError as exc:
            raise ValueError(
                f"is no cron line that ever fires ({str(exc).lower()}): write five fields, {EXAMPLE}"
            ) from exc
        return " ".join(fields)

    @model_validator(mode="after")
    def _fires(self) -> ScheduleSpec:
        if next(self.times_after(FROM), None) is None:
            raise ValueError(f"cron {self.cron} never fires: no date is like that")
        return self

    def times_after(self, moment: datetime) -> Iterator[datetime]:
        """When a run is due after a moment, in order, both in UTC.

        Where clocks are set forward, what falls into the hour that is left out is due right after it; where they are set
        back, what falls into the hour that comes twice is due once. Lines whose minutes or hours begin with * follow the
        clock as it is, as Debian's cron has it.
        """
        from cronsim import CronSim

        for time in CronSim(self.cron, moment.astimezone(ZoneInfo(self.timezone))):
            if (found := time.astimezone(UTC)) > moment:  # it forgets which of two equal hours a moment is in
                yield found

    @property
    def longest_gap(self) -> timedelta:
        """The longest time between two due times, of those that come first."""
        times = list(islice(self.times_after(FROM), COUNTED_TIMES))
        return max((later - earlier for earlier, later in pairwise(times)), default=timedelta())

    @property
    def words(self) -> str:
        """The cron fields and their time zone as people say them."""
        from cronsim import CronSim

        said: str = CronSim(self.cron, FROM).explain()
        return f"{said}, {self.timezone}"
