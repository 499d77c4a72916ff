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
from batchinfer.serve.registry import JobRegistry, OpenVersion, ServedJob
from tests.damage import VERSIONS, edit_manifest, next_version, other_key, point
from tests.factories import LENIENT, World, imports_job


def published(folder: Path, **sections: object) -> World:
    """A job with one version."""
    world = imports_job(folder, {"id": ["a"]}, gate=LENIENT, **sections)
    world.take_in({"id": ["a"], "prediction": ["x"]})
    world.publish()
    return world


def board_of(world: World, *, records_misses: bool = True) -> JobRegistry:
    """A board that has looked once."""
    board = JobRegistry(world.data.root, lambda _: None, records_misses=records_misses)
    board.refresh()
    return board


def spooled_by(desk: ServedJob, folder: Path) -> list[list[str]]:
    """The queries in each file that a desk writes now."""
    before = set(spooled(folder / desk.job)) if (folder / desk.job).exists() else set()
    desk.spool_misses(folder)
    files = [path for path in spooled(folder / desk.job) if path not in before] if (folder / desk.job).exists() else []
    return [[query for query, _ in json.loads(path.read_bytes())["misses"]] for path in files]


def test_misses_are_kept_over_a_swap(tmp_path: Path) -> None:
    """A new version with the same lookup key goes on with the misses noted so far."""
    world = published(tmp_path)
    desk = board_of(world).desks["shop"]
    first = desk.opened()
    assert first.misses is not None
    first.misses.add(("b",))
    next_version(world.data, 1, 2)
    desk.refresh()
    second = desk.opened()
    assert (second.version, second.misses) == (2, first.misses)
    assert spooled_by(desk, tmp_path / "spool") == [['{"id":"b"}']]
    assert spooled_by(desk, tmp_path / "spool") == []


def test_misses_of_another_key_are_spooled_too(tmp_path: Path) -> None:
    """When a version with another lookup key comes, the old one's misses are written under their own columns."""
    world = published(tmp_path)
    board = board_of(world)
    desk = board.desks["shop"]
    first = desk.opened().misses
    assert first is not None
    first.add(("b",))
    next_version(world.data, 1, 2, other_key)
    board.refresh()
    second = desk.opened().misses
    assert second is not None
    assert second is not first
    second.add((7,))
    first.add(("late",))  # a request that took the old version
    assert sorted(spooled_by(desk, tmp_path / "spool")) == [['{"id":"b"}', '{"id":"late"}'], ['{"size":7}']]


def test_misses_are_not_noted_where_somebody_said_so(tmp_path: Path) -> None:
    """The job's serve section and the server's option turn it off."""
    assert board_of(published(tmp_path / "on")).desks["shop"].opened().misses is not None
    assert board_of(published(tmp_path / "off", serve={"misses": False})).desks["shop"].opened().misses is None
    assert board_of(published(tmp_path / "server"), records_misses=False).desks["shop"].opened().misses is None


def test_a_job_is_heard_of_before_it_can_be_asked_for(tmp_path: Path) -> None:
    """Each new job is announced once, while it has no desk yet; readiness waits for its version."""
    world = published(tmp_path)
    heard: list[str] = []

    def welcome(desk: ServedJob) -> None:
        assert desk.job not in board.desks
        heard.append(desk.job)

    board = JobRegistry(world.data.root, welcome, records_misses=True)
    assert not board.ready
    board.refresh()
    assert (heard, board.ready) == (["shop"], True)
    (world.data.root / "late").mkdir()
    (world.data.root / "Not_a_job" / "versions").mkdir(parents=True)
    (world.data.root / "late" / "job.json").touch()
    for _ in range(2):
        board.refresh()
    assert (heard, board.ready) == (["shop", "late"], True)


def test_ready_means_that_what_is_published_is_open(tmp_path: Path) -> None:
    """A job whose only version is damaged holds readiness back until it is mended or another is published."""
    world = published(tmp_path)
    next_version(world.data, 1, 2, VERSIONS["truncated lookup file"][0])
    (world.data.versions / "000001").rename(tmp_path / "away")
    board = board_of(world)
    assert not board.ready
    (tmp_path / "away").rename(world.data.versions / "000001")
    point(world.data, 1)
    board.refresh()
    assert board.ready


def test_one_broken_job_does_not_hold_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that nobody thought of, in one job, is logged, and the next job is brought up to date all the same."""
    world = published(tmp_path)
    board = board_of(world)
    (world.data.root / "aaa").mkdir()
    (world.data.root / "aaa" / "job.json").touch()
    board.refresh()
    refresh = ServedJob.refresh

    def broken(desk: ServedJob) -> None:
        if desk.job == "aaa":
            raise ZeroDivisionError
        refresh(desk)

    monkeypatch.setattr(ServedJob, "refresh", broken)
    monkeypatch.setattr(logging.getLogger("batchinfer"), "propagate", True)
    next_version(world.data, 1, 2)
    board.refresh()
    assert board.desks["shop"].opened().version == 2
    assert "aaa: could not be refreshed" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"finished_at": 7}', b'{"finished_at": "soon"}', b"\xff"])
def test_a_damaged_note_of_the_last_run_is_no_fault(tmp_path: Path, content: bytes) -> None:
    """The time of the last success stays what it was while its file cannot be read."""
    world = published(tmp_path)
    note = world.data.folder / "last_run.json"
    note.write_text('{"finished_at": "2026-01-31T12:00:00+00:00"}')
    board = board_of(world)
    note.write_bytes(content)
    board.refresh()
    assert [(state.last_success_at, state.last_success) for state in board.states()] == [
        ("2026-01-31T12:00:00+00:00", 1769860800.0)
    ]


def test_a_version_that_cannot_be_taken_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that nobody thought of counts as a failed load and is told; what is open goes on."""
    world = published(tmp_path)
    board = board_of(world)

    def broken(*_: object) -> OpenVersion:
        raise ZeroDivisionError

    monkeypatch.setattr(OpenVersion, "of", broken)
    next_version(world.data, 1, 2)
    board.refresh()
    [state] = board.states()
    assert (state.version, state.degraded, state.failed_loads) == (1, True, 1)
    assert state.problem == "What is published of shop cannot be served: ZeroDivisionError()."


def test_another_unicode_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A version that normalizes by another Unicode than this Python's is served, and the log says so; others need not be."""
    monkeypatch.setattr(logging.getLogger("batchinfer"), "propagate", True)
    world = published(tmp_path)
    edit = {"normalize": ["nfkc"], "unicode": unicodedata.unidata_version}
    next_version(world.data, 1, 2, lambda folder: edit_manifest(folder, **edit))
    point(world.data, 2)
    board = board_of(world)
    assert "Unicode" not in caplog.text
    next_version(world.data, 2, 3, lambda folder: edit_manifest(folder, unicode="1.1"))
    point(world.data, 3)
    board.refresh()
    assert board.desks["shop"].opened().version == 3
    assert f"shop: version 3 normalizes by Unicode 1.1, and this Python by {unicodedata.unidata_version}" in caplog.text


def test_a_large_reply_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions that are too long together are refused; one alone is answered, however long."""
    opened = board_of(published(tmp_path)).desks["shop"].opened()
    body = opened.snapshot.get({"id": "a"})
    assert body is not None
    monkeypatch.setattr(batch, "MAX_REPLY", 2 * len(body))
    assert len(json.loads(batch.answer(opened, [{"id": "a"}] * 2)[0])["results"]) == 2
    with pytest.raises(Problem) as refused:
        batch.answer(opened, [{"id": "a"}] * 3)
    assert (refused.value.slug, refused.value.status) == ("too-large", 413)
    monkeypatch.setattr(batch, "MAX_REPLY", 0)
    assert json.loads(batch.answer(opened, [{"id": "a"}])[0])["results"][0]["prediction"] == "x"


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
    assert list(board_of(world).desks) == ["shop"]
