"""Digests of models: of names and contents, and remembered outside of data folders."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from batchinfer.engines import digests as module
from batchinfer.engines.digests import file_digest, folder_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with two files."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}", encoding="utf-8")
    (made / "weights").write_bytes(b"abc")
    return made


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where digests are remembered; its folder is not there yet."""
    file = tmp_path / "cache" / "digests.json"
    monkeypatch.setattr(module, "digests_file", lambda: file)
    return file


def test_a_digest_is_that_of_names_and_contents(folder: Path, digests: Path) -> None:
    """A copy elsewhere has the same one; another name or another byte makes another."""
    first = folder_digest(folder)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    assert folder_digest(copy) == first
    (copy / "weights").rename(copy / "weight")
    (folder / "weights").write_bytes(b"abcd")
    assert len({first, folder_digest(copy), folder_digest(folder)}) == 3


def test_a_folder_that_is_as_it_was_is_not_read_again(folder: Path, digests: Path) -> None:
    """Known by path, size and time of its files; a folder that is gone is known no longer."""
    first = folder_digest(folder)
    times = (folder / "weights").stat()
    (folder / "weights").write_bytes(b"abd")
    os.utime(folder / "weights", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder_digest(folder) == first
    moved = folder.rename(folder.with_name("moved"))
    assert folder_digest(moved) != first
    assert str(folder) not in digests.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", None], ids=["empty", "a list", "no text", "a folder"])
def test_a_memory_that_cannot_be_used_costs_time_alone(folder: Path, digests: Path, content: bytes | None) -> None:
    """What cannot be read or written is done without."""
    first = folder_digest(folder)
    digests.unlink()
    if content is None:
        digests.mkdir()
    else:
        digests.write_bytes(content)
    assert folder_digest(folder) == first


def test_reading_a_large_folder_says_how_far_it_is(
    folder: Path, digests: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of many gigabytes takes minutes, once; one that is read in a moment, or known, takes no word."""
    folder_digest(folder)
    assert caplog.messages == []
    digests.unlink()
    monkeypatch.setattr(module, "SILENT_SECONDS", -1.0)
    folder_digest(folder)
    assert caplog.messages == [f"Reading {folder} once, to know it by its files: 0.0 of 0.0 GB ..."]


def test_a_file_is_known_by_its_content(folder: Path, digests: Path) -> None:
    """And remembered as folders are: one that is as it was is not read again."""
    weights = folder / "weights"
    assert file_digest(weights) == hashlib.sha256(b"abc").hexdigest()
    times = weights.stat()
    weights.write_bytes(b"abd")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file_digest(weights) == hashlib.sha256(b"abc").hexdigest()
    weights.write_bytes(b"abcd")
    assert file_digest(weights) == hashlib.sha256(b"abcd").hexdigest()
    assert str(weights) in digests.read_text(encoding="utf-8")
