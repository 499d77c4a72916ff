"""The files of a list: by name, folder and glob, the job's own or another."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.errors import InputError
from batchinfer.inputs.files import find_files
from tests.factories import write


def test_files_are_found_by_name_folder_and_glob(tmp_path: Path) -> None:
    """A path, a folder with folders in it, and a glob each name their files, sorted; folders are never taken for files."""
    first = write(tmp_path / "lists" / "a.parquet", {"id": [1]})
    second = write(tmp_path / "lists" / "b.parquet" / "part-0.parquet", {"id": [2]})
    (tmp_path / "lists" / "notes.txt").write_text("no list", encoding="utf-8")
    assert find_files(first) == [first]
    assert find_files(tmp_path / "lists") == [first, second]
    assert find_files(tmp_path / "lists" / "*.parquet") == [first]
    assert find_files(tmp_path / "**" / "*.parquet") == [first, second]


@pytest.mark.parametrize("name", ["nowhere.parquet", "lists/*.csv", "empty"])
def test_a_list_that_is_not_there_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    """A file, glob or folder that names no list is refused with where to look."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"There is no file .*--input|holds no \.parquet file"):
        find_files(tmp_path / name)
