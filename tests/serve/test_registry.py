"""The jobs of a data folder as one worker serves them: which version is open, and where its misses are noted."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import pytest

from batchinfer.misses.counter import spooled
from batchinfer.serve import batch
from batchinfer.serve.problems import Problem
from batchinfer.serve.registry import JobRegistry
from batchinfer.serve.served_job import JobState, OpenVersion, ServedJob
from tests.damage import VERSIONS, edit_manifest, next_version, other_key, point
from tests.factories import LENIENT, World, imports_job


def published(folder: Path, **sections: object) -> World:
    """A job with one version."""
    world = imports_job(folder, {"id": ["a"]}, gate=LENIENT, **sections)
    world.take_in({"id": ["a"], "prediction": ["x"]})
    world.publish()
    return world


def registry_of(world: World, *, records_misses: bool = True) -> JobRegistry:
    """A registry that has looked once."""
    registry = JobRegistry(world.data.root, lambda _: None, records_misses=records_misses)
    registry.refresh()
    return registry


def spooled_by(job: ServedJob, folder: Path) -> list[list[str]]:
    """The queries in each file that a job writes now."""
    before = set(spooled(folder / job.name)) if (folder / job.name).exists() else set()
    job.spool_misses(folder)
    files = [path for path in spooled(folder / job.name) if path not in before] if (folder / job.name).exists() else []
    return [[query for query, _ in json.loads(path.read_bytes())["misses"]] for path in files]


def test_misses_are_kept_over_a_swap(tmp_path: Path) -> None:
    """A new version with the same lookup key goes on with the misses noted so far."""
    world = published(tmp_path)
    job = registry_of(world).jobs["shop"]
    first = job.open_version()
    assert first.miss_counter is not None
    first.miss_counter.add(("b",))
    next_version(world.data, 1, 2)
    job.refresh()
    second = job.open_version()
    assert (second.version, second.miss_counter) == (2, first.miss_counter)
    assert spooled_by(job, tmp_path / "spool") == [['{"id":"b"}']]
    assert spooled_by(job, tmp_path / "spool") == []


def test_misses_of_another_key_are_spooled_too(tmp_path: Path) -> None:
    """When a version with another lookup key comes, the old one's misses are written under their own columns."""
    world = published(tmp_path)
    registry = registry_of(world)
    job = registry.jobs["shop"]
    first = job.open_version().miss_counter
    assert first is not None
    first.add(("b",))
    next_version(world.data, 1, 2, other_key)
    registry.refresh()
    second = job.open_version().miss_counter
    assert second is not None
    assert second is not first
    second.add((7,))
    first.add(("late",))  # a request that took the old version
    assert sorted(spooled_by(job, tmp_path / "spool")) == [['{"id":"b"}', '{"id":"late"}'], ['{"size":7}']]


def test_misses_are_not_noted_where_somebody_said_so(tmp_path: Path) -> None:
    """The job's serve section and the server's option turn it off."""
    assert registry_of(published(tmp_path / "on")).jobs["shop"].open_version().miss_counter is not None
    assert (
        registry_of(published(tmp_path / "off", serve={"misses": False})).jobs["shop"].open_version().miss_counter
        is None
    )
    assert (
        registry_of(published(tmp_path / "server"), records_misses=False).jobs["shop"].open_version().miss_counter
        is None
    )


def test_a_job_is_heard_of_before_it_can_be_asked_for(tmp_path: Path) -> None:
    """Each new job is announced once, before it is in the registry; readiness waits for its version."""
    world = published(tmp_path)
    heard: list[str] = []

    def on_new_job(job: ServedJob) -> None:
        assert job.name not in registry.jobs
        heard.append(job.name)

    registry = JobRegistry(world.data.root, on_new_job, records_misses=True)
    assert not registry.ready
    registry.refresh()
    assert (heard, registry.ready) == (["shop"], True)
    (world.data.root / "late").mkdir()
    (world.data.root / "Not_a_job" / "versions").mkdir(parents=True)
    (world.data.root / "late" / "job.json").touch()
    for _ in range(2):
        registry.refresh()
    assert (heard, registry.ready) == (["shop", "late"], True)


def test_ready_means_that_what_is_published_is_open(tmp_path: Path) -> None:
    """A job whose only version is damaged holds readiness back until it is repaired or another is published."""
    world = published(tmp_path)
    next_version(world.data, 1, 2, VERSIONS["truncated lookup file"][0])
    (world.data.versions / "000001").rename(tmp_path / "away")
    registry = registry_of(world)
    assert not registry.ready
    (tmp_path / "away").rename(world.data.versions / "000001")
    point(world.data, 1)
    registry.refresh()
    assert registry.ready


def test_one_broken_job_does_not_hold_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that nobody thought of, in one job, is logged, and the next job is brought up to date anyway."""
    world = published(tmp_path)
    registry = registry_of(world)
    (world.data.root / "aaa").mkdir()
    (world.data.root / "aaa" / "job.json").touch()
    registry.refresh()
    refresh = ServedJob.refresh

    def broken(job: ServedJob) -> None:
        if job.name == "aaa":
            raise ZeroDivisionError
        refresh(job)

    monkeypatch.setattr(ServedJob, "refresh", broken)
    monkeypatch.setattr(logging.getLogger("batchinfer"), "propagate", True)
    next_version(world.data, 1, 2)
    registry.refresh()
    registry.refresh()
    assert registry.jobs["shop"].open_version().version == 2
    assert caplog.text.count("The job aaa could not be brought up to date.") == 1


def test_a_job_goes_from_state_to_state(tmp_path: Path) -> None:
    """It is starting until it was looked at, then empty, serving or degraded; only what was published is waited for."""
    world = published(tmp_path)
    (world.data.root / "empty").mkdir()
    (world.data.root / "empty" / "job.json").touch()
    seen: list[tuple[str, JobState, bool]] = []
    registry = JobRegistry(world.data.root, lambda job: seen.append(seen_of(job)), records_misses=False)
    registry.refresh()
    assert seen == [("empty", JobState.STARTING, True), ("shop", JobState.STARTING, True)]
    shop, empty = registry.jobs["shop"], registry.jobs["empty"]
    assert (seen_of(shop)[1:], seen_of(empty)[1:]) == ((JobState.SERVING, False), (JobState.EMPTY, False))
    next_version(world.data, 1, 2, VERSIONS["truncated lookup file"][0])
    registry.refresh()
    assert seen_of(shop)[1:] == (JobState.DEGRADED, False), "the old version is open"
    point(world.data, 1)
    registry.refresh()
    assert seen_of(shop)[1:] == (JobState.SERVING, False)
    point(world.data, 2, name="PIN")
    late = ServedJob(world.data, records_misses=False)
    late.refresh()
    assert seen_of(late)[1:] == (JobState.DEGRADED, True), "nothing is open"
    with pytest.raises(Problem, match="The version of shop that should be served is damaged"):
        late.open_version()


def seen_of(job: ServedJob) -> tuple[str, JobState, bool]:
    return job.name, job.situation.state, job.is_awaited


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"finished_at": 7}', b'{"finished_at": "soon"}', b"\xff"])
def test_a_damaged_note_of_the_last_run_is_no_fault(tmp_path: Path, content: bytes) -> None:
    """The time of the last success stays what it was while its file cannot be read."""
    world = published(tmp_path)
    note = world.data.folder / "last_run.json"
    note.write_text('{"finished_at": "2026-01-31T12:00:00+00:00"}')
    registry = registry_of(world)
    note.write_bytes(content)
    registry.refresh()
    assert [(status.last_success_at, status.last_success) for status in registry.statuses()] == [
        ("2026-01-31T12:00:00+00:00", 1769860800.0)
    ]


def test_a_version_that_cannot_be_taken_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that nobody thought of counts as a failed load and is reported; what is open goes on."""
    world = published(tmp_path)
    registry = registry_of(world)

    def broken(*_: object) -> OpenVersion:
        raise ZeroDivisionError

    monkeypatch.setattr(OpenVersion, "of", broken)
    next_version(world.data, 1, 2)
    registry.refresh()
    [status] = registry.statuses()
    assert (status.version, status.degraded, status.failed_loads) == (1, True, 1)
    assert status.problem == "What is published of shop cannot be served: an unforeseen ZeroDivisionError."


def test_another_unicode_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A version that normalizes by another Unicode than this Python's is served, and the log says so; others need not be."""
    monkeypatch.setattr(logging.getLogger("batchinfer"), "propagate", True)
    world = published(tmp_path)
    edit = {"normalize": ["nfkc"], "unicode": unicodedata.unidata_version}
    next_version(world.data, 1, 2, lambda folder: edit_manifest(folder, **edit))
    point(world.data, 2)
    registry = registry_of(world)
    assert "Unicode" not in caplog.text
    next_version(world.data, 2, 3, lambda folder: edit_manifest(folder, unicode="1.1"))
    point(world.data, 3)
    registry.refresh()
    assert registry.jobs["shop"].open_version().version == 3
    assert f"shop: version 3 normalizes by Unicode 1.1, and this Python by {unicodedata.unidata_version}" in caplog.text


def test_a_large_reply_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions that are too long together are refused; one alone is answered, however long."""
    opened = registry_of(published(tmp_path)).jobs["shop"].open_version()
    body = opened.snapshot.get({"id": "a"})
    assert body is not None
    monkeypatch.setattr(batch, "MAX_REPLY", 2 * len(body))
    assert len(json.loads(batch.look_up_all(opened, [{"id": "a"}] * 2).content)["results"]) == 2
    with pytest.raises(Problem) as refused:
        batch.look_up_all(opened, [{"id": "a"}] * 3)
    assert (refused.value.slug, refused.value.status) == ("too-large", 413)
    monkeypatch.setattr(batch, "MAX_REPLY", 0)
    assert json.loads(batch.look_up_all(opened, [{"id": "a"}]).content)["results"][0]["prediction"] == "x"


def test_a_folder_that_may_not_be_looked_into_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other jobs of the data folder are served."""
    world = published(tmp_path)
    (world.data.root / "private").mkdir()
    exists = Path.exists

    def denied(path: Path) -> bool:
        if path.parent.name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", denied)
    assert list(registry_of(world).jobs) == ["shop"]
