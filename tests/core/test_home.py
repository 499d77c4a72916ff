"""The data folder: where it is, whose a name is, who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from batchinfer.core.home import JobData, data_folder
from batchinfer.errors import Busy, StoreError, UsageError
from tests.tiny import (
    process,
    until,
)

HOLD = """
import sys, time
from pathlib import Path
from batchinfer.core.home import JobData

with JobData(Path(sys.argv[1]), "shop").run_lock("batchinfer run shop"):
    Path(sys.argv[2]).touch()
    time.sleep(3600)
"""


@pytest.fixture
def data(tmp_path: Path) -> JobData:
    """A job's part of a data folder."""
    made = JobData(tmp_path / "home", "shop")
    made.folder.mkdir(parents=True)
    return made


def test_the_option_goes_before_the_environment(tmp_path: Path) -> None:
    """--home is the data folder whatever the environment says."""
    assert data_folder(str(tmp_path / "a"), {"BATCHINFER_HOME": "/elsewhere"}) == tmp_path / "a"


def test_the_environment_goes_before_the_platform(tmp_path: Path) -> None:
    """$BATCHINFER_HOME is the data folder where there is no --home."""
    assert data_folder(None, {"BATCHINFER_HOME": str(tmp_path)}) == tmp_path


def test_the_platforms_folder_is_the_default() -> None:
    """Without --home and $BATCHINFER_HOME, or with an empty one, the platform says where data lies."""
    assert data_folder(None, {}) == data_folder(None, {"BATCHINFER_HOME": ""})
    assert data_folder(None, {}) == Path(platformdirs.user_data_dir("batchinfer"))


def test_a_relative_data_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative data folder is below the folder in which the command was called."""
    monkeypatch.chdir(tmp_path)
    assert data_folder("data", {}) == tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/x/a\udcff/b", "is not UTF-8: rename it, or choose another"),
        ("/x\0", "U+0000"),
        ("/" + "x" * 300, "is too long"),
    ],
)
def test_a_data_folder_that_no_file_can_be_in_is_refused(name: str, said: str) -> None:
    """By a name that the system takes, but not what reads and writes there; before anything is made."""
    with pytest.raises(UsageError, match=re.escape(said)):
        data_folder(name, {})


def test_the_run_lock_names_its_holder(data: JobData, tmp_path: Path) -> None:
    """A second process is refused with the first one's doing and process id, and the exit code for that."""
    held = tmp_path / "held"
    with process("-c", HOLD, str(data.root), str(held), temporary=tmp_path, log=tmp_path / "log") as first:
        until(held.exists)
        with pytest.raises(Busy) as refused, data.run_lock("batchinfer run shop"):
            pass
        assert f"in use by batchinfer run shop (process {first.pid})" in str(refused.value)
    assert refused.value.exit_code == 5


def test_a_killed_process_frees_the_run_lock(data: JobData, tmp_path: Path) -> None:
    """The lock of a process that was killed with -9 can be taken, and then names its new holder."""
    held = tmp_path / "held"
    with process("-c", HOLD, str(data.root), str(held), temporary=tmp_path, log=tmp_path / "log") as first:
        until(held.exists)
        first.kill()
        first.wait()
    with data.run_lock("a very short text"):
        assert (data.folder / "run.lock").read_text() == f"a very short text (process {os.getpid()})\n"


def test_an_error_frees_the_run_lock(data: JobData) -> None:
    """The lock goes when the work under it fails."""
    with pytest.raises(ZeroDivisionError), data.run_lock("batchinfer run shop"):
        raise ZeroDivisionError
    with data.run_lock("batchinfer run shop"):
        pass


def test_jobs_do_not_share_a_lock(data: JobData) -> None:
    """Different jobs can run at once."""
    with data.run_lock("one"), JobData(data.root, "other").run_lock("two"):
        pass


def test_a_name_belongs_to_one_job_file(data: JobData, tmp_path: Path) -> None:
    """A second job file of the same name is refused, naming the first: they would share a cache."""
    first, second = tmp_path / "a" / "job.yaml", tmp_path / "b" / "job.yaml"
    for path in (first, second):
        path.parent.mkdir()
        path.touch()
    data.bind(first)
    data.bind(first)
    with pytest.raises(UsageError, match=f"The name shop belongs to {first}"):
        data.bind(second)
    assert data.record().job_file == str(first)


def test_a_job_file_may_move(data: JobData, tmp_path: Path) -> None:
    """Where the first job file is gone, the name goes over to the one that has it now; nothing else is forgotten."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.touch()
    second.touch()
    data.bind(first)
    record = data.folder / "job.json"
    record.write_text(json.dumps({"newer": "m"} | json.loads(record.read_text())))
    first.unlink()
    data.bind(second)
    assert json.loads(record.read_text()) == {"newer": "m", "job_file": str(second)}


def test_a_damaged_record_is_said(data: JobData) -> None:
    """A job.json that is not JSON is a fault of the data folder, not an empty record."""
    (data.folder / "job.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"job\.json cannot be read"):
        data.record()


def test_scratch_is_removed(data: JobData) -> None:
    """A scratch folder is gone after use, also after an error."""
    with contextlib.suppress(ZeroDivisionError), data.scratch() as folder:
        (folder / "file").touch()
        raise ZeroDivisionError
    assert [path.name for path in (data.folder / "scratch").iterdir()] == ["lock"]


USE_SCRATCH = """
import sys, time
from pathlib import Path
from batchinfer.core.home import JobData

with JobData(Path(sys.argv[1]), "shop").scratch() as folder:
    (folder / "plan.duckdb").touch()
    print(folder, flush=True)
    time.sleep(3600)
"""


def test_scratch_of_the_dead_is_removed(data: JobData) -> None:
    """What a dead process left is cleared away; what a living one uses is not, whatever its number."""
    users = [
        subprocess.Popen([sys.executable, "-c", USE_SCRATCH, str(data.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        dead, living = (Path(user.stdout.readline().strip()) for user in users if user.stdout is not None)
        users[0].kill()
        users[0].wait()
        assert (dead / "plan.duckdb").exists()
        with data.scratch() as folder:
            assert {path for path in folder.parent.iterdir() if path.is_dir()} == {living, folder}
            assert (living / "plan.duckdb").exists()
    finally:
        for user in users:
            with user:
                user.kill()
