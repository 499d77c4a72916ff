"""The real engine for tests: vLLM on CPU with the bundled model, loaded once for each setting, never two at a time."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import settings

from batchinfer.core.home import JobData
from batchinfer.engines import bundled
from batchinfer.engines.devices import place_here
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig
from batchinfer.job import reader
from batchinfer.job.reader import Job
from tests.factories import Templates
from tests.tiny import RecordingConsole
from tests.tiny import model_folder as without_weights

# Tests that load a model, in the order that needs the fewest loads: first those that share the plain engine.
ENGINES = ("engine", "adapter", "engine_slot")

settings.register_profile("batchinfer", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("batchinfer")

MODEL = bundled.PREFIX + bundled.NAME
# what the adapters of tests change
MODULES = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
WINDOW = 512


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests of one engine beside one another, after those that need none; those that close it come last."""

    def rank(item: pytest.Item) -> tuple[int, bool]:
        named = getattr(item, "fixturenames", ())
        number = next((number for number, name in enumerate(ENGINES, start=1) if name in named), len(ENGINES) + 1)
        return number, item.get_closest_marker("closes_engine") is not None

    items.sort(key=lambda item: rank(item) if item.get_closest_marker("slow") else (0, False))


def pytest_collection_finish() -> None:
    """What was collected, and is loaded, stays to the end: the garbage collector need not look through it for each test."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


@dataclass(frozen=True)
class Workshop:
    """Makes jobs below one folder, all with one data folder that has the converted model."""

    folder: Path
    models: Path

    def job(self, rows: dict[str, list[Any]] | pa.Table, **sections: Any) -> tuple[Job, JobData]:
        """A job with these rows; `sections` replace or add to those of a plain choice job."""
        name = sections.get("name", "shop")
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        pq.write_table(rows if isinstance(rows, pa.Table) else pa.table(rows), folder / "queries.parquet")
        content = {
            "name": name,
            "input": {"path": "queries.parquet", "key": ["text"]},
            "prompt": {"template": "{{ text }}"},
            "model": {"id": MODEL, "options": {"max_model_len": WINDOW}},
        } | sections
        (folder / "job.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        data = JobData(self.folder / "home", name)
        data.root.mkdir(exist_ok=True)
        if not data.models.exists():
            data.models.symlink_to(self.models)
        return reader.load(str(folder), {}), data


class EngineSlot:
    """Room for one loaded engine. Asking for other settings closes the one that is in."""

    def __init__(self, model: Path, logs: Path) -> None:
        self._model, self._logs = model, logs
        self._settings: str | None = None
        self._pool: EnginePool | None = None

    def get(self, *, replicas: int = 1, adapter: str | None = None, dtype: str = "auto") -> EnginePool:
        """An engine with these settings, the one that is loaded if it has them. One that takes adapters takes any of rank 8."""
        options = {"max_model_len": WINDOW, "kv_cache_memory_bytes": 1 << 28}
        settings = json.dumps([replicas, adapter is not None, dtype])
        if self._settings != settings:
            self.close()
            config = EngineConfig(
                str(self._model), dtype=dtype, adapter=adapter, adapter_rank=8, adapter_modules=MODULES, options=options
            )
            self._pool = EnginePool(config, place_here(replicas, 1), self._logs / "engine.log")
            self._pool.start()
            self._pool.wait_ready()
            self._settings = settings
        assert self._pool is not None
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool, self._settings = None, None


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A user's cache folder for the whole session: nothing is written into that of who runs the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("user-cache"))


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the converted bundled model."""
    folder = bundled.shared_folder()
    bundled.ensure(folder, bundled.digest(), print)
    return folder


@pytest.fixture(scope="session")
def model_folder(models: Path) -> Path:
    """The converted bundled model."""
    return bundled.folder(models, bundled.digest())


@pytest.fixture(scope="session")
def engine_slot(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSlot]:
    """The session's only place for an engine."""
    slot = EngineSlot(model_folder, tmp_path_factory.mktemp("logs"))
    yield slot
    slot.close()


@pytest.fixture
def engine(engine_slot: EngineSlot) -> EnginePool:
    """The plain engine: one process, no adapter."""
    return engine_slot.get()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A small random LoRA adapter for the bundled model, as peft would save it."""
    from benchmarks.engines import random_adapter  # which imports all that a run does

    return random_adapter(tmp_path / "adapter")


@pytest.fixture
def workshop(tmp_path: Path, models: Path) -> Workshop:
    """Makes jobs for the real model."""
    return Workshop(tmp_path, models)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Jobs that several tests begin with, made once for each process."""
    return Templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights."""
    return without_weights(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def console() -> RecordingConsole:
    """The console of a run."""
    return RecordingConsole()
