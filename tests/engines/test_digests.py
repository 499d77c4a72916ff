"""Digests of models: of names and contents, and remembered outside of data folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

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


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read so far."""
    names, read_file = list[str](), module._read_file

    def counted(path: Path, reading: Any) -> str:
        names.append(path.name)
        return read_file(path, reading)

    monkeypatch.setattr(module, "_read_file", counted)
    return names


def put_in_place(file: Path, content: bytes) -> None:
    """Other content of the same size and time, as of a restored copy."""
    times = file.stat()
    while file.stat().st_ctime_ns == times.st_ctime_ns:  # which moves on in steps of milliseconds
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_folder_that_is_as_it_was_is_not_read_again(folder: Path, digests: Path, read: list[str]) -> None:
    """A folder that is gone is known no longer."""
    assert folder_digest(folder) == folder_digest(folder)
    assert read == ["config.json", "weights"]
    moved = folder.rename(folder.with_name("moved"))
    folder_digest(moved)
    assert read == ["config.json", "weights"] * 2
    assert str(folder) not in digests.read_text(encoding="utf-8")


def test_other_weights_of_the_same_size_and_time_are_others(folder: Path, digests: Path) -> None:
    """As of an image that gives all files one time: what the old ones answered is never taken for what these do."""
    first = folder_digest(folder)
    put_in_place(folder / "weights", b"abd")
    second = folder_digest(folder)
    times = (folder / "weights").stat()
    (folder / "copy").write_bytes(b"abe")
    os.utime(folder / "copy", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "copy").replace(folder / "weights")
    assert len({first, second, folder_digest(folder)}) == 3


def test_a_path_that_cannot_be_looked_at_ends_nothing(folder: Path, digests: Path) -> None:
    """As that of a model on a mount that is dead, or whose name is too long there: it is known no longer."""
    folder_digest(folder)
    known = json.loads(digests.read_text(encoding="utf-8"))
    long = "/" + "x" * 300
    digests.write_text(json.dumps({**known, long: known[str(folder)]}), encoding="utf-8")
    weights = folder / "weights"
    assert file_digest(weights) == hashlib.sha256(b"abc").hexdigest()
    assert set(json.loads(digests.read_text(encoding="utf-8"))) == {str(folder), str(weights)}


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


def test_a_file_is_known_by_its_content(folder: Path, digests: Path, read: list[str]) -> None:
    """And remembered as folders are: one that is as it was is not read again."""
    weights = folder / "weights"
    assert [file_digest(weights), file_digest(weights)] == [hashlib.sha256(b"abc").hexdigest()] * 2
    assert read == ["weights"]
    put_in_place(weights, b"abd")
    assert file_digest(weights) == hashlib.sha256(b"abd").hexdigest()
    weights.write_bytes(b"abcd")
    assert file_digest(weights) == hashlib.sha256(b"abcd").hexdigest()
    assert str(weights) in digests.read_text(encoding="utf-8")
