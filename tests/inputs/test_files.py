"""The files of a list: by name, folder and glob, the job's own or another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.errors import InputError, SpecError
from batchinfer.inputs.files import find_files, job_files, list_columns, list_files
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.spec import InputSpec
from batchinfer.review.predictions import import_predictions
from tests.factories import World, imports_job, write


def paths(path: Path) -> list[Path]:
    """The files that a path names."""
    return [file.path for file in find_files(path)]


def test_files_are_found_by_name_folder_and_glob(tmp_path: Path) -> None:
    """A path, a folder with folders in it, and a glob each name their files, sorted; folders are never taken for files."""
    first = write(tmp_path / "lists" / "a.parquet", {"id": [1]})
    second = write(tmp_path / "lists" / "b.parquet" / "part-0.parquet", {"id": [2]})
    (tmp_path / "lists" / "notes.txt").write_text("no list", encoding="utf-8")
    assert paths(first) == [first]
    assert paths(tmp_path / "lists") == [first, second]
    assert paths(tmp_path / "lists" / "*.parquet") == [first]
    assert paths(tmp_path / "**" / "*.parquet") == [first, second]


@pytest.mark.parametrize("name", ["nowhere.parquet", "lists/*.csv", "empty"])
def test_a_list_that_is_not_there_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    """A file, glob or folder that names no list is refused with where to look."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"There is no file .*--input|holds no \.parquet, \.csv or"):
        find_files(tmp_path / name)


@pytest.mark.parametrize("name", ["**.parquet", "lists/a**", "***", "**a/b.parquet", "in/{date:%Y}/**.csv"])
def test_two_stars_within_a_name_are_refused(tmp_path: Path, name: str) -> None:
    """They would stand for nothing that one does not; a date may be beside them."""
    write(tmp_path / "job" / "in" / "2025" / "a.csv", {"id": [1]})
    world = imports_job(tmp_path, {"id": ["a"]}, input={"path": name, "key": ["id"]})
    with pytest.raises(InputError, match=r"\*\* beside other characters: \* stands for"):
        job_files(world.job)


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A job whose list is a folder of two files, with a link beside them."""
    world = imports_job(tmp_path, {"id": ["a"]}, input={"path": "lists", "key": ["id"]})
    for name in ("one", "two"):
        write(world.job.folder / "lists" / f"{name}.parquet", {"id": [name], "n": [1]})
    return world


def test_a_list_that_is_not_there_is_named_by_where_it_was_given(made: World, tmp_path: Path) -> None:
    """The advice for --input is not to use --input."""
    with pytest.raises(InputError, match=r"There is no file .*/gone\.parquet: check --input\.$"):
        list_files(made.job, made.data, tmp_path / "gone.parquet", tmp_path)


def test_the_jobs_own_files(made: World, tmp_path: Path) -> None:
    """They are those that input.path names, none of which may lie beyond the job's folder."""
    assert [path.name for path in job_files(made.job)] == ["one.parquet", "two.parquet"]
    (made.job.folder / "lists" / "three.parquet").symlink_to(write(tmp_path / "secret.parquet", {"id": ["x"]}))
    with pytest.raises(SpecError, match=r"input\.path"):
        job_files(made.job)


def test_another_list_may_lie_anywhere(made: World, tmp_path: Path) -> None:
    """What a person names in place of the job's list is taken as it is."""
    other = write(tmp_path / "elsewhere.parquet", {"id": ["x"]})
    assert list_files(made.job, made.data, other, tmp_path) == ([ListFile(other)], None)
    assert list_files(made.job, made.data, None, tmp_path) == (job_files(made.job), None)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Neither Arrow nor DuckDB opens a path of other bytes than UTF-8, wherever in it they are."""
    for name in (b"in/lang=\xff/a.parquet", b"a\xff.parquet"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        for asked in (path, path.parent):
            with pytest.raises(InputError, match="has a name that is not UTF-8: rename it"):
                find_files(asked)


def test_columns_are_read_without_the_rows(made: World) -> None:
    """The key's columns and those that are used have their kinds; a column that is missing is named."""
    source, upstream = list_columns(made.job, made.data, used=["n"])
    assert (source.kinds, upstream) == ({"id": "string", "n": "integer"}, None)
    with pytest.raises(InputError, match="no column nowhere"):
        list_columns(made.job, made.data, used=["nowhere"])


@pytest.mark.parametrize(
    "name", ["._part-0.parquet", "_SUCCESS.parquet", "_tmp/0/a.parquet", ".hidden/a.parquet", "b/.c/e.parquet"]
)
def test_hidden_names_are_no_data(tmp_path: Path, name: str) -> None:
    """Names that begin with . or _ below a folder are left out, by folder and by glob; the list's own path may have them."""
    folder = tmp_path / ".jobs" / "_lists"
    real = write(folder / "deep" / "a.parquet", {"id": [1]})
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"no Parquet file")
    assert paths(folder) == paths(folder / "**" / "*.parquet") == [real]
    assert paths(folder / name) == [folder / name]  # who names it means it


def test_a_folder_of_hidden_names_alone_says_so(tmp_path: Path) -> None:
    """A person learns why files that are there are not taken; a glob that asks for them has them."""
    hidden = write(tmp_path / "_part.parquet", {"id": [1]})
    with pytest.raises(
        InputError,
        match=r"holds no \.parquet, \.csv or \.jsonl file\. What it has there, such as .*_part.parquet, begins with",
    ):
        find_files(tmp_path)
    assert paths(tmp_path / "_*.parquet") == [hidden]


@pytest.mark.parametrize(
    ("sign", "named", "kind"),
    [("_delta_log/0.json", "", "a Delta"), ("metadata/v1.metadata.json", "", "an Iceberg"),
     ("metadata/1.metadata.json", "data", "an Iceberg"), (".hoodie/hoodie.properties", "", "a Hudi"),
     ("_delta_log/0.json", "*.parquet", "a Delta")],
)  # fmt: skip
def test_the_folder_of_a_table_is_refused_by_name(tmp_path: Path, sign: str, named: str, kind: str) -> None:
    """Its files hold rows that the table does not have any more; also where it is one of several in the list's folder."""
    table = tmp_path / "lists" / "table"
    write(table / "data" / "a.parquet", {"id": [1]})
    write(table / "a.parquet", {"id": [1]})
    (table / sign).parent.mkdir(exist_ok=True)
    (table / sign).write_text("{}", encoding="utf-8")
    for path in [table / named] if named else [table, tmp_path / "lists"]:
        with pytest.raises(InputError, match=f"{table} is {kind} table.*plain Parquet into another folder"):
            find_files(path)


def rows_of(path: Path, key: list[str], *columns: str, **fields: Any) -> list[tuple[Any, ...]]:
    """The good rows of a list, without their numbers."""
    source = ListSource(find_files(path), InputSpec.model_validate({"path": "x", "key": key} | fields), columns)
    tables = pa.concat_tables([batch.good for batch in source.batches()]).select([*key, *columns])
    return [tuple(row.values()) for row in tables.to_pylist()]


def test_partitions_of_a_folder_are_columns(tmp_path: Path) -> None:
    """Folders such as lang=de name a column: text, or as the job says, escapes undone, Hive's default null."""
    root = tmp_path / "a=1"  # what stands above the list is only a name
    for place in (
        "lang=de/year=2024",
        "lang=__HIVE_DEFAULT_PARTITION__/year=2025",
        "lang=a%20b%2Fc%3D/year=7",
        "lang=x=y/year=8",
    ):
        write(root / "in" / place / "part.parquet", {"id": [place[5]]})
    found = rows_of(root / "in", ["id"], "lang", "year", types={"year": "integer"}, optional=["lang"])
    assert found == [("_", None, 2025), ("a", "a b/c=", 7), ("d", "de", 2024), ("x", "x=y", 8)]
    assert rows_of(root / "in" / "lang=*" / "*" / "*.parquet", ["id"], "lang", optional=["lang"])[2] == ("d", "de")
    assert ROW not in ListSource(find_files(root / "in"), InputSpec(path="x", key=["lang"]), []).kinds
    with pytest.raises(InputError, match=r"part\.parquet has no column a: it has id, lang, year\."):
        rows_of(root / "in", ["a"])


def test_a_files_own_column_goes_before_its_folder(tmp_path: Path) -> None:
    """Where both have it, as some programs write it, the file's rows are right; each file must have it by one or the other."""
    write(tmp_path / "in" / "lang=de" / "a.parquet", {"id": [1], "lang": ["de-AT"]})
    write(tmp_path / "in" / "lang=fr" / "b.parquet", {"id": [2]})
    assert rows_of(tmp_path / "in", ["id"], "lang") == [(1, "de-AT"), (2, "fr")]
    write(tmp_path / "in" / "c.parquet", {"id": [3]})
    with pytest.raises(InputError, match=r"c\.parquet has no column lang"):
        rows_of(tmp_path / "in", ["id"], "lang")


def test_partitions_are_a_jobs_key(tmp_path: Path) -> None:
    """A list and an import that lie in folders by language are published, and looked up by it."""
    world = imports_job(
        tmp_path, {"id": ["x"]}, input={"path": "lists", "key": ["id", "lang"], "where": {"lang": ["de", "fr"]}}
    )
    for lang in ("de", "fr", "it"):
        write(world.job.folder / "lists" / f"lang={lang}" / "._a.parquet", {"id": ["no"]})
        write(world.job.folder / "lists" / f"lang={lang}" / "a.parquet", {"id": ["x"]})
        if lang != "it":
            write(tmp_path / "given" / f"lang={lang}" / "a.parquet", {"id": ["x"], "prediction": [f"in {lang}"]})
    import_predictions(world.job, world.data, tmp_path / "given", None)
    assert world.publish().version == 1
    assert b'"in fr"' in (world.get(id="x", lang="fr") or b"")
    assert world.get(id="x", lang="it") is None


def test_a_files_path_is_no_variable(tmp_path: Path) -> None:
    """A folder of the list named like a variable is not replaced by its value."""
    world = imports_job(tmp_path, {"id": ["x"]}, input={"path": "lists", "key": ["id"]})
    file = write(world.job.folder / "lists" / "$HOME" / "a.parquet", {"id": ["x"]})
    assert [found.path for found in job_files(world.job)] == [file]
