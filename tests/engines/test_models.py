"""Digests of model folders: of names and contents, and remembered outside of data folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from batchinfer.engines import models
from tests.tiny import make_job, numbered


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
    monkeypatch.setattr(models, "digests_file", lambda: file)
    return file


def test_a_digest_is_that_of_names_and_contents(folder: Path, digests: Path) -> None:
    """A copy elsewhere has the same one; another name or another byte makes another."""
    first = models.folder_digest(folder)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    assert models.folder_digest(copy) == first
    (copy / "weights").rename(copy / "weight")
    (folder / "weights").write_bytes(b"abcd")
    assert len({first, models.folder_digest(copy), models.folder_digest(folder)}) == 3


def test_a_folder_that_is_as_it_was_is_not_read_again(folder: Path, digests: Path) -> None:
    """Known by path, size and time of its files; a folder that is gone is known no longer."""
    first = models.folder_digest(folder)
    times = (folder / "weights").stat()
    (folder / "weights").write_bytes(b"abd")
    os.utime(folder / "weights", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert models.folder_digest(folder) == first
    moved = folder.rename(folder.with_name("moved"))
    assert models.folder_digest(moved) != first
    assert str(folder) not in digests.read_text(encoding="utf-8")


def test_other_weights_in_one_folder_are_told_apart(tmp_path: Path, tiny: Path) -> None:
    """So that what runs took by one model is not taken for what they take by the other; people see one name."""
    job, data = make_job(tmp_path / "shop", numbered(1), shutil.copytree(tiny, tmp_path / "model"))
    first = models.resolve(job, data)
    assert first.exact_label == f"{tmp_path / 'model'} {first.digest[:12]}"
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    other = models.resolve(job, data)
    assert (other.label, other.exact_label != first.exact_label) == (first.label, True)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", None], ids=["empty", "a list", "no text", "a folder"])
def test_a_memory_that_cannot_be_used_costs_time_alone(folder: Path, digests: Path, content: bytes | None) -> None:
    """What cannot be read or written is done without."""
    first = models.folder_digest(folder)
    digests.unlink()
    if content is None:
        digests.mkdir()
    else:
        digests.write_bytes(content)
    assert models.folder_digest(folder) == first


def test_reading_a_large_folder_says_how_far_it_is(
    folder: Path, digests: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of many gigabytes takes minutes, once; one that is read in a moment, or known, takes no word."""
    models.folder_digest(folder)
    assert caplog.messages == []
    digests.unlink()
    monkeypatch.setattr(models, "SILENT_SECONDS", -1.0)
    models.folder_digest(folder)
    assert caplog.messages == [f"Reading {folder} once, to know it by its files: 0.0 of 0.0 GB ..."]


def test_files_of_a_hub_model_are_those_in_the_hubs_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its commit; where they cannot be had nobody guesses. A folder is its own."""
    asked = list[tuple[str, str | None]]()

    def snapshot(source: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((source, revision))
        assert {"*.json", "*.safetensors"} <= set(allow_patterns)
        assert "*/*" in ignore_patterns
        if source == "org/gone":
            raise OSError(source)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert models.files_of("org/name", "a" * 40) == folder
    assert models.files_of("org/gone", None) is None
    assert asked == [("org/name", "a" * 40), ("org/gone", None)]
    assert models.files_of(str(folder), None) == folder
    assert len(asked) == 2
