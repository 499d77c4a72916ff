"""The benchmarks can be started: each by the command that its docstring, the docs and the Makefile give."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cldr
from tests.tiny import ROOT

MODULES = sorted(path.stem for path in ROOT.glob("benchmarks/*.py"))
HELPERS = {"builds", "carriers", "cldr", "made", "matched", "peers", "servers"}
BENCHMARKS = [name for name in MODULES if name not in HELPERS]


def start(name: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment or None, check=False, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.long
def test_each_benchmark_shows_its_help(name: str) -> None:
    """It imports what it needs, and says what it measures and how it is called."""
    done = start(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__ is not None
    assert f"    python -m benchmarks.{name} [--" in module.__doc__
    assert module.__doc__.split()[:5] == done.stdout.partition("\n\n")[2].split()[:5]


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
@pytest.mark.long
def test_without_wrk_they_say_so(name: str) -> None:
    """They end with one sentence before they make anything."""
    done = start(name, PATH="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.startswith("wrk is not installed.")
    assert done.stderr.count("\n") == 1


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
