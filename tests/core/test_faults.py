"""What is logged of a fault that lasts."""

from __future__ import annotations

import errno
import logging

import pytest

from batchinfer.core.faults import LastingFaults
from batchinfer.errors import StoreError

SAID = {
    "/run/x: No space left on device.": OSError(errno.ENOSPC, "No space left on device", "/run/x"),
    "the system does not count bytes.": OSError("the system does not count bytes"),
    "TimeoutError.": TimeoutError(),
    "x.json is damaged.": StoreError("x.json is damaged."),
}


@pytest.mark.parametrize("sentence", SAID)
def test_a_fault_is_a_sentence(sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that the system gave no words, or no number."""
    LastingFaults(logging.getLogger("faults"), "It could not be done").note(SAID[sentence])
    [record] = caplog.records
    assert record.getMessage() == f"It could not be done: {sentence}"
    assert record.exc_info is None


def test_a_fault_is_told_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever number its text has, and whatever comes between."""
    faults = LastingFaults(logging.getLogger("faults"), "It could not be done")
    for number in range(3):
        faults.note(StoreError(f"{number} things are damaged."))
        faults.note(KeyError(number))
    assert len(caplog.records) == 2
    assert caplog.records[1].exc_info is not None
    faults.over()
    faults.note(StoreError("3 things are damaged."))
    assert len(caplog.records) == 3
