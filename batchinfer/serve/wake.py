"""What wakes the main process: signal handlers may, wherever they break in."""

from __future__ import annotations

import contextlib
import os
import select


class Wake:
    """In place of a threading.Event, whose lock a handler would wait for if it broke in while its own thread holds it.

    The kernel counts who woke it, so there is no lock. Forks share it: a woken main process looks what there is to do.
    """

    def __init__(self) -> None:
        self._count = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._count, select.POLLIN)

    def set(self) -> None:
        os.eventfd_write(self._count, 1)

    def wait(self, seconds: float) -> bool:
        """Whether somebody has woken it since it was cleared, or does before the time is up."""
        return bool(self._poll.poll(seconds * 1000))

    def clear(self) -> None:
        """Forgets who woke it so far."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._count)
