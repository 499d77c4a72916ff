"""A server of two published jobs and an empty one; and a data folder with three versions, to be damaged."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batchinfer.core.home import JobData
from tests.factories import LENIENT, World, imports_job, model_job
from tests.serve.jobs import NORMALIZED, TYPED
from tests.serving import Server, moved, serving


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A job that scores choices, whose key is made comparable. It is published, and has one entry without a prediction."""
    world = model_job(
        tmp_path_factory.mktemp("shop"), {"text": ["Tee", "Kaffee", "Saft", "Bier"]}, input=NORMALIZED, gate=LENIENT,
        output={"type": "choice", "choices": ["Ja", "Nein"]}, serve={"max_age": "5m"},
    )  # fmt: skip
    world = moved(world, tmp_path_factory.mktemp("data") / "home")
    world.answer(lambda row: None if row["text"] == "Bier" else [math.log(0.75), math.log(0.25)])
    world.publish()
    return world


@pytest.fixture(scope="package")
def typed(shop: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A job whose key has a column of each kind, and whose predictions are JSON."""
    world = imports_job(
        tmp_path_factory.mktemp("typed"), pa.table(TYPED), name="typed", gate=LENIENT,
        input={"path": "queries.parquet", "key": list(TYPED)},
        output={"type": "json", "schema": {"type": "object"}},
    )  # fmt: skip
    world = moved(world, shop.data.root)
    world.take_in(pa.table(TYPED | {"prediction": ['{"é": [1, null]}', '{"a": "b"}', "{}"]}))
    world.publish()
    return world


@pytest.fixture(scope="package")
def server(shop: World, typed: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of both, and of a job that has published nothing, with two workers and an access log."""
    (shop.data.root / "empty").mkdir()
    (shop.data.root / "empty" / "job.json").write_text("{}")
    with serving(shop.data.root, tmp_path_factory.mktemp("server"), "--access-log", workers=2) as server:
        yield server


@pytest.fixture(scope="package")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three versions of the job shop, which say 1, 2 and 3 of the entry a."""
    world = imports_job(tmp_path_factory.mktemp("world"), {"id": ["a", "b"]}, gate=LENIENT)
    for number in (1, 2, 3):
        world.take_in({"id": ["a", "b"], "prediction": [str(number), "b" * 5000]})
        world.publish()
    return world.data.root


@pytest.fixture
def data(published: Path, tmp_path: Path) -> JobData:
    """A copy of the data folder, to be damaged; without the misses of others."""
    shutil.copytree(published, tmp_path / "home", ignore=shutil.ignore_patterns("misses"))
    return JobData(tmp_path / "home", "shop")
