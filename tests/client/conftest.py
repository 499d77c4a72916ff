"""Fixtures of the client's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.client.scripted import Scripted


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A scripted one, since the real service does not fail on demand."""
    with Scripted() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.released.set()
        made.shutdown()
        thread.join()
