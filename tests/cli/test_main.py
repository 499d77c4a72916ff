"""batchinfer itself: its help, its version, and calls that it does not understand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.cli.common import table
from batchinfer.cli.main import COMMANDS, cli
from batchinfer.core.version import __version__
from tests.tiny import Cli


def loaded(*arguments: str) -> set[str]:
    """The modules that Python has loaded when the command, or without arguments `import click`, is done."""
    program = (
        "import sys; sys.argv[0] = 'batchinfer'; from batchinfer.cli.main import main\n"
        "try: main()\nexcept SystemExit as exc: print(exc.code, *sys.modules, file=sys.stderr)"
    )
    click_alone = "import sys, click; print(0, *sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", program if arguments else click_alone, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    return set(modules)


def test_help_is_quick() -> None:
    """--help loads little more than click, and so answers in a moment."""
    assert len(loaded("--help") - loaded()) < 40


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        (
            ["--help"],
            ["duckdb", "pyarrow", "vllm", "torch", "pydantic", "transformers", "lmdb", "rich", "jinja2", "yaml"],
        ),
        (["run", "--help"], ["duckdb", "pyarrow", "vllm", "torch", "transformers", "rich"]),
        (["lookup", "shop", "text=one"], ["duckdb", "pyarrow", "vllm", "torch", "transformers"]),
        (["versions", "shop"], ["duckdb", "pyarrow", "vllm", "torch", "transformers"]),
        (["match", "shop", "one, two"], ["duckdb", "pyarrow", "vllm", "torch", "transformers"]),
    ],
)
def test_nothing_heavy_is_imported_unasked(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str], forbidden: list[str]
) -> None:
    """Help imports none of the big libraries, and what serves imports none of those that generate."""
    if command[0] in ("lookup", "match", "versions"):
        shop(match={"terms": ["text"], "concept": "text"})
        assert batchinfer("run", "shop").code == 0
    assert not set(forbidden) & loaded(*command)


def test_help_lists_all_commands(batchinfer: Cli) -> None:
    """--help names every command of the contract with its sentence, and the data folder's option."""
    shown = batchinfer("--help")
    assert shown.code == 0
    assert "--home" in shown.out
    assert all(f"  {name} " in shown.out and sentence in shown.out for name, (_, sentence) in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(batchinfer: Cli, name: str) -> None:
    """Each command says what it does in a sentence, and each of its options has one too; results can be had as JSON."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for one in command.commands.values() if isinstance(command, click.Group) else [command]:
        assert one.help
        assert one.help[0].isupper()
        options = [option for option in one.params if isinstance(option, click.Option)]
        assert all(option.help for option in options)
        assert isinstance(command, click.Group) or "--json" in [text for option in options for text in option.opts]
    shown = batchinfer(name, "--help")
    assert shown.code == 0
    assert f"batchinfer {name} " in shown.out.splitlines()[0]


def test_the_version_is_shown(batchinfer: Cli) -> None:
    """--version says which version this is."""
    assert batchinfer("--version").out == f"batchinfer, version {__version__}\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["rnu"], "There is no command rnu; did you mean run? Try: "),
        (["xyzzy"], "There is no command xyzzy. Try: "),
        (["versions", "shop", "z"], "Got unexpected extra argument (z). Try: batchinfer versions --help"),
        (["run"], "Missing argument 'JOB'. Try: "),
        (["run", "shop", "--limit", "x"], "'x' is not a valid integer range. Try: "),
        (["run", "shop", "--limt", "3"], "No such option '--limt'"),
        (["run", "shop", "--limit", "0"], "Invalid value for '--limit'"),
        (["run", "shop", "--max-hours", "0"], "Invalid value for '--max-hours'"),
        (["run", "shop", "--refresh", "text"], "text should be COLUMN=VALUE"),
        (["lookup", "shop"], "Missing argument 'COLUMN=VALUE...'"),
        (["lookup", "shop", "one"], "one should be COLUMN=VALUE, such as language=de."),
        (["import", "shop"], "Give either a FILE, or --list, or --undo ID."),
        (["import", "shop", "x.parquet", "--list"], "Give either a FILE, or --list, or --undo ID."),
        (["export", "shop", "nowhere/x.parquet"], "does not exist: make it first."),
        (
            ["plan", "shpo"],
            "There is no job shpo: neither jobs/shpo/job.yaml nor shpo/job.yaml exists; did you mean shop?",
        ),
        (["init", "Shop"], "A job's name is lower case"),
        (["init", "shop"], "jobs/shop exists already"),
    ],
)
def test_bad_usage(batchinfer: Cli, shop: Callable[..., Path], command: list[str], sentence: str) -> None:
    """Bad usage ends with one sentence and exit code 2, and does nothing."""
    shop(None, model=None, prompt=None)
    if command[0] == "lookup":
        answers = {"text": ["one", "two", "three"], "prediction": ["1", "2", "3"]}
        pq.write_table(pa.table(answers), "answers.parquet")
        batchinfer("import", "shop", "answers.parquet")
        batchinfer("publish", "shop")
    done = batchinfer(*command)
    assert done.code == 2, done
    assert sentence in done.sentence
    assert done.out == ""


@pytest.mark.parametrize(
    "command", [["versions", "sho"], ["jobs", "remove", "sho", "--yes"], ["lookup", "sho", "text=a"]]
)
def test_a_job_that_only_the_data_folder_might_have(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str]
) -> None:
    """Who only reads is asked whether a job of the data folder was meant, and not told to make one."""
    shop(None, model=None, prompt=None)
    pq.write_table(pa.table({"text": ["one", "two", "three"], "prediction": ["1", "2", "3"]}), "answers.parquet")
    batchinfer("import", "shop", "answers.parquet")
    shutil.rmtree("jobs")
    done = batchinfer(*command)
    assert done.code == 6
    assert done.sentence.startswith("There is no job sho, neither in the data folder ")
    assert done.sentence.endswith(" nor as jobs/sho/job.yaml: did you mean shop?")
    assert batchinfer("versions", "xyzzy").sentence.endswith(": the data folder has shop.")


def test_a_title_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A title that is wider than its table, or than the terminal, is not broken."""
    monkeypatch.setenv("COLUMNS", "20")
    table("Refused by the gate, for example", ["check"], [["rows"]])
    assert "Refused by the gate, for example" in capsys.readouterr().out.splitlines()


def test_a_command_without_jobs(batchinfer: Cli) -> None:
    """Where there are no jobs at all, the sentence says how to make one."""
    assert "make one with batchinfer init" in batchinfer("run", "shop").sentence
