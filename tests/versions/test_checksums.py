"""Checksums are compared once on a machine, and nobody else's word is taken for it."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.versions import checksums
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import PREDICTIONS
from batchinfer.versions.snapshot import Snapshot
from tests.versions.following import following, says


@pytest.mark.long
def test_checksums_are_compared_once(data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process of this user trusts what the first compared; a changed file is compared again."""
    compared = []
    verify = Snapshot.verify

    def counting(snapshot: Snapshot) -> None:
        compared.append(snapshot.folder.name)
        verify(snapshot)

    monkeypatch.setattr(Snapshot, "verify", counting)
    following(data)
    following(data)
    assert compared == ["000003"]
    os.utime(folder_of(data, 3) / PREDICTIONS)
    following(data)
    assert compared == ["000003"] * 2
    marks = [path for path in tmp_path.glob("batchinfer-checked-*/*") if path.suffix != ".lock"]
    assert len(marks) == 2


@pytest.mark.parametrize("spoilt", ["a file", "open to others", "a link"])
def test_what_others_could_write_is_not_trusted(data: JobData, tmp_path: Path, spoilt: str) -> None:
    """If the folder that remembers is not this user's alone, each process compares for itself."""
    folder = tmp_path / f"batchinfer-checked-{os.getuid()}"
    if spoilt == "a file":
        folder.touch()
    elif spoilt == "a link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert checksums._memory() is None
    assert says(following(data)) == "3"
    (folder_of(data, 3) / PREDICTIONS).write_bytes(b"x")
    follower = following(data)
    assert (says(follower), follower.followed.degraded) == ("2", True)


def test_several_that_open_a_version_at_once(data: JobData, monkeypatch: pytest.MonkeyPatch) -> None:
    """One compares, the others wait for it, and all of them have it open then."""
    verify, compared = Snapshot.verify, []

    def slow(snapshot: Snapshot) -> None:
        compared.append(snapshot.folder.name)
        time.sleep(0.3)
        verify(snapshot)

    monkeypatch.setattr(Snapshot, "verify", slow)
    with ThreadPoolExecutor(4) as pool:
        followers = list(pool.map(lambda _: following(data), range(4)))
    assert [(says(follower), follower.followed.problem) for follower in followers] == [("3", None)] * 4
    assert compared == ["000003"]
