"""Weeks of a simulated clock: each due time is run once, whatever happens between."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from batchinfer.errors import Busy, ExitCode, StoreError
from batchinfer.schedule import scheduler
from batchinfer.schedule.agenda import Room, ScheduledJob
from batchinfer.schedule.memory import Memory
from batchinfer.schedule.scheduler import Scheduler
from tests.schedule.made import START, SimulatedClock, SimulatedLauncher, SimulatedRun, scheduled

YEAR = timedelta(weeks=52)


@pytest.fixture(autouse=True)
def _sleepy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A year has half a million minutes: the scheduler sleeps until something is due."""
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", YEAR.total_seconds())


class Simulation:
    """A scheduler over simulated time, that can be stopped, killed and started again."""

    def __init__(
        self,
        root: Path,
        entries: Sequence[ScheduledJob],
        start: datetime = START,
        at_once: int | None = 1,
        gpus: int = 0,
    ) -> None:
        self.root, self.entries, self.room = root, list(entries), Room(at_once, gpus)
        self.clock = SimulatedClock(start)
        self.launcher = SimulatedLauncher(self.clock)
        self.said: list[str] = []
        self.restart()

    def restart(self) -> None:
        """A new scheduler on the same folder, as after a crash: what ran is gone with the old one."""
        self.launcher.runs.clear()
        self.scheduler = Scheduler(
            lambda: self.entries, self.launcher, Memory(self.root), self.clock, self.said.append, self.room
        )

    def settled(self, name: str) -> list[SimulatedRun]:
        """The runs of a job that came to their end under the scheduler's eyes, and that nothing else stood in the way of."""
        return [run for job, run in self.launcher.made if job == name and run.was_settled]

    def until(self, end: datetime) -> None:
        """Lets the scheduler work until then; it sleeps no longer than it wants to."""
        while self.clock.now() < end:
            seconds = self.scheduler.step()
            runs = [(run.ends - self.clock.now()).total_seconds() for run in self.launcher.runs]
            nearest = min([seconds, *(left for left in runs if left > 0)])
            self.clock.time = min(end, self.clock.now() + timedelta(seconds=max(nearest, 1)))
        self.scheduler.step()

    def after(self, time: timedelta) -> None:
        self.until(self.clock.now() + time)


def days(
    zone: str, start: datetime, end: datetime, hour: int, minute: int, weekday: int | None = None
) -> list[datetime]:
    """Every date between two times at a time of day, in UTC, as the calendar has it: an oracle without cron."""
    local, found, day = ZoneInfo(zone), [], start.astimezone(ZoneInfo(zone)).date()
    while day <= end.astimezone(local).date():
        time = datetime(day.year, day.month, day.day, hour, minute, tzinfo=local).astimezone(UTC)
        if start < time <= end and weekday in (None, day.weekday()):
            found.append(time)
        day += timedelta(days=1)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", date(2026, 3, 29)),
        ("America/New_York", date(2026, 3, 8)),
        ("Australia/Lord_Howe", date(2026, 10, 4)),
    ],
)
def test_a_year_over_both_changes_of_the_clocks(tmp_path: Path, zone: str, change: date) -> None:
    """52 weeks of weekly and daily jobs and a chained one: each due time is run once, in time and in order.

    So is each date of a time that one night leaves out and another has twice.
    """
    chained = scheduled("names_check", "0 3 * * 1", zone, input={"job": "names", "key": ["id"]})
    others = [
        scheduled("names", "0 3 * * 1", zone),
        scheduled("daily", "15 4 * * *", zone),
        scheduled("night", "15 2 * * *", zone),
    ]
    world = Simulation(tmp_path, [chained, *others])
    world.after(YEAR)
    mondays = days(zone, START, START + YEAR, 3, 0, weekday=0)
    assert world.launcher.times("names") == mondays
    assert world.launcher.times("names_check") == [time + timedelta(minutes=10) for time in mondays]
    assert world.launcher.times("daily") == days(zone, START, START + YEAR, 4, 15)
    nights = [time.astimezone(ZoneInfo(zone)) for time in world.launcher.times("night")]
    assert len({night.date() for night in nights}) == len(nights) == YEAR.days
    [changed] = [night.hour for night in nights if night.date() == change]
    assert changed in (2, 3)
    assert world.launcher.most_at_once == 1


def test_downtime_is_made_up_for_once(tmp_path: Path) -> None:
    """Of due times that passed while no scheduler ran, one run stands for all; it is not repeated at the next start."""
    world = Simulation(tmp_path, [scheduled()])
    world.after(timedelta(weeks=2))
    world.clock.time += timedelta(weeks=5)
    world.restart()
    world.after(timedelta(hours=1))
    world.restart()
    world.after(timedelta(days=1))
    assert len(world.launcher.begun) == 3
    assert "stands for 5 due times" in "".join(world.said)


def test_what_is_new_waits_for_its_next_time(tmp_path: Path) -> None:
    """A job that gets a schedule is not run for the times before it had one, also if the scheduler was not there."""
    world = Simulation(tmp_path, [scheduled()])
    world.after(timedelta(weeks=1))
    world.entries.append(scheduled("later", "0 4 * * 1"))
    world.after(timedelta(days=1))
    assert world.launcher.times("later") == []
    world.after(timedelta(weeks=1))
    assert len(world.launcher.times("later")) == 1


def test_a_run_that_takes_too_long_is_not_started_on_top_of_itself(tmp_path: Path) -> None:
    """The due times that pass meanwhile are made up for by one run, when it has ended."""
    world = Simulation(tmp_path, [scheduled(cron="0 * * * *")], at_once=4)
    world.launcher.takes = lambda _name, number: timedelta(hours=3, minutes=30) if number == 1 else timedelta(minutes=1)
    world.after(timedelta(hours=8))
    hours = [(time - START) / timedelta(hours=1) for time in world.launcher.times("shop")]
    assert hours == [1, 2, 5.5, 6, 7, 8]
    assert world.launcher.most_at_once == 1


def test_jobs_take_turns(tmp_path: Path) -> None:
    """One runs at a time unless more are allowed; the one that was due first goes first."""
    entries = [scheduled("b", "0 1 * * *"), scheduled("a", "5 1 * * *"), scheduled("c", "10 1 * * *")]
    for at_once, most in ((1, 1), (2, 2)):
        world = Simulation(tmp_path / str(at_once), entries, at_once=at_once)
        world.launcher.takes = lambda *_: timedelta(hours=1)
        world.after(timedelta(hours=12))
        assert [name for name, _ in world.launcher.begun] == ["b", "a", "c"]
        assert world.launcher.most_at_once == most


def test_a_chained_job_waits_for_all_that_it_chains_on(tmp_path: Path) -> None:
    """Also where several may run at once, and where the upstream was late; one that chains on itself runs anyway."""
    entries = [
        scheduled("a_last", "0 1 * * *", input={"job": "middle", "key": ["id"]}),
        scheduled("middle", "0 1 * * *", input={"job": "z_first", "key": ["id"]}),
        scheduled("z_first", "0 1 * * *"),
        scheduled("round", "0 1 * * *", input={"job": "round", "key": ["id"]}),
    ]
    world = Simulation(tmp_path, entries, at_once=4)
    world.after(timedelta(hours=12))
    assert [name for name, _ in world.launcher.begun] == ["round", "z_first", "middle", "a_last"]


def test_a_scheduler_that_dies_begins_again_what_it_had_begun(tmp_path: Path) -> None:
    """The run of the same due time is begun once more, and settled then."""
    world = Simulation(tmp_path, [scheduled()])
    world.launcher.takes = lambda *_: timedelta(hours=5)
    world.until(datetime(2026, 1, 5, 4, tzinfo=UTC))
    world.restart()
    world.after(timedelta(days=3))
    world.restart()
    world.after(timedelta(days=3))
    assert world.launcher.times("shop") == [datetime(2026, 1, 5, hour, tzinfo=UTC) for hour in (3, 4)]


def test_a_stop_ends_runs_in_order_once(tmp_path: Path) -> None:
    """Nothing more is started; what runs is asked once, stays unfinished, and goes on after the next start."""
    world = Simulation(tmp_path, [scheduled(), scheduled("other", "5 3 * * 1")])
    world.launcher.takes = lambda *_: timedelta(hours=5)
    world.until(datetime(2026, 1, 5, 4, tzinfo=UTC))
    asked: list[str] = []
    world.launcher.runs[0].stop = lambda: asked.append("stop")  # type: ignore[method-assign]
    world.scheduler.stop()
    world.scheduler.step()
    world.scheduler.step()
    assert asked == ["stop"]
    world.launcher.runs[0].stopped = True
    world.scheduler.run()
    assert world.launcher.times("other") == []
    assert Memory(tmp_path).read()["shop"].unfinished == datetime(2026, 1, 5, 3, tzinfo=UTC)
    world.restart()
    world.after(timedelta(days=1))
    assert [name for name, _ in world.launcher.begun] == ["shop", "shop", "other"]


def test_a_run_that_a_stop_kills_goes_on_after_the_next_start(tmp_path: Path) -> None:
    """SIGTERM may come before the run minds it. One that something else kills has failed."""
    for stops, count in ((True, 2), (False, 1)):
        world = Simulation(tmp_path / str(stops), [scheduled()])
        world.launcher.codes = lambda *_: -15
        world.until(datetime(2026, 1, 5, 3, 1, tzinfo=UTC))
        if stops:
            world.scheduler.stop()
        world.after(timedelta(hours=1))
        world.restart()
        world.after(timedelta(hours=1))
        assert len(world.launcher.begun) == count


def test_max_hours_settles_a_due_time(tmp_path: Path) -> None:
    """A run that stopped by itself, to go on later, is not begun again before its next time."""
    world = Simulation(tmp_path, [scheduled()])
    world.launcher.codes = lambda *_: ExitCode.STOPPED
    world.after(timedelta(weeks=2))
    assert len(world.launcher.begun) == 2


def test_what_somebody_else_runs_is_tried_again(tmp_path: Path) -> None:
    """Where a person runs the job at that time, its due time comes once that has ended."""
    world = Simulation(tmp_path, [scheduled()])
    world.launcher.takes = lambda *_: timedelta(seconds=2)
    world.launcher.codes = lambda _name, number: ExitCode.BUSY if number < 3 else ExitCode.DONE
    world.after(timedelta(weeks=1))
    assert len(world.launcher.begun) == 4
    assert Memory(tmp_path).read()["shop"].unfinished is None


def test_a_job_that_fails_every_time_is_run_at_each_of_its_times(tmp_path: Path) -> None:
    """No more often, and no less; how it ended is remembered."""
    world = Simulation(tmp_path, [scheduled()])
    world.launcher.codes = lambda *_: ExitCode.FAILED
    world.after(timedelta(weeks=4))
    assert len(world.launcher.begun) == 4
    assert Memory(tmp_path).read()["shop"].exit_code == 1


def test_a_job_that_is_removed_while_it_runs_ends_its_run(tmp_path: Path) -> None:
    """It is not stopped; it is not begun again; others go on."""
    world = Simulation(tmp_path, [scheduled(), scheduled("other", "0 5 * * *")])
    world.launcher.takes = lambda *_: timedelta(hours=1)
    world.until(datetime(2026, 1, 5, 3, 30, tzinfo=UTC))
    world.entries = world.entries[1:]
    world.after(timedelta(weeks=2))
    assert len(world.launcher.times("shop")) == 1
    assert not world.launcher.runs[0].stopped
    assert "shop has no schedule any more." in world.said
    assert len(world.launcher.times("other")) == 18


def test_a_clock_that_went_wrong(tmp_path: Path) -> None:
    """Set back by an hour, nothing is run twice; set right after a year ahead, the job runs at its times again."""
    world = Simulation(tmp_path, [scheduled()])
    world.until(datetime(2026, 1, 5, 3, 30, tzinfo=UTC))
    world.clock.time -= timedelta(hours=1)
    world.after(timedelta(days=1))
    assert len(world.launcher.begun) == 1
    before = world.clock.now()
    world.clock.time += timedelta(days=366)
    world.after(timedelta(hours=1))
    world.clock.time = before
    world.after(timedelta(weeks=1))
    assert len(world.launcher.begun) == 3


def test_a_clock_that_begins_years_ago(tmp_path: Path) -> None:
    """Nothing runs until it is set, and then only what is due: also for a job that became known meanwhile."""
    world = Simulation(tmp_path, [scheduled()])
    world.after(timedelta(weeks=2))
    right, runs = world.clock.now(), len(world.launcher.begun)
    world.clock.time = datetime(1970, 1, 1, tzinfo=UTC)
    world.entries.append(scheduled("later", "0 4 * * 1"))
    world.restart()
    world.after(timedelta(minutes=5))
    assert "The clock says 1970-01-01T00:00:00Z, and jobs were run after that: set it" in world.said[-1]
    world.clock.time = right + timedelta(minutes=5)
    world.after(timedelta(days=1))
    assert len(world.launcher.begun) == runs
    world.after(timedelta(weeks=1))
    assert [name for name, _ in world.launcher.begun[runs:]] == ["shop", "later"]


@pytest.mark.long
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_year_of_everything(tmp_path: Path, zone: str) -> None:
    """Crashes, stops, downtime, overruns, failures and jobs that are held: each due time is run once, none twice, in order.

    Each run that came to its end stands for the due times since the one before it, which are some.
    """
    chance = random.Random(zone)
    hours = {"names": (3, 0, 0), "names_check": (3, 0, 0), "daily": (4, 15, None), "noon": (12, 0, None)}
    check = scheduled("names_check", "0 3 * * 1", zone, input={"job": "names", "key": ["id"]})
    others = [
        scheduled("names", "0 3 * * 1", zone),
        scheduled("daily", "15 4 * * *", zone),
        scheduled("noon", "0 12 * * *", zone),
    ]
    world = Simulation(tmp_path, [check, *others])
    world.launcher.takes = lambda _name, _number: timedelta(
        minutes=chance.choice([5, 20, 20, 90, 60 * 30, 60 * 24 * 9])
    )
    codes = [*[ExitCode.DONE] * 6, ExitCode.FAILED, ExitCode.REFUSED, ExitCode.STOPPED, ExitCode.BUSY]
    world.launcher.codes = lambda _name, _number: chance.choice(codes)
    idle = 0
    while world.clock.now() < START + YEAR:
        world.after(timedelta(hours=chance.expovariate(1 / 60)))
        if not world.scheduler._runs and not world.scheduler._held:  # so nothing may be left to do
            idle += 1
            for name, (hour, minute, weekday) in hours.items():
                last = max(days(zone, START, world.clock.now(), hour, minute, weekday), default=START)
                assert last == START or world.settled(name)[-1].begun >= last, (name, last)
        if chance.random() < 0.5:
            world.scheduler.stop()
            world.scheduler.step()
            world.scheduler.step()
        world.clock.time += timedelta(hours=chance.choice([0, 0, 0, 1, 30, 24 * 15]))
        world.restart()
    world.launcher.takes, world.launcher.codes = (lambda *_: timedelta(minutes=1)), (lambda *_: ExitCode.DONE)
    world.after(timedelta(days=9))
    end = world.clock.now()
    world.after(timedelta(days=2))
    assert idle >= 10
    ended = {name: world.settled(name) for name in hours}
    for name, (hour, minute, weekday) in hours.items():
        begun, before = [run.begun for run in ended[name]], START
        times = days(zone, START, end, hour, minute, weekday)
        for time in begun:
            assert [due for due in times if before < due <= time] or time > end, (name, time)
            before = time
        assert begun[-1] >= times[-1]
        assert len(begun) > 20
    for run in ended["names_check"]:
        upstream = max(other.ends for other in ended["names"] if other.begun <= run.begun)
        assert upstream <= run.begun
    assert world.launcher.most_at_once == 1


def test_a_run_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    """Memory or disk may be short for a while: it is said once, and the due time is kept."""
    world = Simulation(tmp_path, [scheduled()])

    def failing(_name: str, number: int) -> timedelta:
        if number < 5:
            raise StoreError("The disk is full.")
        return timedelta(minutes=1)

    world.launcher.takes = failing
    world.after(timedelta(weeks=1))
    assert len(world.launcher.begun) == 6
    assert sum("could not be started: The disk is full." in said for said in world.said) == 1
    assert Memory(tmp_path).read()["shop"].unfinished is None


def test_what_cannot_be_noted_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for an hour ends nothing: runs begin when there is room, and how they ended is noted then."""
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 60)
    world = Simulation(tmp_path, [scheduled()], start=datetime(2026, 1, 5, 2, 50, tzinfo=UTC))
    world.after(timedelta(minutes=1))
    write = Memory.write

    def full(_memory: Memory, _known: object) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(Memory, "write", full)
    world.after(timedelta(hours=1))
    assert world.launcher.begun == []
    assert sum("The disk is full. No run begins" in said for said in world.said) == 1
    monkeypatch.setattr(Memory, "write", write)
    world.after(timedelta(minutes=5))
    monkeypatch.setattr(Memory, "write", full)
    world.after(timedelta(hours=1))
    monkeypatch.setattr(Memory, "write", write)
    world.after(timedelta(minutes=5))
    assert len(world.launcher.begun) == 1
    assert Memory(tmp_path).read()["shop"].exit_code == 0


def test_a_chained_job_waits_for_one_that_is_held(tmp_path: Path) -> None:
    """Where a person runs the upstream at that time, the chained job does not go ahead with last week's version."""
    world = Simulation(
        tmp_path, [scheduled("below", input={"job": "above", "key": ["id"]}), scheduled("above")], at_once=2
    )
    world.launcher.takes = lambda *_: timedelta(seconds=2)
    world.launcher.codes = lambda name, number: ExitCode.BUSY if name == "above" and number < 3 else ExitCode.DONE
    world.after(timedelta(weeks=1))
    assert [name for name, _ in world.launcher.begun] == ["above"] * 4 + ["below"]
    assert sum("above: the run" in said and "ended (exit code 5)" in said for said in world.said) == 1


def test_another_line_leaves_no_times_open(tmp_path: Path) -> None:
    """From Monday to Wednesday on a Friday: the Wednesday that has passed was never this line's."""
    world = Simulation(tmp_path, [scheduled()])
    world.until(datetime(2026, 1, 9, tzinfo=UTC))
    world.entries = [scheduled(cron="0 3 * * 3")]
    world.restart()
    world.until(datetime(2026, 1, 16, tzinfo=UTC))
    assert world.launcher.times("shop") == [datetime(2026, 1, day, 3, tzinfo=UTC) for day in (5, 14)]


@pytest.mark.parametrize(
    ("engines", "most"),
    [
        ([{}, {}, {}], 1),  # replicas: auto takes all GPUs
        ([{"replicas": 1}] * 6, 4),
        ([{"replicas": 2}] * 3, 2),
        ([{"replicas": 1, "tensor_parallel": 2}, {"replicas": 1}, {"replicas": 1}, {"replicas": 1}], 3),
        ([{"replicas": 9}, {"replicas": 1}], 1),
        ([{"kind": "openai", "base_url": "http://host/v1"}] * 6, 4),  # a server's GPUs are its own
    ],
)
def test_as_many_jobs_run_as_there_are_gpus_for(tmp_path: Path, engines: list[dict[str, Any]], most: int) -> None:
    """None waits for a GPU while its max_hours pass; --at-once says otherwise; each due time is run."""
    asks: dict[str, Any] = {"model": {"id": "small"}, "prompt": {"template": "{{ id }}"}}
    entries = [scheduled(f"job{number}", engine=engine, **asks) for number, engine in enumerate(engines)]
    world = Simulation(tmp_path, entries, at_once=None, gpus=4)
    world.launcher.takes = lambda *_: timedelta(hours=3)
    world.after(timedelta(weeks=2))
    assert world.launcher.most_at_once == most
    assert {len(world.launcher.times(entry.name)) for entry in entries} == {2}


@pytest.mark.parametrize(
    ("zone", "line", "start"),
    [
        ("Europe/Berlin", "30 2 * * *", datetime(2026, 10, 24, 22, tzinfo=UTC)),
        ("Australia/Lord_Howe", "45 1 * * *", datetime(2026, 4, 4, 12, tzinfo=UTC)),
    ],
)
def test_no_look_follows_at_once_on_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, line: str, start: datetime
) -> None:
    """In a night in which an hour, or half of one, comes twice, too: a scheduler that does not sleep keeps a core busy."""
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 60)
    world = Simulation(tmp_path, [scheduled(cron=line, timezone=zone)], start=start)
    for _ in range(400):
        seconds = world.scheduler.step()
        assert seconds > 0
        world.clock.time += timedelta(seconds=min(seconds, 60))
    assert len(world.launcher.begun) == 1


def test_a_failure_of_the_scheduler_stops_its_runs(tmp_path: Path) -> None:
    """They are asked to end in order, and what went wrong is raised."""
    world = Simulation(tmp_path, [scheduled()])
    world.until(datetime(2026, 1, 5, 3, 1, tzinfo=UTC))

    def broken() -> list[ScheduledJob]:
        raise StoreError("The folder is gone.")

    world.entries = []
    world.scheduler._source = broken
    with pytest.raises(StoreError, match="gone"):
        world.scheduler.run()
    assert world.launcher.runs[0].stopped


def test_one_scheduler_for_a_folder(tmp_path: Path) -> None:
    """A second one is told who does it already."""
    with (
        Memory(tmp_path).scheduling(),
        pytest.raises(Busy, match=r"are scheduled by batchinfer schedule run \(process"),
        Memory(tmp_path).scheduling(),
    ):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1, "jobs": {"a": 1}}', b'{"format": 1, "jobs": {"a": {"since": null}}}']
)
def test_a_damaged_memory_is_said(tmp_path: Path, content: bytes) -> None:
    """With what to do."""
    memory = Memory(tmp_path)
    memory.folder.mkdir()
    (memory.folder / "jobs.json").write_bytes(content)
    with pytest.raises(StoreError, match="Remove it: jobs then run at their next times"):
        memory.read()


def test_a_memory_of_a_newer_program(tmp_path: Path) -> None:
    """It is not guessed at."""
    memory = Memory(tmp_path)
    memory.folder.mkdir()
    (memory.folder / "jobs.json").write_text('{"format": 2, "jobs": {}}')
    with pytest.raises(StoreError, match="newer batchinfer"):
        memory.read()


def test_failures_are_handed_on(tmp_path: Path) -> None:
    """A run that failed is told to who asked for it, with its beginning; not one that was refused, stopped or cut."""
    codes = [
        ExitCode.FAILED,
        ExitCode.DONE,
        ExitCode.REFUSED,
        ExitCode.STOPPED,
        ExitCode.INTERRUPTED,
        ExitCode.USAGE,
        -9,
    ]
    failed = list[tuple[str, datetime, str]]()
    simulation = Simulation(tmp_path, [scheduled()])
    simulation.launcher.codes = lambda _name, number: codes[number] if number < len(codes) else -15
    simulation.scheduler._on_failure = lambda *facts: failed.append(facts)
    simulation.after(timedelta(weeks=len(codes)))
    begun = simulation.launcher.times("shop")
    assert failed == [("shop", begun[number], "It was long.") for number in (0, 5, 6)]
    simulation.until(simulation.clock.now() + timedelta(weeks=1) - timedelta(days=2, hours=20, minutes=55))
    simulation.scheduler.stop()
    simulation.after(timedelta(hours=1))
    assert simulation.launcher.runs[-1].stopped
    assert len(failed) == 3, "what was stopped with the scheduler did not fail"
