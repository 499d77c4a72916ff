"""What a job's model is: told apart by its weights, and found where its files lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from batchinfer.engines import models
from tests.tiny import make_job, numbered


def test_other_weights_in_one_folder_are_told_apart(tmp_path: Path, tiny: Path) -> None:
    """So that what runs took by one model is not taken for what they take by the other; people see one name."""
    job, data = make_job(tmp_path / "shop", numbered(1), shutil.copytree(tiny, tmp_path / "model"))
    first = models.resolve(job, data)
    assert first.exact_label == f"{tmp_path / 'model'} {first.digest[:12]}"
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    other = models.resolve(job, data)
    assert (other.label, other.exact_label != first.exact_label) == (first.label, True)


def test_files_of_a_hub_model_are_those_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its commit; where they cannot be had nobody guesses. A folder is its own."""
    asked = list[tuple[str, str | None]]()

    def snapshot(source: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((source, revision))
        assert {"*.json", "*.safetensors"} <= set(allow_patterns)
        assert "*/*" in ignore_patterns
        if source == "org/gone":
            raise OSError(source)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert models.files_of("org/name", "a" * 40) == tmp_path
    assert models.files_of("org/gone", None) is None
    assert asked == [("org/name", "a" * 40), ("org/gone", None)]
    assert models.files_of(str(tmp_path), None) == tmp_path
    assert len(asked) == 2
