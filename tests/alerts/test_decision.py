"""What is told, and when: through whole years of runs that end well, fail and are refused, and of looks every minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from batchinfer.alerts.attempts import AttemptEnd, AttemptStatus
from batchinfer.alerts.decision import decide
from batchinfer.alerts.notes import AlertMemory
from batchinfer.alerts.rules import AlertKind, AlertRule
from batchinfer.alerts.standing import PublishedFacts, Standing
from tests.alerts.made import ALL, DAY, START, WeeklyJob, command_rule, rule

DONE, FAILED, REFUSED, STOPPED = AttemptStatus.DONE, AttemptStatus.FAILED, AttemptStatus.REFUSED, AttemptStatus.STOPPED
HOUR = timedelta(hours=1)


class Told:
    """What a receiver was told, as (day, event, reminder), while time passes. Each message is delivered at once."""

    def __init__(self, *rules: AlertRule) -> None:
        self.rules = rules or (rule(),)
        self.memory = AlertMemory()
        self.told: list[tuple[int, str, int]] = []
        self.ids: list[str] = []

    def look(self, standing: Standing, now: datetime) -> None:
        self.memory = decide(self.memory, self.rules, standing, now)
        self.memory = AlertMemory.of(json.loads(json.dumps(self.memory.to_json())))  # as the file has it
        for alert in self.memory.pending:
            data = json.loads(alert.body)["data"]
            self.told.append(((now - START).days, data["event"], data["reminder"]))
            self.ids.append(alert.id)
        self.memory = replace(self.memory, pending=())

    def pass_time(self, job: WeeklyJob, start: datetime, days: int, step: timedelta = HOUR) -> None:
        """Looks now and then."""
        for number in range(int(days * DAY / step)):
            self.look(job.standing, start + number * step)


def weekly(codes: Callable[[int], AttemptStatus], weeks: int, *rules: AlertRule) -> Told:
    """What is told in so many weeks of runs that end as `codes` says."""
    job, told = WeeklyJob(), Told(*rules)
    for week in range(weeks):
        now = START + 7 * week * DAY
        told.look(job.ends(codes(week), now, "new" if codes(week) is DONE and week % 3 == 0 else ""), now)
        told.pass_time(job, now, 7, 6 * HOUR)
    return told


def test_a_year_without_trouble_is_silent() -> None:
    """Runs that end well each week tell nobody anything, also where most find nothing new to publish."""
    assert weekly(lambda _: DONE, 52).told == []


def test_runs_that_are_asked_to_stop_are_no_trouble() -> None:
    """A run that was stopped in order is told of by nobody; if none ends well for long, that is stale."""
    told = weekly(lambda week: DONE if week == 0 else STOPPED, 3)
    assert told.told == [(8, "stale", 0), (15, "stale", 1)]


def test_a_job_that_fails_every_time_is_told_once_and_reminded_weekly() -> None:
    """Of its failure once, of its staleness once, and of each again every seven days; never more often."""
    told = weekly(lambda week: DONE if week == 0 else FAILED, 52).told
    failed, stale = ([(day, number) for day, kind, number in told if kind == each] for each in ("failed", "stale"))
    assert failed == [(7 * number, number - 1) for number in range(1, 52)]
    assert stale == [(8 + 7 * number, number) for number in range(51)]
    assert len(told) == len(failed) + len(stale)


def test_a_job_that_never_ended_well_is_told_of() -> None:
    """Also the first run of all; nothing is stale where nothing was ever fresh."""
    assert weekly(lambda _: FAILED, 2).told == [(0, "failed", 0), (7, "failed", 1)]


def test_failing_refused_and_well_again() -> None:
    """Each trouble is told once when it comes, and all being well once when they are gone; then it begins again."""
    codes = {1: FAILED, 2: REFUSED, 5: FAILED}
    told = weekly(lambda week: codes.get(week, DONE), 7, rule(stale_after=30 * DAY, remind_after=30 * DAY))
    assert told.told == [
        (7, "failed", 0), (14, "refused", 0), (21, "recovered", 0), (35, "failed", 0), (42, "recovered", 0),
    ]  # fmt: skip
    assert len(set(told.ids)) == len(told.ids)


def test_being_well_again_is_told_after_troubles_that_overlap() -> None:
    """Who was told of one trouble hears when all is well, also where that one ended while another, of which they are not told, held."""
    job, told = WeeklyJob(), Told(rule(kinds=frozenset({AlertKind.REFUSED, AlertKind.RECOVERED})))
    published = PublishedFacts(1, START)
    for days, status in ((0, DONE), (1, REFUSED), (2, FAILED)):
        told.look(job.ends(status, START + days * DAY, "new" if not days else ""), START + days * DAY)
    assert job.standing.attempt is not None
    by_hand = job.standing.attempt.published(AttemptEnd(DONE, START + 3 * DAY, ""), frozenset({AlertKind.REFUSED}))
    mended = replace(job.standing, attempt=by_hand, published=replace(published, version=2, made_at=START + 3 * DAY))
    told.look(mended, START + 3 * DAY)
    assert [event for _, event, _ in told.told] == ["refused"], "the run is failing still"
    job.standing = mended
    told.look(job.ends(DONE, START + 4 * DAY), START + 4 * DAY)
    assert told.told == [(1, "refused", 0), (4, "recovered", 0)]


def test_what_was_not_asked_for_is_not_told() -> None:
    """A rule of staleness alone says nothing of failures, nor of recovery."""
    only = rule(kinds=frozenset({AlertKind.STALE}))
    told = weekly(lambda week: FAILED if week in (1, 2) else DONE, 5, only).told
    assert told == [(8, "stale", 0), (15, "stale", 1)]
    failures = rule(kinds=frozenset({AlertKind.FAILED, AlertKind.RECOVERED}), stale_after=None)
    told = weekly(lambda week: FAILED if week == 1 else DONE, 5, failures).told
    assert told == [(7, "failed", 0), (14, "recovered", 0)]


def test_each_receiver_is_told_by_its_own_rule() -> None:
    """Two receivers with different patience are told at different times."""
    quick, patient = rule("http://a.example/", stale_after=2 * DAY), rule("http://b.example/", stale_after=5 * DAY)
    job, memory = WeeklyJob(), AlertMemory()
    job.ends(DONE, START)
    for hours in range(24 * 6):
        memory = decide(memory, (quick, patient), job.standing, START + hours * HOUR)
    assert [(alert.receiver, alert.made_at - START) for alert in memory.pending] == [
        (quick.receiver, 2 * DAY),
        (patient.receiver, 5 * DAY),
    ]


def test_a_receiver_that_is_new_is_told_what_is_wrong_already() -> None:
    """Somebody who corrects an address hears of the trouble there is; who is named no more is forgotten."""
    job, told = WeeklyJob(), Told(rule("http://wrong.example/"))
    told.look(job.ends(FAILED, START), START)
    told.rules = (rule("http://right.example/"),)
    told.look(job.standing, START + DAY)
    told.look(job.standing, START + DAY + HOUR)
    assert told.told == [(0, "failed", 0), (1, "failed", 0)]
    assert len(told.memory.told) == 1
    wrong, right = rule("http://wrong.example/"), rule("http://right.example/")
    memory = decide(AlertMemory(), (wrong,), job.standing, START)
    assert [each.receiver for each in decide(memory, (right,), job.standing, START).pending] == [right.receiver]
    assert decide(memory, (), job.standing, START) == AlertMemory()


def test_replicas_name_what_goes_stale_alike() -> None:
    """Two data folders with the same version and the same last run tell of one event, by one id, also when they remind."""
    job, here, there = WeeklyJob(), Told(), Told()
    job.ends(DONE, START)
    copy = replace(job.standing, attempt=None)
    here.pass_time(job, START, 30)
    for minutes in range(0, 30 * 24 * 60, 97):
        there.look(copy, START + timedelta(minutes=minutes))
    assert here.told == there.told == [(8, "stale", 0), (15, "stale", 1), (22, "stale", 2), (29, "stale", 3)]
    assert here.ids == there.ids


def test_another_limit_is_not_another_event() -> None:
    """Who shortens or lengthens the limit of what is stale already is not told again."""
    job, told = WeeklyJob(), Told()
    job.ends(DONE, START)
    for days, limit in ((9, 8), (10, 4), (11, 10)):
        told.rules = (rule(stale_after=limit * DAY, remind_after=30 * DAY),)
        told.look(job.standing, START + days * DAY)
    assert told.told == [(9, "stale", 0)]


def test_going_stale_again_is_another_event() -> None:
    """The same version that goes stale twice, since runs between found nothing new, is told under two ids."""
    told = weekly(
        lambda week: FAILED if week in (2, 3, 5, 6) else DONE,
        9,
        rule(kinds=frozenset({AlertKind.STALE, AlertKind.RECOVERED})),
    )
    assert [kind for _, kind, number in told.told if not number] == ["stale", "recovered", "stale", "recovered"]
    assert len(set(told.ids)) == len(told.ids)


def test_what_was_missed_is_made_up_for_by_one() -> None:
    """Where nobody looked for months, the first look tells of what is wrong now, once; not of each week that passed."""
    job, told = WeeklyJob(), Told()
    job.ends(DONE, START)
    told.look(job.standing, START + 60 * DAY)
    told.look(job.standing, START + 60 * DAY + HOUR)
    told.look(job.standing, START + 90 * DAY)
    assert told.told == [(60, "stale", 0), (90, "stale", 11)]


def test_a_published_version_is_fresh_and_mends_a_refusal() -> None:
    """What a person publishes by hand is as new as can be; a run that failed before stays one."""
    job, told = WeeklyJob(), Told()
    job.ends(DONE, START)
    job.ends(FAILED, START + 7 * DAY)
    told.look(job.ends(REFUSED, START + 7 * DAY), START + 7 * DAY)
    attempt = job.standing.attempt
    assert attempt is not None
    mended = attempt.published(AttemptEnd(DONE, START + 8 * DAY), {AlertKind.REFUSED})
    job.standing = replace(job.standing, attempt=mended, published=PublishedFacts(2, START + 8 * DAY))
    told.pass_time(job, START + 8 * DAY, 5)
    assert told.told == [(7, "failed", 0), (7, "refused", 0)]
    assert [each.kind for each in mended.troubles] == [AlertKind.FAILED]


@pytest.mark.parametrize("ahead", [2 * HOUR, 400 * DAY, 400 * DAY + timedelta(microseconds=7)])
def test_a_time_from_the_future_neither_silences_nor_storms(ahead: timedelta) -> None:
    """A run that ended well under a clock that was ahead counts from when it was met: it goes stale all the same, once."""
    job, told = WeeklyJob(), Told()
    job.ends(DONE, START)
    job.standing = replace(job.standing, succeeded_at=START + ahead, published=PublishedFacts(1, START + ahead))
    told.pass_time(job, START, 20)
    assert [kind for _, kind, number in told.told if number == 0] == ["stale"]
    assert told.told[0][0] == 8


def test_a_clock_that_jumps_for_a_moment() -> None:
    """A look under a clock that is years ahead tells of staleness once; under the right one all goes on as it was."""
    job, told = WeeklyJob(), Told()
    job.ends(DONE, START)
    told.look(job.standing, START + 4000 * DAY)
    told.pass_time(job, START, 7)
    assert [kind for _, kind, _ in told.told] == ["stale", "recovered"]
    job, told = WeeklyJob(), Told()
    told.look(job.ends(FAILED, START), START)
    told.look(job.standing, START + 4000 * DAY)
    told.pass_time(job, START, 15)
    assert [(day, kind) for day, kind, _ in told.told] == [
        (0, "failed"),
        (4000, "failed"),
        (7, "failed"),
        (14, "failed"),
    ]
    told.look(job.ends(DONE, START + 15 * DAY), START + 15 * DAY)
    assert told.told[-1] == (15, "recovered", 0)
    told.look(job.standing, START + 24 * DAY)
    told.look(job.standing, START - 20000 * DAY)  # as a machine without a battery begins
    told.look(job.standing, START + 24 * DAY)
    assert told.told[-1] == (24, "stale", 0)


def test_a_run_that_is_just_ending_well() -> None:
    """Its success is noted before its end is: whoever looks between takes no old failure for a new one."""
    job, told = WeeklyJob(), Told(rule(stale_after=60 * DAY))
    job.ends(DONE, START)
    told.look(job.ends(FAILED, START + 7 * DAY), START + 7 * DAY)
    told.look(replace(job.standing, succeeded_at=START + 8 * DAY), START + 8 * DAY)
    told.look(job.ends(DONE, START + 8 * DAY), START + 8 * DAY)
    assert told.told == [(7, "failed", 0), (8, "recovered", 0)]


def test_what_is_not_known_is_no_recovery() -> None:
    """Notes that are gone, or a folder that cannot be read for a moment, are no reason to say that all is well."""
    job, told = WeeklyJob(), Told()
    job.ends(DONE, START)
    told.look(job.ends(FAILED, START + 9 * DAY), START + 9 * DAY)
    assert len(told.told) == 2
    told.look(replace(job.standing, attempt=None), START + 9 * DAY)
    told.look(Standing("shop"), START + 9 * DAY)
    told.look(job.standing, START + 9 * DAY)
    assert len(told.told) == 2


def test_a_receiver_that_this_process_does_not_tell_is_left_to_others() -> None:
    """What serves starts no programs: what their receivers know stays as it was."""
    job, mine = WeeklyJob(), command_rule("page")
    memory = decide(AlertMemory(), [mine], job.ends(FAILED, START), START)
    assert decide(memory, [mine], job.standing, START + 9 * DAY, lambda _: False) == memory
    assert mine.kinds == ALL
