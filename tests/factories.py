"""What tests are made of: Parquet files, columns that are not UTF-8, jobs with a cache that was filled without a model."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile
from batchinfer.core.records import Failure, Generation, Message, Prompt
from batchinfer.engines.protocol import EngineInfo, Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline import run
from batchinfer.pipeline.generate import Generator
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.report import RunReport
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.prepare import Options, Prepared, prepare, prepare_to_write
from batchinfer.planning.prompts import PromptMaker
from batchinfer.review import export, ingest, predictions
from batchinfer.review.allowed import Allowance
from batchinfer.review.predictions import ImportReport
from batchinfer.versions import pointers
from batchinfer.versions.snapshot import Snapshot
from tests.in_process import InProcess

# A gate that lets almost everything through.
LENIENT = {"coverage": 0.0, "failures": 1.0, "shrink": 1.0, "changed": 1.0}
Rows = Mapping[str, Any]
Reply = str | list[float] | Failure | None
"""What a pretended model says to one row: a text, log-probabilities of the choices, a refusal, or nothing yet."""


def write(path: Path, columns: Rows | pa.Table) -> Path:
    """A Parquet file with these columns: lists or Arrow arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), path)
    return path


def unchecked(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """A column of texts whose bytes Arrow did not check; they need not be UTF-8."""
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    raw = pa.array(values, pa.large_binary() if large else pa.binary())
    return pa.Array.from_buffers(kind, len(raw), raw.buffers())


class Quiet:
    """A `Console` that shows nothing."""

    def info(self, text: str) -> None:
        """Nothing."""

    def progress(self, progress: Progress, cached: int) -> None:
        """Nothing."""

    def confirm(self, text: str, *, typed: str | None = None) -> bool:
        return True


@dataclass(frozen=True)
class World:
    """A job in its folder, with a data folder beside it. No model is ever loaded: `answer` pretends one."""

    job: Job
    data: JobData

    @property
    def store(self) -> Store:
        return Store(self.data.cache)

    @property
    def list_path(self) -> Path:
        return self.job.folder / "queries.parquet"

    def rows(self, columns: Rows | pa.Table) -> None:
        """Replaces the query list."""
        write(self.list_path, columns)

    def changed(self, **sections: Any) -> World:
        """The same job after its file was edited; a section that is None is removed."""
        content = yaml.safe_load(self.job.path.read_text(encoding="utf-8")) | sections
        kept = {name: section for name, section in content.items() if section is not None}
        self.job.path.write_text(yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8")
        return dataclasses.replace(self, job=reader.load(str(self.job.folder), {}))

    @contextlib.contextmanager
    def prepared(self, *, writes: bool = False, **options: Any) -> Iterator[Prepared]:
        """The list, compared with the cache."""
        opened = prepare_to_write if writes else prepare
        with opened(self.job, self.data, Options(**options)) as prepared:
            yield prepared

    def answer(self, says: Callable[[dict[str, Any]], Reply], **options: Any) -> int:
        """Commits what `says` replies to each prompt that a run would generate, as a run does; returns its number.

        The run's own loop does it, with an engine and a tokenizer that only pretend.
        """
        self.data.folder.mkdir(parents=True, exist_ok=True)
        self.store.create_or_migrate()
        with self.prepared(**options) as prepared:
            assert prepared.question is not None
            run_id = self.store.start_run(prepared.question.fingerprint, prepared.question.parts)
            engine = PretendEngine(prepared, says)
            generator = Generator(prepared, run_id, Stop(None, lambda _: None), Progress(), None)
            maker = PromptMaker(self.job, prepared.question, PretendTokenizer())
            generator.run(engine, maker, 1000, lambda: None)
        return run_id

    def take_in(
        self, columns: Rows | pa.Table, author: str | None = None, allow: Collection[Allowance] = tuple(Allowance)
    ) -> ImportReport:
        """Imports these rows; what is not the job's, too, unless `allow` says otherwise."""
        return predictions.import_predictions(
            self.job, self.data, write(self.job.folder / "imported.parquet", columns), author, allow
        )

    def review(self, **where: str) -> list[dict[str, str]]:
        """What people should look at, as they find it in a spreadsheet."""
        export.export_review(self.job, self.data, Options(), OutputFile.of(self.review_path), where)
        with self.review_path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def review_path(self) -> Path:
        return self.job.folder / "review.csv"

    def judge(self, rows: Sequence[Mapping[str, str]], *, author: str | None = None) -> ingest.Ingested:
        """Saves a review as a person marked it, and takes it in."""
        with self.review_path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return ingest.import_review(self.job, self.data, self.review_path, author, Options())

    def publish(self, **options: Any) -> RunReport:
        """Builds a version from what the cache has. Raises GateFailed."""
        return publish(self.job, self.data, Options(**options), Quiet())

    def run(self, **options: Any) -> RunReport:
        """A whole run; one that finds anything to generate would load a model."""
        return run.run(self.job, self.data, Options(**options), Quiet())

    def served(self) -> Snapshot:
        """The version that is served, opened."""
        return pointers.open_served(self.data)

    def get(self, **query: Any) -> bytes | None:
        """One look-up in the version that is served."""
        with self.served() as snapshot:
            return snapshot.get(query)


class PretendTokenizer(Tokenizer):
    """Counts words, for prompts that no model will read."""

    def __init__(self) -> None:
        """Loads nothing."""

    def text(self, messages: Sequence[Message]) -> str:
        return " ".join(content for _, content in messages)

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[list[int]]:
        return [list(range(len(text.split()))) for text in texts]

    def check_holds(self, roles: Sequence[str]) -> None:
        """Whatever the prompt has, it holds."""

    def check_no_thinking(self) -> None:
        """Nothing is thought."""

    def in_place(self, texts: Sequence[str], *, chat: bool) -> list[tuple[int, ...]]:
        return [(number,) for number, _ in enumerate(texts)]


class PretendEngine(InProcess):
    """An `Engine` that answers each prompt with what a function says to its row. What it says nothing to is never answered."""

    def __init__(self, prepared: Prepared, says: Callable[[dict[str, Any]], Reply]) -> None:
        self._rows, self._says = dict(prepared.plan.todo()), says

    def start(self) -> None:
        """Nothing is loaded."""

    def wait_ready(self) -> EngineInfo:
        """What such an engine would say of itself."""
        return EngineInfo(max_model_len=1000, max_in_flight=1, description="nothing")

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        for prompt in prompts:
            reply = self._says(self._rows[prompt.prompt_key])
            if isinstance(reply, Failure):
                yield dataclasses.replace(reply, prompt_key=prompt.prompt_key)
            elif reply is not None:
                yield _generation(prompt.prompt_key, reply)


def _generation(key: bytes, reply: str | list[float]) -> Generation:
    if isinstance(reply, str):
        return Generation(key, reply, "stop", 10, 4, 3)
    return Generation(key, "", "length", 10, 4, 1, tuple(reply))


def world_at(folder: Path) -> World:
    """The job that was made below a folder, opened again."""
    job = reader.load(str(folder / "job"), {})
    return World(job, JobData(folder / "home", job.name))


class Templates:
    """Folders that take long to make, each made once for each process; every test has a copy of its own.

    folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, dict[tuple[Any, ...], Path]()

    def copy(self, make: Callable[..., object], folder: Path, *arguments: Any) -> None:
        """Copies into `folder` what `make(empty folder, *arguments)` makes there."""
        if (key := (make, *arguments)) not in self._made:
            made, kept = (self._folder / f"{name}-{len(self._made)}" for name in ("made", "kept"))
            made.mkdir()
            make(made, *arguments)
            made.rename(kept)  # a data folder knows its job file, which must not be there beside its copy
            self._made[key] = kept
        shutil.copytree(self._made[key], folder, dirs_exist_ok=True, symlinks=True)

    def world(self, make: Callable[..., World], folder: Path, *arguments: Any) -> World:
        """A copy of the job and data folder that `make` made."""
        self.copy(make, folder, *arguments)
        return world_at(folder)


def imports_job(folder: Path, columns: Rows | pa.Table, **sections: Any) -> World:
    """A job that lives by imports: no prompt and no model."""
    return _world(folder, columns, sections)


def model_job(folder: Path, columns: Rows | pa.Table, **sections: Any) -> World:
    """A job that asks a model, which is a folder without weights: enough to be known by, not to be loaded."""
    model = folder / "job" / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text('{"model_type": "none"}', encoding="utf-8")
    asked = {"prompt": {"template": "{{ text }}"}, "model": {"id": "./model"}}
    return _world(folder, columns, asked | sections)


def _world(folder: Path, columns: Rows | pa.Table, sections: Mapping[str, Any]) -> World:
    place = folder / "job"
    write(place / "queries.parquet", columns)
    content = {"name": "shop", "input": {"path": "queries.parquet", "key": ["id"]}} | dict(sections)
    (place / "job.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    job = reader.load(str(place), {})
    world = World(job, JobData(folder / "home", job.name))
    world.data.folder.mkdir(parents=True, exist_ok=True)
    world.data.cache.write_bytes(_empty_cache())
    return world


@functools.cache
def _empty_cache() -> bytes:
    """A cache file as it is made on first use; made once, since DuckDB takes a while to."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "cache.duckdb")
        store.create_or_migrate()
        return store.path.read_bytes()
