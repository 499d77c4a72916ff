"""The collector: it merges what workers spool, loses nothing when it is killed, and is watched by its server."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from batchinfer.core import companion
from batchinfer.core.companion import Companion
from batchinfer.core.home import JobData
from batchinfer.misses import collector, log
from batchinfer.misses.collector import Collector
from batchinfer.misses.counter import spooled
from tests.misses.counts import asked, collect, counted, found
from tests.serving import eventually
from tests.tiny import ROOT


def watched(data: JobData, spool: Path) -> Companion:
    """A collector, as a server has one."""
    return Companion(
        partial(collector.start, data.root, spool, spool.parent / "metrics", "one"), "The collector of misses"
    )


DIES_BEFORE_REMOVING = """
import os, pathlib, signal, sys
from batchinfer.misses.collector import Collector
unlink = pathlib.Path.unlink
def die(path, *args, **kwargs):
    if path.suffix == ".json":
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(path, *args, **kwargs)
pathlib.Path.unlink = die
Collector(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "one").round()
"""
DIES_BEFORE_RENAMING = """
import os, pathlib, signal, sys
from batchinfer.misses.collector import Collector
pathlib.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Collector(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "one").round()
"""


@pytest.mark.parametrize(("code", "merged"), [(DIES_BEFORE_REMOVING, True), (DIES_BEFORE_RENAMING, False)])
@pytest.mark.long
def test_a_killed_collector_loses_nothing_and_counts_nothing_twice(data: JobData, code: str, merged: bool) -> None:
    """Killed before or after the Parquet file is renamed: the next round ends with each miss counted once."""
    asked(data, [("Ulm",)])
    spool = data.root.parent / "spool-one"
    counted([("Ulm",), ("Bonn",)]).spool(spool / "shop")
    done = subprocess.run([sys.executable, "-c", code, str(data.root), str(spool)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(spooled(spool / "shop")) == 1
    assert found(data)['{"text":"Ulm"}'] == 1 + merged
    counted([("Ulm",)]).spool(spool / "shop")
    collect(data, spool)
    assert found(data) == {'{"text":"Ulm"}': 3, '{"text":"Bonn"}': 1}
    assert spooled(spool / "shop") == []
    collect(data, spool)
    assert found(data) == {'{"text":"Ulm"}': 3, '{"text":"Bonn"}': 1}
    assert [path.name for path in data.misses.iterdir() if path.name.startswith(".2")] == [], "no draft is left"


def test_a_data_folder_that_vanishes_is_waited_for(
    data: JobData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the folder is gone, one line says so and the spool is kept; nothing is made in its place."""
    away = tmp_path / "away"
    data.root.rename(away)
    spool = tmp_path / "spool"
    taking = Collector(data.root, spool, "one")
    for _ in range(3):
        counted([("Ulm",)]).spool(spool / "shop")
        taking.round()
    assert capsys.readouterr().err == (
        f"The misses of shop are not stored yet: {data.folder} is not there: mount or make the data folder again.\n"
    )
    assert not data.root.exists()
    away.rename(data.root)
    taking.round()
    assert found(data) == {'{"text":"Ulm"}': 3}
    assert capsys.readouterr().err == ""


def test_what_waits_is_bounded(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a job's folder cannot be written, the oldest of its spooled files go, and other jobs go on."""
    data.misses.write_text("in the way", encoding="utf-8")
    other = JobData(data.root, "other")
    other.folder.mkdir()
    monkeypatch.setattr(collector, "MOST_FILES", 2)
    spool = tmp_path / "spool"
    for text in ("a", "b", "c", "d"):
        counted([(text,)]).spool(spool / "shop")
    counted([("Ulm",)]).spool(spool / "other")
    collect(data, spool)
    assert "The misses of shop are not stored yet:" in capsys.readouterr().err
    assert found(other) == {'{"text":"Ulm"}': 1}
    data.misses.unlink()
    collect(data, spool)
    assert found(data) == {'{"text":"c"}': 1, '{"text":"d"}': 1}


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"since": "x"}', '{"since": "2026-01-01", "until": "2026-01-01", "misses": [["\\ud800", 1]]}'],
)
def test_a_damaged_spooled_file_stops_nothing(
    data: JobData, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """A file that was cut off by a power failure is reported, removed, and does not keep the others back."""
    folder = tmp_path / "spool" / "shop"
    counted([("Ulm",)]).spool(folder)
    damaged = folder / "20260105T235959123456-7-0.json"
    damaged.write_text(content, encoding="utf-8")
    collect(data, tmp_path / "spool")
    assert capsys.readouterr().err.startswith(f"{damaged} is damaged, so its misses are lost:")
    assert spooled(folder) == []
    assert found(data) == {'{"text":"Ulm"}': 1}


def test_a_damaged_parquet_file_is_left_alone(
    data: JobData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If today's file is damaged, the collector says so and keeps what was spooled until somebody moves it away."""
    asked(data, [("Ulm",)])
    [path] = log.files(data)
    path.write_bytes(path.read_bytes()[:50])
    counted([("Bonn",)]).spool(tmp_path / "spool" / "shop")
    collect(data, tmp_path / "spool")
    assert f"{path} is damaged" in capsys.readouterr().err
    path.rename(tmp_path / "moved")
    collect(data, tmp_path / "spool")
    assert found(data) == {'{"text":"Bonn"}': 1}


@pytest.mark.long
def test_the_process_takes_in_what_comes_and_ends_with_its_server(data: JobData, tmp_path: Path) -> None:
    """The collector's process merges while it runs, heeds no Ctrl-C or SIGTERM, and ends when its stdin closes."""
    spool = tmp_path / "spool"
    command = [
        sys.executable,
        "-m",
        "batchinfer.misses.collector",
        str(data.root),
        str(spool),
        str(tmp_path / "metrics"),
        "one",
        "--interval",
        "0.05",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as process:
        counted([("Ulm",)]).spool(spool / "shop")
        eventually(lambda: found(data))
        assert found(data) == {'{"text":"Ulm"}': 1}
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        counted([("Ulm",)]).spool(spool / "shop")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
    assert found(data) == {'{"text":"Ulm"}': 2}


@pytest.mark.long
def test_the_server_can_start_it(data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` gives a process whose last round comes when its stdin is closed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    counted([("Ulm",)]).spool(tmp_path / "spool" / "shop")
    process = collector.start(data.root, tmp_path / "spool", tmp_path / "metrics", "one")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    assert found(data) == {'{"text":"Ulm"}': 1}


@pytest.mark.long
def test_one_that_has_just_died_makes_its_last_round(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the collector dies in the moment in which the server stops, what the workers left is merged anyway."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    supervisor = watched(data, tmp_path / "spool")
    supervisor._stopping.set()
    supervisor._process.kill()
    supervisor._process.wait(30)
    counted([("Ulm",)]).spool(tmp_path / "spool" / "shop")
    supervisor.stop(30, again=True)
    assert supervisor._process.poll() == 0
    assert found(data) == {'{"text":"Ulm"}': 1}


def test_one_that_goes_on_dying_is_started_ever_more_rarely(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that cannot run fills no log and keeps no core busy; the server still stops at once."""
    waits: list[float] = []

    class Impatient(threading.Event):
        """Notes how long a wait would be, and really waits from the ninth on."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return super().wait(timeout if len(waits) > 8 else 0)

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "executable", "false")
    monkeypatch.setattr(companion, "Event", Impatient)
    supervisor = watched(data, tmp_path / "spool")
    eventually(lambda: len(waits) > 8)
    supervisor.stop(30, again=True)
    assert waits == [0, 1, 3, 7, 15, 31, 60, 60, 60]
    message = "The collector of misses ended with the exit code 1: it is started again."
    assert [record.message for record in caplog.records] == [message] * 8
