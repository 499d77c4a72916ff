"""Commands on a disk that is full, or a data folder that may not be written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile
from batchinfer.errors import StoreError
from batchinfer.inputs.files import parquet_of
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.tiny import (
    BECOME_NOBODY,
    ROOT,
    Cli,
    RecordingConsole,
    adds_up,
    folder_for_all,
    make_job,
    model_folder,
    numbered,
    process,
    scripted,
    stored,
    write_job,
)

LONG_TEXTS = [f"{number:04d}" * 500 for number in range(3000)]
ANSWERED = [f"{number:05d}" * 20 for number in range(2000)]


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


def as_nobody(*commands: list[str], warm: int, log: Path, temporary: Path) -> list[str]:
    """What `batchinfer` prints and exits with, for each command, as a user without rights; the first `warm` are run before."""
    arguments = [str(warm), *("|".join(command) for command in commands)]
    with process("-c", AS_NOBODY, *arguments, temporary=temporary, log=log) as started:
        return started.communicate(timeout=120)[0].splitlines()


@pytest.mark.long
def test_a_data_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """Another user's data folder ends run and import with one sentence and exit code 1; plan and lookup only read it."""
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
            temporary=folder,
        )
    assert [line for line in printed if line.isdigit()] == ["0", "1", "0", "1", "1", "0"], log.read_text()
    said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("batchinfer: ")]
    assert len(said) == 3
    assert all("Permission denied for" in line and "--home" in line for line in said), said
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
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # a buffer could not be emptied at the end
        while True:
            file.write(b"x" * 65536)
    os.truncate(path, max(0, path.stat().st_size - leave))
    return path


@pytest.mark.parametrize("leave", [0, 200_000])
@pytest.mark.long
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


class Filling(RecordingConsole):
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
        store.create_or_migrate()
    filler.unlink()
    store.create_or_migrate()
    assert store.runs() == []
    assert {path.name for path in small_disk.iterdir()} <= {"cache.duckdb", "cache.duckdb.wal"}


@pytest.mark.parametrize("leave", [0, 400_000])
@pytest.mark.long
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


@pytest.mark.long
def test_a_disk_that_fills_up_on_the_way(small_disk: Path, tmp_path: Path) -> None:
    """When the disk fills up in the midst of a run, all chunks that were committed are kept, and the next run goes on."""
    job, _ = make_job(tmp_path / "shop", {"text": LONG_TEXTS[:1200]}, model_folder(tmp_path / "model"))
    data = JobData(small_disk / "home", "shop")
    with scripted(tmp_path / "log", answer="echo", per_step=64, in_flight=128, max_len=9999) as pool:
        full = RecordingConsole(at={600: lambda: fill(small_disk, 0)})
        with pytest.raises(StoreError, match=r"the disk is full\. Free space, then run again"):
            run(job, data, Options(publish=False), full, pool)
        (small_disk / "filler").unlink()
        count, distinct = stored(data)
        assert 512 <= count == distinct < 1200
        report = run(job, data, Options(publish=False), RecordingConsole(), pool)
    assert (report.cached, report.generated, stored(data)) == (count, 1200 - count, (1200, 1200))
    assert adds_up(report.to_json())


@pytest.mark.parametrize("leave", [0, 600_000])
@pytest.mark.long
def test_a_disk_that_fills_up_while_a_version_is_built(small_disk: Path, tmp_path: Path, leave: int) -> None:
    """When the disk is too small for the new version, nothing is published and nothing is left of the attempt."""
    job, _ = make_job(tmp_path / "shop", {"text": LONG_TEXTS[:600]}, model_folder(tmp_path / "model"))
    data = JobData(small_disk / "home", "shop")
    with scripted(tmp_path / "log", answer="echo", per_step=64, in_flight=128, max_len=9999) as pool:
        with pytest.raises(StoreError, match="Free space"):
            run(job, data, Options(), Filling(small_disk, "Building the version", leave), pool)
        assert list(data.versions.iterdir()) == []
        (small_disk / "filler").unlink()
        report = run(job, data, Options(), RecordingConsole(), pool)
    assert (report.cached, report.generated, report.version) == (600, 0, 1)


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_disk_without_room_for_a_list_is_no_fault_of_the_list(small_disk: Path, tmp_path: Path, name: str) -> None:
    """What cannot be written of a text file is told of the disk; the file itself can be read."""
    lines = [f'{{"text": "{text}"}}' for text in LONG_TEXTS[:1000]]
    (tmp_path / name).write_text("\n".join(["text", *LONG_TEXTS[:1000]] if name == "list.csv" else lines))
    filler = fill(small_disk, 8192)
    with pytest.raises(StoreError, match=r"cannot be written: No space left on device\. Free space, then run again\.$"):
        parquet_of(tmp_path / name, small_disk)
    filler.unlink()
    assert pq.read_table(parquet_of(tmp_path / name, small_disk))["text"].to_pylist() == LONG_TEXTS[:1000]


@pytest.fixture
def answers_on_small_disk(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Cli, Path, Path]:
    """The command line with its data folder on a small disk, and elsewhere the job `shop` and a file with all its answers."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = write_job(tmp_path / "shop", {"text": ANSWERED})
    file = write_job(tmp_path / "answers", {"text": ANSWERED, "prediction": ANSWERED}) / "queries.parquet"
    return Cli(monkeypatch, capsys, small_disk / "home"), folder, file


@pytest.mark.long
def test_an_import_is_in_or_out_on_a_full_disk(small_disk: Path, answers_on_small_disk: tuple[Cli, Path, Path]) -> None:
    """However much room there is, what an import says is so: also where there is room for the log, and none for the file."""
    cli, folder, file = answers_on_small_disk
    data, ends = JobData(small_disk / "home", "shop"), list[tuple[int, int]]()
    for leave in range(0, 3_200_000, 200_000):
        shutil.rmtree(small_disk / "home", ignore_errors=True)
        data.folder.mkdir(parents=True)
        Store(data.cache).create_or_migrate()
        filler = fill(small_disk, leave)
        done = cli("import", folder, file)
        assert "Traceback" not in done.err
        ends.append((done.code, imported(data)))
        filler.unlink()
        assert imported(data) == ends[-1][1]
    assert set(ends) == {(1, 0), (0, 2000)}


@pytest.mark.long
def test_an_entry_stays_or_goes_on_a_full_disk(small_disk: Path, answers_on_small_disk: tuple[Cli, Path, Path]) -> None:
    """However much room there is for the cache without it, what is said is so, and names the disk."""
    cli, folder, file = answers_on_small_disk
    data = JobData(small_disk / "home", "shop")
    assert cli("import", folder, file).code == 0
    for leave in (0, 10_000, 40_000, 100_000, 200_000, 300_000, 500_000):
        filler = fill(small_disk, leave)
        failed = cli("forget", folder, f"text={ANSWERED[7]}", "--yes")
        assert (failed.code, imported(data)) == (1, 2000)
        assert re.search("the disk is full|No space left on device", failed.err.splitlines()[-1]), failed.err
        filler.unlink()
    assert cli("forget", folder, f"text={ANSWERED[7]}", "--yes").code == 0
    assert imported(data) == 1999


@pytest.mark.parametrize("leave", [0, 6_000, 30_000])
@pytest.mark.long
def test_what_people_ask_for_on_a_full_disk(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], leave: int
) -> None:
    """Files of every kind, copies and keys: the sentence names what could not be written and the disk, and nothing is half there."""
    cli = Cli(monkeypatch, capsys, tmp_path / "home")
    texts = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(3000)]
    folder = write_job(tmp_path / "shop", {"text": texts})
    file = write_job(tmp_path / "answers", {"text": texts, "prediction": texts}) / "queries.parquet"
    assert (cli("import", folder, file).code, cli("publish", folder, "--yes").code) == (0, 0)
    filler = fill(small_disk, leave)
    commands = [
        *(["export", folder, small_disk / f"out.{ending}"] for ending in ("parquet", "csv", "jsonl")),
        ["copy", folder, small_disk / "copy"],
    ]
    for command in commands:
        failed = cli(*command)
        assert failed.code == 1, command
        last = failed.err.splitlines()[-1]
        assert re.search(r"(disk is full|No space left on device)\. Free space", last), last
        assert str(small_disk) in last
    output = OutputFile.of(str(small_disk / "out.csv"), None)
    with pytest.raises(StoreError, match="the disk is full"), output.draft() as draft:  # as reviews are written
        draft.write_text("x" * 100_000, encoding="utf-8")
    filler.unlink()
    assert not [path for path in small_disk.rglob("*") if path.name.startswith("out")]
    assert cli("copy", folder, small_disk / "copy").code == 0


def imported(data: JobData) -> int:
    """How many rows of people the cache holds."""
    with Store(data.cache).open() as db:
        return int(db.execute("SELECT count(*) FROM imports").fetchall()[0][0])
