"""The public interface in Python: one page, imported lazily, whose examples in docs/python.md run."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import batchinfer
from batchinfer.cli.main import cli
from batchinfer.core.python_words import reworded
from tests.factories import LENIENT, World, imports_job, write
from tests.tiny import RecordingConsole

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PUBLIC = [
    "load_job",
    "Data",
    "plan",
    "run",
    "publish",
    "versions",
    "pin",
    "unpin",
    "rollback",
    "diff",
    "Lookup",
    "AsyncLookup",
    "errors",
]


@pytest.fixture
def seasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The job of the page: two versions of answers by people."""
    made = imports_job(
        tmp_path, {"month": ["July", "May"]}, name="seasons", input={"path": "queries.parquet", "key": ["month"]}, gate=LENIENT,
    )  # fmt: skip
    (tmp_path / "jobs").mkdir()
    (tmp_path / "job").rename(tmp_path / "jobs" / "seasons")
    (tmp_path / "home").rename(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHINFER_HOME", raising=False)
    job, data = batchinfer.load_job("seasons"), batchinfer.Data("data")
    world = World(job, data.of(made.job.name))
    for answer in ("summer", "hot"):
        world.take_in({"month": ["July", "May"], "prediction": [answer, "spring"]})
        if answer == "summer":
            world.publish()
    return world


@pytest.mark.long
def test_the_examples_of_the_page_run(seasons: World) -> None:
    """All blocks of the page, one after the other, as a reader would type them."""
    said: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            exec(compile(block, "docs/python.md", "exec"), said)
    assert (said["report"].version, said["hit"]["prediction"]) == (2, "summer")
    assert out.getvalue().endswith("summer\n")


def test_the_page_names_all_there_is() -> None:
    """Whatever is public is in the page's table, and nothing else is public."""
    table = PAGE.partition("## Everything there is")[2].partition("\n## ")[0].partition("\n\n\n")[0]
    named = set(re.findall(r"`([A-Za-z_]+)(?:\(|`)", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
    assert named == set(PUBLIC)
    assert sorted([*PUBLIC, "__version__"]) == sorted(batchinfer.__all__)
    for name in PUBLIC:
        assert getattr(batchinfer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = batchinfer.nothing


@pytest.mark.long
def test_reports_print_what_the_commands_print(seasons: World) -> None:
    """to_json() of a report is the JSON of the command of that name."""

    def command(*arguments: str) -> Any:
        done = CliRunner().invoke(cli, ["--home", str(seasons.data.root), *arguments, "--json"])
        return json.loads(done.stdout)

    job, data = seasons.job, batchinfer.Data(seasons.data.root)
    assert batchinfer.plan(job, data).to_json() == command("plan", "seasons")
    assert [version.to_json() for version in batchinfer.versions(job, data)] == command("versions", "seasons")
    published = json.loads(json.dumps(batchinfer.publish(job, data).to_json()))
    assert published["version"] == 2
    assert command("publish", "seasons").keys() == published.keys()
    assert batchinfer.diff(job, data, 1, 2).to_json() == command("diff", "seasons", "1", "2")
    assert batchinfer.pin("seasons", data, 1).to_json() == command("pin", "seasons", "1")
    assert batchinfer.unpin("seasons", data).to_json() == command("unpin", "seasons")
    assert batchinfer.rollback(job, data).to_json() == {"job": "seasons", "version": 1, "pinned": 1}


def test_a_run_tells_its_console_and_takes_every_option(seasons: World, tmp_path: Path) -> None:
    """A run from Python takes what the command takes, and says what it did, in the words of Python."""
    other, told = write(tmp_path / "other.parquet", {"month": ["July"]}), RecordingConsole()
    report = batchinfer.run(seasons.job, batchinfer.Data(seasons.data.root), input=other, yes=True, console=told)
    assert f"{report.list_differs} Continue? Yes (yes=True)." in told.said
    assert "--" not in " ".join(told.said)
    assert (report.status, report.rows, report.input) == ("done", 1, str(other))
    with pytest.raises(batchinfer.errors.UsageError, match="no column language"):
        batchinfer.run(seasons.job, batchinfer.Data(seasons.data.root), refresh=("language", "de"), yes=True)


def test_a_candidate_is_published_by_name(seasons: World) -> None:
    """A refused candidate is published as it is, for a reason."""
    strict = seasons.changed(gate=LENIENT | {"changed": 0.0})
    data = batchinfer.Data(strict.data.root)
    with pytest.raises(batchinfer.errors.GateFailed) as refused:
        batchinfer.publish(strict.changed(prompt=None).job, data)
    assert refused.value.report is not None
    name = refused.value.report.to_json()["candidate"]
    with pytest.raises(batchinfer.errors.UsageError, match="needs a reason"):
        batchinfer.publish(strict.job, data, candidate=name, force=" ")
    assert batchinfer.publish(strict.job, data, candidate=name, force="it is right").version == 2


def test_a_name_cannot_lead_out_of_the_data_folder(tmp_path: Path) -> None:
    """What cannot be a job's name is refused before anything is looked for."""
    for name in ("../elsewhere", "", "Shop", "a/b"):
        with pytest.raises(batchinfer.errors.UsageError, match="is not a job's name"):
            batchinfer.pin(name, batchinfer.Data(tmp_path), 1)


def option_sentences() -> Iterator[str]:
    """The texts of the program that name an option, but for docstrings and those of the commands themselves."""
    package = ROOT / "batchinfer"
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "cli") or path.name == "python_words.py":
            continue
        if "--" not in (text := path.read_text(encoding="utf-8")):
            continue
        tree = ast.parse(text)
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for said in (str(node.value) for node in texts if id(node) not in documented):
            if re.search(r"(?:^| |\()--[a-z]", said) and " " in said.strip():
                yield said


def test_options_are_arguments_in_python() -> None:
    """No sentence tells a caller from Python to pass an option, but as a whole command for a shell."""
    found = list(option_sentences())
    assert len(found) > 20
    for sentence in found:
        left = re.sub(r"(?:batchinfer|pip) [a-z]+[^,;:.]*", "", reworded(sentence))
        if not sentence.startswith(" --"):  # the end of a command
            assert "--" not in left, sentence


@pytest.mark.parametrize(
    ("sentence", "python"),
    [
        ("pass --yes to continue with this list, or name the other one with --input.",
         "pass yes=True to continue with this list, or name the other one with input."),
        ("To publish it anyway: --force --why TEXT.", "To publish it anyway: force=TEXT."),
        ("run again with --update-model to use them", "run again with update_model=True to use them"),
        ("batchinfer publish shop --candidate r2 --force --why TEXT", "batchinfer publish shop --candidate r2 --force --why TEXT"),
        ("batchinfer run makes it, or choose another with --home.", "batchinfer run makes it, or choose another."),
        ("There is no file /data/--home/x.parquet.", "There is no file /data/--home/x.parquet."),
    ],
)  # fmt: skip
def test_each_option_has_its_argument(sentence: str, python: str) -> None:
    """Switches are set to True; the data folder is what a caller gave."""
    assert reworded(sentence) == reworded(python) == python


def test_errors_advise_what_a_caller_can_do(seasons: World, tmp_path: Path) -> None:
    """The look-up and every function, in the sentence and in its fix."""
    data, nowhere = batchinfer.Data(seasons.data.root), tmp_path / "nowhere"
    seasons.list_path.unlink()
    for call in (
        lambda: batchinfer.Lookup(nowhere, "seasons"),
        lambda: batchinfer.AsyncLookup(seasons.data.root, "other"),
        lambda: batchinfer.versions("seasons", batchinfer.Data(nowhere)),
        lambda: batchinfer.pin("seasons", data, 99),
        lambda: batchinfer.plan(seasons.job, data),
        lambda: batchinfer.run(seasons.job, data, refresh=("language", "de")),
        lambda: batchinfer.load_job("nowhere"),
    ):
        with pytest.raises(batchinfer.errors.BatchinferError) as refused:
            call()
        assert "--" not in json.dumps(refused.value.to_json()) + str(refused.value)


def test_a_damaged_pointer_is_told(seasons: World) -> None:
    """Listing versions says which pointer counts as missing; an unpin says why it does not know what is served."""
    (seasons.data.folder / "CURRENT").write_text("no")
    told = RecordingConsole()
    data = batchinfer.Data(seasons.data.root)
    assert [version.current for version in batchinfer.versions("seasons", data, console=told)] == [False]
    assert "CURRENT is damaged" in told.said[0]
    assert "CURRENT is damaged" in str(batchinfer.unpin("seasons", data).problem)


def test_packages_are_found_beside_the_functions_of_their_names() -> None:
    """`publish` and `versions` are functions of the package, and packages within it."""
    from batchinfer.publish import gate
    from batchinfer.versions import pointers

    assert callable(batchinfer.publish)
    assert callable(batchinfer.versions)
    assert (gate.__name__, pointers.__name__) == ("batchinfer.publish.gate", "batchinfer.versions.pointers")


@pytest.mark.parametrize("name", ["Lookup", "AsyncLookup", "Data", "load_job", "versions", "pin", "errors"])
def test_nothing_heavy_comes_with_a_name(name: str) -> None:
    """Looking up, and asking for a name, imports neither DuckDB nor Arrow nor vLLM."""
    code = f"import sys, batchinfer; batchinfer.{name}; print(*{{'duckdb', 'pyarrow', 'vllm', 'torch'}} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "\n"


def test_the_data_folder_is_that_of_the_command(tmp_path: Path) -> None:
    """Without a path it is $BATCHINFER_HOME, and else the user's data folder."""
    assert batchinfer.Data(tmp_path).root == tmp_path
    assert batchinfer.Data(environment={"BATCHINFER_HOME": str(tmp_path)}).root == tmp_path
    assert batchinfer.Data(environment={}).root.name == "batchinfer"
