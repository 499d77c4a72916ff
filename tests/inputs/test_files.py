"""The files of a list: by name, folder and glob, the job's own or another."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.errors import InputError, SpecError
from batchinfer.inputs.files import find_files, job_files, list_columns, list_files
from tests.factories import World, imports_job, write


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


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A job whose list is a folder of two files, with a link beside them."""
    world = imports_job(tmp_path, {"id": ["a"]}, input={"path": "lists", "key": ["id"]})
    for name in ("one", "two"):
        write(world.job.folder / "lists" / f"{name}.parquet", {"id": [name], "n": [1]})
    return world


def test_the_jobs_own_files(made: World, tmp_path: Path) -> None:
    """They are those that input.path names, none of which may lie beyond the job's folder."""
    assert [path.name for path in job_files(made.job)] == ["one.parquet", "two.parquet"]
    (made.job.folder / "lists" / "three.parquet").symlink_to(write(tmp_path / "secret.parquet", {"id": ["x"]}))
    with pytest.raises(SpecError, match=r"input\.path"):
        job_files(made.job)


def test_another_list_may_lie_anywhere(made: World, tmp_path: Path) -> None:
    """What a person names in place of the job's list is taken as it is."""
    other = write(tmp_path / "elsewhere.parquet", {"id": ["x"]})
    assert list_files(made.job, made.data, other, tmp_path) == ([other], None)
    assert list_files(made.job, made.data, None, tmp_path) == (job_files(made.job), None)


def test_columns_are_read_without_the_rows(made: World) -> None:
    """The key's columns and those that are used have their kinds; a column that is missing is named."""
    source, upstream = list_columns(made.job, made.data, used=["n"])
    assert (source.kinds, upstream) == ({"id": "string", "n": "integer"}, None)
    with pytest.raises(InputError, match="no column nowhere"):
        list_columns(made.job, made.data, used=["nowhere"])
