"""Errors that nobody foresaw: a sentence, a log file, exit code 1, and one JSON value with --json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batchinfer.job import reader
from tests.tiny import Cli


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Makes reading a job file raise what nobody foresaw."""

    def make(exc: Exception) -> None:
        def parse(*_: object) -> None:
            raise exc

        monkeypatch.setattr(reader, "parse", parse)

    return make


@pytest.mark.parametrize(
    "exc", [KeyError("lost"), RecursionError("deep"), ValueError("a\nb"), AssertionError(), TypeError("\ud800")]
)
def test_a_person_gets_a_sentence_and_a_log(
    batchinfer: Cli, shop: Callable[..., Path], broken: Callable[[Exception], None], tmp_path: Path, exc: Exception
) -> None:
    """The sentence names the error and a file with its traceback, which only this user can read."""
    shop()
    broken(exc)
    done = batchinfer("plan", "shop")
    assert done.code == 1
    assert done.sentence.startswith(f"An unexpected error ended this: {type(exc).__name__}")
    [log] = tmp_path.glob("batchinfer-*.log")
    assert f"with the log file {log}; it may quote your data" in done.sentence
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o77 == 0


def test_a_machine_gets_one_value(
    batchinfer: Cli, shop: Callable[..., Path], broken: Callable[[Exception], None]
) -> None:
    """With --json the error is the one value on stdout, and the sentence is on stderr."""
    shop()
    broken(KeyError("lost"))
    error = batchinfer("plan", "shop", "--json").json["error"]
    assert (error["code"], error["exit_code"]) == ("unforeseen", 1)
    assert "KeyError" in error["message"]
    assert error["fix"].startswith("Please report it")


def test_a_variable_shows_the_traceback(
    batchinfer: Cli, shop: Callable[..., Path], broken: Callable[[Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """BATCHINFER_TRACEBACK=1 prints the traceback, too."""
    shop()
    broken(KeyError("lost"))
    monkeypatch.setenv("BATCHINFER_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in batchinfer("plan", "shop").err


def test_memory_that_is_used_up_is_no_fault_to_report(
    batchinfer: Cli, shop: Callable[..., Path], broken: Callable[[Exception], None], tmp_path: Path
) -> None:
    """A machine without memory is told as that."""
    shop()
    broken(MemoryError())
    assert batchinfer("plan", "shop").sentence.startswith("This machine is out of memory.")
    assert not list(tmp_path.glob("batchinfer-*.log"))


@pytest.mark.parametrize(
    "arguments",
    [("plan", "x" * 300), ("versions", "x" * 300), ("--home", "x" * 300, "versions", "shop"), ("init", "x" * 300),
     ("--home", "x" * 300, "jobs"), ("import", "shop", "x" * 300), ("plan", "shop", "--input", "x" * 300),
     ("doctor", "x" * 300), ("diff", "x" * 300, "1", "2"), ("plan", "a\udcff"), ("versions", "a\udcff"),
     ("--home", "a\udcff", "versions", "shop"), ("lookup", "shop", "text=\udcff"), ("import", "shop", "a\udcff")],
)  # fmt: skip
def test_names_that_no_file_can_have_are_refused(
    batchinfer: Cli, shop: Callable[..., Path], arguments: tuple[str, ...]
) -> None:
    """Names that are too long, and those of the command line that are not UTF-8, are told in a sentence and as JSON."""
    shop()
    done = batchinfer(*arguments, "--json")
    assert done.code in (2, 6)
    assert len(done.sentence) < 900
    assert done.json["error"]["exit_code"] == done.code
