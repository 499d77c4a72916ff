"""How commands end: exit codes, and the sentence that says what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.home import JobData
from batchinfer.misses import log
from batchinfer.misses.counter import Miss
from tests.cli.conftest import ECHO
from tests.factories import LENIENT
from tests.tiny import Cli, process, token, until


def test_a_miss(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Looking up what is not there ends with exit code 6 and a sentence; a wrong column with 2."""
    shop()
    batchinfer("run", "shop", "--no-publish")
    done = batchinfer("lookup", "shop", "text=one")
    assert (done.code, f"has no published version in {batchinfer.data}: " in done.sentence) == (6, True)
    batchinfer("run", "shop")
    done = batchinfer("lookup", "shop", "text=seven")
    assert (done.code, done.sentence) == (6, "shop has no prediction for text=seven in version 1.")
    done = batchinfer("lookup", "shop", f"text={'x' * 100_000}")
    assert (done.code, len(done.sentence)) == (6, len(f"shop has no prediction for {'x' * 300} in version 1."))
    done = batchinfer("lookup", "shop", "txt=one")
    assert (done.code, done.sentence) == (2, "txt is not part of the lookup key of shop: did you mean text?")
    done = batchinfer("lookup", "shop", "language=one")
    assert done.sentence == "language is not part of the lookup key of shop: it is text."


@pytest.mark.parametrize("command", [["runs", "shop"], ["failures", "shop"]])
def test_a_job_that_was_never_run(batchinfer: Cli, shop: Callable[..., Path], command: list[str]) -> None:
    """The history of a job that was never run is a miss, and asking for it makes nothing."""
    shop()
    done = batchinfer(*command)
    assert (done.code, done.sentence.startswith(f"There is no data folder {batchinfer.data}: ")) == (6, True)
    assert not batchinfer.data.exists()


def test_a_damaged_current_is_told_by_what_mends_it(batchinfer: Cli, ran: Path) -> None:
    """With a damaged CURRENT, versions and unpin do their work, and say that it is damaged."""
    batchinfer("pin", "shop", "1")
    (batchinfer.data / "shop" / "CURRENT").write_bytes(b"{")
    done = batchinfer("versions", "shop", "--json")
    assert (done.code, [(row["version"], row["current"], row["pinned"]) for row in done.json]) == (
        0,
        [(1, False, True)],
    )
    assert "CURRENT is damaged" in done.err
    done = batchinfer("unpin", "shop")
    assert done.code == 0
    assert "Unpinned: " in done.out
    assert "CURRENT is damaged" in done.out


def test_a_data_folder_that_cannot_be_read(batchinfer: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file system refuses is told with the file that it is about."""

    def refused(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/shop/job.json")

    monkeypatch.setattr(Path, "exists", refused)  # not by permissions: root may read anything
    done = batchinfer("versions", "shop")
    assert (done.code, done.out, done.err) == (1, "", "batchinfer: /data/shop/job.json: Permission denied\n")


NAMES_A_JOB = [
    ["versions", "shop"], ["pin", "shop", "1"], ["unpin", "shop"], ["rollback", "shop"], ["lookup", "shop", "text=one"],
    ["match", "shop", "one"], ["diff", "shop"], ["copy", "shop", "."], ["forget", "shop", "text=one", "--yes"],
    ["runs", "shop"], ["failures", "shop"], ["export", "shop", "out.parquet"], ["review", "shop", "--out", "out.csv"],
    ["import", "shop", "--list"], ["jobs", "remove", "shop", "--yes"],
]  # fmt: skip


@pytest.mark.parametrize("command", NAMES_A_JOB, ids=lambda command: command[0])
def test_a_wrong_data_folder_is_named_and_left_alone(
    batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, command: list[str]
) -> None:
    """Without the folder, and without the job in it, what only looks ends with 6, names the folder, and makes nothing."""
    shop()
    done = batchinfer("--home", tmp_path / "typo", *command, "--json")
    assert (done.code, done.json["error"]["code"]) == (6, "not_found")
    assert done.sentence.startswith(f"There is no data folder {tmp_path / 'typo'}: ")
    assert not (tmp_path / "typo").exists()
    (tmp_path / "empty").mkdir()
    done = batchinfer("--home", tmp_path / "empty", *command)
    assert (done.code, done.out) == (6, "")
    assert done.sentence.startswith(f"There is no job shop in the data folder {tmp_path / 'empty'}: ")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_name_that_neither_job_file_nor_data_folder_knows(batchinfer: Cli, ran: Path) -> None:
    """It is not found; the closest name that there is comes with it."""
    done = batchinfer("lookup", "shpo", "text=one")
    assert done.code == 6
    assert "did you mean shop?" in done.sentence
    assert str(batchinfer.data) in done.sentence


def test_nothing_is_published(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A job that was run and never published has no version: that is its own kind of error."""
    shop()
    batchinfer("run", "shop", "--no-publish")
    for command in (["versions", "shop"], ["lookup", "shop", "text=one"], ["rollback", "shop"], ["diff", "shop"]):
        done = batchinfer(*command, "--json")
        assert (done.code, done.json["error"]["code"]) == (6, "not_published"), command
        assert str(batchinfer.data) in done.sentence


@pytest.mark.long
def test_misses_that_join_the_list_are_told(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """For a job that takes them in, plan and run say how many rows clients asked for and did not find."""
    shop(input={"path": "queries.parquet", "key": ["text"], "include_misses": {}})
    data = JobData(batchinfer.data, "shop")
    data.folder.mkdir(parents=True)
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    log.merge(data, moment.date(), "one", {"a": [Miss('{"text":"four"}', 2, moment, moment)]})
    assert re.search(r"asked for and not found +1 ", batchinfer("plan", "shop").out)
    assert batchinfer("plan", "shop", "--json").json["misses"] == 1
    assert re.search(r"asked for and not found +1 ", batchinfer("run", "shop").out)
    assert batchinfer("run", "shop", "--json").json["misses"] == 1
    assert batchinfer("lookup", "shop", "text=four", "--json").json["prediction"] == "four"
    damaged = data.misses / "2026-01-06-host-one.parquet"
    damaged.write_bytes(b"PAR1")
    done = batchinfer("run", "shop")
    assert (done.code, f"{damaged} is damaged" in done.sentence) == (1, True)


@pytest.mark.long
def test_a_failed_gate(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A version that fails its gate ends the run with exit code 3; what was served before still is."""
    script = ECHO | {"refuse": [token("R")]}
    shop({"text": ["one", "two"]}, script=script)
    batchinfer("run", "shop")
    shop({"text": ["one", "R1", "R2", "R3"]}, script=script)
    done = batchinfer("run", "shop")
    assert done.code == 3
    last = done.err.splitlines()[-1]
    assert last.startswith("batchinfer: The gate refused the new version: coverage: 1 of 4 keys has a prediction")
    assert last.endswith(
        "Compare it: batchinfer diff shop current r2. "
        "To publish it anyway: batchinfer publish shop --candidate r2 --force --why TEXT"
    )
    shown = [" ".join(line.split()) for line in done.out.splitlines()]
    assert {"coverage text=R1", "failures text=R2: refused", "shrink text=two"} <= set(shown)
    assert "Traceback" not in done.err
    assert batchinfer("lookup", "shop", "text=two").code == 0
    assert batchinfer("runs", "shop", "--json").json[0]["status"] == "rejected"
    assert (batchinfer.data / "shop" / "rejected" / "r2" / "predictions.parquet").is_file()


@pytest.mark.long
def test_publishing_by_force(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A candidate that the gate refused is published by name, with force and a reason; a refused publish still prints JSON."""
    script = ECHO | {"refuse": [token("R")]}
    shop({"text": ["one", "R1", "R2", "R3"]}, script=script)
    assert batchinfer("run", "shop").code == 3
    done = batchinfer("publish", "shop", "--json")
    assert (done.code, done.json["status"], done.json["candidate"]) == (3, "rejected", "r1-2")
    assert "rejected/r1-2. " in done.err.splitlines()[-1]
    for flags, sentence in [
        (["--force"], "--force needs --why TEXT"),
        (["--force", "--why", " "], "--force needs --why TEXT"),
        (["--why", "x"], "--why goes with --force"),
        (
            ["--candidate", "r1"],
            "The candidate r1 failed its gate (coverage, failures): batchinfer diff shop current r1",
        ),
    ]:
        done = batchinfer("publish", "shop", *flags)
        assert done.code == 2
        assert sentence in done.err.splitlines()[-1]
    assert batchinfer("publish", "shop", "--candidate", "r9", "--force", "--why", "x").code == 6
    done = batchinfer("publish", "shop", "--candidate", "r1", "--force", "--why", "good enough")
    assert (done.code, done.out) == (0, "Published version 1 with 1 entry.\n")
    assert batchinfer("versions", "shop", "--json").json[0]["gate"] == "failed"
    assert batchinfer("lookup", "shop", "text=one").code == 0
    assert batchinfer("publish", "shop", "--candidate", "r1", "--force", "--why", "x", "--json").json["unchanged"]


def test_a_run_that_stops_before_its_end(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A run that reaches --max-hours ends with exit code 4 and says how to go on."""
    shop()
    done = batchinfer("run", "shop", "--max-hours", "0.0000001")
    assert done.code == 4
    assert done.err.splitlines()[-1].startswith("batchinfer: The run reached --max-hours. Run the same command again")
    assert batchinfer("run", "shop").code == 0


def test_an_engine_that_dies_while_it_loads(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path) -> None:
    """An engine that dies of something else than its model ends the run with 4 and names the log."""
    shop(script={"loads": ["die"], "diary": str(tmp_path / "diary")})
    done = batchinfer("run", "shop")
    assert done.code == 4
    assert str(batchinfer.data / "shop" / "logs" / "engine.log") in done.err.splitlines()[-1]


HOLD = """
import sys, time
from pathlib import Path
from batchinfer.core.home import JobData

with JobData(Path(sys.argv[1]), "shop").run_lock("batchinfer run shop"):
    Path(sys.argv[2]).touch()
    time.sleep(3600)
"""


@pytest.mark.parametrize("command", [["run", "shop"], ["publish", "shop"], ["import", "shop", "in.parquet"]])
def test_a_job_in_use(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, command: list[str]) -> None:
    """What would change a job that another process works on ends with exit code 5 and names that process."""
    shop()
    pq.write_table(pa.table({"text": ["one"], "prediction": ["1"]}), "in.parquet")
    arguments = ["-c", HOLD, str(batchinfer.data), str(tmp_path / "held")]
    with process(*arguments, temporary=tmp_path, log=tmp_path / "log") as holder:
        until((tmp_path / "held").exists)
        done = batchinfer(*command)
    assert done.code == 5
    assert (
        done.sentence
        == f"The job shop is in use by batchinfer run shop (process {holder.pid}): wait for it, or stop it."
    )


def test_a_question_that_nobody_can_answer(batchinfer: Cli, ran: Path, shop: Callable[..., Path]) -> None:
    """Without a terminal, a run that would make the cache again is refused with exit code 2; --yes goes on."""
    shop(prompt={"template": "What is {{ text }}?"}, gate=LENIENT)
    done = batchinfer("run", "shop")
    assert done.code == 2
    assert "prompt.template changed since the last run, so 3 of 3 prompts would be regenerated" in done.sentence
    assert "--yes" in done.sentence
    assert batchinfer("run", "shop", "--yes").code == 0


@pytest.mark.long
def test_flags_of_run(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """--limit, --no-publish, --input, --refresh and --refresh COLUMN=VALUE reach the run."""
    shop()
    pq.write_table(pa.table({"text": ["four", "five"]}), "other.parquet")
    assert batchinfer("run", "shop", "--limit", "1", "--json").json["left"] == 2
    said = " ".join(batchinfer("run", "shop", "--limit", "1").out.split())
    assert said.endswith("batchinfer run shop makes the rest and does both; batchinfer publish shop does both now.")
    assert batchinfer("run", "shop", "--no-publish", "--json").json["version"] is None
    assert batchinfer("run", "shop", "--json").json["version"] == 1
    other = batchinfer("run", "shop", "--input", "other.parquet", "--no-publish", "--json").json
    assert (other["rows"], other["generated"], other["input"]) == (2, 2, str(Path("other.parquet").absolute()))
    assert batchinfer("run", "shop", "--refresh", "text=two", "--json").json["generated"] == 1
    assert batchinfer("run", "shop", "--refresh", "--json").json["generated"] == 3
