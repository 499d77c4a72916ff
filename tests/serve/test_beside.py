"""Work that is done again and again beside the event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator

import pytest

from batchinfer.serve.beside import repeat


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the log says."""
    logger = logging.getLogger("batchinfer")
    before, logger.propagate = logger.propagate, True
    yield caplog
    logger.propagate = before


def test_a_fault_that_lasts_is_logged_once(said: pytest.LogCaptureFixture) -> None:
    """And again when it comes back, but not where it and another one take turns. What the system says is a sentence, no trace."""
    full = OSError(errno.ENOSPC, "No space left on device", "/run/numbers.json")
    faults: list[Exception | None] = [full, full, full, None, full, KeyError("x"), full, KeyError("y"), None]
    done = asyncio.Event()

    async def several() -> None:
        task = asyncio.create_task(repeat(work, 0.0))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def work() -> None:
        if not faults:
            loop.call_soon_threadsafe(done.set)
        elif (fault := faults.pop(0)) is not None:
            raise fault

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(several())
    finally:
        loop.close()
    sentence = "The service could not be brought up to date: /run/numbers.json: No space left on device."
    assert [record.getMessage() for record in said.records] == [
        sentence,
        sentence,
        "The service could not be brought up to date.",
    ]
    assert [record.exc_info is None for record in said.records] == [True, True, False]
