"""How many requests a server gets at a time."""

from __future__ import annotations

import random

from batchinfer.engines.flow import FIRST, MOST_ASKED, MOST_GONE, MOST_WAIT, RequestFlow


def flow(most: int = 512) -> RequestFlow:
    return RequestFlow(most, random.Random(1))


def test_it_doubles_with_each_round_until_it_is_too_much() -> None:
    """Each answer allows one more, which doubles the limit with each round; it stays below the most."""
    made = flow(100)
    for _ in range(FIRST):
        made.answered()
    assert made.limit == 2 * FIRST
    for _ in range(500):
        made.answered()
    assert made.limit == 100


def test_it_does_not_grow_while_answers_wait_their_turn() -> None:
    """More in flight would only wait longer, until it is taken for lost."""
    made = flow()
    made.answered(grows=False)
    assert made.limit == FIRST


def test_it_halves_once_for_each_round_and_grows_by_one() -> None:
    """However many of a round were too much, it halves once; then a round of answers adds one."""
    made = flow()
    rounds = [made.sent() for _ in range(made.room(0.0))]
    for each in rounds:
        made.too_much(each)
    assert made.limit == FIRST / 2
    for _ in range(FIRST // 2):
        made.answered()
    assert FIRST / 2 + 0.9 < made.limit <= FIRST / 2 + 1
    for _ in range(40):
        made.too_much(made.sent())
    assert made.limit == 1.0


def test_it_waits_longer_with_each_time_in_vain() -> None:
    """Half a second, one, two … a minute at most, and a bit more by chance; an answer begins again."""
    made, now, waits = flow(), 0.0, list[float]()
    for _ in range(12):
        made.wait(now)
        waits.append(made.until - now)
        now = made.until
    assert [round(wait / least) for wait, least in zip(waits[:4], (0.5, 1, 2, 4), strict=True)] == [1, 1, 1, 1]
    assert MOST_WAIT <= waits[-1] <= 1.25 * MOST_WAIT
    made.answered()
    made.wait(now)
    assert made.until - now < 1
    for _ in range(8):
        made.gone(made.until)
    before = made.until
    made.gone(before)
    assert MOST_GONE <= made.until - before <= 1.25 * MOST_GONE


def test_what_a_server_asks_for_is_honoured_up_to_a_bound() -> None:
    """Retry-After is the least that is waited for, and ten minutes are the most."""
    made = flow()
    made.shed(made.sent(), 0.0, 7.0)
    assert 7.0 <= made.until <= 7.0 * 1.25
    assert made.room(6.9) == 0
    made.shed(made.sent(), 0.0, 1e9)
    assert MOST_ASKED <= made.until <= MOST_ASKED * 1.25


def test_one_that_sheds_some_of_its_load_is_not_waited_for() -> None:
    """As long as it answers others in between, it gets fewer at a time, and no pause."""
    made = flow()
    for _ in range(5):
        made.shed(made.sent(), 0.0, None)
        made.answered()
    assert made.until == 0.0
    made.shed(made.sent(), 0.0, None)
    made.shed(made.sent(), 0.0, None)
    assert made.until > 0.0


def test_a_server_that_asks_for_no_wait_gets_one() -> None:
    """Retry-After: 0, time after time, is no reason to ask without a pause; a burst of one round waits once."""
    made, now = flow(), 0.0
    for _ in range(4):
        for _ in range(8):
            made.shed(made.sent(), now, 0.0)
        assert made.until > now
        now = made.until
    assert 0.5 + 1 + 2 + 4 <= now <= 1.25 * 7.5
