"""The section schedule: what fires when, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchinfer.job import reader
from tests.job.files import SMALLEST, problems


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{cron: '61 * * * *'}", "schedule.cron: is no cron line that ever fires (bad minute): write five fields"),
        (
            "{cron: '0 0 30 2 *'}",
            "schedule.cron: is no cron line that ever fires (bad day-of-month): write five fields",
        ),
        ("{cron: '0 3 * *'}", "schedule.cron: must be five cron fields, such as 0 3 * * 1"),
        ("{cron: '0 0 3 * * 1'}", "schedule.cron: must be five cron fields"),
        ("{cron: '@weekly'}", "schedule.cron: must be five cron fields"),
        ("{cron: '0 3 * * FUNDAY'}", "(bad day-of-week)"),
        ("{cron: '*/0 * * * *'}", "schedule.cron: is no cron line that ever fires"),
        ("{cron: '5-1 * * * *'}", "schedule.cron: is no cron line that ever fires (bad minute)"),
        ("{cron: '0 0 29 2 1#5', timezone: Mars/Base}", "schedule.timezone"),
        ("{cron: '0 3 * * 1', max_hours: 0}", "schedule.max_hours"),
        ("{cron: '0 3 * * 1', max_hours: .inf}", "schedule.max_hours"),
        ("{timezone: UTC}", "schedule.cron"),
    ],
)
def test_what_is_refused(section: str, said: str) -> None:
    """With the field, and what to write instead."""
    [problem] = problems(f"{SMALLEST}schedule: {section}\n")
    assert said in problem


def times(cron: str, zone: str, after: datetime, count: int) -> list[str]:
    """The first due times, in UTC."""
    schedule = reader.parse(f"{SMALLEST}schedule: {{cron: '{cron}', timezone: {zone}}}\n", "job.yaml").schedule
    assert schedule is not None
    return [time.strftime("%m-%d %H:%M") for time, _ in zip(schedule.times_after(after), range(count), strict=False)]


def test_monday_is_monday() -> None:
    """1 is Monday, 0 and 7 are Sunday."""
    begin = datetime(2026, 11, 29, 0, 30, tzinfo=UTC)  # a Sunday
    assert times("0 3 * * 1", "UTC", begin, 2) == ["11-30 03:00", "12-07 03:00"]
    assert times("0 3 * * 0", "UTC", begin, 1) == times("0 3 * * 7", "UTC", begin, 1) == ["11-29 03:00"]


def test_nights_on_which_clocks_change() -> None:
    """A time that is left out is due right after it, one that comes twice is due once."""
    assert times("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == [
        "03-29 01:00",
        "03-30 00:30",
    ]
    assert times("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == [
        "10-25 00:30",
        "10-26 01:30",
    ]


def test_no_time_comes_before_the_moment() -> None:
    """Also in an hour that comes twice, where the clock alone does not say which of the two it is."""
    for minutes in range(0, 150, 5):
        moment = datetime(2026, 10, 24, 23, 0, tzinfo=UTC) + timedelta(minutes=minutes)
        schedule = reader.parse(
            f"{SMALLEST}schedule: {{cron: '30 2 * * *', timezone: Europe/Berlin}}\n", "job.yaml"
        ).schedule
        assert schedule is not None
        assert next(schedule.times_after(moment)) > moment


def test_lines_that_begin_with_a_star_follow_the_clock() -> None:
    """Every half hour stays every half hour on such a night."""
    after = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    assert times("*/30 * * * *", "Europe/Berlin", after, 3) == ["10-25 00:30", "10-25 01:00", "10-25 01:30"]
