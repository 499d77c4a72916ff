"""What people get wrong in lists and job files, told in a sentence by every command that meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.factories import LENIENT
from tests.tiny import Cli

# --- bad input: the list


def replace_list(folder: Path, content: bytes) -> None:
    (folder / "queries.parquet").write_bytes(content)


def empty(folder: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "queries.parquet")


def truncated(folder: Path) -> None:
    replace_list(folder, (folder / "queries.parquet").read_bytes()[:-20])


BAD_LISTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such file": (lambda folder: (folder / "queries.parquet").unlink(), "input.path: there is no file"),
    "an empty list": (empty, "has no rows: an empty list would remove everything that is served"),
    "text": (
        lambda folder: replace_list(folder, b"text\none\n"),
        "is not Parquet: write it as Parquet, or as CSV or JSON lines",
    ),
    "an empty file": (
        lambda folder: replace_list(folder, b""),
        "is not Parquet: write it as Parquet, or as CSV or JSON lines",
    ),
    "half a file": (truncated, "is truncated or corrupt"),
    "a column missing": (
        lambda folder: pq.write_table(pa.table({"txt": ["a"]}), folder / "queries.parquet"),
        "jobs/shop/job.yaml: line 5: input.key.0: queries.parquet has no column text: did you mean txt?",
    ),
    "a key of lists": (
        lambda folder: pq.write_table(pa.table({"text": [["a"]]}), folder / "queries.parquet"),
        "a lookup key must be a plain value",
    ),
    "a column of nothing": (
        lambda folder: pq.write_table(pa.table({"text": pa.array([None], pa.null())}), folder / "queries.parquet"),
        "The column text is null",
    ),
}


@pytest.mark.parametrize("command", ["plan", "run", "publish"])
@pytest.mark.parametrize("fault", BAD_LISTS)
@pytest.mark.long
def test_a_list_that_cannot_be_used(batchinfer: Cli, ran: Path, fault: str, command: str) -> None:
    """A list that is missing, empty or damaged ends with one sentence and exit code 2; what is served still is."""
    spoil, sentence = BAD_LISTS[fault]
    folder = ran
    spoil(folder)
    done = batchinfer(command, "shop")
    assert done.code == 2, done.err
    assert sentence in done.sentence
    assert batchinfer("lookup", "shop", "text=one").code == 0


def test_another_list_that_is_not_there(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """--input with a path that leads nowhere, or to a folder without lists, is said."""
    shop()
    Path("void").mkdir()
    assert "There is no file" in batchinfer("plan", "shop", "--input", "gone.parquet").sentence
    assert "holds no .parquet, .csv or .jsonl file" in batchinfer("plan", "shop", "--input", "void").sentence


@pytest.mark.long
def test_rows_that_cannot_be_used(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Bad rows are failures with a reason each, and the good row beside them is served."""
    texts = pa.array([b"good", b"latin \xe9", None, b"", b"same", b"same", b"odd"], pa.binary())
    table = pa.table({
        "text": pa.Array.from_buffers(pa.string(), len(texts), texts.buffers()),
        "age": ["1", "2", "3", "4", "5", "6", "old"],
    })  # fmt: skip
    folder = shop(
        prompt={"template": "{{ text }} {{ age }}"},
        input={"path": "queries.parquet", "key": ["text"], "types": {"age": "integer"}},
        gate=LENIENT,
    )
    pq.write_table(table, folder / "queries.parquet")
    assert batchinfer("run", "shop", "--json").json["bad"] == 6
    reasons = sorted(row["reason"] for row in batchinfer("failures", "shop", "--json").json)
    assert reasons == ["conflicting_rows", "conflicting_rows", "empty_key", "not_utf8", "null_key", "wrong_type"]
    assert batchinfer("lookup", "shop", "text=good", "--json").json["prediction"] == "good 1"
    assert batchinfer("failures", "shop").code == 0


# --- bad input: the job file


BAD_JOB_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "a typo": ({"promt": {"template": "x"}}, "promt: there is no such field; did you mean prompt?"),
    "a typo further in": (
        {"prompt": {"template": "{{ text }}", "sytem": "x"}}, "prompt.sytem: there is no such field; did you mean system?",
    ),
    "an unknown column": (
        {"prompt": {"template": "{{ txet }}"}}, "prompt.template: queries.parquet has no column txet: did you mean text?",
    ),
    "no column": ({"prompt": {"template": "hello"}}, "prompt.template: uses no column"),
    "Python's internal names": (
        {"prompt": {"template": "{{ text.__class__.__mro__ }}"}}, "is an internal name of Python, which a template may not use",
    ),
    "Python's internal names by a filter": ({"prompt": {"template": "{{ text | attr('__class__') }}"}}, "is an internal name of Python"),
    "a broken template": ({"prompt": {"template": "{{ text"}}, "prompt.template, line 1:"),
    "a path out of the folder": (
        {"input": {"path": "../../secret.parquet", "key": ["text"]}}, "input.path: ../../secret.parquet is outside the job's folder",
    ),
    "an absolute path": ({"input": {"path": "/etc/passwd", "key": ["text"]}}, "/etc/passwd is outside the job's folder"),
    "a model without a prompt": ({"prompt": None}, "has model but no prompt"),
    "too many shots": ({"prompt": {"template": "{{ text }}", "shots": 2}}, "prompt.shots: is 2, but the job has only 0 examples"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("fault", BAD_JOB_FILES)
def test_a_job_file_that_is_off(batchinfer: Cli, shop: Callable[..., Path], fault: str, command: str) -> None:
    """A fault in the job file is named with its place and exit code 2, without a traceback."""
    sections, sentence = BAD_JOB_FILES[fault]
    pq.write_table(pa.table({"text": ["secret"]}), "secret.parquet")
    shop(**sections)
    done = batchinfer(command, "shop")
    assert done.code == 2, done.err
    assert done.err.startswith("batchinfer: ")
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2


def test_a_link_that_leads_out_of_the_folder(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A link in the job's folder does not make what lies elsewhere readable; an allowed root does."""
    folder = shop()
    elsewhere = Path("elsewhere").absolute()
    elsewhere.mkdir()
    (folder / "queries.parquet").rename(elsewhere / "queries.parquet")
    (folder / "queries.parquet").symlink_to(elsewhere / "queries.parquet")
    assert "outside the job's folder" in batchinfer("plan", "shop").err


def test_every_fault_of_a_job_file_is_said_at_once(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A job file with several faults is answered with all of them, each with its line."""
    folder = shop(gate={"coverage": 2}, keep_version=3)
    done = batchinfer("plan", "shop")
    assert done.code == 2
    head, *faults = done.err.splitlines()
    assert head == f"batchinfer: {folder / 'job.yaml'} has 2 problems:"
    assert all(fault.startswith("  line ") for fault in faults)


@pytest.mark.parametrize("content", [b"name: [", b"", b"- 1\n", b"name: \xff\xfe", b"name: shop\nname: shop\n"])
def test_a_job_file_that_cannot_be_read(batchinfer: Cli, shop: Callable[..., Path], content: bytes) -> None:
    """A job file that is not YAML, or not a mapping, is said to be that."""
    folder = shop()
    (folder / "job.yaml").write_bytes(content)
    done = batchinfer("plan", "shop")
    assert done.code == 2
    assert done.err.startswith(f"batchinfer: {folder / 'job.yaml'} ")
    assert "Traceback" not in done.err
