"""The data folder: whose it is, who holds it, and what happens when it cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from batchinfer.cache.store import Store
from batchinfer.core.files import lock
from batchinfer.core.home import JobData, data_folder
from batchinfer.errors import Busy, StoreError, UsageError
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.tiny import (
    BECOME_NOBODY,
    ROOT,
    Audience,
    Cli,
    adds_up,
    folder_for_all,
    make_job,
    model_folder,
    numbered,
    process,
    scripted,
    stored,
    until,
    write_job,
)

LONG_TEXTS = [f"{number:04d}" * 500 for number in range(3000)]

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


def test_a_waiting_lock_tells_who_has_it(tmp_path: Path) -> None:
    """A lock without wait yields who has it, so that the caller can say so."""
    path = tmp_path / "some" / "lock"
    with lock(path, "the first") as mine, lock(path, "the second") as other:
        assert mine is None
        assert other == f"the first (process {os.getpid()})"


def test_a_name_belongs_to_one_job_file(data: JobData, tmp_path: Path) -> None:
    """A second job file of the same name is refused, naming the first: they would share a cache."""
    first, second = tmp_path / "a" / "job.yaml", tmp_path / "b" / "job.yaml"
    for path in (first, second):
        path.parent.mkdir()
        path.touch()
    data.prepare(first)
    data.prepare(first)
    with pytest.raises(UsageError, match=f"The name shop belongs to {first}"):
        data.prepare(second)
    assert data.record()["job_file"] == str(first)


def test_a_job_file_may_move(data: JobData, tmp_path: Path) -> None:
    """Where the first job file is gone, the name goes over to the one that has it now; nothing else is forgotten."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.touch()
    second.touch()
    data.prepare(first)
    data.write_record(data.record() | {"model": "m"})
    first.unlink()
    data.prepare(second)
    assert data.record() == {"job_file": str(second), "model": "m"}


def test_a_damaged_record_is_said(data: JobData) -> None:
    """A job.json that is not JSON is a fault of the data folder, not an empty record."""
    (data.folder / "job.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"job\.json cannot be read"):
        data.record()


WRITE = """
import sys
from pathlib import Path
from batchinfer.core.home import write_atomically

Path(sys.argv[2]).touch()
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 1_000_000)
"""


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """While another process writes, and when it is killed, a reader sees one content or the other."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 1_000_000)
    seen: set[bytes] = set()
    with process("-c", WRITE, str(path), str(tmp_path / "go"), temporary=tmp_path, log=tmp_path / "log") as writer:
        until((tmp_path / "go").exists)

        def read() -> bool:
            seen.add(path.read_bytes())
            return len(seen) > 1

        until(read)
        assert all(read() for _ in range(100))
        writer.kill()
        writer.wait()
    seen.add(path.read_bytes())
    assert seen == {b"a" * 1_000_000, b"b" * 1_000_000}


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    """When the new content cannot be written, the old one is still there and the fault is said in a sentence."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import resource, sys; from pathlib import Path; from batchinfer.core.home import write_atomically; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_atomically(Path(sys.argv[1]), b'n' * 2000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "StoreError" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert path.read_bytes() == b"old"


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


AS_NOBODY = (
    """
import sys
from batchinfer.cli.main import main

def call(arguments):
    sys.argv = ["batchinfer", *arguments]
    try:
        main()
    except SystemExit as exc:
        return exc.code

number, *commands = [command.split("|") for command in sys.argv[1:]]
for command in commands[: int(number[0])]:  # they import all that it takes, as long as this user can
    call(command)
"""
    + BECOME_NOBODY
    + """
for command in commands[int(number[0]) :]:
    print(call(command), flush=True)
"""
)


def as_nobody(*commands: list[str], warm: int, log: Path) -> list[str]:
    """What `batchinfer` prints and exits with, for each command, as a user without rights; the first `warm` are run before."""
    arguments = [str(warm), *("|".join(command) for command in commands)]
    with process("-c", AS_NOBODY, *arguments, temporary=log.parent, log=log) as started:
        return started.communicate(timeout=120)[0].splitlines()


def test_a_data_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """Another user's data folder ends plan, run and import with one sentence and exit code 1; lookup only reads it."""
    with folder_for_all() as folder:
        make_job(folder / "shop", numbered(3))
        make_job(folder / "other", numbered(3), name="shop")
        answers = make_job(folder / "answers", {"text": numbered(3)["text"], "prediction": ["x", "y", "z"]})[0]
        shop, other, file = str(folder / "shop"), str(folder / "other"), str(answers.folder / "queries.parquet")
        for command in (["import", shop, file], ["run", shop]):
            subprocess.run(
                [sys.executable, "-m", "batchinfer", "--home", str(folder / "home"), *command], cwd=ROOT, check=True
            )
        for path in [folder / "home", *(folder / "home").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        (folder / "empty").mkdir(mode=0o555)
        log = tmp_path / "log"
        printed = as_nobody(
            ["--home", str(folder / "warm"), "import", other, file],
            ["--home", str(folder / "warm"), "run", other],
            ["--home", str(folder / "warm"), "lookup", other, "text=query 0001"],
            ["--home", str(folder / "empty"), "plan", shop],
            ["--home", str(folder / "empty"), "run", shop],
            ["--home", str(folder / "home"), "plan", shop],
            ["--home", str(folder / "home"), "run", shop],
            ["--home", str(folder / "home"), "import", shop, file],
            ["--home", str(folder / "home"), "lookup", shop, "text=query 0001", "--json"],
            warm=3,
            log=log,
        )
    assert [line for line in printed if line.isdigit()] == ["1", "1", "1", "1", "1", "0"], log.read_text()
    said = log.read_text(encoding="utf-8").splitlines()[-5:]
    assert all(
        line.startswith("batchinfer: ") and "Permission denied for" in line and "--home" in line for line in said
    ), said
    assert json.loads(printed[-2])["prediction"] == "y"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=24m", "batchinfer-test", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0:
            yield folder
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            return
    pytest.skip("this user may not mount a disk")


def fill(folder: Path, leave: int) -> Path:
    """Takes all room on a disk but for some bytes; returns the file that does."""
    path = folder / "filler"
    with path.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    os.truncate(path, max(0, path.stat().st_size - leave))
    return path


@pytest.mark.parametrize("leave", [0, 200_000])
def test_a_full_disk(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], leave: int
) -> None:
    """A full disk ends the run with one sentence; what was committed is kept, and the next run goes on."""
    cli = Cli(monkeypatch, capsys, small_disk / "home")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder, data = tmp_path / "shop", JobData(small_disk / "home", "shop")
    model = model_folder(tmp_path / "model")
    script = {"answer": "echo", "per_step": 64, "in_flight": 200, "max_len": 9999}
    assert cli("run", write_job(folder, {"text": LONG_TEXTS[:300]}, model, script=script)).code == 0
    assert stored(data) == (300, 300)

    write_job(folder, {"text": LONG_TEXTS}, model, script=script)
    filler = fill(small_disk, leave)
    failed = cli("run", folder)
    assert failed.code == 1, failed.err
    assert "Traceback" not in failed.err
    sentence = failed.err.splitlines()[-1]
    assert sentence.startswith("batchinfer: ")
    assert "the disk is full" in sentence or "No space left" in sentence, sentence

    filler.unlink()
    count, distinct = stored(data)
    assert count == distinct >= 300
    write_job(folder, {"text": LONG_TEXTS[:600]}, model, script=script)
    assert cli("run", folder, "--json").json["unique"] == 600
    assert stored(data)[0] == stored(data)[1] >= 600


class Filling(Audience):
    """Fills a disk when it is told a certain sentence."""

    def __init__(self, disk: Path, sentence: str, leave: int) -> None:
        super().__init__()
        self.disk, self.sentence, self.leave = disk, sentence, leave

    def info(self, text: str) -> None:
        super().info(text)
        if self.sentence in text:
            fill(self.disk, self.leave)


@pytest.mark.parametrize("leave", range(0, 400_000, 20_000))
def test_a_disk_without_room_for_the_cache(small_disk: Path, leave: int) -> None:
    """A cache that could not be created, however far that came, can be created once there is room."""
    store = Store(small_disk / "cache.duckdb")
    filler = fill(small_disk, leave)
    with contextlib.suppress(StoreError):  # with enough room there is none
        store.prepare()
    filler.unlink()
    store.prepare()
    assert store.runs() == []
    assert {path.name for path in small_disk.iterdir()} <= {"cache.duckdb", "cache.duckdb.wal"}


@pytest.mark.parametrize("leave", [0, 400_000])
def test_a_disk_that_is_full_at_first(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], leave: int
) -> None:
    """A first run without room for its cache leaves nothing behind that would be in the way of the next."""
    cli = Cli(monkeypatch, capsys, small_disk / "home")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = {"answer": "echo", "max_len": 9999}
    folder = write_job(tmp_path / "shop", {"text": LONG_TEXTS[:100]}, model_folder(tmp_path / "m"), script=script)
    filler = fill(small_disk, leave)
    failed = cli("run", folder)
    assert failed.code == 1, failed.err
    last = failed.err.splitlines()[-1]
    assert "the disk is full" in last or "No space left" in last, last
    assert "Traceback" not in failed.err
    filler.unlink()
    assert cli("run", folder, "--json").json["generated"] == 100


def test_a_disk_that_fills_up_on_the_way(small_disk: Path, tmp_path: Path) -> None:
    """When the disk fills up in the midst of a run, all chunks that were committed are kept, and the next run goes on."""
    job, _ = make_job(tmp_path / "shop", {"text": LONG_TEXTS[:1200]}, model_folder(tmp_path / "model"))
    data = JobData(small_disk / "home", "shop")
    with scripted(tmp_path / "log", answer="echo", per_step=64, in_flight=128, max_len=9999) as pool:
        full = Audience(at={600: lambda: fill(small_disk, 0)})
        with pytest.raises(StoreError, match=r"the disk is full\. Free space, then run again"):
            run(job, data, Options(publish=False), full, pool)
        (small_disk / "filler").unlink()
        count, distinct = stored(data)
        assert 512 <= count == distinct < 1200
        report = run(job, data, Options(publish=False), Audience(), pool)
    assert (report.hits, report.generated, stored(data)) == (count, 1200 - count, (1200, 1200))
    assert adds_up(report.to_json())


@pytest.mark.parametrize("leave", [0, 600_000])
def test_a_disk_that_fills_up_while_a_version_is_built(small_disk: Path, tmp_path: Path, leave: int) -> None:
    """When the disk is too small for the new version, nothing is published and nothing is left of the attempt."""
    job, _ = make_job(tmp_path / "shop", {"text": LONG_TEXTS[:600]}, model_folder(tmp_path / "model"))
    data = JobData(small_disk / "home", "shop")
    with scripted(tmp_path / "log", answer="echo", per_step=64, in_flight=128, max_len=9999) as pool:
        with pytest.raises(StoreError, match="Free space"):
            run(job, data, Options(), Filling(small_disk, "Building the version", leave), pool)
        assert list(data.versions.iterdir()) == []
        (small_disk / "filler").unlink()
        report = run(job, data, Options(), Audience(), pool)
    assert (report.hits, report.generated, report.version) == (600, 0, 1)
