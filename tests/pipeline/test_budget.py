"""What a run used, what that cost, and how a budget ends it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache.schema import RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.cost import Cost, Devices, Price, money_text
from batchinfer.core.home import JobData
from batchinfer.engines.devices import Gpu, Placement, devices_of
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.process import LocalProcess, launch_here
from batchinfer.engines.protocol import EngineConfig
from batchinfer.errors import SpecError, Stopped, UsageError
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline.budget import Budget
from batchinfer.pipeline.generate import CHUNK
from batchinfer.pipeline.meter import Meter, cost_of
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.run import run
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.prepare import Options
from tests.scripted import DRIVER
from tests.tiny import RecordingConsole, make_job, numbered, scripted, stored, write_job

ROWS = 1000
PRICE = {"per_gpu_hour": 3600.0, "currency": "EUR"}  # a EUR a second


@pytest.fixture
def priced(tmp_path: Path, tiny: Path) -> tuple[Job, JobData]:
    return make_job(tmp_path / "job", numbered(ROWS), tiny, cost=PRICE)


def costs(data: JobData) -> list[Cost | None]:
    """Of the runs, the newest first."""
    return [Cost.of(row.report.get("cost")) for row in Store(data.cache).runs()]


class Clock:
    """Of the run: it stands still unless a test lets time pass."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in ("stop", "meter"):
        monkeypatch.setattr(f"batchinfer.pipeline.{module}.time", made)
    return made


@pytest.mark.long
def test_a_budget_ends_a_run_within_a_chunk_and_a_larger_one_goes_on(
    priced: tuple[Job, JobData], tmp_path: Path, clock: Clock
) -> None:
    """The run ends resumably; the same budget is spent then, before anything is asked; a larger one is enough for the rest."""
    job, data = priced
    with scripted(tmp_path / "engine.log", answer="echo", in_flight=32) as pool:
        console = RecordingConsole(at={300: lambda: clock.passes(3)})
        with pytest.raises(Stopped, match=r"reached its budget of 2\.00 EUR") as stopped:
            run(job, data, Options(budget=2.0), console, pool)
        assert stopped.value.exit_code == 4
        answered, _ = stored(data)
        assert 300 <= answered <= 300 + CHUNK < ROWS
        assert [cost.money for cost in costs(data) if cost] == [3.0]
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        with pytest.raises(Stopped, match="is spent: the runs since the last that left nothing to do cost 3"):
            run(job, data, Options(budget=2.0), RecordingConsole(), pool)
        assert stored(data)[0] == answered
        report = run(job, data, Options(budget=4.0), RecordingConsole(), pool)
    assert (report.generated, report.version) == (ROWS - answered, 1)
    with scripted(tmp_path / "engine.log", answer="echo") as pool:  # it came to its end: the next begins at nothing
        again = run(job, data, Options(budget=0.000001), RecordingConsole(), pool)
    assert again.cost is not None
    assert (again.cost.device, again.cost.device_seconds, again.cost.money) == (None, 0.0, 0.0)


def test_waiting_for_the_next_model_costs_nothing(priced: tuple[Job, JobData], clock: Clock) -> None:
    """A budget is of device time, not of the clock on the wall."""
    job, _ = priced
    stop, meter = Stop(None, lambda _: None), Meter()
    budget = Budget.of(job, 10.0, [])
    assert budget is not None
    budget.bound(stop, meter)
    for seconds, is_over in ((4, False), (5, False), (2, True)):
        with meter.until_released():
            meter.hold(Devices("cpu", 1), "small")
            clock.passes(seconds)
            assert stop.requested() is is_over
        clock.passes(100)
    with pytest.raises(Stopped, match=r"cost 11\.00 EUR"):
        budget.check(meter)


@pytest.mark.long
def test_a_budget_that_loading_takes_ends_the_run(priced: tuple[Job, JobData], tmp_path: Path, clock: Clock) -> None:
    """Nothing is asked then: the load of a large model may cost more than was meant for all of the list."""
    job, _ = priced
    stop, meter = Stop(None, lambda _: None), Meter()
    budget = Budget.of(job, 2.0, [])
    assert budget is not None
    budget.bound(stop, meter)

    def passes() -> None:
        clock.passes(1)
        stop.check()

    options = EngineConfig("a script", options={"loads": ["hang"], "diary": str(tmp_path / "diary")})
    meter.hold(Devices("cpu", 1), "small")
    pool = EnginePool(options, [Placement(cores=(0,))], tmp_path / "log", driver=DRIVER, meanwhile=passes)
    with pool, pytest.raises(Stopped, match="reached its budget"):
        pool.wait_ready()


def test_a_bound_that_the_last_answers_passed_is_no_matter(
    priced: tuple[Job, JobData], tmp_path: Path, clock: Clock
) -> None:
    """Nothing is left to ask: the version is published, and the next run begins at nothing."""
    job, data = priced
    console = RecordingConsole(at={ROWS: lambda: clock.passes(60)})
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        report = run(job, data, Options(budget=2.0), console, pool)
    assert (report.version, report.remaining) == (1, 0)
    assert report.cost is not None
    assert report.cost.money == 60.0


def test_runs_of_a_few_rows_add_up(priced: tuple[Job, JobData], tmp_path: Path, clock: Clock) -> None:
    """--limit leaves something to do, so what it cost counts until a run leaves nothing."""
    job, data = priced
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        for _ in range(2):
            run(job, data, Options(limit=10, budget=10.0), RecordingConsole(at={5: lambda: clock.passes(3)}), pool)
        with pytest.raises(Stopped, match=r"cost 6\.00 EUR"):
            run(job, data, Options(limit=10, budget=5.0), RecordingConsole(), pool)


def test_what_a_run_used_is_recorded(priced: tuple[Job, JobData], tmp_path: Path) -> None:
    """Device-seconds, tokens and money, as --json has them; a publishing used nothing."""
    job, data = priced
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        report = run(job, data, Options(), RecordingConsole(), pool)
    cost = report.cost
    assert cost is not None
    assert cost.device == "cpu"
    assert cost.device_seconds >= report.engine_load_seconds
    assert cost.money == pytest.approx(cost.device_seconds)
    assert cost.currency == "EUR"
    with Store(data.cache).open() as db:
        tokens = db.execute(
            "SELECT sum(prompt_tokens), sum(cached_tokens), sum(output_tokens) FROM generations"
        ).fetchone()
    assert (cost.prompt_tokens, cost.cached_tokens, cost.output_tokens) == tokens
    assert report.to_json()["cost"] == cost.to_json() == costs(data)[0].to_json()  # type: ignore[union-attr]


def test_a_plan_says_what_the_rest_would_cost(priced: tuple[Job, JobData], tmp_path: Path) -> None:
    """As long as it takes, at the price of the device; nothing is said before the first run, and without a price."""
    job, data = priced
    assert (plan(job, data, Options()).estimate_money, plan(job, data, Options()).currency) == (None, None)
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        cost = run(job, data, Options(limit=100), RecordingConsole(), pool).cost
    assert cost is not None
    assert cost.money is not None
    after = plan(job, data, Options())
    assert after.estimate is not None
    assert after.estimate_money == pytest.approx(after.estimate.seconds)
    assert after.currency == "EUR"


def test_a_run_that_is_killed_said_what_it_used(priced: tuple[Job, JobData], tmp_path: Path) -> None:
    """With each chunk the ledger is written, too: a kill hides no money from the budget."""
    job, data = priced
    seen: list[Cost | None] = []
    console = RecordingConsole(at={600: lambda: seen.extend(costs(data))})
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        run(job, data, Options(), console, pool)
    [sofar] = seen
    assert sofar is not None
    assert sofar.output_tokens > 0
    with Store(data.cache).open(write=True) as db:
        db.execute("UPDATE runs SET status = ?, report = ?", [RunStatus.KILLED, f'{{"cost": {{{_fields(2.5)}}}}}'])
    budget = Budget.of(job, 2.0, Store(data.cache).runs())
    assert budget is not None
    with pytest.raises(Stopped, match=r"cost 2\.50 EUR"):
        budget.check(Meter())


def _fields(money: float) -> str:
    return (
        '"device": "cpu", "device_seconds": 1.0, "prompt_tokens": 1, "cached_tokens": 0, "output_tokens": 1, '
        f'"money": {money}, "currency": "EUR"'
    )


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    """Without a section cost it is bad usage, said before anything is read."""
    job, data = make_job(tmp_path / "job", numbered(3))
    with pytest.raises(UsageError, match=r"--budget needs a price, and .*job.yaml names none") as refused:
        run(job, data, Options(budget=20.0), RecordingConsole())
    assert refused.value.exit_code == 2
    assert not data.folder.exists()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"per_gpu_hour": 0}, "cost.per_gpu_hour"),
        ({"per_gpu_hour": -1.5}, "cost.per_gpu_hour"),
        ({"per_gpu_hour": float("nan")}, "cost.per_gpu_hour"),
        ({"per_gpu_hour": 2.5, "currency": "$"}, "cost.currency"),
        ({"currency": "USD"}, "cost.per_gpu_hour"),
        ({"per_gpu_hour": 2.5, "per_month": 3}, "cost.per_month"),
    ],
)
def test_bad_prices(tmp_path: Path, section: dict[str, Any], said: str) -> None:
    """Each is named with its line."""
    path = write_job(tmp_path / "job", numbered(1), cost=section)
    with pytest.raises(SpecError, match=said):
        reader.load(str(path), {})


def test_what_is_held() -> None:
    """All GPUs count, those of one engine as those of several; the CPUs of a machine are one."""
    gpus = [Gpu(str(number), f"GPU-{number}", "H200", 0) for number in range(4)]
    assert devices_of([Placement(gpus=tuple(gpus[:2])), Placement(gpus=tuple(gpus[2:]))]) == Devices("gpu", 4)
    assert devices_of([Placement(cores=(0,)), Placement(cores=(1,))]) == Devices("cpu", 1)


def test_a_meter_counts_only_while_devices_are_held(clock: Clock) -> None:
    """Two GPUs for ten seconds and one for five are 25 device-seconds, whatever passes between."""
    meter = Meter()
    with meter.until_released():
        clock.passes(1000)  # waiting for them
        meter.hold(Devices("gpu", 2), "small")
        clock.passes(10)
        assert meter.device_seconds == 20
    clock.passes(1000)
    with meter.until_released():
        meter.hold(Devices("gpu", 1), "large")
        clock.passes(5)
    assert [meter.seconds_of(model) for model in ("small", "large", "none")] == [20, 5, 0]
    assert meter.device_seconds == 25
    assert cost_of(Progress(), "gpu", 25, Price(3.6, "USD")).money == pytest.approx(0.025)
    assert cost_of(Progress(), "gpu", 25, None).money is None


@pytest.mark.parametrize(
    ("money", "text"),
    [(0.0, "0.00 USD"), (1234.5, "1,234.50 USD"), (1.0, "1.00 USD"), (0.1234, "0.12 USD"), (0.000123, "0.00012 USD")],
)
def test_sums_for_people(money: float, text: str) -> None:
    """Small ones keep two digits that say something."""
    assert money_text(money, "USD") == text


@pytest.mark.parametrize("document", [None, 3, {}, {"device": "cpu"}, {"money": "much"}])
def test_a_ledger_that_says_nothing(document: Any) -> None:
    """Runs of older programs have none, and none is no failure."""
    assert Cost.of(document) is None


def test_what_has_no_place_is_not_paid(tmp_path: Path) -> None:
    """Of a cluster only the engines that have a node count, and of CPUs the nodes."""

    def launch(driver: str, config: EngineConfig, placement: Placement, log: Path) -> LocalProcess:
        started = launch_here(driver, config, placement, log)
        if placement.cores != (0,):  # as on a cluster that has no node for it yet
            started.node = None
        return started

    places = [Placement(cores=(0,)), Placement(cores=(0,)), Placement(cores=(1,))]
    config = EngineConfig("a script", options={"answer": "echo"})
    with EnginePool(config, places, tmp_path / "log", driver=DRIVER, launch=launch, least=1) as pool:
        assert pool.devices == Devices("cpu", 1)
        for member in pool._members[1:]:
            member.process.node = "other"
        assert pool.devices == Devices("cpu", 2)
    gpus = EnginePool(config, [Placement(gpus=(Gpu("0", "GPU-a", "H", 1),))] * 2, tmp_path / "log", least=1)
    assert gpus.devices == Devices("gpu", 0)


def test_devices_that_come_later_count_from_then_on(clock: Clock) -> None:
    """And what was held before stays counted."""
    meter = Meter()
    with meter.until_released():
        for count, seconds in ((0, 100), (2, 10), (3, 1)):
            meter.hold(Devices("gpu", count), "model")
            clock.passes(seconds)
    assert meter.device_seconds == 23
