"""The files of a query list: the job's own, those given with --input, or made of a query or of another job's version.

What is no Parquet becomes Parquet in the scratch folder, so that all lists are checked by the same rules.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

from batchinfer.core.files import fault_of_path
from batchinfer.core.home import JobData
from batchinfer.errors import InputError
from batchinfer.inputs import csv_file
from batchinfer.inputs.carried import UpstreamList
from batchinfer.inputs.json_lines import lines_as_parquet
from batchinfer.inputs.list_file import ListFile, NoListFile, globbed
from batchinfer.inputs.newest import FindFiles, newest_file, of_date
from batchinfer.inputs.parquet import ListSource, UnfitList
from batchinfer.inputs.place import query_place
from batchinfer.inputs.sql_query import query_as_parquet
from batchinfer.inputs.upstream import Upstream, write_list
from batchinfer.job import reader
from batchinfer.job.date_pattern import DatePattern
from batchinfer.job.reader import Job, placing

JSON_SUFFIXES = (".jsonl", ".ndjson")
KINDS = ((".parquet",), csv_file.SUFFIXES, JSON_SUFFIXES)


def job_files(job: Job) -> list[ListFile]:
    """The files of a job's own list. Raises InputError if there is none, SpecError if one lies where it may not."""
    path, field = job.spec.input.path or "", "input.path"
    newest = job.spec.input.pick == "newest"

    def find(place: Path) -> list[ListFile]:
        files = find_files(place, any_kind=newest)
        for file in files:  # a folder or glob may hold links that lead out
            job.check_inside(field, file.path)
        return files

    place = job.inside(field, path)
    try:
        files = of_path(place, path, find, job.folder, job.list_date)
        return newest_file(files, job.folder) if newest else files
    except InputError as exc:
        exc.field = tuple(field.split("."))
        raise


def of_path(place: Path, said: str, find: FindFiles, base: Path, day: date | None = None) -> list[ListFile]:
    """The files of an absolute path; where it has a date, those of that day, or of the newest. Raises InputError.

    said: the path as it was given. find: gives the files of a path without a date. base: from which names are given.
    """
    return find(place) if DatePattern.of(said) is None else of_date(place, day, find, base)


def find_files(
    path: Path, advice: str = "correct the path, or name the list with --input", *, any_kind: bool = False
) -> list[ListFile]:
    """The files that a path, a folder or a glob names, sorted. Raises InputError if there is none.

    Names that begin with . or _ below the folder are no data, as Spark and Arrow have it; a table's folder is refused.
    any_kind: whether a folder may have files of several kinds.
    """
    if path.is_file():
        _check_name(path)
        return [ListFile(path)]
    if path.is_dir():
        folder, pattern = path, "**/*"
        problem = f"The folder {path} holds no .parquet, .csv or .jsonl file."
    else:  # the part of it that is a folder is a name, and no pattern
        folder = next((parent for parent in path.parents if parent.is_dir()), Path(path.anchor))
        pattern = str(path.relative_to(folder))
        problem = f"There is no file {path}: {advice}."
    found = sorted(file for file in globbed(folder, pattern) if file.is_file())
    if path.is_dir():
        found = [file for file in found if _kind(file) is not None]
    data = [file for file in found if not is_hidden(file.relative_to(folder), Path(pattern))]
    for place in dict.fromkeys(parent for file in [folder / "x", *found] for parent in _between(folder, file)):
        refuse_table(place)
    if not data:
        hidden = f" What it has there, such as {found[0]}, begins with . or _, and so is not data." if found else ""
        raise NoListFile(problem + hidden)
    for file in data:
        _check_name(file)
    kinds = list(dict.fromkeys(filter(None, map(_kind, data))))
    if len(kinds) > 1 and path.is_dir() and not any_kind:
        raise InputError(
            f"{path} holds {' and '.join(kinds)} files", fix=f"name one kind, as in {path.name}/*{kinds[0]}."
        )
    return [ListFile.below(folder, file) for file in data]


def _check_name(path: Path) -> None:
    """Raises InputError for a path that was found, and cannot be opened by all that reads it."""
    if (fault := fault_of_path(path)) is not None:
        raise InputError(f"{path} {fault}")


def _kind(path: Path) -> str | None:
    """What a folder's file is, by the end of its name; None for what is no list."""
    return next((kind[0] for kind in KINDS if path.suffix.lower() in kind), None)


def is_hidden(path: Path, pattern: Path) -> bool:
    """Whether a path below a list's folder has a part that is no data, which the pattern does not ask for.

    A folder such as _day=7 is a partition.
    """
    asked = tuple(part[0] for part in pattern.parts if part[0] in "._")
    return any(
        part.startswith((".", "_")) and not part.startswith(asked) and not (part[0] == "_" and "=" in part)
        for part in path.parts
    )


def _between(folder: Path, file: Path) -> list[Path]:
    """The folders from a list's folder down to a file."""
    return [parent for parent in file.parents if parent.is_relative_to(folder)]


def refuse_table(folder: Path) -> None:
    """Raises InputError for the folder of a table format: its files hold rows, too, that the table does not have."""
    above = folder.parent if folder.name == "data" else folder
    for kind, place, sign in (("a Delta", folder, "_delta_log"), ("an Iceberg", above, "metadata/*.metadata.json"),
                              ("a Hudi", folder, ".hoodie")):  # fmt: skip
        if next(place.glob(sign), None) is not None:
            raise InputError(
                f"{place} is {kind} table, whose files hold deleted and older rows, too: write the rows that it has now as "
                "plain Parquet into another folder, with the program that made it, and name that folder."
            )


def list_files(
    job: Job, data: JobData, instead: Path | None, scratch: Path, *, rows: bool = True
) -> tuple[list[ListFile], Upstream | None]:
    """The files of a job's list, and the version that they come from if the job is chained.

    instead: the list in place of the job's own. scratch: a folder for the list of a chained job. rows: False for those
    who only look at the columns; such a list is not whole. Raises NotFound for an upstream without a version, InputError,
    SpecError or StoreError.
    """
    if instead is not None:
        return _all_parquet(find_files(instead, "check --input"), scratch), None
    with placing(job):
        if job.spec.input.sql is not None:
            return [_of_query(job, scratch, rows=rows)], None
        if job.spec.input.job is None:
            return _all_parquet(job_files(job), scratch), None
        own_list = partial(_upstream_list, job, data, scratch, rows=rows)
        path, upstream = write_list(job, data, scratch, own_list, rows=rows)
        return [ListFile(path)], upstream


def _all_parquet(files: Sequence[ListFile], scratch: Path) -> list[ListFile]:
    """The same files, those of other kinds as Parquet below `scratch`. Raises InputError."""
    return [
        replace(file, path=parquet_of(file.path, scratch), made_of=file.path) if is_text_file(file.path) else file
        for file in files
    ]


def is_text_file(path: Path) -> bool:
    """Whether a list's file is CSV or JSON lines, by its name."""
    return path.suffix.lower() in (*csv_file.SUFFIXES, *JSON_SUFFIXES)


def parquet_of(path: Path, scratch: Path) -> Path:
    """A Parquet file below `scratch` with the rows of a CSV, whose cells are texts, or of JSON lines. Raises InputError or StoreError."""
    if path.suffix.lower() not in JSON_SUFFIXES:
        return csv_file.as_parquet(path, scratch)
    target = Path(tempfile.mkdtemp(dir=scratch)) / path.name
    lines_as_parquet(path, target)
    return target


def _of_query(job: Job, scratch: Path, *, rows: bool) -> ListFile:
    """What the job's query gives, in a file below `scratch`."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    query_as_parquet(job, folder / "rows.parquet", folder, rows=rows)
    return ListFile(folder / "rows.parquet", made_of=Path("input.sql"), found_by=query_place(job))


def open_list(job: Job, files: Sequence[ListFile], columns: Sequence[str]) -> ListSource:
    """A list of the job's. columns: those that are used beside the key's. Raises InputError, with the field that it does not fit."""
    with placing(job):
        try:
            return ListSource(files, job.spec.input, columns)
        except UnfitList as exc:
            exc.field = exc.at or job.field_asking(exc.column)
            raise


def _upstream_list(job: Job, data: JobData, scratch: Path, *, rows: bool) -> UpstreamList:
    """The list of the job that a chained one follows, as that job's file says. Raises InputError where that is not known."""
    source = JobData(data.root, str(job.spec.input.job))
    bound = source.record().job_file
    if not bound:
        raise InputError(
            f"{job.name} carries {', '.join(job.spec.input.carry)} from the list of {source.name}, whose job file is not known in "
            f"the data folder {data.root}",
            fix=f"batchinfer publish {source.name}",
        )
    upstream = replace(reader.load(bound, {}), roots=job.roots)
    return UpstreamList(upstream, list_files(upstream, source, None, scratch, rows=rows)[0])


def list_columns(
    job: Job, data: JobData, instead: Path | None = None, used: Sequence[str] = ()
) -> tuple[ListSource, Upstream | None]:
    """The list's columns and their kinds, for those who read no rows; and the version that they come from if the job is chained.

    used: columns other than those of the key. Raises NotFound for an upstream without a version, InputError, SpecError or
    StoreError.
    """
    with tempfile.TemporaryDirectory() as folder:
        files, upstream = list_files(job, data, instead, Path(folder), rows=False)
        return open_list(job, files, used), upstream
