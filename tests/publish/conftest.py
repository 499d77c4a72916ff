"""Jobs for the tests of publishing, and what they look at."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.core.records import Failure
from batchinfer.errors import GateFailed
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import PREDICTIONS
from tests.factories import Reply, Templates, World, model_job

Make = Callable[..., World]
REFUSED = Failure(None, "engine", "refused", "The engine would not.")
OPEN = {"coverage": 0, "failures": 1, "shrink": 1, "changed": 1, "carried": 1}  # a gate that lets everything through
MOMENT = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows."""

    def job(rows: dict[str, Any], **sections: Any) -> World:
        return model_job(tmp_path, rows, **sections)

    return job


def echoed(folder: Path, count: int) -> World:
    """A job that serves so many keys, from 1 on, with the texts a, b, c, ..."""
    world = model_job(folder, {"id": list(range(1, count + 1)), "text": list("abcdef"[:count])})
    world.answer(echo)
    world.publish()
    return world


@pytest.fixture
def served(templates: Templates, tmp_path: Path) -> Make:
    """A copy of `echoed`, perhaps with other sections in its job file."""

    def job(count: int, **sections: Any) -> World:
        world = templates.world(echoed, tmp_path, count)
        return world.changed(**sections) if sections else world

    return job


def echo(row: dict[str, Any]) -> Reply:
    return f"about {row['text']}"


def folder(world: World, version: int) -> Path:
    return folders.folder_of(world.data, version)


def current(world: World) -> int:
    return pointers.served(world.data).version


def entries(world: World, version: int) -> dict[Any, dict[str, Any]]:
    """A version's rows in predictions.parquet, by their id."""
    return {row["id"]: row for row in pq.read_table(folder(world, version) / PREDICTIONS).to_pylist()}


def same_but_for_time(body: bytes | None, expected: str) -> bool:
    """Whether a body is exactly this, where TIME stands for any moment."""
    assert body is not None
    return re.fullmatch(re.escape(expected).replace("TIME", MOMENT), body.decode()) is not None


def refused(world: World, check: str) -> Path:
    """Publishes, expects that check and no other to fail, and returns where the candidate lies."""
    before = {path: path.read_bytes() for path in sorted(world.data.folder.glob("CURRENT"))}
    versions = folders.numbers(world.data)
    with pytest.raises(GateFailed, match=f"The gate refused the new version: {check}: ") as raised:
        world.publish()
    assert str(raised.value).partition("andidate lies")[0].count(" wanted)") <= 1
    assert str(raised.value).partition("andidate lies")[0].count("%; at ") == 1  # one check, not several
    assert {path: path.read_bytes() for path in sorted(world.data.folder.glob("CURRENT"))} == before
    assert folders.numbers(world.data) == versions
    assert not list(world.data.versions.glob(".*"))
    (candidate,) = world.data.rejected.iterdir()
    assert str(candidate) in str(raised.value)
    return candidate
