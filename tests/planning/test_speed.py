"""Seconds by what a model computes, fitted over chunks."""

from __future__ import annotations

import math
import random

import pytest

from batchinfer.cache.chunks import ChunkTime
from batchinfer.planning.rates import load_seconds
from batchinfer.planning.speed import USUAL, LoadTime, Speed, Work

ROOM = 10  # rows of each chunk here
PROMPT, OUTPUT = 0.002, 0.03  # seconds for a token
# of a run's report
WHOLE = {"model": "m", "rows_per_second": 5.0, "engine_load_seconds": 10.0, "seconds": 40.0, "generation_seconds": 28.0}


def chunk(prompt: int, output: int, *, noise: float = 1.0, cached: int = 0) -> ChunkTime:
    seconds = (PROMPT * prompt + OUTPUT * output) * noise
    return ChunkTime(10, prompt + cached, cached, output, seconds)


def speed_of(chunks: list[ChunkTime], load: float = 0.0) -> Speed:
    found = Speed.of([chunks], LoadTime(load, 0.0), ROOM)
    assert found is not None
    return found


def test_both_kinds_of_tokens_are_told_apart() -> None:
    """From chunks with long prompts and chunks with long answers; what prefix caching saved costs nothing."""
    mixes = [(1000, 10), (1000, 200), (50, 200), (400, 90), (2000, 10), (10, 400)]
    found = speed_of([chunk(*mix, cached=500) for mix in mixes * 4])
    assert (found.full.prompt, found.full.output) == pytest.approx((PROMPT, OUTPUT), rel=0.05)
    assert found.off < USUAL


@pytest.mark.parametrize("chunks", [
    [ChunkTime(10, 100, 0, 10, 1.0), ChunkTime(10, 100, 0, 90, 0.9)],  # more output, less time
    [ChunkTime(10, 10, 0, 100, 1.0), ChunkTime(10, 90, 0, 100, 0.9)],
    [ChunkTime(10, 100, 0, 10, 1.0), ChunkTime(10, 200, 0, 20, 2.0), ChunkTime(10, 50, 0, 5, 0.5)],  # always the same mix
    [ChunkTime(10, 100, 100, 10, 1.0)],
])  # fmt: skip
def test_no_token_takes_less_than_no_time(chunks: list[ChunkTime]) -> None:
    """Whatever the chunks say; and all of them together are foretold much as they were."""
    found = speed_of(chunks)
    assert min(found.full.prompt, found.full.output) >= 0
    whole = Work(ROOM, sum(each.computed_tokens for each in chunks), sum(each.output_tokens for each in chunks))
    assert found.estimate(whole).seconds == pytest.approx(sum(each.seconds for each in chunks), rel=0.25)


def test_chunks_that_say_nothing_are_left_out() -> None:
    """Such as one in which all rows failed before they were asked."""
    assert Speed.of([], None, ROOM) is None
    assert Speed.of([[ChunkTime(7, 0, 0, 0, 3.0)]], None, ROOM) is None
    assert speed_of([ChunkTime(7, 0, 0, 0, 3.0), chunk(100, 10)]).chunks == 1


def test_loading_is_added_once() -> None:
    """It takes as long however much is asked."""
    found = speed_of([chunk(1000, 10), chunk(50, 200)], load=20.0)
    assert found.estimate(Work(ROOM, 0, 0)).seconds == 20.0
    assert found.estimate(Work(ROOM, 1000, 100)).seconds == pytest.approx(20 + 1000 * PROMPT + 100 * OUTPUT, abs=0.3)


def test_the_interval_holds_what_a_chunk_may_be_off() -> None:
    """Of 400 machines of which each chunk is off by a fifth, it has the next chunk's time in about 95 of 100, loading apart."""
    drawn, hits = random.Random(7), 0
    for _ in range(400):
        noises = [math.exp(drawn.gauss(0, 0.2)) for _ in range(13)]
        mixes = [(drawn.randint(100, 1000), drawn.randint(20, 200)) for _ in noises]
        *seen, last = [chunk(*mix, noise=noise) for mix, noise in zip(mixes, noises, strict=True)]
        found = speed_of(seen, load=5.0).estimate(Work(ROOM, last.computed_tokens, last.output_tokens))
        assert found.low is not None
        assert found.high is not None
        assert 5.0 <= found.low <= found.seconds <= found.high
        hits += found.low <= 5.0 + last.seconds <= found.high
    assert 0.90 <= hits / 400 <= 0.99


def test_few_chunks_give_a_wide_interval() -> None:
    """One, which fits in any case, does not tell how far another may be off: that is taken to be as usual, and learned."""
    few, many = (
        speed_of([chunk(1000, 100 + number) for number in range(count)]).estimate(Work(ROOM, 100_000, 10_000))
        for count in (1, 40)
    )
    assert few.low is not None
    assert many.low is not None
    assert few.seconds == pytest.approx(many.seconds, rel=0.05)
    assert 0 < few.low < many.low < many.seconds


def test_an_engine_with_few_prompts_is_slower_for_each() -> None:
    """Written side by side, four times as many answers take hardly longer: up to the engine's room. The interval has both ends."""
    probed = Speed.of([[ChunkTime(8, 0, 0, 80, 4.0)]], LoadTime(0.0, 0.0), 32)
    assert probed is not None
    full = probed.estimate(Work(320, 0, 3200))
    assert full.seconds == 40.0  # ten times 32 prompts, each of which take what eight took
    assert full.low is not None
    assert full.high is not None
    assert full.low < 40.0
    assert full.high > 160.0  # as if each took as long as one of eight
    assert probed.estimate(Work(8, 0, 80)).seconds == 4.0
    assert probed.estimate(Work(4, 0, 40)).seconds == 4.0


def test_a_run_takes_more_than_its_generation() -> None:
    """Loading, reading the list and publishing, by the median of runs of that model; of older runs loading is known."""
    older = {"model": "m", "rows_per_second": 5.0, "engine_load_seconds": 9.0, "seconds": 40.0}
    other = {"model": "x", "rows_per_second": 5.0, "engine_load_seconds": 99.0}
    nothing = {"model": "m", "rows_per_second": None, "engine_load_seconds": 0.0, "seconds": 1.0}
    waited = WHOLE | {"seconds": 3640.0, "waiting_seconds": 3600.0}
    assert load_seconds([nothing, other, WHOLE, waited, older], "m") == [12.0, 12.0, 9.0]
    assert load_seconds([other], "m") == []


def test_evaluations_tell_what_loading_takes_where_no_run_does() -> None:
    """They load the same model, and publish nothing."""
    aside = {"arm": "job", "model": "m", "engine_load_seconds": 8.0, "generated": 20}
    other = aside | {"model": "x"}
    assert load_seconds([aside, other], "m") == [8.0]
    assert load_seconds([aside, WHOLE], "m") == [12.0]


def test_loading_is_as_uncertain_as_it_was() -> None:
    """Once it is unknown by half; the more runs took as long, the less. Where nobody knows it, no interval is told."""
    one, five = LoadTime.of([60.0]), LoadTime.of([60.0, 61.0, 59.0, 60.0, 300.0])
    assert one == LoadTime(60.0, 30.0)
    assert five is not None
    assert five.seconds == 60.0
    assert five.off == pytest.approx(108, abs=2)
    assert LoadTime.of([]) is None
    told = Speed.of([[chunk(100, 10)]], one, ROOM)
    silent = Speed.of([[chunk(100, 10)]], None, ROOM)
    assert told is not None
    assert silent is not None
    found = told.estimate(Work(ROOM, 1, 0))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 10
    assert found.high > 110
    assert silent.estimate(Work(ROOM, 100, 10)).low is None


def test_the_interval_is_wide_for_a_mix_that_was_not_seen() -> None:
    """Chunks of one mix do not tell its tokens apart; prompts of forty times the length may take anything between."""
    drawn = random.Random(3)
    seen = [chunk(1000 + drawn.randint(-30, 30), 100, noise=drawn.gauss(1, 0.05)) for _ in range(20)]
    alike, other = (speed_of(seen).estimate(Work(ROOM, prompt, 100)) for prompt in (1000, 40_000))
    for found, true in ((alike, PROMPT * 1000 + OUTPUT * 100), (other, PROMPT * 40_000 + OUTPUT * 100)):
        assert found.low is not None
        assert found.high is not None
        assert found.low <= true <= found.high
    assert alike.high is not None
    assert alike.high < 2 * alike.seconds
    assert other.high is not None
    assert other.high > 1.3 * other.seconds
