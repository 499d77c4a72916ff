"""Fixtures of the client's tests: both ways to look up, and a scripted server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.client.types import Hit, LookupOutcome
from batchinfer.errors import BatchinferError
from tests.client.scripted import Scripted
from tests.factories import World
from tests.serving import serving


@pytest.fixture(params=["http", "folder"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """A service of the data folder that a file's tests share, their `root`."""
    with serving(root, root.parent / "server", "--no-misses") as server:
        yield server.url


@pytest.fixture
def source(way: str, root: Path, request: pytest.FixtureRequest) -> str | Path:
    """That data folder or that service, the one way or the other."""
    return root if way == "folder" else str(request.getfixturevalue("address"))


@pytest.fixture
def live(way: str, world: World, tmp_path: Path) -> Iterator[str | Path]:
    """The data folder of a test's `world`, or a service of its own for it."""
    if way == "folder":
        yield world.data.root
        return
    with serving(world.data.root, tmp_path / "server", "--no-misses") as server:
        yield server.url


def hits(found: list[LookupOutcome]) -> list[Hit]:
    """What was found among many."""
    return [hit for hit in found if isinstance(hit, dict)]


def outcome(ask: Callable[[], Any]) -> Any:
    """What came of asking, so that errors can be compared, too."""
    try:
        found = ask()
        return (
            [str(item) if isinstance(item, BatchinferError) else item for item in found]
            if isinstance(found, list)
            else found
        )
    except BatchinferError as exc:
        return type(exc), str(exc)


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
