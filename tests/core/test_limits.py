"""The time that work may take."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import threading

import pytest

from batchinfer.core.limits import TookTooLong, time_limit


def _endless() -> None:
    re.fullmatch("(a+)+", "a" * 60 + "b")


def test_work_that_never_ends_is_ended() -> None:
    """A search ends, and the next work has its whole time."""
    for _ in range(2):
        with pytest.raises(TookTooLong), time_limit(0.05):
            _endless()
        with pytest.raises(TookTooLong), time_limit(0.05):
            all(number >= 0 for number in itertools.count())


def _swallows(_: object) -> bool:
    with contextlib.suppress(Exception):
        _endless()
    return True


@pytest.mark.parametrize("then", [1, 3], ids=["once", "again"])
def test_work_that_swallows_exceptions_is_ended(then: int) -> None:
    """What it gives then is not taken, and it does not go on without a limit."""
    with pytest.raises(TookTooLong), time_limit(0.02):
        assert all(map(_swallows, range(then)))


def test_an_error_that_the_end_caused_is_not_taken_for_the_works_own() -> None:
    """Others' code raises what it likes where it was interrupted."""
    with pytest.raises(TookTooLong), time_limit(0.02):
        assert not _swallows(0), "nothing there"


def test_waiting_does_not_count() -> None:
    """Work that waits, as it does on a busy machine, has its time left."""
    with time_limit(0.05):
        threading.Event().wait(0.2)


def test_nothing_is_left_behind() -> None:
    """However the work ends, the handler of the signal and the timer are what they were."""
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(ValueError, match="own"), time_limit(10):
        raise ValueError("its own")
    with pytest.raises(TookTooLong), time_limit(0.01):
        _endless()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_another_thread_has_no_limit() -> None:
    """Where Python cannot be interrupted the work is done without a limit."""
    done: list[bool] = []

    def work() -> None:
        with time_limit(0.001):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
