"""The benchmarks can be started: each by the command that its docstring, the docs and the Makefile give."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import cldr
from tests.tiny import ROOT

MODULES = sorted(path.stem for path in ROOT.glob("benchmarks/*.py"))
HELPERS = {"builds", "carriers", "cldr", "made", "matched", "paced", "peers", "servers"}
BENCHMARKS = [name for name in MODULES if name not in HELPERS]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Starts a benchmark in this process, which has most of what they import; returns what it ended with."""

    def _start(name: str, *options: str) -> object:
        module = importlib.import_module(f"benchmarks.{name}")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        with pytest.raises(SystemExit) as ended:
            module.main()
        return ended.value.code

    return _start


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_shows_its_help(
    name: str, start: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what it measures and how it is called, and is a script."""
    assert start(name, "--help") == 0
    said = capsys.readouterr()
    text = (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")
    assert text.rstrip().endswith('if __name__ == "__main__":\n    main()')
    doc = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
    assert f"    python -m benchmarks.{name} [--" in doc
    assert doc.split()[:5] == said.out.partition("\n\n")[2].split()[:5]
    assert not said.err


@pytest.mark.parametrize("name", sorted(HELPERS))
def test_what_they_share_imports(name: str) -> None:
    """Modules that are no benchmark can be imported, and say what they are for."""
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_make_bench_runs_all() -> None:
    """`make bench` runs each benchmark, but that of look-ups in process alone, which is a part of that of serving."""
    called = re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {*called, "inprocess"} == set(BENCHMARKS)


def test_the_docs_call_benchmarks_that_are_there() -> None:
    """A figure's command names a benchmark."""
    called = re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "docs/performance.md").read_text(encoding="utf-8"))
    assert set(called) <= set(BENCHMARKS)
    assert called


@pytest.mark.parametrize("name", ["matching", "serving", "swapping"])
def test_without_wrk_they_say_so(name: str, start: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    """They end with one sentence before they make anything."""
    monkeypatch.setenv("PATH", "/nonexistent")
    said = str(start(name))
    assert said.startswith("wrk is not installed.")
    assert "\n" not in said


def test_without_its_data_matching_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with one sentence where the terms are not to be had."""
    missing = tmp_path / "nothing.tgz"
    monkeypatch.setenv("PATH", "/nonexistent")
    for given, said in (
        (missing, f"There is no {missing}: "),
        (tmp_path, f"{tmp_path} has no annotations.json below it: "),
        (None, "npm is not installed. "),
    ):
        with pytest.raises(SystemExit) as ended:
            cldr.read(given, tmp_path)
        assert str(ended.value).startswith(said)
