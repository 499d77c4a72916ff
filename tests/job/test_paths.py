"""Paths that a job file names: where they may lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.errors import BatchinferError, SpecError
from batchinfer.job import reader
from batchinfer.job.reader import ROOTS_VARIABLE, Job
from tests.job.files import write_job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job with a folder beside it that it may not read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.parquet").touch()
    (tmp_path / "shop-other").mkdir()
    return reader.load(str(write_job(tmp_path / "shop")), {})


@pytest.mark.parametrize(
    "text", ["queries.parquet", "./data", "data/*.parquet", "data/../q.parquet", "**/*.parquet", ".", "a[1].parquet"]
)
def test_a_path_below_the_job_is_allowed(job: Job, text: str) -> None:
    """A file, a folder or a glob below the job's folder is made absolute, whether it exists or not."""
    found = job.inside("input.path", text)
    assert found.is_absolute()
    assert found.is_relative_to(job.folder)


@pytest.mark.parametrize(
    "text",
    [
        "..", "../outside/secret.parquet", "data/../../outside", "*/../../outside/*", "../shop-other/q.parquet", "/etc/passwd",
        "{outside}/secret.parquet", "{outside}/*.parquet", "/", "../*/secret.parquet", "${ELSEWHERE}/secret.parquet",
    ],
)  # fmt: skip
def test_a_path_that_leaves_the_job_is_refused(job: Job, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """.., absolute paths, globs and variables lead nowhere outside the job's folder."""
    outside = job.folder.parent / "outside"
    monkeypatch.setenv("ELSEWHERE", str(outside))
    text = text.replace("{outside}", str(outside))
    with pytest.raises(SpecError) as caught:
        job.inside("input.path", text)
    [problem] = caught.value.problems
    assert problem.startswith(
        f"line 2: input.path: {text} is outside the job's folder: put it there, or name its root in $BATCHINFER_INPUT_ROOTS"
    )


def test_the_folder_to_allow_is_named(job: Job) -> None:
    """As a command that a shell takes; never the root of all files."""
    outside = job.folder.parent / "the lists"
    outside.mkdir()
    for text, ends in ((f"{outside}/*.parquet", f": export BATCHINFER_INPUT_ROOTS='{outside}'."), ("/", "ROOTS.")):
        with pytest.raises(SpecError) as caught:
            job.inside("input.path", text)
        assert caught.value.problems[0].endswith(ends)


@pytest.mark.parametrize(
    "text", ["link/secret.parquet", "link", "link/*.parquet", "file.parquet", "file[1].parquet", "inner/../link"]
)
def test_a_link_that_leaves_the_job_is_refused(job: Job, text: str) -> None:
    """A link below the job's folder leads nowhere outside of it."""
    outside = job.folder.parent / "outside"
    (job.folder / "link").symlink_to(outside)
    (job.folder / "file.parquet").symlink_to(outside / "secret.parquet")
    (job.folder / "file[1].parquet").symlink_to(outside / "secret.parquet")
    with pytest.raises(SpecError):
        job.inside("input.path", text)


def test_a_link_within_the_job_is_allowed(job: Job) -> None:
    """A link to another place below the job's folder is as good as that place."""
    (job.folder / "real").mkdir()
    (job.folder / "latest").symlink_to(job.folder / "real")
    assert job.inside("input.path", "latest/q.parquet") == job.folder / "latest" / "q.parquet"


def test_a_link_that_leads_in_a_circle_is_a_file_that_is_not_there(job: Job) -> None:
    """What opens it says so."""
    (job.folder / "circle").symlink_to(job.folder / "circle")
    assert job.inside("input.path", "circle/q.parquet") == job.folder / "circle" / "q.parquet"


def test_a_job_may_itself_be_reached_by_a_link(tmp_path: Path) -> None:
    """A job whose folder is a link reads what lies in it."""
    write_job(tmp_path / "releases" / "42")
    (tmp_path / "shop").symlink_to(tmp_path / "releases" / "42")
    job = reader.load(str(tmp_path / "shop"), {})
    assert job.inside("input.path", "q.parquet") == tmp_path / "shop" / "q.parquet"


@pytest.mark.parametrize("name", ["[old] jobs", "what?", "a*b"])
def test_a_folder_named_like_a_glob_is_a_folder(tmp_path: Path, name: str) -> None:
    """Signs of a glob in the name of the job's own folder do not make its files unreachable."""
    job = reader.load(str(write_job(tmp_path / name / "shop")), {})
    assert job.inside("input.path", "q.parquet") == tmp_path / name / "shop" / "q.parquet"


def test_roots_allow_more(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that the environment names may be read, with what lies below them and nothing beside them."""
    outside, other = job.folder.parent / "outside", job.folder.parent / "shop-other"
    roots = f"{other}/../{outside.name}:{job.folder.parent / 'nowhere'}"
    allowed = reader.load(str(job.path), {ROOTS_VARIABLE: roots})
    monkeypatch.setenv("LISTS", str(outside))
    assert allowed.inside("input.path", str(outside / "*.parquet")) == outside / "*.parquet"
    assert allowed.inside("input.path", "../outside/secret.parquet") == outside / "secret.parquet"
    assert allowed.inside("input.path", "${LISTS}/secret.parquet") == outside / "secret.parquet"
    with pytest.raises(SpecError):
        allowed.inside("input.path", str(other / "q.parquet"))


@pytest.mark.parametrize("roots", ["", ":", "::"])
def test_an_empty_list_of_roots_allows_nothing(job: Job, roots: str) -> None:
    """An empty entry in the variable is not the current folder."""
    allowed = reader.load(str(job.path), {ROOTS_VARIABLE: roots})
    assert allowed.roots == ()
    with pytest.raises(BatchinferError):
        allowed.inside("input.path", str(Path.cwd() / "q.parquet"))


def test_a_link_below_one_root_may_not_lead_out_of_all(job: Job) -> None:
    """A link is followed only as far as the root that it lies in."""
    outside, other = job.folder.parent / "outside", job.folder.parent / "shop-other"
    (other / "link").symlink_to(outside)
    allowed = reader.load(str(job.path), {ROOTS_VARIABLE: str(other)})
    with pytest.raises(SpecError):
        allowed.inside("input.path", str(other / "link" / "secret.parquet"))
