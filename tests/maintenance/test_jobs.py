"""The jobs of a data folder: the list of them, and the removal of one, also beside a service."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import Busy, NotFound
from batchinfer.maintenance.jobs import known_jobs, remove_job
from batchinfer.versions import pointers
from tests.factories import World
from tests.serving import Server, eventually, job, say, serving
from tests.tiny import Cli, answer_no


@pytest.fixture
def shop(tmp_path: Path) -> World:
    """A job with one version."""
    world = job(tmp_path / "home", "shop", {"id": ["a"]})
    say(world, "one", id=["a"])
    return world


def test_jobs_are_listed(shop: World, tmp_path: Path) -> None:
    """Each with what is served, its size and its job file; also those without a version, and with damaged files."""
    empty = job(shop.data.root, "empty", {"id": ["a"]})
    empty.data.bind(empty.job.path)
    first, second = known_jobs(shop.data.root)
    assert first.to_json() | {"bytes": 0} == {
        "job": "empty", "version": None, "entries": None, "bytes": 0, "job_file": str(empty.job.path),
    }  # fmt: skip
    assert (second.job, second.version, second.entries, second.job_file) == ("shop", 1, 1, str(shop.job.path))
    assert second.bytes == sum(path.stat().st_size for path in shop.data.folder.rglob("*") if path.is_file())
    (shop.data.folder / pointers.PIN).write_bytes(b"{")
    (shop.data.folder / "job.json").write_bytes(b"{")
    _, damaged = known_jobs(shop.data.root)
    assert (damaged.version, damaged.entries, damaged.job_file) == (None, None, None)
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(NotFound, match=str(folder)):
            known_jobs(folder)


def test_a_job_is_removed_whole(shop: World) -> None:
    """All its files go, the job file stays, and the job can be run again; twice is not found."""
    other = job(shop.data.root, "other", {"id": ["a"]})
    other.data.bind(other.job.path)
    assert remove_job(shop.data).job == "shop"
    assert [each.job for each in known_jobs(shop.data.root)] == ["other"]
    left = {path.relative_to(shop.data.root).parts[0] for path in shop.data.root.rglob("*")}
    assert left == {"other", ".removed"}
    assert shop.job.path.is_file()
    with pytest.raises(NotFound, match="There is no job shop in the data folder"):
        remove_job(shop.data)
    assert shop.data.is_removed
    say(shop, "two", id=["a"])
    assert not shop.data.removed_mark.exists()
    assert known_jobs(shop.data.root)[1].version == 1


def test_a_job_in_use_is_not_removed(shop: World) -> None:
    """While a run works on it, it stays."""
    with shop.data.run_lock("batchinfer run shop"), pytest.raises(Busy, match="batchinfer run shop"):
        remove_job(JobData(shop.data.root, "shop"))
    assert pointers.served(shop.data).version == 1


def listed(server: Server) -> set[str]:
    return {each["job"] for reply in server.each_worker("/v1/jobs") for each in reply.json["jobs"]}


def named_in_metrics(server: Server, name: str) -> bool:
    return any(sample.labels.get("job") == name for sample in server.samples())


@pytest.mark.long
def test_a_running_service_drops_what_was_removed(shop: World, tmp_path: Path) -> None:
    """Every worker: it is in neither the list nor the metrics, and its misses make no folder. Made again, it is back."""
    typo = job(shop.data.root, "typo", {"id": ["a"]})
    typo.data.bind(typo.job.path)
    with serving(shop.data.root, tmp_path / "server", workers=2) as server:
        eventually(lambda: listed(server) == {"shop", "typo"})
        assert server.lookup("shop", id="a").status == 200
        assert server.lookup("shop", id="unknown").status == 404
        assert named_in_metrics(server, "shop")
        remove_job(shop.data)
        shutil.rmtree(typo.data.folder)  # nothing of it was open
        eventually(lambda: listed(server) == set())
        assert server.lookup("shop", id="a").problem[:2] == (404, "unknown-job")
        eventually(lambda: not named_in_metrics(server, "shop") and not named_in_metrics(server, "typo"))
        say(shop, "two", id=["a"])
        eventually(lambda: listed(server) == {"shop"})
        server.settled("shop", 1)
        remove_job(shop.data)
        assert server.stop() == 0
    assert not shop.data.folder.exists()


def test_removing_is_asked_about(
    shop: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It cannot be undone, so the command asks and says what goes; without a terminal it takes --yes."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    error = batchinfer("jobs", "remove", "shop", "--json").json["error"]
    assert (error["code"], error["fix"]) == ("not_confirmed", "Pass --yes to remove it.")
    assert error["message"].startswith("This removes the job shop from ")
    asked = answer_no(monkeypatch)
    done = batchinfer("jobs", "remove", "shop")
    assert (done.code, done.sentence.endswith(" cannot be undone. Stopped, since the answer was no.")) == (2, True)
    assert "MB, with version 1, which is served), and cannot be undone. Continue?" in asked[0]
    assert "shop" in batchinfer("jobs").out
    assert [row.keys() for row in batchinfer("jobs", "--json").json] == [
        {"job", "version", "entries", "bytes", "job_file"}
    ]
    assert batchinfer("jobs", "remove", "shop", "--yes", "--json").json.keys() == {"job", "bytes"}
    assert batchinfer("jobs").code == 6
