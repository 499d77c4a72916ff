"""Lists whose path has a date, and folders of which the newest file is taken."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from batchinfer.errors import BatchinferError, InputError, SpecError, UsageError
from batchinfer.inputs.files import job_files
from tests.factories import World, imports_job, write


def dated(folder: Path, path: str, **section: object) -> World:
    """A job whose list has such a path."""
    return imports_job(folder, {"id": ["a"]}, input={"path": path, "key": ["id"], **section})


def found(world: World) -> list[tuple[str, str | None]]:
    """The files, below the job's folder, and what names them."""
    return [(str(file.path.relative_to(world.job.folder)), file.found_by) for file in job_files(world.job)]


@pytest.mark.parametrize("ends", ["", "/*.parquet"])
def test_the_newest_date_is_taken(tmp_path: Path, ends: str) -> None:
    """Of those that have a file: the next export's folder may be there already. What is no date is left alone."""
    world = dated(tmp_path, f"in/{{date:%Y-%m-%d}}{ends}")
    for day in ("2025-11-16", "2025-11-23", "2024-12-31"):
        write(world.job.folder / "in" / day / "b.parquet", {"id": [day]})
        write(world.job.folder / "in" / day / "a.parquet", {"id": [day]})
    for name in ("2025-11-30", "2025-99-99", "newest"):
        (world.job.folder / "in" / name).mkdir()
    named = f"in/2025-11-23{ends}"
    assert found(world) == [("in/2025-11-23/a.parquet", named), ("in/2025-11-23/b.parquet", named)]


@pytest.mark.parametrize("folder", ["w[1]", "a*b", "lang=de", "{date:x}"])
def test_a_date_below_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    """The job's folder is a name. A date that is yet to come is mistyped."""
    world = dated(tmp_path / folder, "in/{date:%Y-%m-%d}.csv")
    for day in ("2025-11-16", "2206-11-16"):
        (world.job.folder / "in").mkdir(exist_ok=True)
        (world.job.folder / "in" / f"{day}.csv").write_text("id\na\n", encoding="utf-8")
    assert found(world) == [("in/2025-11-16.csv", "in/2025-11-16.csv")]


def test_another_date_can_be_asked_for(tmp_path: Path) -> None:
    """It must be there."""
    world = dated(tmp_path, "q{date:%Y%m%d}.parquet")
    for day in ("20251116", "20251123"):
        write(world.job.folder / f"q{day}.parquet", {"id": [day]})
    [file] = job_files(world.job.at_date(date(2025, 11, 16)))
    assert file.path.name == "q20251116.parquet"
    with pytest.raises(InputError, match=r"There is no list of 2025-11-17 in .*q\{date:%Y%m%d\}\.parquet"):
        job_files(world.job.at_date(date(2025, 11, 17)))


def test_no_date_at_all(tmp_path: Path) -> None:
    """It is said which pattern finds nothing."""
    with pytest.raises(InputError, match="There is no list of any date in"):
        job_files(dated(tmp_path, "in/{date:%Y-%m-%d}/*.parquet").job)


def test_a_date_of_a_list_without_one(tmp_path: Path) -> None:
    """There is nothing to choose."""
    with pytest.raises(UsageError, match=r"The list of shop is not chosen by a date: put one into input\.path"):
        dated(tmp_path, "queries.parquet").job.at_date(date(2026, 1, 1))


def test_two_dates_are_refused_with_their_line(tmp_path: Path) -> None:
    """When the job file is read."""
    with pytest.raises(SpecError, match=r"line 3: input\.path: has 2 dates, and can have one"):
        dated(tmp_path, "{date:%Y-%m-%d}/{date:%Y-%m-%d}.parquet")


def test_a_date_leads_nowhere_else(tmp_path: Path) -> None:
    """A link of the newest date out of the job's folder is refused, and not passed over."""
    world = dated(tmp_path, "in/{date:%Y-%m-%d}/*.parquet")
    write(world.job.folder / "in" / "2025-01-01" / "a.parquet", {"id": ["a"]})
    write(tmp_path / "outside" / "a.parquet", {"id": ["b"]})
    (world.job.folder / "in" / "2025-01-02").symlink_to(tmp_path / "outside")
    with pytest.raises(BatchinferError, match="outside the job's folder"):
        job_files(world.job)


def test_the_newest_file_is_taken(tmp_path: Path) -> None:
    """By when it was written; of two at one moment the last by name. Of any kind of list; hidden names are none."""
    world = dated(tmp_path, "in/", pick="newest")
    for number, name in enumerate(["c.parquet", "b.parquet", "a.parquet", ".d.parquet"]):
        path = write(world.job.folder / "in" / name, {"id": [name]})
        os.utime(path, (1_000_000 + min(number, 1), 1_000_000 + min(number, 1)))
    assert found(world) == [("in/b.parquet", "in/b.parquet")]


def test_a_folder_of_two_kinds_is_refused(tmp_path: Path) -> None:
    """Which of them is the list? Not so with pick, which takes the newest; hidden files do not count."""
    world = dated(tmp_path, "in/")
    for name, seconds in (("old.parquet", 1_000), ("new.CSV", 2_000)):
        path = write(world.job.folder / "in" / name, {"id": [name]})
        os.utime(path, (seconds, seconds))
    with pytest.raises(InputError, match=r"in holds \.csv and \.parquet files: name one kind, as in in/\*\.csv"):
        job_files(world.job)
    newest = world.changed(input={"path": "in/", "pick": "newest", "key": ["id"]})
    assert found(newest) == [("in/new.CSV", "in/new.CSV")]
    (world.job.folder / "in" / "old.parquet").rename(world.job.folder / "in" / "_old.parquet")
    assert found(world) == [("in/new.CSV", None)]
