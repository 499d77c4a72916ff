"""The data folder: where each job's files lie, and the locks that keep two processes apart.

$BATCHINFER_HOME/
  .removed/                the names of jobs that `jobs remove` removed, for services that run
  .metrics/                the last run of each job, for Prometheus
  api-keys.json            who may ask the service; no file: everybody
  <job>/cache.duckdb       the cache of truth
        job.json           which job file the name belongs to, and which model it was resolved to
        cache.lock         held while a cache is written whose path DuckDB misreads
        run.lock           held by a run, with its process id
        versions.lock      held for a moment while versions are added or removed, or another one is served
        versions/000001/   published: predictions.parquet, lookup.lmdb and its index, manifest.json
        rejected/r7/       a candidate that failed its gate
        CURRENT            the version that was published last
        PIN                the version that is served instead, if there is one
        last_run.json      the last run that ended well
        last_attempt.json  the last run, however it ended, and what is wrong since when
        alerts.json        who was told of that, and what is still to be told; alerts.lock while it is changed
        evals/             what prompts and answers were found to be worth, such as precision-v3.json
        finetune.pt        the checkpoint of an adapter that is being trained; its lock is finetune.lock
        calibration.json   what `calibrate` learned of verdicts; published with each version that uses it
        samples/<id>/      rows drawn for a review, and what they were drawn from
        served/            how many look-ups were answered, a file for each server
        misses/            what clients asked for and did not find, a file for each day and server
        logs/engine.log    what vLLM printed in the last run
        audits/v3/         what audits of a version found: audit.json, and card.md for people
        scratch/           a folder for each process's temporary files
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import platformdirs

from batchinfer.core.files import fault_of_path, os_errors, write_atomically
from batchinfer.core.job_record import RECORD, JobRecord, Refresh
from batchinfer.core.keys import JOB_NAME
from batchinfer.core.locks import lock, lock_in_turn
from batchinfer.core.records import Info
from batchinfer.errors import Busy, NotFound, StoreError, UsageError, shortened

VARIABLE = "BATCHINFER_HOME"
REMOVED = ".removed"
CALIBRATION = "calibration.json"  # also the name of a version's file
PARTS = (RECORD, "CURRENT", "versions")  # a folder with one of them is a job's


@dataclass(frozen=True, slots=True)
class Data:
    """The data folder: where all jobs keep their files.

    root: its path; else $BATCHINFER_HOME, or the user's data folder.
    """

    root: Path

    def __init__(self, root: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> None:
        object.__setattr__(self, "root", data_folder(None if root is None else str(root), environment))

    def of(self, job: str) -> JobData:
        """One job's part of it. Raises UsageError for what cannot be a job's name."""
        return JobData(self.root, check_job_name(job))


@dataclass(frozen=True, slots=True)
class JobData:
    """One job's part of the data folder.

    root: the data folder.
    name: the job's.
    """

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def cache(self) -> Path:
        return self.folder / "cache.duckdb"

    @property
    def versions(self) -> Path:
        return self.folder / "versions"

    @property
    def rejected(self) -> Path:
        return self.folder / "rejected"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def evals(self) -> Path:
        return self.folder / "evals"

    @property
    def checkpoint(self) -> Path:
        """Of an adapter that is being trained."""
        return self.folder / "finetune.pt"

    @property
    def calibration(self) -> Path:
        return self.folder / CALIBRATION

    @property
    def audits(self) -> Path:
        return self.folder / "audits"

    @property
    def misses(self) -> Path:
        return self.folder / "misses"

    @property
    def served(self) -> Path:
        """Of counts: how many look-ups a service answered."""
        return self.folder / "served"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def models(self) -> Path:
        """The place of converted models in older versions, where one that is there is still used."""
        return self.root / "models"

    @property
    def removed_mark(self) -> Path:
        """A file that says that the job was removed on purpose."""
        return self.root / REMOVED / self.name

    @property
    def is_removed(self) -> bool:
        """Whether the job was removed on purpose, and not made again."""
        return self.removed_mark.exists() and not self.folder.exists()

    @property
    def is_writable(self) -> bool:
        """Whether this user can write into the job's folder, which there must be."""
        return os.access(self.folder, os.W_OK)

    @property
    def is_known(self) -> bool:
        """Whether the data folder has anything of the job."""
        return any((self.folder / part).exists() for part in (*PARTS, self.cache.name))

    def require(self) -> None:
        """Raises NotFound where the data folder has nothing of the job: who only looks or removes makes no folder."""
        require_folder(self.root)
        if not self.is_known:
            raise NotFound(
                f"There is no job {self.name} in the data folder {self.root}",
                fix=f"batchinfer run {self.name} makes it, or choose another data folder with --home.",
            )

    def make_folder(self, info: Info = lambda _: None) -> None:
        """Makes the job's folder, which no job has yet; says so if the data folder is new. Raises StoreError."""
        if not self.root.exists():
            info(f"The data folder {self.root} does not exist yet: it is made now.")
        with os_errors(self.folder):
            self.logs.mkdir(parents=True, exist_ok=True)

    def bind(self, job_file: Path) -> None:
        """Makes the folder and binds the name to the job file. Raises StoreError or UsageError."""
        self.make_folder()
        with os_errors(self.folder):
            self.removed_mark.unlink(missing_ok=True)
        self.check_owner(job_file)
        record = self.record()
        if record.job_file != str(job_file):
            self.write_record(record.bound_to(job_file))

    def check_owner(self, job_file: Path) -> None:
        """Raises UsageError if the name belongs to another job file. Makes nothing."""
        bound = self.record().job_file
        if bound is not None and bound != str(job_file) and Path(bound).is_file():
            raise UsageError(
                f"The name {self.name} belongs to {bound} in the data folder {self.root}: "
                f"rename one of the jobs, or choose another data folder with --home."
            )

    def record(self) -> JobRecord:
        """What job.json says; an empty one if there is none. Raises StoreError."""
        return JobRecord.read(self.folder / RECORD)

    def refresh_since(self, what: str) -> datetime | None:
        """The start of an unfinished refresh of the same; None if there is none."""
        begun = self.record().refresh
        return begun.since if begun is not None and begun.what == what else None

    def remember_refresh(self, what: str, since: datetime) -> None:
        self.write_record(self.record().with_refresh(Refresh(what, since)))

    def clear_refresh(self) -> None:
        record = self.record()
        if record.refresh is not None:
            self.write_record(record.without_refresh())

    def write_record(self, record: JobRecord) -> None:
        record.write(self.folder / RECORD)

    def record_success(self, run_id: int, finished_at: str) -> None:
        """Notes a run that ended well, for those who serve: they do not open the cache."""
        content = {"run_id": run_id, "finished_at": finished_at}
        write_atomically(self.folder / "last_run.json", json.dumps(content).encode())

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for one process's temporary files, removed at the end; those of dead processes are removed too.

        Who uses a folder holds the lock in it: process ids mean nothing to containers that share the data folder. Where
        the job has no folder, or one that cannot be written, the folder is in the system's temporary one.
        """
        if not self.is_writable:
            with tempfile.TemporaryDirectory(prefix="batchinfer-") as name:
                yield Path(name)
            return
        parent = self.folder / "scratch"
        with contextlib.ExitStack() as stack:
            with os_errors(parent), lock_in_turn(parent / "lock", "making a scratch folder"):
                for old in filter(Path.is_dir, parent.iterdir()):
                    with contextlib.suppress(StoreError), lock(old / "lock", "clearing away") as holder:
                        if holder is None:
                            shutil.rmtree(old, ignore_errors=True)
                folder = Path(tempfile.mkdtemp(dir=parent))
                stack.enter_context(lock(folder / "lock", "using this folder"))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def run_lock(self, doing: str) -> Iterator[None]:
        """Held while this process changes the job's cache or versions. Raises Busy, naming the holder."""
        with lock(self.folder / "run.lock", doing) as holder:
            if holder is not None:
                raise Busy(f"The job {self.name} is in use by {holder}: wait for it, or stop it.")
            yield

    @contextlib.contextmanager
    def first_use(self, doing: str, is_empty: Callable[[], bool], info: Info = lambda _: None) -> Iterator[None]:
        """The run lock, in a folder that is made for it where there is none.

        What was made for a job that nothing was stored of in the end is taken away again, so that nobody lists it.
        is_empty: whether nothing was. Raises Busy or StoreError.
        """
        is_new = not self.is_known
        self.make_folder(info)
        with self.run_lock(doing):
            try:
                yield
            finally:
                if is_new and is_empty():
                    shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def versions_lock(self, doing: str) -> Iterator[None]:
        """Held while versions come, go, or take their turn at being served; waited for, since that takes moments.

        Apart from run.lock, so that an operator can pin a version while a run of hours goes on.
        """
        with lock_in_turn(self.folder / "versions.lock", doing):
            yield


def check_job_name(name: str) -> str:
    """The name, which must not lead out of the data folder. Raises UsageError."""
    if not re.fullmatch(JOB_NAME, name):
        rule = "a letter from a to z, then a-z, 0-9, _ and -, 64 at most"
        raise UsageError(f"{shortened(repr(name))} is not a job's name: {rule}.")
    return name


def job_names(root: Path) -> list[str]:
    """The jobs that a data folder knows, sorted. Raises OSError where it cannot be read."""
    return sorted(path.name for path in root.iterdir() if re.fullmatch(JOB_NAME, path.name) and _is_job(path))


def _is_job(folder: Path) -> bool:
    """Whether a folder is a job's. One that this user may not read is not: it must not hide the others."""
    try:
        return any((folder / part).exists() for part in PARTS)
    except OSError:
        return False


def require_folder(root: Path) -> None:
    """Raises NotFound where there is no data folder."""
    if not root.is_dir():
        raise NotFound(f"There is no data folder {root}", fix="batchinfer run makes it, or choose another with --home.")


def cache_folder() -> Path:
    """The user's folder for what can be made again, which all data folders share."""
    return Path(platformdirs.user_cache_dir("batchinfer"))


def data_folder(option: str | None, environment: Mapping[str, str]) -> Path:
    """The data folder: --home, or $BATCHINFER_HOME, or the platform's user data folder. Raises UsageError."""
    chosen = option or environment.get(VARIABLE)
    root = Path(chosen).absolute() if chosen else Path(platformdirs.user_data_dir("batchinfer"))
    if fault := fault_of_path(root) or ("is a file: name a folder with --home." if root.is_file() else None):
        raise UsageError(f"The data folder {root} {fault}")
    return root
